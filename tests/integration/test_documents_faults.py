"""Documents while their server is killed, paused or crowded: nothing is lost or done twice, and nobody waits long.

The server is of its own, since it is broken. What the other processes do is in `tests.documents_others`.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager

import httpx
import pytest

from showcase.documents import NoSuchDocument
from showcase.documents import wiring as documents
from showcase.documents.infrastructure import changes, schema
from showcase.documents.infrastructure.mongo import Mongo
from showcase.documents.infrastructure.repository import MongoRepository
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal
from showcase.platform.resources import Resources
from showcase.platform.web.app import build
from tests.documents_others import (
    COUNTERS,
    LATER_S,
    NOTES,
    TIMEOUT_S,
    Counter,
    Note,
    closes_late,
    connected,
    failing,
    killed,
    mongosh,
    others,
    paused,
    unavailable_in_time,
)
from tests.fakes import settings_of, until
from tests.integration.system import problem_of, wait_for
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
INCREMENTS = 10_000
QUEUE_S = 0.3
Fault = Callable[[Stack], AbstractContextManager[None]]
faults = pytest.mark.parametrize("fault", [paused, killed])


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["mongo"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


# -- two processes, one document


def test_ten_thousand_increments_of_two_processes_are_all_made_once_whatever_happens_to_the_server(
    private: Stack, names: Namespace
) -> None:
    with mongosh(names.mongo_url) as database:
        counters = database["counters"]
        counters.insert_one({"_id": "c", "version": 1, "total": 0, "parts": {}})

        def total() -> int:
            found = counters.find_one({"_id": "c"})
            assert found
            return int(found["total"])

        half = INCREMENTS // 2
        with others(("count", names.mongo_url, "one", half), ("count", names.mongo_url, "two", half)) as both:
            for fault, at in ((killed, INCREMENTS * 3 // 10), (paused, INCREMENTS * 6 // 10)):
                wait_for(lambda: total() >= at, within_s=60)  # noqa: B023 - waited for in this turn
                assert total() < INCREMENTS
                with fault(private):
                    assert [one.said() for one in both] == ["away", "away"]
            ends = [one.said() for one in both]

        found = counters.find_one({"_id": "c"})

    assert found
    assert found["total"] == INCREMENTS
    assert found["parts"] == {"one": half, "two": half}
    assert found["version"] - 1 == INCREMENTS
    for end in ends:
        assert end["mine"] == half
        assert end["unknown"] >= 2
        assert half - end["unknown"] <= end["acknowledged"] <= half
    assert sum(end["conflicts"] for end in ends) > 0


# -- a server that is away


async def touch(mongo: Mongo) -> None:
    """Do a little of everything."""
    notes = MongoRepository(mongo, NOTES)
    await notes.upsert(Note(id=1))
    await notes.get(1)
    await mongo.ping()


async def follow(mongo: Mongo) -> None:
    async with changes.following(mongo, NOTES, "reader") as following:
        await anext(following)


async def transact(mongo: Mongo) -> None:
    async with mongo.transaction():
        await MongoRepository(mongo, NOTES).upsert(Note(id=1))


async def read_all(mongo: Mongo) -> None:
    async for _ in MongoRepository(mongo, NOTES).stream():
        pass


async def apply(mongo: Mongo) -> None:
    await schema.apply(mongo, NOTES)


CALLS: dict[str, Callable[[Mongo], Awaitable[object]]] = {
    "ping": lambda mongo: mongo.ping(),
    "get": lambda mongo: MongoRepository(mongo, NOTES).get(1),
    "find": lambda mongo: MongoRepository(mongo, NOTES).find(),
    "count": lambda mongo: MongoRepository(mongo, NOTES).count(),
    "stream": read_all,
    "insert": lambda mongo: MongoRepository(mongo, NOTES).insert(Note(id=2)),
    "replace": lambda mongo: MongoRepository(mongo, NOTES).replace(Note(id=1, version=1)),
    "patch": lambda mongo: MongoRepository(mongo, NOTES).patch(1, {"words": "x"}),
    "delete": lambda mongo: MongoRepository(mongo, NOTES).delete(1),
    "put newer": lambda mongo: MongoRepository(mongo, NOTES).put_newer(Note(id=1, version=9)),
    "transaction": transact,
    "function in a transaction": lambda mongo: mongo.in_transaction(
        lambda: MongoRepository(mongo, NOTES).upsert(Note(id=1))
    ),
    "schema": apply,
    "changes": follow,
}


@faults
async def test_each_call_to_a_server_that_is_away_is_unavailable_in_time_and_works_again_when_it_is_back(
    private: Stack, names: Namespace, fault: Fault
) -> None:
    async with connected(names.mongo_url) as mongo:
        await touch(mongo)

        async def ends_in_time(call: Callable[[Mongo], Awaitable[object]]) -> None:
            with unavailable_in_time():
                await call(mongo)

        with fault(private):
            await asyncio.gather(*map(ends_in_time, CALLS.values()))

        async def is_back() -> bool:
            try:
                await touch(mongo)
            except Unavailable:
                return False
            return True

        await until(is_back)


async def test_many_calls_at_once_to_a_paused_server_are_all_unavailable_in_time(
    private: Stack, names: Namespace
) -> None:
    async with connected(names.mongo_url, connections=5) as mongo:
        await touch(mongo)
        with paused(private), unavailable_in_time():
            outcomes = await asyncio.gather(*(mongo.ping() for _ in range(50)), return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {Unavailable}
            raise Unavailable("all of them")
        await until(lambda: answers(mongo))
        await asyncio.gather(*(mongo.ping() for _ in range(5)))


async def answers(mongo: Mongo) -> bool:
    try:
        await mongo.ping()
    except Unavailable:
        return False
    return True


@pytest.fixture
def forgetful(names: Namespace) -> Iterator[None]:
    """A server that undoes a transaction of which it hears nothing after a second, not a minute."""
    limit = "transactionLifetimeLimitSeconds"
    with mongosh(names.mongo_url) as database:
        was = database.client.admin.command({"getParameter": 1, limit: 1})[limit]
        database.client.admin.command({"setParameter": 1, limit: 1})
        yield
        database.client.admin.command({"setParameter": 1, limit: was})


@faults
@pytest.mark.usefixtures("forgetful")
async def test_a_transaction_whose_server_goes_away_in_the_middle_is_unavailable_and_leaves_nothing(
    private: Stack, names: Namespace, fault: Fault
) -> None:
    async with connected(names.mongo_url) as mongo:
        notes = MongoRepository(mongo, NOTES)
        await touch(mongo)
        with ExitStack() as broken, unavailable_in_time():
            async with mongo.transaction():
                await notes.insert(Note(id=2))
                broken.enter_context(fault(private))
                await notes.insert(Note(id=3))

        async def is_written() -> bool:
            try:
                await notes.insert(Note(id=2, words="later"))
            except Unavailable:  # the server still holds what was changed
                return False
            return True

        await until(is_written)
        with pytest.raises(NoSuchDocument):
            await notes.get(3)


@asynccontextmanager
async def app(url: str) -> AsyncIterator[httpx.AsyncClient]:
    """Documents over HTTP."""

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        return Principal(subject="staff/ada", scopes=frozenset())

    resources = Resources(settings_of({"SHOWCASE_MONGO_URL": url, "SHOWCASE_MONGO_TIMEOUT_S": str(TIMEOUT_S)}))
    counters = documents.repository(resources, COUNTERS)
    built = build(resources, [], authenticate)

    @built.get("/counters/{name}")
    async def counter(name: str) -> Counter:
        return await counters.get(name)

    transport = httpx.ASGITransport(built)
    async with (
        built.router.lifespan_context(built),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        yield client


@faults
async def test_a_route_whose_server_is_away_says_so_in_time_and_when_to_try_again(
    private: Stack, names: Namespace, fault: Fault
) -> None:
    path = "/counters/a"
    async with app(names.mongo_url) as client:
        before = await client.get(path)
        with fault(private):
            began = asyncio.get_running_loop().time()
            away, ready = await client.get(path), await client.get("/health/ready")
            took_s = asyncio.get_running_loop().time() - began

        async def is_back() -> bool:
            return (await client.get(path)).status_code == before.status_code

        await until(is_back)

    assert problem_of(before) == (404, "no-such-document")
    assert problem_of(away) == (503, "unavailable")
    assert away.headers["retry-after"] == "1"
    assert ready.status_code == 503
    assert "mongo" in ready.text
    assert "mongodb://" not in away.text + ready.text
    assert took_s < 2 * (TIMEOUT_S + LATER_S)


async def test_a_call_that_finds_every_connection_in_use_is_unavailable_as_soon_as_it_has_waited_long_enough(
    names: Namespace,
) -> None:
    async with connected(names.mongo_url, connections=1, queue_s=QUEUE_S, timeout_s=5.0) as mongo:
        counters = MongoRepository(mongo, COUNTERS)
        await counters.upsert(Counter(id="c"))

        async def slow() -> None:
            async with mongo.transaction():
                await counters.patch("c", {"total": 1})

        held = {"blockConnection": True, "blockTimeMS": 2_000}
        with failing(names.mongo_url, ["findAndModify"], 1, **held) as server:
            task = asyncio.create_task(slow())
            await server.has_met()
            began = asyncio.get_running_loop().time()
            with pytest.raises(Unavailable):
                await counters.get("c")
            waited_s = asyncio.get_running_loop().time() - began
            await task

        assert QUEUE_S - 0.05 < waited_s < QUEUE_S + 0.5
        assert mongo.watch._pool.refused["timeout"] == 1
        assert (await counters.get("c")).total == 1


@pytest.mark.parametrize("code", [134, 211], ids=["no majority yet", "no keys yet"])
async def test_a_server_that_has_just_started_and_cannot_answer_yet_is_unavailable(names: Namespace, code: int) -> None:
    async with connected(names.mongo_url) as mongo:
        counters = MongoRepository(mongo, COUNTERS)
        await counters.upsert(Counter(id="c"))
        with failing(names.mongo_url, ["find", "insert"], errorCode=code):
            with pytest.raises(Unavailable):
                await counters.get("c")
            with pytest.raises(Unavailable):
                await counters.insert(Counter(id="d"))
        assert (await counters.get("c")).total == 0
