"""The cache's line between processes, and its store, on a redis-cache that is paused, killed and started again."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import pytest
import redis
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from structlog.testing import capture_logs

from showcase.caching.infrastructure import backplane as line
from showcase.caching.infrastructure.backplane import LOST_AFTER_S, PING_EVERY_S, Backplane
from showcase.caching.infrastructure.news import Expired, encode
from showcase.caching.infrastructure.redis import RedisStore, channel_of
from showcase.kernel.errors import Unavailable
from showcase.platform import redis as redis_of
from tests.cache_worlds import LONG, URL, data
from tests.fakes import until
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
PREFIX = "test:"
TIMEOUT_S = 0.2
NOTICED_S = 1.0
BACK_S = 5.0


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["redis-cache"]) as stack:
        yield stack


@pytest.fixture
def stack(private: Stack) -> Iterator[Stack]:
    yield private
    for status in private.status():
        if status.phase != "ready":
            private.server(status.name).restart()


@pytest.fixture
async def client(stack: Stack) -> AsyncIterator[Redis]:
    client = redis_of.connect(stack.urls[URL], timeout_s=TIMEOUT_S, text=False)
    yield client
    await client.aclose()


class Diary:
    """A listener that writes down what it is told, in order.

    Attributes:
        trusted_until: as it was told last.
    """

    def __init__(self) -> None:
        self.told: list[str] = []
        self.trusted_until = float("-inf")

    def heard_removed(self, name: str, version: int, is_gone: bool) -> None:
        self.told.append(f"removed {name}")

    def heard_expired(self, name: str) -> None:
        self.told.append(name)

    def heard_cut(self, tag: str, at: float) -> None:
        self.told.append(f"cut {tag}")

    def trusted(self, until: float) -> None:
        self.trusted_until = until
        if self.told[-1] != "trusted":  # it is told five times a second
            self.told.append("trusted")

    def lost(self) -> None:
        self.trusted_until = float("-inf")
        self.told.append("lost")

    async def is_trusting(self) -> bool:
        return time.monotonic() < self.trusted_until

    def has(self, what: str, times: int = 1) -> Callable[[], Awaitable[bool]]:
        """A condition to wait for."""

        async def look() -> bool:
            return self.told.count(what) >= times

        return look


@asynccontextmanager
async def following(client: Redis, *, wait: bool = True) -> AsyncIterator[Diary]:
    """A process that listens; trusted already."""
    diary, stop = Diary(), asyncio.Event()
    backplane = Backplane(client, channel=channel_of(PREFIX), origin="mine", listener=diary)
    task = asyncio.create_task(backplane.follow(stop))
    try:
        if wait:
            await until(diary.is_trusting, within_s=BACK_S)
        yield diary
    finally:
        stop.set()
        await asyncio.wait_for(task, 2)


@contextmanager
def other_process(stack: Stack) -> Iterator[redis.Redis]:
    """A client that needs no event loop."""
    with redis.Redis.from_url(stack.urls[URL], socket_timeout=5.0) as client:
        yield client


def tried(logged: Sequence[object], times: int) -> Callable[[], Awaitable[bool]]:
    """A condition to wait for: so often the line broke, or could not be made."""

    async def look() -> bool:
        return len(logged) >= times

    return look


def news(name: str) -> bytes:
    return encode(Expired("other", name))


async def test_it_is_trusted_only_for_a_moment_after_each_ping_that_was_answered(client: Redis) -> None:
    async with following(client) as diary:
        assert diary.told == ["lost", "trusted"], "what was told before it listened is missing"
        first = diary.trusted_until

        async def later() -> bool:
            assert diary.trusted_until <= time.monotonic() + LOST_AFTER_S
            return diary.trusted_until >= first + 2 * PING_EVERY_S

        await until(later, within_s=2)
        assert diary.told == ["lost", "trusted"]
    assert diary.told[-1] == "lost", "nobody listens any more"


async def test_a_paused_redis_is_noticed_within_a_second_and_trusted_again_when_it_is_back(
    stack: Stack, client: Redis
) -> None:
    async with following(client) as diary:
        stack.server("redis-cache").pause()
        try:
            await until(diary.has("lost", 2), within_s=NOTICED_S)
            assert not await diary.is_trusting()
        finally:
            stack.server("redis-cache").resume()

        await until(diary.is_trusting, within_s=BACK_S)
        assert diary.told == ["lost", "trusted", "lost", "lost", "trusted"], "lost again: what came in between"


async def test_a_killed_redis_is_noticed_and_memory_is_emptied_once_and_not_at_each_attempt_to_come_back(
    stack: Stack, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(line, "RECONNECT_AFTER_S", 0.05)
    async with following(client) as diary:
        with capture_logs() as tries:
            stack.server("redis-cache").kill()
            await until(diary.has("lost", 2), within_s=NOTICED_S)
            await until(tried(tries, 4), within_s=BACK_S)
        assert diary.told == ["lost", "trusted", "lost"]
        stack.server("redis-cache").restart()

        await until(diary.is_trusting, within_s=BACK_S)
        assert diary.told == ["lost", "trusted", "lost", "lost", "trusted"]
        await client.publish(channel_of(PREFIX), news("after"))
        await until(diary.has("after"), within_s=BACK_S)


async def test_a_redis_that_is_away_at_the_start_is_found_when_it_comes(stack: Stack, client: Redis) -> None:
    stack.server("redis-cache").kill()
    with capture_logs() as tries:
        async with following(client, wait=False) as diary:
            await until(tried(tries, 1), within_s=BACK_S)
            assert diary.told == []
            stack.server("redis-cache").restart()
            await until(diary.is_trusting, within_s=BACK_S)
            assert diary.told == ["lost", "trusted"]


async def test_news_that_came_while_the_driver_connected_anew_is_known_to_be_missing(
    stack: Stack, client: Redis
) -> None:
    async with following(client) as diary:
        with other_process(stack) as other:
            other.client_kill_filter(_type="pubsub")
            assert other.publish(channel_of(PREFIX), news("missed")) == 0, "nobody listens"

        await until(diary.has("trusted", 2), within_s=BACK_S)
        assert diary.told == ["lost", "trusted", "lost", "lost", "trusted"]


async def test_a_process_that_stood_still_itself_hears_everything_before_it_trusts_again(
    stack: Stack, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ping = PubSub.ping
    trusted_after: list[bool] = []

    async def ping_and_stand_still(subscription: PubSub, message: str) -> None:
        await ping(subscription, message)
        if not trusted_after:
            other.publish(channel_of(PREFIX), news("meanwhile"))
            time.sleep(LOST_AFTER_S)  # noqa: ASYNC251 - the loop stands still, as when somebody stops the process
            trusted_after.append(await diary.is_trusting())

    with other_process(stack) as other:
        async with following(client) as diary:
            monkeypatch.setattr(PubSub, "ping", ping_and_stand_still)
            await until(diary.has("meanwhile"), within_s=BACK_S)
            await until(diary.is_trusting, within_s=BACK_S)
            assert trusted_after == [False]
            assert diary.told == ["lost", "trusted", "meanwhile", "trusted"], "no line was broken: nothing is lost"


async def test_news_that_cannot_be_read_counts_as_lost_and_the_next_is_heard(client: Redis) -> None:
    broken = [b"", b"\xc1", b"no news", news("a")[:-1], encode(["removed", "o", "a", -1, True]), encode(["new", "o"])]
    async with following(client) as diary:
        for number, spoilt in enumerate(broken):
            await client.publish(channel_of(PREFIX), spoilt)
            await client.publish(channel_of(PREFIX), news(f"next {number}"))

        await until(diary.has(f"next {len(broken) - 1}"), within_s=BACK_S)
        told = [one for one in diary.told[2:] if one != "trusted"]
        assert told == [one for number in range(len(broken)) for one in ("lost", f"next {number}")]


async def test_the_store_answers_within_its_deadline_and_no_late_answer_is_taken_for_another(
    stack: Stack,
) -> None:
    client = redis_of.connect(stack.urls[URL], timeout_s=5.0, text=False)
    store = RedisStore(client, prefix=PREFIX, timeout_s=TIMEOUT_S, origin="mine")
    for name in "ab":
        assert await store.write(name, data(1, name=name), ttl_s=LONG, tell=False)
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: store.read(["a"]),
        lambda: store.lease(["c"], "holder", LONG),
        lambda: store.write("a", data(2), ttl_s=LONG, tell=True),
        lambda: store.cut("t"),
    ]
    stack.server("redis-cache").pause()
    try:
        for call in calls:
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await call()
            assert time.monotonic() - began < 2 * TIMEOUT_S
    finally:
        stack.server("redis-cache").resume()

    async def answers() -> bool:
        try:
            return list(await store.read(["b"])) == [data(1, name="b")]
        except Unavailable:
            return False

    await until(answers, within_s=BACK_S)
    assert list(await store.read(["b", "nothing"])) == [data(1, name="b"), None]
    await client.aclose()
