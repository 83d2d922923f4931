"""Topics, the hub over a stream in memory, and the WebSocket's protocol."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin, Subprotocol

from showcase.kernel.errors import Unauthenticated, Unavailable
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from showcase.realtime.api import Door, socket_route, ticket_routes
from showcase.realtime.api.socket import BURST, MAX_MESSAGE_BYTES
from showcase.realtime.application.clients import QUEUE_LENGTH, Client, Closing
from showcase.realtime.application.hub import Hub, Limits, TooLateToResume, TooManySockets, TooManyTopics
from showcase.realtime.application.messages import MAX_TOPICS, SAID, SUBPROTOCOL
from showcase.realtime.application.ports import Stored
from showcase.realtime.application.recent import Known, Recent
from showcase.realtime.domain import (
    NotYourTopic,
    Place,
    Policy,
    Topic,
    UnknownPlace,
    UnknownTopic,
    may_follow,
    topics_of,
)
from tests.fakes import serving, settings_of, until
from tests.fakes_realtime import MemoryStream, MemoryTickets

pytestmark = pytest.mark.anyio

ORDER = UUID("0199a5c0-0000-7000-8000-000000000001")
HOUSEHOLD = Principal(subject="households/7", scopes=frozenset())
STAFF = Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_FOLLOW, Scope.SUPPORT}))
EPOCH = "00000001"


def event(order: UUID = ORDER, household: int = 7) -> Event:
    """An order's event."""
    return Event(type="t.v1", source="/shop", subject=f"orders/{order}", data={"household_id": household})


def product(number: int = 3) -> Event:
    return Event(type="p.v1", source="/shop", subject=f"products/{number}", data={})


def place(number: int) -> Place:
    return Place(EPOCH, (number, 0))


def id_of(number: int) -> str:
    return str(place(number))


def deliver(hub: Hub, number: int, happened: Event) -> None:
    hub.deliver(Known.of(Stored(place=place(number), event=happened)))


async def owner_of(order_id: UUID) -> int | None:
    return 7 if order_id == ORDER else None


async def told(client: Client) -> list[dict[str, Any]]:
    """What waits to be sent to a client, taken out of its queue."""
    found = []
    while client.waiting:
        found.append(json.loads(await client.next() or ""))
    for one in found:
        SAID.validate_python(one)
    return found


def topics(*names: str) -> list[Topic]:
    return [Topic.read(name) for name in names]


def joined(hub: Hub, principal: Principal = STAFF) -> Client:
    client = Client()
    hub.join(client)
    hub.signed_in(client, principal)
    return client


async def positioned(stream: MemoryStream | None = None, **limits: Any) -> Hub:
    """A hub that has read its stream to the end, and goes on no further."""
    hub = Hub(stream or MemoryStream(), owner_of, Limits(**limits))
    stop = asyncio.Event()
    stop.set()
    await hub.read(stop)
    return hub


async def hub_of(*names: str, principal: Principal = STAFF) -> tuple[Hub, Client]:
    """A hub with one client that follows some topics."""
    hub = await positioned()
    client = joined(hub, principal)
    if names:
        await hub.subscribe(client, topics(*names))
    await told(client)
    return hub, client


@pytest.mark.parametrize("text", ["orders", "households/7", f"orders/{ORDER}", "catalogue", "ops"])
def test_topic_is_read_as_it_is_spelled(text: str) -> None:
    assert Topic.read(text).name == text


def test_order_is_the_same_topic_however_its_id_is_spelled() -> None:
    assert Topic.read(f"orders/{str(ORDER).upper()}") == Topic.read(f"orders/{{{ORDER}}}")


@pytest.mark.parametrize("text", ["", "orders/", "orders/7", "households", "households/", "households/07", "x/7", "*"])
def test_anything_else_is_no_topic(text: str) -> None:
    with pytest.raises(UnknownTopic):
        Topic.read(text)


def test_event_belongs_to_its_order_its_household_and_all_orders() -> None:
    assert [topic.name for topic in topics_of(event())] == [f"orders/{ORDER}", "households/7", "orders", "ops"]
    assert [topic.name for topic in topics_of(product())] == ["catalogue", "ops"]
    assert [topic.name for topic in topics_of(Event(type="t", source="/s", subject="x/3", data={}))] == ["ops"]


