"""WebSockets on a real redis-state: app processes, duplicates, a client that stalls, Redis killed under it."""

import asyncio
import json
import os
import random
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError

from showcase.kernel.errors import Unauthenticated, Unavailable
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.web.app import build
from showcase.platform.web.server import server
from showcase.realtime import wiring
from showcase.realtime.client import Following, Gap, Refused, Told, follow, opened
from tests.fakes import serving, settings_of, until
from tests.fakes_realtime import lose_end
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
            return Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_FOLLOW, Scope.SUPPORT}))
        if token == "household":
            return Principal(subject="households/7", scopes=frozenset())
        raise Unauthenticated("no such token")

    async def owner_of(order_id: UUID) -> int | None:
        return 7 if order_id == OWNED else None

    async def has_ended(session_id: UUID, *, sensitive: bool) -> bool:
        return False

    resources = Resources(settings)
    return build(resources, [wiring.build(resources, owner_of, has_ended)], authenticate)


def serve(port: int) -> None:
    """One app process."""
    settings = settings_of(os.environ)
    serving, listening = server(app_of(settings), settings, host="127.0.0.1", port=port)
    serving.run(sockets=[listening])


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


async def take(events: Following, count: int) -> list[Told]:
    async with asyncio.timeout(20):
        return [told_in(await anext(events)) for _ in range(count)]


def told_in(one: Told | Gap) -> Told:
    assert isinstance(one, Told), one
    return one


@asynccontextmanager
async def publishing(settings: Settings) -> AsyncIterator["Publish"]:
    async with Resources(settings) as resources:
        yield Publish(resources)


class Publish:
    """The side of the worker that tells events: again, when Redis does not answer in time."""

    def __init__(self, resources: Resources) -> None:
        self._publish = wiring.publisher(resources)

    async def __call__(self, *events: Event) -> None:
        for one in events:
            await until(lambda: self._told(one))  # noqa: B023 - awaited in this turn

    async def _told(self, one: Event) -> bool:
        try:
            await self._publish(one)
        except Unavailable:
            return False
        return True


async def test_two_processes_tell_every_event_once_and_in_order_though_each_is_published_twice(
    names: Namespace,
) -> None:
    with process(names.env) as (_, one), process(names.env) as (_, other):
        for address in (one, other):
            await until(lambda: ready(address))  # noqa: B023 - awaited in this turn
        async with (
            publishing(settings_of(names.env)) as publish,
            follow(f"http://{one}", "staff", ["orders"]) as first,
            follow(f"http://{other}", "staff", ["orders"]) as second,
            follow(f"http://{other}", "household", ["households/7", f"orders/{OWNED}"]) as own,
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
        follow(f"http://{address}", "staff", ["orders"]) as events,
    ):
        happened = event(text="grün ✓")
        await publish(happened)

        assert [told.event for told in await take(events, 1)] == [happened]


@pytest.mark.parametrize("topic", ["orders", "households/8", "orders/0199a5c0-0000-7000-8000-000000000001"])
async def test_topic_of_someone_else_is_refused(names: Namespace, topic: str) -> None:
    async with serving(app_of(settings_of(names.env))) as address:
        with pytest.raises(Refused) as refused:
            async with follow(f"http://{address}", "household", [topic]):
                pass

    assert refused.value.problem["type"] == "/problems/not-your-topic"


async def test_events_of_before_are_not_told(names: Namespace) -> None:
    settings = settings_of(names.env)
    async with publishing(settings) as publish:
        await publish(event(), event())
        async with (
            serving(app_of(settings)) as address,
            follow(f"http://{address}", "staff", ["orders"]) as events,
        ):
            now = event()
            await publish(now)

            assert [told.event.id for told in await take(events, 1)] == [now.id]


async def test_client_that_stalls_is_closed_and_delays_no_other(
    names: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("showcase.realtime.api.socket.CLOSE_WITHIN_S", 60.0)  # it reads again, and be it late
    settings = settings_of(names.env)
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(app_of(settings)))
        publish = await stack.enter_async_context(publishing(settings))
        quick = await stack.enter_async_context(follow(f"http://{address}", "staff", ["orders"]))
        stalled = await subscribed(stack, address, "orders")
        stalled.transport.pause_reading()
        total = 1_500
        text = "x" * 20_000  # 30 MB in all: more than the buffers on the way take

        async def publish_all() -> None:
            for _ in range(total):
                await publish(event(text=text))

        async def take_all() -> None:
            for _ in range(total):
                told_in(await anext(quick))

        async with asyncio.timeout(60):
            await asyncio.gather(publish_all(), take_all())
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
        follow(f"http://{address}", "staff", ["orders"]) as events,
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


