"""One change's way from the commit to the reader, and how long each hop of it took.

All clocks are one machine's. PostgreSQL's and Debezium's moments are told to the microsecond, Kafka's and MongoDB's to
the millisecond. Kafka's is the one at which Debezium hands the change over: topics here keep the producer's time.
"""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pandas as pd
from pymongo.database import Database
from pymongo.errors import PyMongoError

RECORDS = "audit_records"
HOPS: Mapping[str, str] = {
    "postgres": "committed",
    "connect": "read from the log",
    "kafka": "handed to Kafka",
    "mongo": "stored as a record",
    "reader": "seen by a reader",
}
"""The system, and what has happened there."""
WAIT_MS = 100
WITHIN_S = 10.0


class Seen:
    """When a reader of MongoDB gets to see each record of a table: it follows the collection while its block runs.

    Attributes:
        error: why it follows no more; empty while it does.
    """

    def __init__(self, database: Database[dict[str, Any]], entity_type: str) -> None:
        self._records = database[RECORDS]
        self._wanted = [{"$match": {"operationType": "insert", "fullDocument.change.entity_type": entity_type}}]
        self._at: dict[str, float] = {}
        self._opened, self._stop = threading.Event(), threading.Event()
        self.error = ""

    @contextmanager
    def following(self) -> Iterator["Seen"]:
        """Raises RuntimeError when it cannot begin."""
        thread = threading.Thread(target=self._follow, name="seen", daemon=True)
        thread.start()
        if not self._opened.wait(WITHIN_S) or self.error:
            self._stop.set()
            raise RuntimeError(f"nobody follows the records: {self.error or 'no answer'}")
        try:
            yield self
        finally:
            self._stop.set()
            thread.join(WITHIN_S)

    def of(self, entity_ids: list[str]) -> int:
        """Of how many of these rows it has seen a record."""
        return len(self._at.keys() & set(entity_ids))

    def frame(self) -> pd.DataFrame:
        """One row a row of the table: its id, `at` which its first record was seen."""
        at = pd.to_datetime(list(self._at.values()), unit="s", utc=True)
        return pd.DataFrame({"entity_id": list(self._at), "at": at})

    def _follow(self) -> None:
        try:
            with self._records.watch(self._wanted, max_await_time_ms=WAIT_MS) as changes:
                self._opened.set()
                while not self._stop.is_set():
                    if (change := changes.try_next()) is not None:
                        self._at.setdefault(change["fullDocument"]["change"]["entity_id"], time.time())
        except PyMongoError as error:
            self.error = f"{type(error).__name__}: {error}"
            self._opened.set()


def traced(
    messages: pd.DataFrame, database: Database[dict[str, Any]], seen: pd.DataFrame, ids: list[str]
) -> pd.DataFrame:
    """The way of the first change of each of some rows: `entity_id`, `hop`, `ms` since its commit.

    Args:
        messages: of the table's topic, with `at` and `value`.
        seen: `entity_id` and `at`.

    A hop that a change has not made yet has no row.
    """
    told: dict[str, dict[str, pd.Timestamp]] = {}
    for message in messages.to_dict("records"):
        envelope, id_ = message["value"], _id_of(message["key"])
        if envelope["op"] == "c" and id_ in set(ids):
            told.setdefault(
                id_,
                {
                    "postgres": pd.Timestamp(envelope["source"]["ts_us"], unit="us", tz="UTC"),
                    "connect": pd.Timestamp(envelope["ts_us"], unit="us", tz="UTC"),
                    "kafka": pd.Timestamp(message["at"]),
                },
            )
    created = {"change.entity_id": {"$in": ids}, "change.operation": "create"}
    for record in database[RECORDS].find(created, {"change.entity_id": 1, "recorded_at": 1}):
        if (hops := told.get(record["change"]["entity_id"])) is not None:
            hops["mongo"] = pd.Timestamp(record["recorded_at"])
    for row in seen.to_dict("records"):
        if (hops := told.get(row["entity_id"])) is not None:
            hops["reader"] = row["at"]
    rows = [
        {"entity_id": id_, "hop": hop, "ms": (hops[hop] - hops["postgres"]).total_seconds() * 1000}
        for id_, hops in told.items()
        for hop in HOPS
        if hop in hops
    ]
    return pd.DataFrame(rows, columns=["entity_id", "hop", "ms"])


def _id_of(key: Mapping[str, Any]) -> str:
    return "/".join(map(str, key.values()))
