"""One contract for the cache's store and its backplane: in memory, and Redis."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator

import pytest

from showcase.caching.application import entry as entries
from showcase.caching.application.entry import ABSENT, FLOOR, GONE
from showcase.caching.application.ports import Store
from tests.cache_worlds import LONG, SHORT, URL, InMemory, InRedis, World, data, floor, granted, head, there
from tests.fakes import until
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, Namespace.create({URL: stack.urls[URL]}) as names:
        yield names


@pytest.fixture
async def in_redis(names: Namespace) -> AsyncIterator[InRedis]:
    async with InRedis.emptied(names) as world:
        yield world


@pytest.fixture(params=["memory", "redis"])
def world(request: pytest.FixtureRequest) -> World:
    world: World = InMemory() if request.param == "memory" else request.getfixturevalue("in_redis")
    return world


@pytest.fixture
def store(world: World) -> Store:
    return world.store()


def is_there(store: Store, expected: bytes | None) -> Callable[[], Awaitable[bool]]:
    async def look() -> bool:
        return await there(store) == expected

    return look


# -- entries


async def test_what_was_written_is_read_and_what_was_not_is_none(store: Store) -> None:
    first, second = data(), data(name="Käse ✓")
    assert await store.write("a", first, ttl_s=LONG, tell=False)
    assert await store.write("Käse ✓", second, ttl_s=LONG, tell=False)

    assert list(await store.read(["b", "Käse ✓", "a", "b"])) == [None, second, first, None]
    assert list(await store.read([])) == []


async def test_an_entry_is_gone_when_its_time_is_over(store: Store) -> None:
    await store.write("a", data(), ttl_s=SHORT, tell=False)
    await store.write("b", data(), ttl_s=LONG, tell=False)

    await until(is_there(store, None), within_s=5)
    assert await there(store, "b") == data()


async def test_an_older_version_is_not_stored_over_a_newer_one(store: Store) -> None:
    assert await store.write("a", data(2), ttl_s=LONG, tell=False)
    assert not await store.write("a", data(1), ttl_s=LONG, tell=False)
    assert await there(store) == data(2)
    assert await store.write("a", data(3), ttl_s=LONG, tell=False)
    assert await there(store) == data(3)


async def test_after_a_deletion_what_is_of_its_version_is_not_stored(store: Store) -> None:
    await store.write("a", data(2), ttl_s=LONG, tell=False)
    await store.remove("a", floor(2, is_gone=True), ttl_s=LONG)

    assert not await store.write("a", data(2), ttl_s=LONG, tell=False)
    assert await head(store) == (FLOOR | GONE, 2)
    assert await store.write("a", data(3), ttl_s=LONG, tell=False), "it was made anew"


async def test_a_removal_leaves_what_is_as_new_as_it_demands(store: Store) -> None:
    await store.write("a", data(2), ttl_s=LONG, tell=False)
    await store.remove("a", floor(2), ttl_s=LONG)
    assert await there(store) == data(2)

    await store.remove("a", floor(3), ttl_s=LONG)
    assert await head(store) == (FLOOR, 3)
    await store.remove("a", floor(2, is_gone=True), ttl_s=LONG)
    assert await head(store) == (FLOOR, 3)


async def test_a_removal_without_a_version_removes_anything_and_remembers_its_version(store: Store) -> None:
    await store.write("a", data(7), ttl_s=LONG, tell=False)
    await store.remove("a", floor(), ttl_s=LONG)

    assert await head(store) == (FLOOR, 7)
    assert not await store.write("a", data(6), ttl_s=LONG, tell=False)
    assert await store.write("a", data(7), ttl_s=LONG, tell=False)


async def test_a_floor_ends(store: Store) -> None:
    await store.remove("a", floor(7), ttl_s=SHORT)
    await until(is_there(store, None), within_s=5)
    assert await store.write("a", data(6), ttl_s=LONG, tell=False)


async def test_what_is_expired_is_stale_but_there_and_ends_as_before(store: Store) -> None:
    await store.write("a", data(2), ttl_s=0.3, tell=False)
    await store.expire("a")
    assert await there(store) == entries.expired(data(2))

    await until(is_there(store, None), within_s=5)
    await store.expire("a")
    assert await there(store) is None


# -- leases


async def test_among_many_at_once_one_is_given_the_lease(world: World) -> None:
    given = await asyncio.gather(*(granted(world.store(f"{number}"), f"holder {number}") for number in range(50)))
    assert given.count(True) == 1


async def test_leases_of_many_keys_are_given_where_they_are_free_and_with_the_stores_time(store: Store) -> None:
    assert await granted(store, "one")
    before, _ = await store.lease([], "two", LONG)
    at, given = await store.lease(["b", "a", "c"], "two", LONG)

    assert list(given) == [True, False, True]
    assert before <= at < before + 10
    assert abs(at - time.time()) < 10


async def test_a_lease_ends_with_its_time_although_its_holder_is_dead(store: Store) -> None:
    assert await granted(store, "dead", SHORT)
    assert not await granted(store, "next")

    async def given() -> bool:
        return await granted(store, "next")

    await until(given, within_s=5)
    assert not await store.write("a", data(), ttl_s=LONG, holder="dead", tell=False)


async def test_a_lease_is_given_back_by_its_holder_and_by_nobody_else(store: Store) -> None:
    await store.lease(["a", "b"], "one", LONG)
    await store.release(["a", "b"], "two")
    assert not await granted(store, "two")

    await store.release(["a", "b"], "one")
    _, given = await store.lease(["a", "b"], "two", LONG)
    assert list(given) == [True, True]


async def test_a_load_is_stored_under_its_lease_once(store: Store) -> None:
    assert await granted(store, "one")
    assert not await store.write("a", data(1), ttl_s=LONG, holder="two", tell=False)
    assert await store.write("a", data(1), ttl_s=LONG, holder="one", tell=False)
    assert not await store.write("a", data(1), ttl_s=LONG, holder="one", tell=False), "the lease was given back"
    assert await granted(store, "two")


async def test_a_load_that_is_older_than_what_is_there_gives_its_lease_back_too(store: Store) -> None:
    await granted(store, "one")
    await store.remove("a", floor(5), ttl_s=LONG)
    await granted(store, "one")
    assert not await store.write("a", data(4), ttl_s=LONG, holder="one", tell=False)
    assert await granted(store, "two")


@pytest.mark.parametrize("change", ["remove", "expire", "write"])
async def test_a_change_takes_the_lease_away_from_a_load_that_may_have_read_what_was_before(
    store: Store, change: str
) -> None:
    await store.write("a", data(), ttl_s=LONG, tell=False)
    assert await granted(store, "slow")
    match change:
        case "remove":
            await store.remove("a", floor(), ttl_s=LONG)
        case "expire":
            await store.expire("a")
        case _:
            await store.write("a", data(payload=b"\x02"), ttl_s=LONG, tell=True)

    before = await there(store)
    assert not await store.write("a", data(payload=b"\x03"), ttl_s=LONG, holder="slow", tell=False)
    assert await there(store) == before
    assert await granted(store, "next")


async def test_a_change_that_comes_too_late_leaves_the_lease(store: Store) -> None:
    await store.write("a", data(2), ttl_s=LONG, tell=False)
    await granted(store, "one")
    assert not await store.write("a", data(1), ttl_s=LONG, tell=True)
    assert await store.write("a", data(2), ttl_s=LONG, holder="one", tell=False)


# -- tags


async def test_a_cut_is_after_every_load_that_began_before_and_not_after_those_that_begin_later(store: Store) -> None:
    before, _ = await store.lease([], "", LONG)
    cut = await store.cut("t")
    [known, other] = await store.cuts(["t", "never"])
    after, _ = await store.lease([], "", LONG)

    assert other <= before < cut == known

    async def later() -> bool:
        return (await store.lease([], "", LONG))[0] >= cut

    assert cut - after < 0.001
    await until(later, within_s=1)
    assert await store.cut("t") > cut


async def test_a_first_look_at_tags_does_not_cut_what_is_being_loaded(store: Store) -> None:
    loaded_at, _ = await store.lease(["a"], "one", LONG)
    assert all(at <= loaded_at for at in await store.cuts(["t", "", "u"]))


async def test_cuts_that_were_lost_count_as_made_now(world: World, store: Store) -> None:
    await store.cut("t")
    loaded_at, _ = await store.lease(["a"], "one", LONG)
    await world.forget_cuts()

    assert all(at > loaded_at for at in await store.cuts(["t", "never", ""]))
    loaded_at, _ = await store.lease(["a"], "one", LONG)
    assert all(at <= loaded_at for at in await store.cuts(["t", "never", ""]))


# -- news


async def test_each_process_hears_of_the_others_changes_and_not_of_its_own(world: World) -> None:
    mine, other = world.store("mine"), world.store("other")
    async with world.following("mine") as heard, world.following("other") as heard_too:
        await mine.write("Käse ✓", data(2**40), ttl_s=LONG, tell=True)
        await mine.write("b", data(3, ABSENT), ttl_s=LONG, tell=True)
        await mine.write("c", data(4), ttl_s=LONG, tell=False)
        await mine.remove("c", floor(4, is_gone=True), ttl_s=LONG)
        await mine.remove("c", floor(1), ttl_s=LONG)
        await mine.remove("c", floor(), ttl_s=LONG)
        await mine.expire("d")
        at, everything_at = await mine.cut("Käse ✓"), await mine.cut("")
        await other.expire("e")

        async def arrived() -> bool:
            return len(heard_too.news) >= 8 and len(heard.news) >= 1

        await until(arrived, within_s=5)
        assert heard.news == [("expired", "e")]
        assert heard_too.news == [
            ("removed", "Käse ✓", 2**40, False),
            ("removed", "b", 3, True),
            ("removed", "c", 4, True),
            ("removed", "c", 1, False),
            ("removed", "c", 0, False),
            ("expired", "d"),
            ("cut", "Käse ✓", at),
            ("cut", "", everything_at),
        ]


async def test_nothing_is_told_of_what_was_not_stored(world: World) -> None:
    async with world.following("other") as heard:
        store = world.store("mine")
        await store.write("a", data(2), ttl_s=LONG, tell=False)
        await store.write("a", data(1), ttl_s=LONG, tell=True)
        await store.expire("last")

        async def arrived() -> bool:
            return ("expired", "last") in heard.news

        await until(arrived, within_s=5)
        assert heard.news == [("expired", "last")]
