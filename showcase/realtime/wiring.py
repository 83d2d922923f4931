"""Real time, built from resources."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from uuid import UUID

import structlog

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.platform.redis import translated
from showcase.platform.resources import Resources
from showcase.platform.slices import Gauge, Slice
from showcase.platform.worker import persist
from showcase.realtime.application.clients import INTERNAL_ERROR, RESTARTING
from showcase.realtime.application.hub import Hub, Limits
from showcase.realtime.application.ports import HasEnded, OwnerOf
from showcase.realtime.infrastructure.stream import RedisStream
from showcase.realtime.infrastructure.tickets import RedisTickets

log = structlog.get_logger()

READER = "events"
DRAIN_S = 5.0


def build(
    resources: Resources,
    owner_of: OwnerOf,
    has_ended: HasEnded,
    when_a_session_ends: Callable[[Callable[[UUID], None]], None] = lambda _: None,
) -> Slice:
    """Tickets, the WebSocket, and the process's one reader of the stream behind it.

    Args:
        when_a_session_ends: calls what it is given with the id of each session that was revoked.

    Raises ValueError when the URL of redis-state is not set.
    """
    from showcase.realtime.api import Door, asset_routes, socket_route, ticket_routes  # they load the web framework

    settings = resources.settings
    limits = Limits(sockets=settings.max_sockets, of_household=settings.max_sockets_of_household)
    hub = Hub(_stream(resources), owner_of, limits)
    when_a_session_ends(hub.end_session)
    tickets = RedisTickets(resources.redis_state, prefix=settings.redis_prefix, lifetime=settings.ticket_lifetime)
    door = Door(tickets=tickets, has_ended=has_ended, trusted_origins=settings.origins())

    async def metrics() -> Sequence[Gauge]:
        return _gauges(hub)

    return Slice(
        name="realtime",
        routers=(
            ticket_routes(tickets, settings.ticket_lifetime.total_seconds()),
            socket_route(hub, door),
            asset_routes(),
        ),
        running=lambda: _running(resources, hub),
        drain=lambda: hub.drain(min(DRAIN_S, settings.drain_s)),
        metrics=metrics,
    )


@asynccontextmanager
async def _running(resources: Resources, hub: Hub) -> AsyncIterator[None]:
    """Read the stream while the app serves."""
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


def _gauges(hub: Hub) -> Sequence[Gauge]:
    return (
        Gauge(
            name="showcase_realtime_now",
            help="WebSockets of this process, and messages that wait for their clients",
            label="what",
            values={"sockets": hub.clients, "waiting": hub.waiting},
        ),
        Gauge(
            name="showcase_realtime_total",
            help="Events that were told, resumptions, resets, events dropped, connections closed by this process",
            label="what",
            values=dict(hub.counts),
        ),
    )


def publisher(resources: Resources) -> Callable[[Event], Awaitable[None]]:
    """Tells an event to the WebSockets of all processes; told again it reaches nobody twice.

    What it returns raises Unavailable. Raises ValueError when the URL of redis-state is not set.
    """
    stream = _stream(resources)

    async def publish(event: Event) -> None:
        await stream.publish(event)

    return publish


async def ping(resources: Resources) -> None:
    """Raises Unavailable when the stream's server does not answer."""
    with translated():
        await resources.redis_state.ping()


def _stream(resources: Resources) -> RedisStream:
    settings = resources.settings
    return RedisStream(
        resources.redis_state,
        prefix=settings.redis_prefix,
        length=settings.stream_length,
        timeout_s=settings.redis_timeout_s,
    )
