"""A wire between a process and a server that can go dead without a sound: both ends go on believing in it.

A cable that is pulled, a firewall that forgets a connection, a host that vanishes: no end is told. Killing a server or
cutting a connection is the kinder fault, since whoever held it hears of it at once.
"""

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from workshop.lab.background import Background

CHUNK_BYTES = 65_536
CONNECTS_WITHIN_S = 5.0


class Wire:
    """Passes on, byte for byte, what a process and a server say, until it is told to lose it.

    Args:
        url: of the server, a Redis.

    Attributes:
        url: of the same server, over this wire.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._server = (parts.hostname, parts.port)
        self._loses_all = self._loses_news = False
        self._broken: set[asyncio.StreamWriter] = set()
        self._carried: dict[asyncio.Task[None] | None, asyncio.StreamWriter] = {}
        self._background = Background()
        self._listening = self._background.run(asyncio.start_server(self._carry, "127.0.0.1", 0))
        user, at, _ = parts.netloc.rpartition("@")
        port = self._listening.sockets[0].getsockname()[1]
        self.url = parts._replace(netloc=f"{user}{at}127.0.0.1:{port}").geturl()

    def lose_news(self) -> None:
        """What the server tells those who have subscribed is lost, its answers to their pings as well."""
        self._loses_news = True

    def lose_all(self) -> None:
        """Nothing gets through any more, in either direction."""
        self._loses_all = True

    def mend(self) -> None:
        """Go on as before. Connections that have lost something are cut: what came next would make no sense."""
        self._loses_all = self._loses_news = False
        self._background.run(self._cut())

    def close(self) -> None:
        """Cut everything."""
        self._background.run(self._end())
        self._background.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def _cut(self) -> None:
        while self._broken:
            self._broken.pop().close()

    async def _end(self) -> None:
        self._listening.close()
        for to_process in self._carried.values():
            to_process.close()
        if carried := [task for task in self._carried if task]:
            await asyncio.wait(carried, timeout=CONNECTS_WITHIN_S)

    async def _carry(self, from_process: asyncio.StreamReader, to_process: asyncio.StreamWriter) -> None:
        """One connection, until either end closes it."""
        has_subscribed = False

        async def out() -> None:
            nonlocal has_subscribed
            while data := await from_process.read(CHUNK_BYTES):
                has_subscribed = has_subscribed or b"SUBSCRIBE" in data
                if self._loses_all:
                    self._broken.add(to_process)
                else:
                    to_server.write(data)
                    await to_server.drain()

        async def back() -> None:
            while data := await from_server.read(CHUNK_BYTES):
                if self._loses_all or (self._loses_news and has_subscribed):
                    self._broken.add(to_process)
                else:
                    to_process.write(data)
                    await to_process.drain()

        try:
            async with asyncio.timeout(CONNECTS_WITHIN_S):
                from_server, to_server = await asyncio.open_connection(*self._server)
        except (OSError, TimeoutError):
            to_process.close()
            return
        self._carried[asyncio.current_task()] = to_process
        ways = [asyncio.create_task(way()) for way in (out, back)]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            with suppress(ConnectionError):
                await asyncio.gather(*ways, return_exceptions=True)
            self._broken.discard(to_process)
            del self._carried[asyncio.current_task()]
            to_process.close()
            to_server.close()
