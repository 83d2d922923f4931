"""One contract for every store of the audit and its dead letters: those in memory and those in MongoDB."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from showcase.audit.application import DeadLetters, Letter, Message, Store, Unstorable
from showcase.audit.domain import Record
from showcase.audit.infrastructure import MongoDeadLetters, MongoStore
from showcase.kernel.changes import Operation
from showcase.platform.resources import Document, Resources
from tests.fakes import MemoryAuditStore, MemoryDeadLetters, settings_of
from workshop.stack import Stack

pytestmark = pytest.mark.anyio

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
async def mongo() -> AsyncIterator[AsyncDatabase[Document]]:
    with Stack.attach() as stack, stack.namespace() as names:
        async with Resources(settings_of(names.env)) as resources:
            yield resources.mongo


@pytest.fixture(params=["memory", "mongo"])
def store(request: pytest.FixtureRequest) -> Store:
    return MemoryAuditStore() if request.param == "memory" else MongoStore(request.getfixturevalue("mongo"))


def records(count: int, **changes: object) -> list[Record]:
    """Some records of one entity, in their order."""
    return [replace(RECORD, id=f"{number:04}", lsn=number, **changes) for number in range(count)]  # type: ignore[arg-type]  # fields by name


async def test_record_comes_back_as_it_was_added(store: Store) -> None:
    await store.add([RECORD])

    assert list(await store.timeline("orders", "a")) == [RECORD]


async def test_record_that_is_there_stays_as_it_is_and_does_not_count(store: Store) -> None:
    assert await store.add(records(3)) == 3
    assert await store.add(records(5, transaction="another")) == 2

    assert [record.transaction for record in await store.timeline("orders", "a")] == ["77"] * 3 + ["another"] * 2


async def test_the_same_record_twice_in_one_call_is_one(store: Store) -> None:
    assert await store.add([RECORD, RECORD]) == 1


async def test_two_who_add_the_same_records_at_once_add_them_once(store: Store) -> None:
    new = await asyncio.gather(*(store.add(records(200)) for _ in range(4)))

    assert sum(new) == 200
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
    "row", [{"n": 2**63}, {"a\x00b": 1}, {"text": "\ud800"}], ids=["too large", "NUL in a name", "surrogate"]
)
async def test_mongo_keeps_none_of_a_batch_with_a_record_that_it_can_never_take(
    mongo: AsyncDatabase[Document], row: dict[str, object]
) -> None:
    store = MongoStore(mongo)

    with pytest.raises(Unstorable):
        await store.add([*records(2), replace(RECORD, after=row)])

    assert await store.timeline("orders", "a") == []


async def test_refusal_of_mongo_that_is_no_duplicate_is_an_error(mongo: AsyncDatabase[Document]) -> None:
    await mongo.create_collection("audit_records", validator={"lsn": {"$gt": 0}})

    with pytest.raises(BulkWriteError):
        await MongoStore(mongo).add(records(2))


async def test_index_can_be_made_again_and_timelines_are_read_by_it(mongo: AsyncDatabase[Document]) -> None:
    store = MongoStore(mongo)
    for _ in range(2):
        await store.prepare()
    await store.add(records(10))

    wanted = {"entity_type": "orders", "entity_id": "a"}
    plan = await mongo["audit_records"].find(wanted, sort=["lsn", "step", "_id"]).explain()

    assert "'timeline'" in str(plan["queryPlanner"]["winningPlan"])
    assert "SORT" not in str(plan["queryPlanner"]["winningPlan"])


Kept = Callable[[], Awaitable[list[tuple[object, ...]]]]


@pytest.fixture(params=["memory", "mongo"])
def dead_letters(request: pytest.FixtureRequest) -> tuple[DeadLetters, Kept]:
    """The adapter, and a look at what is in it."""
    if request.param == "memory":
        memory = MemoryDeadLetters()

        async def in_memory() -> list[tuple[object, ...]]:
            return [(one.message.offset, one.message.value, one.reason) for one in memory.letters.values()]

        return memory, in_memory
    mongo: AsyncDatabase[Document] = request.getfixturevalue("mongo")

    async def in_mongo() -> list[tuple[object, ...]]:
        found = mongo["audit_dead_letters"].find(sort=["_id"])
        return [(document["offset"], document["value"], document["reason"]) async for document in found]

    return MongoDeadLetters(mongo), in_mongo


async def test_dead_letter_of_one_place_is_kept_once_with_bytes_and_reason(
    dead_letters: tuple[DeadLetters, Kept],
) -> None:
    adapter, kept = dead_letters
    message = Message(topic="t", partition=0, offset=7, key=None, value=b"\xff\x00{")
    letters = [Letter(message, "no JSON"), Letter(replace(message, offset=8), "no JSON")]

    for some in (letters, letters[:1]):
        await adapter.add(some)

    assert await kept() == [(7, b"\xff\x00{", "no JSON"), (8, b"\xff\x00{", "no JSON")]
