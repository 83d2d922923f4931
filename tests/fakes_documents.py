"""The document provider in memory, for tests without servers.

store = MemoryDocuments()
orders = store.repository(ORDERS)      # a Repository
async with store.transaction(): ...    # store is Transactions
store.put("orders", {"_id": "7"})      # as somebody else may have written it
store.away = True                      # every call is Unavailable

It keeps BSON, written and read by the adapter's own codec, and compares as MongoDB does (the order of BSON types: null,
numbers, strings, documents, lists, bytes, ids, booleans, times). Two things are simpler: a transaction's changes are
seen by others before it is committed, and of an index with `only` it knows `{"$type": …}` and `{"$exists": true}`.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from functools import cmp_to_key
from types import NoneType, UnionType
from typing import Any, Generic, TypeVar
from uuid import UUID

import bson
from bson.datetime_ms import DatetimeMS
from bson.objectid import ObjectId
from pydantic import BaseModel

from showcase.documents.application import MAX_LIMIT, NestedTransaction
from showcase.documents.domain.documents import (
    AlreadyThere,
    BadQuery,
    Change,
    Collection,
    Delete,
    DocumentTooLarge,
    Index,
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
from showcase.documents.infrastructure.codec import LENIENT, OPTIONS, Codec, encoded
from showcase.documents.infrastructure.cursors import Cursors, keys_of
from showcase.documents.infrastructure.repository import query
from showcase.kernel.errors import Unavailable

M = TypeVar("M", bound=BaseModel)
N = TypeVar("N", bound=BaseModel)
R = TypeVar("R")
Stored = dict[str, Any]
Keys = Sequence[tuple[str, int]]
TYPES = {"string": str, "int": int, "long": int, "double": float, "decimal": Decimal, "date": datetime, "bool": bool}


@dataclass(frozen=True, slots=True)
class _Open:
    """A transaction: the task that has it open, and what was there before each change."""

    task: "asyncio.Task[Any] | None"
    undo: list[tuple[str, Hashable, bytes | None]] = field(default_factory=list)


class MemoryDocuments:
    """What all repositories of one database share; see `application.Transactions`.

    Attributes:
        documents: by collection and by id, as BSON.
        away: whether it answers nobody.
    """

    def __init__(self, secrets: Sequence[bytes] = (b"only for tests",)) -> None:
        self.cursors = Cursors(secrets)
        self.documents: dict[str, dict[Hashable, bytes]] = {}
        self.away = False
        self._open: ContextVar[_Open | None] = ContextVar("transaction", default=None)
        self._one_at_a_time = asyncio.Lock()

    def repository(self, collection: Collection[T]) -> "MemoryRepository[T]":
        return MemoryRepository(self, collection)

    def put(self, name: str, document: Mapping[str, Any] | bytes) -> None:
        """Write what somebody else may have written."""
        raw = document if isinstance(document, bytes) else _bson(document, name)
        self.documents.setdefault(name, {})[rank(bson.decode(raw, LENIENT)["_id"])] = raw

    def calling(self, name: str) -> dict[Hashable, bytes]:
        """The documents of a collection. Raises Unavailable; RuntimeError in another task than the transaction's."""
        if self.away:
            raise Unavailable("the store does not answer in time")
        if self.is_in_transaction and self._transaction().task is not asyncio.current_task():
            raise RuntimeError(f"{name}: the transaction that is open belongs to another task")
        return self.documents.setdefault(name, {})

    def write(self, name: str, id_: Hashable, raw: bytes | None) -> None:
        """Put a document in its place; None removes it."""
        there = self.calling(name)
        if self.is_in_transaction:
            self._transaction().undo.append((name, id_, there.get(id_)))
        if raw is None:
            there.pop(id_, None)
        else:
            there[id_] = raw

    @property
    def is_in_transaction(self) -> bool:
        return self._open.get() is not None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        if self.is_in_transaction:
            raise NestedTransaction("there is a transaction already: call what both need, not one in the other")
        async with self._one_at_a_time:
            token = self._open.set(_Open(asyncio.current_task()))
            try:
                yield
            except BaseException:
                self._undo(self._transaction())
                raise
            finally:
                self._open.reset(token)

    async def in_transaction(self, work: Callable[[], Awaitable[R]]) -> R:
        async with self.transaction():
            return await work()

    def _transaction(self) -> _Open:
        open_ = self._open.get()
        assert open_ is not None
        return open_

    def _undo(self, failed: _Open) -> None:
        for name, id_, before in reversed(failed.undo):
            if before is None:
                self.documents[name].pop(id_, None)
            else:
                self.documents[name][id_] = before


