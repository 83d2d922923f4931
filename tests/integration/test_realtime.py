"""WebSockets on a real redis-state: app processes, duplicates, a client that stalls, Redis killed under it."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
import uvicorn
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from showcase.kernel.errors import Unauthenticated
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.web.app import build
from showcase.realtime import wiring
from showcase.realtime.api import SUBPROTOCOL
from showcase.realtime.client import Refused, Told, follow
from tests.fakes import serving, settings_of, until
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
CHECKOUT = Path(__file__).resolve().parents[2]
OWNED = UUID("0199b2f0-0000-7000-8000-000000000001")


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["redis-state"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


def app_of(settings: Settings) -> FastAPI:
    """An app with nothing but real time; the tokens are `household` (number 7) and `staff`."""

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        if token == "staff":
            return Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_FOLLOW}))
        if token == "household":
            return Principal(subject="households/7", scopes=frozenset())
        raise Unauthenticated("no such token")

    async def owner_of(order_id: UUID) -> int | None:
        return 7 if order_id == OWNED else None

    resources = Resources(settings)
    return build(resources, [wiring.build(resources, owner_of)], authenticate)


def serve(port: int) -> None:
    """One app process."""
    uvicorn.run(app_of(settings_of(os.environ)), host="127.0.0.1", port=port, log_config=None)


@contextmanager
def process(env: Mapping[str, str]) -> Iterator[tuple["subprocess.Popen[bytes]", str]]:
    """An app in a process of its own, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    code = f"from tests.integration.test_realtime import serve; serve({port})"
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, **env}, cwd=CHECKOUT) as started:
        try:
            yield started, f"127.0.0.1:{port}"
        finally:
            started.kill()


async def ready(address: str) -> bool:
    async with httpx.AsyncClient(trust_env=False) as client:
        try:
            return (await client.get(f"http://{address}/health/ready")).status_code == 200
        except httpx.TransportError:
            return False


def event(order: UUID | None = None, household: int = 7, text: str = "") -> Event:
    """An order's event."""
    data = {"household_id": household, "text": text}
    return Event(type="shop.order.paid.v1", source="/shop", subject=f"orders/{order or uuid4()}", data=data)


async def take(events: AsyncIterator[Told], count: int) -> list[Told]:
    async with asyncio.timeout(20):
        return [await anext(events) for _ in range(count)]


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator["Publish"]:
    async with Resources(settings) as resources:
        yield Publish(resources)


class Publish:
    """The side of the worker that tells events."""

    def __init__(self, resources: Resources) -> None:
        self._publish = wiring.publisher(resources)

    async def __call__(self, *events: Event) -> None:
        for one in events:
            await self._publish(one)


async def test_two_processes_tell_every_event_once_and_in_order_though_each_is_published_twice(
    names: Namespace,
) -> None:
    with process(names.env) as (_, one), process(names.env) as (_, other):
        for address in (one, other):
            await until(lambda: ready(address))  # noqa: B023 - awaited in this turn
        async with (
            publishing(settings_of(names.env)) as publish,
            follow(f"ws://{one}/ws", "staff", ["orders"]) as first,
            follow(f"ws://{other}/ws", "staff", ["orders"]) as second,
            follow(f"ws://{other}/ws", "household", ["households/7", f"orders/{OWNED}"]) as own,
        ):
            published = [event(household=7 + number % 2) for number in range(300)]
            await asyncio.gather(publish(*published), publish(*published))
            last = event(OWNED)
            await publish(last)

            assert [told.event for told in await take(first, 301)] == [told.event for told in await take(second, 301)]
            mine = await take(own, 151)
            assert {told.event.id for told in mine} == {one.id for one in (*published[::2], last)}
            assert [told.topic for told in mine[-1:]] == [f"orders/{OWNED}"]


async def test_event_arrives_as_it_was_published(names: Namespace) -> None:
    settings = settings_of(names.env)
    async with (
        serving(app_of(settings)) as address,
        publishing(settings) as publish,
        follow(f"ws://{address}/ws", "staff", ["orders"]) as events,
    ):
        happened = event(text="grün ✓")
        await publish(happened)

        assert [told.event for told in await take(events, 1)] == [happened]


@pytest.mark.parametrize("topic", ["orders", "households/8", "orders/0199a5c0-0000-7000-8000-000000000001"])
async def test_topic_of_someone_else_is_refused(names: Namespace, topic: str) -> None:
    async with serving(app_of(settings_of(names.env))) as address:
        with pytest.raises(Refused) as refused:
            async with follow(f"ws://{address}/ws", "household", [topic]):
                pass

    assert refused.value.problem["type"] == "/problems/not-your-topic"


