"""What is personal in the rows of a table, whose it is, and how it stands in a record.

A record is never changed, and a person may ask to be forgotten. So each subject's personal values are sealed with a key
of its own before they are recorded, and forgetting is to destroy that key: the records stay, the values are gone.
"""

import string
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, TypeGuard

from showcase.kernel.changes import BrokenChange

UNKNOWN = "unknown"
"""The subject of what nobody can tell whose it is: sealed all the same, and erased together."""
SUBJECT_CHARACTERS = 200
ERASED: Mapping[str, object] = {"erased": True}
"""What a reader sees in place of a value whose subject was erased."""
UNREADABLE: Mapping[str, object] = {"unreadable": True}
"""What a reader sees in place of a value that its key does not open, or whose key is not there."""
Row = Mapping[str, object]


class Place(NamedTuple):
    """Where a value stands, and whose it is: sealed with the value, so it opens nowhere else."""

    table: str
    column: str
    subject: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Personal:
    """The personal columns of a table.

    Attributes:
        table: as changes name it, `orders` or `auth.events`.
        subject: how to tell from a row whose they are, `households/{household_id}`. Of several ways the first is taken
            whose columns all say something; if there is none, they are of the subject `unknown`.
        columns: none of the primary key, which is to be found and so is kept as it is.
    """

    table: str
    subject: tuple[str, ...]
    columns: tuple[str, ...]

    def subject_of(self, row: Row) -> str:
        """Raises BrokenChange for one that no key can be kept for."""
        for way in self.subject:
            values = {name: row.get(name) for name in _columns_of(way)}
            if all(isinstance(value, str | int) and value != "" for value in values.values()):
                return _checked(way.format_map(values), self.table)
        return UNKNOWN


@cache
def _columns_of(way: str) -> tuple[str, ...]:
    return tuple(name for _, name, _, _ in string.Formatter().parse(way) if name)


def _checked(subject: str, table: str) -> str:
    if len(subject) > SUBJECT_CHARACTERS or "\0" in subject or any("\ud800" <= one <= "\udfff" for one in subject):
        raise BrokenChange(f"the subject of a row of {table} is too long, or holds what no text of a database may")
    return subject


def sealed(text: str, subject: str) -> dict[str, object]:
    """A value that its subject's key opens, as it stands in a record."""
    return {"sealed": text, "subject": subject}


def erased(subject: str) -> dict[str, object]:
    """A value that came after its subject had been erased, as it stands in a record."""
    return {"erased": True, "subject": subject}


def is_sealed(value: object) -> TypeGuard[Mapping[str, str]]:
    """Whether `sealed` has made it."""
    return _is_marked(value, "sealed", str)


def is_erased(value: object) -> TypeGuard[Mapping[str, object]]:
    """Whether `erased` has made it."""
    return _is_marked(value, "erased", bool)


def _is_marked(value: object, mark: str, kind: type) -> bool:
    return (
        isinstance(value, Mapping)
        and value.keys() == {mark, "subject"}
        and isinstance(value[mark], kind)
        and isinstance(value["subject"], str)
    )


def mapped(row: Row | None, value_of: Callable[[str, Any], object]) -> Row | None:
    """A row with other values, each made of the column's name and its value."""
    return None if row is None else {column: value_of(column, value) for column, value in row.items()}


def adopted(ours: Row | None, theirs: Row | None) -> Row | None:
    """Our row, but with their value wherever one of the two was sealed and the other erased.

    So a change that is told once before its subject was erased and once after can be told from one that was edited.
    """
    if ours is None or theirs is None:
        return ours
    return mapped(ours, lambda column, value: _adopted(value, theirs.get(column)))


def _adopted(ours: object, theirs: object) -> object:
    if (is_sealed(ours) and is_erased(theirs)) or (is_erased(ours) and is_sealed(theirs)):
        return theirs if ours["subject"] == theirs["subject"] else ours
    return ours
