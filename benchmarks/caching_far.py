"""What a read costs that is answered from Redis: one by one, by many readers at once, and many in one call."""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import TypeVar

import cashews
import uvloop
from dogpile.cache import CacheRegion
from redis.asyncio import Redis

from benchmarks import caching_peers
from benchmarks.caching_near import NUMBERS
from benchmarks.caching_peers import Threads
from benchmarks.caching_system import (
    KEPT_S,
    OPTIONS,
    Pass,
    entered,
    in_chunks,
    key,
    load,
    load_many,
    opened,
    product,
    turn,
)
from benchmarks.load import Row, in_turns
from showcase.caching import Cache
from showcase.platform import redis
from showcase.platform.settings import Settings

TARGET = 1 / 1.5

TURNS = 11
READS = NUMBERS[:2_000]
ALONE = READS[:400]
AT_ONCE = 50
MANY = 100
CALLS = list(in_chunks(READS, MANY))

T = TypeVar("T")
Read = Callable[[T], Awaitable[None]]


def far_hits(settings: Settings) -> Iterator[Row]:
    """Reads of products that are in Redis, and in no memory."""
    settings = settings.model_copy(update={"cache_levels": "far"})
    url, prefix = settings.url("redis_cache_url"), settings.redis_prefix
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        ours = entered(runner, stack, opened(settings))
        bare = entered(runner, stack, redis.connect(url, timeout_s=settings.cache_timeout_s, text=False))
        cashews_cache = entered(runner, stack, caching_peers.cashews_far(url, prefix, READS))
        dogpile = caching_peers.dogpile_far(url)
        dogpile.set_multi({f"{prefix}dogpile:{number}": product(number) for number in READS})
        reads = by_us(ours), by_redis(bare, prefix), by_cashews(cashews_cache, prefix)
        many = (
            many_by_us(ours),
            many_by_redis(bare, prefix),
            many_by_cashews(cashews_cache, prefix),
            many_one_by_one(by_redis(bare, prefix)),
        )

        def compared(of: Sequence[int], readers: int) -> list[list[float]]:
            threads = stack.enter_context(Threads(readers))
            every: list[Pass] = [functools.partial(side_by_side, read, of, readers) for read in reads]
            every.append(by_dogpile(dogpile, prefix, of, threads))
            return in_turns(TURNS, *(turn(runner, ours, one, len(of)) for one in every))

        before = ours.counts.far
        alone, together = compared(ALONE, 1), compared(READS, AT_ONCE)
        mine, *theirs = in_turns(
            TURNS,
            *(turn(runner, ours, functools.partial(side_by_side, read, CALLS, 1), len(CALLS)) for read in many),
        )
        assert ours.counts.far - before == (TURNS + 1) * (len(ALONE) + 2 * len(READS)), "some were no hits"
    yield from rows("far hits, one by one", alone)
    yield from rows(f"far hits, {AT_ONCE} at once", together)
    peers = "redis-py, MGET of the same bytes", "cashews, get_many", f"redis-py, {MANY} GETs one by one"
    for peer, rates in zip(peers, theirs, strict=True):
        yield Row.of(f"far, {MANY} in one call", mine, peer, rates)


def rows(figure: str, found: Sequence[Sequence[float]]) -> Iterator[Row]:
    """One reader after another, or side by side."""
    mine, bare, *theirs = found
    yield Row.of(figure, mine, "redis-py, GET of the same bytes", bare, TARGET)
    for peer, rates in zip(("cashews, get_or_set", "dogpile.cache, get_or_create"), theirs, strict=True):
        yield Row.of(figure, mine, peer, rates)


async def side_by_side(read: Read[T], of: Sequence[T], readers: int) -> None:
    """Read all, each once, by so many readers at once."""
    left = iter(of)

    async def reader() -> None:
        for one in left:
            await read(one)

    await asyncio.gather(*(reader() for _ in range(readers)))


def by_us(ours: Cache) -> Read[int]:
    """The same call as for a hit in memory."""

    async def read(number: int) -> None:
        await ours.get_or_set(key(number), lambda: load(number), OPTIONS)

    return read


def by_redis(bare: Redis, prefix: str) -> Read[int]:
    """The bytes and no more: nobody decodes them, or knows whether they are still valid."""

    async def read(number: int) -> None:
        assert await bare.get(f"{prefix}cache:{key(number).name}") is not None

    return read


def by_cashews(cache: cashews.Cache, prefix: str) -> Read[int]:
    """Pickled, as by default."""

    async def read(number: int) -> None:
        await cache.get_or_set(f"{prefix}cashews:{number}", lambda: load(number), KEPT_S)

    return read


def by_dogpile(region: CacheRegion, prefix: str, of: Sequence[int], threads: Threads) -> Pass:
    """Pickled, as by default; a thread a reader."""
    keys = [f"{prefix}dogpile:{number}" for number in of]

    async def one() -> None:
        threads.read(region, keys)

    return one


def many_by_us(ours: Cache) -> Read[Sequence[int]]:
    """One call."""

    async def read(some: Sequence[int]) -> None:
        assert len(await ours.get_many_or_set([key(number) for number in some], load_many, OPTIONS)) == MANY

    return read


def many_by_redis(bare: Redis, prefix: str) -> Read[Sequence[int]]:
    """One call; again, nobody decodes what comes."""

    async def read(some: Sequence[int]) -> None:
        assert None not in await bare.mget([f"{prefix}cache:{key(number).name}" for number in some])

    return read


def many_by_cashews(cache: cashews.Cache, prefix: str) -> Read[Sequence[int]]:
    """One call, which loads nothing: it has none that does."""

    async def read(some: Sequence[int]) -> None:
        assert None not in await cache.get_many(*(f"{prefix}cashews:{number}" for number in some))

    return read


def many_one_by_one(read: Read[int]) -> Read[Sequence[int]]:
    """A call each."""

    async def read_all(some: Sequence[int]) -> None:
        for number in some:
            await read(number)

    return read_all
