"""Messaging, built from resources."""

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager

import structlog

from showcase.messaging.application import Handle
from showcase.messaging.domain import Topology
from showcase.messaging.infrastructure.amqp import Broker
from showcase.messaging.infrastructure.outbox import CHANNEL, SqlInbox, SqlOutbox
from showcase.messaging.worker import consume, relay
from showcase.platform.database import Database
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.worker import Work, persist

log = structlog.get_logger()


def relaying(resources: Resources, topology: Topology, schemas: tuple[str, ...]) -> Work:
    """The relay of some services' outboxes."""
    settings, database = resources.settings, resources.database
    outboxes = [SqlOutbox(database, schema) for schema in schemas]

    async def attempt(stop: asyncio.Event) -> None:
        async with _connected(settings, "relay") as broker, database.listening(CHANNEL) as woken:
            await broker.declare(topology)
            log.info("ready")
            await relay(outboxes, broker, woken, stop, batch=settings.relay_batch, poll_s=settings.relay_poll_s)

    return lambda stop: persist(attempt, stop)


def consuming(resources: Resources, topology: Topology, queue: str, handle: Handle) -> Work:
    """A consumer of one queue."""
    settings = resources.settings

    async def attempt(stop: asyncio.Event) -> None:
        async with _connected(settings, queue) as broker:
            await broker.declare(topology)
            deliveries = await broker.consume(topology.queue(queue).name, settings.prefetch)
            log.info("ready", queue=queue)
            await consume(broker, deliveries, handle, stop)

    return lambda stop: persist(attempt, stop)


def _connected(settings: Settings, name: str) -> AbstractAsyncContextManager[Broker]:
    return Broker.connected(settings.url("rabbitmq_url"), timeout_s=settings.broker_timeout_s, name=name)


async def prune(database: Database, schema: str, settings: Settings) -> Mapping[str, int]:
    """Remove what one service's outbox and inbox need not keep; how many rows of each."""
    return {
        f"{schema}.outbox": await SqlOutbox(database, schema).prune(settings.outbox_kept),
        f"{schema}.inbox": await SqlInbox(database, schema, "").prune(settings.inbox_kept),
    }
