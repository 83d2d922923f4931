"""Reading through the cache: what is loaded, how often, and what is given out when the source is slow or fails."""

import asyncio
import math
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import timedelta

import pytest

from showcase.caching.application import cache as engine
from showcase.caching.application.cache import Cache
from showcase.caching.domain import BadKey, Key, Kind, Options, TooSlow, Uncacheable, early_by
from showcase.kernel.errors import NotFound, Unavailable
from tests.caches import NUMBER, NUMBERS, ROW, Process, Row, Source, World, begun, turns

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
SOON = timedelta(milliseconds=20)
KEY = NUMBER.key(1)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


@pytest.fixture
async def process(world: World) -> Process:
    return world.process()


@pytest.fixture
async def cache(process: Process) -> Cache:
    return process.cache


# -- near, far, loaded


async def test_an_answer_is_loaded_once_and_then_near_for_its_process_and_far_for_the_others(world: World) -> None:
    one, other = world.process().cache, world.process().cache
    source = Source(7)

    answers = [await cache.answer(KEY, source) for cache in (one, one, other, other)]

    assert [(answer.value, answer.source) for answer in answers] == [
        (7, "loaded"),
        (7, "near"),
        (7, "far"),
        (7, "near"),
    ]
    assert not any(answer.is_stale for answer in answers)
    assert source.calls == 1
    assert (one.counts.misses, one.counts.near, one.counts.far) == (1, 1, 0)
    assert (other.counts.misses, other.counts.near, other.counts.far) == (0, 1, 1)


async def test_an_answer_ends_with_its_duration_in_both_levels(world: World) -> None:
    one, other = world.process().cache, world.process().cache
    source, options = Source(7), Options(duration=MINUTE, near=2 * MINUTE)
    assert (await one.answer(KEY, source, options)).ttl_s == pytest.approx(60)

    world.now += 59
    for cache in (one, other):
        assert (await cache.answer(KEY, source, options)).ttl_s == pytest.approx(1)
    world.now += 1
    source.value = 8
    assert await one.get_or_set(KEY, source, options) == 8
    assert source.calls == 2


async def test_what_was_near_for_long_enough_is_asked_of_redis_before_it_is_given_out(world: World) -> None:
    one, other = world.process(), world.process()
    options = Options(near=10 * SECOND, stale=MINUTE)
    await one.cache.get_or_set(ROW.key(1), Source(Row(1)), options)
    await other.cache.set(ROW.key(1), Row(2))  # of which nobody tells the first
    await one.cache.get_or_set(ROW.key(1), Source(Row(1)), options)
    other.line.is_held = True
    await one.cache.set(ROW.key(1), Row(3))
    assert await other.cache.get_or_set(ROW.key(1), Source(Row(0)), options) == Row(3)
    one.line.is_held = True
    await one.cache.get_or_set(ROW.key(1), Source(Row(0)), options)
    await other.cache.set(ROW.key(1), Row(4))

    assert (await one.cache.answer(ROW.key(1), Source(Row(0)), options)).value == Row(3)
    world.now += 10
    answer = await one.cache.answer(ROW.key(1), Source(Row(0)), options)
    assert (answer.value, answer.source) == (Row(4), "far")


async def test_jitter_takes_a_part_of_itself_off_the_duration_by_chance(world: World, cache: Cache) -> None:
    options = Options(duration=MINUTE, jitter=10 * SECOND)
    for identifier, draw in enumerate((0.0, 0.5, 0.99)):
        world.draw = draw
        answer = await cache.answer(NUMBER.key(identifier), Source(7), options)
        assert answer.ttl_s == pytest.approx(60 - 10 * draw)


async def test_that_there_is_nothing_is_known_for_as_long_as_is_asked_for(world: World, cache: Cache) -> None:
    nothing: Source[int | None] = Source(None)
    for calls in (1, 2):  # by default not at all
        answer = await cache.answer(KEY, nothing)
        assert (answer.value, answer.source, answer.is_stale, nothing.calls) == (None, "loaded", False, calls)
    options = Options(absent=5 * SECOND)
    for _ in range(3):
        assert await cache.get_or_set(KEY, nothing, options) is None
        assert await world.process().cache.get_or_set(KEY, nothing, options) is None
    assert nothing.calls == 3
    assert cache.counts.absent == 5

    world.now += 5
    nothing.value = 7
    assert await cache.get_or_set(KEY, nothing, options) == 7


