"""A database that is slow, for as long as a lesson wants: a table is locked, and whoever would read it waits.

PostgreSQL itself says how many wait, and how many rows were ever read.
"""

import time
from contextlib import ExitStack
from typing import Self

import psycopg

from workshop.stack.namespace.postgres import session

LONGEST_S = 25.0
ASKS_WITHIN_S = 5.0
_WAITING = "SELECT count(*)::int FROM pg_locks WHERE relation = 'products'::regclass AND NOT granted"
_READ = "SELECT idx_tup_fetch::int FROM pg_stat_user_tables WHERE relname = 'products'"
_OTHERS = """
    SELECT count(pg_terminate_backend(pid))::int FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


class Held:
    """Nobody reads a product while the block goes on, or until `free`. A context manager.

    Raises StackError at its end when it took longer than LONGEST_S: by then the lock was gone.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            db = opened.enter_context(session(self._url, LONGEST_S, autocommit=False))
            db.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
            self._lock = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self.free()

    def free(self) -> None:
        """Let all of them read; harmless when that is done."""
        self._lock.close()


def waiting(url: str) -> int:
    """How many reads of products wait at the lock now."""
    return _number(url, _WAITING)


def rows_read(url: str) -> int:
    """How many rows of products were ever read through an index, by PostgreSQL's own count.

    Each connection tells what it has read when it likes, up to ten seconds late, and when it ends. So all others are
    ended; nobody may be in the middle of something. An app opens new ones. Raises RuntimeError if they do not end.
    """
    deadline = time.monotonic() + ASKS_WITHIN_S
    while _number(url, _OTHERS):
        if time.monotonic() > deadline:
            raise RuntimeError(f"connections to the database have not ended within {ASKS_WITHIN_S:g} s")
        time.sleep(0.02)
    return _number(url, _READ)


def _number(url: str, query: str) -> int:
    with session(url, ASKS_WITHIN_S) as db:
        row: tuple[int] | None = db.execute(query.encode()).fetchone()
    if row is None:
        raise psycopg.ProgrammingError("there is no table products")
    return row[0]
