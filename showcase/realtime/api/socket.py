"""The WebSocket `/ws` (RFC 6455), subprotocol `showcase.v1` (`application.messages`).

Closed with 1007 and 1009 for what is no UTF-8 and too large; with 1008 for what is against the rules, when the token
expires and when the session ends; 1011 when something broke, 1012 when the process stops, and 1013 when there are too
many connections or one does not keep up: the last three are to come back.
"""

import asyncio
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from fastapi import APIRouter
from pydantic import ValidationError
from starlette.routing import WebSocketRoute
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from showcase.kernel.errors import DomainError, Invalid, TooMany, Unauthenticated, Unavailable
from showcase.kernel.principal import SENSITIVE, Principal
from showcase.platform.web.allowance import Allowance
from showcase.platform.web.origins import UntrustedOrigin, is_trusted
from showcase.platform.web.problems import response_of, status_of, title_of, type_of
from showcase.platform.web.protocols import AT_ONCE
from showcase.realtime.application.clients import (
    GOING_AWAY,
    INTERNAL_ERROR,
    POLICY_VIOLATION,
    TOO_BIG,
    TRY_AGAIN_LATER,
    Client,
    Closing,
)
from showcase.realtime.application.hub import Hub
from showcase.realtime.application.messages import (
    ASKED,
    SUBPROTOCOL,
    Ack,
    Asked,
    Error,
    Hello,
    Ping,
    Pong,
    Subscribe,
    Unsubscribe,
    Welcome,
)
from showcase.realtime.application.ports import BadTicket, HasEnded, Tickets
from showcase.realtime.domain import Place, Topic

log = structlog.get_logger()

TICKET = "ticket."
MAX_MESSAGE_BYTES = 64 * 1024
HELLO_WITHIN_S = 5.0
IDLE_S = 60.0
CLOSE_WITHIN_S = 5.0
MAX_MALFORMED = 5
RATE, BURST = 20.0, 100
"""Messages a second, and how many at once."""


class NoSubprotocol(Invalid):
    """The handshake does not offer the subprotocol that is spoken here."""


class MalformedMessage(Invalid):
    """The message cannot be read."""


class TooManyMessages(TooMany):
    """One connection says no more than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Who is let in.

    Attributes:
        trusted_origins: whose pages may connect, besides the app's own.
    """

    tickets: Tickets
    has_ended: HasEnded
    trusted_origins: Collection[str] = ()

    async def principal_of(self, ticket: str) -> Principal:
        """Raises BadTicket, also when the session has ended meanwhile; Unavailable."""
        principal = await self.tickets.redeem(ticket)
        sensitive = not SENSITIVE.isdisjoint(principal.scopes)
        if principal.session_id is not None and await self.has_ended(principal.session_id, sensitive=sensitive):
            raise BadTicket("a ticket works once, within half a minute: ask for another one")
        return principal


