"""Turns messages of Debezium's topics into sealed records."""

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from showcase.audit.application.ports import (
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


class StartedAnew(RuntimeError):
    """A topic has fewer messages than were sealed: going on would pass over new ones as if they were old.

    A source that begins again gets another name (its topic prefix).
    """


async def unprotected(changes: Sequence[Change]) -> Sequence[Change]:
    """Nothing in them is personal."""
    return changes


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
    ) -> None:
        self._store = store
        self._seals = seals
        self._dead_letters = dead_letters
        self._encode = encode
        self._protect = protect
        self._rules = rules or Rules()
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
        entries, letters = await self._read(unread)
        added = await self._store.add(entries)
        letters += [Letter(entries[at].message, reason) for at, reason in added.refused.items()]
        if letters:
            await self._dead_letters.add(sorted(letters, key=lambda one: (one.message.partition, one.message.offset)))
        for at, stored in added.other.items():
            entries[at] = await self._settled(entries[at], stored)
        self._enter(unread, [entry for at, entry in enumerate(entries) if at not in added.refused])
        return added.new

    async def seal(self, partitions: Collection[Partition] | None = None) -> dict[Partition, int]:
        """Seal what is due; of some partitions, if they are named, all there is.

        Returns the offsets up to which all is sealed by this call, and may be committed. Raises SealedAlready, and
        then the partition is to be taken over anew; Unavailable.
        """
        sealed: dict[Partition, int] = {}
        for partition in [one for one in self._open if self._is_due(one, partitions)]:
            here = self._open[partition]
            seal = Seal(
                topic=partition[0],
                partition=partition[1],
                first=here.begin,
                next=here.next,
                ids=tuple(here.ids),
                leaves=tuple(here.leaves),
                lost=here.lost,
                previous=here.previous,
            )
            await self._seals.add(seal)
            self._open[partition] = _Open(begin=seal.next, previous=seal.hash, next=seal.next)
            sealed[partition] = seal.next
        return sealed

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
        for (message, _), change in zip(read, protected, strict=True):
            try:
                record = Record.of(change)
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

    async def _settled(self, entry: Entry, stored: bytes) -> Entry:
        """What is to be sealed where another content is stored under the id of a record.

        Nobody but an intruder changes a record: what came in is sealed, and whoever verifies finds the difference.
        """
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


def _epoch(message: Message) -> int:
    """Raises BrokenChange."""
    for name, value in message.headers:
        if name == EPOCH_HEADER:
            if value is None or not value.isdigit() or len(value) > 4:
                raise BrokenChange(f"the epoch {value!r:.40} is no number of up to four digits")
            return int(value)
    return 0
