"""A process in the background: runs until it is told to stop, then finishes what it has begun."""

import asyncio
import gc
import random
import signal
import sys
from collections.abc import Awaitable, Callable

import structlog

from showcase.kernel.errors import Unavailable

log = structlog.get_logger()

Work = Callable[[asyncio.Event], Awaitable[None]]
"""What a worker does until the event is set."""

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 3.0
STEADY_AFTER_S = 30.0
MAX_CAUSE = 200
"""Characters of what a driver says."""
GC_AFTER = 50_000
"""New objects, before the cyclic garbage is looked for: a batch of messages makes tens of thousands, and no cycles; and
among the objects of a thousand connections a look takes a tenth of a second, in which all of them wait."""


async def run(name: str, work: Work, *, drain_s: float) -> None:
    """Run some work until SIGTERM or SIGINT comes.

    Args:
        drain_s: how long what is in flight may then take to finish.

    Raises TimeoutError when it takes longer, and what `work` raises.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    task = asyncio.ensure_future(work(stop))
    log.info("started", worker=name)
    stopping = asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    try:
        await asyncio.wait_for(task, drain_s if stop.is_set() else None)
    finally:
        log.info("stopped", worker=name)


async def persist(attempt: Work, stop: asyncio.Event) -> None:
    """Run `attempt` again, after a growing pause with jitter, whenever a server it needs is away.

    Raises whatever else `attempt` raises.
    """
    pauses = Pauses(stop, FIRST_PAUSE_S, LONGEST_PAUSE_S)
    while not stop.is_set():
        began = asyncio.get_running_loop().time()
        try:
            await attempt(stop)
            return
        except Unavailable as error:
            if asyncio.get_running_loop().time() - began > STEADY_AFTER_S:
                pauses = Pauses(stop, FIRST_PAUSE_S, LONGEST_PAUSE_S)
            cause = f"{type(error.__cause__).__name__}: {error.__cause__}"[:MAX_CAUSE] if error.__cause__ else ""
            log.warning("waiting for a server", why=error.detail, cause=cause, pause_s=round(pauses.next_s, 2))
        await pauses.stopped()


class Pauses:
    """Growing pauses with jitter, until the event is set.

    Attributes:
        next_s: about how long the next one is.
    """

    def __init__(self, stop: asyncio.Event, first_s: float, longest_s: float) -> None:
        self.next_s = first_s
        self._stop = stop
        self._longest_s = longest_s

    async def stopped(self) -> bool:
        """Pause longer than the last time; whether it was told to stop meanwhile."""
        pause_s, self.next_s = self.next_s, min(self._longest_s, 2 * self.next_s)
        return await wait(self._stop, pause_s * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret


async def wait(stop: asyncio.Event, within_s: float) -> bool:
    """Wait for `stop`, so many seconds at the most; whether it is set."""
    try:
        await asyncio.wait_for(stop.wait(), within_s)
    except TimeoutError:
        return False
    return True


def look_for_garbage_seldom() -> None:
    """As is right for a process that runs for long: what it has loaded by now stays, and is never looked at again."""
    gc.freeze()
    gc.set_threshold(GC_AFTER)


def run_in_loop(main: Awaitable[None]) -> None:
    """Run a coroutine in a fresh event loop: uvloop's, where there is one."""

    async def started() -> None:
        look_for_garbage_seldom()
        await main

    if sys.platform == "win32":
        asyncio.run(started())
        return
    import uvloop

    uvloop.run(started())
