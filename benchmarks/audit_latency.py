"""From a commit in PostgreSQL to the record that can be read in MongoDB: through Debezium, Kafka and the consumer.

Changes are due at fixed times, whether or not those before them are done: an open loop, so a pipeline that stalls is
charged for all changes that are made meanwhile.

A commit's time is taken by the clock of whoever commits, as soon as the answer to COMMIT is there. A record is readable
when a change stream tells of it: that shows nothing which a majority read would not find. `recorded_at` would not do:
it is written before the record is.
"""

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psycopg
from pymongo import AsyncMongoClient

from benchmarks.audit_system import AUDIT, TELL, capture, place_orders, started
from showcase.audit.infrastructure.records import RECORDS
from workshop.stack.namespace import Namespace

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

ORDERS = 200
RATE = 200.0
"""Changes a second: each in a transaction of its own, in which the trigger writes down who makes it."""
WARM_S = 5.0
STEADY_S = 30.0
WRITERS = 10
TOLD_WITHIN_S = 30.0
P50_TARGET_MS, P99_TARGET_MS = 80.0, 400.0
FIRST = 1_000
"""The version of the first change; each has its own, by which its record is known."""


@dataclass(frozen=True, slots=True)
class Latency:
    """What was measured.

    Attributes:
        rate: changes a second that were committed.
        sorted_s: how long each took, the shortest first.
    """

    rate: float
    sorted_s: Sequence[float]

    @classmethod
    def of(cls, committed: Mapping[int, float], readable: Mapping[int, float]) -> Self:
        """Raises KeyError when a change has no record."""
        took = sorted(readable[change] - at for change, at in committed.items())
        return cls((len(committed) - 1) / (max(committed.values()) - min(committed.values())), took)

    @property
    def quantiles_ms(self) -> tuple[float, float]:
        """p50 and p99."""
        hundredths = statistics.quantiles(self.sorted_s, n=100, method="inclusive")
        return 1_000 * hundredths[49], 1_000 * hundredths[98]

    @property
    def is_met(self) -> bool:
        p50, p99 = self.quantiles_ms
        return p50 <= P50_TARGET_MS and p99 <= P99_TARGET_MS

    def __str__(self) -> str:
        p50, p99 = self.quantiles_ms
        return (
            f"commit to readable in MongoDB, {self.rate:.0f} changes a second: "
            f"p50 {p50:.0f} ms (≤ {P50_TARGET_MS:.0f}), p99 {p99:.0f} ms (≤ {P99_TARGET_MS:.0f}), "
            f"longest {1_000 * self.sorted_s[-1]:.0f} ms of "
            f"{len(self.sorted_s):,}: {'met' if self.is_met else 'MISSED'}"
        )


def measured(names: Namespace, folder: Path) -> Latency:
    """Capture, record, change, look. Raises RuntimeError, TimeoutError when a change does not arrive."""
    capture(names)
    with psycopg.connect(names.postgres_url, connect_timeout=10, autocommit=True) as db:
        orders = place_orders(db, ORDERS)
    with started(names, folder, *AUDIT):
        return asyncio.run(_load(names, orders))


async def _load(names: Namespace, orders: Sequence[UUID]) -> Latency:
    readable: dict[int, float] = {}
    warm, steady = round(RATE * WARM_S), round(RATE * STEADY_S)
    async with told(names, readable), connections(names.postgres_url) as free:
        committed = await changed(free, orders, range(FIRST, FIRST + warm + steady))
        async with asyncio.timeout(TOLD_WITHIN_S):
            while not committed.keys() <= readable.keys():  # noqa: ASYNC110 - it is the stream that tells
                await asyncio.sleep(0.05)
    measured_ones = {change: at for change, at in committed.items() if change >= FIRST + warm}
    return Latency.of(measured_ones, readable)


@asynccontextmanager
async def connections(url: str) -> "AsyncIterator[asyncio.Queue[Connection]]":
    """Those that are free."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    async with AsyncExitStack() as stack:
        for _ in range(WRITERS):
            connection = await psycopg.AsyncConnection.connect(url, connect_timeout=10, autocommit=True)
            free.put_nowait(await stack.enter_async_context(connection))
        yield free


async def changed(free: "asyncio.Queue[Connection]", orders: Sequence[UUID], changes: range) -> dict[int, float]:
    """Make changes at `RATE`, each when it is due and in a task of its own; when each was committed."""
    committed: dict[int, float] = {}
    who = json.dumps({"actor": "households/1", "reason": "benchmark"})

    async def change(version: int) -> None:
        db = await free.get()
        async with db.transaction():
            await db.execute(TELL, (who,))
            order = orders[version % len(orders)]
            await db.execute("UPDATE orders SET version = %s WHERE order_id = %s", (version, order))
        committed[version] = time.monotonic()
        free.put_nowait(db)

    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number, version in enumerate(changes):
            if (early_s := began + number / RATE - time.monotonic()) > 0:
                await asyncio.sleep(early_s)
            tasks.create_task(change(version))
    return committed


@asynccontextmanager
async def told(names: Namespace, readable: dict[int, float]) -> AsyncIterator[None]:
    """Note when each change's record became readable."""
    wanted = [
        {"$match": {"operationType": "insert", "fullDocument.change.entity_type": "orders"}},
        {"$project": {"version": "$fullDocument.change.after.version"}},
    ]
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(names.mongo_url, serverSelectionTimeoutMS=10_000)
    async with (
        client,
        await client.get_default_database()[RECORDS.name].watch(wanted, max_await_time_ms=1_000) as stream,
    ):

        async def note() -> None:
            async for change in stream:
                readable[change["version"]] = time.monotonic()

        noting = asyncio.create_task(note())
        try:
            yield
        finally:
            noting.cancel()
            await asyncio.gather(noting, return_exceptions=True)
