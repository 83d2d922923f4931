"""What is told to whoever keeps up goes out at once, and changes nothing about order, windows and closing."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import UUID

import pytest

from showcase.kernel.errors import Unauthenticated
from showcase.kernel.principal import Principal
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from showcase.platform.web.protocols import WebSocket
from showcase.realtime.api import Door, socket_route
from showcase.realtime.application.clients import Client
from showcase.realtime.application.hub import Hub
from showcase.realtime.application.messages import Pong
from showcase.realtime.application.ports import Stored
from showcase.realtime.application.recent import Known
from tests.fakes import serving, settings_of, until
from tests.fakes_realtime import MemoryTickets
from tests.unit.test_realtime import STAFF, Socket, deliver, event, id_of, place, positioned, topics

pytestmark = pytest.mark.anyio


class Line:
    """A connection: what went over it at once, and in all."""

    def __init__(self) -> None:
        self.has_room = True
        self.at_once: list[str] = []
        self.sent: list[str] = []

    def send_at_once(self, text: str) -> bool:
        if self.has_room:
            self.at_once.append(id_in(text))
            self.sent.append(id_in(text))
        return self.has_room


def id_in(text: str) -> str:
    """Of an event; of anything else what it is."""
    message = json.loads(text)
    return str(message.get("id", message["type"]))


@asynccontextmanager
async def following(window: int | None = None) -> AsyncIterator[tuple[Hub, Client, Line]]:
    """A client of all orders that was sent all there was."""
    hub, line = await positioned(), Line()
    client = Client(line.send_at_once)
    hub.join(client)
    hub.signed_in(client, STAFF)
    client.window = window

    async def write() -> None:
        while (text := await client.next()) is not None:
            line.sent.append(id_in(text))

    writing = asyncio.create_task(write())
    try:
        await hub.subscribe(client, topics("orders"))
        await settled()
        yield hub, client, line
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)


async def settled() -> None:
    """Every task that can go on has done so."""
    for _ in range(3):
        await asyncio.sleep(0)


async def test_who_keeps_up_is_told_at_once() -> None:
    async with following() as (hub, client, line):
        deliver(hub, 1, event())
        deliver(hub, 2, event())

        assert line.at_once == [id_of(1), id_of(2)]
        assert client.waiting == 0
        await settled()
        assert line.sent == ["subscribed", id_of(1), id_of(2)]


async def test_nothing_overtakes_what_waits() -> None:
    async with following() as (hub, client, line):
        line.has_room = False
        deliver(hub, 1, event())
        line.has_room = True
        deliver(hub, 2, event())
        client.answer(Pong())
        deliver(hub, 3, event())

        assert line.at_once == []
        await settled()
        deliver(hub, 4, event())
        assert line.sent == ["subscribed", "pong", id_of(1), id_of(2), id_of(3), id_of(4)]
        assert line.at_once == [id_of(4)]


async def test_window_counts_what_was_told_at_once() -> None:
    async with following(window=2) as (hub, client, line):
        for number in range(5):
            deliver(hub, number, event())
        assert line.at_once == [id_of(0), id_of(1)]

        await settled()
        assert line.sent[1:] == [id_of(0), id_of(1)]
        client.acknowledge(id_of(1))
        await settled()
        assert line.sent[1:] == [id_of(number) for number in range(4)]


async def test_nothing_overtakes_what_waits_for_a_window_that_is_opened_wider() -> None:
    async with following(window=1) as (hub, client, line):
        for number in range(3):
            deliver(hub, number, event())
        await settled()

        client.window = 100
        deliver(hub, 3, event())
        await settled()

        assert line.sent[1:] == [id_of(number) for number in range(4)]


def test_event_is_written_once_for_each_of_its_topics() -> None:
    happened = event()
    known = Known.of(Stored(place=place(1), event=happened))
    one, other = topics("orders", "households/7")

    assert known.text(happened, one) is known.text(happened, one)
    assert [json.loads(known.text(happened, topic))["topic"] for topic in (one, other)] == ["orders", "households/7"]


async def test_nobody_is_told_at_once_what_comes_after_the_close() -> None:
    async with following() as (hub, client, line):
        client.close(1012, "bye")
        deliver(hub, 1, event())

        await settled()
        assert line.sent == ["subscribed"]


async def test_connection_that_is_full_or_over_takes_nothing_at_once() -> None:
    """Over a real connection, by what uvicorn is told to speak."""
    seen: list[WebSocket] = []

    class Seen(WebSocket):
        def send_at_once(self, text: str) -> bool:
            if self not in seen:
                seen.append(self)
            return super().send_at_once(text)

    async def nobody(token: str, *, sensitive: bool = False) -> Principal:
        raise Unauthenticated("no such token")

    async def has_ended(session_id: UUID, *, sensitive: bool) -> bool:
        return False

    async def is_left() -> bool:
        return hub.clients == 0

    hub = await positioned()
    door = Door(tickets=MemoryTickets({"staff": STAFF}), has_ended=has_ended)
    app = build(Resources(settings_of({})), [Slice(name="realtime", routers=(socket_route(hub, door),))], nobody)
    async with serving(app, ws=Seen) as address:
        async with Socket.opened(f"ws://{address}/ws") as socket:
            await socket.hello("staff")
            await socket.ask({"type": "subscribe", "topics": ["orders"]})
            deliver(hub, 1, event())
            assert (await socket.answer())["id"] == id_of(1)
            (connection,) = seen

            connection.pause_writing()
            assert not connection.send_at_once('{"type": "pong"}')
            connection.resume_writing()
            deliver(hub, 2, event())
            assert (await socket.answer())["id"] == id_of(2)
        await until(is_left)
        assert not connection.send_at_once('{"type": "pong"}')
