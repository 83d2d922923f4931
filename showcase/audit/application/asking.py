"""Asking what happened: to one row, in one transaction, by one actor, in some time."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from showcase.audit.domain.history import Difference, Who, differences, explains, who
from showcase.audit.domain.records import CONTEXT, WHOLE_TABLE, Record
from showcase.kernel.changes import Operation
from showcase.kernel.errors import Invalid, NotFound

MAX_CONTEXTS = 5_000
"""Of one page's transactions."""
MAX_DIFF = 1_000
"""How many records a difference names."""
MAX_DEED = 100
"""How many records are shown of one deed."""
EXPORTED_AT_ONCE = 500


class NoSuchEntity(NotFound):
    """Nobody has recorded a change of this, or not until then."""


class NothingRecorded(NotFound):
    """Nobody has recorded anything of this."""


class BadInterval(Invalid):
    """It ends before it begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Which records: those for which all that is given holds.

    Attributes:
        entity_type: a table; without one, all but contexts.
        entity_ids: keys in that table.
        transactions: of the database.
        actor, request_id: of contexts.
        since, until: of the commit; `until` is not included, `by` is.
        not_before: an id.
        by_time: in the order of commits, rather than of the log.
        newest_first: in the other direction.
    """

    entity_type: str = ""
    entity_ids: Sequence[str] = ()
    operation: Operation | None = None
    transactions: Sequence[str] = ()
    actor: str = ""
    request_id: str = ""
    since: datetime | None = None
    until: datetime | None = None
    by: datetime | None = None
    not_before: str = ""
    by_time: bool = False
    newest_first: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a record stands; the time counts in the order of commits only."""

    id: str
    committed_at: datetime | None = None

    @classmethod
    def of(cls, record: Record) -> "Place":
        return cls(record.id, record.committed_at)


class Archive(Protocol):
    """The records that were kept. Raises Unavailable."""

    async def find(self, question: Question, after: Place | None = None, limit: int = 50) -> Sequence[Record]:
        """Those that a question is for, in their order, behind a place."""


@dataclass(frozen=True, slots=True)
class Attributed:
    """A record, and who made the change."""

    record: Record
    who: Who


def attributed(records: Sequence[Record], contexts: Sequence[Record]) -> list[Attributed]:
    """Each record with the last context of its transaction that lies before it in the log."""
    by_transaction: dict[str, list[Record]] = {}
    for context in sorted(contexts, key=lambda one: one.id, reverse=True):
        by_transaction.setdefault(context.transaction, []).append(context)

    def context_of(record: Record) -> Record | None:
        if record.entity_type == CONTEXT:
            return record
        return next((one for one in by_transaction.get(record.transaction, ()) if explains(one, record)), None)

    return [Attributed(record, who(context_of(record))) for record in records]


def is_gone(record: Record) -> bool:
    """Whether there is no row any more after this."""
    return record.operation in (Operation.DELETE, Operation.TRUNCATE)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of many, and the place behind which the next page begins."""

    items: Sequence[Attributed]
    next: Place | None


@dataclass(frozen=True, slots=True)
class State:
    """A row as it was at some time; None where it was gone. `by` is what made it so."""

    row: Mapping[str, object] | None
    by: Attributed


@dataclass(frozen=True, slots=True)
class Diff:
    """What became of a row between two times.

    Attributes:
        columns: that differ.
        records: what happened to it in between.
        is_whole: whether these are all.
    """

    columns: Mapping[str, Difference]
    records: Sequence[Attributed]
    is_whole: bool


@dataclass(frozen=True, slots=True)
class Deed:
    """What somebody did in one go: a context, and what was changed in its name.

    Attributes:
        is_whole: whether these are all of its records.
    """

    context: Record
    who: Who
    records: Sequence[Record]
    is_whole: bool


async def with_actors(archive: Archive, records: Sequence[Record]) -> list[Attributed]:
    """The records, each with who made the change: one question for all of them. Raises Unavailable."""
    transactions = sorted({one.transaction for one in records if one.entity_type != CONTEXT})
    if not transactions:
        return attributed(records, ())
    contexts = await archive.find(Question(entity_type=CONTEXT, transactions=transactions), limit=MAX_CONTEXTS)
    return attributed(records, contexts)


