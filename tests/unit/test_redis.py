"""The client of Redis, on the loop that the app runs on and on asyncio's own."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import pytest
import uvloop

from showcase.kernel.errors import Unavailable
from showcase.platform.redis import connect, translated


async def _is_cut_before_the_first_word() -> None:
    """Ask over a line that is cut after it was opened and before anything is said. Raises what is said of that."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, connect(url, timeout_s=5.0) as redis:

        class Cut(redis.connection_pool.connection_class):  # type: ignore[misc, name-defined]
            async def _connect(self) -> None:
                await super()._connect()
                self._writer.transport.abort()
                with suppress(ConnectionError):
                    await self._writer.wait_closed()

        redis.connection_pool.connection_class = Cut
        with translated():
            await redis.get("key")


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"])
def test_line_that_is_cut_while_it_is_opened_is_a_server_that_is_away(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner, pytest.raises(Unavailable):
        runner.run(_is_cut_before_the_first_word())
