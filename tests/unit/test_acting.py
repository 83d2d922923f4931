"""Who acts: as it is said, and as far as it reaches; what a request says of it, and a consumer."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Annotated
from uuid import UUID

import httpx
import pytest
from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from showcase.kernel import acting as kernel
from showcase.kernel.acting import LIMITS, Acting, acting, current, identify
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.messaging.application.handlers import Anything, Handlers
from showcase.messaging.domain import EVENTS, Message, Queue, Route, Topology
from showcase.messaging.worker.consumer import consume
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from showcase.platform.web.callers import caller, require
from tests.fakes import settings_of
from tests.fakes_broker import MemoryBroker

pytestmark = pytest.mark.anyio
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
SESSION = UUID("0199b2f0-0000-7000-8000-000000000001")
CALLER = Principal(subject="households/7", scopes=frozenset({Scope.ORDERS_WRITE}), session_id=SESSION)
BEARER = {"Authorization": "Bearer token"}


# -- as it is said


def test_what_is_known_is_compact_json_and_the_rest_is_left_out() -> None:
    assert Acting(actor="households/7", reason="Rückgabe").as_json() == (
        '{"actor":"households/7","reason":"R\\u00fcckgabe"}'
    )


def test_each_value_is_cut_to_its_limit() -> None:
    said = json.loads(Acting(**dict.fromkeys(LIMITS, "x" * 10_000)).as_json())
    assert {name: len(value) for name, value in said.items()} == LIMITS
    assert (LIMITS["actor"], LIMITS["reason"]) == (200, 500)


@pytest.mark.parametrize("text", ["a\0b", "a\ud800b"])
def test_nothing_is_said_that_postgresql_cannot_hold(text: str) -> None:
    said = json.loads(Acting(actor="x", reason=text).as_json())["reason"]
    assert said.startswith("a")
    assert said.endswith("b")
    assert "\0" not in said
    said.encode()


# -- as far as it reaches


async def test_each_task_knows_who_acts_in_it_and_nobody_acts_after_the_block() -> None:
    barrier = asyncio.Barrier(2)

    async def one(actor: str) -> str | None:
        with acting(Acting(actor=actor)):
            await barrier.wait()
            here = current()
            await barrier.wait()
        return here.actor if here and current() is None else None

    async with asyncio.timeout(5):
        assert list(await asyncio.gather(one("a"), one("b"))) == ["a", "b"]


def test_who_acted_before_acts_again_after_an_error() -> None:
    with acting(Acting(actor="outer")):
        with pytest.raises(ValueError, match="no"), acting(Acting(actor="inner")):
            raise ValueError("no")
        assert current() == Acting(actor="outer")


def test_whoever_is_identified_takes_the_place_of_the_anonymous_and_of_nobody_else() -> None:
    identify("households/7", "s")
    assert current() is None
    with acting(Acting(actor=kernel.ANONYMOUS, request_id="r")):
        identify("households/7", "s")
        assert current() == Acting(actor="households/7", session_id="s", request_id="r")
    assert current() is None


# -- a request


@asynccontextmanager
async def client_of(seen: list[Acting | None]) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that remembers who acted, as each of its endpoints found it."""
    router = APIRouter()

    async def dependency(request: Request) -> Principal:
        return await caller(request)

    @router.api_route("/orders", methods=["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE"])
    async def orders(caller: Annotated[Principal, require(Scope.ORDERS_WRITE)]) -> None:
        seen.append(current())

    @router.post("/thread")
    def thread(caller: Annotated[Principal, Depends(dependency)]) -> None:
        seen.append(current())

    @router.post("/other-thread")
    async def other_thread(caller: Annotated[Principal, Depends(dependency)]) -> None:
        seen.append(await run_in_threadpool(current))

    @router.post("/open")
    async def open_() -> None:
        seen.append(current())

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        return CALLER

    app = build(Resources(settings_of({})), [Slice(name="small", routers=(router,))], authenticate)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_the_caller_of_an_unsafe_request_acts(method: str) -> None:
    seen: list[Acting | None] = []
    async with client_of(seen) as client:
        answer = await client.request(
            method, "/orders?x=1", headers=BEARER | {"X-Request-Id": "12345678", "traceparent": PARENT}
        )
    assert seen == [
        Acting(
            actor="households/7",
            session_id=str(SESSION),
            request_id="12345678",
            reason=f"{method} /orders",
            traceparent=answer.headers["traceparent"],
        )
    ]
    assert answer.headers["traceparent"][3:35] == PARENT[3:35]
    assert current() is None


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
async def test_whoever_only_looks_does_not_act(method: str) -> None:
    seen: list[Acting | None] = []
    async with client_of(seen) as client:
        await client.request(method, "/orders", headers=BEARER)
    assert seen == [None]


@pytest.mark.parametrize("path", ["/thread", "/other-thread"])
async def test_who_acts_is_known_in_threads_too(path: str) -> None:
    seen: list[Acting | None] = []
    async with client_of(seen) as client:
        await client.post(path, headers=BEARER)
    assert [one and one.actor for one in seen] == ["households/7"]


async def test_an_unsafe_request_of_somebody_unknown_is_anonymous() -> None:
    seen: list[Acting | None] = []
    async with client_of(seen) as client:
        await client.post("/open")
    assert [one and (one.actor, one.session_id) for one in seen] == [("anonymous", "")]


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (b"asked for by phone", "asked for by phone"),
        ("Rückgabe".encode(), "Rückgabe"),
        (b"x" * 500, "x" * 500),
        (b"x" * 501, "POST /orders"),
        (b"", "POST /orders"),
        (b"\xff\xfe", "POST /orders"),
        ("turned\u202eround".encode(), "POST /orders"),
        (b"a\x1b[2Jb", "POST /orders"),
    ],
)
async def test_a_reason_is_taken_if_it_can_be_shown(given: bytes, reason: str) -> None:
    seen: list[Acting | None] = []
    async with client_of(seen) as client:
        headers = [(b"Authorization", b"Bearer token"), (b"X-Audit-Reason", given)]
        await client.post("/orders", headers=headers)
    assert [one and one.reason for one in seen] == [reason]


# -- a consumer


async def test_a_consumer_acts_for_the_request_that_an_event_came_of() -> None:
    topology = Topology(queues=[Queue(name="q", types=("t.#",))], retries=())
    broker, stop = MemoryBroker(topology), asyncio.Event()
    seen: list[Acting | None] = []
    parts: list[Acting | None] = []

    async def handle(event: Event, data: Anything) -> None:
        seen.append(current())
        if len(seen) == 2:
            stop.set()

    @asynccontextmanager
    async def savepoint() -> AsyncIterator[None]:
        parts.append(current())
        yield

    handlers = Handlers()
    handlers.on("t.v1", Anything, handle)
    told = [
        Event(type="t.v1", source="/t", subject="t/1", data={}, traceparent=PARENT, correlation_id=f"cause-{number}")
        for number in range(2)
    ]
    await send(broker, told)
    async with asyncio.timeout(5):
        await consume(broker, "q", handlers, stop, topology=topology, savepoint=savepoint, prefetch=9, batch=9)
    assert parts == seen
    assert [one and (one.actor, one.request_id, one.reason) for one in seen] == [
        ("services/q", event.correlation_id, f"t.v1 {event.id}") for event in told
    ]
    assert all(one and one.traceparent[3:35] == PARENT[3:35] for one in seen)


async def send(broker: MemoryBroker, events: Sequence[Event]) -> None:
    await broker.publish(
        [Message(attributes=one.attributes(), body=one.body(), route=Route(EVENTS, one.type)) for one in events]
    )
