"""The denylist on a redis-state and a PostgreSQL of its own, which are paused, killed and started again."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from showcase.auth.infrastructure.denylist import LOST_AFTER_S, Denylist
from showcase.auth.infrastructure.sessions import Revoked, SqlSessions
from showcase.kernel.errors import Unavailable
from showcase.platform import redis as redis_of
from showcase.platform.database import Database
from tests.fakes import until
from tests.integration.auth_sessions import World
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
ACCESS = timedelta(minutes=5)
SELDOM_S = 600.0
"""So seldom PostgreSQL is asked, where a test is about what does without."""
WITHIN_S = 1.0
"""What everybody is promised: a denial is known everywhere, a lost Redis is noticed."""


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["redis-state", "postgres"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def names(private: Stack) -> Iterator[Namespace]:
    with Namespace.create(private.urls) as names:
        yield names


@pytest.fixture
async def world(names: Namespace) -> AsyncIterator[World]:
    world = World(names.postgres_url)
    yield world
    await world.close()


class CountedSessions(SqlSessions):
    """Counts how often somebody has asked what was revoked, answered or not."""

    asked = 0

    async def revoked_within(self, within: timedelta) -> Sequence[Revoked]:
        try:
            return await super().revoked_within(within)
        finally:
            self.asked += 1


class Process:
    """What one process has of the denylist.

    Attributes:
        told: the sessions that its listener was told of.
    """

    def __init__(self, redis_url: str, postgres_url: str, prefix: str, poll_s: float, denied_for: timedelta) -> None:
        self.redis = redis_of.connect(redis_url, timeout_s=1.0)
        self.database = Database(postgres_url, timeout_s=1.0)
        self.sessions = CountedSessions(self.database)
        self.denylist = Denylist(
            self.redis,
            self.sessions,
            prefix=prefix,
            access_lifetime=denied_for,
            margin=timedelta(),
            poll_s=poll_s,
        )
        self.told: list[UUID] = []
        self.denylist.on_denied(self.told.append)
        self.stop = asyncio.Event()

    async def close(self) -> None:
        with suppress(Exception):  # of connections to a server that was killed
            await self.redis.aclose()
        await self.database.close()

    async def in_sync(self) -> bool:
        return self.denylist.in_sync

    async def out_of_sync(self) -> bool:
        return not self.denylist.in_sync


def process_of(names: Namespace, poll_s: float = SELDOM_S, denied_for: timedelta = ACCESS) -> Process:
    """A process that does not follow yet."""
    redis_url = names.env["SHOWCASE_REDIS_STATE_URL"]
    return Process(redis_url, names.postgres_url, names.redis_prefix, poll_s, denied_for)


@asynccontextmanager
async def following(
    names: Namespace, *, poll_s: float = SELDOM_S, denied_for: timedelta = ACCESS, wait: bool = True
) -> AsyncIterator[Process]:
    """A process that follows, in sync already."""
    process = process_of(names, poll_s, denied_for)
    task = asyncio.create_task(process.denylist.follow(process.stop))
    try:
        if wait:
            await until(process.in_sync)
            process.told.clear()  # what other tests have revoked
        yield process
    finally:
        process.stop.set()
        await asyncio.wait_for(task, 10)
        await process.close()


@contextmanager
def paused(stack: Stack, server: str) -> Iterator[None]:
    stack.server(server).pause()
    try:
        yield
    finally:
        stack.server(server).resume()


async def revoked(world: World) -> UUID:
    """A session that is revoked in the database, of which nobody was told."""
    session_id, _ = await world.login()
    assert await world.store.revoke(session_id, "test")
    return session_id


async def took(condition: Callable[[], Awaitable[bool]]) -> float:
    """How many seconds it takes until a condition comes true."""
    began = time.monotonic()
    await until(condition)
    return time.monotonic() - began


# -- told


def main(redis_url: str, postgres_url: str, prefix: str) -> None:
    """Follow in another process, and say which sessions are denied, and when by the machine's monotonic clock."""

    async def follow() -> None:
        process = Process(redis_url, postgres_url, prefix, SELDOM_S, ACCESS)

        def say(session_id: UUID) -> None:
            assert process.denylist.is_denied(session_id)
            print(json.dumps([str(session_id), time.monotonic()]), flush=True)

        process.denylist.on_denied(say)
        following = asyncio.create_task(process.denylist.follow(process.stop))
        await until(process.in_sync)
        print("ready", flush=True)
        await following

    asyncio.run(follow())


