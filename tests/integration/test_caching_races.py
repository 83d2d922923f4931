"""Caches of several processes on a real Redis and a real database: races, lost news, and processes that die or stand.

Redis is of its own, since it is emptied, paused, and cut off from its clients. The processes' own code is below.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import psycopg
import pytest
import redis
import structlog
from sqlalchemy import text

from showcase.caching import Cache, Key, Kind, Options
from showcase.caching.application.cache import LEASE_MARGIN_S
from showcase.caching.infrastructure.backplane import LOST_AFTER_S
from showcase.caching.wiring import Caching
from showcase.platform.database import Database
from showcase.platform.resources import Resources
from tests.caches import ROW, Row
from tests.fakes import settings_of, until
from tests.integration.system import wait_for
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
POSTGRES, REDIS = "SHOWCASE_POSTGRES_URL", "SHOWCASE_REDIS_CACHE_URL"
PLAIN = Kind("plain", Row)
"""Without versions: here only leases keep an old answer from being stored."""
MINUTES = timedelta(minutes=5)
HARD_S = 3.0
OPTIONS = Options(duration=MINUTES, near=MINUTES, absent=MINUTES, hard=timedelta(seconds=HARD_S))
ROWS = 4
READERS, WRITERS = 8, 2
CROWD = 100
WITHIN_S = 20.0
ALONE_S = 1.0
"""For so long a process may hold what it loaded while no news came."""
NUMBERS = count(900_000_001)
CHANCE = random.Random()  # noqa: S311 - other delays in every run


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["redis-cache"]) as stack:
        yield stack


@pytest.fixture(scope="module")
def names(stack: Stack, private: Stack) -> Iterator[Namespace]:
    with Namespace.create({POSTGRES: stack.urls[POSTGRES], REDIS: private.urls[REDIS]}) as names:
        yield names


@pytest.fixture(scope="module")
def db(names: Namespace) -> "Iterator[psycopg.Connection[Any]]":
    """A person with psql."""
    with closing(psycopg.connect(names.postgres_url, autocommit=True)) as db:
        yield db


# -- what runs in the other processes


def main(does: str, *arguments: str) -> None:
    """Connect, and do what is asked; the rest is said line by line, both ways."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(DOES[does](*arguments))


@asynccontextmanager
async def connected(environment: Mapping[str, str] = os.environ) -> AsyncIterator[tuple[Cache, Database]]:
    """A process's cache, which hears of the others' changes, and the database."""
    async with Resources(settings_of(environment)) as resources:
        caching = Caching(resources)

        async def is_heard() -> bool:
            return caching.cache.far.is_heard

        async with caching.running():
            await until(is_heard)
            yield caching.cache, resources.database


async def row_of(database: Database, number: int) -> Row | None:
    """What the database says."""
    query = text("SELECT version, brand FROM products WHERE product_id = :number")
    async with database.transaction() as connection:
        found = (await connection.execute(query, {"number": number})).one_or_none()
    return None if found is None else Row(found.version, found.brand)


async def read(cache: Cache, key: Key[Row], load: Callable[[], Awaitable[Row | None]], options: Options) -> Row | None:
    return await cache.get_or_set(key, load, options)


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


async def told() -> None:
    """Wait for a line from whoever has started this process."""
    await asyncio.to_thread(sys.stdin.readline)