async def page(archive: Archive, question: Question, after: Place | None, limit: int) -> Page:
    """Some of the records that a question is for. Raises BadInterval, Unavailable."""
    if question.since and question.until and question.until < question.since:
        raise BadInterval(f"{question.until} is before {question.since}")
    found = await archive.find(question, after, limit + 1)
    shown = await with_actors(archive, found[:limit])
    return Page(shown, Place.of(found[limit - 1]) if len(found) > limit else None)


async def timeline(archive: Archive, entity_type: str, entity_id: str, after: Place | None, limit: int) -> Page:
    """All that happened to one row, and since it is there to its whole table, the oldest first.

    Raises NoSuchEntity, Unavailable.
    """
    first = await _first(archive, entity_type, entity_id)
    question = Question(entity_type=entity_type, entity_ids=(entity_id, WHOLE_TABLE), not_before=first.id)
    return await page(archive, question, after, limit)


async def row_at(archive: Archive, entity_type: str, entity_id: str, time: datetime) -> State:
    """One row as it was. Raises NoSuchEntity, Unavailable."""
    first = await _first(archive, entity_type, entity_id)
    question = Question(
        entity_type=entity_type,
        entity_ids=(entity_id, WHOLE_TABLE),
        by=time,
        not_before=first.id,
        newest_first=True,
    )
    last = await archive.find(question, limit=1)
    if not last:
        raise NoSuchEntity(f"no change of {entity_type}/{entity_id} until {time} is recorded")
    (by,) = await with_actors(archive, last)
    return State(None if is_gone(by.record) else by.record.after, by)


async def diff(archive: Archive, entity_type: str, entity_id: str, since: datetime, until: datetime) -> Diff:
    """What became of one row between two times. Raises NoSuchEntity, BadInterval, Unavailable."""
    if until < since:
        raise BadInterval(f"{until} is before {since}")
    after = await row_at(archive, entity_type, entity_id, until)
    try:
        before = (await row_at(archive, entity_type, entity_id, since)).row
    except NoSuchEntity:  # it came in between
        before = None
    first = await _first(archive, entity_type, entity_id)
    between = Question(
        entity_type=entity_type, entity_ids=(entity_id, WHOLE_TABLE), since=since, by=until, not_before=first.id
    )
    found = [one for one in await archive.find(between, limit=MAX_DIFF + 1) if one.committed_at > since]
    records = await with_actors(archive, found[:MAX_DIFF])
    return Diff(differences(before, after.row), records, len(found) <= MAX_DIFF)


async def deeds(
    archive: Archive, contexts: Question, after: Place | None, limit: int
) -> tuple[list[Deed], Place | None]:
    """What was done in some contexts, page by page of these. Raises NothingRecorded, Unavailable."""
    found = await archive.find(replace(contexts, entity_type=CONTEXT), after, limit + 1)
    if not found and after is None:
        raise NothingRecorded("nothing is recorded of this: look at its spelling")
    shown = found[:limit]
    made = [await _deed(archive, context) for context in shown]
    return made, Place.of(shown[-1]) if len(found) > limit else None


async def everything(archive: Archive, question: Question) -> AsyncIterator[Attributed]:
    """All records that a question is for, read page by page. Raises BadInterval, Unavailable."""
    after: Place | None = None
    while True:
        some = await page(archive, question, after, EXPORTED_AT_ONCE)
        for one in some.items:
            yield one
        if some.next is None:
            return
        after = some.next


async def _first(archive: Archive, entity_type: str, entity_id: str) -> Record:
    """Raises NoSuchEntity."""
    found = await archive.find(Question(entity_type=entity_type, entity_ids=(entity_id,)), limit=1)
    if not found:
        raise NoSuchEntity(f"no change of {entity_type}/{entity_id} is recorded: look at its spelling")
    return found[0]


async def _deed(archive: Archive, context: Record) -> Deed:
    """What the transaction of a context changed in its name."""
    question = Question(transactions=(context.transaction,), not_before=context.id)
    found = await archive.find(question, limit=MAX_DEED + 1)
    ours = [one.record for one in await with_actors(archive, found) if one.who == who(context)]
    return Deed(context, who(context), ours[:MAX_DEED], len(found) <= MAX_DEED)
