"""What the benchmarks of caching keep: products of the usual size, in our cache as an app has it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from datetime import timedelta
from typing import TypeVar

from benchmarks.load import Turn
from showcase.caching import Cache, Key, Options
from showcase.caching.application.entry import Codec, Entry
from showcase.caching.infrastructure.redis import RedisStore
from showcase.caching.wiring import Caching
from showcase.composition import PRODUCT
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.shop.application import Product
from showcase.shop.domain import ProductId

T = TypeVar("T")
Pass = Callable[[], Awaitable[None]]
"""Reads some products, each once."""
KEPT_S = 3_600
"""All libraries keep an answer for so long: longer than any benchmark takes."""
OPTIONS = Options(duration=timedelta(seconds=KEPT_S), near=timedelta(seconds=KEPT_S))
SETTINGS = {
    "SHOWCASE_ENVIRONMENT": "workshop",
    "SHOWCASE_CACHE_TIMEOUT_S": "2",  # a deadline costs the same however long it is, and no stall ends the benchmark
}
HEARD_WITHIN_S = 10.0
HEARD_FOR_S = 0.35
"""News is trusted for so long when a turn begins, at least: hits wait for nothing, so nothing is heard meanwhile."""
WRITTEN_AT_ONCE = 50


def product(number: int) -> Product:
    """A product such as the catalogue has, its text not shared with any other's."""
    return Product(
        product_id=ProductId(number),
        department=f"GROCERY {number % 30}",
        brand=f"National {number % 3}",
        category=f"SOFT DRINKS {number % 300}",
        type=f"SFT DRNK 2 LITER BTL CARB INCL {number % 2_000}",
        package_size=f"{number % 9} LTR",
        version=number + 1,
    )


def key(number: int) -> Key[Product]:
    """As the shop makes it for each read."""
    return PRODUCT.key(number)


async def load(number: int) -> Product:
    """For a reader who finds nothing; where hits are measured, nobody shall."""
    raise AssertionError(f"product {number} should have been there")


async def load_many(keys: Sequence[Key[Product]]) -> Mapping[Key[Product], Product]:
    """The same for many."""
    raise AssertionError(f"{keys[0].name} should have been there")


def in_chunks(things: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """In lists of that size."""
    for first in range(0, len(things), size):
        yield things[first : first + size]


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Cache]:
    """Our cache on real servers, as an app builds it, once it hears what other processes change."""
    async with Resources(settings) as resources:
        caching = Caching(resources)
        async with caching.running():
            await heard(caching.cache)
            yield caching.cache


async def heard(cache: Cache) -> None:
    """Wait until news is trusted for a while. Raises TimeoutError."""
    give_up_at = time.monotonic() + HEARD_WITHIN_S
    while cache.far.trusted_until < (now := time.monotonic()) + HEARD_FOR_S:
        if now > give_up_at:
            raise TimeoutError("no news comes from other processes")
        await asyncio.sleep(0.005)


async def fill_redis(settings: Settings, numbers: Iterable[int]) -> None:
    """Have products in Redis, as loads leave them there."""
    async with Resources(settings) as resources:
        store = RedisStore(
            resources.redis_cache, prefix=settings.redis_prefix, timeout_s=settings.cache_timeout_s, origin="benchmark"
        )
        codec, left = Codec(), iter(numbers)
        loaded_at, _ = await store.lease([], "", 0)
        until = time.time() + KEPT_S

        async def lane() -> None:
            for number in left:
                one = product(number)
                tags = tuple(PRODUCT.tags(one))
                payload = codec.payload(PRODUCT, one)
                entry = Entry(one, one.version, 0, until, until, loaded_at, 0.001, tags, payload)
                name = key(number).name
                assert await store.write(name, codec.write(name, entry), ttl_s=KEPT_S, tell=False)

        await asyncio.gather(*(lane() for _ in range(WRITTEN_AT_ONCE)))


def entered(runner: asyncio.Runner, stack: ExitStack, context: AbstractAsyncContextManager[T]) -> T:
    """Enter a context that lives through many turns of an event loop, and leave it with the stack."""

    async def enter() -> T:
        return await context.__aenter__()

    async def leave() -> None:
        await context.__aexit__(None, None, None)

    thing = runner.run(enter())
    stack.callback(lambda: runner.run(leave()))
    return thing


def turn(runner: asyncio.Runner, ours: Cache, one: Pass, reads: int, warm: Pass | None = None) -> Turn:
    """A turn of one contestant; before it, our cache hears what it may have missed while nothing waited.

    Args:
        reads: as many are in one pass.
        warm: has our cache hold everything. It does so no longer when news may have been missed.
    """
    lost = -1

    async def timed() -> float:
        nonlocal lost
        await heard(ours)
        if warm and lost != ours.counts.lost:
            lost = ours.counts.lost
            await warm()
            await heard(ours)
        began = time.perf_counter()
        await one()
        return reads / (time.perf_counter() - began)

    return lambda: runner.run(timed())
