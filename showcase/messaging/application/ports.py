"""What messaging needs of a database and of a broker.

Sources: Microservices Patterns (Richardson, 2018), ch. 3, "Transactional outbox" and "Idempotent consumer".
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol, TypeVar

from showcase.kernel.ids import EventId
from showcase.messaging.domain import Message, Outcome

Publish = Callable[[Sequence[Message]], Awaitable[Sequence[Outcome]]]


class Publisher(Protocol):
    """Sends messages to the broker."""

    async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """What the broker said of each, all of them being on their way at once (publisher confirms).

        Raises Unavailable: then each may or may not have been taken.
        """


class Outbox(Protocol):
    """The relay's side of one outbox."""

    async def relay(self, publish: Publish, limit: int) -> int:
        """Hand messages that wait to `publish`, of each subject the oldest first, and mark them by what came of each.

        What the broker took is published; what no queue takes, or is too large, is parked with that reason; what was
        refused goes on waiting, and those of its subject behind it. Of one subject no two are ever on their way at
        once, and no two relays ever work on one subject at the same time.

        Args:
            limit: how many at the most.

        Returns how many need no longer wait: 0 also when other relays are at all that there is. Raises Unavailable.
        """


class Inbox(Protocol):
    """Which events a consumer has handled, remembered in the transaction in which it handles them."""

    async def seen(self, ids: Collection[EventId]) -> set[EventId]:
        """Those that were handled before, as far as is known: a look that waits for nobody."""

    async def enter(self, ids: Collection[EventId]) -> set[EventId]:
        """Those that are handled now for the first time; remembered, if the transaction commits.

        Waits for another process that is handling one of them.
        """

    async def leave(self, id_: EventId) -> None:
        """The handling of one has failed: forget, in the same transaction, that it was entered."""


class Delivery(Protocol):
    """A message that the broker handed over, to be settled.

    Attributes:
        attributes: of CloudEvents; whatever a stranger has sent, until they are read.
        headers: all others, ours (`x-attempt` …) and the broker's (`x-death`, `x-delivery-count`).
    """

    @property
    def attributes(self) -> Mapping[str, object]: ...

    @property
    def headers(self) -> Mapping[str, object]: ...

    @property
    def body(self) -> bytes: ...


D = TypeVar("D", bound=Delivery)


class Queueing(Publisher, Protocol[D]):
    """A consumer's side of a broker. Each call raises Unavailable when the connection is lost: whatever was not
    acknowledged then comes again."""

    async def consume(self, queue: str, prefetch: int) -> "asyncio.Queue[D | None]":
        """Have the broker hand over a queue's messages; None comes when the connection is lost.

        Args:
            prefetch: how many may be out without an acknowledgement.
        """

    async def hand_back(self) -> None:
        """Take no more; what was not acknowledged goes back into the queue."""

    def acknowledge(self, deliveries: Sequence[D]) -> None:
        """These are settled: the broker may forget them."""

    def check(self) -> None:
        """Do nothing, or raise Unavailable."""


Transaction = Callable[[], AbstractAsyncContextManager[object]]
