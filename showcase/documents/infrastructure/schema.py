"""Brings a database to what is declared beside the models: collections, validators, indexes.

Any number of processes may do so at once, and each may die in the middle: whoever comes looks at what is there, does
what is missing, and looks again.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import bson
import pymongo
import structlog
from pymongo import IndexModel
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import CollectionInvalid, DuplicateKeyError, OperationFailure

from showcase.documents.domain.documents import Applied, Collection, Index
from showcase.documents.infrastructure.codec import OPTIONS
from showcase.documents.infrastructure.mongo import Mongo, path_of
from showcase.kernel.errors import Unavailable

log = structlog.get_logger()

TRIES = 20
PAUSE_S = 0.1
BUILD_WITHIN_S = 600.0
"""An index over many documents takes longer than any other call may."""
_OVERTAKEN = (26, 27, 48, 85, 86, 117, 276, 12586, 12587)
"""Another process has made, dropped, or is building the same: look again."""
_ID = "_id_"
EXPIRY = "expireAfterSeconds"


async def apply(mongo: Mongo, *collections: Collection[Any], database: str | None = None) -> Applied:
    """Make what is declared and not there, and change what is otherwise.

    An index that is otherwise is dropped and built again: until then there is none, unless only its expiry changes.

    Raises Unavailable, also while other processes stand in the way all the time; AlreadyThere for a unique index over
    what is not unique; OperationFailure for a declaration that MongoDB refuses.
    """
    created: dict[str, None] = {}
    changed: dict[str, None] = {}
    left_over: dict[str, None] = {}
    for one in collections:
        task = _One(mongo.client[database or mongo.database].with_options(codec_options=OPTIONS), one)
        for _ in range(TRIES):
            try:
                with mongo.calling(f"schema of {one.name}"):
                    await task.apply(created, changed, left_over)
                break
            except OperationFailure as error:
                if error.code not in _OVERTAKEN:
                    raise
            except CollectionInvalid:
                pass  # another process was faster
            await asyncio.sleep(PAUSE_S)
        else:
            raise Unavailable(f"other processes change the indexes of {one.name} all the time")
    applied = Applied(tuple(created), tuple(changed), tuple(left_over))
    if applied.created or applied.changed:
        log.info("schema applied", created=applied.created, changed=applied.changed)
    return applied


class _One:
    """One collection."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]], declared: Collection[Any]) -> None:
        self._database = database
        self._declared = declared
        self._collection: AsyncCollection[dict[str, Any]] = database[declared.name]

    async def apply(self, created: dict[str, None], changed: dict[str, None], left_over: dict[str, None]) -> None:
        name = self._declared.name
        validator = {"$jsonSchema": self._declared.schema} if self._declared.schema is not None else {}
        there = [one async for one in await self._database.list_collections(filter={"name": name})]
        if not there:
            await self._database.create_collection(name, validator=validator)
            created[name] = None
        elif there[0].get("options", {}).get("validator", {}) != _stored(validator):
            await self._database.command("collMod", name, validator=validator)
            changed[name] = None
        found: dict[str, Mapping[str, Any]] = {one["name"]: one async for one in await self._collection.list_indexes()}
        for index in self._declared.indexes:
            is_there = found.pop(index.name, None) or _popped(found, index)
            if is_there is None:
                await self._build(_model(index))
                created[f"{name}.{index.name}"] = None
            elif _options(is_there) != _options(_model(index).document):
                await self._change(index, is_there)
                changed[f"{name}.{index.name}"] = None
        left_over.update(dict.fromkeys(f"{name}.{one}" for one in found if one != _ID))

    async def _change(self, index: Index, found: Mapping[str, Any]) -> None:
        wanted = _model(index).document
        if EXPIRY in found and EXPIRY in wanted and _options(found, EXPIRY) == _options(wanted, EXPIRY):
            change = {"name": found["name"], EXPIRY: wanted[EXPIRY]}
            await self._database.command("collMod", self._declared.name, index=change)
            return
        await self._collection.drop_index(found["name"])
        try:
            await self._build(_model(index))
        except DuplicateKeyError:
            kept = {name: value for name, value in found.items() if name not in ("v", "key", "ns")}
            await self._build(IndexModel([*found["key"].items()], **kept))  # better the old one than none
            raise

    async def _build(self, index: IndexModel) -> None:
        with pymongo.timeout(BUILD_WITHIN_S):
            await self._collection.create_indexes([index])


def _popped(found: dict[str, Mapping[str, Any]], index: Index) -> Mapping[str, Any] | None:
    """The same index under another name, taken out of what was found: MongoDB has no second one beside it."""
    wanted = _options(_model(index).document, EXPIRY)
    same = next((name for name, one in found.items() if _options(one, EXPIRY) == wanted), None)
    return None if same is None else found.pop(same)


def _model(index: Index) -> IndexModel:
    options: dict[str, Any] = {"name": index.name}
    if index.unique:
        options["unique"] = True
    if index.only is not None:
        options["partialFilterExpression"] = dict(index.only)
    if index.expires_after is not None:
        options[EXPIRY] = round(index.expires_after.total_seconds())
    return IndexModel(path_of(index.keys), **options)


def _options(index: Mapping[str, Any], *but: str) -> dict[str, Any]:
    """What makes an index what it is; the order of its keys does."""
    kept = {name: index[name] for name in ("unique", "partialFilterExpression", EXPIRY) if name in index}
    stored = {name: value for name, value in _stored(kept).items() if name not in but}
    return {**stored, "key": [*index["key"].items()]}


def _stored(declared: Mapping[str, Any]) -> dict[str, Any]:
    """As MongoDB gives it back: lists instead of tuples."""
    return bson.decode(bson.encode(declared, codec_options=OPTIONS), OPTIONS)
