"""The audit's records and dead letters in MongoDB."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError
from bson.int64 import Int64
from bson.raw_bson import RawBSONDocument
from pymongo import WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, ConnectionFailure, PyMongoError

from showcase.audit.application import Letter, Unstorable
from showcase.audit.domain import Place, Record
from showcase.kernel.changes import Operation
from showcase.kernel.clock import Clock, system_clock
from showcase.kernel.errors import Unavailable

Document = dict[str, Any]

DUPLICATE_KEY = 11000
MAJORITY = WriteConcern("majority")
_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True)


class MongoStore:
    """One document a record, its id for `_id`."""

    def __init__(self, database: AsyncDatabase[Document], clock: Clock = system_clock) -> None:
        self._clock = clock
        self._records = database.get_collection("audit_records", codec_options=_AWARE, write_concern=MAJORITY)

    async def prepare(self) -> None:
        """Make the index that timelines are read by; harmless when it is there. Raises Unavailable."""
        with _translated():
            await self._records.create_index(["entity_type", "entity_id", "lsn", "step", "_id"], name="timeline")

    async def add(self, records: Sequence[Record]) -> int:
        documents = [_document(record, self._clock()) for record in records]
        return await _insert_new(self._records, documents)

    async def timeline(
        self, entity_type: str, entity_id: str, after: Place | None = None, limit: int = 50
    ) -> Sequence[Record]:
        wanted: Document = {"entity_type": entity_type, "entity_id": entity_id}
        if after is not None:
            lsn, step, id_ = after
            wanted["lsn"] = {"$gte": lsn}
            wanted["$or"] = [
                {"lsn": {"$gt": lsn}},
                {"lsn": lsn, "step": {"$gt": step}},
                {"lsn": lsn, "step": step, "_id": {"$gt": id_}},
            ]
        with _translated():
            found = self._records.find(wanted, sort=["lsn", "step", "_id"], limit=limit)
            return [_record(document) async for document in found]


class MongoDeadLetters:
    """One document a message, its place in the topic for `_id`."""

    def __init__(self, database: AsyncDatabase[Document], clock: Clock = system_clock) -> None:
        self._letters = database.get_collection("audit_dead_letters", write_concern=MAJORITY)
        self._clock = clock

    async def add(self, letters: Sequence[Letter]) -> None:
        documents = [
            {
                "_id": f"{letter.message.topic}:{letter.message.partition}:{letter.message.offset}",
                **asdict(letter.message),
                "reason": letter.reason,
                "put_away_at": self._clock(),
            }
            for letter in letters
        ]
        await _insert_new(self._letters, documents)


def _document(record: Record, recorded_at: datetime) -> RawBSONDocument:
    """The record as it is stored, encoded here and now, with the time of that. Raises Unstorable."""
    lsn, step, id_ = record.place
    fields = asdict(record)
    del fields["id"]
    try:
        return RawBSONDocument(
            bson.encode({"_id": id_, **fields, "lsn": Int64(lsn), "step": step, "recorded_at": recorded_at})
        )
    except (BSONError, OverflowError, ValueError, RecursionError) as error:
        raise Unstorable(f"no BSON document: {type(error).__name__}: {error}") from error


def _record(document: Document) -> Record:
    del document["step"], document["recorded_at"]
    return Record(
        id=document.pop("_id"),
        **document
        | {
            "operation": Operation(document["operation"]),
            "changed": tuple(document["changed"]),
            "lsn": int(document["lsn"]),
        },
    )


async def _insert_new(collection: AsyncCollection[Document], documents: Sequence[Any]) -> int:
    """Insert those whose `_id` is not there yet; how many. Raises Unavailable, and PyMongoError for all else."""
    with _translated():
        try:
            await collection.insert_many(documents, ordered=False)
        except BulkWriteError as error:
            if error.timeout or error.details["writeConcernErrors"]:
                raise Unavailable("mongo does not say that it is stored") from error
            if {failed["code"] for failed in error.details["writeErrors"]} != {DUPLICATE_KEY}:
                raise
            return int(error.details["nInserted"])
        return len(documents)


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what the driver says of a server that is away into one error of the domain."""
    try:
        yield
    except PyMongoError as error:
        if isinstance(error, ConnectionFailure) or error.timeout or error.has_error_label("RetryableWriteError"):
            raise Unavailable("mongo does not answer in time") from error
        raise
