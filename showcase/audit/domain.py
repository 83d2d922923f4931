"""An audit record: one change of one row, as it is kept for good."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from showcase.kernel.changes import BrokenChange, Change, Operation

Place = tuple[int, int, str]
"""Where a record stands in the timeline of its entity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One change of one row.

    Attributes:
        id: a pure function of where the change stands in the database's log and what it is of, so that the same
            change, told twice, is one record. The LSN alone will not do: the rows of one COPY share one.
        entity_type: the table.
        entity_id: the values of its primary key, joined with `/`.
        changed: the columns whose value is another one now.
        lsn: place in the database's log.
        transaction: of the database.
    """

    id: str
    entity_type: str
    entity_id: str
    operation: Operation
    before: Mapping[str, object] | None
    after: Mapping[str, object] | None
    changed: tuple[str, ...]
    committed_at: datetime
    lsn: int
    transaction: str

    @property
    def place(self) -> Place:
        """By the log: a row is locked until its change is committed, so its changes lie there in the order in
        which they became true. A snapshot may have the LSN of the first change after it, and comes before it."""
        return self.lsn, 0 if self.operation is Operation.READ else 1, self.id

    @classmethod
    def of(cls, change: Change) -> "Record":
        """The record of a change. Raises BrokenChange for a row without a primary key: nothing tells it from others."""
        if not change.key or not isinstance(change.key, Mapping):
            raise BrokenChange(f"a row of {change.table} without a primary key has no timeline")
        if not all(row is None or isinstance(row, Mapping) for row in (change.before, change.after)):
            raise BrokenChange(f"a row of {change.table} is no set of columns")
        identity = [change.lsn, change.table, change.key, change.operation]
        return cls(
            id=hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
            entity_type=change.table,
            entity_id="/".join(str(value) for value in change.key.values()),
            operation=change.operation,
            before=change.before,
            after=change.after,
            changed=tuple(change.changed()),
            committed_at=change.committed_at,
            lsn=change.lsn,
            transaction=change.transaction,
        )
