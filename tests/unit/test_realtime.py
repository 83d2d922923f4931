"""Topics, the hub over a stream in memory, and the WebSocket's protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from showcase.kernel.errors import Unauthenticated, Unavailable
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from showcase.realtime.api import MAX_MESSAGE_BYTES, SUBPROTOCOL, routes
from showcase.realtime.application import MAX_TOPICS, QUEUE_LENGTH, Client, Closing, Hub, TooManyTopics
from showcase.realtime.domain import NotYourTopic, Topic, UnknownTopic, may_follow, topics_of
from tests.fakes import MemoryStream, serving, settings_of, until

pytestmark = pytest.mark.anyio

ORDER = UUID("0199a5c0-0000-7000-8000-000000000001")
HOUSEHOLD = Principal(subject="households/7", scopes=frozenset())
STAFF = Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_FOLLOW}))


def event(order: UUID = ORDER, household: int = 7) -> Event:
    """An order's event."""
    return Event(type="t.v1", source="/shop", subject=f"orders/{order}", data={"household_id": household})


async def owner_of(order_id: UUID) -> int | None:
    return 7 if order_id == ORDER else None


def told(client: Client) -> list[dict[str, Any]]:
    """What waits to be sent to a client, taken out of its queue."""
    waiting = [json.loads(text) for text in client._waiting]
    client._waiting.clear()
    return waiting


async def hub_of(*topics: str, principal: Principal = STAFF) -> tuple[Hub, Client]:
    """A hub with one client that follows some topics."""
    hub, client = Hub(MemoryStream(), owner_of, max_clients=10), Client()
    hub.positioned.set()
    hub.join(client)
    for topic in topics:
        await hub.subscribe(client, principal, Topic.read(topic))
    told(client)
    return hub, client


@pytest.mark.parametrize("text", ["orders", "households/7", f"orders/{ORDER}"])
def test_topic_is_read_as_it_is_spelled(text: str) -> None:
    assert Topic.read(text).name == text


def test_order_is_the_same_topic_however_its_id_is_spelled() -> None:
    assert Topic.read(f"orders/{str(ORDER).upper()}") == Topic.read(f"orders/{{{ORDER}}}")


@pytest.mark.parametrize("text", ["", "orders/", "orders/7", "households", "households/", "households/07", "x/7", "*"])
def test_anything_else_is_no_topic(text: str) -> None:
    with pytest.raises(UnknownTopic):
        Topic.read(text)


def test_event_belongs_to_its_order_its_household_and_all_orders() -> None:
    assert [topic.name for topic in topics_of(event())] == [f"orders/{ORDER}", "households/7", "orders"]
    assert topics_of(Event(type="t", source="/s", subject="products/3", data={})) == ()


@pytest.mark.parametrize(
    ("principal", "topic", "owner", "allowed"),
    [
        (HOUSEHOLD, "orders", None, False),
        (HOUSEHOLD, "households/7", None, True),
        (HOUSEHOLD, "households/8", None, False),
        (HOUSEHOLD, f"orders/{ORDER}", 7, True),
        (HOUSEHOLD, f"orders/{ORDER}", 8, False),
        (HOUSEHOLD, f"orders/{ORDER}", None, False),
        (STAFF, "orders", None, True),
        (STAFF, "households/7", None, True),
        (STAFF, f"orders/{ORDER}", None, True),
        (Principal(subject="staff/bob", scopes=frozenset()), f"orders/{ORDER}", None, False),
    ],
)
def test_household_follows_its_own_and_the_counter_follows_all(
    principal: Principal, topic: str, owner: int | None, allowed: bool
) -> None:
    assert may_follow(principal, Topic.read(topic), owner) is allowed


async def test_hub_asks_who_owns_an_order_before_it_lets_a_household_follow() -> None:
    hub, client = await hub_of(f"orders/{ORDER}", principal=HOUSEHOLD)

    with pytest.raises(NotYourTopic):
        await hub.subscribe(client, HOUSEHOLD, Topic.read(f"orders/{uuid4()}"))

    assert len(client.topics) == 1


async def test_event_reaches_a_client_once_under_the_narrowest_topic_that_it_follows() -> None:
    hub, client = await hub_of("orders", "households/7", f"orders/{ORDER}")
    other = Client()
    hub.join(other)
    await hub.subscribe(other, STAFF, Topic.read("households/7"))
    told(other)

    hub.deliver("1-0", event())
    hub.deliver("2-0", event(uuid4()))
    hub.deliver("3-0", event(uuid4(), 8))

    assert [(one["id"], one["topic"]) for one in told(client)] == [
        ("1-0", f"orders/{ORDER}"),
        ("2-0", "households/7"),
        ("3-0", "orders"),
    ]
    assert [one["id"] for one in told(other)] == ["1-0", "2-0"]


