"""One contract for every store of the cache: the one in memory and Redis."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from showcase.caching.application import Store
from showcase.caching.infrastructure import RedisStore
from showcase.platform.resources import Resources
from tests.fakes import MemoryCacheStore, settings_of, until
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["memory", "redis"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[Store]:
    if request.param == "memory":
        yield MemoryCacheStore()
        return
    with Stack.attach() as stack, stack.namespace() as names:
        async with Resources(settings_of(names.env)) as resources:
            yield RedisStore(resources.redis_cache, prefix=names.redis_prefix, timeout_s=1.0)


async def test_nothing_is_there_at_first(store: Store) -> None:
    assert await store.get("a") is None


async def test_what_was_set_is_there_and_the_last_one_counts(store: Store) -> None:
    await store.set("a", "1", ttl=MINUTE)
    await store.set("a", "zwei ✓", ttl=MINUTE)
    await store.set("b", "3", ttl=MINUTE)

    assert (await store.get("a"), await store.get("b")) == ("zwei ✓", "3")


async def test_deleted_is_gone_and_deleting_again_is_harmless(store: Store) -> None:
    await store.set("a", "1", ttl=MINUTE)

    for _ in range(2):
        await store.delete("a")

    assert await store.get("a") is None


async def test_value_is_gone_when_its_time_is_over(store: Store) -> None:
    await store.set("a", "1", ttl=timedelta(milliseconds=50))
    await store.set("b", "1", ttl=MINUTE)

    async def gone() -> bool:
        return await store.get("a") is None

    await until(gone)
    assert await store.get("b") == "1"