async def subscribed(stack: AsyncExitStack, address: str, *topics: str) -> ClientConnection:
    """A connection of nobody's client, which follows some topics."""
    socket = await stack.enter_async_context(opened(f"http://{address}", "staff"))
    await socket.send(json.dumps({"type": "subscribe", "topics": topics}))
    assert json.loads(await socket.recv())["type"] == "subscribed"
    return socket


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
            async with AsyncExitStack() as stack:
                with pytest.raises(ConnectionResetError, match="in time"):
                    await stack.enter_async_context(opened(f"http://{address}", "staff"))
                coming = asyncio.create_task(
                    stack.enter_async_context(follow(f"http://{address}", "staff", ["orders"]))
                )
                private.server("redis-state").resume()
                await asyncio.wait_for(coming, 20)
    finally:
        private.server("redis-state").resume()


async def test_reader_that_breaks_closes_its_sockets_and_shows(
    names: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(names.env)

    def broken(*arguments: object) -> None:
        raise RuntimeError("a bug")

    async with serving(app_of(settings)) as address, publishing(settings) as publish:
        async with follow(f"http://{address}", "staff", ["orders"], reconnect=False) as events:
            assert await ready(address)
            monkeypatch.setattr("showcase.realtime.application.recent.topics_of", broken)
            await publish(event())

            with pytest.raises(ConnectionClosedError) as closed:
                await take(events, 1)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert not await ready(address)


async def test_process_that_is_told_to_stop_closes_its_sockets_with_1012_and_ends(names: Namespace) -> None:
    with process(names.env) as (started, address):
        await until(lambda: ready(address))
        async with follow(f"http://{address}", "staff", ["orders"], reconnect=False) as events:
            started.terminate()

            with pytest.raises(ConnectionClosedError) as closed:
                await take(events, 1)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        assert await asyncio.to_thread(started.wait, 15) in (0, -15)


# -- coming back


@contextmanager
def processes(env: Mapping[str, str], count: int) -> Iterator[list[tuple["subprocess.Popen[bytes]", str]]]:
    with ExitStack() as stack:
        yield [stack.enter_context(process(env)) for _ in range(count)]


async def test_process_that_is_killed_costs_its_clients_nothing(names: Namespace) -> None:
    with processes(names.env, 2) as ((first, one), (_, other)):
        for address in (one, other):
            await until(lambda: ready(address))  # noqa: B023 - awaited in this turn
        async with (
            publishing(settings_of(names.env)) as publish,
            follow([f"http://{one}", f"http://{other}"], "staff", ["orders"]) as events,
        ):
            happened = [event() for _ in range(600)]
            await publish(*happened[:200])
            taken = await take(events, 100)
            first.kill()
            await publish(*happened[200:])
            taken += await take(events, 500)

        assert [told.event.id for told in taken] == [one.id for one in happened]
        assert (events.connections, events.url) == (2, f"http://{other}")


async def test_process_that_stops_sends_what_waits_and_its_clients_go_on_in_another(names: Namespace) -> None:
    with processes(names.env, 2) as ((first, one), (_, other)):
        for address in (one, other):
            await until(lambda: ready(address))  # noqa: B023 - awaited in this turn
        async with (
            publishing(settings_of(names.env)) as publish,
            AsyncExitStack() as stack,
        ):
            urls = [f"http://{one}", f"http://{other}"]
            clients = [await stack.enter_async_context(follow(urls, "staff", ["orders"])) for _ in range(20)]
            happened = [event() for _ in range(300)]
            publishing_all = asyncio.create_task(publish(*happened))
            await take(clients[0], 50)
            first.terminate()
            await publishing_all
            missing = [300] * len(clients)
            missing[0] -= 50
            told = await asyncio.gather(*map(take, clients, missing))

            ids = [one.id for one in happened]
            assert [[told.event.id for told in mine] for mine in told] == [ids[50:], *([ids] * 19)]
            assert await asyncio.to_thread(first.wait, 15) in (0, -15)


async def test_client_that_knows_its_last_event_goes_on_from_it_anywhere(names: Namespace) -> None:
    settings = settings_of(names.env)
    async with serving(app_of(settings)) as one, serving(app_of(settings)) as other, publishing(settings) as publish:
        happened = [event() for _ in range(30)]
        async with follow(f"http://{one}", "staff", ["orders"]) as events:
            await publish(*happened[:10])
            await take(events, 7)
        await publish(*happened[10:])
        async with follow(f"http://{other}", "staff", ["orders"], after=events.last) as events:
            assert [told.event.id for told in await take(events, 23)] == [one.id for one in happened[7:]]


async def test_client_that_was_away_for_too_long_is_told_so(names: Namespace) -> None:
    settings = settings_of(names.env, stream_length=100)
    async with serving(app_of(settings)) as address, publishing(settings) as publish:
        async with follow(f"http://{address}", "staff", ["orders"]) as events:
            await publish(event())
            await take(events, 1)
        await publish(*(event() for _ in range(500)))
        async with (  # a process that was there all the time still knows
            serving(app_of(settings)) as young,
            follow(f"http://{young}", "staff", ["orders"], after=events.last) as events,
        ):
            gap = await asyncio.wait_for(anext(events), 10)
            assert isinstance(gap, Gap)
            assert gap.count is None
            after = event()
            await publish(after)
            assert [told.event.id for told in await take(events, 1)] == [after.id]


async def test_stream_that_comes_back_without_its_end_is_told_to_all_and_to_those_who_come_later(
    private: Stack, names: Namespace
) -> None:
    settings = settings_of(names.env)
    async with (
        serving(app_of(settings)) as address,
        publishing(settings) as publish,
        Resources(settings) as resources,
        follow(f"http://{address}", "staff", ["orders"]) as stays,
    ):
        async with follow(f"http://{address}", "staff", ["orders"]) as away:
            await publish(event())
            await take(away, 1)
        await publish(*(event() for _ in range(5)))
        await take(stays, 6)
        await lose_end(resources.redis_state, f"{settings.redis_prefix}events", 3)

        assert isinstance(await asyncio.wait_for(anext(stays), 10), Gap)
        async with follow(f"http://{address}", "staff", ["orders"], after=away.last) as comes_back:
            assert isinstance(await asyncio.wait_for(anext(comes_back), 10), Gap)
            after = event()
            await publish(after)
            for events in (stays, comes_back):
                assert [told.event.id for told in await take(events, 1)] == [after.id]


async def test_paused_redis_delays_events_and_loses_none(private: Stack, names: Namespace) -> None:
    settings = settings_of(names.env)
    async with (
        serving(app_of(settings)) as address,
        publishing(settings) as publish,
        follow(f"http://{address}", "staff", ["orders"]) as events,
    ):
        happened = [event() for _ in range(40)]
        await publish(*happened[:20])
        private.server("redis-state").pause()
        try:
            await until(lambda: unready(address))
        finally:
            private.server("redis-state").resume()
        await until(lambda: ready(address))
        await publish(*happened)

        assert [told.event.id for told in await take(events, 40)] == [one.id for one in happened]


@pytest.mark.timeout(180)
async def test_of_5000_events_100_clients_who_come_and_go_miss_none_and_get_none_twice_or_out_of_order(
    names: Namespace,
) -> None:
    total, people = 5_000, 100
    chance = random.Random(7)  # noqa: S311 - when people come and go is no secret
    with processes(names.env, 2) as started:
        urls = [f"http://{address}" for _, address in started]
        for _, address in started:
            await until(lambda: ready(address))  # noqa: B023 - awaited in this turn
        happened = [event(household=number % 10 + 1) for number in range(total)]
        ids = [[one.id for one in happened[number::10]] for number in range(10)]

        async def person(number: int) -> list[str]:
            """Follows one household, and breaks off ten times on the way: at once, or not."""
            mine = ids[number % 10]
            breaks = sorted(chance.sample(range(1, len(mine)), 10))
            came: list[str] = []
            last = None
            for upto in (*breaks, len(mine)):
                if last is None:
                    events = begun[number]
                else:
                    events = follow(chance.sample(urls, 2), "staff", [f"households/{number % 10 + 1}"], after=last)
                    await events.__aenter__()
                while len(came) < upto:
                    came.append(told_in(await anext(events)).event.id)
                last = events.last
                await events.__aexit__(None, None, None)
            return came

        begun = [follow(chance.sample(urls, 2), "staff", [f"households/{n % 10 + 1}"]) for n in range(people)]
        async with publishing(settings_of(names.env)) as publish:
            await asyncio.gather(*(events.__aenter__() for events in begun))
            async with asyncio.timeout(150):
                *came, _ = await asyncio.gather(*map(person, range(people)), publish(*happened))

    assert came == [ids[number % 10] for number in range(people)]