async def test_told_event_is_a_cloud_event_with_its_trace() -> None:
    hub, client = await hub_of("orders")
    happened = event()

    hub.deliver("1-0", happened)

    (message,) = told(client)
    assert message["event"] == {**happened.attributes(), "data": {"household_id": 7}}
    assert message["event"]["traceparent"] == happened.traceparent


async def test_nobody_is_told_after_unsubscribing_or_leaving() -> None:
    hub, client = await hub_of("orders", "households/7")
    hub.unsubscribe(client, Topic.read("orders"))
    hub.unsubscribe(client, Topic.read("orders"))
    hub.deliver("1-0", event(household=8))
    assert told(client) == []

    hub.leave(client)
    hub.deliver("2-0", event())
    assert told(client) == []
    assert hub._following == {}


async def test_client_that_does_not_keep_up_is_closed_and_no_other() -> None:
    hub, slow = await hub_of("orders")
    quick = Client()
    hub.join(quick)
    await hub.subscribe(quick, STAFF, Topic.read("orders"))

    for number in range(QUEUE_LENGTH + 10):
        hub.deliver(f"{number}-0", event())
        await quick.next()

    assert slow.closing.result().code == 1013
    assert await slow.next() is None
    assert not quick.closing.done()


async def test_one_connection_follows_a_limited_number_of_topics() -> None:
    hub, client = await hub_of(*(f"households/{number}" for number in range(1, MAX_TOPICS + 1)))

    await hub.subscribe(client, STAFF, Topic.read("households/1"))
    with pytest.raises(TooManyTopics):
        await hub.subscribe(client, STAFF, Topic.read("orders"))


async def test_reader_goes_on_where_it_broke_off() -> None:
    class Flaky(MemoryStream):
        broken = False

        async def read(self, after: str) -> Any:
            if self.broken:
                raise Unavailable("away")
            return await super().read(after)

    stream = Flaky()
    await stream.publish(event())
    hub, client, stop = Hub(stream, owner_of, max_clients=1), Client(), asyncio.Event()
    hub.join(client)
    reading = asyncio.create_task(hub.read(stop))
    await hub.positioned.wait()
    await hub.subscribe(client, STAFF, Topic.read("orders"))
    await stream.publish(event())
    assert json.loads(await client.next() or "")["type"] == "subscribed"
    assert json.loads(await client.next() or "")["id"] == "2"
    stream.broken = True
    await stream.publish(event())
    with pytest.raises(Unavailable):
        await reading
    await stream.publish(event())
    told(client)  # what the wait that was under way when it broke may have brought
    before, stream.broken = hub._after, False

    reading = asyncio.create_task(hub.read(stop))

    assert json.loads(await client.next() or "")["id"] == str(int(before or "") + 1)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)


async def test_nobody_can_subscribe_before_the_reader_knows_where_it_begins() -> None:
    hub, client = Hub(MemoryStream(), owner_of, max_clients=1), Client()

    with pytest.raises(Unavailable):
        await hub.subscribe(client, STAFF, Topic.read("orders"))


@asynccontextmanager
async def app(max_clients: int = 10) -> AsyncIterator[str]:
    """The slice alone, over a stream in memory; the tokens are `household` and `staff`."""

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        known = {"household": HOUSEHOLD, "staff": STAFF}
        if token not in known:
            raise Unauthenticated("no such token")
        return known[token]

    hub = Hub(MemoryStream(), owner_of, max_clients=max_clients)
    hub.positioned.set()
    slices = [Slice(name="realtime", routers=(routes(hub),))]
    async with serving(build(Resources(settings_of({})), slices, authenticate)) as address:
        yield f"ws://{address}/ws"


