"""The benchmark of real time: the crowd counts rightly, and a row says whether its target is met."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.typing import Subprotocol

from benchmarks.load import Refused
from benchmarks.realtime import Row, beside, percentile_ms
from benchmarks.realtime_crowd import MARK, Crowd, Ear
from benchmarks.realtime_system import event
from showcase.realtime.application.messages import SUBPROTOCOL
from showcase.realtime.application.recent import text_of_event
from showcase.realtime.domain import ALL_ORDERS, Place
from tests.fakes import until

pytestmark = pytest.mark.anyio


def text(number: int) -> str:
    """An event as it is told."""
    return text_of_event(Place("00000001", (number, 0)), event(number), ALL_ORDERS)


@asynccontextmanager
async def crowd(count: int) -> AsyncIterator[tuple[Crowd, set[ServerConnection]]]:
    """Clients of a bare server, and its connections."""
    connections: set[ServerConnection] = set()

    async def stay(connection: ServerConnection) -> None:
        connections.add(connection)
        await connection.wait_closed()

    async with serve(stay, "127.0.0.1", 0, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None) as server:
        host, port = server.sockets[0].getsockname()
        async with Crowd((host, port)) as found:
            await found.come(count, lanes=3)
            yield found, connections


async def test_crowd_has_been_told_when_the_last_of_it_has_everything() -> None:
    async with crowd(5) as (clients, connections), asyncio.timeout(20):

        async def all_but_one_are_told() -> bool:
            return sum(ear.told for ear in clients.ears) == 9

        last = clients.expect(2)
        broadcast(connections, text(1))
        late, *others = connections
        broadcast(others, text(2))
        await until(all_but_one_are_told)
        assert not last.done()

        broadcast([late], text(2))

        await last
        assert [ear.told for ear in clients.ears] == [2] * 5


async def test_crowd_refuses_an_event_too_many() -> None:
    async with crowd(2) as (clients, connections), asyncio.timeout(20):
        last = clients.expect(1)
        one, _ = connections
        broadcast([one], text(1))
        broadcast([one], text(2))

        with pytest.raises(Refused):
            await last


async def test_crowd_notices_that_one_is_cut_off() -> None:
    async with crowd(2) as (clients, connections), asyncio.timeout(20):
        last = clients.expect(1)
        next(iter(connections)).transport.abort()

        with pytest.raises(ConnectionResetError):
            await last


@pytest.mark.parametrize("size", [1, 2, 5, 300])
async def test_event_is_counted_once_however_it_is_cut(size: int) -> None:
    told = "".join(text(number) for number in range(20)).encode()
    ear = Ear(Crowd(("127.0.0.1", 0)))

    for at in range(0, len(told), size):
        ear.data_received(told[at : at + size])

    assert ear.told == 20 == told.count(MARK)


@pytest.mark.parametrize(("ours", "at_most", "is_met"), [(19.0, 2.0, True), (21.0, 2.0, False), (99.0, None, True)])
def test_row_is_met_up_to_its_target(ours: float, at_most: float | None, is_met: bool) -> None:
    row = Row("one event, ms", ours, "peer", 10.0, at_most)

    assert row.is_met is is_met
    assert ("MISSED" in str(row)) is not is_met


def test_ours_stands_beside_each_peer() -> None:
    assert list(beside({"ours": 3.0, "bare": 1.0, "behind": 2.0})) == [("bare", 3.0, 1.0), ("behind", 3.0, 2.0)]


def test_percentile_is_of_all_that_was_measured() -> None:
    assert percentile_ms([number / 1_000 for number in range(101)], 99) == pytest.approx(99.0)
    assert percentile_ms([number / 1_000 for number in range(101)], 50) == pytest.approx(50.0)
