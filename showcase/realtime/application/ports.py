"""What the hub and the WebSocket need of the outside."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from showcase.kernel.errors import Unauthenticated
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal
from showcase.realtime.domain import Place

OwnerOf = Callable[[UUID], Awaitable[int | None]]
"""The household that an order belongs to; None if there is no such order. Raises Unavailable."""


class HasEnded(Protocol):
    """Knows which sessions are over."""

    async def __call__(self, session_id: UUID, *, sensitive: bool) -> bool:
        """Whether a session has ended.

        Args:
            sensitive: rather no answer than one that could be wrong.

        Raises Unavailable.
        """


class BadTicket(Unauthenticated):
    """The ticket is unknown, was used, or has expired."""


class Tickets(Protocol):
    """Turns a caller into a ticket, and back once."""

    async def issue(self, principal: Principal) -> str:
        """A ticket that works once, within a short time. Raises Unavailable."""

    async def redeem(self, ticket: str) -> Principal:
        """Who it was issued to. Raises BadTicket, Unavailable."""


class Lost(Exception):
    """A place is not in the stream any more: what came after it may be gone as well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An event with its place in the stream; None for something there that is no event.

    Attributes:
        size: bytes, about.
    """

    place: Place
    event: Event | None
    size: int = 0


class Stream(Protocol):
    """The events of all processes, in one order. Every call raises Unavailable when there is no answer in time."""

    async def publish(self, event: Event) -> bool:
        """Add an event to the end; False for one that was added before."""

    async def end(self) -> Place:
        """Where the last event is; the stream is begun if there is none."""

    async def read(self, after: Place) -> Sequence[Stored]:
        """What comes after a place, the oldest first. Waits a moment if there is nothing. Raises Lost."""

    async def since(self, after: Place, count: int) -> Sequence[Stored]:
        """What comes after a place, so many at the most; does not wait. Raises Lost."""

    async def recover(self, lost: Place) -> Place:
        """The end, after a place was lost.

        If it was lost at the end of the stream and not by its age, then a new epoch begins: whoever has got less far
        has missed something too.
        """
