"""Clients that are slow, or take nothing at all, and what that costs the process that tells them."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from socket import SO_RCVBUF, SOL_SOCKET

import pandas as pd
from websockets.asyncio.client import ClientConnection, connect

from showcase.kernel.events import Event
from showcase.platform.settings import Settings
from showcase.realtime.client import Following, Told, follow, opened
from workshop.live.following import Followers
from workshop.live.telling import order_event, product_event, telling

PRODUCTS = 40
WITHIN_S = 60.0
RECEIVES_BYTES = 64 * 1024
TEXT = "x" * 1_000


def mixed(events: int, household: int) -> Sequence[Event]:
    """Events of one household's orders and of `PRODUCTS` products, in turns."""
    return [
        order_event(household, number // 2, TEXT)
        if number % 2
        else product_event(1 + number // 2 % PRODUCTS, 1 + number // 2 // PRODUCTS, TEXT)
        for number in range(events)
    ]


def taken(frame: pd.DataFrame, events: Sequence[Event], began: float) -> pd.DataFrame:
    """What each client has taken of some events: adds `at_s`, seconds since a Unix time, and `number` of the event."""
    numbers = {event.id: number for number, event in enumerate(events, start=1)}
    return frame.assign(at_s=frame["at"] - began, number=frame["id"].map(numbers))


def is_through(followers: Followers, who: str, events: int) -> bool:
    """Whether a client has taken so many events, or was told that they were dropped."""
    dropped = sum(gap.count or 0 for gap in followers.gaps(who))
    return followers.counts()[who] + dropped >= events


def all_have(followers: Followers, clients: Sequence[str], events: int) -> bool:
    """Whether each of some clients has so many events, or was told that some are missing."""
    counts = followers.counts()
    return all(counts[who] >= events or followers.gaps(who) for who in clients)


async def with_a_window(
    url: str, token: str, settings: Settings, *, window: int, events: int, acknowledges: int
) -> list[int]:
    """How many events come to a client that acknowledges none, and how many more once it has acknowledged one.

    Args:
        events: how many are told.
        acknowledges: which of those that came, counted from 1.
    """
    came: list[list[str]] = []
    async with telling(settings) as tell, opened(url, token, window) as socket:
        await socket.send(json.dumps({"type": "subscribe", "topics": ["orders"]}))
        await socket.recv()
        await tell([order_event(1, number) for number in range(events)])
        last = order_event(1, events)
        async with follow(url, token, ["orders"]) as other:  # who has heard the last one knows that all were told
            await tell([last])
            await anext(other)
        for say in ({"type": "ping"}, {"type": "ack"}):
            if say["type"] == "ack":
                await socket.send(json.dumps(say | {"id": came[0][acknowledges - 1]}))
            came.append(await _all_that_comes(socket))
    return [len(ids) for ids in came]


async def _all_that_comes(socket: ClientConnection) -> list[str]:
    """The ids of events up to the second `pong`: the first one may overtake them, as answers do."""
    ids = []
    for _ in range(2):
        await socket.send(json.dumps({"type": "ping"}))
        while (message := json.loads(await socket.recv()))["type"] != "pong":
            ids.append(str(message["id"]))
    return ids


@asynccontextmanager
async def stalled(
    url: str, clients: int, token: str = "", topic: str = ""
) -> AsyncIterator[Sequence[ClientConnection]]:
    """Clients that are connected and read nothing: a phone in a tunnel, a tab that is asleep.

    Args:
        token: for one of our own app processes; without it they are a naive server's.
    """
    async with AsyncExitStack() as stack:
        sockets = []
        for _ in range(clients):
            if token:
                socket = await stack.enter_async_context(opened(url, token))
                await socket.send(json.dumps({"type": "subscribe", "topics": [topic]}))
                await socket.recv()
            else:
                address = url.replace("http", "ws", 1)
                socket = await stack.enter_async_context(connect(address, compression=None, proxy=None))
            socket.transport.pause_reading()
            # What the kernel takes for it is not the question, and differs from machine to machine.
            socket.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_RCVBUF, RECEIVES_BYTES)
            sockets.append(socket)
        try:
            yield sockets
        finally:
            for socket in sockets:
                socket.transport.abort()


@asynccontextmanager
async def reading(url: str) -> AsyncIterator[Callable[[int], Awaitable[None]]]:
    """A client of a naive server that reads; what it gives waits for so many messages."""
    async with connect(url.replace("http", "ws", 1), compression=None, proxy=None) as socket:

        async def messages(count: int) -> None:
            async with asyncio.timeout(WITHIN_S):
                for _ in range(count):
                    await socket.recv()

        yield messages


async def heard(events: Following, last: Event) -> None:
    """Take what a client is told, up to an event. Raises TimeoutError."""
    async with asyncio.timeout(WITHIN_S):
        async for one in events:
            if isinstance(one, Told) and one.event.id == last.id:
                return
