"""Who keeps documents: our repository, the driver alone, and Beanie, each the way its manual advises.

All three have a client of the same settings; only ours has listeners, for the metrics that an app has.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import beanie
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.read_concern import ReadConcern

from benchmarks.documents_kinds import Kind
from showcase.documents import Collection, Insert, gte
from showcase.documents.infrastructure.mongo import Mongo
from showcase.documents.infrastructure.repository import MongoRepository


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """What one of them does with documents of one kind, and where it keeps them.

    Attributes:
        new: makes a document that is not stored yet.
        replace: stores a changed document, if it is of the version that is stored, and returns what to change next.
        find: so many documents, by a filter that all of them pass.
        bulk: stores many new ones.
    """

    name: str
    collection: AsyncCollection[dict[str, Any]]
    new: Callable[[], Any]
    id_of: Callable[[Any], object]
    get: Callable[[object], Awaitable[Any]]
    insert: Callable[[Any], Awaitable[Any]]
    replace: Callable[[Any], Awaitable[Any]]
    find: Callable[[int], Awaitable[Sequence[Any]]]
    bulk: Callable[[Sequence[Any]], Awaitable[int]]


@asynccontextmanager
async def connected(ours: Mongo, url: str) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """A database by a client of the same settings as ours, without listeners."""
    options = ours.options
    async with AsyncMongoClient[dict[str, Any]](
        url,
        timeoutMS=round(options.timeout_s * 1_000),
        serverSelectionTimeoutMS=round(options.select_s * 1_000),
        connectTimeoutMS=round(options.timeout_s * 1_000),
        waitQueueTimeoutMS=round(options.queue_s * 1_000),
        maxPoolSize=options.connections,
        minPoolSize=options.kept_connections,
        maxIdleTimeMS=round(options.idle_s * 1_000),
        compressors=list(options.compressors),
        appname="benchmark",
        uuidRepresentation="standard",
        tz_aware=True,
    ) as client:
        yield client.get_database(
            ours.database, read_concern=ReadConcern("majority"), write_concern=WriteConcern("majority")
        )


async def of(mongo: Mongo, database: AsyncDatabase[dict[str, Any]], kind: Kind) -> tuple[Peer, Peer, Peer]:
    """Ours, the driver, Beanie."""
    return ours(mongo, database, kind), pymongo(database, kind), await beanies(database, kind)


def ours(mongo: Mongo, database: AsyncDatabase[dict[str, Any]], kind: Kind) -> Peer:
    """Our repository."""
    name = f"ours_{kind.ours.__name__}"
    repository = MongoRepository(mongo, Collection(name=name, model=kind.ours))

    async def bulk(documents: Sequence[Any]) -> int:
        outcomes = await repository.bulk([Insert(document) for document in documents])
        return outcomes.count(None)

    async def find(count: int) -> Sequence[Any]:
        return (await repository.find(gte("total_cents", 0), limit=count)).items

    return Peer(
        name="ours",
        collection=database[name],
        new=kind.new,
        id_of=lambda document: document.id,
        get=repository.get,
        insert=repository.insert,
        replace=repository.replace,
        find=find,
        bulk=bulk,
    )


def pymongo(database: AsyncDatabase[dict[str, Any]], kind: Kind) -> Peer:
    """PyMongo Async with dicts."""
    collection = database[f"pymongo_{kind.ours.__name__}"]

    async def get(id_: object) -> dict[str, Any]:
        found = await collection.find_one({"_id": id_})
        assert found is not None
        return found

    async def replace(document: dict[str, Any]) -> dict[str, Any]:
        fields = {name: value for name, value in document.items() if name not in ("_id", "version")}
        done = await collection.update_one(
            {"_id": document["_id"], "version": document["version"]}, {"$set": fields, "$inc": {"version": 1}}
        )
        assert done.matched_count
        return {**document, "version": document["version"] + 1}

    async def find(count: int) -> list[dict[str, Any]]:
        # Without a batch size the first answer has 101 documents.
        return await collection.find({"total_cents": {"$gte": 0}}, limit=count, batch_size=count + 1).to_list()

    async def bulk(documents: Sequence[dict[str, Any]]) -> int:
        return len((await collection.insert_many(documents, ordered=False)).inserted_ids)

    return Peer(
        name="PyMongo Async, dicts",
        collection=collection,
        new=kind.new_dict,
        id_of=lambda document: document["_id"],
        get=get,
        insert=collection.insert_one,
        replace=replace,
        find=find,
        bulk=bulk,
    )


async def beanies(database: AsyncDatabase[dict[str, Any]], kind: Kind) -> Peer:
    """Beanie; a document that is replaced changes itself."""
    model = kind.beanies
    await beanie.init_beanie(database, document_models=[model])

    async def get(id_: object) -> beanie.Document:
        found = await model.get(id_)
        assert found is not None
        return found

    async def find(count: int) -> list[beanie.Document]:
        return await model.find({"total_cents": {"$gte": 0}}, limit=count, batch_size=count + 1).to_list()

    async def bulk(documents: Sequence[beanie.Document]) -> int:
        return len((await model.insert_many(documents, ordered=False)).inserted_ids)

    return Peer(
        name="Beanie",
        collection=database[model.get_collection_name()],
        new=kind.new_of_beanie,
        id_of=lambda document: document.id,
        get=get,
        insert=model.insert,
        replace=model.replace,
        find=find,
        bulk=bulk,
    )
