"""The HTTP server: uvicorn, and an end in which connections that last are taken leave of."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

import uvicorn
from fastapi import FastAPI

from showcase.platform.settings import Settings
from showcase.platform.web.protocols import Http, WebSocket

UNACKNOWLEDGED_MS = 30_000
"""A peer that takes nothing for so long is gone, whatever lies in the buffers for it: else it would hold them for a
quarter of an hour."""
KEPT_S = 75
"""A connection that nobody uses is closed after so long: later than clients (httpx: 5 s) and most proxies (60 s) do,
who else would now and then send a request at the moment of the end."""


class Server(uvicorn.Server):
    """Serves an app. Told to stop, it takes no new connections, and lets the app drain before it cuts the old ones."""

    def __init__(self, config: uvicorn.Config, drains: Sequence[Callable[[], Awaitable[None]]]) -> None:
        super().__init__(config)
        self._drains = drains

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """See `uvicorn.Server`, which closes every WebSocket at once."""
        for server in self.servers:
            server.close()
        await asyncio.gather(*(drain() for drain in self._drains))
        await super().shutdown(sockets)


def server(
    app: FastAPI, settings: Settings, *, host: str, port: int, fd: int | None = None
) -> tuple[Server, socket.socket]:
    """A server and the socket to run it on.

    Args:
        fd: a listening socket to take instead of host and port.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        access_log=False,
        log_config=None,
        timeout_keep_alive=KEPT_S,
        timeout_graceful_shutdown=round(settings.drain_s),
        proxy_headers=bool(settings.trusted_proxies),  # else anybody could choose the address he is throttled by
        forwarded_allow_ips=settings.trusted_proxies or None,
        http=Http,
        ws=WebSocket,
        ws_max_size=65_536,
        ws_per_message_deflate=False,  # a window of up to 64 KiB for each connection, and a way to guess secrets
        ws_ping_interval=settings.socket_ping_s,
        ws_ping_timeout=settings.socket_ping_s,
    )
    listening = config.bind_socket() if fd is None else socket.socket(fileno=fd)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections have it from the socket that accepts them
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
    return Server(config, app.state.drains), listening
