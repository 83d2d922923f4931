"""Outbox and inbox: tables beside the data, written in its transactions."""

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta

import structlog
from sqlalchemy import Column, DateTime, LargeBinary, MetaData, Table, Text, Uuid, delete, func, select, text, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.types import BigInteger

from showcase.kernel.events import Event
from showcase.messaging.application import one_a_subject
from showcase.platform.database import Database

log = structlog.get_logger()

CHANNEL = "outbox"


class SqlOutbox:
    """One service's outbox: an `EventSink` for the service, an `Outbox` for the relay.

    Args:
        schema: the service's own; `public` is the shop's.
    """

    def __init__(self, database: Database, schema: str = "public") -> None:
        self._database = database
        self._table = Table(
            "outbox",
            MetaData(schema),
            Column("position", BigInteger),
            Column("attributes", JSONB),
            Column("body", LargeBinary),
            Column("published_at", DateTime(timezone=True)),
        )

    async def add(self, event: Event) -> None:
        """Store an event with the transaction that is open, and wake the relay when that commits."""
        row = {"attributes": event.attributes(), "body": event.body()}
        async with self._database.transaction() as db:
            await db.execute(self._table.insert(), row)
            await db.execute(_NOTIFY, {"channel": CHANNEL})

    async def relay(self, publish: Callable[[Sequence[Event]], Awaitable[Sequence[bool]]], limit: int) -> int:
        """See `application.Outbox`.

        One relay at a time works on an outbox, so that two of them never send one order's events out of order.
        A relay that dies between sending and marking sends again: at least once.
        """
        outbox = self._table.c
        oldest = select(self._table).where(outbox.published_at.is_(None)).order_by(outbox.position).limit(limit)
        async with self._database.transaction() as db:
            if not (await db.execute(_LOCK, {"name": f"relay of {self._table.schema}"})).scalar_one():
                return 0
            if not (rows := (await db.execute(oldest)).all()):
                return 0
            positions = {row.attributes["id"]: row.position for row in rows}
            events = one_a_subject([Event.read(row.attributes, row.body) for row in rows])
            taken = await publish(events)
            done = [positions[event.id] for event, with_broker in zip(events, taken, strict=True) if with_broker]
            await db.execute(update(self._table).where(outbox.position.in_(done)).values(published_at=func.now()))
            if len(done) < len(events):
                log.warning("the broker did not take all", outbox=self._table.schema, left=len(events) - len(done))
            return len(done)

    async def prune(self, kept: timedelta) -> int:
        """Remove events that were published longer ago than `kept`; how many."""
        async with self._database.transaction() as db:
            old = self._table.c.published_at < func.now() - kept
            return (await db.execute(delete(self._table).where(old))).rowcount


class SqlInbox:
    """One consumer's inbox.

    Args:
        schema: the service's own.
        consumer: two consumers of one service handle the same event each on their own.
    """

    def __init__(self, database: Database, schema: str, consumer: str) -> None:
        self._database = database
        self._consumer = consumer
        self._table = Table(
            "inbox",
            MetaData(schema),
            Column("consumer", Text),
            Column("event_id", Uuid(as_uuid=False)),
            Column("handled_at", DateTime(timezone=True)),
        )

    async def first_time(self, event: Event) -> bool:
        """See `application.Inbox`."""
        # A second transaction with the same event waits here for the first: if that rolls back, this one inserts.
        row = {"consumer": self._consumer, "event_id": event.id}
        async with self._database.transaction() as db:
            added = insert(self._table).on_conflict_do_nothing().returning(self._table.c.event_id)
            return (await db.execute(added, row)).one_or_none() is not None

    async def prune(self, kept: timedelta) -> int:
        """Forget events that were handled longer ago than `kept`, by any consumer of the service; how many."""
        async with self._database.transaction() as db:
            old = self._table.c.handled_at < func.now() - kept
            return (await db.execute(delete(self._table).where(old))).rowcount


_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended(:name, 0))")
_NOTIFY = text("SELECT pg_notify(:channel, '')")
