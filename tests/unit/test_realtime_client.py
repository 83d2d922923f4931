"""The client in Python: comes back and goes on, tells gaps, ends when coming back is no use, and is told no faster than
it takes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from uuid import UUID

import httpx
import pytest
from fastapi import FastAPI, Response
from websockets.exceptions import ConnectionClosedError

from showcase.kernel.errors import Unauthenticated
from showcase.kernel.principal import Principal
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from showcase.realtime import client
from showcase.realtime.api import Door, socket_route, ticket_routes
from showcase.realtime.application.clients import QUEUE_LENGTH
from showcase.realtime.application.hub import Hub
from showcase.realtime.client import Following, Gap, Refused, Told, follow
from tests.fakes import serving, settings_of, until
from tests.fakes_realtime import MemoryStream, MemoryTickets
from tests.unit.test_realtime import HOUSEHOLD, STAFF, event, owner_of, running

pytestmark = pytest.mark.anyio


@dataclass
class World:
    """A server of the slice, over a stream in memory; its tokens are `household` and `staff`."""

    url: str
    hub: Hub
    stream: MemoryStream
    asked: list[str]

    async def publish(self, count: int) -> list[str]:
        """The ids of so many new events."""
        happened = [event() for _ in range(count)]
        for one in happened:
            await self.stream.publish(one)
        return [one.id for one in happened]

    def close_all(self, code: int = 1012) -> None:
        for one in self.hub._clients:
            one.close(code, "come back")


@asynccontextmanager
async def world(stream: MemoryStream | None = None) -> AsyncIterator[World]:
    stream = stream or MemoryStream()
    known, asked = {"household": HOUSEHOLD, "staff": STAFF}, list[str]()

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        asked.append(token)
        if token not in known:
            raise Unauthenticated("no such token")
        return known[token]

    async def has_ended(session_id: UUID, *, sensitive: bool) -> bool:
        return False

    hub, tickets = Hub(stream, owner_of), MemoryTickets()
    routes = (ticket_routes(tickets, 30.0), socket_route(hub, Door(tickets=tickets, has_ended=has_ended)))
    app = build(Resources(settings_of({})), [Slice(name="realtime", routers=routes)], authenticate)
    async with running(hub), serving(app) as address:
        yield World(f"http://{address}", hub, stream, asked)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The longest that each pause could have been; none takes any time."""
    longest: list[float] = []

    def uniform(least: float, most: float) -> float:
        longest.append(most)
        assert least == 0
        return 0.001

    monkeypatch.setattr("showcase.realtime.client.random.uniform", uniform)
    return longest


async def take(events: Following, count: int) -> list[Told | Gap]:
    async with asyncio.timeout(10):
        return [await anext(events) for _ in range(count)]


async def ids(events: Following, count: int) -> list[str]:
    return [one.event.id for one in await take(events, count) if isinstance(one, Told)]


def holds(condition: Callable[[], bool]) -> "Callable[[], asyncio.Future[bool]]":
    """For `until`, which awaits."""

    async def now() -> bool:
        return condition()

    return lambda: asyncio.ensure_future(now())


# -- coming back


@pytest.mark.parametrize("code", [1001, 1008, 1011, 1012, 1013])
async def test_client_comes_back_and_is_told_what_happened_meanwhile(code: int) -> None:
    async with world() as server, follow(server.url, "staff", ["orders"]) as events:
        happened = await server.publish(5)
        came = await ids(events, 3)
        server.close_all(code)
        happened += await server.publish(5)
        came += await ids(events, 7)
        await until(holds(lambda: events.connections == 2))

    assert came == happened


async def test_client_goes_on_in_another_process_where_it_was_in_the_first() -> None:
    stream = MemoryStream()
    async with (
        world(stream) as one,
        world(stream) as other,
        follow([one.url, other.url], "staff", ["orders"]) as events,
    ):
        happened = await one.publish(2)
        came = await ids(events, 2)
        one.close_all()
        await until(holds(lambda: events.connections == 2))
        happened += await other.publish(2)
        came += await ids(events, 2)

        assert (came, events.url) == (happened, other.url)


