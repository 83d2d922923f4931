"""What the audit's consumer holds in memory, up to a million records: `python -m benchmarks audit_memory`.

Takes a few minutes. It is the process that `showcase worker audit` starts, on servers of its own.
"""

import os
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg

from benchmarks.audit_system import (
    AUDIT,
    PER_ORDER,
    SERVERS,
    STALLED_AFTER_S,
    Bench,
    capture,
    captured,
    fill,
    place_orders,
    started,
    wait,
)
from benchmarks.messaging_memory import GROWTH_TARGET, MARKS
from showcase.audit.infrastructure.records import RECORDS
from workshop.stack import Stack

CHUNK = 2_000
"""Orders that are written at once."""
BACKLOG = 2 * CHUNK * PER_ORDER
"""No more are written while so many records wait; there are always enough for whole batches."""


def main() -> int:
    """Measure, print what the consumer holds at each mark, and return 1 if that grows."""
    began, load = time.monotonic(), os.getloadavg()[0]
    with ExitStack() as stack:
        private = stack.enter_context(Stack.private(SERVERS))
        names = stack.enter_context(private.namespace())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        bench = stack.enter_context(Bench(names))
        capture(names)
        with psycopg.connect(names.postgres_url, connect_timeout=10, autocommit=True) as db:
            place_orders(db, 1)
        history = captured(names, PER_ORDER)
        consumer = psutil.Process(stack.enter_context(started(names, folder, *AUDIT)).pid)
        held = at_marks(
            lambda: consumer.memory_info().rss / 2**20,
            lambda: bench.count(RECORDS.name),
            lambda orders: fill(names, history, orders),
        )
    growth = held[-1] / held[0]
    is_met = growth <= GROWTH_TARGET
    marks = ", ".join(f"{mib:.1f} MiB after {mark:,}" for mark, mib in zip(MARKS, held, strict=True))
    print(f"consumer {marks}: {growth:.3f} times as much, target ≤ {GROWTH_TARGET}: {'met' if is_met else 'MISSED'}")
    took_s = time.monotonic() - began
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {MARKS[-1] / took_s:,.0f} a second; load before that {load:.1f}"
    )
    return 0 if is_met else 1


def at_marks(held: Callable[[], float], count: Callable[[], int], write: Callable[[range], int]) -> list[float]:
    """What is held whenever so many records are there.

    Args:
        write: writes the changes of some orders, by their numbers; how many these are.

    Raises TimeoutError when no more records come.
    """
    found: list[float] = []
    written = orders = 0
    for mark in MARKS:
        while (there := count()) < mark:
            if written < MARKS[-1] and written - there < BACKLOG:
                written += write(range(orders, orders + CHUNK))
                orders += CHUNK
            else:
                wait(lambda: count() > there, STALLED_AFTER_S)
        found.append(held())
    return found
