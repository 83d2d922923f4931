"""Messaging, built from resources."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from showcase.kernel.errors import Unavailable
from showcase.messaging.application.handlers import Handlers
from showcase.messaging.application.operations import Operations
from showcase.messaging.application.ports import Inbox
from showcase.messaging.domain import PARKING, Queue, Topology
from showcase.messaging.infrastructure.amqp import Broker
from showcase.messaging.infrastructure.inbox import SqlInbox
from showcase.messaging.infrastructure.outbox import CHANNEL, SqlOutbox
from showcase.messaging.infrastructure.parked import SqlParkingLot
from showcase.messaging.worker.consumer import consume
from showcase.messaging.worker.parking import ingest
from showcase.messaging.worker.relay import relay
from showcase.platform.database import Database
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.slices import Slice
from showcase.platform.worker import Work, persist

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Consumer:
    """What handles the messages of one queue.

    Attributes:
        database: in which it keeps its inbox; None for one whose work is the same, done twice.
        schema: of that inbox.
        inbox: another one, in whatever it writes to.
        prepare: awaited before the first message.
        batch: how many messages it handles in one transaction, if not as many as others do.
    """

    queue: str
    handlers: Handlers
    database: Database | None = None
    schema: str = "public"
    inbox: Inbox | None = None
    prepare: Callable[[], Awaitable[object]] | None = None
    batch: int | None = None


def topology(queues: Sequence[Queue], settings: Settings) -> Topology:
    """The queues, and what messages wait in."""
    return Topology(
        queues=queues,
        retries=[timedelta(seconds=delay_s) for delay_s in settings.retry_delays_s],
        delays=[settings.order_within],
    )


def relaying(resources: Resources, topology: Topology, schemas: Sequence[str]) -> Work:
    """The relay of some services' outboxes."""
    settings, database = resources.settings, resources.database
    outboxes = [SqlOutbox(database, schema, topology) for schema in schemas]

    async def attempt(stop: asyncio.Event) -> None:
        async with _connected(settings, "relay") as broker, database.listening(CHANNEL) as woken:
            await broker.declare(topology)
            log.info("ready")
            await relay(
                outboxes,
                broker,
                woken,
                stop,
                batch=settings.relay_batch,
                poll_s=settings.relay_poll_s,
                lanes=settings.relay_lanes,
            )

    return lambda stop: persist(attempt, stop)


def consuming(resources: Resources, topology: Topology, consumer: Consumer) -> Work:
    """The consumer of one queue."""
    settings, database = resources.settings, consumer.database

    async def work(broker: Broker, stop: asyncio.Event) -> None:
        if consumer.prepare is not None:
            await consumer.prepare()
        await consume(
            broker,
            consumer.queue,
            consumer.handlers,
            stop,
            topology=topology,
            inbox=SqlInbox(database, consumer.schema, consumer.queue) if database else consumer.inbox,
            transaction=database.transaction if database else nullcontext,
            savepoint=database.savepoint if database else nullcontext,
            prefetch=settings.prefetch,
            batch=consumer.batch or settings.consume_batch,
        )

    return _on_queue(settings, topology, consumer.queue, work)


def parking(resources: Resources, topology: Topology) -> Work:
    """The keeper of the parking lot."""
    lot = SqlParkingLot(resources.database)

    async def work(broker: Broker, stop: asyncio.Event) -> None:
        await ingest(broker, PARKING, lot, stop)

    return _on_queue(resources.settings, topology, PARKING, work)


def operations(resources: Resources, topology: Topology, schemas: Sequence[str]) -> Operations:
    """What an operator sees and does."""
    settings, database = resources.settings, resources.database
    outboxes = {schema: SqlOutbox(database, schema, topology) for schema in schemas}
    management = None
    if settings.rabbitmq_api_url.get_secret_value():
        from showcase.messaging.infrastructure.management import Management

        api_url, amqp_url = settings.url("rabbitmq_api_url"), settings.url("rabbitmq_url")
        management = Management(api_url, amqp_url, timeout_s=settings.broker_timeout_s)
    looking = asyncio.Semaphore(2)

    async def depths(names: Sequence[str]) -> Mapping[str, tuple[int, int]]:
        try:
            # One connection a call, two at the most: an operator looks now and then.
            async with (
                asyncio.timeout(settings.broker_timeout_s),
                looking,
                _connected(settings, "operations") as broker,
            ):
                found = await broker.depths(names)
        except TimeoutError as error:
            raise Unavailable("rabbitmq does not answer in time") from error
        return {name: depth for name, depth in found.items() if depth is not None}

    return Operations(
        transaction=database.transaction,
        lot=SqlParkingLot(database),
        send=outboxes["public"].send,
        outboxes=outboxes,
        queues=[queue.name for queue in topology.declared()],
        consumed=[queue.name for queue in topology.queues],
        depths=depths,
        rates=management.rates if management else None,
    )


def build(
    resources: Resources, topology: Topology, schemas: Sequence[str], asyncapi: Callable[[], dict[str, Any]]
) -> Slice:
    """An operator's routes, and the description of all events."""
    from showcase.messaging.api import described, gauges, routes  # not for workers: it loads the web framework

    operations_ = operations(resources, topology, schemas)
    return Slice(
        name="messaging",
        routers=(routes(operations_), described(asyncapi)),
        metrics=partial(gauges, operations_),
        prune=partial(prune, resources, schemas),
    )


async def prune(resources: Resources, schemas: Sequence[str]) -> dict[str, int]:
    """Remove what outboxes, inboxes and the parking lot need not keep; how many rows of each."""
    database, settings = resources.database, resources.settings
    removed: dict[str, int] = {}
    for schema in schemas:
        removed[f"{schema}.outbox"] = await SqlOutbox(database, schema).prune(settings.outbox_kept)
        removed[f"{schema}.inbox"] = await SqlInbox(database, schema, "").prune(settings.inbox_kept)
    parked, actions = await SqlParkingLot(database).prune(settings.parked_kept)
    return removed | {"messaging.parked": parked, "messaging.actions": actions}


def _on_queue(
    settings: Settings, topology: Topology, queue: str, work: Callable[[Broker, asyncio.Event], Awaitable[None]]
) -> Work:
    """Work on one queue, with a connection that is made anew whenever it is lost."""

    async def attempt(stop: asyncio.Event) -> None:
        async with _connected(settings, queue) as broker:
            await broker.declare(topology)
            log.info("ready", queue=queue)
            await work(broker, stop)

    return lambda stop: persist(attempt, stop)


def _connected(settings: Settings, name: str) -> AbstractAsyncContextManager[Broker]:
    return Broker.connected(
        settings.url("rabbitmq_url"),
        timeout_s=settings.broker_timeout_s,
        name=name,
        max_message_bytes=settings.max_message_bytes,
    )
