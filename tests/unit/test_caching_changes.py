"""Changes, the news of them, and what a process still believes when no news comes or Redis is away."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from showcase.caching.application import entry as entries
from showcase.caching.application import far
from showcase.caching.application.entry import ABSENT, FLOOR, GONE, Codec
from showcase.caching.domain import Breaker, Kind, Options
from tests.caches import EPOCH, NUMBER, ROW, Process, Row, Source, World, begun, turns
from tests.fakes_cache import MemoryServer

pytestmark = pytest.mark.anyio
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
KEY = ROW.key(1)
NOTHING = Source(Row(0, "loaded anew"))


@pytest.fixture
async def world() -> AsyncIterator[World]:
    world = World()
    yield world
    await world.end()


@pytest.fixture
async def one(world: World) -> Process:
    return world.process()


@pytest.fixture
async def other(world: World, one: Process) -> Process:
    return world.process()


async def filled(*processes: Process, row: Row = Row(1), options: Options = Options()) -> None:  # noqa: B008 - frozen
    """Have a row near in each process."""
    for process in processes:
        assert await process.cache.get_or_set(KEY, Source(row), options) == row
        assert (await process.cache.answer(KEY, Source(row), options)).source == "near"


async def read(process: Process, row: Row = Row(0, "loaded anew"), options: Options = Options()) -> Row | None:  # noqa: B008 - frozen
    return await process.cache.get_or_set(KEY, Source(row), options)


# -- removal


async def test_what_was_removed_is_in_no_process_any_more(one: Process, other: Process) -> None:
    await filled(one, other)
    assert await one.cache.remove(KEY)
    assert [await read(process, Row(2)) for process in (one, other)] == [Row(2), Row(2)]
    assert (one.cache.counts.heard, other.cache.counts.heard) == (0, 1)


async def test_a_removal_leaves_what_is_as_new_as_it_says_and_a_deletion_does_not(one: Process, other: Process) -> None:
    await filled(one, other, row=Row(5))
    await one.cache.remove(KEY, 5)
    await other.cache.remove(KEY, 4, is_gone=True)
    for process in (one, other):
        assert (await process.cache.answer(KEY, NOTHING)).source == "near"
    await one.cache.remove(KEY, 5, is_gone=True)
    assert [await read(process, Row(6)) for process in (one, other)] == [Row(6), Row(6)]


@pytest.mark.parametrize("version", [0, 2])
async def test_a_load_that_is_overtaken_by_a_removal_is_for_those_who_waited_and_nobody_after(
    one: Process, other: Process, version: int
) -> None:
    slow, far = Source(Row(1), is_open=False), Source(Row(2))
    waiting = begun(one.cache.get_or_set(KEY, slow))
    await slow.asked()
    also_waiting = begun(other.cache.get_or_set(KEY, far))  # asks for itself only once the removal has freed the lease
    await turns(lambda: other.cache.counts.waits == 1)
    await other.cache.remove(KEY, version)

    assert [await read(process, Row(2)) for process in (one, other)] == [Row(2), Row(2)]
    slow.opened.set()
    assert await waiting == Row(1)
    assert await also_waiting in (Row(1), Row(2))
    for process in (one, other):
        await process.rests()
        assert await read(process) == Row(2)


async def test_a_load_that_is_overtaken_without_redis_is_not_held_for_a_moment_either(
    world: World, one: Process
) -> None:
    world.server.away = True
    slow = Source(Row(1), is_open=False)
    waiting = begun(one.cache.get_or_set(KEY, slow))
    await slow.asked()
    await one.cache.remove(KEY, 2)
    slow.opened.set()

    assert await waiting == Row(1)
    assert await read(one, Row(2)) == Row(2)


async def test_what_is_read_from_redis_before_it_has_heard_of_a_removal_is_not_held(one: Process) -> None:
    await filled(one)
    told, remove = asyncio.Event(), one.store.remove

    async def told_late(name: str, entry: bytes, *, ttl_s: float) -> None:
        await told.wait()
        await remove(name, entry, ttl_s=ttl_s)

    one.store.remove = told_late  # type: ignore[method-assign]  # it is on its way for long
    removing = begun(one.cache.remove(KEY, 2))
    await turns(lambda: not len(one.cache.near))
    assert (await one.cache.answer(KEY, NOTHING)).source == "far"
    told.set()

    assert await removing
    assert await read(one, Row(2)) == Row(2)


async def test_what_an_older_load_brings_is_not_stored_over_something_newer(world: World, one: Process) -> None:
    unheard = world.process()
    unheard.line.is_held = True
    slow = Source(Row(1), is_open=False)
    waiting = begun(unheard.cache.get_or_set(KEY, slow))
    await slow.asked()
    world.server.leases.clear()  # as Redis does when it has to make room
    await one.cache.get_or_set(KEY, Source(Row(2)))
    slow.opened.set()

    assert await waiting == Row(1)
    assert await unheard.cache.get(KEY) == Row(2)
    assert unheard.cache.counts.refused == 1


async def test_of_two_holders_of_a_lease_the_one_who_lost_it_stores_nothing(world: World, one: Process) -> None:
    key, unheard = NUMBER.key(1), world.process()  # numbers have no versions: only the lease tells
    slow, slower = Source(1, is_open=False), Source(2, is_open=False)
    first = begun(unheard.cache.get_or_set(key, slow))
    await slow.asked()
    world.server.leases.clear()
    second = begun(one.cache.get_or_set(key, slower))
    await slower.asked()
    slow.opened.set()
    assert await first == 1
    await unheard.rests()
    assert await unheard.cache.get(key) is None
    slower.opened.set()
    assert await second == 2
    assert await unheard.cache.get(key) == 2


async def test_a_load_that_is_refused_gives_its_lease_back(world: World, one: Process) -> None:
    await one.cache.remove(KEY, 5)
    assert await read(one, Row(4)) == Row(4)  # from a replica that lags, say
    await one.rests()
    assert world.server.leases == {}
    assert await read(one, Row(5)) == Row(5)


async def test_that_there_is_nothing_has_the_version_of_the_deletion(one: Process, other: Process) -> None:
    options, nothing = Options(absent=MINUTE), Source(None)
    await one.cache.remove(KEY, 5, is_gone=True)
    assert await one.cache.get_or_set(KEY, nothing, options) is None
    assert not await other.cache.set(KEY, Row(5))  # a late one
    assert await other.cache.get_or_set(KEY, Source(Row(0)), options) is None
    assert await other.cache.set(KEY, Row(6))
    assert [await read(process) for process in (one, other)] == [Row(6), Row(6)]


# -- set, expire


async def test_what_was_set_is_what_all_processes_read(one: Process, other: Process) -> None:
    await filled(one, other)
    assert await one.cache.set(KEY, Row(2))
    assert [await read(process) for process in (one, other)] == [Row(2), Row(2)]


async def test_an_older_answer_is_not_set_over_a_newer_one(one: Process, other: Process) -> None:
    assert await one.cache.set(KEY, Row(2))
    assert not await other.cache.set(KEY, Row(1))
    assert await other.cache.set(KEY, Row(2, "written twice"))
    assert await read(one) == Row(2, "written twice")

    key = NUMBER.key(1)
    for number in (2, 1):  # without versions the last one counts
        assert await one.cache.set(key, number)
        assert await other.cache.get(key) == number


async def test_what_has_expired_by_order_is_stale_in_all_processes_at_once(one: Process, other: Process) -> None:
    options = Options(duration=MINUTE, stale=MINUTE)
    await filled(one, other, options=options)
    assert await one.cache.expire(KEY)
    answers = [await process.cache.answer(KEY, Source(Row(2)), options) for process in (one, other)]
    assert [(answer.value, answer.is_stale) for answer in answers] == [(Row(1), True)] * 2
    for process in (one, other):
        await process.rests()
        assert await read(process) == Row(2)

    await one.cache.expire(KEY)
    assert await read(one, Row(3)) == Row(3)  # for who accepts nothing stale


# -- tags


async def test_a_tag_removes_what_has_it_in_all_processes_and_nothing_else(one: Process, other: Process) -> None:
    keys = {name: ROW.key(name) for name in "abc"}
    tags = {"a": ("milk", "cheap"), "b": ("milk",), "c": ()}
    for name, key in keys.items():
        for process in (one, other):
            await process.cache.get_or_set(key, Source(Row(1, tags=tags[name])))

    async def versions(process: Process) -> list[int]:
        found = []
        for name, key in keys.items():
            row = await process.cache.get_or_set(key, Source(Row(2, tags=tags[name])))
            found.append(row.version if row else 0)
        return found

    assert await one.cache.remove_by_tag("cheap")
    assert [await versions(process) for process in (other, one)] == [[2, 1, 1], [2, 1, 1]]
    assert await other.cache.remove_by_tag("milk")
    assert [await versions(process) for process in (other, one)] == [[2, 2, 1], [2, 2, 1]]
    assert await one.cache.clear()
    assert [await versions(process) for process in (other, one)] == [[2, 2, 2], [2, 2, 2]]
    with pytest.raises(ValueError, match="empty"):
        await one.cache.remove_by_tag("")


async def test_a_load_that_is_overtaken_by_a_cut_is_not_kept_and_holds_up_nobody(one: Process, other: Process) -> None:
    slow = Source(Row(1, tags=("milk",)), is_open=False)
    waiting = begun(one.cache.get_or_set(KEY, slow))
    await slow.asked()
    await other.cache.remove_by_tag("milk")
    later = begun(read(one, Row(2, tags=("milk",))))
    await turns(lambda: one.cache.counts.waits == 1)
    slow.opened.set()

    assert await waiting == Row(1, tags=("milk",))
    assert await later == Row(2, tags=("milk",))  # long before a lease would end: no time passes here
    assert await read(other) == Row(2, tags=("milk",))


async def test_a_load_that_nobody_told_of_a_cut_is_believed_by_nobody(world: World, one: Process) -> None:
    unheard = world.process()
    unheard.line.is_held = True
    await unheard.cache.get_or_set(ROW.key(2), Source(Row(1, tags=("milk",))))  # knows the tag as not cut
    slow = Source(Row(1, tags=("milk",)), is_open=False)
    waiting = begun(unheard.cache.get_or_set(KEY, slow))
    await slow.asked()
    await one.cache.remove_by_tag("milk")
    slow.opened.set()
    await waiting

    assert await read(one, Row(2)) == Row(2)
    unheard.line.deliver_all()
    assert await read(unheard) == Row(2)


async def test_cuts_that_redis_has_forgotten_do_not_come_to_life_again(world: World, one: Process) -> None:
    unheard = world.process()
    await filled(unheard, row=Row(1, tags=("milk",)))
    unheard.line.is_held = True
    await one.cache.remove_by_tag("milk")
    world.server.forget_cuts()
    assert await read(world.process(), Row(2)) == Row(2)


# -- news


async def test_news_may_come_twice_late_and_out_of_order(one: Process, other: Process) -> None:
    other.line.is_held = True
    await one.cache.set(KEY, Row(1))
    await one.cache.remove(KEY, 2)
    await one.cache.remove(KEY, 3)
    await filled(other, row=Row(3))
    for place in (2, 0, 1):
        other.line.repeat(place)
    assert (await other.cache.answer(KEY, NOTHING)).source == "near"
    await one.cache.remove(KEY, 4)
    other.line.deliver(3)
    other.line.deliver_all()
    assert await read(other, Row(4)) == Row(4)


async def test_when_news_may_have_been_missed_nothing_near_counts_but_in_the_greatest_need(
    world: World, one: Process
) -> None:
    options = Options(stale=MINUTE, fail_safe=MINUTE)
    await filled(one, options=options)
    one.line.cut_off()
    await world.process().cache.remove(KEY, 2)
    one.line.connect()

    failing = Source(Row(0), error=OSError("no database"))
    answer = await one.cache.answer(KEY, failing, options)
    assert (answer.value, answer.is_stale, failing.calls) == (Row(1), True, 1)
    world.now += 1
    assert await read(one, Row(2), options) == Row(2)
    assert one.cache.counts.lost == 1


async def test_a_memory_is_trusted_only_for_as_long_as_pings_are_answered(world: World, one: Process) -> None:
    one.line.trust(world.now + 0.6)
    await filled(one)
    world.now += 0.6
    slow = Source(Row(2), is_open=False)
    assert (await one.cache.answer(KEY, slow, Options(stale=MINUTE))).source == "far"
    one.line.trust(world.now + 0.6)
    assert (await one.cache.answer(KEY, slow)).source == "near"


async def test_what_was_read_while_news_was_lost_is_not_kept(world: World, one: Process) -> None:
    other = world.process()
    await other.cache.set(KEY, Row(1))
    asked = one.store.read

    async def lost_meanwhile(names: Sequence[str]) -> Sequence[bytes | None]:
        answer = await asked(names)
        one.line.cut_off()
        await other.cache.set(KEY, Row(2))
        one.line.connect()
        return answer

    one.store.read = lost_meanwhile  # type: ignore[method-assign]  # something happens between
    assert await read(one) == Row(1)
    one.store.read = asked  # type: ignore[method-assign]
    assert await read(one) == Row(2)


async def test_cuts_that_were_asked_for_while_news_was_lost_are_not_remembered(world: World, one: Process) -> None:
    asked = one.store.cuts

    async def lost_meanwhile(tags: Sequence[str]) -> Sequence[float]:
        answer = await asked(tags)
        one.line.cut_off()
        await world.process().cache.remove_by_tag("milk")
        one.line.connect()
        return answer

    await world.process().cache.get_or_set(KEY, Source(Row(1, tags=("milk",))))
    one.store.cuts = lost_meanwhile  # type: ignore[method-assign]  # something happens between
    await one.cache.get(KEY)
    one.store.cuts = asked  # type: ignore[method-assign]
    assert await one.cache.get(KEY) is None


# -- Redis away


async def test_without_redis_an_answer_is_loaded_and_near_for_a_moment(world: World, one: Process) -> None:
    world.server.away = True
    source, options = Source(Row(1)), Options(stale=MINUTE, fail_safe=MINUTE)
    for wait_s, expected in ((0.0, "loaded"), (0.9, "near"), (0.2, "loaded"), (0.5, "near")):
        world.now += wait_s
        assert (await one.cache.answer(KEY, source, options)).source == expected
    assert source.calls == 2

    world.server.away = False
    world.now += 0.1
    await world.process().cache.set(KEY, Row(2))
    world.now += 1
    assert await read(one) == Row(2)


async def test_redis_that_fails_in_the_middle_of_a_load_is_no_error(world: World, one: Process, other: Process) -> None:
    slow = Source(Row(1), is_open=False)
    readers = [begun(process.cache.get_or_set(KEY, slow)) for process in (one, one, other)]
    await slow.asked()
    await turns(lambda: other.cache.counts.waits == 1)
    world.server.away = True
    await slow.asked(2)  # who waited for the other one loads as well
    slow.opened.set()
    assert [await reader for reader in readers] == [Row(1)] * 3


async def test_redis_that_fails_is_not_asked_again_by_everybody(world: World, one: Process) -> None:
    asked = 0
    reached = one.store._reached

    def counted() -> MemoryServer:
        nonlocal asked
        asked += 1
        return reached()

    one.store._reached = counted  # type: ignore[method-assign]
    world.server.away = True
    for identifier in range(20):
        await one.cache.get_or_set(ROW.key(identifier), Source(Row(1)))
    assert asked == 3
    world.now += 1
    for identifier in range(20, 40):
        await one.cache.get_or_set(ROW.key(identifier), Source(Row(1)))
    assert asked == 4


def test_a_breaker_opens_lets_one_try_and_closes_with_the_first_answer() -> None:
    now = 0.0
    breaker = Breaker(lambda: now, failures=2, open_s=1.0)
    breaker.failed()
    assert breaker.may_ask()
    breaker.succeeded()
    breaker.failed()
    assert not breaker.is_open
    breaker.failed()
    assert (breaker.is_open, breaker.may_ask()) == (True, False)
    now = 1.0
    assert [breaker.may_ask() for _ in range(3)] == [True, False, False]
    breaker.succeeded()
    assert (breaker.is_open, breaker.may_ask()) == (False, True)


async def away_for(world: World, seconds: float = 2.0) -> None:
    """Redis is there again."""
    world.now += seconds
    world.server.away = False
    for process in world.processes:
        await process.rests()


async def test_a_removal_that_redis_did_not_take_is_told_when_it_is_back(world: World, one: Process) -> None:
    other = world.process()
    await filled(one, other)
    world.server.away = True
    assert not await one.cache.remove(KEY, 2)
    assert await read(one, Row(2)) == Row(2)
    assert one.cache.far.owed == 1
    await away_for(world)
    assert one.cache.far.owed == 0
    assert [await read(process, Row(2)) for process in (other, one)] == [Row(2), Row(2)]


async def test_until_redis_was_told_a_process_does_not_believe_it(world: World, one: Process) -> None:
    await filled(one)
    await one.cache.set(ROW.key(2), Row(1, tags=("milk",)))
    world.server._away = True  # for calls only: no news comes that it is back
    assert not await one.cache.remove(KEY, 2)
    world.server._away = False
    world.now += 2
    assert await one.cache.get(KEY) is None
    assert await read(one, Row(2)) == Row(2)

    world.server._away = True
    assert not await one.cache.remove_by_tag("milk")
    world.server._away = False
    world.now += 2
    assert await one.cache.get(ROW.key(2)) is None


async def test_of_several_removals_that_are_owed_the_furthest_is_told(world: World, one: Process) -> None:
    for versions in ((3, 2), (2, 3), (0, 3), (3, 0)):
        other = world.process()
        await one.cache.set(KEY, Row(2))
        world.server.away = True
        for version in versions:
            assert not await one.cache.remove(KEY, version)
        await away_for(world)
        assert not await other.cache.set(KEY, Row(1)), versions
        assert await other.cache.get(KEY) is None, versions
        world.server.forget()


async def test_a_cut_that_redis_did_not_take_is_told_when_it_is_back(world: World, one: Process) -> None:
    other = world.process()
    await filled(one, other, row=Row(1, tags=("milk",)))
    world.server.away = True
    assert not await one.cache.remove_by_tag("milk")
    await away_for(world)
    assert [await read(process, Row(2)) for process in (other, one)] == [Row(2), Row(2)]


async def test_a_cut_that_fails_while_an_earlier_one_is_told_is_still_owed(world: World, one: Process) -> None:
    world.server.away = True
    assert not await one.cache.clear()
    told, cut = asyncio.Event(), one.store.cut

    async def told_late(tag: str) -> float:
        at = await cut(tag)
        await told.wait()
        return at

    one.store.cut = told_late  # type: ignore[method-assign]  # its answer takes long
    world.now += 2
    world.server.away = False
    await turns(lambda: "" in world.server.cuts)
    await world.process().cache.set(KEY, Row(1))
    world.server.away = True
    assert not await one.cache.clear()
    world.server._away = False
    told.set()
    await one.rests()
    assert one.cache.far.owed == 1
    one.line.connect()
    await one.rests()
    assert await one.cache.get(KEY) is None


async def test_what_was_set_without_redis_is_read_by_nobody_and_the_old_one_neither(world: World, one: Process) -> None:
    other = world.process()
    await filled(one, other)
    world.server.away = True
    assert not await one.cache.set(KEY, Row(2))
    assert not await one.cache.expire(KEY)
    await away_for(world)
    assert [await read(process, Row(2)) for process in (other, one)] == [Row(2), Row(2)]


async def test_too_many_removals_that_are_owed_become_one_of_everything(
    world: World, one: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(far, "OWED_AT_MOST", 3)
    other = world.process()
    await filled(one, other)
    world.server.away = True
    for identifier in range(10):
        assert not await one.cache.remove(ROW.key(identifier))
        assert one.cache.far.owed <= 4
    await away_for(world)
    assert [await read(process, Row(2)) for process in (other, one)] == [Row(2), Row(2)]


async def test_get_without_redis_gives_nothing_and_no_error(world: World, one: Process) -> None:
    await filled(one)
    world.server.away = True
    assert await one.cache.get(KEY) is None


# -- what lies in Redis


async def test_an_answer_of_another_schema_is_not_found(one: Process, other: Process) -> None:
    old, new = Kind("shape", int), Kind("shape", str, schema=2)
    await one.cache.set(old.key(1), 7)
    assert await other.cache.get_or_set(new.key(1), Source("seven")) == "seven"
    assert await other.cache.get(old.key(1)) == 7
    changed_in_secret = Kind("shape", str)
    assert await other.cache.get_or_set(changed_in_secret.key(1), Source("eight")) == "eight"


def entry_of(name: str, row: Row = Row(1, "x" * 10_000, ("milk", "cheap"))) -> bytes:  # noqa: B008 - frozen
    """As the engine stores it."""
    codec = Codec()
    whole = entries.Entry(row, row.version, 0, EPOCH + 1e6, EPOCH + 2e6, EPOCH + 2e3, 0.5, row.tags, b"")
    return codec.write(name, replace(whole, payload=codec.payload(ROW, row)))


GARBAGE = {
    "nothing": b"",
    "text": b"nonsense",
    "zeros": bytes(1_000),
    "our first byte": b"\xc1" * 200,
    "half": entry_of(KEY.name)[:60],
    "all but the last byte": entry_of(KEY.name)[:-1],
    "one byte more": entry_of(KEY.name) + b"\0",
    "another key's": entry_of(ROW.key(2).name),
    "a pickle": b"\x80\x05\x8c\x05posix\x8c\x06system\x93\x8c\x02id\x85R.",
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_a_store_full_of_garbage_is_as_good_as_an_empty_one(world: World, one: Process, garbage: str) -> None:
    world.server.entries[KEY.name] = GARBAGE[garbage], EPOCH + 1e9
    world.server.leases["another"] = "x", EPOCH + 1e9
    assert await one.cache.get(KEY) is None
    assert await read(one, Row(1)) == Row(1)
    assert one.cache.counts.broken >= 1
    assert await world.process().cache.get(KEY) == Row(1)


def test_an_entry_with_any_byte_changed_is_no_entry_or_says_the_same() -> None:
    codec, whole = Codec(), entry_of(KEY.name, Row(1, "milk", ("milk",)))
    said = codec.read(ROW, KEY.name, whole)
    assert said is not None
    for place in range(len(whole)):
        for bit in range(8):
            changed = whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :]
            read = codec.read(ROW, KEY.name, changed)
            if 10 <= place < 18 and read is not None:  # until when it is fresh: `expire` writes that in place
                read = replace(read, fresh_until=said.fresh_until)
            assert read is None or read == said or read.is_floor


def test_what_unpacks_to_more_than_anybody_stores_is_no_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    large = entry_of(KEY.name, Row(1, "x" * 1_000_000))
    assert len(large) < 50_000
    assert Codec().read(ROW, KEY.name, large)
    monkeypatch.setattr(entries, "_LARGEST", 100_000)
    assert Codec().read(ROW, KEY.name, large) is None


# -- which of two is newer: each is its bits and its version


@pytest.mark.parametrize(
    ("new", "old", "beats"),
    [
        ((0, 2), (0, 1), True),
        ((0, 1), (0, 2), False),
        ((0, 2), (0, 2), True),
        ((0, 0), (0, 0), True),
        ((0, 0), (0, 1), False),
        ((0, 2), (FLOOR, 2), True),
        ((0, 1), (FLOOR, 2), False),
        ((0, 2), (FLOOR | GONE, 2), False),
        ((0, 3), (FLOOR | GONE, 2), True),
        ((ABSENT, 2), (FLOOR | GONE, 2), True),
        ((0, 2), (ABSENT, 2), False),
        ((0, 0), (ABSENT, 0), True),
        ((ABSENT, 0), (0, 1), False),
    ],
)
def test_an_entry_is_stored_over_another_if_it_is_not_older(
    new: tuple[int, int], old: tuple[int, int], beats: bool
) -> None:
    assert entries.beats(new, old) is beats


@pytest.mark.parametrize(
    ("new", "old", "stands"),
    [
        ((FLOOR, 2), (0, 1), (FLOOR, 2)),
        ((FLOOR, 2), (0, 2), None),
        ((FLOOR, 2), (0, 3), None),
        ((FLOOR | GONE, 2), (0, 2), (FLOOR | GONE, 2)),
        ((FLOOR, 2), (FLOOR | GONE, 2), None),
        ((FLOOR, 0), (0, 7), (FLOOR, 7)),
        ((FLOOR, 0), (FLOOR | GONE, 7), (FLOOR | GONE, 7)),
        ((FLOOR, 0), (0, 0), (FLOOR, 0)),
    ],
)
def test_a_floor_takes_the_place_of_what_is_older(
    new: tuple[int, int], old: tuple[int, int], stands: tuple[int, int] | None
) -> None:
    assert entries.merged(new, old) == stands
