"""Where the contract of the cache's store is tested: in memory and in Redis; and the bytes to test it with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol

from redis.asyncio import Redis

from showcase.caching.application import entry as entries
from showcase.caching.application.entry import Codec, Entry
from showcase.caching.application.ports import Store
from showcase.caching.infrastructure.backplane import Backplane
from showcase.caching.infrastructure.redis import RedisStore, channel_of
from showcase.platform import redis as redis_of
from tests.fakes_cache import MemoryServer, MemoryStore
from workshop.stack.namespace import Namespace

URL = "SHOWCASE_REDIS_CACHE_URL"
LONG = 60.0
SHORT = 0.05


class Heard:
    """A listener that writes down what it hears."""

    def __init__(self) -> None:
        self.news: list[tuple[Any, ...]] = []
        self.is_trusted = asyncio.Event()

    def heard_removed(self, name: str, version: int, is_gone: bool) -> None:
        self.news.append(("removed", name, version, is_gone))

    def heard_expired(self, name: str) -> None:
        self.news.append(("expired", name))

    def heard_cut(self, tag: str, at: float) -> None:
        self.news.append(("cut", tag, at))

    def trusted(self, until: float) -> None:
        self.is_trusted.set()

    def lost(self) -> None:
        self.is_trusted.clear()


class World(Protocol):
    """Where the tests happen: a server, and several processes that use it."""

    def store(self, origin: str = "test") -> Store: ...

    def following(self, origin: str) -> AbstractAsyncContextManager[Heard]:
        """A listener of one process, once it is trusted."""

    async def forget_cuts(self) -> None:
        """Lose what was cut."""


class InMemory:
    def __init__(self) -> None:
        self.server = MemoryServer()

    def store(self, origin: str = "test") -> Store:
        return MemoryStore(self.server, origin)

    @asynccontextmanager
    async def following(self, origin: str) -> AsyncIterator[Heard]:
        heard = Heard()
        MemoryStore(self.server, origin).follow(heard)
        yield heard

    async def forget_cuts(self) -> None:
        self.server.forget_cuts()


class InRedis:
    def __init__(self, redis: Redis, prefix: str) -> None:
        self.redis = redis
        self.prefix = prefix

    def store(self, origin: str = "test") -> Store:
        return RedisStore(self.redis, prefix=self.prefix, timeout_s=5.0, origin=origin)

    @classmethod
    @asynccontextmanager
    async def emptied(cls, names: Namespace) -> AsyncIterator["InRedis"]:
        """In a namespace, with nothing in it."""
        async with redis_of.connect(names.env[URL], timeout_s=5.0, text=False) as redis:
            if keys := await redis.keys(f"{names.redis_prefix}*"):
                await redis.delete(*keys)
            yield cls(redis, names.redis_prefix)

    @asynccontextmanager
    async def following(self, origin: str) -> AsyncIterator[Heard]:
        heard, stop = Heard(), asyncio.Event()
        backplane = Backplane(self.redis, channel=channel_of(self.prefix), origin=origin, listener=heard)
        task = asyncio.create_task(backplane.follow(stop))
        try:
            await asyncio.wait_for(heard.is_trusted.wait(), 10)
            yield heard
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)

    async def forget_cuts(self) -> None:
        await self.redis.delete(f"{self.prefix}cuts")


def data(version: int = 0, bits: int = 0, payload: bytes = b"\x01", name: str = "a") -> bytes:
    """An entry of a key, as bytes."""
    return Codec().write(name, Entry(None, version, bits, 2e9, 3e9, 1.0, 0.1, ("t",), payload))


def floor(version: int = 0, *, is_gone: bool = False) -> bytes:
    return Codec().write("a", entries.floor(version, is_gone=is_gone))


async def there(store: Store, name: str = "a") -> bytes | None:
    [found] = await store.read([name])
    return found


async def head(store: Store) -> tuple[int, int]:
    return entries.head(await there(store) or b"")


async def granted(store: Store, holder: str, ttl_s: float = LONG) -> bool:
    _, [given] = await store.lease(["a"], holder, ttl_s)
    return given
