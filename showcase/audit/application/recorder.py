"""Turns messages of Debezium's topics into sealed records."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from showcase.audit.application.ports import (
    Added,
    Alike,
    DeadLetters,
    Encode,
    Entry,
    Letter,
    Message,
    Partition,
    Protect,
    Seals,
    Store,
)
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import FIRST, Seal, leaf
from showcase.kernel import changes
from showcase.kernel.changes import EPOCH_HEADER, BrokenChange, Change

log = structlog.get_logger()

MAX_AHEAD = timedelta(days=1)
"""How far the database's clock may be before the broker's: what is further ahead is no time of a commit."""
PART = 500
"""Of so many messages the records are on their way into the store while the next ones are read: two cores are busy."""


class StartedAnew(RuntimeError):
    """A topic has fewer messages than were sealed: going on would pass over new ones as if they were old.

    A source that begins again gets another name (its topic prefix).
    """


async def unprotected(changes: Sequence[Change]) -> Sequence[Change]:
    """Nothing in them is personal."""
    return changes


def never_alike(stored: bytes, told: bytes) -> bool:
    """Where nothing is personal, nothing is erased."""
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What may be recorded, and when it is sealed.

    Attributes:
        tables: changes of others are refused; all are taken if none is named.
        max_bytes: a message with more of them is refused.
        seal_after_s: how long a record waits for its seal, about.
        seal_records: with so many of a partition it waits no longer.
    """

    tables: frozenset[str] = frozenset()
    max_bytes: int = 4_000_000
    seal_after_s: float = 1.0
    seal_records: int = 2_000


@dataclass(slots=True)
class _Open:
    """What of a partition is recorded and not sealed yet.

    Attributes:
        begin: offset at which the last seal ended.
        next: offset after the last message.
        due_at: when it is to be sealed, by the loop's clock; None while there is nothing.
    """

    begin: int
    previous: str
    next: int
    ids: list[str] = field(default_factory=list)
    leaves: list[bytes] = field(default_factory=list)
    lost: int = 0
    due_at: float | None = None