async def test_what_can_be_changed_is_each_readers_own_and_what_cannot_is_shared(world: World, cache: Cache) -> None:
    first = await cache.get_or_set(NUMBERS.key(1), Source([1, 2]))
    assert first is not None
    first.append(3)
    for reader in (cache, cache, world.process().cache):
        assert await reader.get_or_set(NUMBERS.key(1), Source([0])) == [1, 2]

    row = await cache.get_or_set(ROW.key(1), Source(Row(1)))
    assert await cache.get_or_set(ROW.key(1), Source(Row(1))) is row


async def test_get_gives_what_is_fresh_and_loads_nothing(world: World, cache: Cache) -> None:
    other = world.process().cache
    assert await cache.get(KEY) is None
    await cache.get_or_set(KEY, Source(7), Options(duration=MINUTE, fail_safe=MINUTE))
    assert (await cache.get(KEY), await other.get(KEY)) == (7, 7)
    world.now += 60
    assert (await cache.get(KEY), await other.get(KEY)) == (None, None)
    assert other.counts.loads == 0


# -- one load for all


async def test_many_readers_share_one_load(cache: Cache) -> None:
    source = Source(7, is_open=False)
    readers = [begun(cache.get_or_set(KEY, source)) for _ in range(100)]
    await source.asked()
    source.opened.set()

    assert await asyncio.gather(*readers) == [7] * 100
    assert (source.calls, cache.counts.loads, cache.counts.misses) == (1, 1, 100)


async def test_readers_of_several_processes_share_one_load(world: World) -> None:
    source = Source(7, is_open=False)
    processes = [world.process() for _ in range(3)]
    readers = [begun(one.cache.get_or_set(KEY, source)) for one in processes for _ in range(20)]
    await source.asked()
    await turns(lambda: sum(one.cache.counts.waits for one in processes) == 2)
    source.opened.set()

    assert await asyncio.gather(*readers) == [7] * 60
    assert source.calls == 1


async def test_who_gets_the_lease_just_after_an_answer_was_stored_does_not_load_it_again(world: World) -> None:
    late, source = world.process(), Source(7)
    lease = late.store.lease

    async def stored_just_before(names: Sequence[str], holder: str, ttl_s: float) -> tuple[float, Sequence[bool]]:
        await world.process().cache.get_or_set(KEY, source)
        return await lease(names, holder, ttl_s)

    late.store.lease = stored_just_before  # type: ignore[method-assign]  # something happens between
    assert (await late.cache.answer(KEY, source)).source == "far"
    await late.rests()
    assert (source.calls, world.server.leases) == (1, {})


async def test_a_lease_whose_holder_died_keeps_the_others_only_until_it_ends(world: World, cache: Cache) -> None:
    dead = world.process()
    await dead.store.lease([KEY.name], "dead", 5.5)
    reader = begun(cache.get_or_set(KEY, Source(7)))
    await turns(lambda: cache.counts.waits == 1)
    assert cache.counts.loads == 0
    world.now += 5.4
    assert cache.counts.loads == 0
    world.now += 0.1
    assert await reader == 7


async def test_who_never_gets_the_lease_loads_without_it_and_stores_nothing(world: World, cache: Cache) -> None:
    await world.process().store.lease([KEY.name], "greedy", 1_000_000)
    reader = begun(cache.get_or_set(KEY, Source(7), Options(hard=SECOND)))
    await turns(lambda: cache.counts.waits == 1)
    world.now += 1.5
    assert await reader == 7
    assert await world.process().cache.get(KEY) is None


async def test_a_reader_that_goes_away_does_not_end_the_load(cache: Cache) -> None:
    source = Source(7, is_open=False)
    gone, stays = begun(cache.get_or_set(KEY, source)), begun(cache.get_or_set(KEY, source))
    await source.asked()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    source.opened.set()
    assert await stays == 7
    assert source.calls == 1


async def test_a_reader_that_goes_away_while_redis_is_asked_holds_up_nobody(world: World) -> None:
    process = world.process()
    answered, read, asked = asyncio.Event(), process.store.read, []

    async def slow(names: Sequence[str]) -> Sequence[bytes | None]:
        asked.append(names)
        await answered.wait()
        return await read(names)

    process.store.read = slow  # type: ignore[method-assign]  # it is on its way for long
    gone, stays = [begun(process.cache.get_or_set(KEY, Source(7))) for _ in range(2)]
    await turns(lambda: len(asked) == 1)
    gone.cancel()
    answered.set()
    assert await asyncio.wait_for(stays, 5) == 7


