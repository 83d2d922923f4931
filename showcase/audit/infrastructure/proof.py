"""Records and seals in bulk, for whoever verifies them: read as bytes, taken apart no further than is needed."""

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from struct import Struct
from typing import Any, TypeGuard

import bson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument

from showcase.audit.application.books import Kept, Look, Partition, Run, Stray
from showcase.audit.application.proving import Opened
from showcase.audit.domain.anchors import Head
from showcase.audit.domain.records import record_id
from showcase.audit.domain.seals import Seal
from showcase.audit.infrastructure.records import HASH_BYTES, RECORDS, SEALS, seal_of
from showcase.documents import Index
from showcase.documents.infrastructure.mongo import Mongo, path_of
from showcase.kernel.changes import Operation
from showcase.kernel.errors import Conflict

PLACES = next(index for index in RECORDS.indexes if index.keys == ("topic", "partition", "offset"))
CHAINS = next(index for index in SEALS.indexes if index.keys == ("topic", "partition", "first"))
BATCH = 10_000
SEALS_BATCH = 20
PLAIN: Any = CodecOptions(
    tz_aware=True, unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_CLAMP
)
"""Whatever an intruder has put there, it is read: not to be readable would be a place to hide."""
AROUND = {"topic", "partition", "offset", "recorded_at", "version"}
"""What a record has besides its id and its content, after them and each once."""
WHOLE = (int, bson.Int64)
"""A truth value is a whole number to Python, and no offset."""
NO_LEAF = b""
"""Of what is not written as we write it: it is the leaf of no content."""
_INT32 = Struct("<i")
_ID, _CHANGE = b"\x02_id\x00", b"\x03change\x00"


class NotIndexed(Conflict):
    """An index that finds every record is not there, or not as it was made."""


