"""Real time, built from resources."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.worker import persist
from showcase.realtime.application import INTERNAL_ERROR, RESTARTING, Hub, OwnerOf
from showcase.realtime.infrastructure import RedisStream

log = structlog.get_logger()

READER = "events"


def build(
    resources: Resources,
    owner_of: OwnerOf,
    when_a_session_ends: Callable[[Callable[[UUID], None]], None] = lambda _: None,
) -> Slice:
    """The WebSocket, and the process's one reader of the stream behind it.

    Args:
        when_a_session_ends: calls what it is given with the id of each session that was revoked.

    Raises ValueError when the URL of redis-state is not set.
    """
    from showcase.realtime.api import routes  # not for the worker: it loads the web framework

    hub = Hub(_stream(resources), owner_of, max_clients=resources.settings.max_sockets)
    when_a_session_ends(hub.end_session)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        stop = asyncio.Event()
        reading = asyncio.create_task(persist(hub.read, stop))

        def broke(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()):
                log.error("the reader of events broke", exc_info=error)
                hub.break_off(INTERNAL_ERROR, "events can no longer be read here: come back")

        async def is_reading() -> None:
            if reading.done():
                raise Unavailable("the reader of events broke")

        reading.add_done_callback(broke)
        resources.pings[READER] = is_reading
        try:
            with suppress(TimeoutError):  # without Redis the app starts as well, and refuses to subscribe
                await asyncio.wait_for(hub.positioned.wait(), resources.settings.redis_timeout_s)
            yield
        finally:
            hub.break_off(RESTARTING, "the process stops: come back")
            stop.set()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    return Slice(name="realtime", routers=(routes(hub),), running=running)


def publisher(resources: Resources) -> Callable[[Event], Awaitable[None]]:
    """Tells an event to the WebSockets of all processes; told again it reaches nobody twice.

    What it returns raises Unavailable. Raises ValueError when the URL of redis-state is not set.
    """
    stream = _stream(resources)

    async def publish(event: Event) -> None:
        await stream.publish(event)

    return publish


def _stream(resources: Resources) -> RedisStream:
    settings = resources.settings
    return RedisStream(
        resources.redis_state,
        prefix=settings.redis_prefix,
        length=settings.stream_length,
        timeout_s=settings.redis_timeout_s,
    )
