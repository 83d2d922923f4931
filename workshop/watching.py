"""A look, ten times a second, at a queue and at what its workers have done: from the broker and from their database."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

import pandas as pd
import psycopg
from pika.exceptions import AMQPError

from workshop.pictures.queueing import queue_drained
from workshop.pictures.style import Picture
from workshop.stack.local.rabbitmq import connect

EVERY_S = 0.1
WITHIN_S = 5.0


class Watch:
    """Looks while its block runs; each server is asked over a connection of its own.

    with Watch(postgres_url, rabbitmq_url, "payment", "SELECT count(*) FROM payment.charges") as watch: …

    Args:
        done: a query that counts what is done.

    Attributes:
        error: why it looks no more, if a server is away.
    """

    def __init__(self, postgres_url: str, rabbitmq_url: str, queue: str, done: str) -> None:
        self._postgres_url, self._rabbitmq_url = postgres_url, rabbitmq_url
        self._queue, self._done = queue, done
        self.error = ""
        self._rows: list[tuple[float, int, int]] = []
        self._phases: list[tuple[float, float, int]] = []
        self._lock = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._look, name="watch", daemon=True)
        self._servers = ExitStack()
        self._began_s = time.monotonic()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            db = opened.enter_context(
                psycopg.connect(self._postgres_url, connect_timeout=int(WITHIN_S), autocommit=True)
            )
            broker = connect(self._rabbitmq_url, WITHIN_S)
            opened.callback(broker.close)
            self._db, self._channel = db, broker.channel()
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

    def phase(self, workers: int, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Let so many workers, all of them running by now, work for so long. Raises RuntimeError: a server is away."""
        began_s = self.now_s()
        with self._lock:
            self._phases.append((began_s, began_s + seconds, workers))
        while self.now_s() < began_s + seconds:
            if self.error:
                raise RuntimeError(f"nobody looks any more: {self.error}")
            meanwhile()
            self._stop.wait(EVERY_S)

    def now_s(self) -> float:
        """Seconds since the first look."""
        return time.monotonic() - self._began_s

    def frame(self) -> pd.DataFrame:
        """Every look so far: at_s, done, waiting."""
        with self._lock:
            return pd.DataFrame(self._rows, columns=["at_s", "done", "waiting"])

    def rates(self) -> dict[int, float]:
        """How much so many workers did a second, in each phase."""
        with self._lock:
            phases = list(self._phases)
        return rates(self.frame(), phases)

    def picture(self) -> Picture:
        """What it looks like now."""
        with self._lock:
            phases = [(began_s, workers) for began_s, _, workers in self._phases]
        if phases:
            phases[0] = (0.0, phases[0][1])
        return queue_drained(self.frame(), phases, title="Payment's queue, and its workers")

    def _look(self) -> None:
        try:
            while not self._stop.wait(EVERY_S):
                at_s = self.now_s()
                waiting = self._channel.queue_declare(self._queue, passive=True).method.message_count
                row: Any = self._db.execute(self._done.encode()).fetchone()
                with self._lock:
                    self._rows.append((at_s, int(row[0]), int(waiting)))
        except (AMQPError, psycopg.Error) as error:
            self.error = f"{type(error).__name__}: {error}"


def rates(looks: pd.DataFrame, phases: Sequence[tuple[float, float, int]]) -> dict[int, float]:
    """How much was done a second in each phase, while there was work.

    Args:
        looks: at_s, done, waiting.
        phases: from when to when there were how many workers.

    Raises ValueError for a phase in which nobody has seen any work.
    """
    found = {}
    for began_s, ended_s, workers in phases:
        during = looks[(looks.at_s >= began_s) & (looks.at_s <= ended_s) & (looks.waiting > 0)]
        if len(during) < 2:
            raise ValueError(f"there was no work for {workers} workers: the queue was empty before")
        first, last = during.iloc[0], during.iloc[-1]
        found[workers] = float((last.done - first.done) / (last.at_s - first.at_s))
    return found