async def test_a_load_runs_outside_of_its_readers_task(cache: Cache) -> None:
    async def whose() -> int:
        return id(asyncio.current_task())

    assert await cache.get_or_set(KEY, whose) != id(asyncio.current_task())


async def test_more_loads_than_there_may_be_are_refused(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "FLIGHTS_AT_MOST", 2)
    source = Source(7, is_open=False)
    readers = [begun(cache.get_or_set(NUMBER.key(n), source)) for n in (1, 2, 1)]
    await source.asked(2)
    with pytest.raises(Unavailable):
        await cache.get_or_set(NUMBER.key(3), source)
    source.opened.set()
    assert await asyncio.gather(*readers) == [7] * 3
    assert await cache.get_or_set(NUMBER.key(3), source) == 7


async def test_nothing_runs_any_more_after_close(process: Process) -> None:
    source = Source(7, is_open=False)
    reader = begun(process.cache.get_or_set(KEY, source))
    await source.asked()
    await process.cache.close()

    assert process.cache._tasks == set()
    assert process.cache._flights == {}
    assert process.store.server.leases == {}
    with pytest.raises(asyncio.CancelledError):
        await reader


# -- many at once


class Table:
    """Rows by their keys; remembers what each call asked for."""

    def __init__(self, rows: Mapping[Key[int], int]) -> None:
        self.rows = rows
        self.asked: list[Sequence[Key[int]]] = []

    async def __call__(self, keys: Sequence[Key[int]]) -> Mapping[Key[int], int]:
        self.asked.append(list(keys))
        return {key: self.rows[key] for key in keys if key in self.rows}


async def test_many_at_once_are_one_call_of_the_source_for_what_is_missing(world: World, cache: Cache) -> None:
    a, b, c, d, nothing = keys = [NUMBER.key(name) for name in "abcd-"]
    table = Table({a: 1, b: 2, c: 3, d: 4})
    await cache.get_or_set(a, Source(11))
    await world.process().cache.get_or_set(b, Source(12))
    slow = Source(13, is_open=False)
    under_way = begun(cache.get_or_set(c, slow))
    await slow.asked()

    many = begun(cache.get_many_or_set([*keys, a], table))
    await turns(lambda: bool(table.asked))
    slow.opened.set()

    assert await many == {a: 11, b: 12, c: 13, d: 4, nothing: None}
    assert list(await many) == keys
    assert await under_way == 13
    assert table.asked == [[d, nothing]]
    assert await cache.get_many_or_set([d, a], table) == {d: 4, a: 11}
    assert await cache.get_many_or_set([], table) == {}
    assert len(table.asked) == 1


async def test_of_many_only_those_wait_that_another_process_loads(world: World) -> None:
    one, other = world.process().cache, world.process().cache
    a, b = NUMBER.key("a"), NUMBER.key("b")
    slow, table = Source(1, is_open=False), Table({a: 0, b: 2})
    first = begun(one.get_or_set(a, slow))
    await slow.asked()
    many = begun(other.get_many_or_set([a, b], table))
    await turns(lambda: other.counts.waits == 1)
    slow.opened.set()

    assert await many == {a: 1, b: 2}
    assert await first == 1
    assert table.asked == [[b]]


# -- early, stale, soft, hard


def test_xfetch_refreshes_as_often_as_its_formula_says() -> None:
    draws = [(n + 0.5) / 10_000 for n in range(10_000)]
    for beta, load_s, left_s in ((1.0, 1.0, 1.0), (1.0, 2.0, 1.0), (2.0, 0.5, 3.0), (1.0, 0.1, 1.0)):
        refreshes = sum(early_by(beta, load_s, draw) >= left_s for draw in draws)
        assert refreshes / len(draws) == pytest.approx(math.exp(-left_s / (beta * load_s)), abs=2e-4)
    assert early_by(0.0, 1.0, 0.5) == 0


async def test_a_reader_refreshes_early_if_chance_says_so_and_nobody_waits_for_it(
    world: World, process: Process
) -> None:
    cache, options = process.cache, Options(duration=MINUTE, near=MINUTE, early=2.0)

    async def two_seconds() -> int:
        world.now += 2
        return 7

    await cache.get_or_set(KEY, two_seconds, options)
    world.now += 57  # 3 s are left; β·δ is 4 s
    source = Source(8, is_open=False)
    world.draw = 1 - math.exp(-3 / 4) - 0.01
    assert (await cache.answer(KEY, source, options)).value == 7
    assert cache.counts.early == 0
    world.draw += 0.02
    answers = [await cache.answer(KEY, source, options) for _ in range(20)]
    await source.asked()
    answers.append(await cache.answer(KEY, source, options))
    assert {(answer.value, answer.source, answer.is_stale) for answer in answers} == {(7, "near", False)}

    source.opened.set()
    await process.rests()
    world.draw = 0.0
    assert (await cache.answer(KEY, source, options)).value == 8
    assert (source.calls, cache.counts.early) == (1, 1)