class MongoBooks:
    """See `application.books.Books`."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def records(self, topic: str | None) -> AsyncIterator[Run | Stray]:
        """Raises NotIndexed, Unavailable."""
        await self._check(RECORDS.name, PLACES)
        path = path_of(PLACES.keys)
        with self._mongo.calling("verifying records") as session:
            batches = self._mongo.collection(RECORDS.name).find_raw_batches(
                _of(topic), sort=path, hint=path, batch_size=BATCH, **session
            )
        coming = asyncio.ensure_future(self._next(batches))
        try:
            while (batch := await coming) is not None:
                coming = asyncio.ensure_future(self._next(batches))
                await asyncio.sleep(0)  # it is asked for now: the server reads while this one is taken apart
                for run in runs_of(batch):
                    yield run
        finally:
            coming.cancel()
            await asyncio.wait([coming])
            await batches.close()

    async def _next(self, batches: Any) -> bytes | None:
        with self._mongo.calling("verifying records"):
            batch: bytes | None = await anext(batches, None)
            return batch

    async def seals(self, topic: str | None) -> AsyncIterator[Kept]:
        """Raises NotIndexed, Unavailable."""
        await self._check(SEALS.name, CHAINS)
        path = path_of(CHAINS.keys)
        with self._mongo.calling("verifying seals") as session:
            batches = self._mongo.collection(SEALS.name).find_raw_batches(
                _of(topic), sort=path, hint=path, batch_size=SEALS_BATCH, **session
            )
        try:
            while True:
                with self._mongo.calling("verifying seals"):
                    batch: Any = await anext(batches, None)  # bytes, whatever the driver's types say
                if batch is None:
                    return
                for document in bson.decode_all(batch, PLAIN):
                    yield kept_of(document)
        finally:
            await batches.close()

    async def look(self, ids: Sequence[str]) -> Mapping[str, Look]:
        if not ids:
            return {}
        with self._mongo.calling("looking at records") as session:
            found = self._mongo.collection(RECORDS.name).find({"_id": {"$in": list(ids)}}, **session)
            return {document["_id"]: look_of(bytes(document.raw)) async for document in found}

    async def content(self, id_: str) -> tuple[Look, bytes] | None:
        """A record, and its bytes."""
        with self._mongo.calling("looking at a record") as session:
            found = await self._mongo.collection(RECORDS.name).find_one({"_id": id_}, **session)
        if found is None:
            return None
        return look_of(bytes(found.raw)), content_in(bytes(found.raw))

    async def covering(self, partition: Partition, offset: int) -> Seal | None:
        topic, number = partition
        wanted = {"topic": topic, "partition": number, "first": {"$lte": offset}}
        with self._mongo.calling("looking at seals") as session:
            found = await self._mongo.collection(SEALS.name).find_one(wanted, sort=[("first", -1)], **session)
        seal = None if found is None else kept_of(bson.decode(found.raw, PLAIN)).seal
        return seal if seal is not None and offset < seal.next else None

    async def chain(self, partition: Partition, first: int, last: int, limit: int) -> list[Seal]:
        """The seals of a partition whose first offset lies between two, both included."""
        wanted = {"topic": partition[0], "partition": partition[1], "first": {"$gte": first, "$lte": last}}
        with self._mongo.calling("reading a chain of seals") as session:
            found = self._mongo.collection(SEALS.name).find(wanted, sort=[("first", 1)], limit=limit, **session)
            seals = [kept_of(bson.decode(document.raw, PLAIN)).seal async for document in found]
        return [seal for seal in seals if seal is not None]

    async def heads(self, ids: Sequence[str]) -> Mapping[str, tuple[int, str]]:
        if not ids:
            return {}
        fields = {"next": 1, "hash": 1}
        with self._mongo.calling("looking at seals") as session:
            found = self._mongo.collection(SEALS.name).find({"_id": {"$in": list(ids)}}, fields, **session)
            return {document["_id"]: (document["next"], document["hash"]) async for document in found}

    async def newest(self) -> list[Head]:
        """See `application.anchoring.Heads`. One step of the index a partition, from the last one to the first."""
        heads: list[Head] = []
        path = path_of(["-topic", "-partition", "-first"])
        before: dict[str, Any] = {}
        fields = {"topic": 1, "partition": 1, "first": 1, "next": 1, "hash": 1}
        while True:
            with self._mongo.calling("reading the newest seals") as session:
                found = await self._mongo.collection(SEALS.name).find_one(before, fields, sort=path, **session)
            if found is None:
                return sorted(heads)
            topic, number = found["topic"], found["partition"]
            heads.append(
                Head(topic=topic, partition=number, first=found["first"], next=found["next"], hash=found["hash"])
            )
            before = {"$or": [{"topic": topic, "partition": {"$lt": number}}, {"topic": {"$lt": topic}}]}

    async def _check(self, collection: str, index: Index) -> None:
        """An index that leaves something out would hide it."""
        with self._mongo.calling("looking at indexes") as session:
            there = await self._mongo.collection(collection).index_information(**session)
        found = there.get(index.name, {})
        known = {"v", "key", "unique", "ns", "background"}
        if list(found.get("key", [])) != path_of(index.keys) or found.keys() - known:
            raise NotIndexed(
                f"{collection}: the index {index.name} is not there, or not as it was made: drop what has its name, and"
                " make it with `showcase documents apply`"
            )


def _of(topic: str | None) -> dict[str, Any]:
    return {} if topic is None else {"topic": topic}


def runs_of(batch: bytes) -> Iterator[Run | Stray]:
    """The records in some BSON documents that lie one after the other, as few pieces as there are partitions."""
    run: Run | None = None
    offsets: list[int] = []
    ids: list[str] = []
    leaves: list[bytes] = []
    times: list[datetime | None] = []
    here: Partition | None = None
    for id_, leaf, around in _taken_apart(batch):
        partition, offset = _place(around)
        if offset is None:
            if run is not None:
                yield run
                run = here = None
            yield Stray(partition, -1, id_)
            continue
        if partition != here or run is None:
            if run is not None:
                yield run
            here, offsets, ids, leaves, times = partition, [], [], [], []
            run = Run(partition, offsets, ids, leaves, times)
        offsets.append(offset)
        ids.append(id_)
        leaves.append(leaf)
        at = around.get("recorded_at")
        times.append(at if isinstance(at, datetime) else None)
    if run is not None:
        yield run


def _taken_apart(batch: bytes) -> Iterator[tuple[str, bytes, Mapping[str, Any]]]:
    """Of each document its id, its leaf, and what is around them.

    One that is not written as `MongoStore` writes it, `_id` and `change` first and nothing twice, has no leaf: of
    two fields of one name each reader could take another.
    """
    sha256, decode, encode, pack, size_at = hashlib.sha256, bson.decode, bson.encode, _INT32.pack, _INT32.unpack_from
    at = 0
    while at < len(batch):
        end = at + size_at(batch, at)[0]
        if batch.startswith(_ID, at + 4):
            change = at + 13 + size_at(batch, at + 9)[0]
            if batch.startswith(_CHANGE, change):
                content = change + 8
                rest = content + size_at(batch, content)[0]
                written = pack(end - rest + 4) + batch[rest:end]
                around: Mapping[str, Any] = decode(written, PLAIN)
                if around.keys() == AROUND and encode(around) == written:  # a field that is there twice makes it longer
                    id_ = batch[at + 13 : change - 1].decode(errors="replace")
                    yield id_, sha256(b"\x00" + batch[content:rest]).digest(), around
                    at = end
                    continue
        document: Mapping[str, Any] = decode(batch[at:end], PLAIN)
        named = document.get("_id")
        yield named if isinstance(named, str) else repr(named), NO_LEAF, document
        at = end


def _place(around: Mapping[str, Any]) -> tuple[Partition, int | None]:
    topic, number, offset = around.get("topic"), around.get("partition"), around.get("offset")
    if isinstance(topic, str) and _is_whole(number) and _is_whole(offset):
        return (topic, int(number)), int(offset)
    return (topic if isinstance(topic, str) else "", int(number) if _is_whole(number) else -1), None


def _is_whole(number: object) -> TypeGuard[int]:
    return type(number) in WHOLE


def look_of(document: bytes) -> Look:
    """What can be told of one record."""
    ((_, leaf, around),) = _taken_apart(document)
    partition, offset = _place(around)
    own, entity = told(content_in(document))
    return Look(partition if offset is not None else None, -1 if offset is None else offset, leaf, own, entity)


def content_in(document: bytes) -> bytes:
    """The bytes that a record hashes; none if it has no content."""
    raw = RawBSONDocument(document, CodecOptions(document_class=RawBSONDocument)).get("change")
    return bytes(raw.raw) if isinstance(raw, RawBSONDocument) else b""


def opened(content: bytes) -> Opened:
    """See `application.proving.Open`: canonical extended JSON, from which the very same bytes can be made."""
    own, entity = told(content)
    try:
        said = json_util.dumps(bson.decode(content, PLAIN), json_options=json_util.CANONICAL_JSON_OPTIONS)
    except BSONError as error:
        raise ValueError(f"no content: {error}") from error
    return Opened(own, entity, json.loads(said))


def told(content: bytes) -> tuple[str, str]:
    """The id under which some content is to stand, and its entity; nothing if it is none of ours."""
    try:
        said = bson.decode(content, PLAIN)
        own = record_id(
            source=said["source"],
            epoch=said["epoch"],
            table=said["entity_type"],
            key=said["key"],
            operation=Operation(said["operation"]),
            position=said["position"],
        )
        return own, f"{said['entity_type']}/{said['entity_id']}"
    except (BSONError, ValueError, TypeError, KeyError):
        return "", ""


def kept_of(document: Mapping[str, Any]) -> Kept:
    """A seal, as far as it can be read."""
    topic, number, first = document.get("topic"), document.get("partition"), document.get("first")
    return Kept(
        id=str(document.get("_id")),
        partition=(topic if isinstance(topic, str) else "", int(number) if _is_whole(number) else -1),
        first=int(first) if _is_whole(first) else -1,
        seal=_seal_in(document),
        root=str(document.get("root")),
        hash=str(document.get("hash")),
    )


def _seal_in(document: Mapping[str, Any]) -> Seal | None:
    try:
        seal = seal_of(document)
        numbers = seal.partition, seal.first, seal.next, seal.lost
        texts = seal.topic, seal.previous, *seal.ids
        is_whole = all(map(_is_whole, numbers)) and all(isinstance(one, str) for one in texts)
        fits = isinstance(document["ids"], list) and len(document["leaves"]) == HASH_BYTES * len(seal.ids)
    except (TypeError, KeyError, ValueError, AttributeError):
        return None
    return seal if is_whole and fits else None
