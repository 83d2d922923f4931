"""What the audit does in a second, how long a change takes to get there, and verifying: `python -m benchmarks audit`.

On servers of its own: topics are filled, and the store is emptied again and again.
"""

import gc
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import structlog
import uvloop

from benchmarks import audit_latency
from benchmarks.audit_system import (
    BARE,
    PER_ORDER,
    SERVERS,
    Bench,
    Taken,
    capture,
    captured,
    fill,
    place_orders,
    taken,
)
from benchmarks.auth import settings_of
from benchmarks.load import HEADING, Row
from showcase.audit.application.books import Report
from showcase.audit.application.verifying import Verification
from showcase.audit.infrastructure.proof import MongoBooks
from showcase.audit.infrastructure.records import RECORDS
from showcase.documents.wiring import mongo
from showcase.platform.resources import Resources
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

RATE_TARGET, RATIO_TARGET, VERIFY_TARGET = 10_000.0, 0.5, 50_000.0

REAL_ORDERS = 3
ORDERS = 7_700
"""100,000 records."""
TURNS = 5
VERIFICATIONS = 3
CORES = len(os.sched_getaffinity(0))


def main() -> int:
    """Measure, print each figure beside its target or its peer, and return 1 if a target is missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    gc.freeze()
    began, load = time.monotonic(), os.getloadavg()[0]
    with ExitStack() as stack:
        private = stack.enter_context(Stack.private(SERVERS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        servers = {one.name: one.pid for one in private.status() if one.pid and one.name in ("mongo", "kafka")}
        with private.namespace() as names, Bench(names) as bench:
            is_met = throughput(bench, folder, servers)
            is_met &= verifying(names)
        with private.namespace() as names:
            latency = audit_latency.measured(names, folder)
            print(latency, flush=True)
            is_met &= latency.is_met
    took_s = time.monotonic() - began
    print(f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {CORES} cores; load before that {load:.1f}: best when near 0")
    return 0 if is_met else 1


def throughput(bench: Bench, folder: Path, servers: Mapping[str, int]) -> bool:
    """From a full topic, in turns with the bare loop."""
    capture(bench.names)
    with psycopg.connect(bench.names.postgres_url, connect_timeout=10, autocommit=True) as db:
        place_orders(db, REAL_ORDERS)
    history = captured(bench.names, REAL_ORDERS * PER_ORDER)
    count = len(history) + fill(bench.names, history[:PER_ORDER], range(ORDERS))
    turns: dict[str, list[Taken]] = {RECORDS.name: [], BARE: []}
    for turn in range(TURNS):  # an odd number: ours is the last, and stays for verifying
        both = (RECORDS.name, BARE) if turn % 2 else (BARE, RECORDS.name)
        for collection in both:
            turns[collection].append(taken(bench, folder, servers, count, collection))
    ours, bare = turns[RECORDS.name], turns[BARE]
    rates = [one.rate for one in ours]
    row = Row.of(
        "records from a full topic", rates, "consume, parse, insert, commit", [one.rate for one in bare], RATIO_TARGET
    )
    print(HEADING)
    print(row)
    for name, some in (("ours", ours), ("bare", bare)):
        print(f"  {name}: {busy(some)}")
    rate = statistics.median(rates)
    is_met = rate >= RATE_TARGET
    span = f"{min(rates):,.0f} to {max(rates):,.0f}"
    print(
        f"records a second {rate:,.0f} ({span}), target ≥ {RATE_TARGET:,.0f}: {'met' if is_met else 'MISSED'}",
        flush=True,
    )
    return is_met and row.is_met


def busy(turns: list[Taken]) -> str:
    """How much of a core each process has used, and for how long a record."""
    shares = {name: statistics.median(one.shares[name] for one in turns) for name in turns[0].shares}
    micros = {name: statistics.median(1e6 * one.shares[name] / one.rate for one in turns) for name in shares}
    return ", ".join(f"{name} {share:.0%} of a core, {micros[name]:.0f} µs a record" for name, share in shares.items())


def verifying(names: Namespace) -> bool:
    """All that the last turn has stored, by a process that does nothing else."""
    rates: list[float] = []

    async def verify() -> Report:
        report = Report()
        async with Resources(settings_of({**names.env, "SHOWCASE_ENVIRONMENT": "workshop"})) as resources:
            began = time.perf_counter()
            await Verification(MongoBooks(mongo(resources)), report, grace=timedelta()).verify()
            rates.append(report.records / (time.perf_counter() - began))
        return report

    for _ in range(VERIFICATIONS):
        report = uvloop.run(verify())
        if not report.is_clean:
            raise RuntimeError(f"not clean: {report.findings[0]}")
    rate = statistics.median(rates)
    is_met = rate >= VERIFY_TARGET
    print(
        f"records verified a second {rate:,.0f}, target ≥ {VERIFY_TARGET:,.0f}: {'met' if is_met else 'MISSED'}",
        flush=True,
    )
    return is_met
