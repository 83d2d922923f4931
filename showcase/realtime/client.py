"""A client of the WebSocket: follow topics, and iterate over what is told.

    async with follow(url, token, ["orders"]) as events:
        async for told in events:
            print(told.event.type)

It does not come back by itself when the connection ends.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from showcase.kernel.events import Event
from showcase.realtime.api import SUBPROTOCOL

ANSWER_WITHIN_S = 10.0


class Refused(Exception):
    """The server answered with an error.

    Attributes:
        problem: RFC 9457, as it came.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem['title']}: {problem['detail']}")
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event, with the topic under which it came and its place in the stream."""

    id: str
    topic: str
    event: Event


@asynccontextmanager
async def follow(url: str, token: str, topics: Sequence[str]) -> AsyncIterator[AsyncIterator[Told]]:
    """Follow topics on one connection; begins when the server has confirmed all of them.

    Args:
        url: `ws://host:port/ws`.
        token: an access token.

    The iterator ends when the server closes the connection for good (1000, 1001), and raises
    websockets.ConnectionClosedError, which knows code and reason, when it breaks off otherwise.

    Raises Refused; OSError and websockets.WebSocketException when there is no connection.
    """
    # No proxy: a token is for the server and nobody on the way.
    async with connect(
        url, subprotocols=[Subprotocol(SUBPROTOCOL)], compression=None, proxy=None, open_timeout=ANSWER_WITHIN_S
    ) as socket:
        await socket.send(json.dumps({"type": "hello", "token": token}))
        early: list[Told] = []
        await _confirmed(socket, "welcome", early)
        for topic in topics:
            await socket.send(json.dumps({"type": "subscribe", "topic": topic}))
        for _ in topics:
            await _confirmed(socket, "subscribed", early)
        yield _events(socket, early)


async def _confirmed(socket: ClientConnection, expected: str, early: list[Told]) -> None:
    """Wait for a message of a type; events of the first topics may come before the last is confirmed."""
    while True:
        message = await _receive(socket)
        if isinstance(message, Told):
            early.append(message)
        elif message == expected:
            return


async def _events(socket: ClientConnection, early: Sequence[Told]) -> AsyncIterator[Told]:
    for told in early:
        yield told
    async for text in socket:
        message = _read(text)
        if isinstance(message, Told):
            yield message


async def _receive(socket: ClientConnection) -> Told | str:
    async with asyncio.timeout(ANSWER_WITHIN_S):
        return _read(await socket.recv())


def _read(text: str | bytes) -> Told | str:
    """The event in a message, or the type of one without. Raises Refused."""
    message = json.loads(text)
    if message["type"] == "error":
        raise Refused(message["problem"])
    if message["type"] != "event":
        return str(message["type"])
    attributes = message["event"]
    event = Event.read(attributes, json.dumps(attributes["data"]).encode())
    return Told(id=message["id"], topic=message["topic"], event=event)
