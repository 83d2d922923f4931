"""The relay's lanes: never idle while there is work, never spinning while there is none that can be done."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.messaging.application.ports import Outbox, Publish
from showcase.messaging.domain import Message, Outcome
from showcase.messaging.worker import relay as module
from showcase.messaging.worker.relay import relay
from showcase.platform.worker import FIRST_PAUSE_S
from tests.fakes_outbox import Memory, MemoryOutbox

pytestmark = pytest.mark.anyio
NEVER_S = 60.0
"""Nothing in here waits for so long."""


def event(subject: object) -> Event:
    return Event(type="t.v1", source="/s", subject=f"orders/{subject}", data={})


async def outbox_of(count: int) -> MemoryOutbox:
    outbox = MemoryOutbox(Memory())
    for number in range(count):
        await outbox.add(event(number))
    return outbox


async def no_news(within_s: float) -> bool:
    await asyncio.sleep(within_s)
    return False


class Publisher:
    """Takes all, unless it is told otherwise.

    Args:
        then: called after each call; what it returns is said of every message.
    """

    def __init__(self, then: Callable[[], Outcome | None] = lambda: None) -> None:
        self.sent: list[Message] = []
        self._then = then

    async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        self.sent += messages
        await asyncio.sleep(0)
        return [self._then() or Outcome.TAKEN] * len(messages)


class Relay:
    """A relay to be started and stopped."""

    def __init__(self, *outboxes: Outbox) -> None:
        self.outboxes = outboxes
        self.stop = asyncio.Event()

    async def run(
        self,
        publisher: Publisher,
        *,
        woken: Callable[[float], Awaitable[bool]] = no_news,
        batch: int = 10,
        lanes: int = 1,
        poll_s: float = NEVER_S,
    ) -> None:
        async with asyncio.timeout(10):
            await relay(self.outboxes, publisher, woken, self.stop, batch=batch, poll_s=poll_s, lanes=lanes)


async def test_a_relay_asks_again_at_once_while_there_is_more_and_stops_when_it_is_told_to() -> None:
    outbox = await outbox_of(3)
    running = Relay(outbox)

    def stop_after_the_last() -> None:
        if len(publisher.sent) == 3:
            running.stop.set()

    publisher = Publisher(stop_after_the_last)
    await running.run(publisher, batch=1)
    assert (await outbox.waiting()).waiting == 0


async def test_what_comes_while_a_relay_looks_is_not_slept_through() -> None:
    """The news comes after the look at the table and before the wait."""
    outbox, news = await outbox_of(0), asyncio.Event()
    running = Relay(Looked(outbox, then=news.set))

    async def woken(within_s: float) -> bool:
        await news.wait()
        news.clear()
        return True

    await running.run(Publisher(running.stop.set), woken=woken)
    assert (await outbox.waiting()).waiting == 0


class Looked:
    """An outbox to which an event is added just after the first look found nothing; then the news of it comes."""

    def __init__(self, outbox: MemoryOutbox, then: Callable[[], None]) -> None:
        self._outbox = outbox
        self._then = then
        self._looks = 0

    async def relay(self, publish: Publish, limit: int) -> int:
        self._looks += 1
        moved = await self._outbox.relay(publish, limit)
        if self._looks == 1:
            await self._outbox.add(event("late"))
            self._then()
            for _ in range(5):  # the one who listens hears it
                await asyncio.sleep(0)
        return moved


async def test_news_that_is_lost_delays_an_event_by_the_poll_and_no_longer() -> None:
    outbox = await outbox_of(0)
    running = Relay(outbox)
    task = asyncio.create_task(running.run(Publisher(running.stop.set), poll_s=0.01))
    await asyncio.sleep(0)
    await outbox.add(event("late"))
    await task
    assert (await outbox.waiting()).waiting == 0


async def test_refusals_are_answered_by_pauses_that_grow_up_to_the_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    running, pauses = Relay(await outbox_of(3)), []

    async def wait(ending: asyncio.Event, within_s: float) -> bool:
        pauses.append(within_s)
        if len(pauses) == 8:
            running.stop.set()
        await asyncio.sleep(0)
        return False

    monkeypatch.setattr(module, "wait", wait)
    publisher = Publisher(lambda: Outcome.REFUSED)
    await running.run(publisher, poll_s=1.0)

    assert len(publisher.sent) == 3 * len(pauses), "one round, one pause"
    assert pauses[0] <= FIRST_PAUSE_S
    assert all(0.5 <= pause <= 1.0 for pause in pauses[4:])
    assert len(set(pauses[4:])) > 1, "two relays do not go in step"


async def test_a_round_that_was_full_calls_in_another_lane() -> None:
    """Two rounds wait for each other, which is for ever in a relay that does one after the other."""
    outbox = await outbox_of(0)
    running, both = Relay(outbox), asyncio.Barrier(2)

    class Meeting(Publisher):
        rounds = 0

        async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
            self.rounds += 1
            if self.rounds in (2, 3):
                await both.wait()
                running.stop.set()
            return await super().publish(messages)

    async def woken(within_s: float) -> bool:
        if outbox.rows:
            await asyncio.sleep(NEVER_S)
        for number in range(8):
            await outbox.add(event(number))
        return True

    await running.run(Meeting(), woken=woken, batch=2, lanes=2)
    assert running.stop.is_set()


async def test_an_outbox_that_never_ends_keeps_no_other_waiting() -> None:
    busy, other = await outbox_of(1), await outbox_of(0)
    running = Relay(busy, other)

    class Endless(Publisher):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
            if messages[0].attributes["subject"] == "orders/rare":
                running.stop.set()
            else:
                await asyncio.create_task(busy.add(event(len(self.sent))))
                if len(self.sent) == 20:
                    await asyncio.create_task(other.add(event("rare")))
            return await super().publish(messages)

    await running.run(Endless(), poll_s=0.01)
    assert (await other.waiting()).waiting == 0


async def test_a_relay_that_is_told_to_stop_finishes_the_round_it_has_begun() -> None:
    outbox = await outbox_of(2)
    running, begun, confirmed = Relay(outbox), asyncio.Event(), asyncio.Event()

    class Slow(Publisher):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
            begun.set()
            await confirmed.wait()
            return await super().publish(messages)

    task = asyncio.create_task(running.run(Slow(), batch=1))
    await begun.wait()
    running.stop.set()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    confirmed.set()
    await task
    assert (await outbox.waiting()).waiting == 1, "it was marked, and no further round was begun"


async def test_an_error_of_one_lane_ends_the_relay_when_the_others_have_finished_their_rounds() -> None:
    fine, broken = await outbox_of(1), await outbox_of(1)
    running, failed = Relay(fine, broken), asyncio.Event()

    class Half(Publisher):
        async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
            if not self.sent:
                outcomes = await super().publish(messages)
                await failed.wait()
                for _ in range(5):
                    await asyncio.sleep(0)
                return outcomes
            failed.set()
            raise Unavailable("the connection was lost")

    with pytest.raises(Unavailable, match="lost"):
        await running.run(Half())
    assert ((await fine.waiting()).waiting, (await broken.waiting()).waiting) == (0, 1)
