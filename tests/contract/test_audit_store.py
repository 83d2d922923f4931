"""One contract for every store of the audit and its dead letters: those in memory and those in MongoDB."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from showcase.audit.application import Added, DeadLetters, Letter, Message, Store
from showcase.audit.domain import Record
from showcase.audit.infrastructure import (
    LETTERS,
    MAX_VALUE_BYTES,
    RECORDS,
    DocumentDeadLetters,
    DocumentStore,
)
from showcase.documents.wiring import apply, repository
from showcase.kernel.changes import Operation
from showcase.platform.resources import Resources
from tests.documents_others import closes_late
from tests.fakes import MemoryAuditStore, MemoryDeadLetters, settings_of
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]

RECORD = Record(
    id="00",
    entity_type="orders",
    entity_id="a",
    operation=Operation.UPDATE,
    before={"status": "placed", "total": None, "tags": ["x", {"y": 1}]},
    after={"status": "paid ✓", "total": 2**60, "tags": []},
    changed=("status", "tags", "total"),
    committed_at=datetime(2026, 1, 2, 3, 4, 5, 678_000, UTC),
    lsn=2**62 + 1,
    transaction="77",
)


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
    return DocumentStore(repository(resources, RECORDS))


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "memory":
        return MemoryAuditStore()
    in_mongo: Store = request.getfixturevalue("in_mongo")
    return in_mongo


def records(count: int, **changes: object) -> list[Record]:
    """Some records of one entity, in their order."""
    return [replace(RECORD, id=f"{number:04}", lsn=number, **changes) for number in range(count)]  # type: ignore[arg-type]  # fields by name


async def test_record_comes_back_as_it_was_added(store: Store) -> None:
    await store.add([RECORD])

    assert list(await store.timeline("orders", "a")) == [RECORD]


async def test_record_that_is_there_stays_as_it_is_and_does_not_count(store: Store) -> None:
    assert await store.add(records(3)) == Added(3, {})
    assert await store.add(records(5, transaction="another")) == Added(2, {})

    assert [record.transaction for record in await store.timeline("orders", "a")] == ["77"] * 3 + ["another"] * 2


async def test_the_same_record_twice_in_one_call_is_one(store: Store) -> None:
    assert await store.add([RECORD, RECORD]) == Added(1, {})


async def test_two_who_add_the_same_records_at_once_add_them_once(store: Store) -> None:
    added = await asyncio.gather(*(store.add(records(200)) for _ in range(4)))

    assert sum(one.new for one in added) == 200
    assert len(await store.timeline("orders", "a", limit=500)) == 200


async def test_timeline_is_of_one_entity_by_place_whatever_the_order_of_adding(store: Store) -> None:
    read = replace(RECORD, id="ff", lsn=3, operation=Operation.READ)
    tied = [replace(RECORD, id=id_, lsn=3) for id_ in ("01", "02")]
    last = replace(RECORD, id="00", lsn=4)
    await store.add([last, tied[1], read])
    await store.add([tied[0], replace(RECORD, id="o1", entity_id="b"), replace(RECORD, id="o2", entity_type="lines")])

    assert list(await store.timeline("orders", "a")) == [read, *tied, last]


async def test_pages_begin_after_a_place_and_have_all_records_once(store: Store) -> None:
    tied = [replace(RECORD, id=f"t{number}", lsn=3) for number in range(4)]
    read = replace(RECORD, id="zz", lsn=3, operation=Operation.READ)
    every = sorted([*records(6), *tied, read], key=lambda record: record.place)
    await store.add(every)

    seen: list[Record] = []
    while page := await store.timeline("orders", "a", seen[-1].place if seen else None, 2):
        assert len(page) <= 2
        seen += page

    assert seen == every


@pytest.mark.parametrize(
    "row",
    [{"n": 2**63}, {"a\x00b": 1}, {"text": "\ud800"}, {"\ud800": 1}, {"text": "x" * 2**24}],
    ids=["too large a number", "NUL in a name", "surrogate", "surrogate in a name", "16 MB"],
)
async def test_mongo_keeps_all_of_a_batch_but_the_record_that_it_can_never_take_and_names_that_one(
    in_mongo: Store, row: dict[str, object]
) -> None:
    first, last = records(2)

    added = await in_mongo.add([first, replace(RECORD, after=row), last])

    assert (added.new, list(added.refused)) == (2, [1])
    assert RECORD.id in added.refused[1]
    assert len(added.refused[1]) < 1_000
    assert list(await in_mongo.timeline("orders", "a")) == [first, last]


async def test_record_that_a_validator_refuses_is_named_and_the_others_are_kept(
    in_mongo: Store, database: Database[dict[str, Any]]
) -> None:
    database.create_collection("audit_records", validator={"lsn": {"$gt": 0}})

    added = await in_mongo.add(records(3))

    assert (added.new, list(added.refused)) == (2, [0])
    assert "validator" in added.refused[0]


async def test_refusal_of_mongo_that_nobody_understands_is_an_error(
    in_mongo: Store, database: Database[dict[str, Any]]
) -> None:
    database["audit_records"].create_index(["before.tags", "after.tags"])  # MongoDB takes no two lists in one index

    with pytest.raises(RuntimeError, match="171"):
        await in_mongo.add([RECORD])


async def test_index_can_be_made_again_and_timelines_are_read_by_it(
    in_mongo: Store, resources: Resources, database: Database[dict[str, Any]]
) -> None:
    applied = [await apply(resources, RECORDS, LETTERS) for _ in range(2)]
    await in_mongo.add(records(10))

    wanted = {"entity_type": "orders", "entity_id": "a"}
    plan = str(database["audit_records"].find(wanted, sort=["lsn", "step", "_id"]).explain()["queryPlanner"])

    (index,) = RECORDS.indexes
    assert applied[0].created == ("audit_records", f"audit_records.{index.name}", "audit_dead_letters")
    assert (applied[1].created, applied[1].changed) == ((), ())
    assert f"'{index.name}'" in plan
    assert "'SORT'" not in plan


async def test_a_page_of_a_timeline_is_read_by_the_index_from_where_it_begins(
    resources: Resources, in_mongo: Store, database: Database[dict[str, Any]]
) -> None:
    await apply(resources, RECORDS)
    await in_mongo.add(records(500))
    database.command("profile", 2)

    assert len(await in_mongo.timeline("orders", "a", records(400)[-1].place, 10)) == 10

    (profiled,) = database["system.profile"].find({"op": "query", "command.find": "audit_records"})
    assert profiled["docsExamined"] <= 20


Kept = Callable[[], Awaitable[list[tuple[object, ...]]]]


@pytest.fixture(params=["memory", "mongo"])
def dead_letters(request: pytest.FixtureRequest) -> tuple[DeadLetters, Kept]:
    """The adapter, and a look at what is in it."""
    if request.param == "memory":
        memory = MemoryDeadLetters()

        async def in_memory() -> list[tuple[object, ...]]:
            return [(one.message.offset, one.message.value, one.reason) for one in memory.letters.values()]

        return memory, in_memory
    database: Database[dict[str, Any]] = request.getfixturevalue("database")

    async def in_mongo() -> list[tuple[object, ...]]:
        return [(one["offset"], one["value"], one["reason"]) for one in kept(database)]

    return DocumentDeadLetters(repository(request.getfixturevalue("resources"), LETTERS)), in_mongo


def kept(database: Database[dict[str, Any]]) -> list[dict[str, Any]]:
    """The dead letters that are in MongoDB."""
    return list(database["audit_dead_letters"].find(sort=["_id"]))


async def test_dead_letter_of_one_place_is_kept_once_with_bytes_and_reason(
    dead_letters: tuple[DeadLetters, Kept],
) -> None:
    adapter, kept = dead_letters
    message = Message(topic="t", partition=0, offset=7, key=None, value=b"\xff\x00{")
    letters = [Letter(message, "no JSON"), Letter(replace(message, offset=8), "no JSON")]

    for some in (letters, letters[:1]):
        await adapter.add(some)

    assert await kept() == [(7, b"\xff\x00{", "no JSON"), (8, b"\xff\x00{", "no JSON")]


MESSAGE = Message(topic="t", partition=0, offset=7, key=b"k", value=b"v")


@pytest.fixture
def letters_in_mongo(resources: Resources) -> DeadLetters:
    return DocumentDeadLetters(repository(resources, LETTERS))


@pytest.mark.parametrize("size", [MAX_VALUE_BYTES, MAX_VALUE_BYTES + 1, 2**24, 2**24 + 1])
async def test_dead_letter_that_mongo_cannot_take_keeps_its_reason_without_the_value(
    letters_in_mongo: DeadLetters, database: Database[dict[str, Any]], size: int
) -> None:
    small = replace(MESSAGE, offset=8)

    await letters_in_mongo.add([Letter(replace(MESSAGE, value=bytes(size)), "no JSON"), Letter(small, "no JSON")])

    large, other = kept(database)
    assert (other["offset"], other["value"]) == (8, b"v")
    assert (large["offset"], large["key"]) == (7, b"k")
    if size <= MAX_VALUE_BYTES:
        assert (len(large["value"]), large["reason"]) == (size, "no JSON")
    else:
        assert (large["value"], large["reason"]) == (None, f"no JSON; its {size:,} bytes are in the topic only")


async def test_reason_with_lone_surrogates_is_kept(
    letters_in_mongo: DeadLetters, database: Database[dict[str, Any]]
) -> None:
    await letters_in_mongo.add([Letter(MESSAGE, "what \ud800 is this ✓")])

    assert [one["reason"] for one in kept(database)] == ["what \\ud800 is this ✓"]
