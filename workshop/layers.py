"""The same reads through a database alone, with Redis before it, and with each process's memory before that."""

from collections.abc import Sequence
from dataclasses import dataclass

import httpx
import pandas as pd
import redis

from workshop import holding
from workshop.lab.lab import Lab
from workshop.reading import Readers, counts_of, processes_of, wake


@dataclass(frozen=True, slots=True)
class Through:
    """What came of it.

    Attributes:
        reads: one row a read; see `reading.Readers.frame`.
        rows: read from the table meanwhile, says PostgreSQL.
        asked: how often something was looked up in Redis meanwhile, says Redis: entries, and leases by its scripts.
        loads: how often the database was asked, says the app; 0 for one without a cache.
    """

    reads: pd.DataFrame
    rows: int
    asked: int
    loads: int


def through(lab: Lab, shop: httpx.Client, product_ids: Sequence[int], *, rate: float) -> Through:
    """Read products from an app, open loop, and ask everybody what that was to them.

    Args:
        rate: reads a second.
    """
    url, staff = lab.namespace.postgres_url, lab.as_("staff/ada")
    rows = holding.rows_read(url)
    wake(shop)
    counted = counts_of(shop, staff)["loads"]
    with redis.Redis.from_url(lab.namespace.urls["SHOWCASE_REDIS_CACHE_URL"], socket_timeout=5) as cache:
        asked = _asked(cache)
        with Readers(processes_of(shop), product_ids, rate) as readers:
            pass
        asked = _asked(cache) - asked
    loads = int(counts_of(shop, staff)["loads"] - counted)
    return Through(readers.frame(), holding.rows_read(url) - rows, asked, loads)


def empty(lab: Lab, shop: httpx.Client) -> None:
    """Remove all that any cache holds. Raises httpx.HTTPStatusError."""
    shop.delete("/caching", headers=lab.as_("staff/ada")).raise_for_status()


def _asked(cache: redis.Redis) -> int:
    """How often something was looked up in Redis, ever."""
    said = cache.info("commandstats")
    return sum(int(said.get(f"cmdstat_{command}", {}).get("calls", 0)) for command in ("get", "mget"))
