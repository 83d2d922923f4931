"""What a cached read costs, beside others who do it: `python -m benchmarks caching`, with the stack up.

All that is compared takes turns, as in `benchmarks.auth`, and reads the same products in the same order.
"""

import asyncio
import logging
import os
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version

import structlog

from benchmarks import caching_memory, caching_stampede
from benchmarks.auth import settings_of
from benchmarks.caching_far import far_hits
from benchmarks.caching_near import near_hits
from benchmarks.caching_system import SETTINGS, fill_redis
from benchmarks.load import HEADING, Row
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

SERVER = "SHOWCASE_REDIS_CACHE_URL"
PEERS = "cashews", "aiocache", "dogpile.cache", "cachetools", "redis", "uvloop"
CORES = len(os.sched_getaffinity(0))

Line = Row | caching_stampede.Stampede | caching_memory.Held


def main() -> int:
    """Measure, print each figure beside its peer, and return 1 if a target is missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began, before = time.monotonic(), os.getloadavg()[0]
    missed = 0
    with ExitStack() as stack:
        servers = stack.enter_context(Stack.attach())
        names = stack.enter_context(Namespace.create({SERVER: servers.urls[SERVER]}))
        environment = {**names.env, **SETTINGS}
        settings = settings_of(environment)
        asyncio.run(fill_redis(settings, range(caching_memory.ENTRIES)))
        parts: Sequence[tuple[str, Iterable[Line]]] = (
            (HEADING, near_hits(settings)),
            (HEADING, far_hits(settings)),
            (caching_stampede.HEADING, caching_stampede.measured(environment)),
            (caching_memory.HEADING, caching_memory.measured(environment)),
        )
        for heading, lines in parts:
            print(heading)
            for line in lines:
                missed += not line.is_met
                print(line, flush=True)
            print()
    print("beside", ", ".join(f"{peer} {version(peer)}" for peer in PEERS))
    took_s = time.monotonic() - began
    print(
        f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {CORES} cores; load before that {before:.1f}: best when near 0"
    )
    return 1 if missed else 0
