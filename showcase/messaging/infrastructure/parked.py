"""Parked messages in PostgreSQL, by its clock."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta
from uuid import UUID

from sqlalchemy import RowMapping, bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from showcase.kernel.ids import new_uuid
from showcase.messaging.application.parked import Parked, State
from showcase.messaging.application.parking_lot import Action, Details, Entry, Place, Unpublished, Which
from showcase.messaging.infrastructure.pruning import prune
from showcase.platform.database import Database

BATCH_BYTES = 16_000_000
"""So many bytes of bodies are replayed in one transaction: it has a deadline. One message may have more."""
ACTIONS_KEPT = timedelta(days=365)
ACTIONS_SHOWN = 20


class SqlParkingLot:
    """See `application.parking_lot.ParkingLot`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, parked: Sequence[Parked]) -> int:
        """Keep them; how many are new."""
        # In one order always: two processes with the same messages wait for one another, but never in a circle.
        rows = [asdict(one) for one in sorted(parked, key=lambda one: one.parked_id)]
        async with self._database.transaction() as db:
            return sum([(await db.execute(_ADD, row)).one_or_none() is not None for row in rows])

    async def page(self, which: Which, before: Place | None, limit: int) -> Sequence[Entry]:
        """Those that are still parked, the newest first."""
        at, id_ = before or (None, None)
        names = {"queue": which.queue, "type": which.type, "at": at, "id": id_, "limit": limit}
        async with self._database.transaction() as db:
            return [_entry(row) for row in (await db.execute(_PAGE, names)).mappings()]

    async def oldest(self, queues: Sequence[str], type_: str | None, until: Place, limit: int) -> Sequence[str]:
        """The ids of the first of them from some queues."""
        names = {"queues": list(queues), "type": type_, "at": until.parked_at, "id": until.id, "limit": limit}
        async with self._database.transaction() as db:
            return (await db.execute(_OLDEST, names | {"bytes": BATCH_BYTES})).scalars().all()

    async def find(self, message: UUID | Unpublished) -> Details | None:
        """One, settled or not, and the last that was done to it."""
        async with self._database.transaction() as db:
            if isinstance(message, Unpublished):
                found = await db.execute(_FIND_UNPUBLISHED, message._asdict())
            else:
                found = await db.execute(_FIND, {"parked_id": message})
            if (row := found.mappings().one_or_none()) is None:
                return None
            actions = await db.execute(_ACTIONS, {"id": str(message), "limit": ACTIONS_SHOWN})
            return Details(
                entry=_entry(row),
                attributes=row["attributes"],
                headers=row["headers"],
                body=row["body"],
                actions=[Action(**action) for action in actions.mappings()],
            )

    async def settle(self, ids: Sequence[UUID], state: State) -> Sequence[Parked]:
        """Those that are still parked, and that nobody else is settling right now, are settled."""
        if not ids:
            return []
        async with self._database.transaction() as db:
            rows = (await db.execute(_SETTLE, {"ids": list(ids), "state": state.value})).mappings()
            return [Parked(**row) for row in rows]

    async def act(self, ids: Sequence[str], *, actor: str, action: str, reason: str = "") -> None:
        """Write down what somebody does to some messages."""
        rows = [
            {"action_id": new_uuid(), "actor": actor, "action": action, "parked_id": id_, "reason": reason}
            for id_ in ids
        ]
        if rows:
            async with self._database.transaction() as db:
                await db.execute(_ACT, rows)

    async def counts(self) -> Mapping[str, int]:
        """How many are parked, by queue; without those that could not be published."""
        async with self._database.transaction() as db:
            return {row.queue: row.parked for row in await db.execute(_COUNTS)}

    async def prune(self, kept: timedelta) -> tuple[int, int]:
        """Remove what was settled longer ago than `kept`, and actions of more than a year ago; how many of each."""
        settled = await prune(self._database, _PRUNE, kept)
        return settled, await prune(self._database, _PRUNE_ACTIONS, ACTIONS_KEPT)


