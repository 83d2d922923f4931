"""The parking lot in memory, beside the outboxes of one memory; and deliveries as a broker hands them over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from showcase.kernel.clock import system_clock
from showcase.kernel.events import Event
from showcase.messaging.application.parked import Parked, State
from showcase.messaging.application.parking_lot import Action, Details, Entry, Place, Unpublished, Which
from showcase.messaging.infrastructure.parked import BATCH_BYTES
from tests.fakes_outbox import Memory, MemoryOutbox, Row

ACTIONS_KEPT = timedelta(days=365)


@dataclass(frozen=True, slots=True)
class Delivered:
    """A delivery, with whatever a stranger may have sent."""

    attributes: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, object] = field(default_factory=dict)
    body: bytes = b"{}"


def delivered(queue: str = "payment", type_: str = "t.v1", body: bytes = b"{}", **headers: object) -> Delivered:
    """An event that our own consumer has parked."""
    event = Event(type=type_, source="/s", subject="orders/1", data={})
    said = {"x-queue": queue, "x-reason": "broken", "x-attempt": 4, **headers}
    return Delivered(event.attributes(), said, body)


@dataclass(frozen=True, slots=True)
class Kept:
    """A row of the parking lot."""

    parked: Parked
    parked_at: datetime
    state: State = State.PARKED
    settled_at: datetime | None = None


class MemoryParkingLot:
    """See `SqlParkingLot`."""

    def __init__(self, memory: Memory, outboxes: Mapping[str, MemoryOutbox]) -> None:
        self._memory = memory
        self._outboxes = outboxes
        self._rows: dict[UUID, Kept] = memory.table("parked")
        self._actions: dict[int, tuple[str, Action]] = memory.table("actions")

    async def add(self, parked: Sequence[Parked]) -> int:
        async with self._memory.transaction():
            now = system_clock()
            new = {one.parked_id: Kept(one, now) for one in parked if one.parked_id not in self._rows}
            self._rows.update(new)
        return len(new)

    async def page(self, which: Which, before: Place | None, limit: int) -> Sequence[Entry]:
        found = [
            entry
            for entry, _ in self._all()
            if which.queue in (None, entry.queue) and which.type in (None, entry.type)
            if before is None or entry.place < before
        ]
        return sorted(found, key=lambda entry: entry.place, reverse=True)[:limit]

    async def oldest(self, queues: Sequence[str], type_: str | None, until: Place, limit: int) -> Sequence[str]:
        chosen: list[str] = []
        size = 0
        for entry, body in sorted(self._all(), key=lambda one: one[0].place):
            if entry.queue in queues and type_ in (None, entry.type) and entry.place <= until and size < BATCH_BYTES:
                chosen.append(entry.id)
                size += len(body)
        return chosen[:limit]

    async def find(self, message: UUID | Unpublished) -> Details | None:
        actions = [action for id_, action in self._actions.values() if id_ == str(message)][::-1]
        if isinstance(message, Unpublished):
            row = self._outboxes[message.outbox].rows.get(message.position)
            if row is None or not row.reason:
                return None
            sent = row.message
            return Details(
                entry=_unpublished(message.outbox, message.position, row),
                attributes=sent.attributes,
                headers=sent.headers,
                body=sent.body,
                actions=actions,
            )
        if (kept := self._rows.get(message)) is None:
            return None
        parked = kept.parked
        return Details(
            entry=_entry(kept),
            attributes=parked.attributes,
            headers=parked.headers,
            body=parked.body,
            actions=actions,
        )

    async def settle(self, ids: Sequence[UUID], state: State) -> Sequence[Parked]:
        async with self._memory.transaction():
            free = [id_ for id_ in ids if id_ in self._rows and self._rows[id_].state is State.PARKED]
            for id_ in free:
                self._rows[id_] = replace(self._rows[id_], state=state, settled_at=system_clock())
            return [self._rows[id_].parked for id_ in free]

    async def act(self, ids: Sequence[str], *, actor: str, action: str, reason: str = "") -> None:
        async with self._memory.transaction():
            for id_ in ids:
                done = Action(at=system_clock(), actor=actor, action=action, reason=reason)
                self._actions[len(self._actions)] = (id_, done)

    async def counts(self) -> Mapping[str, int]:
        queues = [kept.parked.queue for kept in self._rows.values() if kept.state is State.PARKED]
        return {queue: queues.count(queue) for queue in queues}

    async def prune(self, kept: timedelta) -> tuple[int, int]:
        now = system_clock()
        old = [id_ for id_, row in self._rows.items() if row.settled_at and row.settled_at < now - kept]
        past = [number for number, (_, action) in self._actions.items() if action.at < now - ACTIONS_KEPT]
        async with self._memory.transaction():
            for id_ in old:
                del self._rows[id_]
            for number in past:
                del self._actions[number]
        return len(old), len(past)

    def _all(self) -> list[tuple[Entry, bytes]]:
        """Those that are still parked."""
        return [
            *((_entry(kept), kept.parked.body) for kept in self._rows.values() if kept.state is State.PARKED),
            *(
                (_unpublished(schema, position, row), row.message.body)
                for schema, outbox in self._outboxes.items()
                for position, row in outbox.rows.items()
                if row.reason
            ),
        ]


def _entry(kept: Kept) -> Entry:
    parked = kept.parked
    return Entry(
        id=str(parked.parked_id),
        queue=parked.queue,
        event_id=parked.event_id,
        type=parked.type,
        subject=parked.subject,
        reason=parked.reason,
        attempts=parked.attempts,
        replays=parked.replays,
        parked_at=kept.parked_at,
        state=kept.state,
        settled_at=kept.settled_at,
    )


def _unpublished(schema: str, position: int, row: Row) -> Entry:
    attributes: Mapping[str, Any] = row.message.attributes
    return Entry(
        id=str(Unpublished(schema, position)),
        queue=f"outbox:{schema}",
        event_id=attributes.get("id", ""),
        type=attributes.get("type", ""),
        subject=attributes.get("subject", ""),
        reason=row.reason,
        attempts=0,
        replays=int(row.message.headers.get("x-replays", 0)),
        parked_at=row.added_at,
        state=State.PARKED,
        settled_at=None,
    )
