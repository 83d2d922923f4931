"""Asking what happened: to one row, in one transaction, by one actor, in some time."""

from bisect import bisect_right
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

from showcase.audit.domain import history
from showcase.audit.domain.history import Difference, Who, authors, differences, explains, is_context, who
from showcase.audit.domain.records import CONTEXT, WHOLE_TABLE, Record
from showcase.kernel.changes import Operation
from showcase.kernel.errors import Invalid, NotFound

CONTEXTS_AT_ONCE = 5_000
"""Of one page's transactions. Hardly ever are there more."""
MAX_DIFF = 1_000
"""How many records a difference names."""
MAX_DEED = 100
"""How many records are shown of one deed."""
EXPORTED_AT_ONCE = 200
"""They have as many transactions at the most; of more MongoDB would read no index in its order."""


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
        actor, request_id: of contexts; `unknown` is the actor of those in which nobody has said who he is.
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
    """A record, and who made the change; by which context, if one is there."""

    record: Record
    who: Who
    context: Record | None = None


def attributed(records: Sequence[Record], contexts: Sequence[Record]) -> list[Attributed]:
    """Each record with the last context of its transaction that lies before it in the log."""
    by_transaction: dict[str, list[Record]] = {}
    for context in sorted(contexts, key=lambda one: one.position):
        by_transaction.setdefault(context.transaction, []).append(context)

    def context_of(record: Record) -> Record | None:
        if is_context(record):
            return record
        there = by_transaction.get(record.transaction, [])
        before = range(bisect_right(there, record.position, key=lambda one: one.position) - 1, -1, -1)
        return next((there[at] for at in before if explains(there[at], record)), None)

    found = [(record, context_of(record)) for record in records]
    return [Attributed(record, who(context), context) for record, context in found]


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
        by: of these columns, the id of the record that gave it its value; of none where not all records are read.
        records: what happened to it in between.
        is_whole: whether these are all.
    """

    columns: Mapping[str, Difference]
    by: Mapping[str, str]
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
    """The records, each with who made the change: as a rule one question for all of them. Raises Unavailable."""
    transactions = sorted({one.transaction for one in records if one.entity_type != CONTEXT})
    if not transactions:
        return attributed(records, ())
    question = Question(entity_type=CONTEXT, operation=Operation.CREATE, transactions=transactions)
    contexts = list(some := await archive.find(question, limit=CONTEXTS_AT_ONCE))
    while len(some) == CONTEXTS_AT_ONCE and some[-1].id < max(one.id for one in records):
        some = await archive.find(question, Place.of(some[-1]), CONTEXTS_AT_ONCE)
        contexts += some
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
    row = Question(entity_type=entity_type, entity_ids=(entity_id,), by=time, newest_first=True)
    last = await archive.find(row, limit=1)
    if not last:
        raise NoSuchEntity(f"no change of {entity_type}/{entity_id} until {time} is recorded")
    table = Question(entity_type=entity_type, entity_ids=(WHOLE_TABLE,), by=time, not_before=last[0].id)
    state = history.row_at([*last, *await archive.find(table, limit=1)], time)
    assert state is not None  # there is a record of the row
    (by,) = await with_actors(archive, [state.since])
    return State(state.row, by)


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
    found = await archive.find(between, limit=MAX_DIFF + 1)
    is_whole = len(found) <= MAX_DIFF
    found = [one for one in found[:MAX_DIFF] if one.committed_at > since]
    columns, made = differences(before, after.row), authors(found, before) if is_whole else {}
    by = {name: made[name].id for name in columns if name in made}
    return Diff(columns, by, await with_actors(archive, found), is_whole)


async def deeds(
    archive: Archive, contexts: Question, after: Place | None, limit: int
) -> tuple[list[Deed], Place | None]:
    """What was done in some contexts, page by page of these. Raises NothingRecorded, Unavailable."""
    question = replace(contexts, entity_type=CONTEXT, operation=Operation.CREATE)
    found = await archive.find(question, after, limit + 1)
    if not found and after is None:
        raise NothingRecorded("nothing is recorded of this: look at its spelling")
    shown = found[:limit]
    made = [await _deed(archive, context) for context in shown]
    return made, Place.of(shown[-1]) if len(found) > limit else None


async def everything(archive: Archive, question: Question) -> AsyncGenerator[Attributed]:
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
    shown = await with_actors(archive, found)
    is_ours = [one.context is not None and one.context.id == context.id for one in shown]
    ours = [one.record for one, yes in zip(shown, is_ours, strict=True) if yes]
    # Others of the transaction may follow: what is behind them is not in the name of this context any more.
    is_whole = len(found) <= MAX_DEED or not is_ours[-1]
    return Deed(context, who(context), ours[:MAX_DEED], is_whole)