async def test_what_another_process_has_refreshed_early_is_not_loaded_again(world: World) -> None:
    one, other = world.process(), world.process()
    options = Options(duration=MINUTE, near=MINUTE, early=1.0)

    async def a_second() -> int:
        world.now += 1
        return 7

    for process in (one, other):
        await process.cache.get_or_set(KEY, a_second, options)
    world.now += 59.5
    world.draw = 0.9
    source = Source(8)
    for process in (one, other):
        assert await process.cache.get_or_set(KEY, source, options) == 7
        await process.rests()
    world.draw = 0.0
    for process in (one, other):
        assert await process.cache.get_or_set(KEY, source, options) == 8
    assert source.calls == 1


async def test_a_stale_answer_is_given_at_once_and_refreshed_in_the_background(world: World) -> None:
    one, other = world.process(), world.process()
    options = Options(duration=MINUTE, near=MINUTE, stale=10 * SECOND)
    await one.cache.get_or_set(KEY, Source(7), options)
    world.now += 69
    source = Source(8, is_open=False)
    for process in (one, other, one):
        answer = await process.cache.answer(KEY, source, options)
        assert (answer.value, answer.is_stale) == (7, True)
        assert answer.ttl_s == pytest.approx(-9)
    await source.asked()
    source.opened.set()
    await one.rests()
    await other.rests()
    for process in (one, other):
        assert await process.cache.get_or_set(KEY, source, options) == 8
    assert source.calls == 1
    assert (one.cache.counts.stale, other.cache.counts.stale) == (2, 1)

    world.now += 71
    source.value = 9
    assert await one.cache.get_or_set(KEY, source, options) == 9


async def test_a_reader_waits_softly_for_a_slow_source_and_gets_the_old_answer(world: World, process: Process) -> None:
    options = Options(duration=MINUTE, fail_safe=MINUTE, soft=SOON)
    await process.cache.get_or_set(KEY, Source(7), options)
    world.now += 61
    source = Source(8, is_open=False)
    answer = await process.cache.answer(KEY, source, options)
    assert (answer.value, answer.is_stale) == (7, True)

    source.opened.set()
    await process.rests()
    assert (await process.cache.answer(KEY, source, options)).value == 8
    assert source.calls == 1


async def test_a_source_that_is_too_slow_is_given_up(world: World, process: Process) -> None:
    cache, options = process.cache, Options(hard=SOON)
    never = Source(8, is_open=False)
    for _ in range(2):
        with pytest.raises(TooSlow):
            await cache.get_or_set(KEY, never, options)
    await process.rests()
    assert world.server.leases == {}
    await cache.get_or_set(KEY, Source(7), Options(duration=MINUTE, fail_safe=MINUTE, hard=SOON))
    world.now += 60
    assert (await cache.answer(KEY, never, options)).is_stale


# -- failures


async def test_a_source_that_fails_is_hidden_behind_the_old_answer_and_left_alone_for_a_while(world: World) -> None:
    one, other = world.process(), world.process()
    options = Options(duration=MINUTE, fail_safe=MINUTE, pause=2 * SECOND)
    await one.cache.get_or_set(KEY, Source(7), options)
    world.now += 60
    failing = Source(8, error=OSError("no database"))
    for process in (one, one, one, other, other):
        answer = await process.cache.answer(KEY, failing, options)
        assert (answer.value, answer.is_stale) == (7, True)
    assert failing.calls == 2  # each process once
    assert one.cache.counts.stale == 3

    world.now += 2
    failing.error = None
    assert await one.cache.get_or_set(KEY, failing, options) == 8
    world.now += 121
    failing.error = OSError("no database")
    for _ in range(2):
        with pytest.raises(OSError, match="no database"):
            await one.cache.get_or_set(KEY, failing, options)


async def test_an_error_that_is_an_answer_is_not_hidden(world: World, cache: Cache) -> None:
    options = Options(duration=MINUTE, fail_safe=MINUTE)
    await cache.get_or_set(KEY, Source(7), options)
    world.now += 60
    with pytest.raises(NotFound):
        await cache.get_or_set(KEY, Source(0, error=NotFound("gone")), options)
    with pytest.raises(Uncacheable):
        await cache.get_or_set(KEY, Source("seven"), options)  # type: ignore[arg-type]  # that is the mistake
    assert (await cache.answer(KEY, Source(0, error=Unavailable("busy")), options)).value == 7


