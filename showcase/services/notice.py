"""Notice: tells a household by mail how its order ended. Knows events, its own table and a mail server."""

import asyncio
import smtplib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text

from showcase.kernel.errors import Invalid, Unavailable
from showcase.kernel.events import Event
from showcase.kernel.ids import new_uuid
from showcase.messaging.application.handlers import Handlers
from showcase.platform.database import Database
from showcase.platform.mail import send

SCHEMA = "notice"
TAKES = ("shop.order.packed.v1", "shop.order.refused.v2", "shop.order.refused.v1")
TELLS: Mapping[str, type[BaseModel]] = {}
PACKED = "Your order is packed. Come and get it."
REFUSED = {
    "payment declined": "Your payment was declined, so your order was not packed.",
    "out of stock": "Something in your order is out of stock, so it was not packed. You get your money back.",
    "overdue": "We could not pack your order in time. If you have paid, you get your money back.",
}
"""What is said for each reason."""
REFUSED_OTHERWISE = "Your order was not packed. If you have paid, you get your money back."
PERMANENT = 500
"""Replies from here on are for good (RFC 5321 §4.2.1)."""


class NoAddress(Invalid):
    """The mail server knows no such address."""


class PackedOrder(BaseModel):
    """What notice needs to know of `shop.order.packed.v1`; more may come with it."""

    order_id: UUID
    household_id: int

    @property
    def words(self) -> str:
        return PACKED


class RefusedOrder(BaseModel):
    """What notice needs to know of `shop.order.refused.v2`."""

    order_id: UUID
    household_id: int
    reason: str

    @property
    def words(self) -> str:
        return REFUSED.get(self.reason, REFUSED_OTHERWISE)


EndedOrder = PackedOrder | RefusedOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The handlers of orders that are done.

    Attributes:
        mail_url: `smtp://user:password@host:port`.
        domain: what comes after the @ of a household's address.
    """

    database: Database
    mail_url: str
    domain: str

    def handlers(self) -> Handlers:
        """What its queue's consumer does."""
        handlers = Handlers()
        handlers.on("shop.order.packed.v1", PackedOrder, self.write_down, ask=self.tell)
        handlers.on("shop.order.refused.v2", RefusedOrder, self.write_down, ask=self.tell)
        handlers.upcast("shop.order.refused.v1", "shop.order.refused.v2", with_its_reason)
        return handlers

    async def tell(self, event: Event, order: EndedOrder) -> None:
        """Send the mail, unless it is written down already.

        A mail cannot be part of a transaction. It is sent first: a household that hears twice, because we died in
        between, is better than one that never hears. Both mails have one Message-ID.

        Raises Unavailable when the mail server is away, NoAddress for a household that has none.
        """
        async with self.database.transaction() as db:
            if (await db.execute(_IS_WRITTEN_DOWN, {"order_id": order.order_id})).scalar_one():
                return
        address = f"household-{order.household_id}@{self.domain}"
        await asyncio.to_thread(self._send, address, order.words, f"order-{order.order_id}")

    async def write_down(self, event: Event, order: EndedOrder, _: None) -> None:
        """Write down what the household was told."""
        row = {
            "notice_id": new_uuid(),
            "order_id": order.order_id,
            "household_id": order.household_id,
            "text": order.words,
        }
        async with self.database.transaction() as db:
            await db.execute(_WRITE_DOWN, row)

    def _send(self, address: str, words: str, mail_id: str) -> None:
        try:
            send(self.mail_url, address, "Your order", words, domain=self.domain, mail_id=mail_id)
        except smtplib.SMTPRecipientsRefused as error:
            if all(code >= PERMANENT for code, _ in error.recipients.values()):
                raise NoAddress(f"the mail server refuses {address}") from error
            raise Unavailable("the mail server does not take this mail now") from error
        except OSError as error:
            raise Unavailable("the mail server does not answer in time") from error


def with_its_reason(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A refused order of version 1, when there was only one reason, as one of version 2."""
    return {**data, "reason": "payment declined"}


_IS_WRITTEN_DOWN = text("SELECT EXISTS (SELECT FROM notice.notices WHERE order_id = :order_id)")
_WRITE_DOWN = text("""
    INSERT INTO notice.notices (notice_id, order_id, household_id, text)
    VALUES (:notice_id, :order_id, :household_id, :text) ON CONFLICT (order_id) DO NOTHING
""")
