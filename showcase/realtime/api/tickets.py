"""POST /realtime/tickets: what a WebSocket is opened with.

A browser can send no Authorization header along with a WebSocket, and whatever is in its URL ends up in logs. So
whoever holds an access token trades it for a ticket, which works once and not for long.
"""

from typing import Annotated

from fastapi import APIRouter, Depends
from pydantic import BaseModel

from showcase.kernel.principal import Principal
from showcase.platform.web.callers import MissingToken, caller
from showcase.platform.web.problems import documented
from showcase.realtime.application.messages import SUBPROTOCOL
from showcase.realtime.application.ports import Tickets


class Ticket(BaseModel):
    """Either the first message has it, or the handshake: `Sec-WebSocket-Protocol: showcase.v1, ticket.{ticket}`."""

    ticket: str
    expires_in: float
    """Seconds."""
    subprotocol: str = SUBPROTOCOL


def ticket_routes(tickets: Tickets, lifetime_s: float) -> APIRouter:
    """The one route."""
    router = APIRouter(tags=["realtime"])

    @router.post("/realtime/tickets", status_code=201, responses=documented(MissingToken))
    async def issue(principal: Annotated[Principal, Depends(caller)]) -> Ticket:
        """A ticket for one WebSocket."""
        return Ticket(ticket=await tickets.issue(principal), expires_in=lifetime_s)

    return router
