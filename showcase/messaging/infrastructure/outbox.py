"""The outbox: a table beside the data, written in its transactions, and read by any number of relays.

Relays share it by buckets. All events of a subject are in one bucket, and a relay works on a bucket while it holds the
lock of that bucket's row in `outbox_buckets`, so no two of them ever send one subject's events side by side. A relay
that dies loses its locks with its connection; one that is stuck, when PostgreSQL ends its idle transaction.
"""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any

import structlog
from sqlalchemy import Row, TextClause, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from showcase.kernel.events import Event
from showcase.messaging.application.ports import Publish
from showcase.messaging.domain import EVENTS, Message, Outcome, Route, Topology
from showcase.messaging.infrastructure.pruning import prune
from showcase.platform.database import Database

log = structlog.get_logger()

CHANNEL = "outbox"
SHARE = 16
"""How many of the 64 buckets a round takes at the most, so that others find some as well."""
MAX_BYTES = 16 * 2**20
"""A round reads no further message once its bodies are as large as this together: a limit to the memory it takes."""
ROUND_S = 0.5
"""After so long no further wave of messages is begun, and what was sent is marked."""

Told = Mapping[int, Outcome]


@dataclass(frozen=True, slots=True)
class OutboxState:
    """How an outbox is doing.

    Attributes:
        waiting: how many messages wait to be published.
        oldest: how long the oldest of them has waited.
        parked: how many could not be published.
    """

    waiting: int
    oldest: timedelta | None
    parked: int


