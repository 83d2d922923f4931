"""What caching is measured beside: the same reads by cashews, aiocache, dogpile.cache, cachetools and redis-py.

Each is set up as its manual advises, and where that costs it time that ours does not spend, at its best.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, Self
from urllib.parse import unquote, urlsplit

import aiocache  # type: ignore[import-untyped]  # it has none
import cashews
from aiocache.serializers import PickleSerializer  # type: ignore[import-untyped]  # likewise
from cachetools import LRUCache
from dogpile.cache import CacheRegion, make_region

from benchmarks.caching_system import KEPT_S, load, product
from showcase.shop.application import Product

CONNECTIONS = 100
"""As many as ours may open; cashews has 10 by default."""
ROOMY = 250
"""One for each of 200 readers: what waits for no free connection fails without."""
ANSWER_WITHIN_S = 5.0
ALL_WITHIN_S = 60.0


def load_at_once() -> Product:
    """As `load`, for a library that waits in its thread."""
    raise AssertionError("it should have been there")


@asynccontextmanager
async def cashews_near(numbers: Iterable[int], room: int) -> AsyncIterator[cashews.Cache]:
    """cashews in memory. By default it looks through all it has each second; here only when it is read."""
    cache = cashews.Cache()
    cache.setup("mem://", size=room, check_interval=0)
    await cache.init()
    for number in numbers:
        await cache.set(f"product:{number}", product(number), expire=KEPT_S)
    yield cache
    await cache.close()


async def aiocache_near(numbers: Iterable[int]) -> Any:
    """aiocache in memory. By default each call is a task with a time limit; here there is none, which is faster."""
    cache = aiocache.SimpleMemoryCache(timeout=None)
    for number in numbers:
        await cache.set(f"product:{number}", product(number), ttl=KEPT_S)
    return cache


def aiocache_cached(cache: Any) -> Any:
    """A load, decorated to go through that cache: aiocache's way to get or set."""
    decorator = aiocache.cached(key_builder=lambda _load, number: f"product:{number}", ttl=KEPT_S)
    decorated = decorator(load)
    decorator.cache = cache
    return decorated


def dogpile_near(numbers: Iterable[int]) -> CacheRegion:
    """dogpile.cache in memory."""
    region = make_region().configure("dogpile.cache.memory", expiration_time=KEPT_S)
    for number in numbers:
        region.set(f"product:{number}", product(number))
    return region


def cachetools_near(numbers: Iterable[int], room: int) -> "LRUCache[str, Product]":
    """cachetools alone: nothing expires, nobody loads."""
    cache: LRUCache[str, Product] = LRUCache(room)
    for number in numbers:
        cache[f"product:{number}"] = product(number)
    return cache


@asynccontextmanager
async def cashews_far(url: str, prefix: str = "", numbers: Iterable[int] = ()) -> AsyncIterator[cashews.Cache]:
    """cashews on Redis, with some products there."""
    cache = cashews.Cache()
    cache.setup(url, max_connections=CONNECTIONS, socket_timeout=ANSWER_WITHIN_S, suppress=False)
    await cache.init()
    for number in numbers:
        await cache.set(f"{prefix}cashews:{number}", product(number), expire=KEPT_S)
    yield cache
    await cache.close()


def dogpile_far(url: str) -> CacheRegion:
    """dogpile.cache on Redis, with its lock there too: one load for all processes."""
    arguments = {
        "url": url,
        "redis_expiration_time": KEPT_S,
        "distributed_lock": True,
        "thread_local_lock": False,
        "lock_timeout": 30,
        "socket_timeout": ANSWER_WITHIN_S,
        "connection_kwargs": {"max_connections": ROOMY},
    }
    return make_region().configure("dogpile.cache.redis", expiration_time=KEPT_S, arguments=arguments)


def aiocache_far(url: str) -> dict[str, Any]:
    """How aiocache is told of Redis; its default serializer writes JSON, which has no dataclasses."""
    parts = urlsplit(url)
    return {
        "cache": aiocache.Cache.REDIS,
        "endpoint": parts.hostname,
        "port": parts.port,
        "db": int(parts.path.strip("/") or 0),
        "password": unquote(parts.password) if parts.password else None,
        "pool_max_size": ROOMY,
        "connection_pool_kwargs": {"username": parts.username},
        "serializer": PickleSerializer(),
        "timeout": ANSWER_WITHIN_S,
    }


class Threads:
    """Readers of a library that waits in its thread, one thread each."""

    def __init__(self, readers: int) -> None:
        self._readers = readers
        self._pool = ThreadPoolExecutor(readers)

    def read(self, region: CacheRegion, keys: Sequence[str]) -> None:
        """Read all keys, each once."""

        def reader(share: Sequence[str]) -> None:
            for key in share:
                region.get_or_create(key, load_at_once)

        shares = [keys[first :: self._readers] for first in range(self._readers)]
        for done in [self._pool.submit(reader, share) for share in shares]:
            done.result(ALL_WITHIN_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown()