async def test_events_of_before_are_not_told(names: Namespace) -> None:
    settings = settings_of(names.env)
    async with publishing(settings) as publish:
        await publish(event(), event())
        async with (
            serving(app_of(settings)) as address,
            follow(f"ws://{address}/ws", "staff", ["orders"]) as events,
        ):
            now = event()
            await publish(now)

            assert [told.event.id for told in await take(events, 1)] == [now.id]


async def test_client_that_stalls_is_closed_and_delays_no_other(names: Namespace) -> None:
    settings = settings_of(names.env)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(app_of(settings)))
        publish = await stack.enter_async_context(publishing(settings))
        quick = await stack.enter_async_context(follow(f"ws://{address}/ws", "staff", ["orders"]))
        stalled = await stack.enter_async_context(
            connect(f"ws://{address}/ws", subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, proxy=None)
        )
        await stalled.send(json.dumps({"type": "hello", "token": "staff"}))
        await stalled.send(json.dumps({"type": "subscribe", "topic": "orders"}))
        assert json.loads(await stalled.recv())["type"] == "welcome"
        assert json.loads(await stalled.recv())["type"] == "subscribed"
        stalled.transport.pause_reading()
        total = 1_500
        text = "x" * 20_000  # 30 MB in all: more than the buffers on the way take

        async def publish_all() -> None:
            for _ in range(total):
                await publish(event(text=text))

        publishing_all = asyncio.create_task(publish_all())
        async with asyncio.timeout(60):
            for _ in range(total):
                await anext(quick)
        await publishing_all
        stalled.transport.resume_reading()

        read = 0
        with suppress(ConnectionClosedError):
            async with asyncio.timeout(30):
                async for _ in stalled:
                    read += 1
        assert read < total
        assert stalled.close_code == 1013
        assert "256" in (stalled.close_reason or "")


async def test_sockets_live_through_redis_killed_and_started_again(private: Stack, names: Namespace) -> None:
    settings = settings_of(names.env)
    async with (
        serving(app_of(settings)) as address,
        publishing(settings) as publish,
        follow(f"ws://{address}/ws", "staff", ["orders"]) as events,
    ):
        before, after = event(), event()
        await publish(before)
        await take(events, 1)
        await until(lambda: written_down(settings))
        private.server("redis-state").kill()
        try:
            await until(lambda: unready(address))
        finally:
            private.server("redis-state").restart()
        await until(lambda: ready(address))
        await publish(before, after)

        assert [told.event.id for told in await take(events, 1)] == [after.id]


async def written_down(settings: Settings) -> bool:
    """Whether Redis has no more in mind than in its file: it may put writing off while the disk is slow."""
    async with Resources(settings) as resources:
        info = await resources.redis_state.info("persistence")
    return int(info["aof_buffer_length"]) == 0 and int(info["aof_pending_bio_fsync"]) == 0


async def unready(address: str) -> bool:
    return not await ready(address)


async def test_app_starts_without_redis_and_serves_when_it_comes(private: Stack, names: Namespace) -> None:
    settings = settings_of(names.env)
    private.server("redis-state").pause()
    try:
        async with serving(app_of(settings)) as address:
            assert not await ready(address)
            with pytest.raises(Refused) as refused:
                async with follow(f"ws://{address}/ws", "staff", ["orders"]):
                    pass
            assert refused.value.problem["status"] == 503
            private.server("redis-state").resume()

            async def followed() -> bool:
                try:
                    async with follow(f"ws://{address}/ws", "staff", ["orders"]):
                        return True
                except Refused:
                    return False

            await until(followed)
    finally:
        private.server("redis-state").resume()


async def test_reader_that_breaks_closes_its_sockets_and_shows(
    names: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(names.env)

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    async with serving(app_of(settings)) as address, publishing(settings) as publish:
        async with follow(f"ws://{address}/ws", "staff", ["orders"]) as events:
            assert await ready(address)
            monkeypatch.setattr("showcase.realtime.application.topics_of", broken)
            await publish(event())

            with pytest.raises(ConnectionClosedError) as closed:
                await take(events, 1)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert not await ready(address)


async def test_process_that_is_told_to_stop_closes_its_sockets_with_1012_and_ends(names: Namespace) -> None:
    with process(names.env) as (started, address):
        await until(lambda: ready(address))
        async with follow(f"ws://{address}/ws", "staff", ["orders"]) as events:
            started.terminate()

            with pytest.raises(ConnectionClosedError) as closed:
                await take(events, 1)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert await asyncio.to_thread(started.wait, 15) in (0, -15)
