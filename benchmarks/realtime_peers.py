"""What real time is measured beside: a bare `websockets` server that broadcasts.

Run as a program (`python -m benchmarks.realtime_peers 7 8`) it serves on a listening socket that it inherits, and
broadcasts each line that it reads from another one; run with one socket only, each event of the stream in Redis.
"""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator

import uvloop
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.typing import Subprotocol

from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.realtime.application.messages import SUBPROTOCOL
from showcase.realtime.application.recent import text_of_event
from showcase.realtime.domain import ALL_ORDERS
from showcase.realtime.infrastructure.stream import RedisStream

BACKLOG = 4_096
LONGEST_LINE_BYTES = 65_536


async def serving(listening: socket.socket, settings: Settings, line: socket.socket | None) -> None:
    """Tell everybody who connects whatever comes, until told to stop."""
    connections: set[ServerConnection] = set()

    async def stay(connection: ServerConnection) -> None:
        connections.add(connection)
        try:
            await connection.wait_closed()
        finally:
            connections.discard(connection)

    async with serve(
        stay,
        sock=listening,
        backlog=BACKLOG,
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        ping_interval=settings.socket_ping_s,
        ping_timeout=settings.socket_ping_s,
    ):
        async for text in lines(line) if line else events(settings):
            broadcast(connections, text)


async def lines(line: socket.socket) -> AsyncIterator[str]:
    """What is written to a socket, line by line."""
    reader, _ = await asyncio.open_connection(sock=line, limit=LONGEST_LINE_BYTES)
    said("ready")
    async for one in reader:
        yield one.rstrip(b"\n").decode()


async def events(settings: Settings) -> AsyncIterator[str]:
    """What is added to the stream, as our clients are told it."""
    async with Resources(settings) as resources:
        stream = RedisStream(
            resources.redis_state,
            prefix=settings.redis_prefix,
            length=settings.stream_length,
            timeout_s=settings.redis_timeout_s,
        )
        place = await stream.end()
        said("ready")
        while True:
            for stored in await stream.read(place):
                place = stored.place
                if stored.event is not None:
                    yield text_of_event(place, stored.event, ALL_ORDERS)


def said(what: str) -> None:
    """In the log, for whoever waits."""
    print(json.dumps({"event": what}), flush=True)


def main() -> None:
    """Serve on the sockets whose numbers the command line gives."""
    listening, *line = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    uvloop.run(serving(listening, Settings(), line[0] if line else None))


if __name__ == "__main__":
    main()
