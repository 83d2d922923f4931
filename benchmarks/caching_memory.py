"""What 100,000 products take in the memory of a process, by each library.

Run as a program (`python -m benchmarks.caching_memory ours traced`) it is the process that holds them: tracing counts
what Python allocates, and takes memory itself, so what the system sees is of another process.
"""

import gc
import json
import logging
import os
import subprocess
import sys
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import psutil
import structlog
import uvloop

from benchmarks.caching_peers import aiocache_near, cachetools_near, cashews_near, dogpile_near
from benchmarks.caching_system import OPTIONS, in_chunks, key, load_many, opened, product
from showcase.caching.application.near import Near
from showcase.platform.settings import Settings

ENTRIES = 100_000
FEW = 2_000
"""Held before anything is measured, so that what is made once is there."""
ROOM = 2 * ENTRIES
ALL_WITHIN_S = 120
MIB = 2**20
ESTIMATE_TARGET = 0.25
"""What our cache believes to hold is off by at most so much: the limit of its memory rests on it."""

Numbers = range
Hold = Callable[[Numbers], AbstractAsyncContextManager[Near | None]]


@asynccontextmanager
async def ours(numbers: Numbers) -> AsyncIterator[Near | None]:
    """Read from Redis, where they all are."""
    room = {"cache_near_entries": ROOM, "cache_near_bytes": 10_000 * ROOM}
    async with opened(Settings().model_copy(update=room)) as cache:
        for some in in_chunks(numbers, 500):
            await cache.get_many_or_set([key(number) for number in some], load_many, OPTIONS)
        assert len(cache.near) == len(numbers)
        yield cache.near


@asynccontextmanager
async def cashews(numbers: Numbers) -> AsyncIterator[Near | None]:
    """Each with its time to live."""
    async with cashews_near(numbers, ROOM) as cache:
        assert await cache.get_keys_count() == len(numbers)
        yield None


@asynccontextmanager
async def aiocache(numbers: Numbers) -> AsyncIterator[Near | None]:
    """Each with a timer that ends it."""
    cache = await aiocache_near(numbers)
    assert await cache.exists("product:0")
    yield None


@asynccontextmanager
async def dogpile(numbers: Numbers) -> AsyncIterator[Near | None]:
    """Each with the time when it was made."""
    region = dogpile_near(numbers)
    assert region.get("product:0")
    yield None


@asynccontextmanager
async def cachetools(numbers: Numbers) -> AsyncIterator[Near | None]:
    """A name and a product; nothing expires."""
    cache = cachetools_near(numbers, ROOM)
    yield None
    assert len(cache) == len(numbers)


@asynccontextmanager
async def nothing_else(numbers: Numbers) -> AsyncIterator[Near | None]:
    """A dict."""
    held = {f"product:{number}": product(number) for number in numbers}
    yield None
    assert len(held) == len(numbers)


CONTESTANTS: Mapping[str, Hold] = {
    "ours": ours,
    "cashews": cashews,
    "aiocache": aiocache,
    "dogpile.cache": dogpile,
    "cachetools, LRU": cachetools,
    "a dict": nothing_else,
}


@dataclass(frozen=True, slots=True)
class Held:
    """What they take.

    Attributes:
        traced_bytes, resident_bytes: as Python counts, and as the system does.
        believed_bytes: what our cache says it holds; 0 for others.
    """

    name: str
    traced_bytes: int
    resident_bytes: int
    believed_bytes: int

    @property
    def is_met(self) -> bool:
        """Whether our cache knows what it takes."""
        return not self.believed_bytes or abs(self.believed_bytes / self.traced_bytes - 1) <= ESTIMATE_TARGET

    def __str__(self) -> str:
        sizes = f"{self.traced_bytes / MIB:9.1f} {self.traced_bytes / ENTRIES:9.0f} | {self.resident_bytes / MIB:9.1f}"
        if not self.believed_bytes:
            return f"{self.name:32} {sizes}"
        target = f"1 ± {ESTIMATE_TARGET}"
        ratio = f"{self.believed_bytes / self.traced_bytes:6.2f} | {target} | {'met' if self.is_met else 'MISSED'}"
        return f"{self.name:32} {sizes} | {self.believed_bytes / MIB:9.1f} | {ratio}"


HEADING = (
    f"{f'memory of {ENTRIES:,} products':32} {'MiB':>9} {'B each':>9} | {'resident':>9} | {'believed':>9} |  ratio"
    " | target   | met?"
)


def measured(environment: Mapping[str, str]) -> Iterator[Held]:
    """Each library's."""
    for name in CONTESTANTS:
        traced, resident = (child(environment, name, how) for how in ("traced", "resident"))
        yield Held(name, traced["bytes"], resident["bytes"], traced["believed"])


def child(environment: Mapping[str, str], name: str, how: str) -> dict[str, int]:
    """What a process that holds them finds. Raises CalledProcessError, TimeoutExpired."""
    command = [sys.executable, "-m", __name__, name, how]
    found = subprocess.run(
        command, env={**os.environ, **environment}, stdout=subprocess.PIPE, check=True, timeout=ALL_WITHIN_S
    )
    return dict(json.loads(found.stdout))


async def hold(name: str, how: str) -> None:
    """Be that process."""
    contestant = CONTESTANTS[name]
    async with contestant(range(FEW)):
        pass
    gc.collect()
    if how == "traced":
        tracemalloc.start()
    before = taken(how)
    async with contestant(range(ENTRIES)) as near:
        gc.collect()
        held = taken(how) - before
        print(json.dumps({"bytes": held, "believed": near.size_bytes if near else 0}))


def taken(how: str) -> int:
    """Bytes."""
    if how == "traced":
        return tracemalloc.get_traced_memory()[0]
    return int(psutil.Process().memory_info().rss)


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    uvloop.run(hold(sys.argv[1], sys.argv[2]))
