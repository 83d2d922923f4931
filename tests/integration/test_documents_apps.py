"""Documents in apps: two of them in one process, repositories for routes, and what operators see of the driver.

The server is of its own where it is killed or told to fail.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Annotated, Any

import httpx
import pytest
from fastapi import FastAPI
from structlog.testing import capture_logs
from structlog.typing import EventDict

from showcase.app import create_app
from showcase.audit.infrastructure.records import RECORDS, MongoStore
from showcase.documents import NoSuchDocument, Repository
from showcase.documents import wiring as documents
from showcase.documents.api import provided
from showcase.documents.infrastructure.mongo import Mongo
from showcase.documents.infrastructure.repository import MongoRepository
from showcase.kernel import trace
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal, Scope
from showcase.platform.logs import _with_trace
from showcase.platform.resources import Resources
from showcase.platform.web.app import build
from tests.contract.test_audit_store import RECORD, entry
from tests.documents_others import NOTES, Note, closes_late, connected, failing, killed, mongosh, unavailable_in_time
from tests.fakes import settings_of, until
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
SLOW_S = 0.2
TRACEPARENT = f"00-{'ab' * 16}-{'cd' * 8}-01"


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["mongo"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


async def everybody(token: str, *, sensitive: bool = False) -> Principal:
    return Principal(subject="staff/auditor", scopes=frozenset({Scope.AUDIT_READ}))


@asynccontextmanager
async def client_of(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    app.state.authenticate = everybody
    headers = {"authorization": "Bearer auditor", "traceparent": TRACEPARENT}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test", headers=headers) as client,
    ):
        yield client


# -- who is given what


async def test_two_apps_in_one_process_have_two_databases_and_see_nothing_of_each_other(stack: Stack) -> None:
    with stack.namespace() as one, stack.namespace() as two:
        async with AsyncExitStack() as open_:
            for names in (one, two):
                async with Resources(settings_of(names.env)) as resources:
                    await documents.apply(resources, RECORDS)
            async with Resources(settings_of(one.env)) as resources:
                await MongoStore(documents.mongo(resources)).add([entry(RECORD)])
            first, second = [
                await open_.enter_async_context(client_of(create_app(settings_of(names.env), ["audit"])))
                for names in (one, two)
            ]
            path = f"/audit/entities/{RECORD.entity_type}/{RECORD.entity_id}"
            statuses = [(await client.get(path)).status_code for client in (first, second, first, second)]
            repositories = [client._transport.app.state.documents(NOTES) for client in (first, second)]  # type: ignore[attr-defined]  # of an ASGITransport
            await repositories[0].insert(Note(id=1))
            with pytest.raises(NoSuchDocument):
                await repositories[1].get(1)

    assert statuses == [200, 404, 200, 404]


async def test_one_client_has_any_number_of_databases(names: Namespace) -> None:
    places = [None, f"{names.mongo_database}_second", f"{names.mongo_database}_third"]
    async with connected(names.mongo_url) as mongo:
        repositories = [MongoRepository(mongo, NOTES, database=place) for place in places]
        try:
            for place, notes in enumerate(repositories):
                await notes.insert(Note(id=1, words=str(place)))
            async with mongo.transaction():  # of all of them
                for notes in repositories:
                    await notes.patch(1, {"words": (await notes.get(1)).words + "!"})
            found = [(await notes.get(1)).words for notes in repositories]
        finally:
            for name in filter(None, places):
                await mongo.client.drop_database(name)

    assert found == ["0!", "1!", "2!"]
    assert mongo.watch._pool.connections["open"] == 0


async def test_a_route_is_given_the_repository_of_the_app_that_it_is_in(names: Namespace) -> None:
    made: list[object] = []

    def app_of(url: str) -> FastAPI:
        resources = Resources(settings_of({"SHOWCASE_MONGO_URL": url}))
        app = build(resources, [], everybody)
        app.state.documents = lambda collection: documents.repository(resources, collection)

        @app.get("/notes/{number}")
        async def note(number: int, notes: Annotated[Repository[Note], provided(NOTES)]) -> Note:
            made.append(notes)
            return await notes.get(number)

        return app

    second = names.mongo_url.replace(names.mongo_database, f"{names.mongo_database}_second")
    async with connected(names.mongo_url) as mongo:
        await MongoRepository(mongo, NOTES).insert(Note(id=1, words="here"))
    async with client_of(app_of(names.mongo_url)) as client, client_of(app_of(second)) as other:
        found, missing, unasked = (
            await client.get("/notes/1"),
            await client.get("/notes/2"),
            await other.get("/notes/1"),
        )

    assert found.json() == {"_id": 1, "version": 1, "words": "here"}
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems/no-such-document")
    assert unasked.status_code == 404
    assert all(isinstance(one, MongoRepository) for one in made)


# -- what operators see


def gauge(mongo: Mongo, name: str) -> dict[str, float]:
    (found,) = (one for one in mongo.watch.gauges() if one.name == f"showcase_mongo_{name}")
    return dict(found.values)


async def test_commands_failures_and_connections_are_counted(names: Namespace) -> None:
    async with connected(names.mongo_url) as mongo:
        notes = MongoRepository(mongo, NOTES)
        for number in range(3):
            await notes.insert(Note(id=number))
        await notes.get(1)
        with failing(names.mongo_url, ["find"], 1, errorCode=13), pytest.raises(Exception, match="failCommand"):
            await notes.get(1)
        with failing(names.mongo_url, ["find"], 1, blockConnection=True, blockTimeMS=300) as server:
            asking = asyncio.create_task(notes.get(1))
            await server.has_met()
            in_use = gauge(mongo, "connections")["in_use"]
            await asking

        assert in_use == 1
        assert gauge(mongo, "connections") == {"open": 1, "in_use": 0}
        answered = gauge(mongo, "commands_total")
        assert (answered["insert"], answered["find"]) == (3, 2)
        assert gauge(mongo, "command_failures_total") == {"find": 1}
        assert 0.3 <= gauge(mongo, "command_seconds_total")["find"] < 2
    assert gauge(mongo, "connections") == {"open": 0, "in_use": 0}


async def test_a_server_is_up_then_away_then_up_again(private: Stack, names: Namespace) -> None:
    async with connected(names.mongo_url) as mongo:
        await mongo.ping()
        seen = [up(mongo)]
        with capture_logs() as logs:
            with killed(private):
                with unavailable_in_time():
                    await mongo.ping()
                seen.append(up(mongo))

            async def is_back() -> bool:
                try:
                    await mongo.ping()
                except Unavailable:
                    return False
                return up(mongo) == 1

            await until(is_back)

    assert [*seen, up(mongo)] == [1, 0, 1]
    assert [one["event"] for one in logs if "server" in one] == ["mongo is away", "mongo is up again"]


def up(mongo: Mongo) -> float:
    (value,) = gauge(mongo, "server_up").values()
    return value


@pytest.mark.parametrize(
    ("how", "event"),
    [
        ({"blockConnection": True, "blockTimeMS": 300}, "mongo command is slow"),
        ({"errorCode": 11_602, "closeConnection": False}, "mongo command failed"),
    ],
)
async def test_a_command_that_is_slow_or_fails_is_logged_with_the_trace_of_its_request(
    names: Namespace, how: dict[str, Any], event: str
) -> None:
    settings = settings_of({"SHOWCASE_MONGO_URL": names.mongo_url}, mongo_slow_s=SLOW_S)
    resources = Resources(settings)
    app = build(resources, [], everybody)

    @app.get("/notes")
    async def notes() -> int:
        return await documents.repository(resources, NOTES).count()

    async with client_of(app) as client:
        await client.get("/notes")
        with capture_logs([_with_trace("app")]) as logs, failing(names.mongo_url, ["aggregate"], 1, **how):
            answer = await client.get("/notes")

    assert answer.status_code == 200  # what passes is asked for again
    assert [(one["command"], one["trace"]) for one in of(logs, event)] == [("aggregate", TRACEPARENT[3:35])]


def of(logs: Sequence[EventDict], event: str) -> list[EventDict]:
    return [one for one in logs if one["event"] == event]


async def test_each_command_carries_the_trace_to_the_server(names: Namespace) -> None:
    async with connected(names.mongo_url) as mongo:
        notes = MongoRepository(mongo, NOTES)
        await notes.insert(Note(id=0))
        with mongosh(names.mongo_url) as database:
            database.command("profile", 2)
            here = trace.enter(TRACEPARENT)
            await notes.insert(Note(id=1))
            await notes.get(1)
            await notes.find()
            await notes.patch(1, {"words": "x"})
            await notes.count()
            await notes.delete(1)
            database.command("profile", 0)
            profiled = list(database["system.profile"].find({"ns": f"{database.name}.notes"}))

    assert here[3:35] == TRACEPARENT[3:35]
    assert len(profiled) == 6
    assert {one["command"].get("comment") for one in profiled} == {here}
