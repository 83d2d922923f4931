"""`application.Reader` and `application.Repository` on a collection of MongoDB."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from uuid import UUID

import bson
from bson.objectid import ObjectId
from pydantic import BaseModel
from pymongo import DeleteOne, InsertOne, ReturnDocument, UpdateOne
from pymongo.errors import BulkWriteError

from showcase.documents.application import MAX_LIMIT
from showcase.documents.domain.documents import (
    BadQuery,
    Change,
    Collection,
    Delete,
    Document,
    DocumentTooLarge,
    Insert,
    Misfit,
    NoSuchDocument,
    Outcome,
    Page,
    PutNewer,
    Replace,
    Restore,
    T,
    Unstorable,
    Upsert,
    VersionConflict,
)
from showcase.documents.domain.filters import Compare, Fields, Filter, Operator, Some, Where
from showcase.documents.infrastructure.codec import LENIENT, OPTIONS, Codec, encoded, split
from showcase.documents.infrastructure.cursors import NOTHING, Cursors, beyond, entered, keys_of
from showcase.documents.infrastructure.errors import DUPLICATE_KEY, IMMUTABLE_FIELD, already_there, refused
from showcase.documents.infrastructure.mongo import Mongo
from showcase.kernel.errors import Unavailable

M = TypeVar("M", bound=BaseModel)
N = TypeVar("N", bound=BaseModel)
Operation = InsertOne[Any] | UpdateOne | DeleteOne
BY_THEMSELVES = UUID | ObjectId
"""Ids whose every value BSON has."""


class MongoReader(Generic[M]):
    """Reads a collection as some model.

    Args:
        fields: of the collection's own model: what can be asked for.
        projection: the names of what is sent; all, if none are given.
    """

    def __init__(
        self,
        mongo: Mongo,
        name: str,
        fields: Fields,
        model: type[M],
        database: str | None,
        projection: Sequence[str] | None = None,
    ) -> None:
        self._mongo = mongo
        self._name = name
        self._fields = fields
        self._codec = Codec(name, model)
        self._collection = mongo.collection(name, database)
        self._cursors = Cursors(mongo.options.secrets)
        self._projection = projection

    async def get(self, id_: object) -> M:
        wanted = self._of(id_)
        with self._mongo.calling(f"get of {self._name}") as told:
            found = await self._collection.find_one(wanted, self._sent(), **told)
        if found is None:
            raise self._missing(id_)
        return self._codec.decode(found.raw)

    async def find(
        self, where: Filter | None = None, *, sort: Sequence[str] = (), limit: int = 100, after: str | None = None
    ) -> Page[M]:
        if not 1 <= limit <= MAX_LIMIT:
            raise BadQuery(f"a page has 1 to {MAX_LIMIT:,} documents, not {limit:,}")
        wanted, keys = self._wanted(where), keys_of(sort, self._fields)
        question = {"of": self._name, "where": wanted, "sort": keys}
        if after is not None:
            key = self._cursors.opened(after, question)
            wanted = {"$and": [wanted, entered(keys, key), beyond(keys, key)]}
        raws: list[bytes] = []
        with self._mongo.calling(f"find in {self._name}") as told:
            asked: AsyncIterator[Any] = self._collection.find_raw_batches(
                wanted,
                self._sent(keys),
                sort=keys or None,
                limit=limit + 1,
                batch_size=limit + 1,
                **told,
            )
            async for batch in asked:
                raws += split(batch)
        found = list(self._codec.decode_many(raws[:limit]))
        misfits = [one for one in found if isinstance(one, Misfit)]
        items = [one for one in found if not isinstance(one, Misfit)] if misfits else found
        more = len(raws) > limit and bool(keys)
        following = self._cursors.sealed(_key(raws[:limit], keys), question) if more else None
        return Page(items, following, misfits)  # type: ignore[arg-type]  # no misfit is left in it

    async def stream(
        self,
        where: Filter | None = None,
        *,
        sort: Sequence[str] = (),
        batch: int = 1_000,
        misfit: Callable[[Misfit], None] | None = None,
    ) -> AsyncIterator[M]:
        wanted, keys = self._wanted(where), keys_of(sort, self._fields)
        what = f"stream of {self._name}"
        with self._mongo.calling(what) as told:
            batches = self._collection.find_raw_batches(
                wanted, self._sent(keys), sort=keys or None, batch_size=batch, **told
            )
        try:
            while True:
                with self._mongo.calling(what):
                    some = await anext(batches, None)
                if some is None:
                    return
                for one in self._codec.decode_many(list(split(some))):
                    if not isinstance(one, Misfit):
                        yield one
                    elif misfit is None:
                        raise one
                    else:
                        misfit(one)
        finally:
            await batches.close()

    def into(self, model: type[N]) -> "MongoReader[N]":
        """See `application.Repository.into`."""
        names = self._fields.read_by(model)
        return MongoReader(self._mongo, self._name, self._fields, model, self._collection.database.name, names)

    def _wanted(self, where: Filter | None) -> dict[str, Any]:
        return self._asked(query(self._fields.check(where)))

    def _asked(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """A filter as it is. Raises BadQuery for values that BSON does not have."""
        try:
            encoded(wanted, f"what is asked of {self._name}")
        except (Unstorable, DocumentTooLarge) as error:
            raise BadQuery(error.detail) from error
        return wanted  # in Python: the driver reads it, and would take BSON apart again

    def _of(self, id_: object, version: int | None = None) -> dict[str, Any]:
        """The filter for an id. Raises BadQuery."""
        value = self._fields.value("id", id_)
        wanted = {"_id": exactly(value)} | ({} if version is None else {"version": _seen(version)})
        return wanted if isinstance(value, BY_THEMSELVES) else self._asked(wanted)

    def _sent(self, keys: Sequence[tuple[str, int]] = ()) -> list[str] | None:
        """What MongoDB is to send: all that the model has, and what the next page begins after."""
        return None if self._projection is None else [*{*self._projection, *(name for name, _ in keys)}]

    def _missing(self, id_: object) -> NoSuchDocument:
        return NoSuchDocument(f"{self._name} has no document {id_}")


class MongoRepository(MongoReader[T]):
    """Reads and writes a collection.

    Args:
        mongo: with the transaction that its calls are part of, if there is one.
        database: another one than the default.
    """

    def __init__(self, mongo: Mongo, collection: Collection[T], database: str | None = None) -> None:
        super().__init__(mongo, collection.name, Fields(collection.model), collection.model, database)

    async def count(self, where: Filter | None = None) -> int:
        wanted = self._wanted(where)
        with self._mongo.calling(f"count of {self._name}") as told:
            return await self._collection.count_documents(wanted, **told)

    async def exists(self, where: Filter | None = None) -> bool:
        wanted = self._wanted(where)
        with self._mongo.calling(f"look into {self._name}") as told:
            return await self._collection.find_one(wanted, ["_id"], **told) is not None

    async def insert(self, document: T) -> T:
        stored = document.model_copy(update={"version": 1})
        raw = encoded(stored.model_dump(by_alias=True), self._name, document.id)
        with self._mongo.calling(self._name, document.id) as told:
            await self._collection.insert_one(raw, **told)
        return stored

    async def replace(self, document: T) -> T:
        wanted = self._at(document, _seen(document.version))
        with self._mongo.calling(self._name, document.id) as told:
            done = await self._collection.update_one(wanted, self._next(document), **told)
        if not done.matched_count:
            raise await self._why_not(document.id, document.version)
        return document.model_copy(update={"version": document.version + 1})

    async def upsert(self, document: T) -> T:
        with self._mongo.calling(self._name, document.id) as told:
            found = await self._collection.find_one_and_update(
                self._at(document),
                self._next(document),
                ["version"],
                upsert=True,
                return_document=ReturnDocument.AFTER,
                **told,
            )
        assert found is not None  # it was made, if it was not there
        return document.model_copy(update={"version": int(bson.decode(found.raw)["version"])})

    async def put_newer(self, document: T) -> bool:
        outcome = (await self.bulk([PutNewer(document)]))[0]
        if outcome is None or isinstance(outcome, VersionConflict):
            return outcome is None
        raise outcome

    async def patch(self, id_: object, changes: Mapping[str, object], *, version: int | None = None) -> T:
        if refused_names := {"id", "version"} & changes.keys():
            raise BadQuery(f"{refused_names.pop()} is not changed by a patch")
        fields = {self._fields.name(name): self._fields.value(name, value) for name, value in changes.items()}
        change = {"$inc": {"version": 1}, **({"$set": encoded(fields, self._name, id_)} if fields else {})}
        with self._mongo.calling(self._name, id_) as told:
            found = await self._collection.find_one_and_update(
                self._of(id_, version), change, return_document=ReturnDocument.AFTER, **told
            )
        if found is None:
            raise await self._why_not(id_, version)
        return self._codec.decode(found.raw)

    async def delete(self, id_: object, *, version: int | None = None) -> None:
        with self._mongo.calling(self._name, id_) as told:
            done = await self._collection.delete_one(self._of(id_, version), **told)
        if not done.deleted_count:
            raise await self._why_not(id_, version)

    async def bulk(self, changes: Sequence[Change[T]]) -> Sequence[Outcome]:
        if self._mongo.is_in_transaction:
            raise RuntimeError("a transaction is all or nothing: there is no outcome for each change")
        outcomes: list[Outcome] = [None] * len(changes)
        operations: dict[int, Operation] = {}
        for place, change in enumerate(changes):
            try:
                operations[place] = self._operation(change)
            except (Unstorable, DocumentTooLarge) as error:
                outcomes[place] = error
        failed = await self._write(operations)
        # Two that put a new document at once both found none. The later one has to look again: it may be the newer.
        again = [place for place, error in failed.items() if _is_late(changes[place], error)]
        settled = {place: refusal for place, refusal in failed.items() if place not in again}
        settled |= await self._write({place: operations[place] for place in again})
        lost = [place for place, refusal in settled.items() if _is_lost(changes[place], refusal)]
        versions = await self._versions([_id_of(changes[place]) for place in lost])
        for place, refusal in settled.items():
            if place in lost:
                outcomes[place] = self._overtaken(_id_of(changes[place]), _version_of(changes[place]), versions)
            else:
                outcomes[place] = self._refusal(_id_of(changes[place]), refusal)
        return outcomes

    async def aggregate(self, pipeline: Sequence[Mapping[str, Any]], into: type[N]) -> Sequence[N]:
        """What a pipeline makes of the collection, as a model. Raises Misfit.

        Args:
            pipeline: of this program's own making: nothing in it is checked.
        """
        raws: list[bytes] = []
        with self._mongo.calling(f"aggregate of {self._name}") as told:
            asked = await self._collection.aggregate_raw_batches(pipeline, **told)
            async for batch in asked:
                raws += split(batch)
        return list(map(Codec(self._name, into).decode, raws))

    # -- operations

    def _operation(self, change: Change[T]) -> Operation:
        """What the driver is to do. Raises Unstorable, DocumentTooLarge."""
        match change:
            case Insert(document):
                fields = document.model_dump(by_alias=True) | {"version": 1}
                return InsertOne(encoded(fields, self._name, document.id))
            case Replace(document):
                wanted = self._at(document, _seen(document.version))
                # An update that matches nothing would only be counted. As an upsert it fails by name: nobody may set
                # an `_id` to something else than was asked for.
                return UpdateOne(wanted, {**self._next(document), "$setOnInsert": {"_id": None}}, upsert=True)
            case Upsert(document):
                return UpdateOne(self._at(document), self._next(document), upsert=True)
            case PutNewer(document) | Restore(document):
                newer = "$gte" if isinstance(change, PutNewer) else "$gt"
                wanted = self._at(document, {"$not": {newer: document.version}})
                fields = document.model_dump(by_alias=True, exclude={"id"})
                return UpdateOne(wanted, {"$set": encoded(fields, self._name, document.id)}, upsert=True)
            case Delete(id_):
                return DeleteOne(self._of(id_, None))

    async def _write(self, operations: Mapping[int, Operation]) -> dict[int, Mapping[str, Any]]:
        """Do some operations: what MongoDB says of each that it refuses."""
        if not operations:
            return {}
        with self._mongo.calling(f"bulk of {self._name}") as told:
            try:
                await self._collection.bulk_write([*operations.values()], ordered=False, **told)
            except BulkWriteError as error:
                if error.timeout or error.details["writeConcernErrors"]:
                    raise Unavailable("mongo does not say that it is stored") from error
                places = list(operations)
                return {places[failed["index"]]: failed for failed in error.details["writeErrors"]}
        return {}

    def _refusal(self, id_: object, error: Mapping[str, Any]) -> Outcome:
        """What an operation's error means. Raises RuntimeError for one that means nothing to us."""
        if error["code"] == DUPLICATE_KEY:
            return already_there(self._named(id_), error)
        if refusal := refused(self._named(id_), error["code"], error):
            return refusal
        raise RuntimeError(f"mongo refuses {self._named(id_)}: {error['code']} {error['errmsg']}")

    async def _why_not(self, id_: object, expected: int | None) -> NoSuchDocument | VersionConflict:
        return self._overtaken(id_, expected or 0, await self._versions([id_]))

    async def _versions(self, ids: Sequence[object]) -> Mapping[str, int]:
        """Which versions are stored, by how an id looks in BSON; those that are not there are left out."""
        if not ids:
            return {}
        found: list[Any] = []
        with self._mongo.calling(f"versions in {self._name}") as told:
            wanted = query(Compare("id", Operator.IN, [self._fields.value("id", id_) for id_ in ids]))
            asked = self._collection.find_raw_batches(wanted, ["version"], **told)
            async for batch in asked:
                found += [bson.decode(raw, OPTIONS) for raw in split(batch)]
        versions = {repr(one["_id"]): one.get("version") for one in found}
        return {id_: version if isinstance(version, int) else 0 for id_, version in versions.items()}

    def _overtaken(self, id_: object, expected: int, versions: Mapping[str, int]) -> NoSuchDocument | VersionConflict:
        raw = bson.encode({"_id": self._fields.value("id", id_)}, codec_options=OPTIONS)
        stored = versions.get(repr(bson.decode(raw, OPTIONS)["_id"]))
        return self._missing(id_) if stored is None else VersionConflict(self._named(id_), expected, stored)

    def _next(self, document: T) -> dict[str, Any]:
        """All fields that the model knows; what it does not know stays."""
        fields = document.model_dump(by_alias=True, exclude={"id", "version"})
        return {"$set": encoded(fields, self._name, document.id), "$inc": {"version": 1}}

    def _at(self, document: Document, version: object = None) -> Mapping[str, Any]:
        """The filter for a document's place. Raises Unstorable."""
        id_ = document.model_dump(include={"id"})["id"]
        wanted = {"_id": exactly(id_)} | ({} if version is None else {"version": version})
        return wanted if isinstance(id_, BY_THEMSELVES) else encoded(wanted, self._name, document.id)

    def _named(self, id_: object) -> str:
        return f"{self._name} {id_}"


