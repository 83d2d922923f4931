"""A line between a client and a server, to break."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit


class Line:
    """A line to a server that can be cut, go silent, and say things that the server did not."""

    _server: asyncio.Server

    def __init__(self, url: str) -> None:
        self._there = urlsplit(url)
        self._writers: list[asyncio.StreamWriter] = []
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._answers = asyncio.Event()
        self._answers.set()
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def url(self) -> str:
        port = self._server.sockets[0].getsockname()[1]
        return self._there._replace(netloc=f"{self._there.netloc.rpartition('@')[0]}@127.0.0.1:{port}").geturl()

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncIterator["Line"]:
        line = cls(url)
        line._server = await asyncio.start_server(line._connected, "127.0.0.1", 0)
        try:
            yield line
        finally:
            line._server.close()
            line.cut()
            for task in line._tasks:
                task.cancel()
            await asyncio.gather(*line._tasks, return_exceptions=True)
            line.cut()  # also what was being connected just then

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        self._tasks.append(asyncio.create_task(self._connect(reader, writer)))

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(self._there.hostname, self._there.port)
        except OSError:
            writer.transport.abort()
            return
        self._writers.append(far_writer)
        await asyncio.gather(
            self._pass(reader, far_writer, self._goes_on),
            self._pass(far_reader, writer, self._goes_on, self._answers),
        )

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *gates: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                for gate in gates:
                    await gate.wait()
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    def freeze(self) -> None:
        """From now on nothing gets through, as if the server were paused."""
        self._goes_on.clear()

    def hold_answers(self) -> None:
        """From now on the server hears the client, and the client hears nothing."""
        self._answers.clear()

    def say(self, data: bytes) -> None:
        """What the client believes that the server says."""
        self._writers[0].write(data)
