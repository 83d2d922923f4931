"""What only a real broker does: many at once, connections that break, strangers, and a topology that is another."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pika
import pytest
from pika import frame, spec

from showcase.kernel.errors import Unavailable
from showcase.messaging import domain
from showcase.messaging.domain import EVENTS, PARKING, Message, Outcome, Queue, Route, Topology, straight_to
from showcase.messaging.infrastructure import confirms, wire
from showcase.messaging.infrastructure.amqp import Broker, TopologyMismatch
from showcase.messaging.infrastructure.definitions import definitions
from showcase.messaging.infrastructure.wire import UNREADABLE
from tests.fakes import until
from tests.lines import Line
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
RABBITMQ = ("SHOWCASE_RABBITMQ_URL", "SHOWCASE_RABBITMQ_API_URL")
TOPOLOGY = Topology(queues=[Queue(name="one", types=("a.#",))], retries=[timedelta(seconds=1)])
WITHIN_S = 5.0
TAKEN, REFUSED, UNROUTABLE, TOO_LARGE = Outcome


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Stack.attach() as stack, Namespace.create({name: stack.urls[name] for name in RABBITMQ}) as names:
        yield names.rabbitmq_url


@pytest.fixture
async def broker(url: str) -> AsyncIterator[Broker]:
    async with Broker.connected(url, timeout_s=WITHIN_S, name="test") as broker:
        await broker.declare(TOPOLOGY)
        for queue in ("one", PARKING):
            await broker._connection.call(broker._channel.queue_purge, queue=queue)
        yield broker


def message(number: int = 0, type_: str = "a.b.v1", id_: str = "the same") -> Message:
    return Message(attributes={"id": id_}, body=b"%d" % number, route=Route(EVENTS, type_))


async def take(deliveries: "asyncio.Queue[Any]", count: int) -> list[Any]:
    async with asyncio.timeout(WITHIN_S):
        return [await deliveries.get() for _ in range(count)]


async def test_callers_at_the_same_time_each_have_their_own_outcomes_and_order(broker: Broker) -> None:
    def kind(number: int) -> str:
        return "a.v1" if number % 3 else "nobody.v1"

    lanes = [[message(1000 * lane + number, kind(number)) for number in range(450)] for lane in range(3)]

    outcomes = await asyncio.gather(*(broker.publish(lane) for lane in lanes))

    assert [list(one) for one in outcomes] == [[TAKEN if number % 3 else UNROUTABLE for number in range(450)]] * 3
    delivered = [int(one.body) for one in await take(await broker.consume("one", 1000), 900)]
    of_each = [[number for number in delivered if number // 1000 == lane] for lane in range(3)]
    assert of_each == [[1000 * lane + number for number in range(450) if number % 3] for lane in range(3)]
    await broker.hand_back()


async def test_no_more_than_so_many_are_ever_on_their_way(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirms, "OUT", 100)
    most = 0

    async def watch() -> None:
        nonlocal most
        while True:
            most = max(most, len(broker._confirms._unconfirmed))
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    assert set(await broker.publish([message(number) for number in range(1_000)])) == {TAKEN}
    watching.cancel()
    assert 0 < most <= 100


async def test_what_was_on_its_way_when_the_line_was_cut_is_unavailable_at_once(url: str, broker: Broker) -> None:
    async with Line.to(url) as line, Broker.connected(line.url, timeout_s=WITHIN_S, name="cut") as doomed:
        deliveries = await doomed.consume("one", 10)
        await doomed.publish([message()])
        publishing = [asyncio.create_task(doomed.publish([message()] * 2_000)) for _ in range(2)]
        await take(deliveries, 2)  # some of them have got through
        line.cut()
        async with asyncio.timeout(WITHIN_S / 2):
            for one in publishing:
                with pytest.raises(Unavailable):
                    await one
            while await deliveries.get() is not None:
                pass
        with pytest.raises(Unavailable):
            doomed.acknowledge([])
        with pytest.raises(Unavailable):
            await doomed.depths(["one"])


async def test_a_silent_broker_is_unavailable_in_time_and_left_in_time(url: str, broker: Broker) -> None:
    began = asyncio.get_running_loop().time()
    async with Line.to(url) as line, Broker.connected(line.url, timeout_s=0.3, name="silent") as deaf:
        line.freeze()
        with pytest.raises(Unavailable, match="does not answer in time"):
            await deaf.publish([message()])
    assert asyncio.get_running_loop().time() - began < 2.0
    assert deaf._connection._connection.is_closed


async def test_a_blocked_broker_is_waited_for_and_then_unavailable_for_that_reason(
    url: str, broker: Broker, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Line.to(url) as line, Broker.connected(line.url, timeout_s=0.3, name="blocked") as blocked:
        line.say(frame.Method(0, spec.Connection.Blocked("low on memory")).marshal())
        await until(lambda: _is(not blocked._connection._unblocked.is_set()), within_s=WITHIN_S)
        with pytest.raises(Unavailable, match="memory or disk"):
            await blocked.publish([message()])
        publishing = asyncio.create_task(blocked.publish([message()]))
        assert await broker.depths(["one"]) == {"one": (0, 0)}  # nothing was sent
        line.say(frame.Method(0, spec.Connection.Unblocked()).marshal())
        assert await publishing == [TAKEN]
    assert capsys.readouterr().out.count("low on memory") == 1


async def _is(value: object) -> object:
    return value


async def test_heartbeats_go_on_while_a_handler_takes_its_time(broker: Broker, url: str) -> None:
    await broker.publish([message()])
    async with Broker.connected(url, timeout_s=WITHIN_S, name="slow", heartbeat_s=1) as slow:
        delivered = await take(await slow.consume("one", 10), 1)
        heard = slow._connection._connection.frames_received
        # The broker sends one each half second, and hangs up when it has heard none for two.
        await until(lambda: _is(slow._connection._connection.frames_received >= heard + 6), within_s=10)
        slow.acknowledge(delivered)
        await slow.hand_back()
    assert await broker.depths(["one"]) == {"one": (0, 0)}


async def test_what_was_not_acknowledged_comes_again_on_the_next_connection(url: str, broker: Broker) -> None:
    async with Broker.connected(url, timeout_s=WITHIN_S, name="doomed") as doomed:
        deliveries = await doomed.consume("one", 10)
        await broker.publish([message(1)])
        await take(deliveries, 1)
    [again] = await take(await broker.consume("one", 10), 1)
    assert again.body == b"1"
    await broker.hand_back()


async def test_a_consumer_whose_queue_goes_does_not_wait_for_ever(url: str, broker: Broker) -> None:
    async with Broker.connected(url, timeout_s=WITHIN_S, name="test") as consumer:
        deliveries = await consumer.consume("one", 10)
        await broker._connection.call(broker._channel.queue_delete, queue="one")
        assert await take(deliveries, 1) == [None]
        with pytest.raises(Unavailable, match="the queue is gone"):
            consumer.check()


async def test_declaring_again_is_harmless_and_another_topology_a_clear_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    topology = Topology(queues=[Queue(name="long", types=("l.v1",))])
    async with Broker.connected(url, timeout_s=WITHIN_S, name="test") as broker:
        await broker.declare(topology)
        await broker.declare(topology)
        monkeypatch.setattr(domain, "MAX_LENGTH", 5)
        with pytest.raises(TopologyMismatch) as caught:
            await broker.declare(topology)
        assert list(await broker.publish([message(type_="l.v1")])) == [TAKEN]  # it costs nobody the connection
    said = str(caught.value)
    assert "queue 'long'" in said
    assert "x-max-length" in said
    assert "100000" in said
    assert "'5'" in said
    assert "\n" not in said


async def test_what_the_management_imports_is_what_a_process_declares() -> None:
    with Stack.attach() as stack, Namespace.create({name: stack.urls[name] for name in RABBITMQ}) as names:
        vhost = urlsplit(names.rabbitmq_url).path[1:]
        api = urlsplit(stack.urls["SHOWCASE_RABBITMQ_API_URL"])
        login = (api.username or "", api.password or "")
        async with httpx.AsyncClient(base_url=f"http://{api.hostname}:{api.port}/api", auth=login) as management:
            imported = await management.post(f"/definitions/{vhost}", json=definitions(TOPOLOGY, vhost))
            assert imported.status_code == httpx.codes.NO_CONTENT
            before = (await management.get(f"/definitions/{vhost}")).json()
            async with Broker.connected(names.rabbitmq_url, timeout_s=WITHIN_S, name="test") as broker:
                await broker.declare(TOPOLOGY)
                assert list(await broker.publish([message()])) == [TAKEN]
                assert await broker.depths(["one"]) == {"one": (1, 0)}
            assert (await management.get(f"/definitions/{vhost}")).json() == before
    assert len(before["queues"]) == len(list(TOPOLOGY.declared()))


ODD: dict[str, pika.BasicProperties] = {
    "no properties": pika.BasicProperties(),
    "another content type and encoding": pika.BasicProperties(content_type="text/xml", content_encoding="gzip"),
    "attributes that are no text": pika.BasicProperties(headers={"cloudEvents:id": 7, "cloudEvents:type": {"a": [1]}}),
    "a header whose name is no UTF-8": pika.BasicProperties(headers={b"cloudEvents:\xff": "x"}),
    "60 KB of headers": pika.BasicProperties(headers={"x": "y" * 60_000}),
}


@pytest.mark.parametrize("odd", ODD)
async def test_what_a_stranger_sends_is_handed_over_and_sent_on_like_any_other(broker: Broker, odd: str) -> None:
    broker._channel.basic_publish("", "one", b"\xff", ODD[odd])
    broker._confirms.sent(1, 0)
    deliveries = await broker.consume("one", 10)
    [strange] = await take(deliveries, 1)
    assert strange.body == b"\xff"
    copy = Message(attributes=strange.attributes, headers=strange.headers, body=strange.body, route=straight_to("one"))
    assert list(await broker.publish([copy])) == [TAKEN]
    broker.acknowledge([strange])
    [again] = await take(deliveries, 1)
    assert (again.attributes, again.body) == (strange.attributes, strange.body)
    broker.acknowledge([again])
    await broker.hand_back()


async def test_headers_that_pika_cannot_read_end_no_connection(broker: Broker) -> None:
    marked = Message(attributes={"id": "1"}, headers={"x": "TIME"}, body=b"1", route=straight_to("one"))
    sent = wire.frames(marked, broker._channel.channel_number, broker._confirms.next_tag, 131_072)
    broker._connection.send(sent.replace(b"S\0\0\0\x04TIME", b"T\x80\0\0\0\0\0\0\0"))  # the year 292277026596
    broker._confirms.sent(1, len(sent))
    [strange] = await take(await broker.consume("one", 10), 1)
    assert strange.body == b"1"
    assert strange.attributes == {}
    assert b"cloudEvents:id" in strange.headers[UNREADABLE]
    broker.acknowledge([strange])
    await broker.hand_back()


@pytest.mark.parametrize("place", ["127.0.0.1:1", "nowhere.invalid:5672"])
async def test_a_broker_that_is_not_there_is_unavailable_in_time(place: str) -> None:
    async def connect() -> None:
        async with Broker.connected(f"amqp://a:b@{place}/x", timeout_s=1.0, name="test"):
            pass

    async with asyncio.timeout(3):
        with pytest.raises(Unavailable):
            await connect()
