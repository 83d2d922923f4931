"""The process that anchors: at once, then at intervals, and once more when it is told to stop."""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from showcase.platform.worker import Work, persist, wait

log = structlog.get_logger()


def anchoring(anchor: Callable[[], Awaitable[object]], every_s: float) -> Work:
    """Anchor again and again. While a server is away it waits."""

    async def attempt(stop: asyncio.Event) -> None:
        await anchor()
        log.info("ready")
        while not await wait(stop, every_s):
            await anchor()
        await anchor()

    return lambda stop: persist(attempt, stop)
