"""One contract for outbox and inbox: in memory and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event, EventSink
from showcase.messaging.application import Inbox, Outbox
from showcase.messaging.infrastructure.outbox import CHANNEL, SqlInbox, SqlOutbox
from showcase.platform.database import Database
from tests.fakes import until
from tests.fakes_messaging import Memory, MemoryInbox, MemoryOutbox
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
POSTGRES = "SHOWCASE_POSTGRES_URL"
LIMIT = 10


class Box(Outbox, EventSink):
    """Both sides of an outbox."""


@dataclass(frozen=True, kw_only=True)
class Boxes:
    transaction: Callable[[], AbstractAsyncContextManager[object]]
    outbox: Box
    inbox: Inbox
    other_inbox: Inbox


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Stack.attach() as stack, Namespace.create({POSTGRES: stack.urls[POSTGRES]}) as names:
        yield names.postgres_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await SqlOutbox(database).relay(all_taken, 1_000)
    await SqlOutbox(database).prune(timedelta(0))
    await SqlInbox(database, "public", "").prune(timedelta(0))
    await database.close()


@pytest.fixture(params=["memory", "postgres"])
def boxes(request: pytest.FixtureRequest) -> Boxes:
    if request.param == "memory":
        memory = Memory()
        return Boxes(
            transaction=memory.transaction,
            outbox=MemoryOutbox(memory),  # type: ignore[arg-type]  # mypy wants a subclass: Box is two Protocols
            inbox=MemoryInbox(memory),
            other_inbox=MemoryInbox(memory, "other"),
        )
    database: Database = request.getfixturevalue("database")
    return Boxes(
        transaction=database.transaction,
        outbox=SqlOutbox(database),  # type: ignore[arg-type]  # as above
        inbox=SqlInbox(database, "public", "shop"),
        other_inbox=SqlInbox(database, "public", "other"),
    )


def event(subject: object = 1) -> Event:
    return Event(type="t", source="/s", subject=f"orders/{subject}", data={"words": "Käse ✓"}, causation_id="0")


async def all_taken(events: Sequence[Event]) -> Sequence[bool]:
    return [True] * len(events)


class Taker:
    """Publishes: takes all events but those that it is told to refuse."""

    def __init__(self, *refused: Event) -> None:
        self.refused = {one.id for one in refused}
        self.offered: list[Event] = []

    async def __call__(self, events: Sequence[Event]) -> Sequence[bool]:
        self.offered += events
        return [one.id not in self.refused for one in events]


async def test_events_are_handed_over_whole_oldest_first_and_once(boxes: Boxes) -> None:
    added = [event(number) for number in range(LIMIT + 5)]
    for one in added:
        await boxes.outbox.add(one)
    taker = Taker()

    assert [await boxes.outbox.relay(taker, LIMIT) for _ in range(3)] == [LIMIT, 5, 0]
    assert taker.offered == added


async def test_an_event_of_a_transaction_that_failed_is_never_handed_over(boxes: Boxes) -> None:
    async def fails() -> None:
        async with boxes.transaction():
            await boxes.outbox.add(event())
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert await boxes.outbox.relay(all_taken, LIMIT) == 0


async def test_a_refused_event_stays_and_stops_no_other_subject(boxes: Boxes) -> None:
    refused, other = event("a"), event("b")
    for one in (refused, other):
        await boxes.outbox.add(one)

    assert await boxes.outbox.relay(Taker(refused), LIMIT) == 1
    taker = Taker()
    assert await boxes.outbox.relay(taker, LIMIT) == 1
    assert taker.offered == [refused]


async def test_events_of_a_subject_are_never_told_out_of_order_though_one_is_refused(boxes: Boxes) -> None:
    first, second = event("a"), event("a")
    for one in (first, second):
        await boxes.outbox.add(one)
    taker = Taker(first)

    assert await boxes.outbox.relay(taker, LIMIT) == 0
    assert taker.offered == [first], "the second waits until the first is with the broker"
    taker.refused.clear()
    assert [await boxes.outbox.relay(taker, LIMIT) for _ in range(3)] == [1, 1, 0]
    assert taker.offered == [first, first, second]


async def test_an_event_whose_publishing_failed_is_handed_over_again(boxes: Boxes) -> None:
    """As when a relay dies after it has sent and before it has marked: at least once."""
    await boxes.outbox.add(event())

    async def breaks(events: Sequence[Event]) -> Sequence[bool]:
        raise Unavailable("the connection was lost")

    with pytest.raises(Unavailable):
        await boxes.outbox.relay(breaks, LIMIT)
    assert await boxes.outbox.relay(all_taken, LIMIT) == 1


async def test_an_event_is_met_for_the_first_time_once_by_each_consumer(boxes: Boxes) -> None:
    one, other = event(), event()

    seen = [await boxes.inbox.first_time(one) for _ in range(3)]
    assert seen == [True, False, False]
    assert await boxes.inbox.first_time(other)
    assert await boxes.other_inbox.first_time(one)


async def test_an_event_whose_handling_failed_was_not_met(boxes: Boxes) -> None:
    one = event()

    async def fails() -> None:
        async with boxes.transaction():
            assert await boxes.inbox.first_time(one)
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert await boxes.inbox.first_time(one)


# -- in PostgreSQL alone: what takes two transactions at once


async def test_one_relay_at_a_time_works_on_an_outbox(database: Database) -> None:
    outbox = SqlOutbox(database)
    await outbox.add(event())
    seen_inside = []

    async def publish(events: Sequence[Event]) -> Sequence[bool]:
        other = asyncio.create_task(SqlOutbox(database).relay(all_taken, LIMIT))
        seen_inside.append(await other)
        return [True]

    assert await outbox.relay(publish, LIMIT) == 1
    assert seen_inside == [0]


async def test_the_same_event_in_two_processes_waits_for_the_first_and_is_handled_once(database: Database) -> None:
    inbox, one = SqlInbox(database, "public", "shop"), event()

    async def handle() -> bool:
        async with database.transaction():
            return await inbox.first_time(one)

    for outcome, second_is_first in ((None, False), (LookupError, True)):
        one = replace(one, id=event().id)
        second: asyncio.Task[bool] | None = None
        try:
            async with database.transaction():
                assert await inbox.first_time(one)
                second = asyncio.create_task(handle())
                await asyncio.wait({second}, timeout=0.2)
                assert not second.done()
                if outcome is not None:
                    raise outcome
        except LookupError:
            pass
        assert second is not None
        assert await second == second_is_first


async def test_a_committed_event_wakes_the_relay(database: Database) -> None:
    async with database.listening(CHANNEL) as woken:
        await SqlOutbox(database).add(event())
        assert await woken(20)


async def test_pruning_removes_what_was_published_and_handled_and_nothing_else(database: Database) -> None:
    outbox, inbox = SqlOutbox(database), SqlInbox(database, "public", "shop")
    old, waiting = event("old"), event("waiting")
    for one in (old, waiting):
        await outbox.add(one)
    await outbox.relay(Taker(waiting), LIMIT)
    await inbox.first_time(old)

    assert (await outbox.prune(timedelta(hours=1)), await inbox.prune(timedelta(hours=1))) == (0, 0)

    async def pruned() -> bool:  # "longer ago than nothing": some clocks are coarse
        return await outbox.prune(timedelta(0)) == 1

    await until(pruned)
    assert await inbox.prune(timedelta(0)) == 1
    assert await outbox.relay(all_taken, LIMIT) == 1, "what nobody has published is still there"
