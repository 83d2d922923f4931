"""Letters: written down with what they tell of, sent once that is committed.

A letter is sent at least once: first sent, then deleted. Its Message-ID stays the same, so that a mailbox can tell.
"""

import asyncio
import json
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import text

from showcase.auth.infrastructure.secrets import Secrets, Unreadable
from showcase.kernel.ids import new_uuid
from showcase.platform.database import Database
from showcase.platform.mail import send
from showcase.platform.worker import Work, persist

log = structlog.get_logger()

CHANNEL = "auth_mails"
PURPOSE = "mail"
POLL_S = 1.0
"""How long a letter waits if the notification that wakes the sender is lost; and, for one that failed, how exactly
its time is kept."""
SEND_WITHIN_S = 5.0
CLAIMED_FOR = timedelta(seconds=15)
"""A letter whose sender dies is sent by another after that: longer than sending can take."""
MAX_TRIES = 10
LONGEST_PAUSE_S = 300


class SqlMails:
    """See `application.ports.Mails`. There may be a code in a letter, so it is sealed."""

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets

    async def add(self, recipient: str | None, subject: str, text: str) -> None:
        """Hand in a letter with the transaction that is open, and wake a sender when that commits.

        Args:
            recipient: None for one that is never sent.
        """
        mail_id = new_uuid()
        body = self._secrets.seal(PURPOSE, json.dumps([subject, text]).encode(), str(mail_id))
        async with self._database.transaction() as db:
            await db.execute(_ADD, {"mail_id": mail_id, "recipient": recipient, "body": body})
            await db.execute(_NOTIFY, {"channel": CHANNEL})


def sending(database: Database, secrets: Secrets, *, mail_url: str, domain: str) -> Work:
    """Send letters as they come, until told to stop. Any number of processes may.

    Args:
        mail_url: `smtp://user:password@host:port`.
        domain: what comes after the @ of our own address.
    """
    post = _Post(database, secrets, mail_url, domain)

    async def attempt(stop: asyncio.Event) -> None:
        async with database.listening(CHANNEL) as woken:
            log.info("ready", sends="mails")
            while not stop.is_set():
                if not await post.send_one():
                    await woken(POLL_S)

    return lambda stop: persist(attempt, stop)


@dataclass(frozen=True, slots=True)
class _Post:
    database: Database
    secrets: Secrets
    mail_url: str
    domain: str

    async def send_one(self) -> bool:
        """Send a letter that is due; False if none is. Raises Unavailable when the database is away.

        It is claimed first, by moving the time it is due: no transaction is open while a mail server takes its time.
        """
        async with self.database.transaction() as db:
            letter = (await db.execute(_CLAIM, {"claimed_for": CLAIMED_FOR})).one_or_none()
        if letter is None:
            return False
        if letter.recipient is None or await self._sent(letter.mail_id, letter.recipient, letter.body, letter.tries):
            async with self.database.transaction() as db:
                await db.execute(_DELETE, {"mail_id": letter.mail_id})
        return True

    async def _sent(self, mail_id: UUID, recipient: str, body: bytes, tries: int) -> bool:
        """Whether there is nothing more to do for a letter: it was sent, or it is given up."""
        try:
            subject, text = json.loads(self.secrets.open(PURPOSE, body, str(mail_id)))
            async with asyncio.timeout(SEND_WITHIN_S):
                await asyncio.to_thread(
                    send, self.mail_url, recipient, subject, text, domain=self.domain, mail_id=str(mail_id)
                )
        except Unreadable as error:
            log.error("letter given up", mail_id=str(mail_id), why=str(error))
            return True
        except Exception as error:  # whatever is wrong with one letter, or its address, the others are sent
            if tries >= MAX_TRIES:
                log.error("letter given up", mail_id=str(mail_id), why=type(error).__name__, tries=tries)
                return True
            pause_s = min(LONGEST_PAUSE_S, 2 ** (tries - 1))
            log.warning("letter not sent", mail_id=str(mail_id), why=type(error).__name__, again_in_s=pause_s)
            async with self.database.transaction() as db:
                await db.execute(_POSTPONE, {"mail_id": mail_id, "pause": timedelta(seconds=pause_s)})
            return False
        return True


_ADD = text("INSERT INTO auth.mails (mail_id, recipient, body) VALUES (:mail_id, :recipient, :body)")
_NOTIFY = text("SELECT pg_notify(:channel, '')")
_CLAIM = text("""
    UPDATE auth.mails SET tries = tries + 1, due_at = clock_timestamp() + CAST(:claimed_for AS interval)
    WHERE mail_id = (
        SELECT mail_id FROM auth.mails WHERE due_at <= clock_timestamp()
        ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED
    )
    RETURNING mail_id, recipient, body, tries
""")
_POSTPONE = text("UPDATE auth.mails SET due_at = clock_timestamp() + CAST(:pause AS interval) WHERE mail_id = :mail_id")
_DELETE = text("DELETE FROM auth.mails WHERE mail_id = :mail_id")