@dataclass
class Hammer:
    """Reads and changes a few rows, all the time.

    Attributes:
        slow_s: how long a load takes at most from what it has read to its answer.
        promised: the version of each row that this process was told to have changed: no read may give less.
        wrong: what was read against that.
    """

    cache: Cache
    database: Database
    numbers: Sequence[int]
    slow_s: float
    promised: dict[int, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    reads: int = 0
    slowest_s: float = 0.0
    is_over: bool = False

    async def work(self, *, deletes: bool) -> None:
        """Until it is told to stop. Raises what any of it raises, in a group."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(READERS):
                tasks.create_task(self._read_on())
            for _ in range(WRITERS):
                tasks.create_task(self._write_on())
            if deletes:
                tasks.create_task(self._delete_on())
            await told()
            self.is_over = True

    async def read(self, number: int) -> Row | None:
        async def load() -> Row | None:
            row = await row_of(self.database, number)
            await asyncio.sleep(CHANCE.uniform(0, self.slow_s))
            return row

        return await read(self.cache, ROW.key(number), load, OPTIONS)

    async def _read_on(self) -> None:
        while not self.is_over:
            number = CHANCE.choice(self.numbers)
            least, began = self.promised.get(number, 0), time.monotonic()
            row = await self.read(number)
            self.slowest_s = max(self.slowest_s, time.monotonic() - began)
            self.reads += 1
            if row is None and number != self.numbers[0]:
                self.wrong.append(f"{number} was never deleted")
            if row is not None and row.version < least:
                self.wrong.append(f"{number}: {row.version} after {least}")
            await asyncio.sleep(CHANCE.uniform(0, 0.004))

    async def _write_on(self) -> None:
        while not self.is_over:
            await self._change("UPDATE products SET brand = :brand WHERE product_id = :number", self.numbers)
            if CHANCE.random() < 0.02:
                await self.cache.clear()
            await asyncio.sleep(CHANCE.uniform(0.005, 0.03))

    async def _delete_on(self) -> None:
        """The first row only, and one after the other: so each insertion has a higher version than the deletion."""
        while not self.is_over:
            await self._change("DELETE FROM products WHERE product_id = :number", self.numbers[:1], is_gone=True)
            await asyncio.sleep(CHANCE.uniform(0, 0.05))
            await self._change("INSERT INTO products (product_id, brand) VALUES (:number, :brand)", self.numbers[:1])
            await asyncio.sleep(CHANCE.uniform(0, 0.2))

    async def _change(self, statement: str, numbers: Sequence[int], *, is_gone: bool = False) -> None:
        """Change a row; remove what is cached of it at once or, as an invalidation worker would, later and twice."""
        number, brand = CHANCE.choice(numbers), f"{os.getpid()} at {time.monotonic()}"
        async with self.database.transaction() as connection:
            returned = text(f"{statement} RETURNING version").bindparams(number=number)
            given = {"brand": brand} if ":brand" in statement else {}
            version = (await connection.execute(returned, given)).scalar_one_or_none()
        if version is None:  # deleted meanwhile
            return
        await asyncio.sleep(CHANCE.choice((0.0, 0.0, CHANCE.uniform(0, 0.1))))
        for _ in range(CHANCE.choice((1, 1, 2))):
            await self.cache.remove(ROW.key(number), version, is_gone=is_gone)
            self.promised[number] = max(version + is_gone, self.promised.get(number, 0))


async def hammer(first: str, slow_s: str, deletes: str) -> None:
    """Read and change rows; then, when all processes have stopped, compare what is cached with the database."""
    async with connected() as (cache, database):
        numbers = range(int(first), int(first) + ROWS)
        mine = Hammer(cache, database, numbers, float(slow_s))
        say("ready")
        await told()
        await mine.work(deletes=bool(deletes))

        async def has_paid() -> bool:
            return cache.far.owed == 0

        await until(has_paid)
        say({"reads": mine.reads, "slowest_s": mine.slowest_s, "wrong": mine.wrong, "near": cache.counts.near})
        await told()
        stopped = time.monotonic()

        async def has_heard_all() -> (
            bool
        ):  # a ping was answered that was sent when even such an answer was no longer held
            return cache.far.trusted_until > stopped + ALONE_S + LOST_AFTER_S

        await until(has_heard_all)
        pairs = [(str(await mine.read(number)), str(await row_of(database, number))) for number in [*numbers, *numbers]]
        say([pair for pair in pairs if pair[0] != pair[1]])


async def crowd(number: str) -> None:
    """So many readers of one answer. Its load goes on until the readers of all processes are there."""
    async with connected() as (cache, database):

        async def load() -> Row | None:
            async with database.transaction() as connection:
                await connection.execute(text("INSERT INTO notes VALUES ('load')"))
            await until(all_are_there)
            return await row_of(database, int(number))

        async def all_are_there() -> bool:
            query = text("SELECT count(*) FROM notes WHERE what = 'there'")
            async with database.transaction() as connection:
                return bool((await connection.execute(query)).scalar_one() == 2)

        say("ready")
        await told()
        readers = [asyncio.create_task(read(cache, PLAIN.key(number), load, OPTIONS)) for _ in range(CROWD)]
        await asyncio.sleep(0)  # they begin
        async with database.transaction() as connection:
            await connection.execute(text("INSERT INTO notes VALUES ('there')"))
        say([str(row) for row in await asyncio.gather(*readers)])


def lasting(hard_s: float) -> Options:
    """A load may take so long."""
    return Options(duration=MINUTES, hard=timedelta(seconds=hard_s))


async def hold(number: str, hard_s: str) -> None:
    """A load that has read its answer goes on when it is told to; then another one, which does not wait."""
    async with connected() as (cache, database):

        async def load() -> Row | None:
            row = await row_of(database, int(number))
            say(str(row))
            await told()
            return row

        for one in (load, lambda: row_of(database, int(number))):
            say(str(await read(cache, PLAIN.key(number), one, lasting(float(hard_s)))))


DOES: Mapping[str, Callable[..., Any]] = {"hammer": hammer, "crowd": crowd, "hold": hold}


# -- how they are started


class Other:
    """Another process.

    Args:
        does: a name of `DOES`, and its arguments.
    """

    def __init__(self, names: Namespace, *does: object) -> None:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")}
        code = "import sys; from tests.integration.test_caching_races import main; main(*sys.argv[1:])"
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *map(str, does)],
            env=bare | names.env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def said(self) -> Any:
        assert self.popen.stdout
        return json.loads(self.popen.stdout.readline())

    def go_on(self) -> None:
        assert self.popen.stdin
        self.popen.stdin.write("go\n")
        self.popen.stdin.flush()

    def end(self) -> None:
        """Kill it, also where it stands still."""
        self.popen.kill()
        self.popen.communicate(timeout=10)


@contextmanager
def other(names: Namespace, *does: object) -> Iterator[Other]:
    """A process that is killed at the end."""
    started = Other(names, *does)
    try:
        yield started
    finally:
        started.end()


@contextmanager
def others(names: Namespace, *does: Sequence[object]) -> Iterator[list[Other]]:
    """Processes that have everything but the signal."""
    with ExitStack() as stack:
        started = [stack.enter_context(other(names, *one)) for one in does]
        assert [one.said() for one in started] == ["ready"] * len(started)
        for one in started:
            one.go_on()
        yield started


def new_rows(db: "psycopg.Connection[Any]", rows: int = 1) -> int:
    """The number of the first of some new rows, which follow one another."""
    numbers = [next(NUMBERS) for _ in range(rows)]
    db.cursor().executemany("INSERT INTO products (product_id, brand) VALUES (%s, 'new')", [(one,) for one in numbers])
    return numbers[0]


# -- the races


def test_whatever_is_changed_lost_and_killed_nobody_reads_what_is_older_than_they_were_promised(
    names: Namespace, private: Stack, db: "psycopg.Connection[Any]"
) -> None:
    def changes() -> int:
        ((number,),) = db.execute("SELECT last_value FROM product_versions").fetchall()
        return int(number)

    def after(more: int) -> None:
        enough = changes() + more
        wait_for(lambda: changes() >= enough, within_s=WITHIN_S)

    first, server = new_rows(db, ROWS), private.server("redis-cache")
    roles = [("hammer", first, slow_s, deletes) for slow_s, deletes in ((0.002, "deletes"), (0.02, ""), (0.1, ""))]
    with redis.Redis.from_url(private.urls[REDIS], socket_timeout=5.0) as client, others(names, *roles) as processes:
        one, two, victim = processes
        after(40)
        client.flushall()
        after(40)
        victim.popen.kill()  # in the middle of a load, with an answer that may be old by now
        after(40)
        client.client_kill_filter(_type="normal", skipme=True)
        after(40)
        server.pause()
        try:
            after(40)
        finally:
            server.resume()
        after(60)
        client.client_kill_filter(_type="pubsub")
        after(20)  # what is changed last is news to nobody
        for process in (one, two):
            process.go_on()
        told_of = [process.said() for process in (one, two)]
        for process in (one, two):
            process.go_on()
        assert [process.said() for process in (one, two)] == [[], []], "what is cached, and what there is"

    assert [report["wrong"] for report in told_of] == [[], []]
    assert all(report["near"] > 0 for report in told_of)
    assert max(report["slowest_s"] for report in told_of) < HARD_S + LEASE_MARGIN_S + HARD_S


def test_of_two_hundred_readers_in_two_processes_one_loads(names: Namespace, db: "psycopg.Connection[Any]") -> None:
    number = new_rows(db)
    db.execute("CREATE TABLE notes (what text)")
    with others(names, ("crowd", number), ("crowd", number)) as processes:
        answers = [answer for process in processes for answer in process.said()]
    assert len(answers) == 2 * CROWD
    assert len(set(answers)) == 1
    assert db.execute("SELECT count(*) FROM notes WHERE what = 'load'").fetchall() == [(1,)]


# -- a load that does not end


async def test_when_the_holder_of_a_lease_dies_the_others_wait_no_longer_than_it_lasts(
    names: Namespace, db: "psycopg.Connection[Any]"
) -> None:
    number = new_rows(db)
    key: Key[Row] = PLAIN.key(number)
    hard_s = 1.0
    async with connected(names.env) as (cache, database):
        with other(names, "hold", number, hard_s) as holder:
            await asyncio.to_thread(holder.said)
            holder.popen.kill()
            began = time.monotonic()
            reads = [read(cache, key, lambda: row_of(database, number), OPTIONS) for _ in range(20)]
            answers = await asyncio.gather(*reads)
            took_s = time.monotonic() - began
            assert set(answers) == {await row_of(database, number)}
            assert (cache.counts.waits, cache.counts.loads) == (1, 1)
            assert took_s < hard_s + LEASE_MARGIN_S + 1


async def test_a_process_that_stood_still_while_its_answer_was_changed_keeps_it_nowhere(
    names: Namespace, db: "psycopg.Connection[Any]"
) -> None:
    number = new_rows(db)
    key: Key[Row] = PLAIN.key(number)
    async with connected(names.env) as (cache, database):
        with other(names, "hold", number, HARD_S) as holder:
            old = await asyncio.to_thread(holder.said)
            holder.popen.send_signal(signal.SIGSTOP)
            db.execute("UPDATE products SET brand = 'newer' WHERE product_id = %s", [number])
            assert await cache.remove(key)
            holder.go_on()
            holder.popen.send_signal(signal.SIGCONT)
            assert await asyncio.to_thread(holder.said) == old, "who had asked before may get it"
            newer = str(await row_of(database, number))
            assert await asyncio.to_thread(holder.said) == newer != old
            assert str(await read(cache, key, lambda: row_of(database, number), OPTIONS)) == newer