class SqlOutbox:
    """One service's outbox: an `EventSink` for the service, an `Outbox` for relays.

    Args:
        schema: the service's own; `public` is the shop's.
        topology: knows by how much later an event can be told.
    """

    def __init__(self, database: Database, schema: str = "public", topology: Topology | None = None) -> None:
        self._database = database
        self._schema = schema
        self._topology = topology or Topology(queues=())
        self._sql = _Statements(schema)
        self._rounds = 0
        self._passed: dict[int, int] = {}

    # -- into it

    async def add(self, event: Event, *, after: timedelta | None = None) -> None:
        """See `EventSink`."""
        route = Route(EVENTS, event.type) if after is None else self._topology.later(event.type, after)
        await self.send(Message(attributes=event.attributes(), body=event.body(), route=route))

    async def send(self, message: Message) -> None:
        """Store a message with the transaction that is open, and wake the relay when that commits.

        Raises Unavailable.
        """
        row = {
            "attributes": message.attributes,
            "body": message.body,
            "exchange": message.route.exchange,
            "routing_key": message.route.key,
            "headers": message.headers,
        }
        async with self._database.transaction() as db:
            await db.execute(self._sql.send, row)

    # -- out of it

    async def relay(self, publish: Publish, limit: int) -> int:
        """See `application.ports.Outbox`.

        One round: lock some buckets, read their oldest messages, send them, mark them. A relay that dies before it
        has marked them has them sent again: at least once.
        """
        async with self._database.transaction() as db:
            # Two statements: what is read has to be newer than the locks, or it is what another relay has just sent.
            share = {"share": min(SHARE, limit)}
            if not (buckets := (await db.execute(self._sql.lock, share)).scalars().all()):
                return 0
            after = self._starts(buckets)
            each = limit // len(buckets)
            values = {"buckets": list(after), "after": list(after.values()), "each": each, "bytes": MAX_BYTES}
            rows = (await db.execute(self._sql.read, values)).all()
            told = await _tell(rows, publish)
            await self._mark(db, told)
        self._pass_by(after, each, rows, {row.bucket for row in rows if told.get(row.position) is Outcome.REFUSED})
        return sum(outcome is not Outcome.REFUSED for outcome in told.values())

    def _starts(self, buckets: Sequence[int]) -> Mapping[int, int]:
        """Behind which position to begin in each bucket: every other round at its oldest message, the rounds between
        behind those that the last ones have passed, since what is refused must not keep the rest from its turn."""
        self._rounds += 1
        return {bucket: self._passed.get(bucket, 0) if self._rounds % 2 else 0 for bucket in buckets}

    def _pass_by(
        self, after: Mapping[int, int], each: int, rows: Sequence[Row[Any]], refusing: Collection[int]
    ) -> None:
        """Remember how far this round has come in the buckets in which something was refused."""
        read = Counter(row.bucket for row in rows)
        reached = {row.bucket: row.position for row in rows}
        is_cut = sum(len(row.body) for row in rows) >= MAX_BYTES
        for bucket, start in after.items():
            if read[bucket] < each and not is_cut:
                self._passed.pop(bucket, None)
            elif start or (bucket in refusing and bucket not in self._passed):
                self._passed[bucket] = reached.get(bucket, start)

    async def _mark(self, db: AsyncConnection, told: Told) -> None:
        if taken := [position for position, outcome in told.items() if outcome is Outcome.TAKEN]:
            await db.execute(self._sql.publish, {"positions": taken})
        rest = {position: outcome for position, outcome in told.items() if outcome is not Outcome.TAKEN}
        if parked := {position: str(why) for position, why in rest.items() if why is not Outcome.REFUSED}:
            await db.execute(self._sql.park, {"positions": list(parked), "reasons": list(parked.values())})
            log.error("parked in the outbox", outbox=self._schema, reasons=parked)
        if refused := len(rest) - len(parked):
            log.warning("the broker refused some", outbox=self._schema, refused=refused)

    # -- to operate it

    async def waiting(self) -> OutboxState:
        """How it is doing. Raises Unavailable."""
        async with self._database.transaction() as db:
            return OutboxState(*(await db.execute(self._sql.state)).one())

    async def release(self, position: int) -> bool:
        """Have a message that was parked sent after all; whether there is such a one. Raises Unavailable."""
        async with self._database.transaction() as db:
            return (await db.execute(self._sql.release, {"position": position})).one_or_none() is not None

    async def discard(self, position: int) -> bool:
        """Remove a message that was parked; whether there was such a one. Raises Unavailable."""
        async with self._database.transaction() as db:
            return (await db.execute(self._sql.discard, {"position": position})).rowcount == 1

    async def prune(self, kept: timedelta) -> int:
        """Remove messages that were published longer ago than `kept`; how many. Raises Unavailable."""
        return await prune(self._database, self._sql.prune, kept)


async def _tell(rows: Sequence[Row[Any]], publish: Publish) -> Told:
    """What the broker said of each message that was sent: of some, if time is up or their subject was refused.

    They go in waves: the first message of each subject, then the second of each whose first one is settled, and so on.
    Two of one subject on their way at once would change places if the broker refused only the first.
    """
    told: dict[int, Outcome] = {}
    subjects: defaultdict[int, list[Row[Any]]] = defaultdict(list)
    for row in reversed(rows):
        subjects[row.subject_key].append(row)
    ends = asyncio.get_running_loop().time() + ROUND_S
    while subjects and (not told or asyncio.get_running_loop().time() < ends):
        wave = [queue.pop() for queue in subjects.values()]
        for row, outcome in zip(wave, await publish([_message(row) for row in wave]), strict=True):
            told[row.position] = outcome
            if outcome is Outcome.REFUSED or not subjects[row.subject_key]:
                del subjects[row.subject_key]
    return told


def _message(row: Sequence[Any]) -> Message:
    _, _, _, exchange, routing_key, body, attributes, headers, _ = row  # by name costs three times as much
    return Message(attributes=attributes, body=body, route=_route(exchange, routing_key), headers=headers or {})


_route = lru_cache(1_000)(Route)


