"""Our side of the comparisons of messaging: publisher, relay and consumer, with the settings that they start with."""

import asyncio
import itertools
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext

from benchmarks.messaging_peers import ALL_WITHIN_S, Clock
from benchmarks.messaging_system import QUEUE, TOPOLOGY, Handle, Thing, handlers
from showcase.messaging.application.ports import Publish
from showcase.messaging.domain import Message, Outcome
from showcase.messaging.infrastructure.amqp import Broker
from showcase.messaging.infrastructure.inbox import SqlInbox
from showcase.messaging.infrastructure.outbox import CHANNEL, SqlOutbox
from showcase.messaging.worker.consumer import consume
from showcase.messaging.worker.relay import relay
from showcase.platform.database import Database
from showcase.platform.settings import Settings

SETTINGS = Settings(environment="workshop")
TIMEOUT_S = 10.0


def connected(url: str) -> AbstractAsyncContextManager[Broker]:
    """A connection to the broker."""
    return Broker.connected(url, timeout_s=TIMEOUT_S, name="benchmark")


async def declare(url: str) -> None:
    """Make the queue."""
    async with connected(url) as broker:
        await broker.declare(TOPOLOGY)


async def fill(url: str, messages: Sequence[Message]) -> None:
    """Put messages into the queue."""
    async with connected(url) as broker:
        assert set(await broker.publish(messages)) == {Outcome.TAKEN}


async def publishes(url: str, messages: Sequence[Message], seconds: float, clock: Clock) -> float:
    """How many messages a second are confirmed, with as many callers, and messages a call, as a relay has."""
    async with connected(url) as broker:
        to_send = itertools.cycle(messages)
        confirmed = 0
        until, began = time.perf_counter() + seconds, clock()

        async def lane() -> None:
            nonlocal confirmed
            while time.perf_counter() < until:
                some = list(itertools.islice(to_send, SETTINGS.relay_batch))
                assert set(await broker.publish(some)) == {Outcome.TAKEN}
                confirmed += len(some)

        await asyncio.gather(*(lane() for _ in range(SETTINGS.relay_lanes)))
        return confirmed / (clock() - began)


class Counted:
    """An outbox that sets an event when so many messages have left it."""

    def __init__(self, outbox: SqlOutbox, count: int, all_left: asyncio.Event) -> None:
        self._outbox = outbox
        self._left = count
        self._all_left = all_left

    async def relay(self, publish: Publish, limit: int) -> int:
        moved = await self._outbox.relay(publish, limit)
        self._left -= moved
        if self._left <= 0:
            self._all_left.set()
        return moved


async def relays(url: str, postgres_url: str, count: int) -> float:
    """How many messages a second leave an outbox that has so many, all marked at the end."""
    database, stop = Database(postgres_url, timeout_s=TIMEOUT_S), asyncio.Event()
    try:
        async with connected(url) as broker, database.listening(CHANNEL) as woken, asyncio.timeout(ALL_WITHIN_S):
            outbox = SqlOutbox(database)
            began = time.perf_counter()
            await relay(
                [Counted(outbox, count, stop)],
                broker,
                woken,
                stop,
                batch=SETTINGS.relay_batch,
                poll_s=SETTINGS.relay_poll_s,
                lanes=SETTINGS.relay_lanes,
            )
            took_s = time.perf_counter() - began
            assert (await outbox.waiting()).waiting == 0
            return count / took_s
    finally:
        await database.close()


async def handles(url: str, database: Database | None, count: int, batch: int, write: Handle | None) -> float:
    """How many messages a second are handled and acknowledged.

    Args:
        database: that the inbox is in; None for a consumer without one.
        count: as many are in the queue.
        write: what the handler does with each.
    """
    left, stop = count, asyncio.Event()

    async def handle(thing: Thing) -> None:
        nonlocal left
        if write is not None:
            await write(thing)
        left -= 1
        if not left:
            stop.set()

    async with connected(url) as broker, asyncio.timeout(ALL_WITHIN_S):
        began = time.perf_counter()
        await consume(
            broker,
            QUEUE,
            handlers(handle),
            stop,
            topology=TOPOLOGY,
            inbox=SqlInbox(database, "public", QUEUE) if database else None,
            transaction=database.transaction if database else nullcontext,
            savepoint=database.savepoint if database else nullcontext,
            prefetch=SETTINGS.prefetch,
            batch=batch,
        )
        return count / (time.perf_counter() - began)
