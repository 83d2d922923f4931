"""From an event that is added to its effect that is committed, through a relay and a worker that are processes.

Events are due at fixed times, whether or not those before them are done, and time runs from when one was due: a system
that stalls is charged for all who wait meanwhile (Tene, "How NOT to Measure Latency": coordinated omission).
"""

import asyncio
import json
import statistics
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlalchemy import text

from benchmarks.messaging_system import EFFECTS_SO_FAR, event, started
from showcase.messaging.infrastructure.outbox import SqlOutbox
from showcase.platform.database import Database

ADDERS = 8
BACKLOG = 500
"""Nobody adds while more than so many have no effect yet: the top rate is one that can go on."""
WARM_S = 1.5
TOP_S = 4.0
STEADY_S = 10.0
DRAINED_WITHIN_S = 30.0
LOOK_S = 0.01
Add = Callable[[int], Coroutine[None, None, None]]
Effects = Callable[[], Coroutine[None, None, int]]
SHARE = 0.5
"""Of the top rate, at which time is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """What was measured.

    Attributes:
        top: the most that goes through, a second.
        rate: how many a second there were when time was taken.
        sorted_s: how long each took, the shortest first.
    """

    top: float
    rate: float
    sorted_s: Sequence[float]

    @classmethod
    def of(cls, top: float, rate: float, due: Mapping[int, float], committed: Mapping[int, float]) -> Self:
        """Raises KeyError when one has no effect."""
        return cls(top=top, rate=rate, sorted_s=sorted(committed[thing] - at for thing, at in due.items()))

    def __str__(self) -> str:
        hundredths = statistics.quantiles(self.sorted_s, n=100, method="inclusive")
        p50, p99, longest = (1_000 * seconds for seconds in (hundredths[49], hundredths[98], self.sorted_s[-1]))
        return (
            f"event added to effect committed, {self.rate:,.0f} a second (half of the most, {self.top:,.0f}): "
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, longest {longest:.1f} ms of {len(self.sorted_s):,}"
        )


def measured(environment: Mapping[str, str], postgres_url: str, folder: Path) -> Latency:
    """Start relay and worker, find the most they do, and take the time at half of it.

    Raises RuntimeError, TimeoutError when they do not do it.
    """
    file = folder / "committed.json"
    with started(environment, folder, "relay"), started(environment, folder, "worker", str(file)):
        top, rate, due = asyncio.run(_load(postgres_url))
    return Latency.of(top, rate, due, dict(json.loads(file.read_text())))


async def _load(postgres_url: str) -> tuple[float, float, Mapping[int, float]]:
    database = Database(postgres_url)
    outbox = SqlOutbox(database)

    async def add(thing: int) -> None:
        await outbox.add(event(thing))

    async def effects() -> int:
        async with database.transaction() as db:
            return int((await db.execute(text(EFFECTS_SO_FAR))).scalar_one())

    try:
        added, top = await top_rate(add, effects)
        await _until_all(effects, added)
        rate = SHARE * top
        due = await on_time(add, range(added + 1, added + 1 + round(rate * STEADY_S)), rate)
        await _until_all(effects, added + len(due))
        return top, rate, due
    finally:
        await database.close()


async def top_rate(add: Add, effects: Effects) -> tuple[int, float]:
    """How many events were added, and how many of them had their effect a second."""
    added = done = 0
    began = time.monotonic()
    is_over = False

    async def adder() -> None:
        nonlocal added
        while not is_over:
            if added - done > BACKLOG:
                await asyncio.sleep(LOOK_S)
                continue
            added += 1
            await add(added)

    adders = [asyncio.ensure_future(adder()) for _ in range(ADDERS)]
    marks: list[tuple[float, int]] = []
    while not is_over:
        await asyncio.sleep(LOOK_S)
        done, now = await effects(), time.monotonic()
        if now > began + WARM_S:
            marks.append((now, done))
        is_over = now > began + WARM_S + TOP_S
    await asyncio.gather(*adders)
    (first, before), (last, after) = marks[0], marks[-1]
    return added, (after - before) / (last - first)


async def on_time(add: Add, things: Sequence[int], rate: float) -> Mapping[int, float]:
    """Add events at this rate, each when it is due and in a task of its own; when each was due."""
    began = time.monotonic()
    due = {thing: began + number / rate for number, thing in enumerate(things)}
    async with asyncio.TaskGroup() as tasks:
        for thing, at in due.items():
            if (early_s := at - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            tasks.create_task(add(thing))
    return due


async def _until_all(effects: Effects, count: int) -> None:
    async with asyncio.timeout(DRAINED_WITHIN_S):
        while await effects() < count:  # noqa: ASYNC110 - the effects are another process's
            await asyncio.sleep(LOOK_S)
