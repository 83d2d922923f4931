"""WebSockets as the tutorials have them: a set of connections, and every event sent to each of them.

Nothing here is wrong on any single line.
"""

import asyncio
import json
import os
import socket
import subprocess
import sys
from types import TracebackType
from typing import Any, Self

from redis.asyncio import Redis
from websockets.asyncio.server import ServerConnection, serve

READY = "ready"
ENDS_WITHIN_S = 5.0


class Broadcast:
    """Everybody who is connected."""

    def __init__(self) -> None:
        self.connections: set[ServerConnection] = set()
        self._sending: set[asyncio.Task[None]] = set()

    async def connected(self, connection: ServerConnection) -> None:
        """Keep a connection for as long as it lasts."""
        self.connections.add(connection)
        await connection.wait_closed()
        self.connections.discard(connection)

    def tell(self, event: dict[str, Any]) -> None:
        """Send an event to everybody, and wait for nobody: one who is slow is not to hold up the others."""
        for connection in self.connections:
            sending = asyncio.create_task(connection.send(json.dumps(event)))
            self._sending.add(sending)
            sending.add_done_callback(self._sending.discard)


class Naive:
    """Such a server in a process of its own, while the block runs. It reads the same stream as ours.

    Args:
        redis_url: of redis-state.
        prefix: of the lesson's keys.
    """

    def __init__(self, redis_url: str, prefix: str) -> None:
        self._environment = {**os.environ, "NAIVE_REDIS_URL": redis_url, "NAIVE_STREAM": f"{prefix}events"}
        self.url = ""

    def __enter__(self) -> Self:
        with socket.create_server(("127.0.0.1", 0)) as listening:  # it listens already, so that nobody else can
            self.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            self._process = subprocess.Popen(
                [sys.executable, "-m", __name__, str(listening.fileno())],
                env=self._environment,
                stdin=subprocess.PIPE,  # it ends when that does
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                pass_fds=[listening.fileno()],
            )
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != READY.encode():
            self._process.kill()
            raise RuntimeError("the naive server did not start")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate(timeout=ENDS_WITHIN_S)


async def main(fd: int) -> None:
    """Serve for as long as stdin is open."""
    everybody, ended = Broadcast(), asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin, ended.set)
    async with (
        Redis.from_url(os.environ["NAIVE_REDIS_URL"], decode_responses=True) as redis,
        serve(everybody.connected, sock=socket.socket(fileno=fd), compression=None, ping_interval=None),
    ):
        print(READY, flush=True)
        after = "$"
        while not ended.is_set():
            answer: Any = await redis.xread({os.environ["NAIVE_STREAM"]: after}, count=100, block=1_000)
            for after, fields in answer[0][1] if answer else ():  # noqa: B007 - where the next turn begins
                everybody.tell(fields)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
