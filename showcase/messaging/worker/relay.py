"""The relay: moves messages from outboxes to the broker. Any number of its processes share the work."""

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence

import structlog

from showcase.messaging.application.ports import Outbox, Publisher
from showcase.messaging.domain import Message, Outcome
from showcase.platform.worker import FIRST_PAUSE_S, wait

log = structlog.get_logger()


class Bell:
    """Wakes all who wait for it."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    @property
    def next(self) -> asyncio.Event:
        """The next ring. Whoever takes it before looking for work misses none that comes meanwhile."""
        return self._next

    def ring(self) -> None:
        rung, self._next = self._next, asyncio.Event()
        rung.set()


async def relay(
    outboxes: Sequence[Outbox],
    publisher: Publisher,
    woken: Callable[[float], Awaitable[bool]],
    stop: asyncio.Event,
    *,
    batch: int,
    poll_s: float,
    lanes: int,
) -> None:
    """Move messages from outboxes to the broker until `stop` is set.

    Rounds that have begun are finished then, and also when one of them fails.

    Args:
        woken: waits for news of an outbox, so many seconds at the most.
        batch: how many messages a round moves at the most.
        poll_s: how long a message waits if that news is lost; and the longest pause after refusals.
        lanes: how many rounds of one outbox may run at once: one reads the database while another waits for the
            broker. Each needs a database connection.

    Raises Unavailable.
    """
    news, ending = Bell(), asyncio.Event()
    bells, work = [news], []
    for outbox in outboxes:
        bells.append(more := Bell())
        work += [
            Lane(outbox, publisher, bell=bell, more=more, batch=batch, poll_s=poll_s)
            for bell in (news, *[more] * (lanes - 1))
        ]
    tasks = [asyncio.ensure_future(lane.run(ending)) for lane in work]
    others = [asyncio.ensure_future(stop.wait()), asyncio.ensure_future(_listen(woken, news, poll_s))]
    try:
        await asyncio.wait([*tasks, *others], return_when=asyncio.FIRST_COMPLETED)
        ending.set()
        for bell in bells:
            bell.ring()
        await asyncio.wait(tasks)
    finally:
        for task in (*tasks, *others):
            task.cancel()
        await asyncio.wait([*tasks, *others])
    errors = [error for task in (*tasks, *others) if not task.cancelled() and (error := task.exception())]
    if errors:
        raise errors[0]


async def _listen(woken: Callable[[float], Awaitable[bool]], news: Bell, poll_s: float) -> None:
    """Ring whenever there is news, and now and then without. Raises Unavailable."""
    while True:
        await woken(poll_s)
        news.ring()


class Lane:
    """One round of an outbox after the other.

    Args:
        bell: rings when it is worth while to look again.
        more: rung after a round that was rather full: there is work for a further lane.
    """

    def __init__(
        self, outbox: Outbox, publisher: Publisher, *, bell: Bell, more: Bell, batch: int, poll_s: float
    ) -> None:
        self._outbox = outbox
        self._publisher = publisher
        self._bell = bell
        self._more = more
        self._batch = batch
        self._poll_s = poll_s
        self._refused = 0

    async def run(self, ending: asyncio.Event) -> None:
        """Work until `ending` is set. Raises Unavailable."""
        pause_s = FIRST_PAUSE_S
        while not ending.is_set():
            next_ring, self._refused = self._bell.next, 0
            moved = await self._outbox.relay(self._publish, self._batch)
            if moved > self._batch // 2:
                self._more.ring()
            if self._refused > moved:  # a queue is full: asking again at once would only keep the broker busy
                await wait(ending, pause_s * random.uniform(0.5, 1))  # noqa: S311 - jitter, no secret
                pause_s = min(self._poll_s, 2 * pause_s)
                continue
            pause_s = FIRST_PAUSE_S
            if not moved:
                await next_ring.wait()

    async def _publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        outcomes = await self._publisher.publish(messages)
        self._refused += sum(outcome is Outcome.REFUSED for outcome in outcomes)
        return outcomes