class MemoryReader(Generic[M]):
    """See `application.Reader`."""

    def __init__(
        self,
        store: MemoryDocuments,
        name: str,
        fields: Fields,
        model: type[M],
        projection: Sequence[str] | None = None,
    ) -> None:
        self._store = store
        self._name = name
        self._fields = fields
        self._codec = Codec(name, model)
        self._projection = projection

    async def get(self, id_: object) -> M:
        raw = self._store.calling(self._name).get(self._id(id_))
        if raw is None:
            raise self._missing(id_)
        return self._codec.decode(self._sent(raw))

    async def find(
        self, where: Filter | None = None, *, sort: Sequence[str] = (), limit: int = 100, after: str | None = None
    ) -> Page[M]:
        if not 1 <= limit <= MAX_LIMIT:
            raise BadQuery(f"a page has 1 to {MAX_LIMIT:,} documents, not {limit:,}")
        keys = keys_of(sort, self._fields)
        question = {"of": self._name, "where": query(self._wanted(where)), "sort": keys}
        raws = self._sorted(self._matching(where), keys)
        if after is not None:
            place = self._store.cursors.opened(after, question)
            raws = [raw for raw in raws if _has_a_place(_key(raw, keys)) and _is_after(keys, _key(raw, keys), place)]
        items, misfits = [], []
        for one in self._codec.decode_many([self._sent(raw) for raw in raws[:limit]]):
            if isinstance(one, Misfit):
                misfits.append(one)
            else:
                items.append(one)
        if len(raws) <= limit or not keys:
            return Page(items, None, misfits)
        ends = (_key(raw, keys) for raw in reversed(raws[:limit]))
        return Page(items, self._store.cursors.sealed(next(filter(_has_a_place, ends), []), question), misfits)

    async def stream(
        self,
        where: Filter | None = None,
        *,
        sort: Sequence[str] = (),
        batch: int = 1_000,
        misfit: Callable[[Misfit], None] | None = None,
    ) -> AsyncIterator[M]:
        raws = self._sorted(self._matching(where), keys_of(sort, self._fields))
        for one in self._codec.decode_many([self._sent(raw) for raw in raws]):
            if not isinstance(one, Misfit):
                yield one
            elif misfit is None:
                raise one
            else:
                misfit(one)

    def into(self, model: type[N]) -> "MemoryReader[N]":
        names = self._fields.read_by(model)
        return MemoryReader(self._store, self._name, self._fields, model, names)

    def _wanted(self, where: Filter | None) -> Where:
        try:
            return _normal(self._fields.check(where), f"what is asked of {self._name}")
        except (Unstorable, DocumentTooLarge) as error:
            raise BadQuery(error.detail) from error

    def _matching(self, where: Filter | None) -> list[bytes]:
        checked = self._wanted(where)
        there = self._store.calling(self._name)
        return [raw for raw in there.values() if matches(checked, bson.decode(raw, LENIENT))]

    def _sorted(self, raws: Sequence[bytes], keys: Keys) -> list[bytes]:
        def compared(one: bytes, other: bytes) -> int:
            return _compared(keys, _key(one, keys), _key(other, keys))

        return sorted(raws, key=cmp_to_key(compared))

    def _sent(self, raw: bytes) -> bytes:
        if self._projection is None:
            return raw
        sent = {name: value for name, value in bson.decode(raw, LENIENT).items() if name in (*self._projection, "_id")}
        return _bson(sent, self._name)

    def _id(self, given: object) -> Hashable:
        try:
            return rank(_stored(self._fields.value("id", given), self._name))
        except Unstorable as error:
            raise BadQuery(error.detail) from error

    def _missing(self, id_: object) -> NoSuchDocument:
        return NoSuchDocument(f"{self._name} has no document {id_}")


