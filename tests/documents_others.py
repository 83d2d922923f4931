"""What the tests of documents under faults build with: a client, a server that fails as it is told, other processes.

`failCommand` is one switch of a whole server, so whoever turns it takes a private stack. It is meant for our clients
only: the test itself, which looks with a plain client, is never failed.
"""

import asyncio
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict
from datetime import timedelta
from typing import Any

import pytest
import structlog
from bson import Int64
from pydantic import Field
from pymongo import MongoClient
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.database import Database

from showcase.documents import Collection, Document, HistoryLost, Index, Moment, VersionConflict
from showcase.documents.infrastructure import changes, schema
from showcase.documents.infrastructure.mongo import Mongo, Options
from showcase.documents.infrastructure.repository import MongoRepository
from showcase.kernel.errors import Unavailable
from showcase.kernel.ids import new_uuid
from workshop.stack import Stack

APP_NAME = Options().app_name
closes_late = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
"""For tests with a client in this process: PyMongo's own, closed while its monitor connects, leaves that socket to the
garbage collector."""
TIMEOUT_S = 1.0
LATER_S = 1.0
WITHIN_S = 30.0
SECRET = b"of the tests, 32 bytes and no more"


class Counter(Document):
    """Counted up by several at once.

    Attributes:
        parts: what each of them has added, so that it can see whether a change of which it has not heard was made.
    """

    id: str
    total: int = 0
    parts: dict[str, int] = Field(default_factory=dict)


class Note(Document):
    """Anything."""

    id: int
    words: str = ""


class Person(Document):
    """Somebody with an address of his own."""

    id: int
    email: str
    team: str = ""
    seen_at: Moment | None = None


COUNTERS = Collection(name="counters", model=Counter)
NOTES = Collection(name="notes", model=Note)

PEOPLE = Collection(
    name="people",
    model=Person,
    indexes=(
        Index(keys=("team", "-seen_at")),
        Index(keys=("email",)),
        Index(keys=("seen_at",), expires_after=timedelta(days=30)),
    ),
    schema={"required": ["email"]},
)
"""As it was first declared."""
PEOPLE_LATER = Collection(
    name="people",
    model=Person,
    indexes=(
        Index(keys=("team", "-seen_at"), only={"team": {"$gt": ""}}),
        Index(keys=("email",), unique=True),
        Index(keys=("seen_at",), expires_after=timedelta(days=7)),
    ),
    schema={"required": ["email", "version"], "properties": {"email": {"bsonType": "string"}}},
)
"""Everything of it that can change has changed."""
DECLARED = {"people": PEOPLE, "people later": PEOPLE_LATER}


def fast(**changes: Any) -> Options:
    """Everything takes a second at the most."""
    return Options(**{"timeout_s": TIMEOUT_S, "select_s": TIMEOUT_S, "queue_s": TIMEOUT_S, **changes})


@asynccontextmanager
async def connected(url: str, **options: Any) -> AsyncIterator[Mongo]:
    """A client that is closed at the end, none of whose connections is in use then."""
    mongo = Mongo(url, fast(secrets=(SECRET,), **options))
    try:
        yield mongo
        assert mongo.watch._pool.connections["in_use"] == 0
    finally:
        await mongo.close()


@contextmanager
def mongosh(url: str) -> Iterator[Database[dict[str, Any]]]:
    """A person who looks for himself."""
    with MongoClient[dict[str, Any]](url, tz_aware=True, timeoutMS=10_000) as client:
        yield client.get_default_database()


@contextmanager
def unavailable_in_time(limit_s: float = TIMEOUT_S) -> Iterator[None]:
    """What is done in it is Unavailable, and no later than it has to be."""
    began = time.monotonic()
    with pytest.raises(Unavailable):
        yield
    assert time.monotonic() - began < limit_s + LATER_S


# -- a server that fails


class Failing:
    """A server that has been told to fail."""

    def __init__(self, admin: Database[dict[str, Any]], entered_before: int) -> None:
        self._admin = admin
        self._entered_before = entered_before

    def wait(self, times: int = 1) -> None:
        """Wait until a command has failed, or is held, for so many times."""
        entered = Int64(self._entered_before + times)
        self._admin.command("waitForFailPoint", "failCommand", timesEntered=entered, maxTimeMS=9_000)

    async def has_met(self, times: int = 1) -> None:
        """The same, while others go on."""
        await asyncio.to_thread(self.wait, times)


