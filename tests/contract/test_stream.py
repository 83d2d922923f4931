"""One contract for every stream of events: the one in memory and Redis Streams."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from itertools import pairwise

import pytest

from showcase.kernel.events import Event
from showcase.kernel.ids import EventId
from showcase.platform.resources import Resources
from showcase.realtime.application.ports import Lost, Stored, Stream
from showcase.realtime.domain import Place
from showcase.realtime.infrastructure.stream import RedisStream
from tests.fakes import settings_of, until
from tests.fakes_realtime import MemoryStream, lose_end
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
        return MemoryStream(length=100)
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


async def read_all(stream: Stream, after: Place, count: int) -> list[Stored]:
    """So many events after a place."""
    found: list[Stored] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            found += await stream.read(found[-1].place if found else after)
    return found


async def test_event_comes_back_as_it_was_published(stream: Stream) -> None:
    begin = await stream.end()
    assert await stream.publish(event())

    (stored,) = await read_all(stream, begin, 1)

    assert stored.event == event()


async def test_events_come_in_the_order_of_publishing_each_with_a_place_to_go_on_from(stream: Stream) -> None:
    begin = await stream.end()
    for number in range(50):
        await stream.publish(event(number))

    found = await read_all(stream, begin, 50)

    assert [one.event for one in found] == [event(number) for number in range(50)]
    assert await stream.end() == found[-1].place
    assert await read_all(stream, found[20].place, 29) == found[21:]


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
    begin = await stream.end()
    for attributes in ("{", "3", "{}"):
        await resources.redis_state.xadd(f"{prefix}events", {"attributes": attributes, "body": "{}"})
    await stream.publish(event())

    found = await read_all(stream, begin, 4)

    assert [one.event for one in found] == [None, None, None, event()]


async def test_event_that_was_not_added_is_not_taken_for_told(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    stream = RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=1.0)
    await stream.publish(event(1))  # so that the stream has begun, and adding is what fails
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


# -- coming back


async def test_page_after_a_place_is_what_a_reader_would_have_been_told(stream: Stream) -> None:
    begin = await stream.end()
    for number in range(30):
        await stream.publish(event(number))

    first = await stream.since(begin, 20)
    rest = await stream.since(first[-1].place, 20)

    assert [one.event for one in (*first, *rest)] == [event(number) for number in range(30)]
    assert list(await stream.since(rest[-1].place, 20)) == []


async def test_places_grow(stream: Stream) -> None:
    begin = await stream.end()
    for number in range(30):
        await stream.publish(event(number))

    places = [begin, *(one.place for one in await stream.since(begin, 30))]

    assert all(later.is_after(earlier) for earlier, later in pairwise(places))


async def test_place_that_is_too_old_is_lost_and_the_epoch_stays(stream: Stream) -> None:
    begin = await stream.end()
    for number in range(500):
        await stream.publish(event(number))

    for asked in (stream.read(begin), stream.since(begin, 10)):
        with pytest.raises(Lost):
            await asked
    assert await stream.recover(begin) == await stream.end()
    assert (await stream.end()).epoch == begin.epoch


async def test_place_of_another_stream_is_lost(stream: Stream) -> None:
    await stream.publish(event())
    here = await stream.end()
    elsewhere = Place("ffffffff", here.number)

    for asked in (stream.read(elsewhere), stream.since(elsewhere, 10)):
        with pytest.raises(Lost):
            await asked
    assert await stream.recover(elsewhere) == here


async def lose(stream: Stream, events: int) -> None:
    """Have the newest events gone, as after coming back from an older copy."""
    if isinstance(stream, MemoryStream):
        stream.lose(events)
        return
    assert isinstance(stream, RedisStream)
    await lose_end(stream._redis, stream._keys[0], events)


@pytest.mark.parametrize("is_published_anew", [False, True])
async def test_stream_that_lost_its_end_begins_a_new_epoch(stream: Stream, is_published_anew: bool) -> None:
    begin = await stream.end()
    for number in range(20):
        await stream.publish(event(number))
    seen = [one.place for one in await stream.since(begin, 20)]

    await lose(stream, 5)
    if is_published_anew:
        await stream.publish(event(77))

    with pytest.raises(Lost):
        await stream.read(seen[-1])
    recovered = await stream.recover(seen[-1])
    assert recovered.epoch != begin.epoch
    assert await stream.recover(seen[-1]) == recovered, "whoever comes second finds it done"
    with pytest.raises(Lost):  # who has got less far misses something too
        await stream.since(seen[3], 10)
    await stream.publish(event(78))
    assert [one.event for one in await read_all(stream, recovered, 1)] == [event(78)]


async def test_stream_that_is_gone_is_begun_anew(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    stream = RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=1.0)
    await stream.publish(event())
    before = await stream.end()
    await resources.redis_state.unlink(f"{prefix}events", f"{prefix}events:epoch")

    with pytest.raises(Lost):
        await stream.read(before)
    assert (await stream.recover(before)).epoch != before.epoch


async def test_reader_that_waits_while_the_stream_is_made_anew_is_told(redis: tuple[Resources, str]) -> None:
    resources, prefix = redis
    stream = RedisStream(resources.redis_state, prefix=prefix, length=100, timeout_s=10.0)
    await stream.publish(event())
    reading = asyncio.create_task(stream.read(await stream.end()))
    await until(lambda: is_blocked(resources))
    await resources.redis_state.unlink(f"{prefix}events", f"{prefix}events:epoch")
    await stream.publish(event(1))

    with pytest.raises(Lost):
        await reading


async def is_blocked(resources: Resources) -> bool:
    return int((await resources.redis_state.info("clients"))["blocked_clients"]) > 0
