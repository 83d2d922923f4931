"""Many readers who all want one product at the same moment, while the database is too slow to answer the first.

The table is locked until all of them have come: what would be a race on a busy evening is certain here.
"""

import httpx
import pandas as pd
import redis

from workshop import holding
from workshop.lab.lab import Lab
from workshop.naive.aside import Crowd, Servers
from workshop.reading import Readers, counts_of, processes_of

READERS = 200
ARRIVED_WITHIN = "20 s"


def on_cache_aside(lab: Lab, product_id: int) -> pd.DataFrame:
    """Readers in two processes of the naive kind.

    Returns one row a reader: sent_s, answered_s, layer. With `attrs`: `free_s`, when the table was unlocked; `loads`,
    the rows that PostgreSQL says were read.
    """
    url, cache_url = lab.namespace.postgres_url, lab.namespace.urls["SHOWCASE_REDIS_CACHE_URL"]
    servers = Servers(url, cache_url, lab.namespace.redis_prefix)
    before = holding.rows_read(url)
    with redis.Redis.from_url(cache_url, socket_timeout=5) as cache:
        misses = cache.info("stats")["keyspace_misses"]
        with holding.Held(url) as table, Crowd(servers, product_id, readers=READERS) as crowd:
            lab.until(lambda: cache.info("stats")["keyspace_misses"] - misses >= READERS, ARRIVED_WITHIN)
            free_s = crowd.now_s()
            table.free()
    frame = crowd.frame()
    frame.attrs = {"free_s": free_s, "loads": holding.rows_read(url) - before}
    return frame


def on_app(lab: Lab, shop: httpx.Client, product_id: int, *, nobody_waits: bool = False) -> pd.DataFrame:
    """Readers of an app's processes.

    Args:
        nobody_waits: keep the table locked until all have their answer. CheckFailed if they do not get it.

    Returns what `on_cache_aside` does; `attrs` also has `counted`, the loads that the app has counted.
    """
    url, staff = lab.namespace.postgres_url, lab.as_("staff/ada")
    before, counted = holding.rows_read(url), counts_of(shop, staff)
    with holding.Held(url) as table, Readers(processes_of(shop), [product_id] * READERS) as readers:
        lab.until(lambda: readers.sent == READERS and holding.waiting(url) > 0, ARRIVED_WITHIN)
        if nobody_waits:
            lab.until(lambda: readers.answered == READERS, "5 s", "all are answered while the table is locked")
        free_s = readers.now_s()
        table.free()
    frame = readers.frame()
    # Only what has ended is counted; with an old answer nobody has waited for that.
    lab.until(lambda: counts_of(shop, staff)["load_s"] > counted["load_s"], what="a load has ended")
    frame.attrs = {
        "free_s": free_s,
        "loads": holding.rows_read(url) - before,
        "counted": int(counts_of(shop, staff)["loads"] - counted["loads"]),
    }
    return frame