async def test_client_that_has_heard_nothing_yet_misses_nothing_either() -> None:
    async with world() as server, follow(server.url, "staff", ["orders"]) as events:
        server.close_all()
        happened = await server.publish(2)

        assert await ids(events, 2) == happened


async def test_client_begins_after_an_event_that_it_is_given() -> None:
    async with world() as server:
        async with follow(server.url, "staff", ["orders"]) as events:
            happened = await server.publish(5)
            await ids(events, 2)
        async with follow(server.url, "staff", ["orders"], after=events.last) as events:
            assert await ids(events, 3) == happened[2:]


@pytest.mark.parametrize("window", [64, None])
async def test_client_that_missed_more_than_it_can_hold_begins_all_the_same(
    window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "BUFFER", 64)
    async with world() as server:
        begin = str(await server.stream.end())
        happened = await server.publish(150)  # no more than the server has places for: it waits for nobody either
        async with asyncio.timeout(10), follow(server.url, "staff", ["orders"], after=begin, window=window) as events:
            assert await ids(events, 150) == happened


async def test_token_is_fetched_anew_for_each_connection() -> None:
    given = iter(("staff", "household"))

    async def fresh() -> str:
        return next(given)

    async with world() as server, follow(server.url, fresh, ["households/7"]) as events:
        server.close_all()
        await until(holds(lambda: events.connections == 2))

        assert server.asked == ["staff", "household"]


async def test_leaving_closes_the_connection() -> None:
    async with world() as server:
        async with follow(server.url, "staff", ["orders"]):
            assert server.hub.clients == 1

        await until(holds(lambda: server.hub.clients == 0))


# -- gaps


async def test_client_that_was_away_for_too_long_is_told_a_gap_and_goes_on() -> None:
    async with world(MemoryStream(length=10)) as server:
        async with follow(server.url, "staff", ["orders"]) as events:
            await server.publish(1)
            await ids(events, 1)
        await server.publish(50)
        async with follow(server.url, "staff", ["orders"], after=events.last) as events:
            (gap,) = await take(events, 1)
            assert isinstance(gap, Gap)
            assert (gap.topics, gap.count, gap.at) == (("orders",), None, str(server.stream.kept[-1].place))
            assert events.last == gap.at, "who goes on from here is told no gap again"
            happened = await server.publish(1)
            assert await ids(events, 1) == happened


async def test_client_is_told_how_many_were_dropped_and_goes_on_from_its_last_event() -> None:
    async with world() as server, follow(server.url, "staff", ["ops"], window=1) as events:
        happened = await server.publish(1)
        await until(holds(lambda: server.hub.counts["told"] == 1 and server.hub.waiting == 0))
        happened += await server.publish(QUEUE_LENGTH + 10)
        await until(holds(lambda: server.hub.counts["told"] == len(happened)))

        first, gap, *rest = await take(events, 2 + QUEUE_LENGTH)

        assert isinstance(first, Told)
        assert gap == Gap(topics=("ops",), why="too slow", count=10)
        assert [one.event.id for one in rest if isinstance(one, Told)] == happened[11:]


# -- backpressure


async def test_client_is_told_no_more_than_its_window_before_it_takes_some() -> None:
    async with world() as server, follow(server.url, "staff", ["orders"], window=2) as events:
        happened = await server.publish(10)
        await until(holds(lambda: server.hub.counts["told"] == 10 and server.hub.waiting == 8))

        came = await ids(events, 1)
        assert server.hub.waiting == 8, "what was taken is handled when the next one is asked for"
        came += await ids(events, 1)
        await until(holds(lambda: server.hub.waiting == 7))

        assert came + await ids(events, 8) == happened


async def test_client_without_a_window_takes_no_more_than_it_can_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "BUFFER", 5)
    async with world() as server, follow(server.url, "staff", ["orders"], window=None) as events:
        happened = await server.publish(50)
        await until(holds(lambda: server.hub.counts["told"] == 50 and server.hub.waiting == 0))
        await until(holds(lambda: len(events._came) == 5))

        assert await ids(events, 50) == happened


