"""Looks after the connectors: what has failed is started again. And how they are doing, in numbers."""

import asyncio
from collections.abc import Sequence

import structlog

from showcase.audit.application.capture import RUNNING, Capture, Supervisor, named
from showcase.kernel.errors import Unavailable
from showcase.platform.slices import Gauge
from showcase.platform.worker import Work, persist, wait

log = structlog.get_logger()


def capturing(captures: Sequence[Capture], *, look_s: float) -> Work:
    """A worker that looks at the connectors each few seconds. One is enough; two do no harm."""

    async def work(stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        supervisors = [
            Supervisor(capture=capture, clock=clock) for capture in captures
        ]  # their pauses outlive `attempt`

        async def attempt(stop: asyncio.Event) -> None:
            is_first = True
            while not stop.is_set():
                for supervisor in supervisors:
                    await supervisor.look()
                if is_first:
                    log.info("ready", connectors=[capture.source.connector for capture in captures])
                is_first = False
                await wait(stop, look_s)

        await persist(attempt, stop)

    return work


async def gauges(captures: Sequence[Capture]) -> list[Gauge]:
    """One call to Kafka Connect and one query a connector. While Connect is away nothing counts as running.

    Raises Unavailable when the database does not answer.
    """
    lag: dict[str, float] = {}
    active: dict[str, float] = {}
    running: dict[str, float] = {}
    for capture in captures:
        if (slot := await capture.slot()) is not None:
            lag[slot.name], active[slot.name] = slot.lag_bytes, slot.active
        name = capture.source.connector
        try:
            parts = await capture.connectors.status(name)
        except Unavailable as error:
            log.warning("no state of a connector", connector=name, why=error.detail)
            running[name] = 0
        else:
            running |= {named(name, part): float(part.state == RUNNING) for part in parts or ()}
    return [
        Gauge(
            name="showcase_audit_slot_lag_bytes",
            help="Log of the database that the reader of a replication slot has not confirmed.",
            label="slot",
            values=lag,
        ),
        Gauge(
            name="showcase_audit_slot_active",
            help="Whether somebody reads through a replication slot.",
            label="slot",
            values=active,
        ),
        Gauge(
            name="showcase_audit_connector_running",
            help="Whether a connector (`name`), or one of its tasks (`name/0`), runs.",
            label="connector",
            values=running,
        ),
    ]
