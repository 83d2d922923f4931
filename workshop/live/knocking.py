"""A conversation over a WebSocket, word by word, with nobody's client in between."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Subprotocol

from showcase.realtime.application.messages import SUBPROTOCOL

WITHIN_S = 10.0


async def conversation(url: str, *messages: Mapping[str, Any], ticket: str = "") -> Sequence[Mapping[str, Any]]:
    """Say something, hear the answer, say the next.

    Args:
        url: of an app process.
        ticket: goes along in the handshake; the answer to it is heard first.

    Returns what was answered; if the server closes the connection, `{"type": "closed", "code": …, "reason": …}` last.
    """
    offered = [Subprotocol(SUBPROTOCOL)] + ([Subprotocol(f"ticket.{ticket}")] if ticket else [])
    address = f"{url.rstrip('/').replace('http', 'ws', 1)}/ws"
    heard: list[Mapping[str, Any]] = []
    async with (
        asyncio.timeout(WITHIN_S),
        connect(address, subprotocols=offered, compression=None, proxy=None, close_timeout=1.0) as socket,
    ):
        try:
            if ticket:
                heard.append(json.loads(await socket.recv()))
            for message in messages:
                await socket.send(json.dumps(message))
                heard.append(json.loads(await socket.recv()))
            if heard and heard[-1]["type"] == "error" and heard[-1]["problem"]["status"] == 401:
                await socket.recv()  # nothing comes any more but the end
        except ConnectionClosed as error:
            if error.rcvd is None:
                raise
            heard.append({"type": "closed", "code": error.rcvd.code, "reason": error.rcvd.reason})
    return heard
