"""The audit's records and dead letters in MongoDB."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from showcase.audit.application import Added, Letter
from showcase.audit.domain import Place, Record
from showcase.documents import (
    AlreadyThere,
    Collection,
    Document,
    DocumentTooLarge,
    Index,
    Insert,
    Moment,
    Repository,
    Unstorable,
    all_of,
    any_of,
    eq,
    gt,
)
from showcase.documents.domain.filters import Where
from showcase.kernel.changes import Operation
from showcase.kernel.clock import Clock, system_clock

MAX_VALUE_BYTES = 15_000_000
"""With key and reason it is a document that MongoDB takes."""


class RecordDocument(Document):
    """A record as it is stored: `step` puts a snapshot before the changes that have its LSN."""

    id: str
    entity_type: str
    entity_id: str
    operation: Operation
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    changed: tuple[str, ...]
    committed_at: Moment
    lsn: int
    step: int
    transaction: str
    recorded_at: Moment


class LetterDocument(Document):
    """A dead letter, its place in the topic for an id."""

    id: str
    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    reason: str
    put_away_at: Moment


RECORDS = Collection(
    name="audit_records",
    model=RecordDocument,
    indexes=(Index(keys=("entity_type", "entity_id", "lsn", "step", "_id")),),
)
LETTERS = Collection(name="audit_dead_letters", model=LetterDocument)


class DocumentStore:
    """See `application.Store`."""

    def __init__(self, records: Repository[RecordDocument], clock: Clock = system_clock) -> None:
        self._records = records
        self._clock = clock

    async def add(self, records: Sequence[Record]) -> Added:
        now = self._clock()
        outcomes = await self._records.bulk([Insert(_document(record, now)) for record in records])
        refused = {at: one.detail for at, one in enumerate(outcomes) if isinstance(one, Unstorable | DocumentTooLarge)}
        return Added(new=outcomes.count(None), refused=refused)

    async def timeline(
        self, entity_type: str, entity_id: str, after: Place | None = None, limit: int = 50
    ) -> Sequence[Record]:
        wanted: list[Where] = [eq("entity_type", entity_type), eq("entity_id", entity_id)]
        if after is not None:
            lsn, step, id_ = after
            later = all_of(eq("lsn", lsn), gt("step", step))
            last = all_of(eq("lsn", lsn), eq("step", step), gt("id", id_))
            wanted.append(any_of(gt("lsn", lsn), later, last))
        found = await self._records.find(all_of(*wanted), sort=("lsn", "step", "id"), limit=limit)
        return [_record(document) for document in found]


class DocumentDeadLetters:
    """See `application.DeadLetters`."""

    def __init__(self, letters: Repository[LetterDocument], clock: Clock = system_clock) -> None:
        self._letters = letters
        self._clock = clock

    async def add(self, letters: Sequence[Letter]) -> None:
        now = self._clock()
        for outcome in await self._letters.bulk([Insert(_letter(letter, now)) for letter in letters]):
            if outcome is not None and not isinstance(outcome, AlreadyThere):
                raise outcome


def _document(record: Record, now: datetime) -> RecordDocument:
    lsn, step, id_ = record.place
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return RecordDocument.model_validate({**fields, "id": id_, "lsn": lsn, "step": step, "recorded_at": now})


def _record(document: RecordDocument) -> Record:
    return Record(**{field.name: getattr(document, field.name) for field in dataclasses.fields(Record)})


def _letter(letter: Letter, now: datetime) -> LetterDocument:
    message, reason = letter.message, letter.reason.encode(errors="backslashreplace").decode()
    value = message.value
    if value is not None and len(value) > MAX_VALUE_BYTES:
        reason = f"{reason}; its {len(value):,} bytes are in the topic only"
        value = None
    return LetterDocument(
        id=f"{message.topic}:{message.partition}:{message.offset}",
        topic=message.topic,
        partition=message.partition,
        offset=message.offset,
        key=message.key,
        value=value,
        reason=reason,
        put_away_at=now,
    )
