"""Notice: tells a household by mail how its order ended. Knows events, its own table and a mail server."""

import asyncio
import smtplib
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit
from uuid import UUID

from pydantic import BaseModel
from sqlalchemy import text

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.messaging.application import Inbox
from showcase.platform.database import Database

SCHEMA = "notice"
TAKES = ("shop.order.packed.v1", "shop.order.refused.v1")
TEXTS = {
    "shop.order.packed.v1": "Your order is packed. Come and get it.",
    "shop.order.refused.v1": "Your payment was declined, so your order was not packed.",
}
MAIL_WITHIN_S = 5.0
PERMANENT = 500
"""Replies from here on are for good (RFC 5321 §4.2.1)."""


class EndedOrder(BaseModel):
    """What notice needs to know of an order; more may come with it."""

    order_id: UUID
    household_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The handler of orders that are done.

    Attributes:
        mail_url: `smtp://user:password@host:port`.
        domain: what comes after the @ of a household's address.
    """

    database: Database
    inbox: Inbox
    mail_url: str
    domain: str

    async def __call__(self, event: Event) -> None:
        """Send the mail and write it down.

        A mail cannot be part of a transaction. It is sent first: a household that hears twice, because we died in
        between, is better than one that never hears. Both mails have one Message-ID.

        Raises Unavailable when the mail server is away, pydantic.ValidationError for an event that is none of ours,
        smtplib.SMTPRecipientsRefused for a household that has no address.
        """
        order = EndedOrder.model_validate(event.data)
        words = TEXTS[event.type]
        await asyncio.to_thread(self._send, f"household-{order.household_id}@{self.domain}", words, event.id)
        async with self.database.transaction() as db:
            if await self.inbox.first_time(event):
                await db.execute(_WRITE_DOWN, {"notice_id": event.id, "text": words, **order.model_dump()})

    def _send(self, address: str, words: str, message_id: str) -> None:
        mail = EmailMessage()
        mail["From"], mail["To"], mail["Subject"] = f"shop@{self.domain}", address, "Your order"
        mail["Message-ID"] = f"<{message_id}@{self.domain}>"
        mail.set_content(words)
        url = urlsplit(self.mail_url)
        try:
            with smtplib.SMTP(url.hostname or "", url.port or 25, timeout=MAIL_WITHIN_S) as smtp:
                if url.username:
                    smtp.login(unquote(url.username), unquote(url.password or ""))
                smtp.send_message(mail)
        except smtplib.SMTPRecipientsRefused as error:
            if all(code >= PERMANENT for code, _ in error.recipients.values()):
                raise
            raise Unavailable("the mail server does not take this mail now") from error
        except OSError as error:  # all of smtplib's errors are
            raise Unavailable("the mail server does not answer in time") from error


_WRITE_DOWN = text("""
    INSERT INTO notice.notices (notice_id, order_id, household_id, text)
    VALUES (:notice_id, :order_id, :household_id, :text)
""")