# -- when it ends, and when it does not


async def test_topic_of_someone_else_ends_it() -> None:
    async with world() as server:
        with pytest.raises(Refused) as refused:
            async with asyncio.timeout(10), follow(server.url, "household", ["orders"]):
                pass

    assert (refused.value.problem["status"], len(server.asked)) == (403, 1)


async def test_token_that_is_none_ends_it() -> None:
    async with world() as server:
        with pytest.raises(Refused) as refused:
            async with asyncio.timeout(10), follow(server.url, "stolen", ["orders"]):
                pass

    assert (refused.value.problem["status"], server.asked) == (401, ["stolen"])


async def test_token_that_is_none_any_more_ends_it_for_whoever_iterates() -> None:
    given = iter(("staff", "expired"))

    async def token() -> str:
        return next(given)

    async with world() as server, follow(server.url, token, ["orders"]) as events:
        happened = await server.publish(2)
        await until(holds(lambda: len(events._came) == 2))
        server.close_all()

        assert await ids(events, 2) == happened, "what has come is told first"
        with pytest.raises(Refused) as refused:
            await take(events, 1)

    assert refused.value.problem["status"] == 401


async def test_server_that_is_away_is_tried_again_after_growing_pauses(pauses: list[float]) -> None:
    async with world() as gone:
        pass
    entering = asyncio.create_task(follow(gone.url, "staff", ["orders"]).__aenter__())
    await until(holds(lambda: len(pauses) >= 7))
    entering.cancel()
    await asyncio.gather(entering, return_exceptions=True)

    assert pauses[:7] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


async def test_pauses_begin_anew_once_it_was_connected(pauses: list[float]) -> None:
    async with world() as gone:
        pass
    async with world() as server, follow([gone.url, gone.url, server.url], "staff", ["orders"]) as events:
        server.close_all()
        await until(holds(lambda: events.connections == 2))

    assert pauses == [0.2, 0.4, 0.2, 0.4, 0.8]


async def test_stream_that_does_not_answer_is_tried_again(pauses: list[float]) -> None:
    async with world() as server:
        server.hub.positioned.clear()
        entering = asyncio.create_task(follow(server.url, "staff", ["orders"]).__aenter__())
        await until(holds(lambda: len(pauses) >= 2))
        server.hub.positioned.set()

        events = await asyncio.wait_for(entering, 10)
        happened = await server.publish(1)
        assert await ids(events, 1) == happened
        await events.__aexit__(None, None, None)


@pytest.mark.parametrize("body", ["<h1>Bad Gateway</h1>", "null", '{"status": "what"}'])
@pytest.mark.parametrize(("status", "is_tried_again"), [(502, True), (429, True), (404, False)])
async def test_answer_of_something_in_between_is_judged_by_its_status(
    pauses: list[float], body: str, status: int, is_tried_again: bool
) -> None:
    app = FastAPI()

    @app.post("/realtime/tickets")
    async def ticket() -> Response:
        return Response(body, status)

    async with serving(app) as address:
        entering = asyncio.create_task(follow(f"http://{address}", "staff", ["orders"]).__aenter__())
        if is_tried_again:
            await until(holds(lambda: len(pauses) >= 2))
            entering.cancel()
            await asyncio.gather(entering, return_exceptions=True)
        else:
            with pytest.raises(Refused, match="Not Found"):
                await asyncio.wait_for(entering, 10)


async def test_without_coming_back_the_end_is_raised_with_its_code() -> None:
    async with world() as server, follow(server.url, "staff", ["orders"], reconnect=False) as events:
        happened = await server.publish(1)
        await until(holds(lambda: len(events._came) == 1))
        server.close_all(1013)

        assert await ids(events, 1) == happened
        with pytest.raises(ConnectionClosedError) as closed:
            await take(events, 1)

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1013, "come back")


async def test_without_coming_back_a_server_that_is_away_is_raised() -> None:
    async with world() as gone:
        pass
    with pytest.raises(httpx.ConnectError):
        async with follow(gone.url, "staff", ["orders"], reconnect=False):
            pass