@contextmanager
def failing(
    url: str, commands: Sequence[str], times: int | None = None, skip: int = 0, **how: Any
) -> Iterator[Failing]:
    """Have the server fail some commands of our clients.

    Args:
        times: so many of them; all, if it is not given.
        skip: so many are done as always before that.
        how: as `failCommand` has it: `errorCode`, `errorLabels`, `closeConnection`, `blockConnection` …
    """
    mode: Any = {"times": times} if times is not None else {"skip": skip} if skip else "alwaysOn"
    with MongoClient[dict[str, Any]](url, timeoutMS=10_000) as client:
        data = {"failCommands": list(commands), "appName": APP_NAME, **how}
        told = client.admin.command("configureFailPoint", "failCommand", mode=mode, data=data)
        try:
            yield Failing(client.admin, told["count"])
        finally:
            client.admin.command("configureFailPoint", "failCommand", mode="off")


@contextmanager
def paused(stack: Stack) -> Iterator[None]:
    """A server that keeps its connections and answers nothing."""
    stack.server("mongo").pause()
    try:
        yield
    finally:
        stack.server("mongo").resume()


@contextmanager
def killed(stack: Stack) -> Iterator[None]:
    """A server that is not there."""
    stack.server("mongo").kill()
    try:
        yield
    finally:
        stack.server("mongo").restart()


# -- what runs in the other processes


def main(does: str, url: str, *arguments: str) -> None:
    """Connect, and do what is asked; the rest is said line by line, both ways."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(_connected(DOES[does], url, *arguments))


async def _connected(does: Callable[..., Awaitable[None]], url: str, *arguments: str) -> None:
    mongo = Mongo(url, Options() if does is apply else fast())  # an index is built within the deadline of one call
    try:
        await does(mongo, *arguments)
    finally:
        await mongo.close()


def say(what: object) -> None:
    print(json.dumps(what), flush=True)


async def told() -> None:
    """Wait for a line from whoever has started this process."""
    await asyncio.to_thread(sys.stdin.readline)


async def count(mongo: Mongo, who: str, wanted: str) -> None:
    """Add 1 to the counter so many times: read, change, replace.

    How far it has come it knows only from what it reads. Says when the server goes away, and at the end what it met.
    """
    counters = MongoRepository(mongo, COUNTERS)
    say("ready")
    await told()
    acknowledged = conflicts = unknown = 0
    is_away = False
    while True:
        try:
            counter = await counters.get("c")
            mine = counter.parts.get(who, 0)
            if mine >= int(wanted):
                break
            is_away = False
            parts = {**counter.parts, who: mine + 1}
            await counters.replace(counter.model_copy(update={"total": counter.total + 1, "parts": parts}))
            acknowledged += 1
        except VersionConflict:
            conflicts += 1
        except Unavailable:
            unknown += 1
            if not is_away:
                say("away")
            is_away = True
    say({"mine": mine, "acknowledged": acknowledged, "conflicts": conflicts, "unknown": unknown})


async def apply(mongo: Mongo, *declared: str) -> None:
    """Apply a schema; what came of it."""
    say("ready")
    await told()
    for name in declared:
        say(asdict(await schema.apply(mongo, DECLARED[name])))


async def follow(mongo: Mongo, name: str, save_every: str) -> None:
    """Write down each change of notes, wherever the server goes meanwhile."""
    handled: AsyncCollection[Any] = mongo.collection("handled")
    mine = str(new_uuid())
    numbers = itertools.count()
    is_ready = False
    while True:
        try:
            async with changes.following(mongo, NOTES, name, save_every=int(save_every)) as following:
                if not is_ready:
                    say("ready")
                    is_ready = True
                async for change in following:
                    with mongo.calling("handling"):
                        await handled.insert_one({"note": change.id, "by": mine, "number": next(numbers)})
                    assert change.misfit is None
        except Unavailable:
            continue
        except HistoryLost as error:
            say(error.detail)
            return


DOES: Mapping[str, Callable[..., Awaitable[None]]] = {"count": count, "apply": apply, "follow": follow}


# -- how they are started


class Other:
    """Another process.

    Args:
        does: a name of `DOES`, the URL of a database, and other arguments.
    """

    def __init__(self, *does: object) -> None:
        bare = {name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")}
        code = "import sys; from tests.documents_others import main; main(*sys.argv[1:])"
        self.popen = subprocess.Popen(
            [sys.executable, "-P", "-c", code, *map(str, does)],
            env=bare,
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

    def kill(self) -> None:
        """It finishes nothing."""
        self.popen.kill()
        self.popen.communicate(timeout=10)


@contextmanager
def other(*does: object) -> Iterator[Other]:
    """A process that is ready, and is killed at the end."""
    started = Other(*does)
    try:
        assert started.said() == "ready"
        yield started
    finally:
        started.kill()


@contextmanager
def others(*does: Sequence[object]) -> Iterator[list[Other]]:
    """Processes that have everything but the signal, and then get it."""
    with ExitStack() as stack:
        started = [Other(*one) for one in does]
        for one in started:
            stack.callback(one.kill)
        assert [one.said() for one in started] == ["ready"] * len(started)
        for one in started:
            one.go_on()
        yield started
