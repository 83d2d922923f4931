"""Recording changes, and asking for the timeline of one entity."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from showcase.audit.domain import Place, Record
from showcase.kernel import changes
from showcase.kernel.changes import BrokenChange
from showcase.kernel.errors import NotFound

UNRECORDED = frozenset({"heartbeat"})
"""Tables whose changes mean nothing: they only keep the capture going."""


class NoSuchEntity(NotFound):
    """Nobody has recorded a change of this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """What arrived, and where it stands in the topic."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that became no record, and why."""

    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Added:
    """What came of some records.

    Attributes:
        new: how many were not there before.
        refused: by its place, why the store can never take one. Offering it again is no use.
    """

    new: int
    refused: Mapping[int, str]


class Store(Protocol):
    """Keeps records for good. Raises Unavailable."""

    async def add(self, records: Sequence[Record]) -> Added:
        """Keep them; those that are there already stay as they are. When it returns they survive a crash."""

    async def timeline(
        self, entity_type: str, entity_id: str, after: Place | None = None, limit: int = 50
    ) -> Sequence[Record]:
        """The records of one entity by their places, the oldest first."""


class DeadLetters(Protocol):
    """Keeps what could not be recorded, for a person to look at. Raises Unavailable."""

    async def add(self, letters: Sequence[Letter]) -> None:
        """Keep them; one from the same place of the same topic is there once."""


class Recorder:
    """Turns messages of Debezium's topics into records."""

    def __init__(self, store: Store, dead_letters: DeadLetters) -> None:
        self._store = store
        self._dead_letters = dead_letters

    async def record(self, messages: Sequence[Message]) -> int:
        """Record the changes in some messages; one that holds none goes to the dead letters and holds up nothing.

        Safe to call again with the same messages, in whole or in part. When it returns, each of them is either
        kept for good or needs not be. Returns how many records are new. Raises Unavailable.
        """
        read: list[tuple[Message, Record]] = []
        letters: list[Letter] = []
        for message in messages:
            try:
                change = changes.read(message.key, message.value)
                if change is not None and change.table not in UNRECORDED:
                    read.append((message, Record.of(change)))
            except BrokenChange as error:
                letters.append(Letter(message, str(error)))
        added = await self._store.add([record for _, record in read]) if read else Added(0, {})
        letters += [Letter(read[place][0], reason) for place, reason in added.refused.items()]
        if letters:
            await self._dead_letters.add(letters)
        return added.new


async def timeline(
    store: Store, entity_type: str, entity_id: str, after: Place | None, limit: int
) -> tuple[Sequence[Record], Place | None]:
    """One page of an entity's records, and the place after which the next one begins, if there is one.

    Raises NoSuchEntity, Unavailable.
    """
    found = await store.timeline(entity_type, entity_id, after, limit + 1)
    if not found and after is None:
        raise NoSuchEntity(f"no change of {entity_type}/{entity_id} is recorded: look at its spelling")
    page = found[:limit]
    return page, page[-1].place if len(found) > limit else None
