"""The races of lesson 07 without servers: the naive way loses them, the cache does not, and each step is told."""

import time
from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import pandas as pd
import pytest
from redis.asyncio import Redis

from showcase.caching import Cache, Kind
from showcase.shop.application import Product
from tests.fakes_cache import MemoryServer, MemoryStore
from tests.fakes_outbox import Memory
from tests.fakes_shop import MemoryProducts
from workshop import races
from workshop.hearing import Credulous
from workshop.naive.deleting import Aside

pytestmark = pytest.mark.anyio

MILK = 7
VERSIONED = Kind("product", Product, version=lambda product: product.version)
UNVERSIONED = Kind("product", Product)


class MemoryRedis:
    """The few commands that the naive way and a look into our store need."""

    def __init__(self, server: MemoryServer) -> None:
        self._server = server

    async def get(self, key: str) -> bytes | None:
        return self._server.entry(key.removeprefix("cache:"))

    async def set(self, key: str, value: bytes, *, px: int) -> None:
        self._server.entries[key] = value, self._server.now() + px / 1000

    async def delete(self, key: str) -> None:
        self._server.entries.pop(key, None)

    async def flushall(self) -> None:
        self._server.forget()


@pytest.fixture
def products() -> MemoryProducts:
    found = MemoryProducts(Memory())
    for product_id in range(MILK, MILK + 40):
        found.put(product_id, brand="old")
    return found


def naive(products: MemoryProducts, *, ttl_s: float = 60) -> Aside:
    return Aside(cast("Redis", MemoryRedis(MemoryServer())), products, "", ttl_s)


@pytest.fixture
async def ours(products: MemoryProducts) -> AsyncIterator[races.Ours]:
    way, caches = _two_processes(products, VERSIONED)
    yield way
    for cache in caches:
        await cache.close()


@pytest.fixture
async def leased(products: MemoryProducts) -> AsyncIterator[races.Ours]:
    way, caches = _two_processes(products, UNVERSIONED)
    yield way
    for cache in caches:
        await cache.close()


def _two_processes(products: MemoryProducts, kind: Kind[Product]) -> tuple[races.Ours, Sequence[Cache]]:
    server, caches = MemoryServer(), []
    for name in ("here", "there"):
        store = MemoryStore(server, name)
        caches.append(Cache(store))
        store.follow(caches[-1])
    here, there = caches
    return races.Ours(here, there, kind, products, cast("Redis", MemoryRedis(server)), ""), caches


def told(steps: pd.DataFrame) -> list[tuple[Any, ...]]:
    return list(steps.itertuples(index=False, name=None))


async def test_a_slow_reader_leaves_an_old_version_behind_in_cache_aside(products: MemoryProducts) -> None:
    assert told(await races.slow_reader(naive(products), products, MILK)) == [
        ("slow reader", "reads version 1, and stops", "nothing", "version 1"),
        ("writer", "commits version 2", "nothing", "version 2"),
        ("writer", "removes it from Redis", "nothing", "version 2"),
        ("slow reader", "goes on, with version 1", "version 1", "version 2"),
        ("next reader", "gets version 1", "version 1", "version 2"),
    ]


async def test_what_a_slow_reader_brings_to_the_cache_is_refused(ours: races.Ours, products: MemoryProducts) -> None:
    assert told(await races.slow_reader(ours, products, MILK))[2:] == [
        ("writer", "removes it from Redis", "nothing below 2", "version 2"),
        ("slow reader", "goes on, with version 1", "nothing below 2", "version 2"),
        ("next reader", "gets version 2", "version 2", "version 2"),
    ]
    assert ours.here.counts.refused == 1


async def test_also_where_products_have_no_versions(leased: races.Ours, products: MemoryProducts) -> None:
    steps = await races.slow_reader(leased, products, MILK)
    assert [*steps.redis] == ["nothing"] * 4 + ["version 2"]
    assert leased.here.counts.refused == 1


async def test_and_where_redis_has_forgotten_the_floor(ours: races.Ours, products: MemoryProducts) -> None:
    steps = await races.slow_reader(ours, products, MILK, redis_forgets=True)
    assert told(steps)[3:5] == [
        ("Redis", "starts again, empty", "nothing", "version 2"),
        ("slow reader", "goes on, with version 1", "nothing", "version 2"),
    ]


async def test_of_two_writers_the_slow_one_wins_in_cache_aside_and_not_in_the_cache(
    ours: races.Ours, products: MemoryProducts
) -> None:
    lost = await races.slow_writer(naive(products), products, MILK)
    kept = await races.slow_writer(ours, products, MILK + 1)
    assert [*lost.redis] == ["nothing", "nothing", "version 3", "version 2", "version 2"]
    assert [*kept.redis] == ["nothing", "nothing", "version 3", "version 3", "version 3"]
    assert [*lost.postgres] == [*kept.postgres] == ["version 2", *["version 3"] * 4]


async def test_by_chance_cache_aside_keeps_some_old_versions_and_the_cache_none(
    ours: races.Ours, leased: races.Ours, products: MemoryProducts
) -> None:
    met = {
        name: await races.by_chance(way, products, range(MILK, MILK + 40), slow_s=0.003)
        for name, way in (("naive", naive(products)), ("ours", ours), ("leased", leased))
    }
    old = {name: int((found.reader < found.postgres).sum()) for name, found in met.items()}
    assert 0 < old["naive"] < 40
    assert (old["ours"], old["leased"]) == (0, 0)
    assert all(len(found) == 40 for found in met.values())


async def test_an_old_version_lasts_until_its_time_is_over(products: MemoryProducts) -> None:
    way = naive(products, ttl_s=0.05)
    await races.slow_reader(way, products, MILK)
    began_s = time.monotonic()
    stale_s = await races.stale_for(way, products, MILK)
    assert 0 < stale_s <= time.monotonic() - began_s
    assert await races.stale_for(way, products, MILK) < stale_s


async def test_a_credulous_cache_hears_what_is_said_and_never_that_something_was_missed() -> None:
    server = MemoryServer()
    store = MemoryStore(server, "reader")
    cache = Cache(store)
    line = store.follow(Credulous(cache))
    writer = Cache(MemoryStore(server, "writer"))
    products = MemoryProducts(Memory())
    key = VERSIONED.key(MILK)

    async def read() -> Product | None:
        return await cache.get_or_set(key, lambda: products.find(old.product_id))

    old = products.put(MILK, brand="old")
    assert await read() == old
    line.cut_off()
    new = products.put(MILK, brand="new")
    await writer.remove(key, new.version)
    assert await read() == old
    line.connect()
    await writer.remove(key, new.version)
    assert await read() == new
    await cache.close()
    await writer.close()
