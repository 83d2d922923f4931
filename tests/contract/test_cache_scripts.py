"""The scripts of the cache's store: they say what the rules say, and stand whatever others put under their keys."""

import itertools
import time
from collections.abc import AsyncIterator, Iterator

import pytest
from redis.asyncio import Redis

from showcase.caching.application import entry as entries
from showcase.caching.application.entry import ABSENT, COMPRESSED, FLOOR, GONE
from showcase.caching.domain import NEWEST_VERSION
from showcase.caching.infrastructure import redis as adapter
from tests.cache_worlds import LONG, URL, InRedis, data, floor, granted, head, there
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, Namespace.create({URL: stack.urls[URL]}) as names:
        yield names


@pytest.fixture
async def in_redis(names: Namespace) -> AsyncIterator[InRedis]:
    async with InRedis.emptied(names) as world:
        yield world


# -- the rules

HEADS = list(
    itertools.product(
        (0, COMPRESSED, ABSENT, FLOOR, FLOOR | GONE), (0, 1, 2, 255, 256, 2**32, NEWEST_VERSION - 1, NEWEST_VERSION)
    )
)


def of_head(bits: int, version: int) -> bytes:
    whole = data(version)
    return whole[:1] + bytes([bits]) + whole[2:]


async def test_the_script_stores_exactly_what_beats_what_is_there(in_redis: InRedis) -> None:
    store, key = in_redis.store(), f"{in_redis.prefix}cache:a"
    for new, old in itertools.product(HEADS, HEADS):
        if new[0] & FLOOR:
            continue
        await in_redis.redis.set(key, of_head(*old))
        stored = await store.write("a", of_head(*new), ttl_s=LONG, tell=False)
        assert stored == entries.beats(new, old), (new, old)
        assert await head(store) == (new if stored else old)


async def test_the_script_leaves_exactly_what_stands_after_a_removal(in_redis: InRedis) -> None:
    store, key = in_redis.store(), f"{in_redis.prefix}cache:a"
    for new, old in itertools.product(HEADS, HEADS):
        if not new[0] & FLOOR:
            continue
        await in_redis.redis.set(key, of_head(*old))
        await store.remove("a", floor(new[1], is_gone=bool(new[0] & GONE)), ttl_s=LONG)
        assert await head(store) == (entries.merged(new, old) or old), (new, old)


STRANGE = [
    b"",
    b"\xc1",
    b"\xc1" * 17,
    b"\xc1\x00" + b"\xff" * 42,  # a version below 0
    b"\xc1\x00" + b"\x7f" * 42,  # one that Lua cannot count to
    b"\x80\x00" + b"\x00" * 42,
    b"something else altogether, and longer",
]


async def _foreign(redis: Redis, key: str, strange: bytes | str) -> None:
    await redis.delete(key)
    match strange:
        case bytes():
            await redis.set(key, strange)
        case "list":
            await redis.rpush(key, "x")
        case "hash":
            await redis.hset(key, "x", "y")
        case _:
            await redis.zadd(key, {"x": 1})


@pytest.mark.parametrize("strange", [*STRANGE, "list", "hash", "sorted set"], ids=str)
async def test_what_others_put_under_our_keys_is_no_error_and_in_nobodys_way(
    in_redis: InRedis, strange: bytes | str
) -> None:
    store, redis, prefix = in_redis.store(), in_redis.redis, in_redis.prefix
    at_entry, at_lease = f"{prefix}cache:a", f"{prefix}lease:a"

    await _foreign(redis, at_entry, strange)
    assert await there(store) == (strange if isinstance(strange, bytes) else None)
    assert entries.head(await there(store) or b"") == (0, 0)
    await store.expire("a")
    await store.remove("a", floor(1), ttl_s=LONG)
    assert await head(store) == (FLOOR, 1)
    await _foreign(redis, at_entry, strange)
    assert await store.write("a", data(1), ttl_s=LONG, tell=True)
    assert await there(store) == data(1)

    await _foreign(redis, at_lease, strange)
    await store.release(["a"], "one")
    assert not await store.write("a", data(2), ttl_s=LONG, holder="one", tell=False)
    assert await granted(store, "one")
    assert await store.write("a", data(2), ttl_s=LONG, holder="one", tell=False)

    await _foreign(redis, f"{prefix}cuts", strange)
    loaded_at, _ = await store.lease([], "", LONG)
    assert all(at <= loaded_at for at in await store.cuts(["t"]))
    await _foreign(redis, f"{prefix}cuts", strange)
    assert await store.cut("t") > loaded_at


async def test_scripts_that_redis_has_forgotten_are_loaded_again(in_redis: InRedis) -> None:
    store = in_redis.store()
    await store.cut("t")
    await in_redis.redis.script_flush()
    assert await store.write("a", data(1), ttl_s=LONG, tell=False)


async def test_so_many_cuts_are_remembered_and_what_was_loaded_before_the_forgotten_ones_is_not_valid(
    in_redis: InRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "REMEMBERED_CUTS", 4)
    store = in_redis.store()
    await store.lease([], "", LONG)
    first, second, *others = [await store.cut(f"tag {number}") for number in range(5)]

    assert await in_redis.redis.zcard(f"{in_redis.prefix}cuts") == 4
    assert list(await store.cuts(["tag 0", "never", "", "tag 1"])) == [second, second, second, second]
    assert list(await store.cuts(["tag 2", "tag 3", "tag 4"])) == others
    assert first < second


async def test_a_clock_that_is_set_back_does_not_undo_a_cut(in_redis: InRedis) -> None:
    store = in_redis.store()
    ahead = time.time() + 3600
    await store.cut("t")
    await in_redis.redis.zadd(f"{in_redis.prefix}cuts", {"tag:t": round(ahead * 1e6)})

    assert await store.cut("t") == pytest.approx(ahead)


async def test_everything_in_redis_ends_or_is_bounded(in_redis: InRedis) -> None:
    store = in_redis.store()
    await store.write("a", data(1), ttl_s=LONG, tell=True)
    await store.remove("b", floor(1), ttl_s=LONG)
    await store.expire("a")
    await store.lease(["c"], "one", LONG)
    await store.cut("t")

    keys = [key async for key in in_redis.redis.scan_iter(match=f"{in_redis.prefix}*")]
    endless = [key for key in keys if await in_redis.redis.pttl(key) < 0]
    assert len(keys) == 4
    assert endless == [f"{in_redis.prefix}cuts".encode()]
