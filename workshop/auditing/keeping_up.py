"""A look, some times a second, at what is committed in PostgreSQL and at what of it is recorded in MongoDB."""

import threading
import time
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self

import pandas as pd
import psycopg
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import PyMongoError

from workshop.auditing.hops import RECORDS
from workshop.pictures.audit import audit_progress
from workshop.pictures.style import Picture

EVERY_S = 0.15
WITHIN_S = 5.0
CHANGES = """
    SELECT (SELECT count(*) FROM orders)::int AS orders, (
        (SELECT coalesce(sum(version), 0) FROM orders) + (SELECT count(*) FROM order_lines)
        + (SELECT count(*) FROM payment.charges) + (SELECT count(*) FROM payment.refunds)
        + (SELECT count(*) FROM auth.events) + (SELECT count(*) FROM audit.reads)
        + (SELECT count(*) FROM audit_context)
    )::int AS changes
"""
"""How many changes of audited rows have been committed: an order counts its own in `version`, others are only added."""
ADDED = ("order_lines", "payment.charges", "payment.refunds", "auth.events", "audit.reads", "audit_context")


def settled(postgres_url: str, database: Database[dict[str, Any]]) -> bool:
    """Whether all that is committed is recorded: all rows that came or went, and of each order its version and total.

    What else is changed by hand it does not see.
    """
    with psycopg.connect(postgres_url, connect_timeout=int(WITHIN_S), autocommit=True) as db:
        for table in ADDED:
            row: Any = db.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()  # noqa: S608 - a constant
            added, removed = (
                database[RECORDS].count_documents(
                    {"change.entity_type": table, "change.operation": {"$in": operations}}
                )
                for operations in (["create", "read"], ["delete"])
            )
            if row[0] != added - removed:
                return False
        rows = db.execute("SELECT order_id::text, version, total_cents FROM orders").fetchall()
    last: dict[str, Any] = {}
    for one in database[RECORDS].find({"change.entity_type": "orders"}, {"change": 1}, sort=[("_id", 1)]):
        last[one["change"]["entity_id"]] = one["change"]["after"]
    return all((now := last.get(id_)) and (now["version"], now["total_cents"]) == tuple(row) for id_, *row in rows)


class KeepingUp:
    """Looks while its block runs, from another thread, over connections of its own; counts from 0.

    It begins when nothing is on its way.

    Attributes:
        error: why it looks no more, if a server is away.
    """

    def __init__(self, postgres_url: str, mongo_url: str) -> None:
        self._postgres_url, self._mongo_url = postgres_url, mongo_url
        self._rows: list[tuple[float, int, int, int]] = []
        self._marks: list[tuple[float, str]] = []
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._look, name="keeping up", daemon=True)
        self._servers = ExitStack()
        self._began_s = time.monotonic()
        self._first = (0, 0, 0)
        self.error = ""

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            self._db = opened.enter_context(
                psycopg.connect(self._postgres_url, connect_timeout=int(WITHIN_S), autocommit=True)
            )
            client: MongoClient[dict[str, Any]] = MongoClient(self._mongo_url, timeoutMS=int(WITHIN_S * 1000))
            self._records = opened.enter_context(client).get_default_database()[RECORDS]
            self._first = self._counts()
            self._servers = opened.pop_all()
        self._began_s = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(2 * WITHIN_S)
        self._servers.close()

    def mark(self, what: str) -> None:
        """Something happens now."""
        with self._lock:
            self._marks.append((self._now_s(), what))

    def lag(self) -> int:
        """How many changes are not recorded now. Raises RuntimeError when nobody looks any more."""
        if self.error:
            raise RuntimeError(f"nobody looks any more: {self.error}")
        return self._note()

    def frame(self) -> pd.DataFrame:
        """Every look so far: `at_s`, `orders`, `changes`, `records`, since the block began."""
        with self._lock:
            return pd.DataFrame(self._rows, columns=["at_s", "orders", "changes", "records"])

    def picture(self, title: str = "What is committed, and what of it is recorded") -> Picture:
        """What it looks like now."""
        frame = self.frame()
        with self._lock:
            marks = list(self._marks)
        return audit_progress(frame, marks, title=title)

    def _now_s(self) -> float:
        return time.monotonic() - self._began_s

    def _counts(self) -> tuple[int, int, int]:
        # MongoDB first: what is recorded in between would look as if the audit were ahead.
        records = self._records.estimated_document_count()
        row: Any = self._db.execute(CHANGES).fetchone()
        return int(row[0]), int(row[1]), records

    def _note(self) -> int:
        """One look, written down; how many changes are not recorded."""
        with self._lock:
            orders, changes, records = (now - first for now, first in zip(self._counts(), self._first, strict=True))
            self._rows.append((self._now_s(), orders, changes, records))
        return changes - records

    def _look(self) -> None:
        try:
            while not self._stop.is_set():
                self._note()
                self._stop.wait(EVERY_S)
        except (PyMongoError, psycopg.Error) as error:
            self.error = f"{type(error).__name__}: {error}"


def rate(looks: pd.DataFrame, column: str) -> float:
    """How many came a second, from when the first of them came to when the last did. Raises ValueError: none came."""
    grown, moments = looks[column].to_numpy(), looks["at_s"].to_numpy()
    if len(grown) < 2 or grown[-1] <= grown[0]:
        raise ValueError(f"no {column} came")
    begin = int((grown > grown[0]).argmax()) - 1
    end = int((grown == grown[-1]).argmax())
    return float((grown[end] - grown[begin]) / (moments[end] - moments[begin]))
