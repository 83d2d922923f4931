"""One event to 1,000 WebSockets, bursts, connects, memory, resumptions: `python -m benchmarks realtime`.

On a PostgreSQL and a Redis of its own. The app and each peer is a process; the crowd of clients is this one.
"""

import asyncio
import gc
import itertools
import logging
import os
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog
import uvloop

from benchmarks.audit_system import processor_s
from benchmarks.realtime_system import Contestant, contestants, event
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

RATIO_TARGET = 2.0

SOCKETS = 1_000
ROUNDS, WARM_ROUNDS = 300, 20
FEW = 100
"""Clients whom bursts are told to."""
BURST = 200
"""Events: no more than may wait for one client, so that nobody is closed for being slow."""
BURSTS = 7
PUBLISHERS = 8
MISSED = 100
RESUMPTIONS = 3
LANES = 50
"""So many connect at once: more than there are connections to Redis (100) would in part be told to come again."""
WITHIN_S = 120.0
SERVERS = ("postgres", "redis-state")
CORES = len(os.sched_getaffinity(0))
HEADING = f"{'figure':44} {'ours':>9} | {'beside':34} {'theirs':>9} | {'ratio':>6} | target | met?"


@dataclass(frozen=True, slots=True)
class Row:
    """A figure of ours beside another. Without a target it is information.

    Attributes:
        at_most: what the ratio may be.
    """

    figure: str
    ours: float
    beside: str
    theirs: float
    at_most: float | None = None

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs

    @property
    def is_met(self) -> bool:
        return self.at_most is None or self.ratio <= self.at_most

    def __str__(self) -> str:
        ours, theirs = (f"{value:9,.0f}" if value >= 1_000 else f"{value:9.2f}" for value in (self.ours, self.theirs))
        aim, met = ("", "") if self.at_most is None else (f"≤ {self.at_most:.2f}", "met" if self.is_met else "MISSED")
        return f"{self.figure:44} {ours} | {self.beside:34} {theirs} | {self.ratio:6.2f} | {aim:6} | {met}".rstrip(" |")


def main() -> int:
    """Measure, print each figure beside its peer's, and return 1 if a target is missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.freeze()
    began, load = time.monotonic(), os.getloadavg()[0]
    with ExitStack() as stack:
        private = stack.enter_context(Stack.private(SERVERS))
        names = stack.enter_context(private.namespace())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        rows = uvloop.run(measured(names, folder))
    took_s = time.monotonic() - began
    print(f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {CORES} cores; load before that {load:.1f}: best when near 0")
    return 0 if all(row.is_met for row in rows) else 1


async def measured(names: Namespace, folder: Path) -> list[Row]:
    """Every figure, printed as soon as it is there."""
    rows = []
    print(HEADING)
    async with contestants(names, folder) as all_:
        for some in (bursts(all_), crowds(all_), broadcasts(all_), resumptions(all_[0])):
            async for row in some:
                print(row, flush=True)
                rows.append(row)
    return rows


async def bursts(all_: Sequence[Contestant]) -> AsyncIterator[Row]:
    """Many events to some clients: until the last of them has the last."""
    for one in all_:
        await one.crowd.come(FEW, LANES)
    rates: dict[str, list[float]] = {one.name: [] for one in all_}
    for order in both_ways(all_, BURSTS + 1):
        for one in order:
            took_s = await one.told([event(number) for number in range(BURST)], PUBLISHERS)
            rates[one.name].append(BURST * FEW / took_s)
    for name, ours, theirs in beside({name: statistics.median(some[1:]) for name, some in rates.items()}):
        yield Row(f"messages a second to {FEW} sockets", ours, name, theirs)


async def crowds(all_: Sequence[Contestant]) -> AsyncIterator[Row]:
    """From nobody to everybody: how fast, and what it takes of memory."""
    connects, kib = {}, {}
    for one in all_:
        one.crowd.go()
        before = one.resident_kib
        connects[one.name] = await one.crowd.come(SOCKETS, LANES)
        kib[one.name] = (one.resident_kib - before) / SOCKETS
    ours, bare, _ = all_
    yield Row("connects a second: ticket, hello, subscribed", connects[ours.name], "handshakes", connects[bare.name])
    yield Row("memory a socket, KiB", kib[ours.name], bare.name, kib[bare.name])


async def broadcasts(all_: Sequence[Contestant]) -> AsyncIterator[Row]:
    """One event to everybody, again and again: until the last has it."""
    numbers = itertools.count()
    took_s: dict[str, list[float]] = {one.name: [] for one in all_}
    spent_s = {one.name: 0.0 for one in all_}
    for number, order in enumerate(both_ways(all_, WARM_ROUNDS + ROUNDS)):
        if number == WARM_ROUNDS:
            spent_s = {one.name: processor_s(one.pid) for one in all_}
        for one in order:
            took_s[one.name].append(await one.told([event(next(numbers))]))
    micros = {one.name: 1e6 * (processor_s(one.pid) - spent_s[one.name]) / (ROUNDS * SOCKETS) for one in all_}
    for percent in (50, 99):
        ms = {name: percentile_ms(some[WARM_ROUNDS:], percent) for name, some in took_s.items()}
        for target, (name, ours, theirs) in zip((RATIO_TARGET, None), beside(ms), strict=True):
            yield Row(f"one event to {SOCKETS:,} sockets, p{percent}, ms", ours, name, theirs, target)
    for name, ours, theirs in beside(micros):
        yield Row("processor time of a server, µs a message", ours, name, theirs)


async def resumptions(ours: Contestant) -> AsyncIterator[Row]:
    """Everybody comes back at once, each with a new ticket; beside that, everybody comes and has missed nothing."""
    crowd = ours.crowd
    nothing_s, missed_s = [], []
    for _ in range(RESUMPTIONS):
        crowd.go()
        nothing_s.append(SOCKETS / await crowd.come(SOCKETS, LANES))
        crowd.go()
        await ours.published([event(number) for number in range(MISSED)], PUBLISHERS)
        last, began = crowd.expect(MISSED, SOCKETS), time.perf_counter()
        async with asyncio.timeout(WITHIN_S):
            await crowd.come(SOCKETS, LANES, after=crowd.at)
            missed_s.append(await last - began)
    figure = f"{SOCKETS:,} back, {MISSED} events missed by each, s"
    yield Row(figure, statistics.median(missed_s), "nothing missed", statistics.median(nothing_s))


def both_ways(all_: Sequence[Contestant], turns: int) -> Iterator[Sequence[Contestant]]:
    """In one order and then in the other."""
    return itertools.islice(itertools.cycle([all_, all_[::-1]]), turns)


def beside(figures: dict[str, float]) -> Iterator[tuple[str, float, float]]:
    """The first one, which is ours, and each other: its name, our figure, its figure."""
    (_, ours), *others = figures.items()
    return ((name, ours, theirs) for name, theirs in others)


def percentile_ms(took_s: Sequence[float], percent: int) -> float:
    """So many of a hundred took no longer."""
    return 1_000 * statistics.quantiles(took_s, n=100, method="inclusive")[percent - 1]
