"""One contract for every store of the audit's records and seals: those in memory and those in MongoDB."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from showcase.audit.application.ports import Added, Entry, Message, SealedAlready, Seals, Store
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import FIRST, Seal, leaf
from showcase.audit.infrastructure.content import content_of
from showcase.audit.infrastructure.records import RECORDS, SEALS, MongoSeals, MongoStore
from showcase.documents.wiring import apply, mongo
from showcase.platform.resources import Resources
from tests.documents_others import closes_late
from tests.fakes import MemoryAuditStore, MemorySeals, settings_of
from tests.unit.test_audit import envelope, record_of_change
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]

RECORD = record_of_change(
    envelope(
        "u",
        before={"status": "placed", "total": None, "tags": ["x", {"y": 1}]},
        after={"status": "paid ✓", "total": 2**60, "tags": []},
    )
)
MESSAGE = Message(topic="t", partition=0, offset=7, key=b"k", value=b"v")


@pytest.fixture
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, stack.namespace() as names:
        yield names


@pytest.fixture
async def resources(names: Namespace) -> AsyncIterator[Resources]:
    async with Resources(settings_of(names.env)) as resources:
        yield resources


@pytest.fixture
def database(names: Namespace) -> Iterator[Database[dict[str, Any]]]:
    """A person with mongosh."""
    with MongoClient[dict[str, Any]](names.mongo_url, tz_aware=True) as client:
        yield client.get_default_database()


@pytest.fixture
def in_mongo(resources: Resources) -> Store:
    return MongoStore(mongo(resources, "audit_mongo_url"))


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryAuditStore()
    in_mongo: Store = request.getfixturevalue("in_mongo")
    return in_mongo


@pytest.fixture(params=["memory", "mongo"])
def seals(request: pytest.FixtureRequest) -> Seals:
    if request.param == "memory":
        return MemorySeals()
    return MongoSeals(mongo(request.getfixturevalue("resources"), "audit_mongo_url"))


def entry(record: Record, offset: int = 7) -> Entry:
    content = content_of(record)
    return Entry(replace(MESSAGE, offset=offset), record.id, content, leaf(content))


def entries(count: int, **changes: Any) -> list[Entry]:
    """Some records of one entity, in their order."""
    return [entry(replace(RECORD, id=f"{number:04}", **changes), number) for number in range(count)]


async def test_record_is_kept_and_its_bytes_come_back_as_they_were(
    in_mongo: Store, database: Database[dict[str, Any]]
) -> None:
    await in_mongo.add([entry(RECORD)])

    (stored,) = database["audit_records"].find()
    assert (stored["topic"], stored["partition"], stored["offset"]) == ("t", 0, 7)
    assert await in_mongo.add([entry(RECORD)]) == Added(0, {}, {})  # compared with what is stored


async def test_record_that_is_there_stays_as_it_is_and_what_is_told_otherwise_of_it_is_said(store: Store) -> None:
    assert await store.add(entries(3)) == Added(3, {}, {})

    other = entries(5, transaction="another")

    assert await store.add(other) == Added(2, {}, {at: one.content for at, one in enumerate(entries(3))})
    assert await store.add(other) == Added(0, {}, {at: one.content for at, one in enumerate(entries(3))})


async def test_the_same_record_twice_in_one_call_is_one(store: Store) -> None:
    assert await store.add([entry(RECORD), entry(RECORD, 8)]) == Added(1, {}, {})


async def test_nothing_to_keep_is_nothing_kept(store: Store) -> None:
    assert await store.add([]) == Added(0, {}, {})


async def test_two_who_add_the_same_records_at_once_add_them_once(store: Store) -> None:
    added = await asyncio.gather(*(store.add(entries(200)) for _ in range(4)))

    assert sum(one.new for one in added) == 200
    assert not any(one.refused or one.other for one in added)


async def test_record_that_a_validator_refuses_is_named_and_the_others_are_kept(
    in_mongo: Store, database: Database[dict[str, Any]]
) -> None:
    database.create_collection("audit_records", validator={"offset": {"$gt": 0}})

    added = await in_mongo.add(entries(3))

    assert (added.new, list(added.refused)) == (2, [0])
    assert "validation" in added.refused[0]


async def test_refusal_of_mongo_that_nobody_understands_is_an_error(
    in_mongo: Store, database: Database[dict[str, Any]]
) -> None:
    index = ["change.before.tags", "change.key.tags"]  # MongoDB takes no two lists in one index
    database["audit_records"].create_index(index)

    with pytest.raises(RuntimeError, match="171"):
        await in_mongo.add([entry(replace(RECORD, key={"tags": [1]}))])


async def test_writer_may_insert_and_read_and_nothing_else(
    in_mongo: Store, resources: Resources, names: Namespace
) -> None:
    await apply(resources, RECORDS, SEALS)
    await in_mongo.add([entry(RECORD)])

    with MongoClient[Mapping[str, Any]](names.env["SHOWCASE_AUDIT_MONGO_URL"]) as client:
        written = client.get_default_database()
        for name in ("audit_records", "audit_seals"):
            kept = written[name]
            list(kept.find())
            for forbidden in (
                lambda kept: kept.update_one({}, {"$set": {"offset": 8}}),
                lambda kept: kept.delete_one({}),
                lambda kept: kept.drop(),
                lambda kept: kept.create_index("recorded_at", expireAfterSeconds=1),
                lambda kept: list(kept.aggregate([{"$out": "audit_seals"}])),
                lambda kept: kept.rename("others"),
            ):
                with pytest.raises(OperationFailure, match="not authorized"):
                    forbidden(kept)
        with pytest.raises(OperationFailure, match="not authorized"):
            written["others"].insert_one({})


def seal(first: int = 0, next_: int = 3, previous: str = FIRST, **changes: Any) -> Seal:
    some = entries(next_ - first)
    made = Seal(
        topic="t",
        partition=0,
        first=first,
        next=next_,
        ids=tuple(one.id for one in some),
        leaves=tuple(one.leaf for one in some),
        lost=0,
        previous=previous,
    )
    return replace(made, **changes)


async def test_newest_seal_of_a_partition_comes_back_as_it_was_added(seals: Seals) -> None:
    first = seal()
    second = seal(3, 12, first.hash)
    for one in (first, second, seal(partition=1), seal(100, 101, topic="u")):
        await seals.add(one)

    assert await seals.newest("t", 0) == second
    assert await seals.newest("t", 1) == seal(partition=1)
    assert await seals.newest("t", 2) is None


async def test_of_two_who_seal_from_the_same_offset_on_one_loses(seals: Seals) -> None:
    kept = await asyncio.gather(*(seals.add(seal(0, number)) for number in range(1, 9)), return_exceptions=True)

    assert sorted(type(one).__name__ for one in kept) == ["NoneType", *["SealedAlready"] * 7]
    newest = await seals.newest("t", 0)
    assert newest is not None
    assert newest.next - 1 == [type(one) for one in kept].index(type(None))


async def test_seal_that_is_there_already_is_no_loss_if_it_is_ours(resources: Resources) -> None:
    in_mongo = MongoSeals(mongo(resources, "audit_mongo_url"))
    await in_mongo.add(seal())

    await in_mongo.add(seal())

    with pytest.raises(SealedAlready):
        await in_mongo.add(seal(0, 2))
