"""The cache on a Redis of its own that is paused, killed, restarted and full while answers are loaded and removed."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from showcase.caching import Answer, Options
from showcase.caching.application import entry as entries
from showcase.caching.application.cache import Cache
from showcase.caching.application.entry import FLOOR
from showcase.caching.wiring import Caching
from showcase.platform.resources import Resources
from tests.caches import ROW, Row, Source, begun
from tests.fakes import settings_of, until
from workshop.stack import Stack
from workshop.stack.namespace import Namespace
from workshop.stack.stack import ServerHandle

pytestmark = pytest.mark.anyio
TIMEOUT_S = 0.2
BACK_S = 10.0
OPTIONS = Options(duration=timedelta(minutes=5), hard=timedelta(seconds=5))
HOT, UNREAD, CHANGED, COLD = (ROW.key(name) for name in ("hot", "unread", "changed", "cold"))


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["redis-cache"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


@pytest.fixture
def server(private: Stack, names: Namespace) -> Iterator[ServerHandle]:
    """The server, which is ready again before the namespace is dropped."""
    server = private.server("redis-cache")
    yield server
    if server.status().phase != "ready":
        server.restart()


class Process:
    """What one process of the system has of the cache."""

    def __init__(self, resources: Resources, cache: Cache) -> None:
        self.redis: Redis = resources.redis_cache
        self.cache = cache
        self._prefix = resources.settings.redis_prefix

    async def is_heard(self) -> bool:
        return self.cache.far.is_heard

    async def head_of(self, name: str) -> tuple[int, int]:
        """The bits and the version of what lies in Redis."""
        data: Any = await self.redis.get(f"{self._prefix}cache:{name}")
        return entries.head(data or b"")


@asynccontextmanager
async def processes(names: Namespace, count: int = 2) -> AsyncIterator[list[Process]]:
    """Processes that hear of each other's changes."""
    async with AsyncExitStack() as stack:
        begun: list[Process] = []
        for _ in range(count):
            resources = await stack.enter_async_context(Resources(settings_of(names.env, cache_timeout_s=TIMEOUT_S)))
            caching = Caching(resources)
            await stack.enter_async_context(caching.running())
            begun.append(Process(resources, caching.cache))
            await until(begun[-1].is_heard, within_s=BACK_S)
        yield begun


def is_true(condition: Callable[[], object]) -> Callable[[], Awaitable[object]]:
    async def look() -> object:
        return condition()

    return look


async def source_of(process: Process, name: str, source: Source[Row]) -> str:
    return (await process.cache.answer(ROW.key(name), source, OPTIONS)).source


async def test_what_one_process_has_loaded_the_others_find_and_what_it_removes_they_do_not_give_out(
    names: Namespace,
) -> None:
    async with processes(names) as (one, other):
        source = Source(Row(1))
        assert [await source_of(process, "hot", source) for process in (one, other, other)] == ["loaded", "far", "near"]

        source.value = Row(2)
        assert await one.cache.remove(HOT, 2)
        await until(is_true(lambda: other.cache.counts.heard == 1))
        assert await other.cache.get_or_set(HOT, source, OPTIONS) == Row(2)
        assert await one.cache.get_or_set(HOT, source, OPTIONS) == Row(2)
        assert source.calls == 2


@pytest.mark.parametrize("fault", ["paused", "killed"])
async def test_a_redis_that_goes_away_in_the_middle_of_a_load_is_no_readers_error_and_is_told_all_when_it_is_back(
    names: Namespace, server: ServerHandle, fault: str
) -> None:
    async with processes(names) as (one, other):
        source, slow = Source(Row(1)), Source(Row(1), is_open=False)
        for process in (one, other):
            for key in (HOT, UNREAD, CHANGED):
                await process.cache.get_or_set(key, source, OPTIONS)
        waiting = begun(one.cache.get_or_set(COLD, slow, OPTIONS))
        await slow.asked()

        await asyncio.to_thread(server.pause if fault == "paused" else server.kill)
        slow.opened.set()
        assert await waiting == Row(1)
        answers, took_s = await read_by_many(one, other)
        await until(is_true(lambda: not one.cache.far.is_heard and not other.cache.far.is_heard))
        later, later_s = await read_by_many(one, other)
        assert {answer.value for answer in answers + later} == {Row(1)}
        assert max(took_s, later_s) < 4 * TIMEOUT_S + 1.0, "each call of Redis costs its deadline once"

        source.value = Row(2)
        assert not await one.cache.remove(CHANGED, 2)
        assert await one.cache.get_or_set(CHANGED, source, OPTIONS) == Row(2)
        assert one.cache.far.owed == 1
        await asyncio.to_thread(server.resume if fault == "paused" else server.restart)

        await until(is_true(lambda: one.cache.far.owed == 0), within_s=BACK_S)
        await until(other.is_heard, within_s=BACK_S)
        assert await one.head_of(CHANGED.name) == (FLOOR, 2)
        assert await other.cache.get_or_set(CHANGED, source, OPTIONS) == Row(2)
        again = "far" if fault == "paused" else "loaded"
        assert await source_of(one, "unread", source) == again, "nobody knows what was changed meanwhile"
        assert await source_of(one, "unread", source) == "near"
        assert (one.cache.counts.failed_loads, other.cache.counts.failed_loads) == (0, 0)


async def read_by_many(*processes: Process) -> tuple[list[Answer[Row]], float]:
    """Answers to what is known and what is not, read by many at once; and how long the slowest took (s)."""
    keys = [HOT, *(ROW.key(f"new {number}") for number in range(5))]
    source = Source(Row(1))
    began = time.monotonic()
    reads = [process.cache.answer(key, source, OPTIONS) for process in processes for key in keys for _ in range(5)]
    return await asyncio.gather(*reads), time.monotonic() - began


async def test_a_redis_that_is_full_hides_no_answer_and_a_removal_reaches_the_others_when_it_has_room(
    names: Namespace,
) -> None:
    async with processes(names) as (one, other):
        source = Source(Row(1))
        for process in (one, other):
            await process.cache.get_or_set(CHANGED, source, OPTIONS)
        room: dict[str, str] = await one.redis.config_get("maxmemory*")  # type: ignore[assignment]  # it is text
        await one.redis.config_set("maxmemory", 1, "maxmemory-policy", "noeviction")
        try:
            assert await source_of(one, "cold", source) == "loaded"
            source.value = Row(2)
            assert not await one.cache.remove(CHANGED, 2)
            assert await one.cache.get_or_set(CHANGED, source, OPTIONS) == Row(2)
            assert await one.cache.get(CHANGED) == Row(2)
            assert await one.head_of(CHANGED.name) == (0, 1)
        finally:
            await one.redis.config_set("maxmemory", room["maxmemory"], "maxmemory-policy", room["maxmemory-policy"])

        await until(is_true(lambda: other.cache.counts.heard == 1), within_s=BACK_S)
        assert await other.cache.get_or_set(CHANGED, source, OPTIONS) == Row(2)
        assert (one.cache.counts.lost, other.cache.counts.lost) == (0, 0), "news came all the time"
