"""What a row's records tell: who changed it, how it was at some time, and what a whole table holds by them.

Records come late, twice, and in any order. Their ids bring them into the order in which the changes became true.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from showcase.audit.domain.records import CONTEXT, Record
from showcase.kernel.changes import Operation, changed

UNKNOWN = "unknown"
"""The actor of what nobody said he did."""
Row = Mapping[str, object]
Key = tuple[str, ...]
"""The values of a primary key. Columns may be renamed, and numbers become texts: it is the same row."""


# -- who


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Who has changed something: as he said himself, and as the database knows.

    What is empty was not said. All of it is, where no context is recorded (yet): of a snapshot, of SQL Server.
    """

    actor: str = UNKNOWN
    session_id: str = ""
    request_id: str = ""
    reason: str = ""
    traceparent: str = ""
    database_user: str = ""
    application: str = ""
    client_address: str = ""

    @property
    def summary(self) -> str:
        """In words, for people. Nobody is the actor of what somebody does by hand, in psql."""
        if self.actor == UNKNOWN and self.database_user:
            return f"by hand, as {self.database_user} from {self.application or 'an unnamed program'}"
        return self.actor


def is_context(record: Record) -> bool:
    """Whether it says who makes its transaction. A snapshot of such a row, or its removal, says no such thing."""
    return record.entity_type == CONTEXT and record.operation is Operation.CREATE


def explains(context: Record, record: Record) -> bool:
    """Whether a context may be that of a record: of one transaction the last one before the record is.

    Numbers of transactions come again, after four billion: a commit has one time only.
    """
    return (
        is_context(context)
        and record.operation is not Operation.READ
        and _transaction(context) == _transaction(record)
        and context.position <= record.position
    )


def _transaction(record: Record) -> tuple[object, ...]:
    return record.source, record.epoch, record.transaction, record.committed_at


def who(context: Record | None) -> Who:
    """What a context says."""
    if context is None:
        return Who()
    said = {name: value for name in Who.__slots__ if (value := (context.after or {}).get(name)) is not None}
    # What stands in place of a personal value that nobody can read any more is a mapping: `{"erased": true}`.
    return Who(**{name: " ".join(value) if isinstance(value, Mapping) else str(value) for name, value in said.items()})


# -- how it was


def in_order(records: Iterable[Record]) -> list[Record]:
    """Each once, as they became true."""
    return sorted({record.id: record for record in records}.values(), key=lambda record: record.id)


@dataclass(frozen=True, slots=True)
class State:
    """A row from some record on.

    Attributes:
        row: None where it is gone.
        since: the record by which it is so.
    """

    row: Row | None
    since: Record


def row_at(records: Iterable[Record], time: datetime) -> State | None:
    """How a row was; None if nothing was recorded of it until then.

    Args:
        records: of one row, and truncations of its table, those after `time` as well.
    """
    state: State | None = None
    for record in in_order(records):
        if record.committed_at > time:
            continue
        if record.operation is not Operation.TRUNCATE:
            state = State(record.after, record)
        elif state is not None and state.row is not None:
            state = State(None, record)
    return state


@dataclass(frozen=True, slots=True)
class Difference:
    """A column that is another one now; None also where it is not there."""

    before: object
    after: object


def differences(before: Row | None, after: Row | None) -> dict[str, Difference]:
    """The columns in which two rows differ, by their names in alphabetical order."""
    return {name: Difference((before or {}).get(name), (after or {}).get(name)) for name in changed(before, after)}


def authors(records: Sequence[Record], before: Row | None) -> dict[str, Record]:
    """By the name of a column, the last record that gave it another value.

    Args:
        records: of one row, in their order.
        before: the row before the first of them.
    """
    found: dict[str, Record] = {}
    for record in records:
        found |= dict.fromkeys(changed(before, record.after), record)
        before = record.after
    return found


def reconstruct(records: Iterable[Record]) -> dict[tuple[str, Key], Row]:
    """All rows that there are, by table and key, after all that was recorded of them.

    A row has the columns that it had when it was written last: a column that was added, renamed or dropped since shows
    in rows that were written since.
    """
    rows: dict[tuple[str, Key], list[Row]] = {}
    for record in in_order(records):
        if record.operation is Operation.TRUNCATE:
            for emptied in [place for place in rows if place[0] == record.entity_type]:
                del rows[emptied]
            continue
        place = (record.entity_type, tuple(map(str, record.key.values())))
        there = rows.setdefault(place, [])
        if record.operation is Operation.CREATE:
            # Keys that are exchanged in one statement are, for a moment, those of two rows.
            there.append(record.after or {})
        else:
            gone = next((at for at, row in enumerate(there) if row == record.before), 0)
            del there[gone : gone + 1]
            if record.after is not None:
                there.insert(gone, record.after)
    return {place: there[-1] for place, there in rows.items() if there}
