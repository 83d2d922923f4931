"""The cache over a store in memory: what it keeps, and that nothing wrong with the store reaches a caller."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal

import pytest
from pydantic import TypeAdapter

from showcase.caching import Cache, Counts, Kind
from showcase.caching.infrastructure import RedisStore
from showcase.kernel.errors import Unavailable
from showcase.platform.redis import connect
from tests.fakes import MemoryCacheStore

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Product:
    name: str
    price: Decimal


APPLE = Product("apple", Decimal("0.30"))
PRODUCT = Kind("product", TypeAdapter(Product | None))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class Factory:
    """Gives one answer, and counts how often it was asked."""

    def __init__(self, answer: Product | None = APPLE) -> None:
        self.answer = answer
        self.asked = 0

    async def __call__(self) -> Product | None:
        self.asked += 1
        return self.answer


async def test_second_question_is_answered_from_the_cache_with_an_equal_value() -> None:
    cache, factory = Cache(MemoryCacheStore()), Factory()

    answers = [await cache.get_or_set(PRODUCT.key(7), factory, duration=MINUTE) for _ in range(3)]

    assert answers == [APPLE] * 3
    assert factory.asked == 1
    assert cache.counts == Counts(hits=2, misses=1)


async def test_keys_of_two_kinds_do_not_meet() -> None:
    cache = Cache(MemoryCacheStore())
    names = Kind("name", TypeAdapter(str))

    async def name() -> str:
        return "seven"

    await cache.get_or_set(PRODUCT.key(7), Factory(), duration=MINUTE)

    assert await cache.get_or_set(names.key(7), name, duration=MINUTE) == "seven"


async def test_none_is_not_cached() -> None:
    cache, factory = Cache(MemoryCacheStore()), Factory(None)

    for _ in range(2):
        assert await cache.get_or_set(PRODUCT.key(7), factory, duration=MINUTE) is None

    assert factory.asked == 2


async def test_removed_answer_is_asked_for_again() -> None:
    cache, factory = Cache(MemoryCacheStore()), Factory()
    await cache.get_or_set(PRODUCT.key(7), factory, duration=MINUTE)

    assert await cache.remove(PRODUCT.key(7))
    await cache.get_or_set(PRODUCT.key(7), factory, duration=MINUTE)

    assert factory.asked == 2


@pytest.mark.parametrize("text", ["", "{", "null_", '"a string"', '{"name": "pear"}', "[1]", "\x00"])
async def test_value_that_is_none_of_its_kind_is_a_miss_and_is_replaced(text: str) -> None:
    store, factory = MemoryCacheStore(), Factory()
    await store.set("product:7", text, ttl=MINUTE)
    cache = Cache(store)

    for _ in range(2):
        assert await cache.get_or_set(PRODUCT.key(7), factory, duration=MINUTE) == APPLE

    assert factory.asked == 1
    assert cache.counts == Counts(hits=1, misses=1)


async def test_store_that_is_away_costs_one_call_and_no_error() -> None:
    store, factory = MemoryCacheStore(), Factory()
    store.away = True
    cache = Cache(store)

    assert await cache.get_or_set(PRODUCT.key(7), factory, duration=MINUTE) == APPLE
    assert not await cache.remove(PRODUCT.key(7))

    assert cache.counts == Counts(unavailable=2)


async def test_error_of_the_factory_is_the_callers() -> None:
    async def broken() -> Product | None:
        raise LookupError

    with pytest.raises(LookupError):
        await Cache(MemoryCacheStore()).get_or_set(PRODUCT.key(7), broken, duration=MINUTE)


async def test_all_steps_of_a_call_together_end_within_its_deadline() -> None:
    async def answer_slowly(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while asked := await reader.read(1_000):
                await asyncio.sleep(0.2)  # under the client's own timeout, each time
                writer.write(b"%1\r\n+proto\r\n:3\r\n" if b"HELLO" in asked else b"+OK\r\n" * asked.count(b"*"))
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        gone.set()

    gone = asyncio.Event()
    server = await asyncio.start_server(answer_slowly, "127.0.0.1", 0)
    url = f"redis://user:word@127.0.0.1:{server.sockets[0].getsockname()[1]}/1"
    redis = connect(url, timeout_s=0.3)
    store = RedisStore(redis, prefix="", timeout_s=0.3)
    loop = asyncio.get_running_loop()
    began = loop.time()

    with pytest.raises(Unavailable):
        await store.get("a")

    assert 0.25 < loop.time() - began < 0.39
    await redis.aclose()
    await gone.wait()
    server.close()
