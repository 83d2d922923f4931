"""What relay and worker hold in memory, up to a million messages: `python -m benchmarks messaging_memory`.

Takes ten minutes. Both are processes as `showcase` starts them, on servers of their own.
"""

import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import psutil
import psycopg

from benchmarks.messaging_system import EFFECTS, EFFECTS_SO_FAR, add_to_outbox, messages, started
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

SERVERS = ("postgres", "rabbitmq")
MARKS = (100_000, 500_000, 1_000_000)
"""Messages handled, at which memory is read."""
CHUNK = 10_000
BACKLOG = 2 * CHUNK
"""No more are added while so many wait: the limit of a queue is 100,000."""
GROWTH_TARGET = 1.05
"""Of the last mark beside the first: nothing is kept of a message."""
STALLED_AFTER_S = 60.0
LOOK_S = 0.2

Processes = Mapping[str, "subprocess.Popen[bytes]"]


def main() -> int:
    """Measure, print what each process holds at each mark, and return 1 if one grows."""
    began, load = time.monotonic(), os.getloadavg()[0]
    with ExitStack() as stack:
        private = stack.enter_context(Stack.private(SERVERS))
        names = stack.enter_context(Namespace.create(private.urls))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        db = stack.enter_context(psycopg.connect(names.postgres_url, connect_timeout=10, autocommit=True))
        db.execute(EFFECTS)
        environment = {**names.env, "SHOWCASE_ENVIRONMENT": "workshop"}
        running = {name: stack.enter_context(started(environment, folder, name)) for name in ("relay", "worker")}
        held = memory_at_marks(db, running)
    is_met = True
    for name, found in held.items():
        growth = found[-1] / found[0]
        is_met &= growth <= GROWTH_TARGET
        marks = ", ".join(f"{mib:.1f} MiB after {mark:,}" for mark, mib in zip(MARKS, found, strict=True))
        print(
            f"{name:8} {marks}: {growth:.3f} times as much, target ≤ {GROWTH_TARGET}: {'met' if is_met else 'MISSED'}"
        )
    rate = MARKS[-1] / (took_s := time.monotonic() - began)
    print(f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {rate:,.0f} a second; load before that {load:.1f}")
    return 0 if is_met else 1


def memory_at_marks(db: "psycopg.Connection[tuple[object, ...]]", running: Processes) -> dict[str, list[float]]:
    """What each process holds, MiB, whenever so many messages have had their effect.

    Raises TimeoutError when there are no more effects.
    """
    held: dict[str, list[float]] = {name: [] for name in running}
    added = 0
    for mark in MARKS:
        while (done := effects(db)) < mark:
            if added < MARKS[-1] and added - done < BACKLOG:
                add_to_outbox(db, messages(CHUNK))
                db.execute("NOTIFY outbox")
                added += CHUNK
            wait_for_more(lambda: effects(db), done)
        for name, popen in running.items():
            held[name].append(psutil.Process(popen.pid).memory_info().rss / 2**20)
    return held


def effects(db: "psycopg.Connection[tuple[object, ...]]") -> int:
    """How many there are."""
    row = db.execute(EFFECTS_SO_FAR).fetchone()
    assert row is not None
    assert isinstance(row[0], int)
    return row[0]


def wait_for_more(count: Callable[[], int], than: int) -> None:
    """Raises TimeoutError when none come."""
    deadline = time.monotonic() + STALLED_AFTER_S
    while count() <= than:
        if time.monotonic() > deadline:
            raise TimeoutError(f"no effect after {than:,}")
        time.sleep(LOOK_S)
