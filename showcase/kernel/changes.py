"""A change of one row, as change data capture tells it: Debezium's envelope, typed. One reader, two dialects.

https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events
https://debezium.io/documentation/reference/stable/connectors/sqlserver.html#sqlserver-events
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any

EPOCH_HEADER = "epoch"
"""The header in which the connector says which life of its source this is: after a restore the log begins again."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


class BrokenChange(ValueError):
    """What arrived is no change that we can read. Reading it again is no use."""


class Operation(StrEnum):
    """What happened to the row."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READ = "read"
    """It was there when capturing began: a snapshot, not a change."""
    TRUNCATE = "truncate"
    """All rows of the table were removed: the log names none of them."""


_OPERATIONS = {
    "c": Operation.CREATE,
    "u": Operation.UPDATE,
    "d": Operation.DELETE,
    "r": Operation.READ,
    "t": Operation.TRUNCATE,
}
_MESSAGE = "m"
"""Of `pg_logical_emit_message`: of no table."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row, before and after.

    Attributes:
        source: which database, by the name that its connector has for it.
        epoch: which life of it.
        table: `orders`, or `payment.charges`, `dbo.price_list` outside of the schema `public`.
        key: the columns of the primary key; of a truncation none. A key that is changed is told as a deletion of the
            old one and a creation of the new one, in one place of the log.
        before: the row as it was, all columns (REPLICA IDENTITY FULL); None where it was not there.
        after: the row as it is now; None where it is gone.
        committed_at: by the database's clock.
        position: place in the database's log: of two, the later one is greater. The rows of one COPY share one.
        transaction: of the database; what one request changed has one.
    """

    source: str
    table: str
    operation: Operation
    key: Mapping[str, object]
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    committed_at: datetime
    position: str
    transaction: str
    epoch: int = 0

    def changed(self) -> list[str]:
        """The names of the columns whose value is another one now, in alphabetical order."""
        return changed(self.before, self.after)


def changed(before: Mapping[str, object] | None, after: Mapping[str, object] | None) -> list[str]:
    """The names of the columns whose value is another one, or that one of two rows lacks, in alphabetical order."""
    before, after = before or {}, after or {}
    gone = object()
    return sorted(name for name in before.keys() | after.keys() if before.get(name, gone) != after.get(name, gone))


def read(key: bytes | None, value: bytes | None, epoch: int = 0) -> Change | None:
    """The change in a record of a Debezium topic; None for one that is of no table: a tombstone, the mark of a
    transaction's begin or end, a message, news of the schema, a heartbeat.

    Raises BrokenChange.
    """
    if value is None:
        return None
    try:
        envelope: dict[str, Any] = json.loads(value)
        if _OF_NO_TABLE.keys() & envelope.keys() and "op" not in envelope:
            return None
        if envelope["op"] == _MESSAGE:
            return None
        source, operation = envelope["source"], _OPERATIONS[envelope["op"]]
        dialect = source.get("connector", "postgresql")
        if dialect not in _DIALECTS:
            raise ValueError(f"there is no reader for the connector {dialect!r}")
        position, transaction = _DIALECTS[dialect](source, envelope)
        schema, table = source["schema"], source["table"]
        if not (isinstance(schema, str) and isinstance(table, str)):
            raise TypeError("the name of the table is no text")
        before, after = envelope.get("before"), envelope.get("after")
        if not (isinstance(before, dict | None) and isinstance(after, dict | None)):
            raise TypeError("a row is no set of columns")
        return Change(
            source=str(source.get("name", "")),
            epoch=epoch,
            table=table if schema == "public" else f"{schema}.{table}",
            operation=operation,
            key={} if operation is Operation.TRUNCATE else json.loads(key or b"{}"),
            before=before,
            after=after,
            committed_at=_BEGINNING + timedelta(milliseconds=source["ts_ms"]),
            position=position,
            transaction=transaction,
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise BrokenChange(f"no Debezium envelope: {type(error).__name__}: {error}") from error


def _postgresql(source: Mapping[str, Any], envelope: Mapping[str, Any]) -> tuple[str, str]:
    """The LSN is a whole number of 64 bits."""
    if not 0 <= (lsn := int(source["lsn"])) < 2**64:
        raise ValueError(f"the LSN {lsn} has more than 64 bits")
    return f"{lsn:016x}", str(source["txId"])


def _sqlserver(source: Mapping[str, Any], envelope: Mapping[str, Any]) -> tuple[str, str]:
    """LSNs are `0000002a:00000d30:0003`: of the commit, then of the change in it. A snapshot's rows have no change's.

    There is no number of the transaction: `transaction.id`, where the connector gives it, or else its commit, names it.
    """
    commit, change = source["commit_lsn"], source.get("change_lsn")
    serial = int(source.get("event_serial_no") or 0)
    if commit is None:
        raise ValueError("there is no commit_lsn")
    transaction = (envelope.get("transaction") or {}).get("id") or commit
    return f"{_lsn(commit)}{_lsn(change) if change else '0' * 20}{serial:08x}", str(transaction)


def _lsn(text: str) -> str:
    digits = text.replace(":", "")
    if len(digits) != 20 or not set(digits) <= set("0123456789abcdef"):
        raise ValueError(f"{text[:40]!r} is no LSN of SQL Server")
    return digits


_DIALECTS: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[str, str]]] = MappingProxyType(
    {"postgresql": _postgresql, "sqlserver": _sqlserver}
)
_OF_NO_TABLE = MappingProxyType(dict.fromkeys(("status", "tableChanges", "ddl", "ts_ms")))
"""What has one of these and no operation is a transaction's mark, news of the schema, or a heartbeat."""