WAITING = "published_at IS NULL AND parked_at IS NULL"
"""What the partial indexes hold. Their order is `bucket, position`, and a query asks for just that order, and for a
range of buckets where it means one: else PostgreSQL may come to read the primary key instead, with all that was ever
sent, or a whole bucket (a bitmap scan), whenever its statistics are of another hour.
"""
SEND = """
    INSERT INTO {schema}.outbox (attributes, body, exchange, routing_key, headers)
    VALUES (:attributes, :body, :exchange, :routing_key, :headers)
    RETURNING pg_notify('{channel}', '')
"""
LOCK = """
    SELECT bucket, set_config('enable_bitmapscan', 'off', true) FROM {schema}.outbox_buckets AS b
    WHERE (
        SELECT true FROM {schema}.outbox AS o
        WHERE {waiting} AND o.bucket BETWEEN b.bucket AND b.bucket ORDER BY o.bucket, o.position LIMIT 1
    )
    ORDER BY random() LIMIT :share FOR UPDATE SKIP LOCKED
"""
READ = """
    SELECT * FROM (
        SELECT o.*, sum(octet_length(body)) OVER (ORDER BY position ROWS UNBOUNDED PRECEDING) AS bytes
        FROM unnest(CAST(:buckets AS smallint[]), CAST(:after AS bigint[])) AS b (bucket, after), LATERAL (
            SELECT position, bucket, subject_key, exchange, routing_key, body, attributes,
                nullif(headers, '{{}}') AS headers  -- there are hardly ever any to be parsed
            FROM {schema}.outbox AS o
            WHERE {waiting} AND (o.bucket, o.position) > (b.bucket, b.after) AND o.bucket <= b.bucket
                AND (b.after = 0 OR (
                    SELECT false FROM {schema}.outbox AS earlier
                    WHERE {waiting} AND earlier.subject_key BETWEEN o.subject_key AND o.subject_key
                        AND earlier.position <= b.after
                    ORDER BY earlier.subject_key, earlier.position LIMIT 1
                ) IS NULL)
            ORDER BY o.bucket, o.position LIMIT :each
        ) AS o
    ) AS batch
    WHERE bytes - octet_length(body) < :bytes
    ORDER BY position
"""
STATE = """
    SELECT count(*) FILTER (WHERE {waiting}), clock_timestamp() - min(added_at) FILTER (WHERE {waiting}),
        count(parked_at)
    FROM {schema}.outbox WHERE ({waiting}) OR parked_at IS NOT NULL
"""
PUBLISHED = "UPDATE {schema}.outbox SET published_at = clock_timestamp() WHERE position = ANY(:positions)"
PARK = """
    UPDATE {schema}.outbox AS o SET parked_at = clock_timestamp(), parked_reason = p.reason
    FROM unnest(CAST(:positions AS bigint[]), CAST(:reasons AS text[])) AS p (position, reason)
    WHERE o.position = p.position
"""
RELEASE = """
    UPDATE {schema}.outbox SET parked_at = NULL, parked_reason = NULL
    WHERE position = :position AND parked_at IS NOT NULL
    RETURNING pg_notify('{channel}', '')
"""
DISCARD = "DELETE FROM {schema}.outbox WHERE position = :position AND parked_at IS NOT NULL"
PRUNE = """
    DELETE FROM {schema}.outbox WHERE position IN (
        SELECT position FROM {schema}.outbox WHERE published_at < :before ORDER BY published_at LIMIT :limit
    )
"""


class _Statements:
    """The SQL of one schema's outbox."""

    def __init__(self, schema: str) -> None:
        def of(sql: str) -> TextClause:
            return text(sql.format(schema=schema, waiting=WAITING, channel=CHANNEL))

        self.send = of(SEND).bindparams(bindparam("attributes", type_=JSONB), bindparam("headers", type_=JSONB))
        self.lock = of(LOCK)
        self.read = of(READ)
        self.state = of(STATE)
        self.publish = of(PUBLISHED)
        self.park = of(PARK)
        self.release = of(RELEASE)
        self.discard = of(DISCARD)
        self.prune = of(PRUNE)
