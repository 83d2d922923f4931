"""One contract for the broker: in memory and RabbitMQ. Then what only a real one can do: lose a connection, fill up."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pika
import pytest

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.messaging import domain, worker
from showcase.messaging.domain import EVENTS, PARKING, Queue, Topology
from showcase.messaging.infrastructure.amqp import ATTRIBUTE, Broker
from showcase.messaging.worker import consume
from tests.fakes import until
from tests.fakes_messaging import MemoryBroker
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
RABBITMQ = ("SHOWCASE_RABBITMQ_URL", "SHOWCASE_RABBITMQ_API_URL")
TOPOLOGY = Topology([Queue(name="one", types=("a.*.v1",)), Queue(name="all", types=("a.#", "b.#"))])
LIMIT = 5
WITHIN_S = 5.0


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "PAUSE_BEFORE_AGAIN_S", 0.0)


@pytest.fixture
def url() -> Iterator[str]:
    with Stack.attach() as stack, Namespace.create({name: stack.urls[name] for name in RABBITMQ}) as names:
        yield names.rabbitmq_url


@pytest.fixture
async def real(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broker]:
    monkeypatch.setattr(domain, "MAX_LENGTH", LIMIT)
    async with Broker.connected(url, timeout_s=WITHIN_S, name="test") as broker:
        await broker.declare(TOPOLOGY)
        yield broker


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return MemoryBroker(TOPOLOGY, LIMIT)
    return request.getfixturevalue("real")


def event(type_: str = "a.b.v1") -> Event:
    return Event(type=type_, source="/s", subject="orders/1", data={"words": "Käse ✓"}, causation_id="0")


class Handled:
    """Handles events; stops the consumer after so many."""

    def __init__(self, count: int, does: Callable[[Event], object] = lambda event: None) -> None:
        self.events: list[Event] = []
        self.stop = asyncio.Event()
        self._count = count
        self._does = does

    async def __call__(self, event: Event) -> None:
        self.events.append(event)
        if len(self.events) >= self._count:
            self.stop.set()
        self._does(event)


async def consumed(
    broker: Any, queue: str, count: int, does: Callable[[Event], object] = lambda event: None
) -> list[Event]:
    """What a consumer is handed until so many are handled."""
    handled = Handled(count, does)
    async with asyncio.timeout(WITHIN_S):
        await consume(broker, await broker.consume(queue, 10), handled, handled.stop)
    return handled.events


async def test_an_event_arrives_whole_in_each_queue_that_takes_its_type(broker: Any) -> None:
    narrow, wide = event("a.b.v1"), event("b.c.d.v1")

    assert list(await broker.publish([narrow, wide])) == [True, True]
    assert await consumed(broker, "one", 1) == [narrow]
    assert await consumed(broker, "all", 2) == [narrow, wide]


async def test_an_event_that_nobody_takes_is_not_taken_and_stops_no_other(broker: Any) -> None:
    assert list(await broker.publish([event("z.v1"), event(), event("z.v1")])) == [False, True, False]
    assert list(await broker.publish([event()])) == [True]


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(broker: Any) -> None:
    sent = []
    while (taken := list(await broker.publish([event()]))) == [True]:
        sent.append(taken)
    assert LIMIT <= len(sent) <= LIMIT + 2

    await consumed(broker, "one", len(sent))
    await consumed(broker, "all", len(sent))

    async def room() -> bool:
        return list(await broker.publish([event()])) == [True]

    await until(room, within_s=WITHIN_S)


async def test_a_message_that_nobody_can_handle_is_parked_and_the_next_one_is_handled(broker: Any) -> None:
    poison, good = event(), event()
    await broker.publish([poison, good])

    def choke(event: Event) -> None:
        if event == poison:
            raise LookupError("no such thing")

    assert await consumed(broker, "one", 2, choke) == [poison, good]
    assert await consumed(broker, PARKING, 1) == [poison]


async def test_a_message_whose_handler_needs_a_server_waits_for_it_as_long_as_it_takes(broker: Any) -> None:
    tries = domain.DELIVERY_LIMIT + 10
    left = iter([Unavailable("away")] * tries)
    one, other = event(), event()
    await broker.publish([one, other])

    def away(event: Event) -> None:
        if error := next(left, None):
            raise error

    assert await consumed(broker, "one", tries + 2, away) == [*[one] * (tries + 1), other]
    assert isinstance(broker, MemoryBroker) or await waiting(broker, PARKING) == 0


async def waiting(broker: Broker, queue: str) -> int:
    """How many messages are ready in a queue."""
    declared = await broker._call(broker._channel.queue_declare, queue=queue, passive=True)
    return int(declared.method.message_count)


# -- RabbitMQ alone


def bad_messages() -> dict[str, tuple[dict[str, str], bytes]]:
    good = event()
    headers = {f"{ATTRIBUTE}{name}": value for name, value in good.attributes().items()}
    return {
        "no JSON": (headers, b"{"),
        "no object": (headers, b"[]"),
        "no attributes": ({}, good.body()),
        "another version": (headers | {f"{ATTRIBUTE}specversion": "9"}, good.body()),
    }


@pytest.mark.parametrize("bad", bad_messages())
async def test_a_message_that_is_no_event_is_parked(real: Broker, bad: str) -> None:
    headers, body = bad_messages()[bad]
    real._channel.basic_publish(EVENTS, "a.b.v1", body, pika.BasicProperties(headers=headers))
    good = event()
    await real.publish([good])

    assert await consumed(real, "one", 1) == [good]

    async def parked() -> bool:
        return await waiting(real, PARKING) == 1

    await until(parked, within_s=WITHIN_S)


async def test_what_was_not_acknowledged_comes_again_on_the_next_connection(url: str, real: Broker) -> None:
    one = event()
    async with Broker.connected(url, timeout_s=WITHIN_S, name="doomed") as doomed:
        deliveries = await doomed.consume("one", 10)
        await real.publish([one])
        async with asyncio.timeout(WITHIN_S):
            assert await deliveries.get() is not None
    assert await consumed(real, "one", 1) == [one]


async def test_the_message_in_hand_is_finished_and_the_others_stay_when_a_consumer_stops(real: Broker) -> None:
    first, second = event(), event()
    await real.publish([first, second])

    assert await consumed(real, "one", 1) == [first]
    await real._close()


async def test_a_consumer_whose_queue_goes_does_not_wait_for_ever(real: Broker) -> None:
    handled = Handled(1)
    consuming = asyncio.create_task(consume(real, await real.consume("one", 10), handled, handled.stop))
    async with asyncio.timeout(WITHIN_S):
        await real._call(real._channel.queue_delete, queue="one")
        with pytest.raises(Unavailable):
            await consuming


async def test_declaring_again_is_harmless_and_another_topology_ends_the_connection(real: Broker, url: str) -> None:
    await real.declare(TOPOLOGY)
    async with Broker.connected(url, timeout_s=WITHIN_S, name="other") as broker:
        other = {"x-queue-type": "classic"}
        with pytest.raises(Unavailable):
            await broker._call(broker._channel.queue_declare, queue="one", durable=True, arguments=other)
        with pytest.raises(Unavailable):
            await broker.publish([event()])
    assert broker._connection.is_closed


async def test_many_events_are_on_their_way_at_once_and_each_has_its_own_answer(
    url: str,
) -> None:
    async with Broker.connected(url, timeout_s=WITHIN_S, name="test") as broker:
        await broker.declare(Topology([Queue(name="many", types=("many.v1",))]))
        events = [event("many.v1" if number % 3 else "nobody.v1") for number in range(600)]

        assert list(await broker.publish(events)) == [number % 3 != 0 for number in range(600)]


@pytest.mark.parametrize("place", ["127.0.0.1:1", "nowhere.invalid:5672"])
async def test_a_broker_that_is_not_there_is_unavailable_in_time(place: str) -> None:
    async def connect() -> None:
        async with Broker.connected(f"amqp://a:b@{place}/x", timeout_s=1.0, name="test"):
            pass

    async with asyncio.timeout(3):
        with pytest.raises(Unavailable):
            await connect()
