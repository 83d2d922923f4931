"""How often each library loads one cold answer that 200 readers want at once, from one process and from two.

Run as a program (`python -m benchmarks.caching_stampede ours 200`) it is one such process: it says when it is ready,
reads from its input when each round begins, and answers with its loads and when its last reader was served.
"""

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from dataclasses import dataclass

import aiocache  # type: ignore[import-untyped]  # it has none
import structlog
import uvloop

from benchmarks.caching_peers import aiocache_far, cashews_far, dogpile_far
from benchmarks.caching_system import KEPT_S, OPTIONS, key, opened, product
from showcase.platform.settings import Settings
from showcase.shop.application import Product

READERS = 200
LOAD_S = 0.05
ROUNDS = 4
"""After one that opens connections."""
BEGINS_IN_S = 0.05
"""After it was announced: by then both processes know, and wait for the same moment."""
ALL_WITHIN_S = 60.0

Read = Callable[[int], Awaitable[object]]
"""Read the product with a number."""


@dataclass(slots=True)
class Loads:
    """Loads of one process."""

    count: int = 0

    async def load(self, number: int) -> Product:
        """Takes its time."""
        self.count += 1
        await asyncio.sleep(LOAD_S)
        return product(number)

    def load_in_thread(self, number: int) -> Product:
        """The same for a library that waits in its thread."""
        self.count += 1
        time.sleep(LOAD_S)
        return product(number)


@asynccontextmanager
async def ours(settings: Settings, loads: Loads) -> AsyncIterator[Read]:
    """Single-flight in the process, a lease in Redis between processes."""
    async with opened(settings) as cache:
        yield lambda number: cache.get_or_set(key(number), lambda: loads.load(number), OPTIONS)


@asynccontextmanager
async def cashews_get_or_set(settings: Settings, loads: Loads) -> AsyncIterator[Read]:
    """The call whose hits are measured; it protects from nothing."""
    async with cashews_far(settings.url("redis_cache_url")) as cache:

        async def read(number: int) -> object:
            async def load() -> Product:
                return await loads.load(number)

            return await cache.get_or_set(f"{settings.redis_prefix}plain:{number}", load, KEPT_S)

        yield read


@asynccontextmanager
async def cashews_early(settings: Settings, loads: Loads) -> AsyncIterator[Read]:
    """Single-flight in the process, early refresh of what is there already."""
    async with cashews_far(settings.url("redis_cache_url")) as cache:
        yield cache.early(
            ttl=KEPT_S, early_ttl=KEPT_S // 2, key="early:{number}", prefix=f"{settings.redis_prefix}cashews"
        )(loads.load)


@asynccontextmanager
async def cashews_lock(settings: Settings, loads: Loads) -> AsyncIterator[Read]:
    """Single-flight in the process, a lock in Redis between processes."""
    async with cashews_far(settings.url("redis_cache_url")) as cache:
        yield cache(ttl=KEPT_S, key="lock:{number}", prefix=f"{settings.redis_prefix}cashews", lock=True)(loads.load)


@asynccontextmanager
async def aiocache_stampede(settings: Settings, loads: Loads) -> AsyncIterator[Read]:
    """Its RedLock: a lock in Redis, waited for by an event in the process."""
    decorated = aiocache.cached_stampede(
        lease=2,
        ttl=KEPT_S,
        key_builder=lambda _load, number: f"{settings.redis_prefix}aiocache:{number}",
        **aiocache_far(settings.url("redis_cache_url")),
    )(loads.load)
    yield decorated
    await decorated.cache.client.aclose()  # its own `close` is no longer what redis-py wants


@asynccontextmanager
async def dogpile(settings: Settings, loads: Loads) -> AsyncIterator[Read]:
    """A lock in Redis for all; one thread a reader."""
    region, prefix = dogpile_far(settings.url("redis_cache_url")), settings.redis_prefix
    with ThreadPoolExecutor(READERS) as pool:

        def read(number: int) -> Awaitable[object]:
            return asyncio.get_running_loop().run_in_executor(
                pool, region.get_or_create, f"{prefix}dogpile:{number}", lambda: loads.load_in_thread(number)
            )

        yield read


