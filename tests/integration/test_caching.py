"""The cache on Redis servers of its own that are filled with nonsense, paused, killed and started again."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta

import pytest
from pydantic import TypeAdapter

from showcase.caching import Counts, Kind, wiring
from showcase.platform.resources import Resources
from tests.fakes import settings_of
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)
NUMBER = Kind("number", TypeAdapter(int))
LIMIT_S = 0.3


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["redis-cache"]) as stack:
        yield stack


async def seven() -> int:
    return 7


async def test_two_processes_share_answers(private: Stack) -> None:
    with private.namespace() as names:
        settings = settings_of(names.env)
        async with Resources(settings) as one, Resources(settings) as other:
            first, second = wiring.build(one), wiring.build(other)

            await first.get_or_set(NUMBER.key(1), seven, duration=MINUTE)
            await second.get_or_set(NUMBER.key(1), seven, duration=MINUTE)
            await second.remove(NUMBER.key(1))
            await first.get_or_set(NUMBER.key(1), seven, duration=MINUTE)

            assert (first.counts, second.counts) == (Counts(misses=2), Counts(hits=1))


@pytest.mark.parametrize("value", [b"\xff\xfe", "nonsense", ["a", "list"]])
async def test_foreign_value_is_replaced(private: Stack, value: bytes | str | list[str]) -> None:
    with private.namespace() as names:
        async with Resources(settings_of(names.env)) as resources:
            cache = wiring.build(resources)
            key = f"{names.redis_prefix}cache:number:1"
            if isinstance(value, list):
                await resources.redis_cache.rpush(key, *value)
            else:
                await resources.redis_cache.set(key, value)

            for _ in range(2):
                assert await cache.get_or_set(NUMBER.key(1), seven, duration=MINUTE) == 7

            assert cache.counts == Counts(hits=1, misses=1)


async def test_paused_redis_costs_each_caller_one_deadline_and_recovers(private: Stack) -> None:
    with private.namespace() as names:
        async with Resources(settings_of(names.env, cache_timeout_s=LIMIT_S)) as resources:
            cache = wiring.build(resources)
            await cache.get_or_set(NUMBER.key(1), seven, duration=MINUTE)
            loop = asyncio.get_running_loop()
            private.server("redis-cache").pause()
            try:
                for _ in range(2):  # with a connection that was open, and with one that has to be made
                    began = loop.time()
                    assert (
                        await asyncio.gather(
                            *(cache.get_or_set(NUMBER.key(i), seven, duration=MINUTE) for i in range(50))
                        )
                        == [7] * 50
                    )
                    assert LIMIT_S * 0.9 < loop.time() - began < LIMIT_S + 0.5
            finally:
                private.server("redis-cache").resume()

            assert cache.counts.unavailable == 100
            await cache.get_or_set(NUMBER.key(1), seven, duration=MINUTE)
            assert cache.counts.hits == 1


async def test_killed_redis_is_no_error_and_recovers(private: Stack) -> None:
    with private.namespace() as names:
        async with Resources(settings_of(names.env)) as resources:
            cache = wiring.build(resources)
            await cache.get_or_set(NUMBER.key(1), seven, duration=MINUTE)
            private.server("redis-cache").kill()
            try:
                assert await cache.get_or_set(NUMBER.key(1), seven, duration=MINUTE) == 7
                assert not await cache.remove(NUMBER.key(1))
                assert cache.counts.unavailable == 2
            finally:
                private.server("redis-cache").restart()

            for _ in range(2):
                assert await cache.get_or_set(NUMBER.key(2), seven, duration=MINUTE) == 7
            assert cache.counts.hits == 1
