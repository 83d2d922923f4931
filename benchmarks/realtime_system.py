"""What real time is measured on: the app and its peers, as processes; the way to tell each of them an event."""

import asyncio
import os
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

from benchmarks.audit_system import wait
from benchmarks.auth import settings_of, wait_until_ready
from benchmarks.realtime_crowd import Crowd
from showcase.auth import wiring as auth
from showcase.auth.domain.accounts import SCOPES, Role
from showcase.auth.infrastructure.keys import KeyRing
from showcase.auth.infrastructure.tokens import AccessTokens
from showcase.kernel.clock import system_clock
from showcase.kernel.events import Event
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import Principal
from showcase.platform.resources import Resources
from showcase.realtime.application.recent import text_of_event
from showcase.realtime.domain import ALL_ORDERS, Place
from showcase.realtime.wiring import publisher
from workshop.stack.namespace import Namespace

APP = ("-m", "showcase", "serve", "--slices", "realtime", "--fd")
PEER = ("-m", "benchmarks.realtime_peers")
PREFIX = "SHOWCASE_REDIS_PREFIX"
SETTINGS = {
    "SHOWCASE_ENVIRONMENT": "workshop",
    "SHOWCASE_SOCKET_PING_S": "300",  # of all servers, and no crowd stays for so long: it answers no pings
}
TOKENS = 1_000
HOUSEHOLDS = 2_469
BACKLOG = 4_096
WITHIN_S = 60.0
READY_WITHIN_S = 30.0
END_WITHIN_S = 15.0

Publish = Callable[[Event], Awaitable[None]]
"""Have an event told to a crowd."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server, a crowd of its clients, and the way to have them told something."""

    name: str
    pid: int
    crowd: Crowd
    publish: Publish

    @property
    def resident_kib(self) -> float:
        return float(psutil.Process(self.pid).memory_info().rss) / 1024

    async def told(self, events: Sequence[Event], at_once: int = 1) -> float:
        """Seconds from when the first event is published until the last client has all of them.

        Args:
            at_once: so many are being published at the same time.

        Raises Refused, ConnectionResetError, TimeoutError.
        """
        last = self.crowd.expect(len(events))
        began = time.perf_counter()
        async with asyncio.timeout(WITHIN_S):
            await self.published(events, at_once)
            return await last - began

    async def published(self, events: Sequence[Event], at_once: int) -> None:
        """Have events told, whoever is there."""
        left = iter(events)

        async def lane() -> None:
            for event in left:
                await self.publish(event)

        await asyncio.gather(*(lane() for _ in range(at_once)))


def event(number: int) -> Event:
    """An order's event, of about 500 bytes as clients are told it."""
    order_id, household = str(new_uuid()), number % HOUSEHOLDS + 1
    data = {"order_id": order_id, "household_id": household, "total_cents": 4_321, "mark": number}
    return Event(type="shop.order.paid.v1", source="/shop", subject=f"orders/{order_id}", data=data)


@asynccontextmanager
async def contestants(names: Namespace, folder: Path) -> AsyncIterator[tuple[Contestant, Contestant, Contestant]]:
    """The app; a server that broadcasts what it is given; and one that broadcasts what it reads in Redis."""
    environment = {**os.environ, **names.env, **SETTINGS}
    settings = settings_of(environment)
    apart = {**environment, PREFIX: f"{settings.redis_prefix}peer:"}  # a stream of its own: no other crowd is told
    async with AsyncExitStack() as stack:

        async def server(
            arguments: Sequence[str], environment: Mapping[str, str], *line: socket.socket
        ) -> tuple[int, Crowd]:
            with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
                address = listening.getsockname()
                log = folder / f"{address[1]}.log"
                popen = stack.enter_context(process(arguments, environment, log, [listening, *line]))
            if arguments is APP:
                wait_until_ready(address, popen, log)
            else:
                wait(lambda: b'"ready"' in log.read_bytes(), READY_WITHIN_S, log.read_text)
            return popen.pid, await stack.enter_async_context(Crowd(address, tokens if arguments is APP else ()))

        resources, resources_apart = (Resources(settings_of(one)) for one in (environment, apart))
        for one in (resources, resources_apart):
            await stack.enter_async_context(one)
        tokens = await issued(resources)
        ours = Contestant("ours", *await server(APP, environment), publisher(resources))
        mine, theirs = socket.socketpair()
        with theirs:
            pid, crowd = await server(PEER, environment, theirs)
        _, writer = await asyncio.open_connection(sock=mine)
        stack.callback(writer.close)

        async def hand_over(event: Event) -> None:
            place = Place("5f3a91c2", (time.time_ns() // 1_000_000, 0))
            writer.write(text_of_event(place, event, ALL_ORDERS).encode() + b"\n")
            await writer.drain()

        bare = Contestant("websockets.broadcast", pid, crowd, hand_over)
        behind = Contestant("Redis, then websockets.broadcast", *await server(PEER, apart), publisher(resources_apart))
        yield ours, bare, behind


async def issued(resources: Resources) -> list[str]:
    """Tokens of people behind the counter, no two alike, as an operator issues them: no session has to be there."""
    keys, settings = auth.keys(resources), resources.settings
    await keys.ensure()
    tokens = AccessTokens(KeyRing(keys), issuer=settings.issuer, audience=settings.audience, clock=system_clock)
    staff = (Principal(subject=f"staff/{number}", scopes=SCOPES[Role.SUPPORT]) for number in range(TOKENS))
    return [await tokens.issue(one, timedelta(minutes=15)) for one in staff]


@contextmanager
def process(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, handed: Sequence[socket.socket]
) -> Iterator["subprocess.Popen[bytes]"]:
    """Python on something. It is gone at the end.

    Args:
        handed: sockets that it inherits; their numbers are its last arguments.
    """
    numbers = [one.fileno() for one in handed]
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, *arguments, *map(str, numbers)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            pass_fds=numbers,
        )
    try:
        yield popen
    finally:
        popen.terminate()
        try:
            popen.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()
