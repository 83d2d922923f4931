"""Removes answers when a row changes, whoever changes it: the invalidator reads the database's own log.

It may read a change twice, or after a newer one. A removal that names its version bears that: it removes what is
older, and nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import structlog

from showcase.caching.domain import NEWEST_VERSION
from showcase.kernel import changes
from showcase.kernel.changes import BrokenChange, Change, Operation
from showcase.platform.kafka import Handle, consume
from showcase.platform.settings import Settings
from showcase.platform.worker import Work, persist

log = structlog.get_logger()

Invalidate = Callable[[int, int, bool], Awaitable[None]]
"""Removes the answer about one row: its key, its version, whether it is gone. Raises Unavailable."""
Clear = Callable[[], Awaitable[None]]
"""Removes all of them. Raises Unavailable."""


def following(settings: Settings, table: str, key: str, invalidate: Invalidate, clear: Clear) -> Work:
    """The invalidator that reads the changes of a table; any number of them share the work.

    Args:
        table: `public.products`. Its rows have a `version`, and REPLICA IDENTITY FULL.
        key: the column of its primary key, a whole number.

    It has read a change when the removal has been made: while `invalidate` raises Unavailable, it tries again.
    """

    async def attempt(stop: asyncio.Event) -> None:
        await consume(
            settings.url("kafka_url"),
            [f"{settings.topic_prefix}{table}"],
            removing(key, invalidate, clear),
            stop,
            group=f"{settings.topic_prefix}caching",
            session_timeout_s=settings.kafka_session_timeout_s,
        )

    return lambda stop: persist(attempt, stop)


def removing(key: str, invalidate: Invalidate, clear: Clear) -> Handle:
    """What is to be done with records of a Debezium topic: of each row, the newest change removes.

    What cannot be read is logged, and left to expire. Of a truncation the log names no rows: it removes everything.
    """

    async def handle(messages: Sequence[Any]) -> None:
        newest: dict[int, tuple[int, bool]] = {}
        is_emptied = False
        for message in messages:
            try:
                change = changes.read(message.key(), message.value())
                if change is None:
                    continue
                if change.operation is Operation.TRUNCATE:
                    is_emptied = True
                    continue
                row, version, is_gone = _removal(change, key)
            except BrokenChange as error:
                log.error("unreadable change", topic=message.topic(), offset=message.offset(), why=str(error))
                continue
            newest[row] = max(newest.get(row, (0, False)), (version, is_gone))
        if is_emptied:
            await clear()
        for row, (version, is_gone) in newest.items():
            await invalidate(row, version, is_gone)

    return handle


def _removal(change: Change, key: str) -> tuple[int, int, bool]:
    """What a change removes: the row's key, its version, whether it is gone. Raises BrokenChange.

    A key that was changed comes as a deletion and a creation.
    """
    is_gone = change.operation is Operation.DELETE
    row: Any = change.before if is_gone else change.after
    try:
        found, version = row[key], row["version"]
    except (TypeError, KeyError) as error:
        raise BrokenChange(f"the row has no {key}, or no version") from error
    are_whole = isinstance(found, int) and isinstance(version, int)
    if not are_whole or abs(found) >= 2**63 or not 0 <= version <= NEWEST_VERSION:
        raise BrokenChange(f"{key} {found!r:.40} and version {version!r:.40} are no such numbers")
    return found, version, is_gone