class Recorder:
    """Records messages, and seals what it has recorded.

    Where it has got to is told by the seals alone: whoever takes a partition over begins where its last seal ended, and
    what was recorded after that is recorded again, which changes nothing.
    """

    def __init__(
        self,
        store: Store,
        seals: Seals,
        dead_letters: DeadLetters,
        encode: Encode,
        protect: Protect = unprotected,
        rules: Rules | None = None,
        alike: Alike = never_alike,
    ) -> None:
        self._store = store
        self._seals = seals
        self._dead_letters = dead_letters
        self._encode = encode
        self._protect = protect
        self._rules = rules or Rules()
        self._alike = alike
        self._open: dict[Partition, _Open] = {}

    async def begin(self, topic: str, partition: int, oldest: int = 0, end: int | None = None) -> int:
        """Take over a partition; the offset from which to read.

        Args:
            oldest: offset of the oldest message that the topic still has: what was not sealed before it is lost.
            end: offset of the next message that the topic will get.

        Raises StartedAnew, Unavailable.
        """
        newest = await self._seals.newest(topic, partition)
        sealed, previous = (newest.next, newest.hash) if newest else (0, FIRST)
        if end is not None and sealed > end:
            raise StartedAnew(
                f"{topic}:{partition} ends at {end} but is sealed up to {sealed}: it was made anew, or lost its end"
            )
        offset = max(sealed, oldest)
        if lost := offset - sealed:
            log.error("messages were removed before they were recorded", topic=topic, partition=partition, lost=lost)
        self._open[topic, partition] = _Open(begin=sealed, previous=previous, next=offset, lost=lost)
        return offset

    def forget(self, partitions: Collection[Partition]) -> None:
        """Partitions that somebody else has now: what is not sealed of them is his."""
        for partition in partitions:
            self._open.pop(partition, None)

    async def record(self, messages: Sequence[Message]) -> int:
        """Record the changes in some messages; one that holds none goes to the dead letters and holds up nothing.

        Safe to call again with the same messages, in whole or in part. When it returns, each of them is either
        kept for good or needs not be; it is to be committed when it is sealed. Returns how many records are new.
        Raises Unavailable.
        """
        unread: list[Message] = []
        for message in messages:
            here = message.topic, message.partition
            if here not in self._open:
                await self.begin(*here)
            if message.offset >= self._open[here].next:
                unread.append(message)
        letters: list[Letter] = []
        parts: list[tuple[list[Entry], asyncio.Task[Added]]] = []
        async with _side_by_side() as tasks:
            for at in range(0, len(unread), PART):
                entries, broken = await self._read(unread[at : at + PART])
                letters += broken
                parts.append((entries, tasks.create_task(self._store.add(entries))))
                await _sent()
        new, kept = 0, []
        for entries, adding in parts:
            added = adding.result()
            new += added.new
            letters += [Letter(entries[at].message, reason) for at, reason in added.refused.items()]
            for at, stored in added.other.items():
                entries[at] = self._settled(entries[at], stored)
            kept += [entry for at, entry in enumerate(entries) if at not in added.refused]
        if letters:
            await self._dead_letters.add(sorted(letters, key=lambda one: (one.message.partition, one.message.offset)))
        self._enter(unread, kept)
        return new

    async def seal(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Seal what is due; of some partitions, if they are named, all there is.

        Returns the offsets up to which all is sealed by this call, and may be committed. Raises SealedAlready, and
        then the partition is to be taken over anew; Unavailable.
        """
        seals = {
            partition: Seal(
                topic=partition[0],
                partition=partition[1],
                first=here.begin,
                next=here.next,
                ids=tuple(here.ids),
                leaves=tuple(here.leaves),
                lost=here.lost,
                previous=here.previous,
            )
            for partition, here in self._open.items()
            if self._is_due(partition, partitions)
        }

        async def add(partition: Partition, seal: Seal) -> None:
            await self._seals.add(seal)
            self._open[partition] = _Open(begin=seal.next, previous=seal.hash, next=seal.next)

        async with _side_by_side() as tasks:
            for partition, seal in seals.items():
                tasks.create_task(add(partition, seal))
        return {partition: seal.next for partition, seal in seals.items()}

    def _is_due(self, partition: Partition, partitions: Collection[Partition] | None) -> bool:
        here = self._open[partition]
        if here.due_at is None or (partitions is not None and partition not in partitions):
            return False
        is_full = len(here.ids) >= self._rules.seal_records
        return partitions is not None or is_full or asyncio.get_running_loop().time() >= here.due_at

    async def _read(self, messages: Sequence[Message]) -> tuple[list[Entry], list[Letter]]:
        """What is to be recorded, and what cannot be."""
        read: list[tuple[Message, Change]] = []
        letters: list[Letter] = []
        for message in messages:
            try:
                if (change := self._change(message)) is not None:
                    read.append((message, change))
            except BrokenChange as error:
                letters.append(Letter(message, str(error)))
        protected = await self._protect([change for _, change in read])
        entries: list[Entry] = []
        for (message, _), one in zip(read, protected, strict=True):
            try:
                if isinstance(one, BrokenChange):
                    raise one
                record = Record.of(one)
                content = self._encode(record)
                entries.append(Entry(message, record.id, content, leaf(content)))
            except ValueError as error:
                letters.append(Letter(message, str(error)))
        return entries, letters

    def _change(self, message: Message) -> Change | None:
        """Raises BrokenChange."""
        rules = self._rules
        if message.value is not None and len(message.value) > rules.max_bytes:
            raise BrokenChange(
                f"it has {len(message.value):,} bytes; a record is made of {rules.max_bytes:,} at the most"
            )
        change = changes.read(message.key, message.value, _epoch(message))
        if change is None:
            return None
        if rules.tables and change.table not in rules.tables:
            raise BrokenChange(f"the table {change.table[:100]} is not audited")
        ahead_ms = change.committed_at.timestamp() * 1000 - message.arrived_ms
        if message.arrived_ms and ahead_ms > MAX_AHEAD.total_seconds() * 1000:
            raise BrokenChange(f"it was committed at {change.committed_at}, long after it arrived")
        return change

    def _settled(self, entry: Entry, stored: bytes) -> Entry:
        """What is to be sealed where another content is stored under the id of a record.

        A change that was told before its subject was erased and is told again after that, or the other way round, is
        sealed as it is stored. Nobody but an intruder changes a record otherwise: what came in is sealed, and whoever
        verifies finds the difference.
        """
        if self._alike(stored, entry.content):
            return replace(entry, content=stored, leaf=leaf(stored))
        log.error("a record is not what its change says", id=entry.id, place=entry.message.place)
        return entry

    def _enter(self, messages: Sequence[Message], entries: Sequence[Entry]) -> None:
        """Note what is to be sealed."""
        due_at = asyncio.get_running_loop().time() + self._rules.seal_after_s
        added: Mapping[Partition, list[Entry]] = defaultdict(list)
        for entry in entries:
            added[entry.message.topic, entry.message.partition].append(entry)
        for message in messages:
            here = self._open[message.topic, message.partition]
            here.next = max(here.next, message.offset + 1)
            here.due_at = here.due_at or due_at
        for partition, some in added.items():
            here = self._open[partition]
            some.sort(key=lambda entry: entry.message.offset)
            here.ids += [entry.id for entry in some]
            here.leaves += [entry.leaf for entry in some]


@asynccontextmanager
async def _side_by_side() -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that are all over when the block is; when one fails the others end, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from failed


async def _sent() -> None:
    """Give way twice: a task that was just made runs, then the event loop writes what it has to send."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


def _epoch(message: Message) -> int:
    """Raises BrokenChange."""
    for name, value in message.headers:
        if name == EPOCH_HEADER:
            if value is None or not value.isdigit() or len(value) > 4:
                raise BrokenChange(f"the epoch {value!r:.40} is no number of up to four digits")
            return int(value)
    return 0
