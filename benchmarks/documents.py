"""What a repository of documents costs beside the bare driver: `python -m benchmarks documents`, with the stack up.

All that is compared takes turns, as in `benchmarks.auth`, each on documents of the same fields in its own collection.
"""

import asyncio
import logging
import os
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import structlog
import uvloop

from benchmarks import documents_paging, documents_peers
from benchmarks.auth import settings_of
from benchmarks.caching_far import side_by_side
from benchmarks.caching_system import entered
from benchmarks.documents_kinds import DECIMAL, FLAT, ORDER, Kind
from benchmarks.documents_peers import Peer
from benchmarks.load import HEADING, Row, Turn, in_turns
from showcase.documents import wiring
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

SINGLE_TARGET = 1 / 1.15
FIND_TARGET = 1 / 1.6

SERVER = "SHOWCASE_MONGO_URL"
SETTINGS = {
    "SHOWCASE_ENVIRONMENT": "workshop",
    "SHOWCASE_MONGO_TIMEOUT_S": "30",  # a deadline costs the same however long it is, and no stall ends the benchmark
}
LIBRARIES = "pymongo", "beanie", "pydantic", "uvloop"
CORES = len(os.sched_getaffinity(0))
TURNS = 11
FEWER_TURNS = 5
STORED = 2_000
"""More than are found at once: a limit has something to leave out."""
READS = 400
READS_AT_ONCE = 1_000
READERS = 50
WRITES = 200
FINDS = 15
FOUND = 1_000
BULK = 10_000


def main() -> int:
    """Measure, print each figure beside its peer, and return 1 if a target is missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began, before = time.monotonic(), os.getloadavg()[0]
    missed = 0
    with ExitStack() as stack:
        servers = stack.enter_context(Stack.attach())
        names = stack.enter_context(Namespace.create({SERVER: servers.urls[SERVER]}))
        print(HEADING)
        for row in measured(settings_of({**names.env, **SETTINGS})):
            missed += not row.is_met
            print(row, flush=True)
    print("beside", ", ".join(f"{library} {version(library)}" for library in LIBRARIES))
    took_s = time.monotonic() - began
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {CORES} cores; load before that {before:.1f}: best when near 0"
    )
    return 1 if missed else 0


def measured(settings: Settings) -> Iterator[Row]:
    """All figures, kind by kind."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner, ExitStack() as stack:
        mongo = wiring.mongo(entered(runner, stack, Resources(settings)))
        database = entered(runner, stack, documents_peers.connected(mongo, settings.url("mongo_url")))

        async def stored(kind: Kind) -> Sequence[Peer]:
            peers = await documents_peers.of(mongo, database, kind)
            for peer in peers:
                await peer.bulk([peer.new() for _ in range(STORED)])
            return peers

        for kind in (FLAT, ORDER, DECIMAL):
            peers = runner.run(stored(kind))
            for figure in FIGURES:
                if kind in figure.kinds:
                    yield from figure.rows(runner, kind, peers)
        yield from documents_paging.pages(runner, mongo, database)


async def gets(peer: Peer) -> float:
    """One by one."""
    ids = await _ids(peer, READS)
    began = time.perf_counter()
    for id_ in ids:
        await peer.get(id_)
    return READS / (time.perf_counter() - began)


async def gets_at_once(peer: Peer) -> float:
    """Many readers side by side, who keep the thread busy."""
    ids = await _ids(peer, READS_AT_ONCE)
    began = time.perf_counter()
    await side_by_side(peer.get, ids, READERS)
    return READS_AT_ONCE / (time.perf_counter() - began)


async def inserts(peer: Peer) -> float:
    """One by one; in the end they are removed."""
    documents = [peer.new() for _ in range(WRITES)]
    began = time.perf_counter()
    for document in documents:
        await peer.insert(document)
    took_s = time.perf_counter() - began
    await _removed(peer, documents)
    return WRITES / took_s


async def replaces(peer: Peer) -> float:
    """One by one, each twice: the second time what the first one gave back."""
    documents = [await peer.get(id_) for id_ in await _ids(peer, WRITES // 2)]
    began = time.perf_counter()
    for document in documents:
        await peer.replace(await peer.replace(document))
    return WRITES / (time.perf_counter() - began)


async def finds(peer: Peer) -> float:
    """Finds of many: finds a second, not documents."""
    began = time.perf_counter()
    for _ in range(FINDS):
        assert len(await peer.find(FOUND)) == FOUND
    return FINDS / (time.perf_counter() - began)


async def bulks(peer: Peer) -> float:
    """New documents in one call; in the end they are removed."""
    documents = [peer.new() for _ in range(BULK)]
    began = time.perf_counter()
    assert await peer.bulk(documents) == BULK
    took_s = time.perf_counter() - began
    await _removed(peer, documents)
    return BULK / took_s


async def _ids(peer: Peer, count: int) -> list[Any]:
    return [one["_id"] async for one in peer.collection.find({}, ["_id"], limit=count)]


async def _removed(peer: Peer, documents: Sequence[Any]) -> None:
    await peer.collection.delete_many({"_id": {"$in": [peer.id_of(document) for document in documents]}})


@dataclass(frozen=True, slots=True)
class Figure:
    """Something that all do.

    Attributes:
        timed: does it for one turn; how many a second.
        kinds: of documents that it is done with.
        target: for flat documents.
    """

    name: str
    timed: Callable[[Peer], Coroutine[Any, Any, float]]
    kinds: Sequence[Kind]
    target: float | None = None

    def rows(self, runner: asyncio.Runner, kind: Kind, peers: Sequence[Peer]) -> Iterator[Row]:
        """Ours beside each of the others; a target is one beside the driver."""
        target = self.target if kind is FLAT else None
        mine, *theirs = in_turns(
            FEWER_TURNS if target is None else TURNS, *(self._turn(runner, peer) for peer in peers)
        )
        for peer, rates, aim in zip(peers[1:], theirs, (target, None), strict=True):
            yield Row.of(f"{self.name}, {kind.name}", mine, peer.name, rates, aim)

    def _turn(self, runner: asyncio.Runner, peer: Peer) -> Turn:
        return lambda: runner.run(self.timed(peer))


FIGURES = (
    Figure("get", gets, (FLAT, ORDER), SINGLE_TARGET),
    Figure("insert", inserts, (FLAT, ORDER), SINGLE_TARGET),
    Figure("replace", replaces, (FLAT, ORDER), SINGLE_TARGET),
    Figure(f"find of {FOUND:,}", finds, (FLAT, ORDER, DECIMAL), FIND_TARGET),
    Figure(f"bulk of {BULK:,}", bulks, (FLAT,)),
    Figure(f"get, {READERS} at once", gets_at_once, (FLAT,)),
)
