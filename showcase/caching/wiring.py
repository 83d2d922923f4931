"""The cache, built from resources."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from showcase.caching import worker
from showcase.caching.application import entry as entries
from showcase.caching.application.cache import Cache
from showcase.caching.domain import FLOOR, Kind
from showcase.caching.infrastructure.backplane import Backplane
from showcase.caching.infrastructure.redis import RedisStore, channel_of
from showcase.caching.worker import Clear, Invalidate
from showcase.platform.resources import Resources
from showcase.platform.slices import Gauge, Slice
from showcase.platform.worker import Work


class Caching:
    """One process's cache, and what keeps it in touch with the others'.

    Args:
        resources: with redis-cache. Raises Misconfigured when its URL is not set.
    """

    def __init__(self, resources: Resources) -> None:
        settings, redis = resources.settings, resources.redis_cache
        origin = uuid4().hex
        store = RedisStore(redis, prefix=settings.redis_prefix, timeout_s=settings.cache_timeout_s, origin=origin)
        both = settings.cache_levels == "both"
        self.cache = Cache(
            store,
            near_entries=settings.cache_near_entries if both else 0,
            near_bytes=settings.cache_near_bytes if both else 0,
        )
        self._backplane = Backplane(
            redis, channel=channel_of(settings.redis_prefix), origin=origin, listener=self.cache
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hear what other processes change, until the end of the block."""
        stop = asyncio.Event()
        following = asyncio.create_task(self._backplane.follow(stop))
        try:
            yield
        finally:
            stop.set()
            await following
            await self.cache.close()

    def doors(self) -> Slice:
        """What an operator sees and does, and what goes on in the background."""
        from showcase.caching.api import gauges, routes  # not for workers: it loads the web framework

        async def metrics() -> Sequence[Gauge]:
            return gauges(self.cache)

        return Slice(name="caching", routers=(routes(self.cache),), running=self.running, metrics=metrics)


def following(resources: Resources, kind: Kind[Any], table: str, key: str) -> Work:
    """The invalidator that removes an answer when its row changes, whoever changes it.

    Args:
        table: `public.products`, each of whose rows is an answer of that kind; key: the column that names it.
    """
    return worker.following(resources.settings, table, key, *invalidating(resources, kind))


def invalidating(resources: Resources, kind: Kind[Any]) -> tuple[Invalidate, Clear]:
    """For a process that has no cache of its own: removes one answer from all, or every answer.

    The first takes an identifier, the version up to which its answers are old, and whether it is gone. Both raise
    Unavailable when Redis has not taken it.
    """
    settings = resources.settings
    store = RedisStore(
        resources.redis_cache, prefix=settings.redis_prefix, timeout_s=settings.redis_timeout_s, origin=uuid4().hex
    )
    codec = entries.Codec()

    async def remove(identifier: int, version: int, is_gone: bool) -> None:
        name = kind.key(identifier).name
        floor = codec.write(name, entries.floor(version, is_gone=is_gone))
        await store.remove(name, floor, ttl_s=FLOOR.total_seconds())

    async def clear() -> None:
        await store.cut("")

    return remove, clear
