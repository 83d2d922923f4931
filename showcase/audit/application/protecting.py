"""Sealing what is personal before it is recorded, opening it for whoever may read it, and erasing a subject."""

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic
from typing import Protocol

from showcase.audit.application.asking import Archive, Question
from showcase.audit.application.asking import Place as PlaceInLog
from showcase.audit.domain.personal import (
    ERASED,
    UNREADABLE,
    Personal,
    Place,
    Row,
    erased,
    is_erased,
    is_sealed,
    mapped,
    sealed,
)
from showcase.audit.domain.records import Record
from showcase.kernel.changes import BrokenChange, Change


class Lock(Protocol):
    """What one subject's key seals and opens."""

    def seal(self, place: Place, plain: bytes) -> str:
        """The same text for the same place and value, always, in every process."""

    def open(self, place: Place, text: str) -> bytes | None:
        """None for what this key has not sealed, or not for this place."""


LockOf = Callable[[bytes], Lock]


class SubjectKeys(Protocol):
    """A secret key for each subject. Raises Unavailable."""

    async def made(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        """The key of each, made where there was none and kept for good; None of those that were erased."""

    async def found(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        """The keys of those that ever had one; None of those that were erased."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Erased:
    """What came of erasing a subject.

    Attributes:
        at: when it was erased, now or before.
        is_new: whether that was now.
    """

    subject: str
    at: datetime
    is_new: bool


class CachedKeys:
    """Keys that this process remembers (`SubjectKeys`), for recording only.

    Args:
        lasting_s: how long, from before they were asked for: so long, and one batch, may a key be used after its
            subject was erased.
        limit: of how many subjects, at the most; the one that was asked for first goes first.
    """

    def __init__(
        self, keys: SubjectKeys, *, lasting_s: float, limit: int = 10_000, clock: Callable[[], float] = monotonic
    ) -> None:
        self._keys = keys
        self._lasting_s = lasting_s
        self._limit = limit
        self._clock = clock
        self._known: dict[str, tuple[bytes | None, float]] = {}
        """With the time at which each is forgotten; what is forgotten first stands first."""

    async def made(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        now = self._clock()
        self._forget(now)
        known = {subject: self._known[subject][0] for subject in subjects if subject in self._known}
        if missing := set(subjects) - known.keys():
            made = await self._keys.made(missing)
            known |= made
            for subject, key in made.items():
                self._known.pop(subject, None)
                self._known[subject] = key, now + self._lasting_s
            self._forget(now)
        return known

    def _forget(self, now: float) -> None:
        """Also from memory: a key that lies about is no key that was destroyed."""
        for subject, (_, until) in list(self._known.items()):
            if until > now and len(self._known) <= self._limit:
                break
            del self._known[subject]

    async def found(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        return await self._keys.found(subjects)


class Protecting:
    """Seals the personal values of changes (`ports.Protect`)."""

    def __init__(self, personal: Iterable[Personal], keys: SubjectKeys, lock_of: LockOf) -> None:
        self._personal = {one.table: one for one in personal}
        self._keys = keys
        self._lock_of = lock_of

    async def __call__(self, changes: Sequence[Change]) -> Sequence[Change | BrokenChange]:
        """The changes, each personal value in them sealed with the key of the subject of its row, or marked as erased.

        What is NULL stays so. A change that cannot be protected becomes the error that says why. What comes out is a
        function of the change and the key alone. Raises Unavailable.
        """
        subjects = [self._subjects(change) for change in changes]
        wanted = {subject for some in subjects if not isinstance(some, BrokenChange) for subject in some if subject}
        keys = await self._keys.made(wanted) if wanted else {}
        locks = {subject: None if key is None else self._lock_of(key) for subject, key in keys.items()}
        return [
            some if isinstance(some, BrokenChange) else self._protected(change, some, locks)
            for change, some in zip(changes, subjects, strict=True)
        ]

    def _subjects(self, change: Change) -> tuple[str, str] | BrokenChange:
        """Whose the row was and is; empty where there is nothing personal."""
        personal = self._personal.get(change.table)
        if personal is None:
            return "", ""
        try:
            was, is_now = (
                personal.subject_of(row) if row and any(row.get(one) is not None for one in personal.columns) else ""
                for row in (change.before, change.after)
            )
        except BrokenChange as error:
            return error
        return was, is_now

    def _protected(
        self, change: Change, subjects: tuple[str, str], locks: Mapping[str, Lock | None]
    ) -> Change | BrokenChange:
        if subjects == ("", ""):
            return change
        was, is_now = subjects
        try:
            return replace(
                change,
                before=self._row(change.table, change.before, was, locks),
                after=self._row(change.table, change.after, is_now, locks),
            )
        except (ValueError, RecursionError) as error:
            return BrokenChange(f"a personal value of {change.table} cannot be sealed: {type(error).__name__}")

    def _row(self, table: str, row: Row | None, subject: str, locks: Mapping[str, Lock | None]) -> Row | None:
        if not subject:
            return row
        columns, lock = self._personal[table].columns, locks[subject]

        def protected(column: str, value: object) -> object:
            if column not in columns or value is None:
                return value
            if lock is None:
                return erased(subject)
            plain = json.dumps(value, separators=(",", ":")).encode()
            return sealed(lock.seal(Place(table, column, subject), plain), subject)

        return mapped(row, protected)


class Reveal:
    """Opens what is sealed in records, for whoever may read them.

    Keys are not remembered here: from the moment that a subject is erased on nobody is shown its values.
    """

    def __init__(self, keys: SubjectKeys, lock_of: LockOf) -> None:
        self._keys = keys
        self._lock_of = lock_of

    async def __call__(self, records: Sequence[Record]) -> Sequence[Record]:
        """The records with their personal values, or with what is to be seen in place of these. Raises Unavailable."""
        rows = [row for record in records for row in (record.before, record.after) if row]
        subjects = {value["subject"] for row in rows for value in row.values() if is_sealed(value)}
        keys = await self._keys.found(subjects) if subjects else {}
        locks = {subject: None if key is None else self._lock_of(key) for subject, key in keys.items()}
        return [
            replace(
                record,
                before=_revealed(record.entity_type, record.before, locks),
                after=_revealed(record.entity_type, record.after, locks),
            )
            for record in records
        ]


class Revealing:
    """An archive whose records show what is personal in them to whoever asks (`asking.Archive`)."""

    def __init__(self, archive: Archive, reveal: Reveal) -> None:
        self._archive = archive
        self._reveal = reveal

    async def find(self, question: Question, after: PlaceInLog | None = None, limit: int = 50) -> Sequence[Record]:
        return await self._reveal(await self._archive.find(question, after, limit))


def _revealed(table: str, row: Row | None, locks: Mapping[str, Lock | None]) -> Row | None:
    def revealed(column: str, value: object) -> object:
        if is_erased(value):
            return ERASED
        if not is_sealed(value):
            return value
        if (subject := value["subject"]) not in locks:
            return UNREADABLE
        lock = locks[subject]
        if lock is None:
            return ERASED
        plain = lock.open(Place(table, column, subject), value["sealed"])
        return UNREADABLE if plain is None else json.loads(plain)

    return mapped(row, revealed)
