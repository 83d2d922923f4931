"""Change streams that go on where they stopped.

Where a reader is, is stored in the same database under its name. A change counts as handled when the next one is asked
for, so after a crash the last ones come again: at least once, never a gap. The place before the first is stored, too.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import bson
from bson.raw_bson import RawBSONDocument
from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure

from showcase.documents.application import Changed
from showcase.documents.domain.documents import Collection, HistoryLost, Misfit, T
from showcase.documents.infrastructure.codec import OPTIONS, Codec
from showcase.documents.infrastructure.mongo import Mongo
from showcase.kernel.clock import system_clock

PLACES = "change_streams"
KINDS = frozenset({"insert", "update", "replace", "delete"})
WAIT_MS = 200
"""How long the server holds a question that it has no answer to yet."""
SAVE_EVERY_S = 1.0
_LOST = (136, 260, 280, 286)
"""The oplog was cut behind the place; the place is of another history."""


@asynccontextmanager
async def following(
    mongo: Mongo, collection: Collection[T], name: str, *, save_every: int = 100, database: str | None = None
) -> AsyncIterator[AsyncIterator[Changed[T]]]:
    """Follow what changes in a collection, from where this reader stopped; a new one, from now on.

    Args:
        name: of the reader, alone in its database: two of one name would each take the other's place.
        save_every: so many changes, or a second's, come again after a crash, at the most.

    Raises HistoryLost, Unavailable: here, and while the changes are read.
    """
    reader = _Reader(mongo, collection, name, save_every, database)
    async with await reader.opened() as stream:
        changes = reader.changes(stream)
        try:
            yield changes
        finally:
            await changes.aclose()


async def forget(mongo: Mongo, name: str, *, database: str | None = None) -> None:
    """Have a reader begin anew, from now on: after HistoryLost, before what it derives is built again."""
    with mongo.calling(f"place of {name}"):
        await mongo.collection(PLACES, database).delete_one({"_id": name})


class _Reader:
    def __init__(
        self, mongo: Mongo, collection: Collection[T], name: str, save_every: int, database: str | None
    ) -> None:
        self._mongo = mongo
        self._name = name
        self._save_every = save_every
        self._collection = mongo.collection(collection.name, database)
        self._places = mongo.collection(PLACES, database)
        self._codec = Codec(collection.name, collection.model)
        self._what = f"changes of {collection.name} for {name}"

    async def opened(self) -> AsyncChangeStream[RawBSONDocument]:
        with self._mongo.calling(self._what):
            found = await self._places.find_one({"_id": self._name})
            place = None if found is None else bson.decode(found.raw, OPTIONS)["place"]
            try:
                stream = await self._collection.watch(
                    resume_after=place, full_document="updateLookup", max_await_time_ms=WAIT_MS
                )
            except OperationFailure as error:
                raise self._lost(error) from error
        if found is None:
            await self._save(stream.resume_token)
        return stream

    async def changes(self, stream: AsyncChangeStream[RawBSONDocument]) -> AsyncGenerator[Changed[Any], None]:
        clock = asyncio.get_running_loop().time
        handled, saved, saved_at, unsaved = stream.resume_token, stream.resume_token, clock(), 0
        while True:
            with self._mongo.calling(self._what):
                try:
                    told = await stream.try_next()
                except OperationFailure as error:
                    raise self._lost(error) from error
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError  # it came at the moment of an answer, and was swallowed on the way here
            if told is not None:
                yield self._read(told)
                unsaved += 1
            # Asked for more: all before is handled. The place moves on while nothing comes, too.
            handled = stream.resume_token
            if handled != saved and (unsaved >= self._save_every or clock() - saved_at >= SAVE_EVERY_S):
                await self._save(handled)
                saved, saved_at, unsaved = handled, clock(), 0

    def _read(self, told: RawBSONDocument) -> Changed[Any]:
        kind: Any = told["operationType"]
        if kind not in KINDS:
            raise HistoryLost(f"{self._what}: the collection is gone ({kind}); forget the place, and build anew")
        full: Any = told.get("fullDocument")
        document, misfit = None, None
        try:
            document = None if full is None else self._codec.decode(full.raw)
        except Misfit as error:
            misfit = error
        return Changed(kind=kind, id=told["documentKey"]["_id"], document=document, misfit=misfit)

    async def _save(self, place: Any) -> None:
        change = {"$set": {"place": place, "at": system_clock()}}
        with self._mongo.calling(f"place of {self._name}"):
            await self._places.update_one({"_id": self._name}, change, upsert=True)

    def _lost(self, error: OperationFailure) -> Exception:
        if error.code not in _LOST:
            return error
        return HistoryLost(
            f"{self._what}: MongoDB no longer knows what came after the place where it stopped;"
            " forget the place, and build anew what it has derived"
        )