def test_what_becomes_of_events_that_nobody_takes_depends_on_the_topic() -> None:
    policies = [topic.policy for topic in topics("orders", "households/7", f"orders/{ORDER}", "catalogue", "ops")]

    assert policies == [Policy.DISCONNECT] * 3 + [Policy.COALESCE, Policy.DROP_OLDEST]


@pytest.mark.parametrize("text", ["", "x", "5f3a91c2-1-", "5f3a91c2--1", "5F3A91C2-1-1", "5f3a91c2-1-1 "])
def test_anything_but_the_id_of_an_event_is_no_place(text: str) -> None:
    with pytest.raises(UnknownPlace):
        Place.read(text)


def test_place_is_read_as_it_is_written() -> None:
    written = "5f3a91c2-1764410400000-3"

    assert str(Place.read(written)) == written


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
        (HOUSEHOLD, "catalogue", None, True),
        (HOUSEHOLD, "ops", None, False),
        (STAFF, "ops", None, True),
        (Principal(subject="staff/bob", scopes=frozenset({Scope.ORDERS_FOLLOW})), "ops", None, False),
    ],
)
def test_household_follows_its_own_and_the_counter_follows_all(
    principal: Principal, topic: str, owner: int | None, allowed: bool
) -> None:
    assert may_follow(principal, Topic.read(topic), owner) is allowed


async def test_hub_asks_who_owns_an_order_before_it_lets_a_household_follow() -> None:
    hub, client = await hub_of(f"orders/{ORDER}", principal=HOUSEHOLD)

    with pytest.raises(NotYourTopic):
        await hub.subscribe(client, topics(f"orders/{uuid4()}"))

    assert len(client.topics) == 1


async def test_one_topic_that_is_not_allowed_leaves_all_of_the_request_undone() -> None:
    hub, client = await hub_of(principal=HOUSEHOLD)

    with pytest.raises(NotYourTopic):
        await hub.subscribe(client, topics("households/7", "households/8"))

    assert client.topics == set()


async def test_event_reaches_a_client_once_under_the_narrowest_topic_that_it_follows() -> None:
    hub, client = await hub_of("ops", "orders", "households/7", f"orders/{ORDER}")
    other = joined(hub)
    await hub.subscribe(other, topics("households/7"))
    await told(other)

    deliver(hub, 1, event())
    deliver(hub, 2, event(uuid4()))
    deliver(hub, 3, event(uuid4(), 8))
    deliver(hub, 4, product())

    assert [(one["id"], one["topic"]) for one in await told(client)] == [
        (id_of(1), f"orders/{ORDER}"),
        (id_of(2), "households/7"),
        (id_of(3), "orders"),
        (id_of(4), "ops"),
    ]
    assert [one["id"] for one in await told(other)] == [id_of(1), id_of(2)]


async def test_told_event_is_a_cloud_event_with_its_trace() -> None:
    hub, client = await hub_of("orders")
    happened = event()

    deliver(hub, 1, happened)

    (message,) = await told(client)
    assert message["event"] == {**happened.attributes(), "data": {"household_id": 7}}
    assert message["event"]["traceparent"] == happened.traceparent


async def test_nobody_is_told_after_unsubscribing_or_leaving() -> None:
    hub, client = await hub_of("orders", "households/7")
    hub.unsubscribe(client, topics("orders"), "a")
    hub.unsubscribe(client, topics("orders"))
    deliver(hub, 1, event(household=8))
    assert [(one["type"], one.get("ref")) for one in await told(client)] == [
        ("unsubscribed", "a"),
        ("unsubscribed", None),
    ]

    hub.leave(client)
    deliver(hub, 2, event())
    assert await told(client) == []
    assert hub._following == {}


async def test_one_connection_follows_a_limited_number_of_topics() -> None:
    hub, client = await hub_of(*(f"households/{number}" for number in range(1, MAX_TOPICS + 1)))

    await hub.subscribe(client, topics("households/1"))
    with pytest.raises(TooManyTopics):
        await hub.subscribe(client, topics("orders"))


async def test_nobody_can_subscribe_before_the_reader_knows_where_it_begins() -> None:
    hub = Hub(MemoryStream(), owner_of)

    with pytest.raises(Unavailable):
        await hub.subscribe(joined(hub), topics("orders"))


