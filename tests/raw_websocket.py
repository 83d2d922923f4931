"""A WebSocket spoken byte by byte (RFC 6455), also as nobody should."""

import asyncio
import base64
import json
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Frame:
    """RFC 6455 §5.2, right or wrong."""

    opcode: int = TEXT
    payload: bytes = b""
    fin: bool = True
    reserved: int = 0
    masked: bool = True

    def __repr__(self) -> str:
        shown = self.payload if len(self.payload) < 60 else self.payload[:10] + b" and so on"
        bits = f"fin={self.fin}, reserved={self.reserved}, masked={self.masked}"
        return f"Frame({self.opcode:#x}, {shown!r}, {len(self.payload)} bytes, {bits})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """For hypothesis, which else shows 64 KiB as they are."""
        printer.text(repr(self))

    def encoded(self) -> bytes:
        head = bytes([self.fin << 7 | self.reserved << 4 | self.opcode])
        length, mask = len(self.payload), self.masked << 7
        if length < 126:
            head += bytes([mask | length])
        elif length < 2**16:
            head += struct.pack("!BH", mask | 126, length)
        else:
            head += struct.pack("!BQ", mask | 127, length)
        if not self.masked:
            return head + self.payload
        key = b"\x1f\x2e\x3d\x4c"
        times = length // 4 + 1
        whole = int.from_bytes(self.payload, "little") ^ int.from_bytes((key * times)[:length], "little")
        return head + key + whole.to_bytes(length, "little")


def text(message: object) -> Frame:
    return Frame(payload=message if isinstance(message, bytes) else json.dumps(message).encode())


def closing(code: int, reason: bytes = b"") -> Frame:
    return Frame(opcode=CLOSE, payload=struct.pack("!H", code) + reason)


HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: showcase.v1{also}\r\n\r\n"
)


class Raw:
    """A connection to `/ws`, written to and read from byte by byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.heard: list[dict[str, object]] = []
        self.said_bye = False

    @classmethod
    @asynccontextmanager
    async def opened(cls, address: str, ticket: str = "") -> "AsyncIterator[Raw]":
        host, _, port = address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        raw = cls(reader, writer)
        try:
            writer.write(handshake(address, ticket))
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert head.startswith(b"HTTP/1.1 101"), head
            yield raw
        finally:
            writer.transport.abort()

    async def send(self, *frames: Frame) -> None:
        """All at once: they may arrive in one piece. One that is gone already is told nothing."""
        self.said_bye |= any(frame.opcode == CLOSE for frame in frames)
        with suppress(ConnectionError):
            self.writer.write(b"".join(frame.encoded() for frame in frames))
            await self.writer.drain()

    async def frame(self) -> Frame:
        """The next one of the server's. Raises asyncio.IncompleteReadError, ConnectionError at the end."""
        first, length = await self.reader.readexactly(2)
        assert not length & 0x80, "a server masks nothing"
        if length == 126:
            (length,) = struct.unpack("!H", await self.reader.readexactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
        return Frame(opcode=first & 0x0F, payload=await self.reader.readexactly(length), fin=bool(first & 0x80))

    async def answer(self) -> dict[str, object]:
        """The next message."""
        async with asyncio.timeout(10):
            while (frame := await self.frame()).opcode != TEXT:
                assert frame.opcode != CLOSE, frame
            answer: dict[str, object] = json.loads(frame.payload)
        return answer

    async def code(self, within_s: float = 10.0) -> int | None:
        """The code that the server closes with; None if the connection just ends. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            try:
                while (frame := await self.frame()).opcode != CLOSE:
                    if frame.opcode == TEXT:
                        self.heard.append(json.loads(frame.payload))
                (code,) = struct.unpack("!H", frame.payload[:2]) if frame.payload else (1005,)
                if not self.said_bye:  # else the server has closed, and would reset
                    await self.send(frame)
                assert await self.reader.read() == b"", "nothing comes after the close"
            except (asyncio.IncompleteReadError, ConnectionError):
                return None
        return int(code)


def handshake(address: str, ticket: str = "") -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    also = f", ticket.{ticket}" if ticket else ""
    return HANDSHAKE.format(address=address, key=key, also=also).encode()


def in_fragments(payload: bytes, size: int, opcode: int = TEXT) -> list[Frame]:
    pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [
        Frame(opcode=CONTINUED if number else opcode, payload=piece, fin=number == len(pieces) - 1)
        for number, piece in enumerate(pieces)
    ]