class _Ended(Exception):
    """The connection is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.closing = Closing(code, reason)


def socket_route(hub: Hub, door: Door) -> APIRouter:
    """The one route."""
    return APIRouter(routes=[WebSocketRoute("/ws", _Endpoint(hub, door))])


@dataclass(frozen=True, slots=True)
class _Endpoint:
    """Plain ASGI: what is sent to a thousand goes to the server at once, not through the layers of a framework."""

    hub: Hub
    door: Door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        websocket = WebSocket(scope, receive, send)
        try:
            ticket = _handshake(websocket, self.door.trusted_origins)
        except DomainError as error:
            await websocket.send_denial_response(response_of(error))
            return
        await websocket.accept(SUBPROTOCOL)
        client = Client(scope.get("extensions", {}).get(AT_ONCE, lambda _: False))
        self.hub.join(client)
        reading = asyncio.create_task(_read(websocket, client, self.hub, self.door, ticket))
        writing = asyncio.create_task(_write(websocket, send, client))
        try:
            first: set[asyncio.Future[Any]] = {reading, writing, client.closing}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and (closing := _why(reading.exception())):
                client.close(closing.code, closing.reason)
            if client.closing.done():  # one that is stalled does not even take its close
                await asyncio.wait({writing}, timeout=CLOSE_WITHIN_S)
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            self.hub.leave(client)  # last: reading may have been about to subscribe


def _handshake(websocket: WebSocket, trusted: Collection[str]) -> str | None:
    """The ticket, if it comes along. Raises NoSubprotocol, UntrustedOrigin."""
    origin = websocket.headers.get("origin")
    if origin is not None and not is_trusted(origin, websocket.headers.get("host", ""), trusted):
        raise UntrustedOrigin("a page of another site may not open this")  # no Origin: no browser, no cookies, no risk
    offered = websocket.scope["subprotocols"]
    if SUBPROTOCOL not in offered:
        raise NoSubprotocol(f"send Sec-WebSocket-Protocol: {SUBPROTOCOL}")
    return next((one.removeprefix(TICKET) for one in offered if one.startswith(TICKET)), None)


def _why(error: BaseException | None) -> Closing | None:
    """How to close a connection on which reading ended so; None where nobody is there any more."""
    if isinstance(error, WebSocketDisconnect):
        return None
    if isinstance(error, _Ended):
        return error.closing
    log.error("unhandled", path="/ws", exc_info=error)
    return Closing(INTERNAL_ERROR, "something broke, and it is our fault")


async def _read(websocket: WebSocket, client: Client, hub: Hub, door: Door, ticket: str | None) -> None:
    """Do what the client asks for. Raises _Ended, WebSocketDisconnect."""
    await _greet(websocket, client, hub, door, ticket)
    allowance, malformed = Allowance(RATE, BURST), 0
    while True:
        ref = None
        try:
            message = await _next(websocket, client)
            ref = message.ref
            if not isinstance(message, Ack) and not allowance.take():
                raise TooManyMessages(f"no more than {RATE:g} messages a second", retry_after_s=1)
            await _do(message, client, hub, door)
            await asyncio.sleep(0)  # thousands may have come in one piece, and acks are not counted: let others in
        except DomainError as error:
            client.answer(_error(error, ref))
            malformed += isinstance(error, MalformedMessage | TooManyMessages)
            if isinstance(error, Unauthenticated):
                raise _Ended(POLICY_VIOLATION, title_of(type(error))) from error
            if malformed == MAX_MALFORMED:
                raise _Ended(POLICY_VIOLATION, f"{MAX_MALFORMED} messages were not heard") from error


async def _greet(websocket: WebSocket, client: Client, hub: Hub, door: Door, ticket: str | None) -> None:
    """Let in who has a good ticket. Raises _Ended, WebSocketDisconnect."""
    ref = None
    try:
        async with asyncio.timeout(HELLO_WITHIN_S):
            if ticket is not None:
                hello = Hello(ticket=ticket)
            else:
                message = await _receive(websocket)
                ref = message.ref
                if not isinstance(message, Hello):
                    raise BadTicket("the first message is hello, with a ticket")
                hello = message
            await _welcome(hello, client, hub, door)
    except TimeoutError as error:
        raise _Ended(POLICY_VIOLATION, f"the first message is hello, within {HELLO_WITHIN_S:g} seconds") from error
    except ValidationError as error:  # a ticket in the handshake that is none
        raise _Ended(POLICY_VIOLATION, title_of(BadTicket)) from error
    except DomainError as error:
        client.answer(_error(error, ref))
        code = TRY_AGAIN_LATER if isinstance(error, Unavailable | TooMany) else POLICY_VIOLATION
        raise _Ended(code, title_of(type(error))) from error


async def _welcome(hello: Hello, client: Client, hub: Hub, door: Door) -> None:
    """Raises BadTicket, TooManySockets, Unavailable."""
    principal = await door.principal_of(hello.ticket)
    if client.principal is not None and client.principal.subject != principal.subject:
        raise BadTicket("this connection is somebody else's")
    # Nothing in between: a revocation is heard either before or after.
    hub.signed_in(client, principal)
    if hello.window is not None:
        client.window = hello.window
    client.answer(Welcome(expires_at=principal.expires_at, ref=hello.ref))


async def _do(message: Asked, client: Client, hub: Hub, door: Door) -> None:
    """Raises DomainError."""
    if isinstance(message, Subscribe):
        after = None if message.after is None else Place.read(message.after)
        await hub.subscribe(client, [Topic.read(name) for name in message.topics], after, message.ref)
    elif isinstance(message, Unsubscribe):
        hub.unsubscribe(client, [Topic.read(name) for name in message.topics], message.ref)
    elif isinstance(message, Ack):
        client.acknowledge(message.id)
    elif isinstance(message, Ping):
        client.answer(Pong(ref=message.ref))
    else:
        await _welcome(message, client, hub, door)


async def _next(websocket: WebSocket, client: Client) -> Asked:
    """The next message. Raises MalformedMessage, _Ended, WebSocketDisconnect."""
    try:
        async with asyncio.timeout(None if client.topics or client.catching_up else IDLE_S):
            return await _receive(websocket)
    except TimeoutError as error:
        raise _Ended(GOING_AWAY, f"nothing was followed for {IDLE_S:g} seconds") from error


async def _receive(websocket: WebSocket) -> Asked:
    """Raises MalformedMessage, _Ended, WebSocketDisconnect."""
    received = await websocket.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received["code"])
    text = received.get("text")
    if text is None:
        raise MalformedMessage("messages are text, not binary")
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode()) > MAX_MESSAGE_BYTES:
        raise _Ended(TOO_BIG, f"a message has up to {MAX_MESSAGE_BYTES:,} bytes")
    try:
        return ASKED.validate_json(text)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[0]  # never with the input: it may be a secret
        where = "/".join(str(part) for part in found["loc"])
        raise MalformedMessage(f"{where}: {found['msg']}" if where else found["msg"]) from error


async def _write(websocket: WebSocket, send: Send, client: Client) -> None:
    """Send what waits until the connection is to be closed, then close it. Raises OSError."""
    while (text := await client.next()) is not None:
        await send({"type": "websocket.send", "text": text})
    closing = client.closing.result()
    with suppress(WebSocketDisconnect):
        await websocket.close(closing.code, closing.reason)


def _error(error: DomainError, ref: str | None) -> Error:
    kind = type(error)
    known = {"type": type_of(kind), "title": title_of(kind), "status": status_of(kind), "detail": error.detail}
    return Error(problem={**error.facts, **known}, ref=ref)