@contextmanager
def other_process(names: Namespace) -> Iterator[Callable[[], Awaitable[str]]]:
    """A process that follows, in sync already; gives what reads its next line."""
    code = "import sys; from tests.integration.test_auth_denylist import main; main(*sys.argv[1:])"
    arguments = [names.env["SHOWCASE_REDIS_STATE_URL"], names.postgres_url, names.redis_prefix]
    with subprocess.Popen([sys.executable, "-P", "-c", code, *arguments], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout
        line = started.stdout.readline
        try:
            assert line().strip() == "ready"
            yield lambda: asyncio.to_thread(line)
        finally:
            started.kill()


async def test_a_denial_in_one_process_is_known_in_another_within_a_second(names: Namespace, world: World) -> None:
    with other_process(names) as next_line:
        async with following(names) as process:
            for _ in range(20):
                session_id = await revoked(world)
                began = time.monotonic()
                await process.denylist.deny([session_id])
                denied, at = json.loads(await next_line())

                assert denied == str(session_id)
                assert at - began < WITHIN_S


async def test_several_are_denied_at_once_and_each_listener_is_told_once(names: Namespace) -> None:
    sessions = [uuid4() for _ in range(50)]
    async with following(names) as one, following(names) as other:
        await one.denylist.deny(sessions)
        assert one.told == sessions
        await one.denylist.deny(sessions)
        last = uuid4()
        await one.denylist.deny([last])

        async def arrived() -> bool:
            return last in other.told

        await until(arrived)
        assert other.told == one.told == [*sessions, last]
        assert all(other.denylist.is_denied(session_id) for session_id in sessions)
        assert not other.denylist.is_denied(uuid4())


async def test_whoever_looks_up_finds_a_denial_and_nothing_else(names: Namespace) -> None:
    async with following(names) as process:
        session_id = uuid4()
        await process.denylist.deny([session_id])

        assert await process.denylist.looked_up(session_id)
        assert not await process.denylist.looked_up(uuid4())
        lasts = await process.redis.ttl(f"{names.redis_prefix}auth:denied:{session_id}")
        assert ACCESS - timedelta(seconds=5) < timedelta(seconds=lasts) <= ACCESS


async def test_a_session_is_denied_for_longer_than_its_access_tokens_can_live(names: Namespace) -> None:
    process, session_id = process_of(names), uuid4()
    denylist = Denylist(process.redis, process.sessions, prefix=names.redis_prefix, access_lifetime=ACCESS)
    await denylist.deny([session_id])

    lasts = await process.redis.ttl(f"{names.redis_prefix}auth:denied:{session_id}")
    assert timedelta(seconds=lasts) > ACCESS + timedelta(seconds=50)
    await process.close()


async def test_a_denial_ends_when_no_token_of_the_session_can_live_any_more(names: Namespace) -> None:
    async with following(names, denied_for=timedelta(seconds=1)) as process:
        session_id = uuid4()
        await process.denylist.deny([session_id])
        assert process.denylist.is_denied(session_id)

        async def over() -> bool:
            return not process.denylist.is_denied(session_id)

        assert await took(over) > 0.5


async def test_a_denial_that_ended_is_forgotten_everywhere(names: Namespace) -> None:
    async with following(names, poll_s=0.05, denied_for=timedelta(seconds=1)) as process:
        session_id = uuid4()
        await process.denylist.deny([session_id])
        assert session_id in process.denylist._until

        async def forgotten() -> bool:
            return not process.denylist._until and not await process.denylist.looked_up(session_id)

        await until(forgotten)


async def test_what_is_no_session_is_overheard(names: Namespace) -> None:
    async with following(names) as process:
        await process.redis.publish(f"{names.redis_prefix}auth:denied", "nonsense")
        session_id = uuid4()
        await process.redis.publish(f"{names.redis_prefix}auth:denied", str(session_id))

        async def arrived() -> bool:
            return process.told == [session_id]

        await until(arrived)
        assert process.denylist.in_sync


# -- not told


async def test_a_process_that_starts_learns_what_was_revoked_before_and_is_not_ready_until_then(
    names: Namespace, world: World
) -> None:
    lately, long_ago = await revoked(world), await revoked(world)
    world.pass_time(long_ago, timedelta(hours=1))
    process = process_of(names)
    with pytest.raises(Unavailable):
        await process.denylist.ping()
    assert not process.denylist.in_sync
    await process.close()

    async with following(names) as process:
        await process.denylist.ping()

        assert process.denylist.is_denied(lately)
        assert await process.denylist.looked_up(lately)
        assert not process.denylist.is_denied(long_ago)


async def test_a_process_whose_denylist_nobody_follows_any_more_is_not_ready(names: Namespace) -> None:
    def broken(session_id: UUID) -> None:
        raise LookupError("a bug")

    process = process_of(names)
    following = asyncio.create_task(process.denylist.follow(process.stop))
    await until(process.in_sync)
    process.denylist.on_denied(broken)
    await process.denylist.ping()
    await process.redis.publish(f"{names.redis_prefix}auth:denied", str(uuid4()))

    with pytest.raises(ExceptionGroup):
        await asyncio.wait_for(following, 10)
    with pytest.raises(Unavailable):
        await process.denylist.ping()
    assert not process.denylist.in_sync
    await process.close()


async def test_a_revocation_that_nobody_told_is_found_in_the_database(names: Namespace, world: World) -> None:
    async with following(names, poll_s=0.1) as process:
        session_id = await revoked(world)

        async def found() -> bool:
            return process.denylist.is_denied(session_id) and await process.denylist.looked_up(session_id)

        await until(found)
        assert process.told.count(session_id) == 1


async def test_a_database_that_is_away_keeps_a_process_that_starts_out_of_sync(
    private: Stack, names: Namespace
) -> None:
    with paused(private, "postgres"):
        async with following(names, wait=False) as process:

            async def tried_twice() -> bool:
                assert not process.denylist.in_sync
                return process.sessions.asked >= 2

            await until(tried_twice)
            with pytest.raises(Unavailable):
                await process.denylist.ping()
            private.server("postgres").resume()

            await until(process.in_sync)
            await process.denylist.ping()


# -- Redis away


async def test_a_paused_redis_is_noticed_within_a_second_and_what_it_kept_to_itself_is_known_when_it_is_back(
    private: Stack, names: Namespace, world: World
) -> None:
    async with following(names) as process, following(names) as other:
        with paused(private, "redis-state"):
            assert await took(process.out_of_sync) < WITHIN_S
            unheard, meanwhile = await revoked(world), await revoked(world)
            began = time.monotonic()
            await other.denylist.deny([meanwhile])
            assert time.monotonic() - began < 3.0
            assert other.denylist.is_denied(meanwhile)
            assert not process.denylist.is_denied(meanwhile)
            with pytest.raises(Unavailable):
                await process.denylist.looked_up(meanwhile)
            await process.denylist.ping()

        assert await took(process.in_sync) < 3.0
        for session_id in (unheard, meanwhile):
            assert process.denylist.is_denied(session_id)
            assert await process.denylist.looked_up(session_id)


async def test_a_killed_redis_is_noticed_and_what_it_lost_is_written_down_again(
    private: Stack, names: Namespace, world: World
) -> None:
    async with following(names) as process:
        before = await revoked(world)
        await process.denylist.deny([before])
        await process.redis.delete(f"{names.redis_prefix}auth:denied:{before}")  # the second that its log lacks
        private.server("redis-state").kill()
        try:
            assert await took(process.out_of_sync) < WITHIN_S
            meanwhile = await revoked(world)
            await process.denylist.deny([meanwhile])
        finally:
            private.server("redis-state").restart()

        await until(process.in_sync)
        for session_id in (before, meanwhile):
            assert process.denylist.is_denied(session_id)
            assert await process.denylist.looked_up(session_id)


async def test_sockets_are_closed_although_redis_is_away(private: Stack, names: Namespace, world: World) -> None:
    async with following(names, poll_s=0.1) as process:
        with paused(private, "redis-state"):
            await until(process.out_of_sync)
            session_id = await revoked(world)

            async def told() -> bool:
                return session_id in process.told

            await until(told)


async def test_a_connection_that_the_driver_makes_anew_is_not_trusted(names: Namespace, world: World) -> None:
    async with following(names) as process:
        unheard = await revoked(world)
        assert not process.denylist.is_denied(unheard)
        other: Redis = redis_of.connect(names.env["SHOWCASE_REDIS_STATE_URL"], timeout_s=1.0)
        await other.client_kill_filter(_type="pubsub")
        await other.aclose()

        async def known() -> bool:
            return process.denylist.is_denied(unheard)

        await until(known)
        await until(process.in_sync)


async def test_a_process_that_was_stopped_itself_does_not_trust_what_it_knew(
    names: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with following(names) as process:
        assert process.denylist.in_sync
        time.sleep(LOST_AFTER_S)  # noqa: ASYNC251 - the loop stands still, as when somebody stops the process
        assert not process.denylist.in_sync

        await until(process.in_sync)
