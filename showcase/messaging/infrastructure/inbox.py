"""The inbox: which events a consumer has handled, in a table beside its data."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import text

from showcase.kernel.ids import EventId
from showcase.messaging.infrastructure.pruning import prune
from showcase.platform.database import Database


class SqlInbox:
    """One consumer's inbox. See `application.ports.Inbox`; each call raises Unavailable.

    Args:
        schema: the service's own; `public` is the shop's.
        consumer: two consumers of one service handle the same event each on their own.
    """

    def __init__(self, database: Database, schema: str, consumer: str) -> None:
        self._database = database
        self._consumer = consumer
        self._seen, self._enter, self._leave, self._prune = (
            text(sql.format(schema=schema)) for sql in (SEEN, ENTER, LEAVE, PRUNE)
        )

    async def seen(self, ids: Collection[EventId]) -> set[EventId]:
        async with self._database.transaction() as db:
            found = await db.execute(self._seen, {"consumer": self._consumer, "ids": list(ids)})
            return set(found.scalars())

    async def enter(self, ids: Collection[EventId]) -> set[EventId]:
        # Sorted, so that of two processes with the same events one waits for the other, and never each for the other.
        # It waits at the first row that the other has put in: if that one rolls back, the row is entered here.
        async with self._database.transaction() as db:
            entered = await db.execute(self._enter, {"consumer": self._consumer, "ids": sorted(set(ids))})
            return set(entered.scalars())

    async def leave(self, id_: EventId) -> None:
        async with self._database.transaction() as db:
            await db.execute(self._leave, {"consumer": self._consumer, "id": id_})

    async def prune(self, kept: timedelta) -> int:
        """Forget events that were handled longer ago than `kept`, by any consumer of the service; how many."""
        return await prune(self._database, self._prune, kept)


SEEN = "SELECT event_id FROM {schema}.inbox WHERE consumer = :consumer AND event_id = ANY(CAST(:ids AS text[]))"
ENTER = """
    INSERT INTO {schema}.inbox (consumer, event_id) SELECT :consumer, id FROM unnest(CAST(:ids AS text[])) AS id
    ON CONFLICT DO NOTHING RETURNING event_id
"""
LEAVE = "DELETE FROM {schema}.inbox WHERE consumer = :consumer AND event_id = :id"
PRUNE = """
    DELETE FROM {schema}.inbox WHERE (consumer, event_id) IN (
        SELECT consumer, event_id FROM {schema}.inbox WHERE handled_at < :before ORDER BY handled_at LIMIT :limit
    )
"""
