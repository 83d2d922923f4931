"""One contract for the broker, in memory and RabbitMQ: publish, consume, acknowledge, hand back, retry, tell later."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import pytest

from showcase.kernel.events import Event
from showcase.messaging import domain
from showcase.messaging.domain import (
    DEAD,
    EVENTS,
    MAX_ATTRIBUTES_BYTES,
    PARKING,
    Message,
    Outcome,
    Queue,
    Route,
    Topology,
    straight_to,
)
from showcase.messaging.infrastructure.amqp import Broker
from tests.fakes import until
from tests.fakes_broker import MemoryBroker
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
RABBITMQ = ("SHOWCASE_RABBITMQ_URL", "SHOWCASE_RABBITMQ_API_URL")
SOON = timedelta(seconds=0.2)
TOPOLOGY = Topology(
    queues=[Queue(name="one", types=("a.*.v1",)), Queue(name="all", types=("a.#", "b.#"))],
    retries=[SOON],
    delays=[SOON],
)
MAX_LENGTH = 5
MAX_BYTES = 10_000
WITHIN_S = 5.0
TAKEN, REFUSED, UNROUTABLE, TOO_LARGE = Outcome


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Stack.attach() as stack, Namespace.create({name: stack.urls[name] for name in RABBITMQ}) as names:
        yield names.rabbitmq_url


@pytest.fixture
async def real(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Broker]:
    monkeypatch.setattr(domain, "MAX_LENGTH", MAX_LENGTH)
    async with Broker.connected(url, timeout_s=WITHIN_S, name="test", max_message_bytes=MAX_BYTES) as broker:
        await broker.declare(TOPOLOGY)
        for queue in ("one", "all", PARKING):
            await broker._connection.call(broker._channel.queue_purge, queue=queue)
        yield broker


@pytest.fixture(params=["memory", "rabbitmq"])
def broker(request: pytest.FixtureRequest) -> Any:
    if request.param == "memory":
        return MemoryBroker(TOPOLOGY, max_length=MAX_LENGTH, max_message_bytes=MAX_BYTES)
    return request.getfixturevalue("real")


def message(type_: str = "a.b.v1", to: Route | None = None, headers: Mapping[str, str | int] | None = None) -> Message:
    event = Event(type=type_, source="/s", subject="orders/1", data={"words": "Käse ✓"}, causation_id="0")
    return Message(
        attributes=event.attributes(), body=event.body(), route=to or Route(EVENTS, type_), headers=headers or {}
    )


async def take(deliveries: "asyncio.Queue[Any]", count: int) -> list[Any]:
    """The next ones that are handed over."""
    async with asyncio.timeout(WITHIN_S):
        return [await deliveries.get() for _ in range(count)]


async def taken(broker: Any, queue: str, count: int) -> list[Any]:
    """The first ones in a queue, acknowledged; what else is there goes back."""
    delivered = await take(await broker.consume(queue, 10), count)
    broker.acknowledge(delivered)
    await broker.hand_back()
    return delivered


def same(delivered: Sequence[Any], sent: Sequence[Message]) -> bool:
    return [(one.attributes, one.body) for one in delivered] == [(one.attributes, one.body) for one in sent]


def ready(broker: Any, queue: str, count: int) -> Callable[[], Any]:
    async def look() -> bool:
        depth: tuple[int, int] = (await broker.depths([queue]))[queue]
        return depth[0] == count

    return look


async def test_a_message_arrives_whole_and_in_order_in_each_queue_that_takes_its_type(broker: Any) -> None:
    narrow, wide, third = message("a.b.v1"), message("b.c.d.v1"), message("a.b.v1")

    assert list(await broker.publish([narrow, wide, third])) == [TAKEN] * 3
    assert same(await taken(broker, "one", 2), [narrow, third])
    assert same(await taken(broker, "all", 3), [narrow, wide, third])


async def test_headers_of_ours_stay_apart_from_the_events_attributes(broker: Any) -> None:
    await broker.publish([message(headers={"x-attempt": 2, "x-reason": "Käse"})])

    [delivered] = await taken(broker, "one", 1)
    assert delivered.headers["x-attempt"] == 2
    assert delivered.headers["x-reason"] == "Käse"
    assert not delivered.attributes.keys() & delivered.headers.keys()


async def test_each_message_has_its_own_outcome(broker: Any) -> None:
    large = Message(attributes={}, body=b"x" * (MAX_BYTES + 1), route=Route(EVENTS, "a.b.v1"))
    wordy = Message(attributes={"a": "x" * MAX_ATTRIBUTES_BYTES}, body=b"", route=Route(EVENTS, "a.b.v1"))
    sent = [message("z.v1"), message(), large, wordy, message(to=Route("no exchange", "a")), message()]

    outcomes = [UNROUTABLE, TAKEN, TOO_LARGE, TOO_LARGE, UNROUTABLE, TAKEN]
    assert list(await broker.publish(sent)) == outcomes
    assert same(await taken(broker, "one", 2), [sent[1], sent[5]])


async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(broker: Any) -> None:
    outcomes = [(await broker.publish([message(to=straight_to("one"))]))[0] for _ in range(MAX_LENGTH + 3)]
    assert outcomes[:MAX_LENGTH] == [TAKEN] * MAX_LENGTH  # RabbitMQ takes one or two more before it notices
    assert outcomes[-1] is REFUSED

    await taken(broker, "one", outcomes.count(TAKEN))

    async def room() -> bool:
        return list(await broker.publish([message(to=straight_to("one"))])) == [TAKEN]

    await until(room, within_s=WITHIN_S)


async def test_no_more_is_handed_over_than_may_be_out(broker: Any) -> None:
    sent = [message(to=straight_to("one")) for _ in range(3)]
    await broker.publish(sent)
    deliveries = await broker.consume("one", 2)
    first, second = await take(deliveries, 2)
    assert deliveries.empty()

    broker.acknowledge([second])
    [third] = await take(deliveries, 1)
    broker.acknowledge([first, third])
    assert same([first, second, third], sent)
    await broker.hand_back()
    assert await broker.depths(["one"]) == {"one": (0, 0)}


async def test_what_is_handed_back_comes_again_and_what_was_acknowledged_does_not(broker: Any) -> None:
    sent = [message(to=straight_to("one")) for _ in range(4)]
    await broker.publish(sent)
    deliveries = await broker.consume("one", 3)
    first, second, third = await take(deliveries, 3)
    broker.acknowledge([first, third])  # not the one between them

    await broker.hand_back()
    await until(ready(broker, "one", 2), within_s=WITHIN_S)
    broker.acknowledge([second])  # too late, and no harm
    assert deliveries.empty()
    back = await taken(broker, "one", 2)
    assert sorted(str(one.attributes["id"]) for one in back) == sorted(
        one.attributes["id"] for one in (sent[1], sent[3])
    )


async def test_a_retried_message_comes_back_to_its_queue_alone_after_its_time(broker: Any) -> None:
    route = TOPOLOGY.retry("one", 1)
    assert route is not None
    retried = message("b.c.v1", to=route, headers={"x-attempt": 2})
    began = asyncio.get_running_loop().time()

    assert list(await broker.publish([retried])) == [TAKEN]
    [back] = await taken(broker, "one", 1)
    assert asyncio.get_running_loop().time() - began >= SOON.total_seconds()
    assert same([back], [retried])
    assert back.headers["x-attempt"] == 2
    assert (await broker.depths(["all"]))["all"] == (0, 0)
    assert TOPOLOGY.retry("one", 2) is None


async def test_an_event_that_is_told_later_reaches_all_who_take_it_after_its_time(broker: Any) -> None:
    alarm = message("a.b.v1", to=TOPOLOGY.later("a.b.v1", SOON))
    began = asyncio.get_running_loop().time()

    assert list(await broker.publish([alarm])) == [TAKEN]
    assert same(await taken(broker, "one", 1), [alarm])
    assert asyncio.get_running_loop().time() - began >= SOON.total_seconds()
    assert same(await taken(broker, "all", 1), [alarm])


async def test_what_is_sent_to_the_dead_is_parked(broker: Any) -> None:
    dead = message(to=Route(DEAD, "one"), headers={"x-reason": "no sense in it"})

    assert list(await broker.publish([dead])) == [TAKEN]
    [parked] = await taken(broker, PARKING, 1)
    assert same([parked], [dead])
    assert parked.headers["x-reason"] == "no sense in it"


async def test_depths_count_what_is_ready_and_who_takes_it_and_miss_no_queue(broker: Any) -> None:
    await broker.publish([message(to=straight_to("one")) for _ in range(3)])
    await take(await broker.consume("one", 1), 1)

    await until(ready(broker, "one", 2), within_s=WITHIN_S)
    assert await broker.depths(["one", "nobody", "all"]) == {"one": (2, 1), "nobody": None, "all": (0, 0)}
    assert list(await broker.publish([message()])) == [TAKEN]
    await broker.hand_back()
