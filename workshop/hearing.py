"""A process whose line to the news of others goes dead without a sound, and what it gives out from then on.

Two caches are on that line. Ours believes its memory for as long as its pings are answered; the other one takes silence
for good news, as a subscriber does that nobody has told otherwise.
"""

import asyncio
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta

import pandas as pd
from structlog.testing import capture_logs

from showcase.caching import Cache, Kind, Options
from showcase.caching.application.ports import Listener
from showcase.caching.infrastructure.backplane import Backplane
from showcase.caching.infrastructure.redis import RedisStore, channel_of
from showcase.kernel.ids import new_uuid
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.shop.application import Product
from showcase.shop.domain import ProductId
from showcase.shop.infrastructure import SqlProducts
from workshop.races import change, until
from workshop.wire import Wire

OURS, CREDULOUS = "ours", "takes silence for good news"
ASKED_EVERY_S = 0.005
WITHIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Credulous:
    """Tells a cache all that is heard, and never that something may have been missed."""

    cache: Cache

    def heard_removed(self, name: str, version: int, is_gone: bool) -> None:
        """Passed on."""
        self.cache.heard_removed(name, version, is_gone)

    def heard_expired(self, name: str) -> None:
        """Passed on."""
        self.cache.heard_expired(name)

    def heard_cut(self, tag: str, at: float) -> None:
        """Passed on."""
        self.cache.heard_cut(tag, at)

    def trusted(self, until: float) -> None:
        """For ever, says the first answer."""
        self.cache.trusted(math.inf)

    def lost(self) -> None:
        """Nothing is passed on: that is the mistake."""


async def on_a_dead_line(
    settings: Settings, wire: Wire, kind: Kind[Product], product_id: int, *, near: timedelta
) -> pd.DataFrame:
    """Both caches hold a product, the line goes dead, another process changes the product. Who gives out what?

    Args:
        wire: to redis-cache; it is mended in the end.
        near: how long an answer is held in memory.

    Returns one row an answer: `who`, `at_ms` (since the change was committed), `is_old`. The line went dead at the
    time of the first ones. Raises TimeoutError.
    """
    options = Options(duration=timedelta(minutes=5), near=near)
    key, rows = kind.key(product_id), []
    settings = settings.model_copy(update={"redis_prefix": f"{settings.redis_prefix}hearing:{new_uuid().hex}:"})
    over_wire = settings.model_copy(update={"redis_cache_url": type(settings.redis_cache_url)(wire.url)})
    async with (
        _silent(),
        Resources(settings) as direct,
        Resources(over_wire) as wired,
        _listening(direct, is_credulous=False) as writer,
        _listening(wired, is_credulous=False) as ours,
        _listening(wired, is_credulous=True) as credulous,
    ):
        products = SqlProducts(direct.database)
        readers = {CREDULOUS: credulous, OURS: ours}

        async def load() -> Product | None:
            return await products.find(ProductId(product_id))

        for cache in readers.values():
            await cache.get_or_set(key, load, options)
        wire.lose_news()
        changed = await change(products, product_id)
        committed_s = time.monotonic()
        await writer.remove(key, kind.version(changed))
        waiting = set(readers)
        while waiting:
            if time.monotonic() > committed_s + WITHIN_S:
                raise TimeoutError(f"{' and '.join(waiting)}: still the old answer")
            for who, cache in readers.items():
                at_ms = 1000 * (time.monotonic() - committed_s)
                is_old = await cache.get_or_set(key, load, options) != changed
                rows.append((who, at_ms, is_old))
                waiting -= set() if is_old else {who}
            await asyncio.sleep(ASKED_EVERY_S)
    wire.mend()
    return pd.DataFrame(rows, columns=["who", "at_ms", "is_old"])


@asynccontextmanager
async def _silent() -> AsyncIterator[None]:
    with capture_logs():  # a notebook is no place for them
        yield


@asynccontextmanager
async def _listening(resources: Resources, *, is_credulous: bool) -> AsyncIterator[Cache]:
    """A cache as one process has it, in touch with the others."""
    settings, origin, stop = resources.settings, new_uuid().hex, asyncio.Event()
    store = RedisStore(resources.redis_cache, prefix=settings.redis_prefix, timeout_s=1.0, origin=origin)
    cache = Cache(store)
    listener: Listener = Credulous(cache) if is_credulous else cache
    channel = channel_of(settings.redis_prefix)
    backplane = Backplane(resources.redis_cache, channel=channel, origin=origin, listener=listener)
    following = asyncio.create_task(backplane.follow(stop))
    try:
        await until(lambda: cache.far.is_heard)
        yield cache
    finally:
        stop.set()
        await following
        await cache.close()
