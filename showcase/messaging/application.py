"""The transactional outbox, its relay, and a consumer that handles each event once.

Sources: Microservices Patterns (Richardson, 2018), ch. 3, "Transactional outbox" and "Idempotent consumer".
"""

from collections.abc import Awaitable, Callable, Sequence
from enum import StrEnum
from typing import Protocol

from showcase.kernel import trace
from showcase.kernel.errors import DomainError, Unavailable
from showcase.kernel.events import BrokenEvent, Event

Handle = Callable[[Event], Awaitable[None]]
"""What a consumer does with an event. It may be called twice with the same one, and is to have its effect once:
by an inbox, or because doing it twice is the same as once.

Raises Unavailable to be called again with it; anything else that it raises parks the message.
"""


class Outbox(Protocol):
    """The relay's side of one outbox."""

    async def relay(self, publish: Callable[[Sequence[Event]], Awaitable[Sequence[bool]]], limit: int) -> int:
        """Hand the oldest events that wait to `publish`, and mark those that it says are with the broker.

        Returns how many were marked: 0 also when another relay is at it. Raises Unavailable.
        """


class Inbox(Protocol):
    """Remembers which events a consumer has handled, in the transaction in which it handles them."""

    async def first_time(self, event: Event) -> bool:
        """Whether this consumer meets the event for the first time. Waits for another process that is handling it."""


class Publisher(Protocol):
    """Sends events to the broker."""

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """Whether the broker has taken charge of each (publisher confirms). Raises Unavailable."""


class Verdict(StrEnum):
    """What becomes of a message."""

    DONE = "done"
    AGAIN = "again"
    PARK = "park"


def one_a_subject(events: Sequence[Event]) -> list[Event]:
    """The first event of each subject.

    What is on its way at once may be taken in part: were two events of one subject among it, the broker could
    refuse the first and take the second.
    """
    firsts: dict[str, Event] = {}
    for event in events:
        firsts.setdefault(event.subject, event)
    return list(firsts.values())


async def relay_once(outboxes: Sequence[Outbox], publisher: Publisher, limit: int) -> int:
    """One round over all outboxes; how many events are with the broker now that were not before."""
    return sum([await outbox.relay(publisher.publish, limit) for outbox in outboxes])


async def handle_message(attributes: dict[str, object], body: bytes, handle: Handle) -> tuple[Verdict, str]:
    """Read a message and handle it, as part of the trace that it came with.

    Returns what becomes of the message, and why.
    """
    try:
        event = Event.read(attributes, body)
    except BrokenEvent as error:
        return Verdict.PARK, str(error)
    trace.enter(event.traceparent)
    try:
        await handle(event)
    except Unavailable as error:
        return Verdict.AGAIN, error.detail
    except DomainError as error:
        return Verdict.PARK, f"{type(error).__name__}: {error.detail}"
    except Exception as error:
        return Verdict.PARK, f"{type(error).__name__}: {error}"
    return Verdict.DONE, ""
