"""The client of Redis, on the loop that the app runs on and on asyncio's own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import uvloop
from redis.asyncio.connection import AbstractConnection

from showcase.kernel.errors import Unavailable
from showcase.platform.redis import connect, translated


def _cut(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """Connections that are cut after they were opened and before anything is said."""

    class Cut(kind):  # type: ignore[valid-type, misc]
        async def _connect(self) -> None:
            await super()._connect()
            self._writer.transport.abort()
            with suppress(ConnectionError):
                await self._writer.wait_closed()

    return Cut


def _mistaken(kind: type[AbstractConnection]) -> type[AbstractConnection]:
    """Connections that are used wrongly."""

    class Mistaken(kind):  # type: ignore[valid-type, misc]
        async def _send_packed_command(self, command: object) -> None:
            raise RuntimeError("got a future of another loop")

    return Mistaken


async def _ask(over: Callable[[type[AbstractConnection]], type[AbstractConnection]]) -> None:
    """Ask over such connections. Raises what is said of that."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, connect(url, timeout_s=5.0) as redis:
        redis.connection_pool.connection_class = over(redis.connection_pool.connection_class)
        with translated():
            await redis.get("key")


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_line_that_is_cut_while_it_is_opened_is_a_server_that_is_away(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner, pytest.raises(Unavailable):
        runner.run(_ask(_cut))


@pytest.mark.anyio
async def test_mistake_of_ours_is_no_server_that_is_away() -> None:
    with pytest.raises(RuntimeError, match="of another loop"):
        await _ask(_mistaken)