class Socket:
    """A connection, spoken to in JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str) -> "AsyncIterator[Socket]":
        async with connect(url, subprotocols=[Subprotocol(SUBPROTOCOL)], proxy=None) as connection:
            yield cls(connection)

    async def ask(self, message: str | bytes | dict[str, object]) -> dict[str, Any]:
        """Send a message; the next one that comes."""
        await self.connection.send(json.dumps(message) if isinstance(message, dict) else message)
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), 10))
        return answer

    async def hello(self) -> None:
        assert await self.ask({"type": "hello", "token": "household"}) == {"type": "welcome"}

    async def closed(self) -> int:
        """The code with which the server closes, after all that it still says."""
        async with asyncio.timeout(10):
            await self.connection.wait_closed()
        return self.connection.close_code or 0


async def test_handshake_without_the_subprotocol_is_refused() -> None:
    async with app() as url:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, subprotocols=[Subprotocol("other")], proxy=None)

    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body)["type"] == "/problems/no-subprotocol"


async def test_household_is_told_what_it_may_follow() -> None:
    async with app() as url, Socket.opened(url) as socket:
        assert socket.connection.subprotocol == SUBPROTOCOL
        await socket.hello()
        answers = [
            await socket.ask({"type": "subscribe", "topic": topic})
            for topic in ("households/7", "households/8", "orders", f"orders/{ORDER}", f"orders/{uuid4()}", "nonsense")
        ]

    assert [answer["type"] for answer in answers] == ["subscribed", "error", "error", "subscribed", "error", "error"]
    problems = [answer["problem"] for answer in answers if answer["type"] == "error"]
    assert [problem["type"] for problem in problems] == ["/problems/not-your-topic"] * 3 + ["/problems/unknown-topic"]
    assert [problem["status"] for problem in problems] == [403] * 3 + [422]


@pytest.mark.parametrize(
    "first", ['{"type": "hello", "token": "stolen"}', '{"type": "subscribe", "topic": "orders"}', "nonsense"]
)
async def test_who_does_not_say_hello_with_a_good_token_is_told_why_and_closed(first: str) -> None:
    async with app() as url, Socket.opened(url) as socket:
        problem = (await socket.ask(first))["problem"]

        assert await socket.closed() == 1008
    assert problem["status"] in (401, 422)
    assert "stolen" not in json.dumps(problem)


async def test_silence_instead_of_hello_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("showcase.realtime.api.HELLO_WITHIN_S", 0.05)

    async with app() as url, Socket.opened(url) as socket:
        assert await socket.closed() == 1008


async def test_fifth_malformed_message_closes() -> None:
    async with app() as url, Socket.opened(url) as socket:
        await socket.hello()
        malformed = ["{", "[]", '{"type": "what"}', '{"type": "subscribe"}']
        answers = [await socket.ask(text) for text in malformed]
        assert (await socket.ask({"type": "subscribe", "topic": "households/7"}))["type"] == "subscribed"
        answers.append(await socket.ask(b"\x00"))

        assert await socket.closed() == 1008
    assert {answer["problem"]["type"] for answer in answers} == {"/problems/malformed-message"}


async def test_message_that_is_too_large_closes() -> None:
    async with app() as url, Socket.opened(url) as socket:
        await socket.hello()
        await socket.connection.send("ä" * (MAX_MESSAGE_BYTES // 2 + 1))

        assert await socket.closed() == 1009


async def test_connection_beyond_the_limit_is_told_to_come_back_and_one_that_ends_makes_room() -> None:
    async with app(max_clients=1) as url:
        async with Socket.opened(url) as first:
            await first.hello()
            async with Socket.opened(url) as second:
                assert await second.closed() == 1013

        async def room() -> bool:
            async with Socket.opened(url) as third:
                await third.connection.send('{"type": "hello", "token": "staff"}')
                with suppress(ConnectionClosed):
                    return await third.answer() == {"type": "welcome"}
            return False

        await until(room)


async def test_server_that_stops_says_so() -> None:
    async with AsyncExitStack() as stack:
        async with app() as url:
            socket = await stack.enter_async_context(Socket.opened(url))
            await socket.hello()

        assert await socket.closed() == 1012


# -- sessions that end


async def test_connections_end_with_their_session_and_are_told_nothing_more() -> None:
    hub, gone = await hub_of("orders")
    stays, nobodys = Client(), Client()
    ended = uuid4()
    for client, session_id in ((gone, ended), (stays, uuid4()), (nobodys, None)):
        hub.join(client)
        hub.signed_in(client, replace(STAFF, session_id=session_id))
        await hub.subscribe(client, STAFF, Topic.read("orders"))
    hub.deliver("1-0", event())

    hub.end_session(ended)
    hub.deliver("2-0", event())

    assert gone.closing.result() == Closing(1008, "the session has ended")
    assert told(gone) == []
    assert not stays.closing.done()
    assert not nobodys.closing.done()


async def test_a_connection_that_has_left_leaves_nothing_of_its_session() -> None:
    hub, client = await hub_of("orders")
    session_id = uuid4()
    hub.signed_in(client, replace(STAFF, session_id=session_id))

    hub.leave(client)
    hub.end_session(session_id)

    assert not client.closing.done()
    assert hub._of_session == {}
