"""What is told at once to whoever keeps up, past the queues; what a process counts; the worker that publishes."""

import asyncio
import json
from typing import Any

import pytest

from showcase.composition import CONSUMERS
from showcase.kernel.errors import Unavailable
from showcase.kernel.ids import EventId
from showcase.platform.resources import Resources
from showcase.realtime.application.clients import QUEUE_LENGTH, Client
from showcase.realtime.application.hub import Hub
from showcase.realtime.domain import Topic
from showcase.realtime.wiring import _gauges
from tests.fakes import settings_of
from tests.fakes_realtime import MemoryStream
from tests.unit.test_realtime import STAFF, deliver, event, id_of, owner_of, positioned, running, topics

pytestmark = pytest.mark.anyio
ORDERS = Topic("orders")


class Wire:
    """A connection that has room, or not."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.has_room = True

    def send(self, text: str) -> bool:
        if self.has_room:
            self.sent.append(text)
        return self.has_room


def tell(client: Client, *numbers: int) -> None:
    for number in numbers:
        client.tell(ORDERS, "orders/a", id_of(number), str(number))


async def writer(client: Client, wire: Wire) -> None:
    """What the WebSocket does: sends what waits, one after the other."""
    while (text := await client.next()) is not None:
        wire.sent.append(text)


class World:
    """A client with its wire, and somebody who writes what waits."""

    def __init__(self) -> None:
        self.wire = Wire()
        self.client = Client(self.wire.send)
        self.writing = asyncio.create_task(writer(self.client, self.wire))

    async def settle(self) -> list[str]:
        """What was sent, once everybody had a turn."""
        for _ in range(5):
            await asyncio.sleep(0)
        return self.wire.sent


@pytest.fixture
async def world() -> Any:
    world = World()
    await world.settle()
    yield world
    world.writing.cancel()
    await asyncio.gather(world.writing, return_exceptions=True)


async def test_who_keeps_up_is_told_at_once(world: World) -> None:
    tell(world.client, 1, 2, 3)

    assert (world.wire.sent, world.client.waiting) == (["1", "2", "3"], 0)


async def test_before_anybody_writes_all_waits(world: World) -> None:
    client = Client(world.wire.send)

    tell(client, 1, 2)

    assert (world.wire.sent, client.waiting) == ([], 2)


async def test_nothing_overtakes_what_waits(world: World) -> None:
    world.wire.has_room = False
    tell(world.client, 1)
    world.wire.has_room = True
    tell(world.client, 2, 3)

    assert await world.settle() == ["1", "2", "3"]
    tell(world.client, 4)
    assert world.wire.sent == ["1", "2", "3", "4"]


async def test_whoever_has_no_room_is_slow(world: World) -> None:
    world.writing.cancel()
    await asyncio.gather(world.writing, return_exceptions=True)
    world.wire.has_room = False

    tell(world.client, *range(QUEUE_LENGTH + 1))

    assert world.client.closing.result().code == 1013


async def test_what_is_told_at_once_counts_for_the_window(world: World) -> None:
    world.client.window = 2
    tell(world.client, 1, 2, 3, 4)
    assert await world.settle() == ["1", "2"]

    world.client.acknowledge(id_of(1))

    assert await world.settle() == ["1", "2", "3"]


async def test_nothing_is_told_at_once_after_the_end(world: World) -> None:
    world.client.close(1008, "the session has ended", at_once=True)
    tell(world.client, 1)

    assert await world.settle() == []
    tell(world.client, 2)
    assert await world.settle() == []


# -- what is counted


def counted(hub: Hub) -> dict[str, float]:
    """As `/metrics` has it."""
    return {what: value for gauge in _gauges(hub) for what, value in gauge.values.items()}


async def test_sockets_and_what_waits_are_counted_as_they_are_now() -> None:
    hub = await positioned()
    clients = [Client(), Client()]
    for client in clients:
        hub.join(client)
        hub.signed_in(client, STAFF)
        await hub.subscribe(client, topics("orders"))
    deliver(hub, 1, event())
    assert (counted(hub)["sockets"], counted(hub)["waiting"]) == (2, 4)

    hub.leave(clients[0])

    assert (counted(hub)["sockets"], counted(hub)["waiting"]) == (1, 2)


async def test_what_happened_is_counted() -> None:
    stream = MemoryStream(length=10)
    old = await stream.end()
    for _ in range(20):
        await stream.publish(event())
    hub = Hub(stream, owner_of)
    async with running(hub):
        comes_back, too_late, slow = Client(), Client(), Client()
        for client in (comes_back, too_late, slow):
            hub.join(client)
            hub.signed_in(client, STAFF)
        await hub.subscribe(too_late, topics("orders"), after=old)
        await hub.subscribe(comes_back, topics("orders"), after=stream.kept[-3].place)
        await hub.subscribe(slow, topics("ops"))
        await asyncio.gather(*filter(None, (too_late.catching_up, comes_back.catching_up)))
        assert counted(hub) | {"waiting": 0} == {"sockets": 3, "waiting": 0, "resumed": 1, "reset": 1, "told": 2}
        hub.unsubscribe(comes_back, topics("orders"))
        hub.unsubscribe(too_late, topics("orders"))

    for number in range(QUEUE_LENGTH + 7):
        deliver(hub, number, event())
    slow.close(1012, "come back")
    for client in (comes_back, too_late, slow):
        hub.leave(client)

    assert counted(hub) == {
        "sockets": 0,
        "waiting": 0,
        "resumed": 1,
        "reset": 1,
        "told": 2 + QUEUE_LENGTH + 7,
        "dropped": 7,
        "closed 1012": 1,
    }


async def test_event_is_written_as_text_once_however_many_follow() -> None:
    hub = await positioned()
    wires = [Wire() for _ in range(3)]
    for wire in wires:
        client = Client(wire.send)
        hub.join(client)
        hub.signed_in(client, STAFF)
        await hub.subscribe(client, topics("orders"))
        await client.next()
        waiting = asyncio.create_task(client.next())
        await asyncio.sleep(0)
        client.closing.add_done_callback(lambda _, waiting=waiting: waiting.cancel())  # type: ignore[misc]  # a default

    deliver(hub, 1, event())

    first, *others = (wire.sent[0] for wire in wires)
    assert json.loads(first)["id"] == id_of(1)
    assert all(one is first for one in others)
    hub.break_off(1012, "bye")


# -- the worker that publishes


async def test_messages_wait_while_redis_is_away() -> None:
    async with Resources(settings_of({"SHOWCASE_REDIS_STATE_URL": "redis://127.0.0.1:1/0"})) as resources:
        inbox = CONSUMERS["realtime"](resources).inbox

        assert inbox is not None
        with pytest.raises(Unavailable):
            await inbox.seen([EventId("a")])
        with pytest.raises(Unavailable):
            await inbox.leave(EventId("a"))
        assert await inbox.enter([EventId("a")]) == {"a"}
