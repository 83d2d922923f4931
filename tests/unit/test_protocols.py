"""What uvicorn speaks here, with the bounds that it does not set itself: heads that never end, frames that no app sees,
and those who are gone."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.websockets import WebSocket, WebSocketDisconnect

from showcase.platform.web import protocols
from showcase.platform.web.allowance import Allowance
from tests.fakes import serving, until
from tests.raw_websocket import CLOSE, CONTINUED, PING, PONG, TEXT, Frame, Raw, closing, handshake, in_fragments, text

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def server(ended: "asyncio.Future[int] | None" = None, says: str = "", **config: Any) -> AsyncIterator[str]:
    """An app that echoes texts, over these protocols.

    Args:
        ended: is told the code with which the connection has ended.
        says: to everybody who comes, again and again, rather than echo anything.
    """
    app = FastAPI()

    @app.get("/")
    async def root() -> str:
        return "here"

    @app.websocket("/ws")
    async def echo(websocket: WebSocket) -> None:
        await websocket.accept("showcase.v1")
        saying = asyncio.create_task(say(websocket))
        try:
            while True:
                await websocket.send_text(await websocket.receive_text())
        except WebSocketDisconnect as left:
            if ended is not None:
                ended.set_result(left.code)
        finally:
            saying.cancel()
            await asyncio.gather(saying, return_exceptions=True)

    async def say(websocket: WebSocket) -> None:
        while says:
            await websocket.send_text(says)

    defaults: dict[str, Any] = {
        "timeout_keep_alive": 75,
        "ws_max_size": 65_536,
        "ws_ping_interval": None,
        "ws_per_message_deflate": False,
    }
    async with serving(app, http=protocols.Http, ws=protocols.WebSocket, **defaults | config) as address:
        yield address


async def seconds_until_closed(address: str, *pieces: bytes) -> float:
    """From the first byte on; after the last one nothing more is sent."""
    reader, writer = await asyncio.open_connection(*address.split(":"))
    began = monotonic()
    ended = asyncio.create_task(reader.read())
    for piece in pieces:
        writer.write(piece)
        await asyncio.wait({ended}, timeout=0.05)
    await asyncio.wait_for(ended, 10)
    writer.close()
    return monotonic() - began


# -- heads


@pytest.mark.parametrize(
    "pieces",
    [
        (),
        (b"GET / HTTP/1.1\r\nHost: x\r\n",),
        tuple(bytes([byte]) for byte in handshake("127.0.0.1")),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\n"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\n",),
    ],
)
async def test_connection_without_the_whole_head_of_a_request_is_closed(
    monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...]
) -> None:
    monkeypatch.setattr(protocols, "HEAD_WITHIN_S", 0.2)
    async with server() as address:
        assert 0.19 < await seconds_until_closed(address, *pieces) < 3


async def test_whole_head_is_in_time_whatever_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HEAD_WITHIN_S", 0.1)
    async with server() as address, Raw.opened(address) as raw, httpx.AsyncClient(trust_env=False) as http:
        began = monotonic()
        while monotonic() - began < 0.3:
            assert (await http.get(f"http://{address}/")).status_code == 200
        await raw.send(text({"n": 1}))
        assert await raw.answer() == {"n": 1}


# -- frames


async def test_message_in_fragments_is_heard_with_pings_among_them() -> None:
    async with server() as address, Raw.opened(address) as raw:
        pieces = in_fragments('{"n": "grün"}'.encode(), 1)
        await raw.send(*(one for piece in pieces for one in (piece, Frame(opcode=PING, payload=b"?"))))

        frames = [await asyncio.wait_for(raw.frame(), 5) for _ in range(len(pieces) + 1)]

    assert sum(frame.opcode == PONG and frame.payload == b"?" for frame in frames) == len(pieces)
    assert [json.loads(frame.payload) for frame in frames if frame.opcode == TEXT] == [{"n": "grün"}]


async def test_flood_of_pings_is_closed() -> None:
    async with server() as address, Raw.opened(address) as raw:
        await raw.send(*[Frame(opcode=PING)] * (protocols.FRAMES_AT_ONCE + 200))

        assert await raw.code() == 1008


async def test_message_of_fragments_without_end_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "FRAMES_AT_ONCE", 10**9)
    async with server() as address, Raw.opened(address) as raw:
        await raw.send(Frame(fin=False), *[Frame(opcode=CONTINUED, fin=False)] * (protocols.MAX_FRAGMENTS + 10))

        assert await raw.code() == 1009


async def test_whole_messages_are_for_the_app_to_count() -> None:
    async with server() as address, Raw.opened(address) as raw:
        total = protocols.FRAMES_AT_ONCE + 500
        sending = asyncio.create_task(raw.send(*[text({})] * total))
        for _ in range(total):
            assert await raw.answer() == {}
        await sending


@pytest.mark.parametrize("frames", [[text(b"\xff")], in_fragments("grün".encode("latin-1"), 3)])
async def test_text_that_is_none_is_closed_with_1007_and_is_no_error_of_ours(
    frames: list[Frame], caplog: pytest.LogCaptureFixture
) -> None:
    async with server() as address, Raw.opened(address) as raw:
        await raw.send(*frames)

        assert await raw.code() == 1007
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_close_that_comes_with_text_that_is_none_is_no_error_of_ours(caplog: pytest.LogCaptureFixture) -> None:
    async with server() as address, Raw.opened(address) as raw:
        await raw.send(text(b"\xff"), closing(1000))

        assert await raw.code() in (1000, 1007)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize("more", [0, 10_000_000])
async def test_code_arrives_also_where_more_was_under_way(more: int) -> None:
    async with server() as address, Raw.opened(address) as raw:
        sending = asyncio.create_task(raw.send(Frame(payload=bytes(65_537 + more)), text({}), Frame(opcode=PING)))

        assert await raw.code() == 1009
        await sending


async def test_connection_that_was_failed_ends_though_its_peer_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "LINGER_S", 0.1)
    ended = asyncio.get_running_loop().create_future()
    async with server(ended) as address, Raw.opened(address) as raw:
        await raw.send(Frame(reserved=1))
        assert await asyncio.wait_for(ended, 5) == 1002
        frame = await asyncio.wait_for(raw.frame(), 5)
        assert frame.opcode == CLOSE

        async def is_cut() -> bool:
            try:
                raw.writer.write(Frame(opcode=PING).encoded())
                await raw.writer.drain()
            except ConnectionError:
                return True
            return False

        await until(is_cut)


async def test_peer_that_is_gone_is_cut_whatever_lies_in_the_buffers_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "CUT_AFTER_S", 0.1)
    ended = asyncio.get_running_loop().create_future()
    times = {"ws_ping_interval": 0.1, "ws_ping_timeout": 0.1}
    async with server(ended, says="x" * 1_000_000, **times) as address, Raw.opened(address) as raw:
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads, too

        await asyncio.wait_for(ended, 5)


async def test_allowance_is_used_up_and_comes_back() -> None:
    allowance = Allowance(per_s=100, at_once=3)

    assert [allowance.take() for _ in range(4)] == [True, True, True, False]
    assert not Allowance(per_s=100, at_once=3).take(4)

    async def two_more() -> bool:
        return allowance.take(2)

    await until(two_more)
    assert not allowance.take(2)
