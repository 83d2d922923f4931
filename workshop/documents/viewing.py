"""The views of orders beside the orders themselves: what each server holds, over time, and whether they agree."""

import json
import math
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self

import pandas as pd
import psycopg
from pymongo import MongoClient

from showcase.shop.application.views import ORDER_VIEWS
from workshop.documents.breaking import Asking
from workshop.lab.lab import Lab
from workshop.lab.replay import Replay

LOOK_EVERY_S = 0.05
WITHIN_S = 15.0
ANSWERED = 200
_COLUMNS = ["order_id", "household_id", "reference", "status", "reason", "version", "total_cents", "lines"]
_ORDERS = """
    SELECT order_id::text, household_id, reference, status, reason, version, orders.total_cents::int AS total_cents,
        json_agg(json_build_array(product_id, quantity, order_lines.total_cents) ORDER BY line)::text AS lines
    FROM orders JOIN order_lines USING (order_id) GROUP BY order_id ORDER BY order_id
"""


def in_postgres(lab: Lab) -> pd.DataFrame:
    """Every order, with its lines, as PostgreSQL has it."""
    found = lab.sql(_ORDERS)
    return found.assign(lines=[json.loads(one) for one in found["lines"]])[_COLUMNS]


def in_mongo(lab: Lab) -> pd.DataFrame:
    """Every view, with its lines, as MongoDB has it; in the order of their ids."""
    rows = [
        {
            **one,
            "order_id": str(one["_id"]),
            "lines": [[line["product_id"], line["quantity"], line["total_cents"]] for line in one["lines"]],
        }
        for one in lab.mongo[ORDER_VIEWS.name].find().sort("_id", 1)
    ]
    return pd.DataFrame(rows, columns=_COLUMNS)


def apart(lab: Lab) -> int:
    """How many orders and views there are that are not the same on both sides, to the last line."""
    sides = [{row["order_id"]: row for row in frame.to_dict("records")} for frame in (in_postgres(lab), in_mongo(lab))]
    return sum(sides[0].get(order_id) != sides[1].get(order_id) for order_id in sides[0].keys() | sides[1].keys())


class Watched:
    """Counts orders and views, all the time, while its block goes on; and has things done in the middle of a replay.

        with Watched(lab) as watched:
            lab.replay(baskets, rate=15, then=watched.does(("rebuilt", rebuild)))
        watched.frame()

    Attributes:
        moments: when each thing was begun, Unix time; done: when it was done.
    """

    def __init__(self, lab: Lab) -> None:
        self._urls = lab.namespace.postgres_url, lab.namespace.mongo_url
        self._stop = threading.Event()
        self._rows: list[tuple[float, int, int]] = []
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.moments: dict[str, float] = {}
        self.done: dict[str, float] = {}
        self.began = time.time()

    def __enter__(self) -> Self:
        self.began = time.time()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(WITHIN_S)

    def does(self, *to_do: tuple[str, Callable[[], object]]) -> Callable[[Replay], None]:
        """What is to be done, one after the other, as soon as a basket of a replay was answered."""
        left = [*to_do]

        def now_and_then(replay: Replay) -> None:
            while left and replay.answers:
                name, do = left.pop(0)
                self.moments[name] = time.time()
                do()
                self.done[name] = time.time()

        return now_and_then

    def arrived(self, first: str, last: str) -> int:
        """How many orders arrived from when one thing was begun until another was done."""
        looks = self.frame()
        at_s = looks.at_s + self.began
        within = looks.orders[at_s.between(self.moments[first], self.done[last])]
        return int(within.max() - within.min()) if len(within) else 0

    def frame(self) -> pd.DataFrame:
        """One row a look: `at_s` since the block began, `orders` in PostgreSQL, `views` in MongoDB."""
        return pd.DataFrame(self._rows, columns=["at_s", "orders", "views"])

    def _look(self) -> None:
        postgres, mongo = self._urls
        client: MongoClient[dict[str, Any]] = MongoClient(mongo, timeoutMS=15_000)
        with client, psycopg.connect(postgres, connect_timeout=5, autocommit=True) as db:
            views = client.get_default_database()[ORDER_VIEWS.name]
            while not self._stop.wait(LOOK_EVERY_S):
                row = db.execute("SELECT count(*)::int FROM orders").fetchone()
                self._rows.append((time.time() - self.began, row[0] if row else 0, views.count_documents({})))


def missed(asked: pd.DataFrame, known: dict[str, int], from_: float, to: float = math.inf) -> int:
    """How many answers, of questions within some time, lacked an order that had been there before.

    Args:
        asked: see `breaking.Asking.frame`.
        known: how many items there were at the beginning, by path.
    """
    within = asked[(asked.due >= from_) & (asked.answered <= to) & (asked.status == ANSWERED)]
    return int((within.found < within.path.map(known).astype(int)).sum())


def until_missed(lab: Lab, readers: Asking, known: dict[str, int]) -> None:
    """Wait until the answer to a question from now on lacks an order. Raises CheckFailed when none does."""
    from_ = time.time()
    lab.until(lambda: missed(readers.frame(), known, from_) > 0, "30 s", "a reader misses orders")


def paths_of(households: Sequence[int]) -> list[str]:
    """Where the orders of some households are read."""
    return [f"/households/{household}/orders" for household in households]
