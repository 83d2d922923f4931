"""What recording and proving need of the world."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import Seal
from showcase.kernel.changes import BrokenChange, Change

Partition = tuple[str, int]
"""A topic, and the number of one of its partitions."""
Encode = Callable[[Record], bytes]
"""The bytes of a record that are kept, and hashed: the same for the same record, always.

Raises ValueError for one that cannot be kept."""
Protect = Callable[[Sequence[Change]], Awaitable[Sequence[Change | BrokenChange]]]
"""Makes what is personal in some changes unreadable without its subject's key; the others stay as they are, and one
that cannot be protected becomes the error that says why.

Raises Unavailable."""
Alike = Callable[[bytes, bytes], bool]
"""Whether a stored content and one that is told now differ by no more than that their subject was erased in between."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What arrived, and where it stands in the topic.

    Attributes:
        arrived_ms: by the broker's clock, since 1970; 0 where it does not say.
    """

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    arrived_ms: int = 0

    @property
    def place(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that became no record, and why."""

    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A record on its way into the store.

    Attributes:
        message: that told it.
        content: its bytes.
        leaf: their hash.
    """

    message: Message
    id: str
    content: bytes
    leaf: bytes


@dataclass(frozen=True, slots=True)
class Added:
    """What came of some entries.

    Attributes:
        new: how many were not there before.
        refused: by its place among them, why the store can never take one. Offering it again is no use.
        other: by its place, the content that is stored under the id of one, where that is another one.
    """

    new: int
    refused: Mapping[int, str]
    other: Mapping[int, bytes]


class Store(Protocol):
    """Keeps records for good. Raises Unavailable."""

    async def add(self, entries: Sequence[Entry]) -> Added:
        """Keep them; those that are there already stay as they are. When it returns they survive a crash."""


class SealedAlready(Exception):
    """Somebody else has sealed from the same offset on: this consumer has lost its partition and does not know yet."""


class Seals(Protocol):
    """Keeps seals for good. Raises Unavailable."""

    async def newest(self, topic: str, partition: int) -> Seal | None:
        """The last one of a partition."""

    async def add(self, seal: Seal) -> None:
        """Keep it. Raises SealedAlready."""


class DeadLetters(Protocol):
    """Keeps what could not be recorded, for a person to look at. Raises Unavailable."""

    async def add(self, letters: Sequence[Letter]) -> None:
        """Keep them. When it returns they survive a crash."""
