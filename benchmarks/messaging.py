"""What messaging does in a second, beside others who do it: `python -m benchmarks messaging`.

On servers of its own, since a broker that is filled up holds up all who use it. All that is compared takes turns, as in
`benchmarks.auth`, and goes straight into one quorum queue, which is empty before each turn.
"""

import gc
import itertools
import logging
import os
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pika
import psycopg
import structlog
import uvloop

from benchmarks import messaging_latency, messaging_ours, messaging_peers
from benchmarks.load import HEADING, Row, Turn, in_turns
from benchmarks.messaging_system import EFFECTS, QUEUE, Handle, fill_outbox, messages, writer
from showcase.platform.database import Database
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

PUBLISHER_TARGET = 4.0
RELAY_TARGET = 0.5

SERVERS = ("postgres", "rabbitmq")
CORES = len(os.sched_getaffinity(0))
TURNS = 7
TURN_S = 0.5
LONG_TURNS = 5
MESSAGES = messages(10_000)
RELAYED, HANDLED, WRITTEN_SINGLY = 10_000, 2_500, 500
BATCHES = (1, 20, 50, 200)
"""How many messages are handled in one transaction, at the most."""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where they are."""

    rabbitmq_url: str
    postgres_url: str

    def empty(self) -> None:
        """Have nothing in the queue, in the inbox and among the effects."""
        connection = pika.BlockingConnection(pika.URLParameters(self.rabbitmq_url))
        connection.channel().queue_purge(QUEUE)
        connection.close()
        with psycopg.connect(self.postgres_url, connect_timeout=10) as db:
            db.execute("TRUNCATE effects, inbox RESTART IDENTITY")

    def turn(self, work: Callable[[], Coroutine[None, None, float]]) -> Turn:
        """A turn of one contestant: an event loop, and an empty queue, of its own."""

        def taken() -> float:
            self.empty()
            return uvloop.run(work())

        return taken


def main() -> int:
    """Measure, print each figure beside its peer, and return 1 if a target is missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.freeze()  # what the benchmark itself holds shall cost none of those it measures
    began, load = time.monotonic(), os.getloadavg()[0]
    print(HEADING)
    rows: list[Row] = []
    with ExitStack() as stack:
        private = stack.enter_context(Stack.private(SERVERS))
        names = stack.enter_context(Namespace.create(private.urls))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = Servers(names.rabbitmq_url, names.postgres_url)
        with psycopg.connect(servers.postgres_url, connect_timeout=10) as db:
            db.execute(EFFECTS)
        uvloop.run(messaging_ours.declare(servers.rabbitmq_url))
        for row in itertools.chain(publishers(servers), relays(servers), consumers(servers)):
            rows.append(row)
            print(row, flush=True)
        servers.empty()
        environment = {**names.env, "SHOWCASE_ENVIRONMENT": "workshop"}
        print(messaging_latency.measured(environment, servers.postgres_url, folder))
    took_s = time.monotonic() - began
    print(f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {CORES} cores; load before that {load:.1f}: best when near 0")
    return 0 if all(row.is_met for row in rows) else 1


def publishers(servers: Servers) -> Iterator[Row]:
    """Messages confirmed a second; and a second of the publishing process's own processor time."""
    url = servers.rabbitmq_url

    def ours(clock: messaging_peers.Clock) -> Turn:
        return servers.turn(partial(messaging_ours.publishes, url, MESSAGES, TURN_S, clock))

    def aio_pika(clock: messaging_peers.Clock) -> Turn:
        return servers.turn(partial(messaging_peers.aio_pika_publishes, url, MESSAGES, TURN_S, clock))

    def blocking(*, is_confirmed: bool) -> Turn:
        def taken() -> float:
            servers.empty()
            return messaging_peers.pika_publishes(url, MESSAGES, TURN_S, is_confirmed=is_confirmed)

        return taken

    mine, theirs, confirmed, blind, mine_busy, theirs_busy = in_turns(
        TURNS,
        ours(time.perf_counter),
        aio_pika(time.perf_counter),
        blocking(is_confirmed=True),
        blocking(is_confirmed=False),
        ours(time.process_time),
        aio_pika(time.process_time),
    )
    yield Row.of("messages published", mine, "aio-pika, gathered confirms", theirs, PUBLISHER_TARGET)
    yield Row.of("messages published", mine, "pika, blocking, confirm by confirm", confirmed)
    yield Row.of("messages published", mine, "pika, blocking, no confirms", blind)
    yield Row.of("the same, by processor time", mine_busy, "aio-pika, by processor time", theirs_busy)


def relays(servers: Servers) -> Iterator[Row]:
    """Messages relayed from a full outbox."""

    def relayed() -> float:
        servers.empty()
        fill_outbox(servers.postgres_url, MESSAGES[:RELAYED])
        return uvloop.run(messaging_ours.relays(servers.rabbitmq_url, servers.postgres_url, RELAYED))

    bare = servers.turn(
        partial(messaging_ours.publishes, servers.rabbitmq_url, MESSAGES, 2 * TURN_S, time.perf_counter)
    )
    relay, publisher = in_turns(LONG_TURNS, relayed, bare)
    yield Row.of("messages relayed", relay, "our publisher, from memory", publisher, RELAY_TARGET)


def consumers(servers: Servers) -> Iterator[Row]:
    """Messages handled: by us, with an inbox and a row for each, and by FastStream without an inbox."""
    url = servers.rabbitmq_url

    def ours(count: int, batch: int) -> Turn:
        async def handled(database: Database) -> float:
            return await messaging_ours.handles(url, database, count, batch, writer(database))

        return servers.turn(lambda: with_queue_of(count, handled))

    def faststream_writing() -> Turn:
        async def handled(database: Database) -> float:
            return await faststream(WRITTEN_SINGLY, writer(database))

        return servers.turn(lambda: with_queue_of(WRITTEN_SINGLY, handled))

    def idle(handle: Callable[[int], Coroutine[None, None, float]]) -> Turn:
        return servers.turn(lambda: with_queue_of(HANDLED, lambda _: handle(HANDLED)))

    async def with_queue_of(count: int, handled: Callable[[Database], Coroutine[None, None, float]]) -> float:
        await messaging_ours.fill(url, MESSAGES[:count])
        database = Database(servers.postgres_url)
        try:
            return await handled(database)
        finally:
            await database.close()

    async def no_inbox(count: int) -> float:
        return await messaging_ours.handles(url, None, count, messaging_ours.SETTINGS.consume_batch, None)

    async def faststream(count: int, write: Handle | None = None) -> float:
        return await messaging_peers.faststream_handles(url, count, messaging_ours.SETTINGS.prefetch, write)

    empty, theirs, theirs_writing, *by_batch = in_turns(
        LONG_TURNS,
        idle(no_inbox),
        idle(faststream),
        faststream_writing(),
        *(ours(WRITTEN_SINGLY if batch == 1 else HANDLED, batch) for batch in BATCHES),
    )
    for batch, found in zip(BATCHES, by_batch, strict=True):
        name = f"handled, inbox and row, {batch} at once"
        yield Row.of(name, found, "FastStream, no inbox, nothing written", theirs)
        yield Row.of(name, found, "FastStream, no inbox, the same row", theirs_writing)
    yield Row.of("handled, no inbox, no row", empty, "FastStream, no inbox, nothing written", theirs)
