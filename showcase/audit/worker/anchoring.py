"""The process that anchors: at once, then at intervals, and once more when it is told to stop."""

import asyncio
from collections.abc import Awaitable, Callable

from showcase.platform.worker import Work, persist, wait


def anchoring(anchor: Callable[[], Awaitable[object]], every_s: float) -> Work:
    """Anchor again and again. While a server is away it waits."""

    async def attempt(stop: asyncio.Event) -> None:
        is_over = False
        while not is_over:
            await anchor()
            is_over = await wait(stop, every_s)
        await anchor()

    return lambda stop: persist(attempt, stop)
