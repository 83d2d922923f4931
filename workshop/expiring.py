"""One answer that expires again and again under steady reading, in two caches that stand for two processes.

The caches are the real ones, on the real Redis; only their source is made up: it takes a while, and tells when it was
done. So a reader knows whether it has waited for an answer: it was loaded after the reader had asked.
"""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

import pandas as pd

from showcase.caching import Kind, Options
from showcase.caching.wiring import Caching
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from workshop.lab.background import Background

CACHES = 2
HEARD_WITHIN_S = 10.0
TIMEOUT_S = 1.0
"""Of a call to Redis; more than an app's, since a notebook's process is busy with other things as well."""
_ANSWER: Kind[float] = Kind("expiring", float)


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of it.

    Attributes:
        frame: one row a read: due_s, took_ms, layer (as of `reading.LAYERS`), has_waited.
        loads: how often the source was asked, the very first time left out.
    """

    frame: pd.DataFrame
    loads: int

    @property
    def waited(self) -> int:
        """How many readers had to wait."""
        return int(self.frame.has_waited.sum())


def read_steadily(
    environment: Mapping[str, str], name: str, options: Options, *, load_s: float, rate: float, seconds: float
) -> Reading:
    """Read one answer for some seconds.

    Args:
        environment: where redis-cache is: SHOWCASE_REDIS_CACHE_URL, SHOWCASE_REDIS_PREFIX.
        name: of the answer; another one each time.
        load_s: what its source takes.
        rate: reads a second, of both caches together.
    """
    background = Background()
    try:
        return background.run(_read(environment, name, options, load_s, rate, seconds))
    finally:
        background.close()


async def _read(
    environment: Mapping[str, str], name: str, options: Options, load_s: float, rate: float, seconds: float
) -> Reading:
    settings = Settings(
        environment="workshop",
        redis_cache_url=environment["SHOWCASE_REDIS_CACHE_URL"],
        redis_prefix=environment["SHOWCASE_REDIS_PREFIX"],
        cache_timeout_s=TIMEOUT_S,
    )
    key = _ANSWER.key(name)
    loads: list[float] = []
    rows: list[tuple[float, float, str, bool]] = []

    async def load() -> float:
        await asyncio.sleep(load_s)
        loads.append(time.monotonic())
        return loads[-1]

    async with AsyncExitStack() as stack:
        caches = []
        for _ in range(CACHES):
            caching = Caching(await stack.enter_async_context(Resources(settings)))
            await stack.enter_async_context(caching.running())
            caches.append(caching.cache)
        async with asyncio.timeout(HEARD_WITHIN_S):
            while not all(cache.far.is_heard for cache in caches):  # noqa: ASYNC110 - a cache has no event for that
                await asyncio.sleep(0.01)
        for cache in caches:
            await cache.answer(key, load, options)
        loads.clear()
        began = time.monotonic()

        async def read(number: int) -> None:
            due_s = number / rate
            asked = time.monotonic()
            answer = await caches[number % CACHES].answer(key, load, options)
            layer = "stale" if answer.is_stale else answer.source
            has_waited = answer.value is not None and answer.value > asked
            rows.append((due_s, (time.monotonic() - began - due_s) * 1000, layer, has_waited))

        async with asyncio.TaskGroup() as tasks:
            for number in range(round(rate * seconds)):
                await asyncio.sleep(began + number / rate - time.monotonic())
                tasks.create_task(read(number))
    frame = pd.DataFrame(rows, columns=["due_s", "took_ms", "layer", "has_waited"])
    return Reading(frame.sort_values("due_s", ignore_index=True), len(loads))