# -- those who do not keep up


async def test_client_that_does_not_keep_up_with_orders_is_closed_and_no_other() -> None:
    hub, slow = await hub_of("orders")
    quick = joined(hub)
    await hub.subscribe(quick, topics("orders"))

    for number in range(QUEUE_LENGTH + 10):
        deliver(hub, number, event())
        await quick.next()

    assert slow.closing.result().code == 1013
    assert await slow.next() is None
    assert not quick.closing.done()


async def test_of_each_product_only_the_latest_waits() -> None:
    hub, client = await hub_of("catalogue")

    for number in range(QUEUE_LENGTH * 4):
        deliver(hub, number, product(number % 3))

    waiting = await told(client)
    assert [one["id"] for one in waiting] == [id_of(QUEUE_LENGTH * 4 - 3 + number) for number in range(3)]
    assert not client.closing.done()


async def test_of_everything_the_oldest_are_dropped_and_counted() -> None:
    hub, client = await hub_of("ops")

    for number in range(QUEUE_LENGTH + 10):
        deliver(hub, number, event())

    notice, *events = await told(client)
    assert notice == {"type": "dropped", "topic": "ops", "count": 10}
    assert [one["id"] for one in events] == [id_of(number) for number in range(10, QUEUE_LENGTH + 10)]
    assert (client.dropped, client.closing.done()) == (10, False)


async def test_flood_in_one_topic_costs_no_event_of_another() -> None:
    hub, client = await hub_of("households/7", "catalogue", "ops")
    mine = [number for number in range(2_000) if number % 10 == 0]

    for number in range(2_000):
        deliver(hub, number, event(uuid4(), 7) if number % 10 == 0 else event(uuid4(), 8))
        deliver(hub, number, product(number))

    waiting = await told(client)
    assert [one["id"] for one in waiting if one.get("topic") == "households/7"] == [id_of(number) for number in mine]
    assert {one["topic"]: one["count"] for one in waiting if one["type"] == "dropped"} == {
        "ops": 1_800 - QUEUE_LENGTH,
        "catalogue": 2_000 - QUEUE_LENGTH,
    }


async def test_what_waits_is_sent_in_the_order_of_the_stream_and_answers_before_it() -> None:
    hub, client = await hub_of("households/7", "catalogue", "ops")
    for number, one in enumerate((event(), product(), event(uuid4(), 8), event(), product())):
        deliver(hub, number, one)

    hub.unsubscribe(client, topics("orders"))

    kinds = [(one["type"], one.get("id")) for one in await told(client)]
    assert kinds == [("unsubscribed", None), *(("event", id_of(number)) for number in (0, 2, 3, 4))]


async def test_client_with_a_window_is_told_no_more_than_it_has_acknowledged() -> None:
    hub, client = await hub_of("orders")
    client.window = 3
    for number in range(10):
        deliver(hub, number, event())

    first = [json.loads(await client.next() or "")["id"] for _ in range(3)]
    waiting = asyncio.create_task(client.next())
    await asyncio.sleep(0)
    assert not waiting.done()
    client.acknowledge("nothing")
    client.acknowledge(first[1])

    assert json.loads(await waiting or "")["id"] == id_of(3)
    assert json.loads(await client.next() or "")["id"] == id_of(4)
    hub.unsubscribe(client, topics("ops"))
    assert json.loads(await client.next() or "")["type"] == "unsubscribed", "an answer waits for nobody"
    client.close(1012, "bye")
    assert [json.loads(await client.next() or "")["id"] for _ in range(5)] == [id_of(number) for number in range(5, 10)]
    assert await client.next() is None


async def test_connection_that_is_closed_at_once_sends_nothing_more() -> None:
    hub, client = await hub_of("orders")
    deliver(hub, 1, event())

    client.close(1008, "out", at_once=True)
    deliver(hub, 2, event())

    assert await client.next() is None


# -- coming back


@asynccontextmanager
async def running(hub: Hub) -> AsyncIterator[None]:
    reading = asyncio.create_task(hub.read(asyncio.Event()))
    try:
        await hub.positioned.wait()
        yield
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def next_of(client: Client) -> dict[str, Any]:
    async with asyncio.timeout(5):
        message: dict[str, Any] = json.loads(await client.next() or "{}")
    return message


