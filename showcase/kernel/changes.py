"""A change of one row, as change data capture tells it: Debezium's envelope, typed.

https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class BrokenChange(ValueError):
    """What arrived is no change that we can read. Reading it again is no use."""


class Operation(StrEnum):
    """What happened to the row."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    READ = "read"
    """It was there when capturing began: a snapshot, not a change."""


_OPERATIONS = {"c": Operation.CREATE, "u": Operation.UPDATE, "d": Operation.DELETE, "r": Operation.READ}
_NOT_OF_A_ROW = {"t", "m"}
"""Truncation of a whole table; a message of `pg_logical_emit_message`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One row, before and after.

    Attributes:
        table: `orders`, or `payment.charges` outside of the schema `public`.
        key: the columns of the primary key.
        before: the row as it was, all columns (REPLICA IDENTITY FULL); None where it was not there.
        after: the row as it is now; None where it is gone.
        committed_at: by the database's clock.
        lsn: place in the database's log. The rows of one COPY share one.
        transaction: of the database; what one request changed has one.
    """

    table: str
    operation: Operation
    key: Mapping[str, object]
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    committed_at: datetime
    lsn: int
    transaction: str

    def changed(self) -> list[str]:
        """The names of the columns whose value is another one now, in alphabetical order."""
        before, after = self.before or {}, self.after or {}
        return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def read(key: bytes | None, value: bytes | None) -> Change | None:
    """The change in a record of a Debezium topic; None for one that is of no row (tombstone, truncation, message).

    Raises BrokenChange.
    """
    if value is None:
        return None
    try:
        envelope: dict[str, Any] = json.loads(value)
        if envelope["op"] in _NOT_OF_A_ROW:
            return None
        source = envelope["source"]
        if not isinstance(source["table"], str):
            raise TypeError("the name of the table is no text")
        table = source["table"] if source["schema"] == "public" else f"{source['schema']}.{source['table']}"
        return Change(
            table=table,
            operation=_OPERATIONS[envelope["op"]],
            key=json.loads(key or b"{}"),
            before=envelope.get("before"),
            after=envelope.get("after"),
            committed_at=datetime.fromtimestamp(source["ts_ms"] / 1000, UTC),
            lsn=int(source["lsn"]),
            transaction=str(source["txId"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise BrokenChange(f"no Debezium envelope: {type(error).__name__}: {error}") from error
