"""In-memory outbox and inbox on one memory with transactions; other fakes may keep their tables in it as well.

Both pass the same contract tests as those in PostgreSQL.
"""

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from showcase.kernel.clock import system_clock
from showcase.kernel.events import Event
from showcase.kernel.ids import EventId
from showcase.messaging.application.ports import Publish
from showcase.messaging.domain import EVENTS, Message, Outcome, Route, Topology

NOBODY = object()


class Memory:
    """What several fakes keep together, in tables of rows that are never changed, only replaced.

    One transaction after the other; one that fails leaves all as it was. In the task that is in one already, a
    further one is part of it.
    """

    def __init__(self) -> None:
        self._tables: dict[str, dict[Any, Any]] = {}
        self._turn = asyncio.Lock()
        self._owner: object = NOBODY

    def table(self, name: str) -> dict[Any, Any]:
        """The rows of a table by their key; an empty one, if there is none yet."""
        return self._tables.setdefault(name, {})

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator["Memory"]:
        if self._owner is (task := _task()):
            yield self
            return
        async with self._turn:
            self._owner = task
            try:
                async with self.savepoint():
                    yield self
            finally:
                self._owner = NOBODY

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[None]:
        """What is done in the block is undone if it fails."""
        before = {name: dict(table) for name, table in self._tables.items()}
        try:
            yield
        except BaseException:
            for name, table in self._tables.items():
                table.clear()
                table.update(before.get(name, {}))
            raise


def _task() -> object:
    """The running task; None where there is not even an event loop, since nothing ever really waits."""
    with suppress(RuntimeError):
        return asyncio.current_task()
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A message in an outbox."""

    message: Message
    added_at: datetime
    published_at: datetime | None = None
    reason: str = ""

    @property
    def subject(self) -> str:
        return self.message.attributes.get("subject", "")

    @property
    def is_waiting(self) -> bool:
        return self.published_at is None and not self.reason


@dataclass(frozen=True, slots=True)
class MemoryOutboxState:
    waiting: int
    oldest: timedelta | None
    parked: int


class MemoryOutbox:
    """See `SqlOutbox`.

    Attributes:
        is_full: every `add` fails.
    """

    def __init__(self, memory: Memory, topology: Topology | None = None, schema: str = "public") -> None:
        self.is_full = False
        self.memory = memory
        self.rows: dict[int, Row] = memory.table(f"{schema}.outbox")
        self._topology = topology or Topology(queues=())
        self._last = 0
        self._on_their_way: set[str] = set()

    @property
    def events(self) -> list[Event]:
        """All that were ever added, published or not."""
        return [Event.read(row.message.attributes, row.message.body) for row in self.rows.values()]

    async def add(self, event: Event, *, after: timedelta | None = None) -> None:
        route = Route(EVENTS, event.type) if after is None else self._topology.later(event.type, after)
        await self.send(Message(attributes=event.attributes(), body=event.body(), route=route))

    async def send(self, message: Message) -> None:
        if self.is_full:
            raise MemoryError
        async with self.memory.transaction():
            self._last += 1
            self.rows[self._last] = Row(message=message, added_at=system_clock())

    async def relay(self, publish: Publish, limit: int) -> int:
        async with self.memory.transaction():  # so nothing is seen that has not been committed
            waiting = [(place, row) for place, row in self.rows.items() if row.is_waiting]
        subjects: dict[str, list[int]] = {}
        for place, row in [one for one in waiting if one[1].subject not in self._on_their_way][:limit]:
            subjects.setdefault(row.subject, []).append(place)
        self._on_their_way |= (mine := set(subjects))
        told = 0
        try:
            while subjects:
                wave = [places.pop(0) for places in subjects.values()]
                outcomes = await publish([self.rows[place].message for place in wave])
                async with self.memory.transaction():
                    for place, outcome in zip(wave, outcomes, strict=True):
                        self._mark(place, outcome)
                refused = {self.rows[place].subject for place in wave if self.rows[place].is_waiting}
                subjects = {name: places for name, places in subjects.items() if places and name not in refused}
                told += len(wave) - len(refused)
        finally:
            self._on_their_way -= mine
        return told

    def _mark(self, place: int, outcome: Outcome) -> None:
        if outcome is Outcome.TAKEN:
            self.rows[place] = replace(self.rows[place], published_at=system_clock())
        elif outcome is not Outcome.REFUSED:
            self.rows[place] = replace(self.rows[place], reason=str(outcome))

    async def waiting(self) -> MemoryOutboxState:
        waiting = [row for row in self.rows.values() if row.is_waiting]
        oldest = max((system_clock() - row.added_at for row in waiting), default=None)
        return MemoryOutboxState(len(waiting), oldest, sum(bool(row.reason) for row in self.rows.values()))

    async def release(self, position: int) -> bool:
        row = self.rows.get(position)
        if row is None or not row.reason:
            return False
        self.rows[position] = replace(row, reason="")
        return True

    async def discard(self, position: int) -> bool:
        row = self.rows.get(position)
        if row is None or not row.reason:
            return False
        del self.rows[position]
        return True

    async def prune(self, kept: timedelta) -> int:
        limit = system_clock() - kept
        old = [place for place, row in self.rows.items() if row.published_at and row.published_at <= limit]
        for place in old:
            del self.rows[place]
        return len(old)


class MemoryInbox:
    """See `SqlInbox`."""

    def __init__(self, memory: Memory, consumer: str = "shop", schema: str = "public") -> None:
        self._memory = memory
        self._consumer = consumer
        self._rows: dict[tuple[str, EventId], datetime] = memory.table(f"{schema}.inbox")

    async def seen(self, ids: Collection[EventId]) -> set[EventId]:
        return {id_ for id_ in ids if (self._consumer, id_) in self._rows}

    async def enter(self, ids: Collection[EventId]) -> set[EventId]:
        async with self._memory.transaction():
            new = set(ids) - await self.seen(ids)
            self._rows.update({(self._consumer, id_): system_clock() for id_ in new})
        return new

    async def leave(self, id_: EventId) -> None:
        async with self._memory.transaction():
            self._rows.pop((self._consumer, id_), None)

    async def prune(self, kept: timedelta) -> int:
        limit = system_clock() - kept
        old = [key for key, handled_at in self._rows.items() if handled_at <= limit]
        for key in old:
            del self._rows[key]
        return len(old)
