"""Where the contract of the document provider is tested, in memory and in MongoDB; and a collection to test it with."""

import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from decimal import Decimal
from enum import StrEnum
from typing import Any, Protocol

import bson
from bson.raw_bson import RawBSONDocument
from pydantic import BaseModel, ConfigDict, Field

from showcase.documents import Collection, Document, Index, Insert, Moment, Repository, Transactions, VersionConflict
from showcase.documents.domain.documents import Outcome, T
from showcase.documents.infrastructure import schema
from showcase.documents.infrastructure.codec import OPTIONS
from showcase.documents.infrastructure.mongo import Mongo, Options
from showcase.documents.infrastructure.repository import MongoRepository
from tests.fakes_documents import MemoryDocuments, rank
from workshop.stack.namespace import Namespace

URL = "SHOWCASE_MONGO_URL"
SECRETS = (b"the secret that signs",)


class Kind(StrEnum):
    FRUIT = "fruit"
    OTHER = "other"


class Part(BaseModel):
    model_config = ConfigDict(frozen=True)

    number: int
    note: str | None = None


class Crate(Document):
    """A bit of everything."""

    id: str
    name: str | None = None
    size: int = 0
    weight: float = 0.0
    price: Decimal = Decimal(0)
    code: str | None = None
    kind: Kind = Kind.OTHER
    tags: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    first: Part | None = None
    notes: dict[str, Any] = Field(default_factory=dict)
    made_at: Moment | None = None


class Label(BaseModel):
    """As much of a crate as is printed on it."""

    model_config = ConfigDict(frozen=True)

    id: str = Field(alias="_id")
    name: str | None


CRATES = Collection(
    name="crates",
    model=Crate,
    indexes=(
        Index(keys=("code",), unique=True, only={"code": {"$type": "string"}}),
        Index(keys=("size", "_id")),
        Index(keys=("-made_at", "-_id")),
    ),
)
BOXES = Collection(name="boxes", model=Crate)


class World(Protocol):
    """A store; `put` writes to it what somebody else may have written, and `raw` reads what is really there."""

    @property
    def transactions(self) -> Transactions: ...

    def repository(self, collection: Collection[T], secrets: Sequence[bytes] = SECRETS) -> Repository[T]: ...

    async def put(self, document: Mapping[str, Any] | bytes, name: str = "crates") -> None: ...

    async def raw(self, id_: object, name: str = "crates") -> Mapping[str, Any]: ...


class InMemory:
    def __init__(self) -> None:
        self.store = MemoryDocuments(SECRETS)
        self.transactions = self.store

    def repository(self, collection: Collection[T], secrets: Sequence[bytes] = SECRETS) -> Repository[T]:
        others = MemoryDocuments(secrets)
        others.documents = self.store.documents
        return (self.store if secrets == SECRETS else others).repository(collection)

    async def put(self, document: Mapping[str, Any] | bytes, name: str = "crates") -> None:
        self.store.put(name, document)

    async def raw(self, id_: object, name: str = "crates") -> Mapping[str, Any]:
        return bson.decode(self.store.documents[name][rank(id_)], OPTIONS)


class InMongo:
    def __init__(self, url: str, mongo: Mongo) -> None:
        self.url = url
        self.mongo = mongo
        self.transactions = mongo

    @classmethod
    @asynccontextmanager
    async def emptied(cls, names: Namespace, *collections: Collection[Any]) -> AsyncIterator["InMongo"]:
        """In a namespace, with collections in which there is nothing."""
        mongo = Mongo(names.env[URL], Options(secrets=SECRETS))
        try:
            await schema.apply(mongo, *collections)
            for collection in collections:
                await mongo.collection(collection.name).delete_many({})
            yield cls(names.env[URL], mongo)
        finally:
            await mongo.close()

    def repository(self, collection: Collection[T], secrets: Sequence[bytes] = SECRETS) -> Repository[T]:
        if secrets == SECRETS:
            return MongoRepository(self.mongo, collection)
        mongo = Mongo(self.url, Options(secrets=tuple(secrets)))
        mongo.client = self.mongo.client
        return MongoRepository(mongo, collection)

    async def put(self, document: Mapping[str, Any] | bytes, name: str = "crates") -> None:
        raw = document if isinstance(document, bytes) else bson.encode(document, codec_options=OPTIONS)
        await self.mongo.collection(name).insert_one(RawBSONDocument(raw))

    async def raw(self, id_: object, name: str = "crates") -> Mapping[str, Any]:
        found = await self.mongo.collection(name).find_one({"_id": id_})
        assert found is not None
        return bson.decode(found.raw, OPTIONS)


def crates(count: int, make: Callable[[int], Mapping[str, object]] = lambda number: {"size": number}) -> list[Crate]:
    """Some crates: 000, 001, …"""
    return [Crate.model_validate({"id": f"{number:03}", **make(number)}) for number in range(count)]


async def filled(repository: Repository[Crate], *documents: Crate) -> None:
    """Put some documents in, in any order."""
    assert set(await repository.bulk([Insert(document) for document in documents])) == {None}


async def every_page(
    repository: Repository[Crate], sort: Sequence[str], limit: int, most: int = 100, **question: Any
) -> list[str]:
    """The ids of all documents, page by page; of those that do not fit, in brackets."""
    seen: list[str] = []
    after: str | None = None
    for _ in range(most):
        page = await repository.find(sort=sort, limit=limit, after=after, **question)
        seen += [one.id for one in page] + [f"[{misfit.id}]" for misfit in page.misfits]
        assert len(page) + len(page.misfits) <= limit
        if page.next is None:
            return seen
        after = page.next
    raise AssertionError(f"there is no end to it: {seen}")


def told(outcome: Outcome) -> str | tuple[int, int] | None:
    """An outcome in short: its name; of a conflict, both versions."""
    if isinstance(outcome, VersionConflict):
        return outcome.expected, outcome.found
    return None if outcome is None else type(outcome).__name__


def named(value: object) -> str:
    """The name of a test of this value, the same in every process: an address in memory is none."""
    return re.sub(r" at 0x[0-9a-f]+", "", ascii(value))[:100]