class MemoryRepository(MemoryReader[T]):
    """See `application.Repository`."""

    def __init__(self, store: MemoryDocuments, collection: Collection[T]) -> None:
        super().__init__(store, collection.name, Fields(collection.model), collection.model)
        self._unique = [index for index in collection.indexes if index.unique]

    async def count(self, where: Filter | None = None) -> int:
        return len(self._matching(where))

    async def exists(self, where: Filter | None = None) -> bool:
        return bool(self._matching(where))

    async def insert(self, document: T) -> T:
        stored = document.model_copy(update={"version": 1})
        raw = _bson(stored.model_dump(by_alias=True), self._named(document.id))
        id_ = self._place(document)
        if id_ in self._store.calling(self._name):
            raise AlreadyThere(self._named(document.id), ["_id"])
        self._write(id_, raw)
        return stored

    async def replace(self, document: T) -> T:
        change = self._changed_fields(document)
        place = self._place(document)
        stored = self._found(place, document.id, document.version)
        self._merge(place, stored, {**change, "version": document.version + 1})
        return document.model_copy(update={"version": document.version + 1})

    async def upsert(self, document: T) -> T:
        change = self._changed_fields(document)
        place = self._place(document)
        stored = self._there(place) or self._new(document)
        version = stored.get("version", 0) + 1
        self._merge(place, stored, {**change, "version": version})
        return document.model_copy(update={"version": version})

    async def put_newer(self, document: T) -> bool:
        outcome = (await self.bulk([PutNewer(document)]))[0]
        if outcome is None or isinstance(outcome, VersionConflict):
            return outcome is None
        raise outcome

    async def patch(self, id_: object, changes: Mapping[str, object], *, version: int | None = None) -> T:
        if refused := {"id", "version"} & changes.keys():
            raise BadQuery(f"{refused.pop()} is not changed by a patch")
        fields = {self._fields.name(name): self._fields.value(name, value) for name, value in changes.items()}
        change = _read(_bson(fields, self._named(id_)))
        place = self._id(id_)
        stored = self._found(place, id_, version)
        self._merge(place, stored, {**change, "version": stored.get("version", 0) + 1})
        return self._codec.decode(self._store.calling(self._name)[place])

    async def delete(self, id_: object, *, version: int | None = None) -> None:
        place = self._id(id_)
        self._found(place, id_, version)
        self._store.write(self._name, place, None)

    async def bulk(self, changes: Sequence[Change[T]]) -> Sequence[Outcome]:
        if self._store.is_in_transaction:
            raise RuntimeError("a transaction is all or nothing: there is no outcome for each change")
        for change in changes:
            if isinstance(change, Delete):
                self._id(change.id)
        return await self._outcomes(changes)

    async def _outcomes(self, changes: Sequence[Change[T]]) -> Sequence[Outcome]:
        outcomes: list[Outcome] = []
        for change in changes:
            try:
                await self._make(change)
                outcomes.append(None)
            except (AlreadyThere, VersionConflict, NoSuchDocument, Unstorable, DocumentTooLarge) as refusal:
                outcomes.append(refusal)
        return outcomes

    async def _make(self, change: Change[T]) -> None:
        match change:
            case Insert(document):
                await self.insert(document)
            case Replace(document):
                await self.replace(document)
            case Upsert(document):
                await self.upsert(document)
            case PutNewer(document) | Restore(document):
                fields = {**self._changed_fields(document), "version": document.version}
                place = self._place(document)
                stored = self._there(place)
                found = -1 if stored is None else stored.get("version", 0)
                if found > document.version or (found == document.version and isinstance(change, PutNewer)):
                    raise VersionConflict(self._named(document.id), document.version, found)
                self._merge(place, stored or self._new(document), fields)
            case Delete(id_):
                self._store.write(self._name, self._id(id_), None)

    def _changed_fields(self, document: T) -> Stored:
        fields = document.model_dump(by_alias=True, exclude={"id", "version"})
        return _read(_bson(fields, self._named(document.id)))

    def _new(self, document: T) -> Stored:
        return {"_id": document.model_dump(include={"id"})["id"]}

    def _place(self, document: T) -> Hashable:
        return rank(_stored(self._new(document)["_id"], self._named(document.id)))

    def _there(self, place: Hashable) -> Stored | None:
        raw = self._store.calling(self._name).get(place)
        return None if raw is None else _read(raw)

    def _found(self, place: Hashable, id_: object, version: int | None) -> Stored:
        stored = self._there(place)
        if stored is None:
            raise self._missing(id_)
        if version not in (None, found := stored.get("version", 0)):
            raise VersionConflict(self._named(id_), version or 0, found)
        return stored

    def _merge(self, id_: Hashable, stored: Stored, change: Stored) -> None:
        self._write(id_, _bson({**stored, **change}, self._name))

    def _write(self, id_: Hashable, raw: bytes) -> None:
        new = _read(raw)
        for index in self._unique:
            entries = _entries(index, new)
            for other, theirs in self._store.calling(self._name).items():
                if other != id_ and entries & _entries(index, _read(theirs)):
                    raise AlreadyThere(self._named(new["_id"]), [key.removeprefix("-") for key in index.keys])
        self._store.write(self._name, id_, raw)

    def _named(self, id_: object) -> str:
        return f"{self._name} {id_}"


# -- as MongoDB compares


def rank(value: object) -> tuple[int, Any]:
    """What stands for a value in its order among all others: the type comes first."""
    if isinstance(value, Mapping):
        return 4, tuple((rank(one)[0], name, rank(one)[1]) for name, one in value.items())
    if isinstance(value, list):
        return 5, tuple(map(rank, value))
    for types, place, part in _ORDER:
        if isinstance(value, types):
            return place, part(value)
    raise NotImplementedError(f"nobody has said where {type(value).__name__} comes")


