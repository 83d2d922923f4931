"""A steady load of changes on PostgreSQL, by somebody who keeps account of what the database has confirmed to him."""

import threading
import time
from collections.abc import Iterator
from itertools import count
from types import TracebackType
from typing import LiteralString, Self
from uuid import UUID, uuid5

import psycopg

HOUSEHOLDS = 20
GIVES_UP_AFTER_S = 60.0
AGAIN_AFTER_S = 0.05
_ORDERS = UUID("7b0b1f0e-5c1f-4b3e-9d55-0a0000000010")
_HOUSEHOLDS: LiteralString = """
    INSERT INTO households (household_id) SELECT generate_series(1, %(households)s) ON CONFLICT DO NOTHING
"""
_PLACE: LiteralString = """
    INSERT INTO orders VALUES (
        %(order_id)s, %(household_id)s, %(reference)s, 'placed', 1, 1, %(total_cents)s, now()
    )
"""
_PAY: LiteralString = "UPDATE orders SET status = 'paid', version = 2 WHERE order_id = %(order_id)s AND version = 1"

Version = tuple[str, int]
"""One version of an order, which one change has made: its id and the number."""


def order_id(number: int) -> UUID:
    """The id of the order with a number: the same in every run."""
    return uuid5(_ORDERS, str(number))


class Writer:
    """Places orders and pays them, each change a transaction of its own, in a thread while its block goes on.

        with Writer(url, rate=150) as writer: …
        writer.acknowledged

    A change whose answer was lost may have been made or not: it is not made again, so whether it was, only the
    database knows.

    Args:
        rate: changes a second, as long as the database answers.
        first: number of its first order.

    Attributes:
        acknowledged: the changes that the database has confirmed.
        unanswered: how many had no answer.
    """

    def __init__(self, url: str, *, rate: float, first: int = 0) -> None:
        self._url, self._rate, self._first = url, rate, first
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._error: Exception | None = None
        self.acknowledged: list[Version] = []
        self.unanswered = 0

    def __enter__(self) -> Self:
        with psycopg.connect(self._url, autocommit=True, connect_timeout=5) as db:
            db.execute(_HOUSEHOLDS, {"households": HOUSEHOLDS})
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(GIVES_UP_AFTER_S)
        if error is None and self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            changes = self._changes()
            while not self._stop.is_set():
                try:
                    with self._connected() as db:
                        self._write(db, changes)
                except psycopg.OperationalError:
                    self.unanswered += 1
        except Exception as error:  # it is raised where the block ends
            self._error = error

    def _connected(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection, as soon as the database takes one. Raises psycopg.OperationalError when it stays away."""
        deadline_s = time.monotonic() + GIVES_UP_AFTER_S
        while True:
            try:
                return psycopg.connect(
                    self._url,
                    autocommit=True,
                    connect_timeout=5,
                    application_name="till",
                    options="-c statement_timeout=10s",
                )
            except psycopg.OperationalError:
                if self._stop.is_set() or time.monotonic() > deadline_s:
                    raise
                self._stop.wait(AGAIN_AFTER_S)

    def _write(self, db: "psycopg.Connection[tuple[object, ...]]", changes: Iterator[tuple[int, int]]) -> None:
        """Until it is told to stop. Raises psycopg.OperationalError when the database goes away."""
        due_s = time.monotonic()
        while not self._stop.wait(max(0.0, due_s - time.monotonic())):
            number, version = next(changes)
            named = {
                "order_id": order_id(number),
                "household_id": number % HOUSEHOLDS + 1,
                "reference": f"basket {number}",
                "total_cents": 100 + number,
            }
            if db.execute(_PLACE if version == 1 else _PAY, named).rowcount:
                self.acknowledged.append((str(named["order_id"]), version))
            due_s = max(due_s + 1 / self._rate, time.monotonic())  # what an outage kept back is not made up for

    def _changes(self) -> Iterator[tuple[int, int]]:
        for number in count(self._first):
            yield number, 1
            yield number, 2
