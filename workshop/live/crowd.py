"""Many WebSockets at once, and how long each waits for what is told to all."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pandas as pd
from websockets.asyncio.client import ClientConnection

from showcase.kernel.events import Event
from showcase.realtime.client import opened
from workshop.live.telling import Tell

AT_ONCE = 16
WITHIN_S = 60.0


class Crowd:
    """Open WebSockets that follow one topic. Made by `gathered`."""

    def __init__(self, sockets: Sequence[tuple[int, ClientConnection]]) -> None:
        self._sockets = sockets

    async def hears(self, tell: Tell, events: Sequence[Event]) -> pd.DataFrame:
        """Tell events, each when everybody has got the one before.

        Returns one row an event and socket: `number` (of the event), `socket`, `process`, `ms` (from before it was put
        into the stream, to when this socket had it). Raises TimeoutError.
        """
        rows = []
        for number, event in enumerate(events, start=1):
            async with asyncio.timeout(WITHIN_S):
                hearing = [asyncio.create_task(self._hear(socket, event.id)) for _, socket in self._sockets]
                await asyncio.sleep(0)  # all of them wait
                began = time.perf_counter()
                await tell([event])
                for place, ((process, _), at) in enumerate(
                    zip(self._sockets, await asyncio.gather(*hearing), strict=True)
                ):
                    rows.append((number, place, process, 1000 * (at - began)))
        return pd.DataFrame(rows, columns=["number", "socket", "process", "ms"])

    async def _hear(self, socket: ClientConnection, id_: str) -> float:
        text = str(await socket.recv())
        at = time.perf_counter()
        if json.loads(text)["event"]["id"] != id_:
            raise ValueError(f"another event than the one that was told: {text[:200]}")
        return at


@asynccontextmanager
async def gathered(urls: Sequence[str], token: str, topic: str, sockets: int) -> AsyncIterator[Crowd]:
    """So many WebSockets, taken by the processes in turn, all of which follow one topic."""
    a_few = asyncio.Semaphore(AT_ONCE)
    async with AsyncExitStack() as stack:

        async def one(place: int) -> tuple[int, ClientConnection]:
            process = place % len(urls)
            async with a_few:
                socket = await stack.enter_async_context(opened(urls[process], token))
                await socket.send(json.dumps({"type": "subscribe", "topics": [topic]}))
                if (answer := json.loads(await socket.recv()))["type"] != "subscribed":
                    raise ValueError(f"not subscribed: {answer}")
            return process + 1, socket

        async with asyncio.timeout(WITHIN_S):
            yield Crowd(await asyncio.gather(*(one(place) for place in range(sockets))))