def _entry(row: RowMapping) -> Entry:
    named = {name: row[name] for name in Entry.__dataclass_fields__}
    return Entry(**named | {"state": State(row["state"])})


_PARKED = "parked_id, queue, event_id, type, subject, reason, attempts, replays, attributes, headers, body"
_ENTRY = "id, queue, event_id, type, subject, reason, attempts, replays, parked_at, state, settled_at"

_ADD = text(f"""
    INSERT INTO messaging.parked ({_PARKED})
    VALUES (:parked_id, :queue, :event_id, :type, :subject, :reason, :attempts, :replays, :attributes, :headers, :body)
    ON CONFLICT (parked_id) DO NOTHING RETURNING parked_id
""").bindparams(bindparam("attributes", type_=JSONB), bindparam("headers", type_=JSONB))  # noqa: S608 - of constants
_PAGE = text(f"""
    SELECT {_ENTRY} FROM messaging.all_parked
    WHERE state = 'parked' AND (CAST(:queue AS text) IS NULL OR queue = :queue)
        AND (CAST(:type AS text) IS NULL OR type = :type)
        AND (CAST(:at AS timestamptz) IS NULL OR (parked_at <= :at AND (parked_at, id) < (:at, CAST(:id AS text))))
    ORDER BY parked_at DESC, id DESC LIMIT :limit
""")  # noqa: S608 - of constants
_OLDEST = text("""
    WITH first AS (
        SELECT id, parked_at, octet_length(body) AS bytes FROM messaging.all_parked
        WHERE state = 'parked' AND queue = ANY(:queues) AND (CAST(:type AS text) IS NULL OR type = :type)
            AND parked_at <= :at AND (parked_at, id) <= (:at, CAST(:id AS text))
        ORDER BY parked_at, id LIMIT :limit
    ), summed AS (
        SELECT id, parked_at, sum(bytes) OVER (ORDER BY parked_at, id) - bytes AS before FROM first
    )
    SELECT id FROM summed WHERE before < :bytes ORDER BY parked_at, id
""")
_FIND = text(f"""
    SELECT {_ENTRY}, attributes, headers, body FROM messaging.all_parked WHERE parked_id = :parked_id
""")  # noqa: S608 - of constants
_FIND_UNPUBLISHED = text(f"""
    SELECT {_ENTRY}, attributes, headers, body FROM messaging.all_parked
    WHERE outbox = :outbox AND position = :position
""")  # noqa: S608 - of constants
_SETTLE = text(f"""
    UPDATE messaging.parked SET state = :state, settled_at = now()
    WHERE parked_id IN (
        SELECT parked_id FROM messaging.parked WHERE parked_id = ANY(:ids) AND state = 'parked'
        FOR UPDATE SKIP LOCKED
    )
    RETURNING {_PARKED}
""")  # noqa: S608 - of constants
_ACT = text("""
    INSERT INTO messaging.actions (action_id, actor, action, parked_id, reason)
    VALUES (:action_id, :actor, :action, :parked_id, :reason)
""")
_ACTIONS = text("""
    SELECT at, actor, action, reason FROM messaging.actions WHERE parked_id = :id ORDER BY action_id DESC LIMIT :limit
""")
_COUNTS = text("SELECT queue, count(*) AS parked FROM messaging.parked WHERE state = 'parked' GROUP BY queue")
_PRUNE = text("""
    DELETE FROM messaging.parked WHERE parked_id IN (
        SELECT parked_id FROM messaging.parked WHERE state <> 'parked' AND settled_at < :before LIMIT :limit
    )
""")
_PRUNE_ACTIONS = text("""
    DELETE FROM messaging.actions
    WHERE action_id IN (SELECT action_id FROM messaging.actions WHERE at < :before LIMIT :limit)
""")
