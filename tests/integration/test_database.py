"""Transactions and their deadline, on a PostgreSQL of their own that is paused, killed and started again."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

import psycopg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from showcase.kernel.errors import Unavailable
from showcase.platform.database import Database
from tests.fakes import until
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
LIMIT_S = 0.8
LATER_S = 1.0
CONNECTIONS = 2
SLOW = text("SELECT pg_sleep(30)")


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["postgres"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def url(private: Stack) -> str:
    url = private.urls["SHOWCASE_POSTGRES_URL"]
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("CREATE TABLE notes (words text NOT NULL)")
    return url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url, timeout_s=LIMIT_S, connections=CONNECTIONS)
    yield database
    assert database._engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # of a QueuePool
    await database.close()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("TRUNCATE notes")


@contextmanager
def paused(stack: Stack) -> Iterator[None]:
    stack.server("postgres").pause()
    try:
        yield
    finally:
        stack.server("postgres").resume()


@contextmanager
def unavailable_in_time() -> Iterator[None]:
    began = time.monotonic()
    with pytest.raises(Unavailable):
        yield
    assert time.monotonic() - began < LIMIT_S + LATER_S


async def note(db: AsyncConnection, words: str) -> None:
    await db.execute(text("INSERT INTO notes VALUES (:words)"), {"words": words})


def noted(url: str) -> list[str]:
    with psycopg.connect(url) as db:
        return [str(words) for (words,) in db.execute("SELECT words FROM notes ORDER BY words")]


# -- what a transaction is


async def test_a_transaction_inside_another_is_the_same_one(database: Database, url: str) -> None:
    async with database.transaction() as outer:
        await note(outer, "outer")
        async with database.transaction() as inner:
            assert inner is outer
            await note(inner, "inner")
        assert noted(url) == []

    assert noted(url) == ["inner", "outer"]


async def test_an_error_undoes_all_of_it_also_what_an_inner_transaction_did(database: Database, url: str) -> None:
    async def fails() -> None:
        async with database.transaction() as outer:
            await note(outer, "outer")
            async with database.transaction() as inner:
                await note(inner, "inner")
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert noted(url) == []


async def test_a_task_that_is_started_inside_gets_a_transaction_of_its_own(database: Database, url: str) -> None:
    async def other() -> None:
        async with database.transaction() as db:
            await note(db, "other task")

    async def fails() -> None:
        async with database.transaction() as db:
            await note(db, "first task")
            await asyncio.create_task(other())
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert noted(url) == ["other task"]


async def test_a_task_that_is_cancelled_in_mid_query_ends_and_gives_its_connection_back(database: Database) -> None:
    async def slow() -> None:
        async with database.transaction() as db:
            await db.execute(SLOW)

    for _ in range(CONNECTIONS + 1):
        task = asyncio.create_task(slow())
        await until(lambda: running(database, "pg_sleep"))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LIMIT_S)

    await asyncio.gather(*(database.ping() for _ in range(CONNECTIONS)))


async def running(database: Database, words: str) -> bool:
    async with database.transaction() as db:
        query = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE :words AND pid <> pg_backend_pid()"
        found = await db.execute(text(f"{query} AND state = 'active'"), {"words": f"%{words}%"})
        return bool(found.scalar_one() == 1)


# -- a part of a transaction


async def test_an_error_in_a_savepoint_undoes_that_part_and_no_more(database: Database, url: str) -> None:
    done: list[str] = []

    async def part(words: str) -> None:
        async def afterwards() -> None:
            done.append(words)

        async with database.savepoint() as db:
            await note(db, words)
            await database.after_commit(afterwards)
            if "fails" in words:
                raise LookupError

    async with database.transaction() as db:
        await note(db, "before")
        for number in range(8):  # often enough for psycopg to prepare what it sends
            await part(f"good {number}")
            with pytest.raises(LookupError):
                await part(f"fails {number}")
        async with database.savepoint():
            await part("inner")
            with pytest.raises(LookupError):
                await part("inner fails")

    assert noted(url) == ["before", *(f"good {number}" for number in range(8)), "inner"]
    assert done == [*(f"good {number}" for number in range(8)), "inner"]


async def test_a_statement_that_fails_in_a_savepoint_leaves_a_transaction_that_can_go_on(
    database: Database, url: str
) -> None:
    async def swallows() -> None:
        async with database.savepoint() as db:
            await note(db, "swallowed")
            with suppress(ProgrammingError):
                await db.execute(text("SELECT * FROM nowhere"))

    async with database.transaction() as db:
        with pytest.raises(ProgrammingError):
            async with database.savepoint() as db:
                await db.execute(text("SELECT * FROM nowhere"))
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await swallows()
        await note(db, "after")
    assert noted(url) == ["after"]


async def test_a_deadlock_undoes_the_part_of_one_and_both_transactions_go_on(database: Database, url: str) -> None:
    async with database.transaction() as db:
        await note(db, "a")
        await note(db, "b")
    barrier, outcomes = asyncio.Barrier(2), list[str]()

    async def lock(db: AsyncConnection, words: str) -> None:
        await db.execute(text("SELECT 1 FROM notes WHERE words = :words FOR UPDATE"), {"words": words})

    async def both(first: str, second: str) -> None:
        async with database.transaction() as db:
            await db.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
            try:
                async with database.savepoint():
                    await lock(db, first)
                    await barrier.wait()
                    await lock(db, second)
            except Unavailable as error:
                outcomes.append(error.detail)
            await note(db, f"after {first}")

    await asyncio.gather(both("a", "b"), both("b", "a"))
    assert outcomes == ["another transaction was in the way: try again"]
    assert noted(url) == ["a", "after a", "after b", "b"]


async def test_a_connection_that_is_lost_in_a_savepoint_fails_the_whole_transaction(
    database: Database, url: str
) -> None:
    async def loses_it() -> None:
        async with database.transaction() as db:
            await note(db, "before")
            with suppress(Unavailable):
                async with database.savepoint():
                    await db.execute(text("SELECT pg_terminate_backend(pg_backend_pid())"))
            await note(db, "after")

    with unavailable_in_time():
        await loses_it()
    assert noted(url) == []


async def test_there_is_no_savepoint_without_a_transaction(database: Database) -> None:
    with pytest.raises(RuntimeError, match="none is open"):
        async with database.savepoint():
            pass


# -- a server that has stopped answering


async def test_a_paused_server_costs_each_transaction_one_deadline_and_works_again_later(
    private: Stack, database: Database
) -> None:
    await database.ping()
    with paused(private):
        with unavailable_in_time():  # with a connection that was open
            await database.ping()
        with unavailable_in_time():  # with one that has to be made
            await database.ping()
    await asyncio.gather(*(database.ping() for _ in range(2 * CONNECTIONS)))


async def test_a_pause_in_mid_transaction_ends_it_in_time_with_nothing_stored(
    private: Stack, database: Database, url: str
) -> None:
    async def write() -> None:
        async with database.transaction() as db:
            await note(db, "before")
            private.server("postgres").pause()
            await note(db, "after")

    try:
        with unavailable_in_time():
            await write()
    finally:
        private.server("postgres").resume()
    await database.ping()
    assert noted(url) == []


async def test_a_pause_before_the_commit_ends_the_transaction_in_time(private: Stack, database: Database) -> None:
    async def write() -> None:
        async with database.transaction() as db:
            await note(db, "committed?")
            private.server("postgres").pause()

    try:
        with unavailable_in_time():
            await write()
    finally:
        private.server("postgres").resume()
    await database.ping()


async def test_whoever_waits_for_a_connection_waits_one_deadline_in_all(private: Stack, database: Database) -> None:
    async def held(holding: asyncio.Event, go_on: asyncio.Event) -> None:
        async with database.transaction() as db:
            holding.set()
            await go_on.wait()
            await db.execute(text("SELECT 1"))

    holding, go_on = [asyncio.Event() for _ in range(CONNECTIONS)], asyncio.Event()
    holders = [asyncio.create_task(held(one, go_on)) for one in holding]
    await asyncio.gather(*(one.wait() for one in holding))
    with paused(private):
        with unavailable_in_time():  # the holders are cut off first: there are connections to be made, and no time
            await database.ping()
        go_on.set()
        assert [type(one) for one in await asyncio.gather(*holders, return_exceptions=True)] == [Unavailable] * 2
    await database.ping()


async def test_a_pool_with_no_connection_left_is_a_database_that_does_not_answer(database: Database) -> None:
    go_on = asyncio.Event()

    async def held() -> None:
        async with database.transaction():
            await go_on.wait()

    holders = [asyncio.create_task(held()) for _ in range(CONNECTIONS)]
    await until(lambda: all_taken(database))
    with unavailable_in_time():
        await database.ping()
    go_on.set()
    await asyncio.gather(*holders, return_exceptions=True)


async def all_taken(database: Database) -> bool:
    return bool(database._engine.pool.checkedout() == CONNECTIONS)  # type: ignore[attr-defined]  # of a QueuePool


async def test_a_slow_query_is_ended_in_time(database: Database) -> None:
    async def slow() -> None:
        async with database.transaction() as db:
            await db.execute(SLOW)

    with unavailable_in_time():
        await slow()


# -- a server that was away


async def test_a_statement_that_the_server_ends_has_taken_too_long_and_was_answered(database: Database) -> None:
    async def slow() -> None:
        async with database.transaction() as db:
            await db.execute(text("SET LOCAL statement_timeout = 50"))
            await db.execute(SLOW)

    with pytest.raises(Unavailable, match="the transaction took too long"):
        await slow()


async def test_the_first_transaction_after_a_restart_succeeds(private: Stack, database: Database) -> None:
    await asyncio.gather(*(database.ping() for _ in range(CONNECTIONS)))
    private.server("postgres").kill()
    with unavailable_in_time():
        await database.ping()
    private.server("postgres").restart()
    for _ in range(CONNECTIONS + 1):
        await database.ping()


async def test_idle_connections_that_died_are_replaced_before_they_are_used(private: Stack, database: Database) -> None:
    await asyncio.gather(*(database.ping() for _ in range(CONNECTIONS)))
    private.server("postgres").kill()
    private.server("postgres").restart()

    await asyncio.gather(*(database.ping() for _ in range(CONNECTIONS)))


# -- listening


async def notify(database: Database) -> None:
    async with database.transaction() as db:
        await db.execute(text("SELECT pg_notify('news', '')"))


async def test_a_listener_wakes_at_once_and_only_for_news(database: Database) -> None:
    async with database.listening("news") as woken:
        assert not await woken(0.05)
        waiting = asyncio.ensure_future(woken(20))
        await notify(database)
        assert await asyncio.wait_for(waiting, 5)
        await notify(database)
        assert await woken(20), "news that came while nobody waited"


async def test_a_listener_hears_that_the_server_died(private: Stack, database: Database) -> None:
    async def listen() -> None:
        async with database.listening("news") as woken:
            private.server("postgres").kill()
            await woken(20)

    try:
        with pytest.raises(Unavailable):
            await asyncio.wait_for(listen(), 5)
    finally:
        private.server("postgres").restart()


async def test_to_begin_listening_takes_one_deadline_at_the_most(private: Stack, database: Database) -> None:
    async def listen() -> None:
        async with database.listening("news"):
            pass

    with paused(private), unavailable_in_time():
        await listen()


# -- afterwards


async def test_what_is_for_afterwards_is_done_after_the_outermost_commit(database: Database) -> None:
    done: list[str] = []

    async def note() -> None:
        async with database.transaction() as db:  # a new one: it sees what was committed
            done.append(str((await db.execute(text("SELECT count(*) FROM afterwards"))).scalar_one()))

    async with database.transaction() as db:
        await db.execute(text("CREATE TABLE afterwards (x int)"))
    try:
        async with database.transaction():
            async with database.transaction() as db:
                await database.after_commit(note)
                await db.execute(text("INSERT INTO afterwards VALUES (1)"))
            assert done == []
        assert done == ["1"]
        await database.after_commit(note)
        assert done == ["1", "1"]
        with suppress(LookupError):
            async with database.transaction():
                await database.after_commit(note)
                raise LookupError
        assert done == ["1", "1"]
    finally:
        async with database.transaction() as db:
            await db.execute(text("DROP TABLE afterwards"))