def test_large_events_are_kept_in_smaller_number() -> None:
    recent = Recent(place(0), length=1_000, max_bytes=10_000)
    for number in range(1, 101):
        recent.add(Known.of(Stored(place=place(number), event=event(), size=1_000)))

    kept = [number for number in range(101) if recent.since(place(number), 1) is not None]
    assert 5 <= len(kept) <= 10
    assert kept[-1] == 100
    recent.add(Known.of(Stored(place=place(101), event=event(), size=50_000)))
    assert recent.since(place(101), 1) == []


@pytest.mark.parametrize("recent", [1, 5_000])
async def test_who_comes_back_is_told_exactly_what_it_missed_and_then_what_comes(
    recent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("showcase.realtime.application.hub.RECENT", recent)
    stream = MemoryStream()
    begin = await stream.end()
    events = [event(uuid4(), 7 + number % 2) for number in range(1_200)]
    for one in events[:1_000]:
        await stream.publish(one)
    hub = Hub(stream, owner_of)
    async with running(hub):
        client = joined(hub, HOUSEHOLD)
        await hub.subscribe(client, topics("households/7"), after=begin, ref="again")
        for one in events[1_000:]:
            await stream.publish(one)
            await asyncio.sleep(0)

        messages = [await next_of(client) for _ in range(601)]

    (at,) = (number for number, one in enumerate(messages) if one["type"] == "subscribed")
    assert at >= 500
    assert messages[at]["ref"] == "again"
    ids = [one["event"]["id"] for one in messages if one["type"] == "event"]
    assert ids == [one.id for one in events[::2]]


async def test_who_comes_back_to_a_reader_that_lags_is_told_nothing_twice() -> None:
    stream = MemoryStream()
    hub = await positioned(stream)
    happened = [event() for _ in range(6)]
    for one in happened[:5]:
        await stream.publish(one)
    elsewhere_told = stream.kept[3].place
    client = joined(hub)
    await hub.subscribe(client, topics("orders"), after=elsewhere_told)
    async with running(hub):
        await stream.publish(happened[5])
        messages = [await next_of(client) for _ in range(4)]

    assert messages[0]["type"] == "subscribed"
    assert [one["event"]["id"] for one in messages[1:]] == [one.id for one in happened[3:]]


def test_recent_events_are_told_from_any_place_among_them_and_from_no_other() -> None:
    recent = Recent(place(10), length=5, max_bytes=1_000)
    for number in range(11, 31):
        recent.add(Known.of(Stored(place=place(number), event=event())))

    assert [one.place.number[0] for one in recent.since(place(25), 100) or ()] == [26, 27, 28, 29, 30]
    assert [one.place.number[0] for one in recent.since(place(25), 2) or ()] == [26, 27]
    assert recent.since(place(30), 100) == []
    for unknown in (place(10), place(31), Place(EPOCH, (27, 1)), Place("ffffffff", (27, 0))):
        assert recent.since(unknown, 100) is None


async def test_who_comes_back_too_late_is_told_so_and_goes_on_from_here() -> None:
    stream = MemoryStream(length=10)
    begin = await stream.end()
    for _ in range(20):
        await stream.publish(event())
    hub = Hub(stream, owner_of)
    async with running(hub):
        client = joined(hub)
        await hub.subscribe(client, topics("orders"), after=begin)
        here, confirmed = await next_of(client), await next_of(client)
        await stream.publish(event())

        assert (here["type"], here["topics"], confirmed["type"]) == ("reset", ["orders"], "subscribed")
        assert here["at"] == confirmed["at"] == str(stream.kept[-2].place)
        assert (await next_of(client))["type"] == "event"


async def test_who_catches_up_slowly_is_waited_for_and_who_takes_nothing_is_not() -> None:
    stream = MemoryStream()
    begin = await stream.end()
    for _ in range(QUEUE_LENGTH * 3):
        await stream.publish(event())
    hub = Hub(stream, owner_of, Limits(stalled_s=0.2))
    async with running(hub):
        slow, stalled = joined(hub), joined(hub)
        for client in (slow, stalled):
            await hub.subscribe(client, topics("orders"), after=begin)
        for _ in range(QUEUE_LENGTH * 3):
            assert (await next_of(slow))["type"] == "event"
            await asyncio.sleep(0)

        assert (await asyncio.wait_for(stalled.closing, 5)).code == 1013
        assert not slow.closing.done()


async def test_who_unsubscribes_while_it_catches_up_is_told_no_more_of_it() -> None:
    stream = MemoryStream()
    begin = await stream.end()
    for number in range(QUEUE_LENGTH * 2):
        await stream.publish(product(number) if number % 2 else event(uuid4(), 7))
    hub = Hub(stream, owner_of)
    async with running(hub):
        client = joined(hub)
        await hub.subscribe(client, topics("orders", "households/8", "catalogue"), after=begin)
        await asyncio.sleep(0)  # it begins
        hub.unsubscribe(client, topics("orders"))
        messages = [await next_of(client)]
        while messages[-1]["type"] != "subscribed":
            messages.append(await next_of(client))
        await stream.publish(event(uuid4(), 7))
        await stream.publish(last := event(uuid4(), 8))

        assert messages[-1]["topics"] == ["households/8", "catalogue"]
        assert {one["topic"] for one in messages if one["type"] == "event"} <= {"orders", "catalogue"}
        assert (await next_of(client))["event"]["id"] == last.id


async def test_connection_resumes_with_its_first_topics_or_never() -> None:
    hub, client = await hub_of("orders")

    with pytest.raises(TooLateToResume):
        await hub.subscribe(client, topics("ops"), after=place(1))


async def test_everybody_is_told_when_the_stream_has_lost_its_end() -> None:
    stream = MemoryStream()
    hub = Hub(stream, owner_of)
    async with running(hub):
        client, idle = joined(hub), joined(hub)
        await hub.subscribe(client, topics("orders", "ops"))
        assert (await next_of(client))["type"] == "subscribed"
        for _ in range(3):
            await stream.publish(event())
        before = [await next_of(client) for _ in range(3)][-1]["id"]

        stream.lose(2)
        await stream.publish(event())

        told_so = await next_of(client)
        assert (told_so["type"], told_so["topics"]) == ("reset", ["ops", "orders"])
        assert Place.read(told_so["at"]).epoch != Place.read(before).epoch
        await stream.publish(event())
        assert (await next_of(client))["type"] == "event"
        assert idle.waiting == 0


async def test_reader_goes_on_where_it_broke_off() -> None:
    class Flaky(MemoryStream):
        broken = False

        async def read(self, after: Place) -> Any:
            if self.broken:
                raise Unavailable("away")
            return await super().read(after)

    stream = Flaky()
    await stream.publish(event())
    hub, stop = Hub(stream, owner_of), asyncio.Event()
    reading = asyncio.create_task(hub.read(stop))
    await hub.positioned.wait()
    client = joined(hub)
    await hub.subscribe(client, topics("orders"))
    stream.broken = True
    happened = [event() for _ in range(3)]
    await stream.publish(happened[0])
    with pytest.raises(Unavailable):
        await reading
    await stream.publish(happened[1])
    stream.broken = False

    async with running(hub):
        await stream.publish(happened[2])
        messages = [await next_of(client) for _ in range(4)]

    assert [one["event"]["id"] for one in messages[1:]] == [one.id for one in happened]


async def test_long_backlog_closes_nobody_who_reads() -> None:
    stream = MemoryStream()
    hub = await positioned(stream)
    client = joined(hub)
    await hub.subscribe(client, topics("orders"))
    for _ in range(QUEUE_LENGTH * 2):
        await stream.publish(event())

    async def take() -> None:
        for _ in range(QUEUE_LENGTH * 2 + 1):
            await client.next()

    async with running(hub):
        await asyncio.wait_for(take(), 5)
    assert not client.closing.done()


# -- over the wire


@asynccontextmanager
async def app(trusted: tuple[str, ...] = (), **limits: Any) -> AsyncIterator[str]:
    """The slice alone, over a stream in memory; tokens are `household` and `staff`, and so are tickets."""
    known = {"household": HOUSEHOLD, "staff": STAFF}

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        if token not in known:
            raise Unauthenticated("no such token")
        return known[token]

    async def has_ended(session_id: UUID, *, sensitive: bool) -> bool:
        return False

    hub, tickets = Hub(MemoryStream(), owner_of, Limits(**limits)), MemoryTickets(known)
    door = Door(tickets=tickets, has_ended=has_ended, trusted_origins=trusted)
    slices = [Slice(name="realtime", routers=(ticket_routes(tickets, 30.0), socket_route(hub, door)))]
    async with running(hub), serving(build(Resources(settings_of({})), slices, authenticate)) as address:
        yield f"ws://{address}/ws"


class Socket:
    """A connection, spoken to in JSON."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str, *also: str, origin: str | None = None) -> "AsyncIterator[Socket]":
        offered = [Subprotocol(one) for one in (SUBPROTOCOL, *also)]
        async with connect(
            url, subprotocols=offered, origin=None if origin is None else Origin(origin), proxy=None
        ) as connection:
            yield cls(connection)

    async def ask(self, message: str | bytes | dict[str, object]) -> dict[str, Any]:
        """Send a message; the next one that comes."""
        await self.connection.send(json.dumps(message) if isinstance(message, dict) else message)
        return await self.answer()

    async def answer(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await asyncio.wait_for(self.connection.recv(), 10))
        SAID.validate_python(answer)
        return answer

    async def hello(self, ticket: str = "household") -> None:
        assert await self.ask({"type": "hello", "ticket": ticket}) == {"type": "welcome"}

    async def closed(self) -> int:
        """The code with which the server closes, after all that it still says."""
        async with asyncio.timeout(10):
            await self.connection.wait_closed()
        return self.connection.close_code or 0


async def test_handshake_without_the_subprotocol_is_refused() -> None:
    async with app() as url:
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, subprotocols=[Subprotocol("other")], proxy=None)

    assert refused.value.response.status_code == 422
    assert json.loads(refused.value.response.body)["type"] == "/problems/no-subprotocol"


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1", "https://shop.example.evil.test"])
async def test_page_of_another_site_is_refused(origin: str) -> None:
    async with app(trusted=("https://shop.example",)) as url:
        with pytest.raises(InvalidStatus) as refused:
            async with Socket.opened(url, origin=origin):
                pass

    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["type"] == "/problems/untrusted-origin"


async def test_own_pages_and_trusted_ones_are_let_in() -> None:
    async with app(trusted=("https://shop.example",)) as url:
        for origin in (url.replace("ws", "http", 1).removesuffix("/ws"), "https://shop.example"):
            async with Socket.opened(url, origin=origin) as socket:
                await socket.hello()


async def test_ticket_is_given_for_a_token_and_works_once() -> None:
    async with app() as url:
        async with httpx.AsyncClient(base_url=url.replace("ws", "http", 1).removesuffix("/ws")) as http:
            assert (await http.post("/realtime/tickets")).status_code == 401
            answer = await http.post("/realtime/tickets", headers={"Authorization": "Bearer household"})
        assert (answer.status_code, answer.json()["expires_in"]) == (201, 30.0)
        ticket = answer.json()["ticket"]
        async with Socket.opened(url) as first, Socket.opened(url) as second:
            await first.hello(ticket)

            problem = (await second.ask({"type": "hello", "ticket": ticket}))["problem"]

            assert (problem["type"], problem["status"]) == ("/problems/bad-ticket", 401)
            assert await second.closed() == 1008


async def test_ticket_may_come_with_the_handshake() -> None:
    async with app() as url:
        async with Socket.opened(url, "ticket.staff") as socket:
            assert socket.connection.subprotocol == SUBPROTOCOL, "the ticket is not echoed"
            assert await socket.answer() == {"type": "welcome"}
        async with Socket.opened(url, "ticket.stolen") as socket:
            assert (await socket.answer())["problem"]["type"] == "/problems/bad-ticket"
            assert await socket.closed() == 1008
        async with Socket.opened(url, "ticket." + "x" * 300) as socket:
            assert await socket.closed() == 1008


async def test_household_is_told_what_it_may_follow() -> None:
    async with app() as url, Socket.opened(url) as socket:
        await socket.hello()
        names = ("households/7", "households/8", "orders", f"orders/{ORDER}", f"orders/{uuid4()}", "nonsense", "ops")
        answers = [await socket.ask({"type": "subscribe", "topics": [name], "ref": name}) for name in names]

    assert [answer["type"] for answer in answers] == [
        *("subscribed", "error", "error", "subscribed", "error", "error", "error")
    ]
    assert tuple(answer["ref"] for answer in answers) == names
    problems = [answer["problem"] for answer in answers if answer["type"] == "error"]
    mine, unknown = "/problems/not-your-topic", "/problems/unknown-topic"
    assert [problem["type"] for problem in problems] == [mine, mine, mine, unknown, mine]
    assert [problem["status"] for problem in problems] == [403, 403, 403, 422, 403]


@pytest.mark.parametrize(
    "first", ['{"type": "hello", "ticket": "stolen"}', '{"type": "subscribe", "topics": ["orders"]}', "nonsense"]
)
async def test_who_does_not_say_hello_with_a_good_ticket_is_told_why_and_closed(first: str) -> None:
    async with app() as url, Socket.opened(url) as socket:
        problem = (await socket.ask(first))["problem"]

        assert await socket.closed() == 1008
    assert problem["status"] in (401, 422)
    assert "stolen" not in json.dumps(problem)


async def test_silence_instead_of_hello_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("showcase.realtime.api.socket.HELLO_WITHIN_S", 0.05)

    async with app() as url, Socket.opened(url) as socket:
        assert await socket.closed() == 1008


async def test_connection_that_follows_nothing_is_closed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("showcase.realtime.api.socket.IDLE_S", 0.2)

    async with app() as url, Socket.opened(url) as idle, Socket.opened(url) as follows:
        await follows.hello()
        await follows.ask({"type": "subscribe", "topics": ["catalogue"]})
        await idle.hello()

        assert await idle.closed() == 1001
        assert (await follows.ask({"type": "ping", "ref": "1"})) == {"type": "pong", "ref": "1"}


async def test_fifth_malformed_message_closes() -> None:
    async with app() as url, Socket.opened(url) as socket:
        await socket.hello()
        malformed = ["{", "[]", '{"type": "what"}', '{"type": "subscribe"}']
        answers = [await socket.ask(text) for text in malformed]
        assert (await socket.ask({"type": "subscribe", "topics": ["households/7"]}))["type"] == "subscribed"
        answers.append(await socket.ask(b"\x00"))

        assert await socket.closed() == 1008
    assert {answer["problem"]["type"] for answer in answers} == {"/problems/malformed-message"}


async def test_flood_of_messages_is_told_so_then_closed() -> None:
    async with app() as url, Socket.opened(url) as socket:
        await socket.hello()
        with suppress(ConnectionClosed):
            for _ in range(int(BURST) * 3):
                await socket.connection.send('{"type": "ping"}')

        answers = [json.loads(text) async for text in _all(socket.connection)]

    kinds = [one.get("problem", one)["type"] for one in answers]
    assert int(BURST) <= kinds.count("pong") < int(BURST) * 1.5
    assert kinds[-5:] == ["/problems/too-many-messages"] * 5
    assert socket.connection.close_code == 1008


async def _all(connection: ClientConnection) -> AsyncIterator[str | bytes]:
    with suppress(ConnectionClosed):
        async for text in connection:
            yield text


async def test_message_that_is_too_large_closes() -> None:
    async with app() as url, Socket.opened(url) as socket:
        await socket.hello()
        await socket.connection.send("ä" * (MAX_MESSAGE_BYTES // 2 + 1))

        assert await socket.closed() == 1009


async def test_connection_beyond_the_limit_is_told_to_come_back_and_one_that_ends_makes_room() -> None:
    async with app(sockets=1) as url:
        async with Socket.opened(url) as first:
            await first.hello()
            async with Socket.opened(url) as second:
                assert await second.closed() == 1013

        async def room() -> bool:
            async with Socket.opened(url) as third:
                with suppress(ConnectionClosed):
                    return await third.ask({"type": "hello", "ticket": "staff"}) == {"type": "welcome"}
            return False

        await until(room)


async def test_household_has_so_many_connections_and_takes_nobody_elses() -> None:
    async with app(of_household=2) as url, AsyncExitStack() as stack:
        for _ in range(2):
            await (await stack.enter_async_context(Socket.opened(url))).hello("household")
        async with Socket.opened(url) as third:
            problem = (await third.ask({"type": "hello", "ticket": "household"}))["problem"]
            assert (problem["type"], problem["status"]) == ("/problems/too-many-sockets", 429)
            assert await third.closed() == 1013

        await (await stack.enter_async_context(Socket.opened(url))).hello("staff")


async def test_server_that_stops_says_so() -> None:
    async with AsyncExitStack() as stack:
        async with app() as url:
            socket = await stack.enter_async_context(Socket.opened(url))
            await socket.hello()

        assert await socket.closed() == 1012


async def test_hub_that_drains_sends_what_waits_and_takes_nobody_in() -> None:
    hub, client = await hub_of("orders")
    deliver(hub, 1, event())
    draining = asyncio.create_task(hub.drain(5))
    await asyncio.sleep(0)
    late = Client()
    hub.join(late)

    assert json.loads(await client.next() or "")["id"] == id_of(1)
    assert await client.next() is None
    assert (client.closing.result().code, late.closing.result().code) == (1012, 1012)
    for one in (client, late):
        assert not draining.done()
        hub.leave(one)
    await asyncio.wait_for(draining, 1)


async def test_draining_waits_for_nobody_for_ever() -> None:
    hub, _ = await hub_of("orders")

    await asyncio.wait_for(hub.drain(0.05), 1)


# -- sessions and tokens that end


async def test_connections_end_with_their_session_and_are_told_nothing_more() -> None:
    hub = await positioned()
    ended = uuid4()
    gone, stays, nobodys = (joined(hub, replace(STAFF, session_id=session_id)) for session_id in (ended, uuid4(), None))
    for client in (gone, stays, nobodys):
        await hub.subscribe(client, topics("orders"))
    deliver(hub, 1, event())

    hub.end_session(ended)
    deliver(hub, 2, event())

    assert gone.closing.result() == Closing(1008, "the session has ended")
    assert await told(gone) == []
    assert not stays.closing.done()
    assert not nobodys.closing.done()


async def test_a_connection_that_has_left_leaves_nothing_of_its_session() -> None:
    hub = await positioned(of_household=1)
    session_id = uuid4()
    mine = replace(HOUSEHOLD, session_id=session_id, expires_at=datetime.now(UTC) + timedelta(hours=1))
    client = joined(hub, mine)
    with pytest.raises(TooManySockets):
        joined(hub, mine)

    hub.leave(client)
    hub.end_session(session_id)

    assert not client.closing.done()
    assert (hub._of_session, dict(hub._of_household), hub._expiring) == ({}, {}, {})


async def test_connection_is_closed_when_its_token_expires_unless_it_says_hello_again() -> None:
    hub = await positioned()
    soon = datetime.now(UTC) + timedelta(seconds=0.1)
    expires, renewed = (joined(hub, replace(STAFF, expires_at=soon)) for _ in range(2))

    hub.signed_in(renewed, replace(STAFF, expires_at=soon + timedelta(hours=1)))

    assert await asyncio.wait_for(expires.closing, 2) == Closing(1008, "the token has expired")
    assert not renewed.closing.done()
    hub.leave(renewed)


async def test_hello_again_is_for_whoever_said_it_first() -> None:
    async with app() as url, Socket.opened(url) as socket:
        await socket.hello("household")
        await socket.hello("household")

        problem = (await socket.ask({"type": "hello", "ticket": "staff"}))["problem"]

        assert problem["type"] == "/problems/bad-ticket"
        assert await socket.closed() == 1008


async def test_ticket_of_a_session_that_ended_meanwhile_is_none() -> None:
    asked: list[tuple[UUID, bool]] = []

    async def has_ended(session_id: UUID, *, sensitive: bool) -> bool:
        asked.append((session_id, sensitive))
        return True

    sessions = [uuid4(), uuid4()]
    known = {"mine": replace(HOUSEHOLD, session_id=sessions[0]), "hers": replace(STAFF, session_id=sessions[1])}
    door = Door(tickets=MemoryTickets(known | {"operator": STAFF}), has_ended=has_ended)

    for ticket in ("mine", "hers"):
        with pytest.raises(Unauthenticated):
            await door.principal_of(ticket)
    assert await door.principal_of("operator") == STAFF
    assert asked == [(sessions[0], False), (sessions[1], True)]