_ORDER: Sequence[tuple[type | UnionType, int, Callable[[Any], Any]]] = (
    (NoneType, 1, lambda _: 0),
    (bool, 8, bool),
    (int | float | Decimal, 2, lambda one: (False, 0) if one != one else (True, one)),  # what is no number is the least
    (str, 3, str),
    (UUID, 6, lambda one: (16, 4, one.bytes)),
    (bytes, 6, lambda one: (len(one), 0, one)),
    (ObjectId, 7, lambda one: one.binary),
    (datetime, 9, lambda one: int(DatetimeMS(one))),
    (DatetimeMS, 9, int),
)


def matches(where: Where, document: Mapping[str, Any]) -> bool:
    """Whether a document passes a checked filter."""
    if not isinstance(where, Compare):
        return (any if isinstance(where, Some) else all)(matches(part, document) for part in where.parts)
    names = where.path.split(".")
    found = list(_values(document, ["_id" if names[0] == "id" else names[0], *names[1:]]))
    match where.operator:
        case Operator.NE | Operator.NIN:
            wanted = where.value if where.operator is Operator.NIN else [where.value]
            return not any(_holds(Operator.EQ, one, value) for value in _list(wanted) for one in found)
        case Operator.IN:
            return any(_holds(Operator.EQ, one, value) for value in _list(where.value) for one in found)
    return any(_holds(where.operator, one, where.value) for one in found)


def _holds(operator: Operator, found: object, value: object) -> bool:
    one, other = rank(found), rank(value)
    if one[0] != other[0]:
        return False
    if found != found or value != value:  # what is no number equals itself, and is neither more nor less than others
        return one == other and operator in (Operator.EQ, Operator.LTE, Operator.GTE)
    match operator:
        case Operator.LT:
            return one < other
        case Operator.LTE:
            return one <= other
        case Operator.GT:
            return one > other
        case Operator.GTE:
            return one >= other
    return one == other


def _values(value: object, names: Sequence[str]) -> Iterator[object]:
    """What is at the end of a path: of each element where it leads through a list; a list, and what is in it."""
    if not names:
        yield value
        if isinstance(value, list):
            yield from value
    elif isinstance(value, Mapping):
        yield from _values(value.get(names[0]), names[1:])
    elif isinstance(value, list):
        for one in value:
            if isinstance(one, Mapping):
                yield from _values(one, names)
    else:
        yield None


def _entries(index: Index, document: Mapping[str, Any]) -> set[tuple[tuple[int, Any], ...]]:
    """What an index holds of a document."""
    for name, condition in (index.only or {}).items():
        if condition != {"$exists": True} and not (
            isinstance(condition, Mapping) and condition.keys() == {"$type"} and condition["$type"] in TYPES
        ):
            raise NotImplementedError(f"an index only over {name}: {condition}")
        if name not in document:
            return set()
        if "$type" in condition and not isinstance(document[name], TYPES[condition["$type"]]):
            return set()
    of_keys = []
    for key in index.keys:
        found = list(_values(document, key.removeprefix("-").split(".")))
        of_keys.append([rank(one) for one in (found[1:] if isinstance(found[0], list) else found) or [None]])
    return set(itertools.product(*of_keys))


def _key(raw: bytes, keys: Keys) -> list[Any]:
    document = bson.decode(raw, LENIENT)
    return [document.get(name) for name, _ in keys]


def _has_a_place(key: Sequence[object]) -> bool:
    return not any(isinstance(value, list) for value in key)


def _is_after(keys: Keys, key: Sequence[object], place: Sequence[object]) -> bool:
    return not place or _compared(keys, key, place) > 0


def _compared(keys: Keys, one: Sequence[object], other: Sequence[object]) -> int:
    """Less than 0 if one comes before the other, more if after."""
    for (_, direction), *pair in zip(keys, one, other, strict=True):
        left, right = (_of_list(one, direction) if isinstance(one, list) else rank(one) for one in pair)
        if left != right:
            return direction if left > right else -direction
    return 0


def _of_list(values: Sequence[object], direction: int) -> tuple[int, Any]:
    """A list is sorted by its least element, or its greatest; one of nothing before all."""
    ranks = [rank(value) for value in values] or [(0, 0)]
    return min(ranks) if direction > 0 else max(ranks)


def _normal(where: Where, what: str) -> Where:
    """A checked filter, each value as it comes back from BSON."""
    if isinstance(where, Compare):
        return Compare(where.path, where.operator, _stored(where.value, what))
    return type(where)(tuple(_normal(part, what) for part in where.parts))


def _stored(value: object, what: str) -> Any:
    return _read(_bson({"": value}, what))[""]


def _bson(document: Mapping[str, Any], what: str) -> bytes:
    return bytes(encoded(document, what).raw)


def _read(raw: bytes) -> Stored:
    return bson.decode(raw, OPTIONS)


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value
