"""What a read costs that is answered from this process's memory."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import cashews
import uvloop
from cachetools import LRUCache
from dogpile.cache import CacheRegion

from benchmarks import caching_peers
from benchmarks.caching_peers import load_at_once
from benchmarks.caching_system import KEPT_S, OPTIONS, Pass, entered, in_chunks, key, load, load_many, opened, turn
from benchmarks.load import Row, in_turns
from showcase.caching import Cache, Key
from showcase.platform.settings import Settings
from showcase.shop.application import Product

HIT_S = 5e-6
"""One hit takes at most so long."""
TARGET = 3.0

TURNS = 15
PRODUCTS = 10_000
NUMBERS = random.Random(7).sample(range(PRODUCTS), PRODUCTS)  # noqa: S311 - read in another order than they came
ROOM = 2 * PRODUCTS


def near_hits(settings: Settings) -> Iterator[Row]:
    """Reads of products that are all in memory: by us, by the full call of each peer, and by less than that."""
    settings = settings.model_copy(update={"cache_near_entries": ROOM, "cache_near_bytes": 10_000 * ROOM})
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        ours = entered(runner, stack, opened(settings))
        cashews_cache = entered(runner, stack, caching_peers.cashews_near(range(PRODUCTS), ROOM))
        aiocache = runner.run(caching_peers.aiocache_near(range(PRODUCTS)))
        passes = (
            by_us(ours),
            by_us_kept(ours, [key(number) for number in NUMBERS]),
            by_cashews(cashews_cache),
            by_aiocache(caching_peers.aiocache_cached(aiocache)),
            by_dogpile(caching_peers.dogpile_near(range(PRODUCTS))),
            by_aiocache_get(aiocache),
            by_cachetools(caching_peers.cachetools_near(range(PRODUCTS), ROOM)),
        )
        warm = warming(ours)
        mine, kept, *theirs, get, lru = in_turns(TURNS, *(turn(runner, ours, one, PRODUCTS, warm) for one in passes))
    yield Row.of("near hits", mine, f"{HIT_S * 1e6:.0f} µs each", [1 / HIT_S] * TURNS, 1.0)
    peers = "cashews, get_or_set", "aiocache, @cached", "dogpile.cache, get_or_create"
    for name, rates in zip(peers, theirs, strict=True):
        yield Row.of("near hits", mine, name, rates, TARGET)
    yield Row.of("near hits", mine, "aiocache, get alone", get)
    yield Row.of("near hits", mine, "cachetools, LRU alone", lru)
    yield Row.of("near hits, keys kept", kept, "cachetools, LRU alone", lru)


def warming(ours: Cache) -> Pass:
    """Have all products in memory."""

    async def warm() -> None:
        for some in in_chunks(range(PRODUCTS), 1_000):
            await ours.get_many_or_set([key(number) for number in some], load_many, OPTIONS)

    return warm


def by_us(ours: Cache) -> Pass:
    """As the shop reads: a key and a way to load are made for each read."""

    async def one() -> None:
        before = ours.counts.near
        for number in NUMBERS:
            await ours.get_or_set(key(number), lambda: load(number), OPTIONS)  # noqa: B023 - nobody keeps it
        assert ours.counts.near - before == PRODUCTS, "some were no hits"

    return one


def by_us_kept(ours: Cache, keys: Sequence[Key[Product]]) -> Pass:
    """The same with keys that were made before."""

    async def one() -> None:
        before = ours.counts.near
        for one in keys:
            await ours.get_or_set(one, lambda: load(0), OPTIONS)
        assert ours.counts.near - before == PRODUCTS, "some were no hits"

    return one


def by_cashews(cache: cashews.Cache) -> Pass:
    """Its fastest call that can load; a decorated function takes several times as long."""

    async def one() -> None:
        for number in NUMBERS:
            await cache.get_or_set(f"product:{number}", lambda: load(number), KEPT_S)  # noqa: B023 - likewise

    return one


def by_aiocache(cached: Any) -> Pass:
    """A decorated function is its only call that can load."""

    async def one() -> None:
        for number in NUMBERS:
            await cached(number)

    return one


def by_dogpile(region: CacheRegion) -> Pass:
    """Its usual call, of no event loop."""

    async def one() -> None:
        for number in NUMBERS:
            region.get_or_create(f"product:{number}", load_at_once)

    return one


def by_aiocache_get(cache: Any) -> Pass:
    """Less than a cached read: whoever finds nothing has to load and to store."""

    async def one() -> None:
        for number in NUMBERS:
            await cache.get(f"product:{number}")

    return one


def by_cachetools(cache: "LRUCache[str, Product]") -> Pass:
    """The least: a dict that forgets."""

    async def one() -> None:
        for number in NUMBERS:
            cache.get(f"product:{number}")

    return one
