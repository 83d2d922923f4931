"""Records and seals in MongoDB: inserted, read, and never touched again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pydantic import BaseModel
from pymongo.errors import BulkWriteError

from showcase.audit.application.ports import Added, Entry, SealedAlready
from showcase.audit.domain.records import CONTEXT
from showcase.audit.domain.seals import Seal
from showcase.documents import AlreadyThere, Collection, Document, Index, Moment
from showcase.documents.infrastructure.mongo import Mongo
from showcase.kernel.changes import Operation
from showcase.kernel.clock import Clock, system_clock

DUPLICATE_KEY = 11_000
REFUSED = (121, 10_334, 17_280)
"""A validator says no; the document is too large; so is a key of an index."""
HASH_BYTES = 32


class ChangeDocument(BaseModel):
    """What of a record is hashed; see `domain.Record`."""

    source: str
    epoch: int
    entity_type: str
    entity_id: str
    operation: Operation
    key: dict[str, Any]
    before: dict[str, Any] | None
    after: dict[str, Any] | None
    committed_at: Moment
    position: str
    transaction: str


class RecordDocument(Document):
    """A record as it is stored, and the message that told it first."""

    id: str
    change: ChangeDocument
    topic: str
    partition: int
    offset: int
    recorded_at: Moment


class SealDocument(Document):
    """A seal as it is stored: `leaves` has 32 bytes a record."""

    id: str
    topic: str
    partition: int
    first: int
    next: int
    ids: list[str]
    leaves: bytes
    root: str
    lost: int
    previous: str
    hash: str
    sealed_at: Moment


RECORDS = Collection(
    name="audit_records",
    model=RecordDocument,
    indexes=(
        # With the time, so that a row as it was is found without reading what became of it since.
        Index(keys=("change.entity_type", "change.entity_id", "_id", "change.committed_at")),
        Index(keys=("change.transaction", "_id")),
        Index(keys=("change.entity_type", "change.committed_at", "_id")),
        Index(keys=("topic", "partition", "offset")),
        Index(keys=("change.after.actor", "_id"), only={"change.entity_type": CONTEXT}),
        Index(keys=("change.after.request_id", "_id"), only={"change.entity_type": CONTEXT}),
        Index(keys=("change.entity_type", "change.transaction", "_id"), only={"change.entity_type": CONTEXT}),
    ),
)
SEALS = Collection(
    name="audit_seals", model=SealDocument, indexes=(Index(keys=("topic", "partition", "first"), unique=True),)
)


class MongoStore:
    """See `application.ports.Store`."""

    def __init__(self, mongo: Mongo, clock: Clock = system_clock) -> None:
        self._mongo = mongo
        self._clock = clock

    async def add(self, entries: Sequence[Entry]) -> Added:
        if not entries:
            return Added(0, {}, {})
        now = self._clock()
        documents = [_document(entry, now) for entry in entries]
        there: list[int] = []
        refused: dict[int, str] = {}
        with self._mongo.calling("keeping audit records") as session:
            try:
                await self._mongo.collection(RECORDS.name).insert_many(documents, ordered=False, **session)
            except BulkWriteError as error:
                for one in _write_errors(error):
                    if one["code"] == DUPLICATE_KEY:
                        there.append(one["index"])
                    elif one["code"] in REFUSED:
                        refused[one["index"]] = f"{entries[one['index']].id}: {one['errmsg']:.500}"
                    else:
                        raise RuntimeError(f"mongo keeps no record: {one['code']} {one['errmsg']:.500}") from error
        return Added(len(entries) - len(there) - len(refused), refused, await self._other(entries, there))

    async def _other(self, entries: Sequence[Entry], there: Sequence[int]) -> dict[int, bytes]:
        """Of records that were there before, the content of those in which it is another one."""
        if not there:
            return {}
        wanted = {"_id": {"$in": [entries[at].id for at in there]}}
        with self._mongo.calling("comparing audit records") as session:
            found = self._mongo.collection(RECORDS.name).find(wanted, {"change": 1}, batch_size=len(there), **session)
            stored = {document["_id"]: bytes(document["change"].raw) async for document in found}
        contents = {at: stored.get(entries[at].id) for at in there}  # gone meanwhile? verifying will tell
        return {at: content for at, content in contents.items() if content not in (None, entries[at].content)}


class MongoSeals:
    """See `application.ports.Seals`."""

    def __init__(self, mongo: Mongo, clock: Clock = system_clock) -> None:
        self._mongo = mongo
        self._clock = clock

    async def newest(self, topic: str, partition: int) -> Seal | None:
        with self._mongo.calling("reading seals") as session:
            wanted = {"topic": topic, "partition": partition}
            found = await self._mongo.collection(SEALS.name).find_one(wanted, sort=[("first", -1)], **session)
        return None if found is None else seal_of(found)

    async def add(self, seal: Seal) -> None:
        link = seal.link
        document = {
            "_id": seal.id,
            "topic": seal.topic,
            "partition": seal.partition,
            "first": seal.first,
            "next": seal.next,
            "ids": list(seal.ids),
            "leaves": b"".join(seal.leaves),
            "root": link.root.hex(),
            "lost": seal.lost,
            "previous": seal.previous,
            "hash": link.hash,
            "sealed_at": self._clock(),
            "version": 1,
        }
        try:
            with self._mongo.calling("sealing") as session:
                await self._mongo.collection(SEALS.name).insert_one(RawBSONDocument(bson.encode(document)), **session)
        except AlreadyThere as error:
            stored = await self.newest(seal.topic, seal.partition)
            if stored != seal:  # ours, if its answer was lost and the driver has sent it twice
                raise SealedAlready(seal.id) from error


def seal_of(document: Any) -> Seal:
    """The seal in a document."""
    packed = bytes(document["leaves"])
    return Seal(
        topic=document["topic"],
        partition=document["partition"],
        first=document["first"],
        next=document["next"],
        ids=tuple(document["ids"]),
        leaves=tuple(packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES)),
        lost=document["lost"],
        previous=document["previous"],
    )


def _document(entry: Entry, now: datetime) -> RawBSONDocument:
    message = entry.message
    return RawBSONDocument(
        bson.encode(
            {
                "_id": entry.id,
                "change": RawBSONDocument(entry.content),
                "topic": message.topic,
                "partition": message.partition,
                "offset": message.offset,
                "recorded_at": now,
                "version": 1,
            }
        )
    )


def _write_errors(error: BulkWriteError) -> list[Any]:
    """Raises the error itself when it is not only about single documents."""
    details: Any = error.details
    if details.get("writeConcernErrors"):
        raise error
    return list(details["writeErrors"])