async def test_an_error_is_given_to_all_who_wait_and_to_nobody_after(process: Process) -> None:
    source = Source(7, error=OSError("no database"), is_open=False)
    readers = [begun(process.cache.get_or_set(KEY, source)) for _ in range(3)]
    await source.asked()
    source.opened.set()
    for answer in await asyncio.gather(*readers, return_exceptions=True):
        assert isinstance(answer, OSError)
    await process.rests()
    source.error = None
    assert await process.cache.get_or_set(KEY, source) == 7
    assert (source.calls, process.cache.counts.failed_loads) == (2, 1)


async def test_a_load_that_ends_itself_is_an_error_and_cancels_no_reader(cache: Cache) -> None:
    async def ended() -> int:
        raise asyncio.CancelledError

    with pytest.raises(Unavailable):
        await cache.get_or_set(KEY, ended)


def bad_tags(*tags: str) -> Row:
    return Row(1, tags=tags)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (NUMBER, "seven"),
        (NUMBER, object()),
        (NUMBER, 2**64),
        (Kind("any", object), {1: lambda: None}),
        (ROW, Row(-1)),
        (ROW, Row(2**53)),
        (ROW, bad_tags("")),
        (ROW, bad_tags("a\nb")),
        (ROW, bad_tags("x" * 65_536)),
    ],
)
async def test_what_cannot_be_kept_is_a_clear_error(cache: Cache, kind: Kind[object], value: object) -> None:
    with pytest.raises(Uncacheable):
        await cache.get_or_set(kind.key(1), Source(value))
    with pytest.raises(Uncacheable):
        await cache.set(kind.key(1), value)
    with pytest.raises(Uncacheable):
        await cache.get_many_or_set([kind.key(2)], lambda keys: Source({keys[0]: value})())
    assert await cache.get(kind.key(1)) is None


@pytest.mark.parametrize("identifier", ["x" * 10_240, "a\nb", "\0", "\x7f", "\ud800", "\u2028"])
def test_what_is_too_long_for_a_key_or_cannot_be_printed_is_a_clear_error(identifier: str) -> None:
    with pytest.raises(BadKey):
        NUMBER.key(identifier)


def test_a_key_can_be_anything_else_that_is_printable() -> None:
    assert NUMBER.key("ä b:*{}").name == "number.1:ä b:*{}"


@pytest.mark.parametrize(
    "wrong",
    [
        {"duration": timedelta()},
        {"near": -SECOND},
        {"pause": -SECOND},
        {"early": -1.0},
        {"early": math.nan},
        {"jitter": timedelta(minutes=5)},
        {"hard": timedelta(seconds=31)},
        {"hard": timedelta()},
        {"soft": timedelta(seconds=6)},
    ],
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float | timedelta]) -> None:
    with pytest.raises(ValueError, match=r"durations|jitter|hard|soft"):
        Options(**wrong)  # type: ignore[arg-type]  # of several types


# -- limits of the memory


async def test_near_holds_so_many_entries_and_those_that_were_read_last(world: World) -> None:
    cache = world.process(near_entries=3).cache
    for identifier in (1, 2, 3, 1, 4):
        await cache.get_or_set(NUMBER.key(identifier), Source(identifier))
    assert len(cache.near) == 3
    sources = {n: (await cache.answer(NUMBER.key(n), Source(0))).source for n in (1, 3, 4)}
    assert sources == {1: "near", 3: "near", 4: "near"}
    assert (await cache.answer(NUMBER.key(2), Source(0))).source == "far"


async def test_near_holds_so_many_bytes_and_nothing_that_is_larger(world: World) -> None:
    cache, text = world.process(near_bytes=20_000).cache, Kind("text", str)
    for identifier in range(10):
        await cache.get_or_set(text.key(identifier), Source("x" * 4_000))
    assert len(cache.near) == 4
    assert 16_000 < cache.near.size_bytes <= 20_000
    await cache.get_or_set(text.key("large"), Source("x" * 20_000))
    assert (await cache.answer(text.key("large"), Source(""))).source == "far"
    assert len(cache.near) == 4


async def test_without_room_near_everything_is_far(world: World) -> None:
    cache = world.process(near_entries=0, near_bytes=0).cache
    sources = [(await cache.answer(KEY, Source(7))).source for _ in range(3)]
    assert sources == ["loaded", "far", "far"]