CONTESTANTS: Mapping[str, Callable[[Settings, Loads], AbstractAsyncContextManager[Read]]] = {
    "ours": ours,
    "cashews, lock=True": cashews_lock,
    "cashews, early": cashews_early,
    "cashews, get_or_set": cashews_get_or_set,
    "aiocache, cached_stampede": aiocache_stampede,
    "dogpile.cache, Redis lock": dogpile,
}


@dataclass(frozen=True, slots=True)
class Stampede:
    """What came of it, round by round.

    Attributes:
        loads, served_s: of one process and of two; when the last reader of all was served.
    """

    name: str
    loads: tuple[list[int], list[int]]
    served_s: tuple[list[float], list[float]]

    @property
    def is_met(self) -> bool:
        """One load is the target of ours; the others are what they are."""
        return self.name != "ours" or all(count == 1 for rounds in self.loads for count in rounds)

    def __str__(self) -> str:
        sides = " | ".join(
            f"{_range(loads):>9} {max(served) * 1000:8,.0f}"
            for loads, served in zip(self.loads, self.served_s, strict=True)
        )
        target = f" | 1 and 1 | {'met' if self.is_met else 'MISSED'}" if self.name == "ours" else ""
        return f"{self.name:32} {sides}{target}"


HEADING = (
    f"{READERS} readers of what is not there, {LOAD_S * 1000:.0f} ms to load\n"
    f"{'':32} {'loads, 1':>9} {'ms':>8} | {'loads, 2':>9} {'ms':>8} | target  | met?"
)


def measured(environment: Mapping[str, str]) -> Iterator[Stampede]:
    """Each library's stampedes."""
    for name in CONTESTANTS:
        one, two = (stampede(environment, name, processes) for processes in (1, 2))
        yield Stampede(name, (one[0], two[0]), (one[1], two[1]))


def stampede(environment: Mapping[str, str], name: str, processes: int) -> tuple[list[int], list[float]]:
    """The loads of each round, and when its last reader was served, in seconds from its beginning."""
    command = [sys.executable, "-m", __name__, name, str(READERS // processes), str(processes)]
    loads, served_s = [], []
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen(
                    command,
                    env={**os.environ, **environment},
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                    bufsize=1,
                )
            )
            for _ in range(processes)
        ]
        for child in children:
            stack.callback(child.kill)
        for child in children:
            _line(child)
        for _ in range(ROUNDS + 1):
            begins = time.monotonic() + BEGINS_IN_S
            for child in children:
                assert child.stdin is not None
                child.stdin.write(f"{begins}\n")
            answers = [json.loads(_line(child)) for child in children]
            loads.append(sum(answer["loads"] for answer in answers))
            served_s.append(max(answer["served"] for answer in answers) - begins)
    return loads[1:], served_s[1:]


async def readers(name: str, count: int, processes: int) -> None:
    """Be one of the processes."""
    loads = Loads()
    async with CONTESTANTS[name](Settings(), loads) as read:
        print("ready", flush=True)
        for number in range(ROUNDS + 1):
            begins = float(await asyncio.to_thread(sys.stdin.readline))
            loads.count = 0
            await asyncio.sleep(begins - time.monotonic())
            await asyncio.gather(*(read(1_000_000 * processes + number) for _ in range(count)))
            print(json.dumps({"loads": loads.count, "served": time.monotonic()}), flush=True)


def _line(child: "subprocess.Popen[str]") -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        raise RuntimeError("a process of readers has ended early")
    return line


def _range(counts: list[int]) -> str:
    return str(counts[0]) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    signal.alarm(round(ALL_WITHIN_S))  # nobody waits for longer than that, whatever happens
    uvloop.run(readers(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
