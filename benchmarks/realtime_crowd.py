"""A crowd of WebSocket clients in one process: they count what they are told, and do little else.

So the server is what is measured, and a message costs the crowd the same whoever has sent it. Whoever is told an event
too often, or loses its connection, ends the benchmark.
"""

import asyncio
import json
import re
import time
from collections.abc import Sequence
from typing import Any, Self, cast

from websockets.frames import Frame, Opcode

from benchmarks.load import Address, Refused, request

MARK = b'"mark":'
"""In every event that is counted, once, and in nothing else."""
WITHIN_S = 60.0
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_AT = re.compile(rb'"at":"([^"]+)"')
_HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    b"Sec-WebSocket-Protocol: showcase.v1\r\n\r\n"
)


class Ear(asyncio.Protocol):
    """One connection."""

    def __init__(self, crowd: "Crowd") -> None:
        self.told = 0
        self._crowd = crowd
        self._tail = b""
        self._read = b""
        self._awaited: tuple[bytes, asyncio.Future[None]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but its class

    def data_received(self, data: bytes) -> None:
        data = self._tail + data if self._tail else data
        if count := data.count(MARK):
            self.told += count
            self._crowd.heard(self.told)
        self._tail = b"" if data.endswith(b"}") else data[1 - len(MARK) :]  # a mark may be cut in two
        if self._awaited is not None:
            self._read += data
            text, found = self._awaited
            if text in self._read and not found.done():
                found.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lost(self, exc)

    def say(self, **message: Any) -> None:
        """Send a message of the protocol."""
        self.transport.write(Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True))

    async def answer(self, text: bytes) -> bytes:
        """What was read since the last answer, once this is in it. Raises Refused with what is there instead."""
        found = asyncio.get_running_loop().create_future()
        self._read, self._awaited = b"", (text, found)
        try:
            async with asyncio.timeout(WITHIN_S):
                await found
            return self._read
        except TimeoutError as error:
            raise Refused(self._read[-500:].decode(errors="replace")) from error
        finally:
            self._awaited = None


class Crowd:
    """Clients of one server.

    Args:
        tokens: access tokens, used in turn; without any, whoever shakes hands is told all there is.
    """

    def __init__(self, address: Address, tokens: Sequence[str] = ()) -> None:
        self.ears: set[Ear] = set()
        self.at = ""
        """The place in the stream at which one of them has subscribed."""
        self._address, self._tokens = address, tokens
        self._goal = self._left = 0
        self._last: asyncio.Future[float] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.go()

    async def come(self, count: int, lanes: int, after: str | None = None) -> float:
        """So many connect, and are ready to be told: how many a second.

        Args:
            lanes: so many connect at once.
            after: the id of the event that they saw last.

        Raises Refused, OSError.
        """
        numbers = iter(range(count))

        async def lane() -> None:
            async with _Desk(self._address) as desk:
                for number in numbers:
                    await self._enter(desk, number, after)

        began = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(lanes):
                tasks.create_task(lane())
        return count / (time.perf_counter() - began)

    async def _enter(self, desk: "_Desk", number: int, after: str | None) -> None:
        ticket = await desk.ticket(self._tokens[number % len(self._tokens)]) if self._tokens else ""
        _, ear = await asyncio.get_running_loop().create_connection(lambda: Ear(self), *self._address)
        ear.transport.write(_HANDSHAKE)
        await ear.answer(b"\r\n\r\n")
        if ticket:
            ear.say(type="hello", ticket=ticket)
            await ear.answer(b'"welcome"')
            ear.say(type="subscribe", topics=["orders"], **({} if after is None else {"after": after}))
            subscribed = _AT.search(await ear.answer(b'"subscribed"'))
            self.at = subscribed[1].decode() if subscribed else self.at
        self.ears.add(ear)

    def go(self) -> None:
        """All of them break off, at once."""
        ears, self.ears, self._goal, self._last = self.ears, set(), 0, None
        for ear in ears:
            ear.transport.abort()

    def expect(self, events: int, count: int | None = None) -> "asyncio.Future[float]":
        """When the last of them has been told so many more events, by `time.perf_counter()`.

        Args:
            count: so many clients, some of whom are still to come.
        """
        self._goal += events
        self._left = len(self.ears) if count is None else count
        self._last = asyncio.get_running_loop().create_future()
        return self._last

    def heard(self, told: int) -> None:
        """One of them has been told so many events in all."""
        if told < self._goal:
            return
        self._left -= 1
        if self._last is None or self._last.done():
            return
        if told > self._goal:
            self._last.set_exception(Refused(f"one was told {told} events, not {self._goal}"))
        elif self._left == 0:
            self._last.set_result(time.perf_counter())

    def lost(self, ear: Ear, error: Exception | None) -> None:
        """One connection has ended."""
        if ear in self.ears and self._last is not None and not self._last.done():
            self._last.set_exception(ConnectionResetError(f"a client was cut off: {error}"))


class _Desk:
    """Where tickets are had: a connection that is kept alive."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._line: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._line is not None:
            self._line[1].close()

    async def ticket(self, token: str) -> str:
        """Raises Refused, OSError."""
        async with asyncio.timeout(WITHIN_S):
            if self._line is None:
                self._line = await asyncio.open_connection(*self._address)
            reader, writer = self._line
            writer.write(request("POST", "/realtime/tickets", token=token))
            head = await reader.readuntil(b"\r\n\r\n")
            length = _LENGTH.search(head)
            body = await reader.readexactly(int(length[1]) if length else 0)
        if not head.startswith(b"HTTP/1.1 201"):
            raise Refused(f"{head.decode()}{body.decode(errors='replace')}")
        return str(json.loads(body)["ticket"])