def _id_of(change: Change[Any]) -> object:
    return change.id if isinstance(change, Delete) else change.document.id


def _version_of(change: Change[Any]) -> int:
    return 0 if isinstance(change, Delete) else int(change.document.version)


def _is_late(change: Change[Any], error: Mapping[str, Any]) -> bool:
    """Whether a document that was not to be replaced by this one was in the way of inserting it."""
    is_there = error["code"] == DUPLICATE_KEY and [*error.get("keyPattern", ())] == ["_id"]
    return is_there and isinstance(change, PutNewer | Restore)


def _is_lost(change: Change[Any], error: Mapping[str, Any]) -> bool:
    """Whether somebody else's version is in the way."""
    return _is_late(change, error) or (isinstance(change, Replace) and error["code"] == IMMUTABLE_FIELD)


def _key(raws: Sequence[bytes], keys: Sequence[tuple[str, int]]) -> list[Any]:
    """Where a page ends: with the last document that has one place; nothing if none has (see `beyond`)."""
    for raw in reversed(raws):
        document = bson.decode(raw, LENIENT)
        values = [document.get(name) for name, _ in keys]
        if not any(isinstance(value, list) for value in values):
            return values
    return []


def exactly(id_: object) -> object:
    """How an id is asked for. What cannot be read as an operator needs none, and is found the shortest way (IDHACK)."""
    return id_ if isinstance(id_, str | int | UUID | ObjectId) else {"$eq": id_}


def _seen(version: int) -> object:
    """The filter for a version. What others have written may have none, and is read as of version 0."""
    return version or {"$in": [0, None]}


def query(where: Where) -> dict[str, Any]:
    """A checked filter as MongoDB has it: every value below an operator of ours, so that none is read as one."""
    if isinstance(where, Compare):
        path = ".".join(
            "_id" if name == "id" and place == 0 else name for place, name in enumerate(where.path.split("."))
        )
        if isinstance(where.value, list) and any(isinstance(value, Mapping) for value in where.value):
            several = {Operator.IN: "$or", Operator.NIN: "$nor"}.get(where.operator)
            if several is not None:  # `$in` takes no mapping whose names look like operators; `$eq` takes any
                return {several: [{path: {"$eq": value}} for value in where.value]}
        return {path: {str(where.operator): where.value}}
    parts = [query(part) for part in where.parts]
    if not parts:
        return NOTHING if isinstance(where, Some) else {}
    return {"$or" if isinstance(where, Some) else "$and": parts}
