"""An audit record: one change of one row, as it is kept for good."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from showcase.kernel.changes import BrokenChange, Change, Operation, changed

CONTEXT = "audit_context"
"""The table in which a transaction says who makes it. Its rows are records like all others."""
WHOLE_TABLE = ""
"""The id of what happens to all rows of a table at once."""
_SORTED = json.JSONEncoder(sort_keys=True).encode
"""`json.dumps` would make an encoder for each record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One change of one row.

    Attributes:
        id: a pure function of where the change stands in the database's log and what it is of, so that the same
            change, told twice, is one record. The place alone will not do: the rows of one COPY share one. Ids sort
            as changes became true: a row is locked until its change is committed, so its changes lie in the log in
            that order. A snapshot may have the place of the first change after it, and comes before it.
        entity_type: the table.
        entity_id: the values of its primary key, joined with `/`; `WHOLE_TABLE` for a truncation.
        position: place in the log of the database, in the `epoch`th life of that database.
        transaction: of the database.
    """

    id: str
    source: str
    epoch: int
    entity_type: str
    entity_id: str
    operation: Operation
    key: Mapping[str, object]
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    committed_at: datetime
    position: str
    transaction: str

    @property
    def changed(self) -> list[str]:
        """The columns whose value is another one now, or that came or went."""
        return changed(self.before, self.after)

    @classmethod
    def of(cls, change: Change) -> "Record":
        """The record of a change. Raises BrokenChange for a row without a primary key: nothing tells it from others."""
        if change.operation is not Operation.TRUNCATE and (not change.key or not isinstance(change.key, Mapping)):
            raise BrokenChange(f"a row of {change.table} without a primary key has no timeline")
        if change.operation not in (Operation.TRUNCATE, Operation.DELETE) and change.after is None:
            raise BrokenChange(f"the {change.operation} of a row of {change.table} does not say what it is now")
        entity_id = "/".join(map(str, change.key.values())) or WHOLE_TABLE
        return cls(
            id=record_id(
                source=change.source,
                epoch=change.epoch,
                table=change.table,
                key=change.key,
                operation=change.operation,
                position=change.position,
            ),
            source=change.source,
            epoch=change.epoch,
            entity_type=change.table,
            entity_id=entity_id,
            operation=change.operation,
            key=change.key,
            before=change.before,
            after=change.after,
            committed_at=change.committed_at,
            position=change.position,
            transaction=change.transaction,
        )


def record_id(*, source: str, epoch: int, table: str, key: object, operation: Operation, position: str) -> str:
    """See `Record.id`. Whoever has the content of a record can tell from it under which id it is to stand."""
    what = _SORTED([source, table, key, operation])
    digest = hashlib.sha256(what.encode(errors="surrogatepass")).hexdigest()[:32]
    step = 0 if operation is Operation.READ else 1
    return f"{epoch:04}-{position}-{step}-{digest}"
