"""One contract for every stream of events: the one in memory and Redis Streams."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime

import pytest

from showcase.kernel.events import Event
from showcase.kernel.ids import EventId
from showcase.platform.resources import Resources
from showcase.realtime.application import Stored, Stream
from showcase.realtime.infrastructure import RedisStream
from tests.fakes import MemoryStream, settings_of
from workshop.stack import Stack

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def running() -> Iterator[Stack]:
    with Stack.attach() as stack:
        yield stack


@pytest.fixture
async def redis(running: Stack) -> AsyncIterator[tuple[Resources, str]]:
    with running.namespace() as names:
        async with Resources(settings_of(names.env)) as resources:
            yield resources, names.redis_prefix


@pytest.fixture(params=["memory", "redis"])
def stream(request: pytest.FixtureRequest) -> Stream:
    if request.param == "memory":
        return MemoryStream()
    resources, prefix = request.getfixturevalue("redis")
    return RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=1.0)


def event(number: int = 0) -> Event:
    """One of many."""
    return Event(
        type="t.v1",
        source="/shop",
        subject="orders/a",
        data={"number": number, "text": "grün ✓", "none": None},
        id=EventId(f"id-{number}"),
        time=datetime(2026, 1, 2, 3, 4, 5, 678_900, UTC),
        causation_id="because",
    )


async def read_all(stream: Stream, after: str, count: int) -> list[Stored]:
    """So many events after an id."""
    found: list[Stored] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await stream.read(found[-1].id if found else after)
    return found


async def test_event_comes_back_as_it_was_published(stream: Stream) -> None:
    begin = await stream.end()
    assert await stream.publish(event())

    (stored,) = await read_all(stream, begin, 1)

    assert stored.event == event()


async def test_events_come_in_the_order_of_publishing_each_with_an_id_to_go_on_from(stream: Stream) -> None:
    begin = await stream.end()
    for number in range(50):
        await stream.publish(event(number))

    found = await read_all(stream, begin, 50)

    assert [one.event for one in found] == [event(number) for number in range(50)]
    assert await stream.end() == found[-1].id
    assert await read_all(stream, found[20].id, 29) == found[21:]


async def test_event_published_again_is_not_added(stream: Stream) -> None:
    begin = await stream.end()

    assert [await stream.publish(event(number)) for number in (1, 1, 2, 1)] == [True, False, True, False]
    assert len(await read_all(stream, begin, 2)) == 2


async def test_event_published_by_many_at_once_is_added_once(stream: Stream) -> None:
    begin = await stream.end()

    added = await asyncio.gather(*(stream.publish(event(number % 5)) for number in range(50)))

    assert sum(added) == 5
    assert len(await read_all(stream, begin, 5)) == 5


async def test_reader_at_the_end_waits_a_moment_and_comes_back_with_nothing(stream: Stream) -> None:
    await stream.publish(event())

    assert list(await asyncio.wait_for(stream.read(await stream.end()), 2)) == []


async def test_waiting_reader_is_woken_by_an_event(stream: Stream) -> None:
    reading = asyncio.create_task(read_all(stream, await stream.end(), 1))
    await asyncio.sleep(0)  # let it begin

    await stream.publish(event())

    assert (await reading)[0].event == event()


async def test_redis_keeps_about_as_many_events_as_it_is_told(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    stream = RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=1.0)
    for number in range(500):
        await stream.publish(event(number))

    assert 100 <= await resources.redis_state.xlen(f"{prefix}events") < 300


async def test_what_is_no_event_in_redis_is_passed_over(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    stream = RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=1.0)
    for attributes in ("{", "3", "{}"):
        await resources.redis_state.xadd(f"{prefix}events", {"attributes": attributes, "body": "{}"})
    await stream.publish(event())

    found = await read_all(stream, "0-0", 4)

    assert [one.event for one in found] == [None, None, None, event()]


async def test_event_that_was_not_added_is_not_taken_for_told(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    stream = RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=1.0)
    await resources.redis_state.set(f"{prefix}events", "in the way")
    with pytest.raises(Exception, match="WRONGTYPE"):
        await stream.publish(event())
    await resources.redis_state.unlink(f"{prefix}events")

    assert await stream.publish(event())


async def test_told_marks_go_by_themselves(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    stream = RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=1.0)
    await stream.publish(event())

    assert 86_000 < await resources.redis_state.ttl(f"{prefix}told:id-0") <= 86_400
