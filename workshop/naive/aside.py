"""Cache-aside, as the tutorials have it: look into Redis; ask the database for what is not there; put it there."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import pandas as pd
from redis.asyncio import Redis

from showcase.platform.database import Database
from showcase.shop.domain import ProductId
from showcase.shop.infrastructure import SqlProducts

KEPT_S = 60
WITHIN_S = 60.0
Row = tuple[float, float, str]
"""When a reader asked and was answered (`time.monotonic`), and by whom: `far` or `loaded`."""
# As in `killing`: a plain fork would copy a notebook's threads and locks.
_PROCESSES = get_context("forkserver")


@dataclass(frozen=True, slots=True)
class Servers:
    """Where it looks, and where it asks: URLs, and how the keys begin."""

    postgres: str
    redis: str
    prefix: str


async def product(redis: Redis, products: SqlProducts, key: str, product_id: ProductId) -> tuple[Any, str]:
    """A product, and who had it."""
    found = await redis.get(key)
    if found is not None:
        return json.loads(found), "far"
    loaded = await products.find(product_id)
    await redis.set(key, json.dumps(asdict(loaded) if loaded else None), ex=KEPT_S)
    return loaded, "loaded"


class Crowd:
    """Many readers of one product, in two processes, who all ask at the same moment.

        with Crowd(servers, 1082185) as crowd: …
        crowd.frame()

    The block begins when all are about to ask, and ends when all have their answer.

    Args:
        readers: in all processes together.
    """

    def __init__(self, servers: Servers, product_id: int, *, readers: int = 200, processes: int = 2) -> None:
        self._pipes = []
        self._processes = []
        self._began_s = 0.0
        self._rows: list[tuple[int, Row]] = []
        for _ in range(processes):
            ours, theirs = _PROCESSES.Pipe()
            arguments = (servers, product_id, readers // processes, theirs)
            self._processes.append(_PROCESSES.Process(target=_ask, args=arguments, daemon=True))
            self._pipes.append((ours, theirs))

    def __enter__(self) -> Self:
        for process, (_, theirs) in zip(self._processes, self._pipes, strict=True):
            process.start()
            theirs.close()
        for ours, _ in self._pipes:
            _received(ours)
        self._began_s = time.monotonic()
        for ours, _ in self._pipes:
            ours.send("ask")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                for number, (ours, _) in enumerate(self._pipes):
                    self._rows += [(number, row) for row in _received(ours)]
        finally:
            for process, (ours, _) in zip(self._processes, self._pipes, strict=True):
                if error is not None:
                    process.kill()
                process.join(WITHIN_S)
                ours.close()

    def now_s(self) -> float:
        """Seconds since all were told to ask."""
        return time.monotonic() - self._began_s

    def frame(self) -> pd.DataFrame:
        """One row a reader: process, sent_s and answered_s since all were told to ask, layer."""
        rows = [(n, sent - self._began_s, answered - self._began_s, layer) for n, (sent, answered, layer) in self._rows]
        return pd.DataFrame(rows, columns=["process", "sent_s", "answered_s", "layer"])


def _received(ours: "Connection[Any, Any]") -> Any:
    """What a process says. Raises RuntimeError when it says nothing in time."""
    if not ours.poll(WITHIN_S):
        raise RuntimeError(f"a naive process has said nothing for {WITHIN_S:g} s")
    try:
        return ours.recv()
    except EOFError as error:
        raise RuntimeError("a naive process has ended without a word") from error


def _ask(servers: Servers, product_id: int, readers: int, theirs: "Connection[Any, Any]") -> None:
    """One process: connects, waits for the word, and says what its readers have seen."""

    def ready() -> None:
        theirs.send("ready")
        theirs.recv()

    theirs.send(asyncio.run(_all(servers, ProductId(product_id), readers, ready)))


async def _all(servers: Servers, product_id: ProductId, readers: int, ready: Callable[[], None]) -> list[Row]:
    redis = Redis.from_url(servers.redis, socket_timeout=WITHIN_S)
    database = Database(servers.postgres, timeout_s=WITHIN_S)
    products, key = SqlProducts(database), f"{servers.prefix}naive:{product_id}"

    async def read() -> Row:
        sent = time.monotonic()
        _, layer = await product(redis, products, key, product_id)
        return sent, time.monotonic(), layer

    try:
        await redis.ping()
        await database.ping()
        ready()
        return await asyncio.gather(*(read() for _ in range(readers)))
    finally:
        await redis.aclose()
        await database.close()
