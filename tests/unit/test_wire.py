"""A wire that loses what it is told to lose, and keeps up appearances."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from urllib.parse import urlsplit

import pytest

from workshop.wire import Wire

pytestmark = pytest.mark.anyio

WITHIN_S = 5.0
SILENT_S = 0.1
"""What was lost does not come so soon; what was not lost comes within a tenth of it."""


@pytest.fixture
async def wire() -> AsyncIterator[Wire]:
    """To a server that says again whatever it is told."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1_000):
                writer.write(data)
                await writer.drain()
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    with Wire(f"redis://somebody:secret@127.0.0.1:{port}/0") as wire:
        yield wire
    server.close()


class Line:
    """A connection over the wire."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def over(cls, wire: Wire) -> "Line":
        at = urlsplit(wire.url)
        return cls(*await asyncio.open_connection(at.hostname, at.port))

    async def say(self, words: str, *, within_s: float = WITHIN_S) -> str:
        """What comes back: nothing when the line is silent, `cut` when it is closed."""
        self._writer.write(words.encode())
        try:
            async with asyncio.timeout(within_s):
                return (await self._reader.read(1_000)).decode() or "cut"
        except TimeoutError:
            return ""
        except ConnectionError:
            return "cut"

    def close(self) -> None:
        self._writer.close()


async def test_it_passes_on_what_both_ends_say_and_is_used_like_the_server(wire: Wire) -> None:
    line = await Line.over(wire)
    assert wire.url.startswith("redis://somebody:secret@127.0.0.1:")
    assert [await line.say(words) for words in ("one", "two")] == ["one", "two"]
    line.close()


async def test_subscribers_hear_nothing_more_while_all_others_do(wire: Wire) -> None:
    subscriber, other = await Line.over(wire), await Line.over(wire)
    assert await subscriber.say("SUBSCRIBE news") == "SUBSCRIBE news"
    assert await other.say("GET milk") == "GET milk"
    wire.lose_news()
    assert await subscriber.say("PING", within_s=SILENT_S) == ""
    assert await other.say("GET milk") == "GET milk"
    wire.mend()
    assert await subscriber.say("PING") == "cut"
    assert await other.say("GET milk") == "GET milk"
    for line in (subscriber, other):
        line.close()


async def test_nothing_gets_through_any_more_and_no_end_is_told(wire: Wire) -> None:
    line = await Line.over(wire)
    assert await line.say("one") == "one"
    wire.lose_all()
    assert await line.say("two", within_s=SILENT_S) == ""
    wire.mend()
    again = await Line.over(wire)
    assert (await line.say("three"), await again.say("four")) == ("cut", "four")
    for one in (line, again):
        one.close()


async def test_a_server_that_is_away_closes_the_door() -> None:
    with Wire("redis://127.0.0.1:1/0") as wire:
        line = await Line.over(wire)
        assert await line.say("one") == "cut"
        line.close()
