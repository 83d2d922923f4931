"""Where parked messages are kept, and what is seen of them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from showcase.messaging.application.parked import Parked, State

_UNPUBLISHED = re.compile(r"outbox:([a-z_]{1,63}):([1-9][0-9]{0,17})")
"""No more digits than a 64-bit integer surely holds."""


class Unpublished(NamedTuple):
    """A message that the relay could not publish, by where it is."""

    outbox: str
    position: int

    def __str__(self) -> str:
        return f"outbox:{self.outbox}:{self.position}"


def read_id(text: str) -> UUID | Unpublished | None:
    """The message that an id names: a UUID, or `outbox:SCHEMA:POSITION`. None for one that names nothing."""
    if found := _UNPUBLISHED.fullmatch(text):
        return Unpublished(found[1], int(found[2]))
    try:
        return UUID(text)
    except ValueError:
        return None


class Place(NamedTuple):
    """Where a message stands in the list of all."""

    parked_at: datetime
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Some of the parked messages: all, if nothing is given.

    Attributes:
        queue: the one whose consumer failed, or `outbox:SCHEMA` of those that could not be published.
    """

    queue: str | None = None
    type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A parked message in the list. See `Parked`; `id` is a UUID, or `outbox:SCHEMA:POSITION`."""

    id: str
    queue: str
    event_id: str
    type: str
    subject: str
    reason: str
    attempts: int
    replays: int
    parked_at: datetime
    state: State
    settled_at: datetime | None

    @property
    def place(self) -> Place:
        return Place(self.parked_at, self.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """What somebody did to a message."""

    at: datetime
    actor: str
    action: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """All that is known of a parked message."""

    entry: Entry
    attributes: Mapping[str, str]
    headers: Mapping[str, object]
    body: bytes
    actions: Sequence[Action] = ()


class ParkingLot(Protocol):
    """Keeps parked messages. Each call joins the transaction that is open, and raises Unavailable."""

    async def add(self, parked: Sequence[Parked]) -> int:
        """Keep them; one that was kept before stays as it is, whatever has become of it. How many are new."""

    async def page(self, which: Which, before: Place | None, limit: int) -> Sequence[Entry]:
        """Those that are still parked, the newest first; also those that could not be published."""

    async def oldest(self, queues: Sequence[str], type_: str | None, until: Place, limit: int) -> Sequence[str]:
        """The ids of the first of them from some queues, none later than `until`, and no more bytes than one
        transaction can take."""

    async def find(self, message: UUID | Unpublished) -> Details | None:
        """One, settled or not."""

    async def settle(self, ids: Sequence[UUID], state: State) -> Sequence[Parked]:
        """Those that are still parked, and that nobody else is settling right now, are settled."""

    async def act(self, ids: Sequence[str], *, actor: str, action: str, reason: str = "") -> None:
        """Write down what somebody does to some messages."""

    async def counts(self) -> Mapping[str, int]:
        """How many are parked, by queue; without those that could not be published."""

    async def prune(self, kept: timedelta) -> tuple[int, int]:
        """Remove messages that were settled longer ago than `kept`, and what was done to messages more than a year
        ago; how many of each."""
