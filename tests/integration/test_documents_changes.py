"""Change streams whose reader is killed, whose server goes away, and whose history is lost: no change is missed.

The server is of its own: it is killed, and told to fail.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

import pytest
from pymongo.database import Database
from pymongo.errors import OperationFailure

from showcase.documents import Changed, HistoryLost, Insert
from showcase.documents.infrastructure.changes import PLACES, following, forget
from showcase.documents.infrastructure.mongo import Mongo
from showcase.documents.infrastructure.repository import MongoRepository
from tests.documents_others import NOTES, Note, closes_late, connected, failing, killed, mongosh, other
from tests.fakes import until
from tests.integration.system import wait_for
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
CHANGES = 2_000
SAVE_EVERY = 50
BATCH = 20


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["mongo"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


@pytest.fixture
def database(names: Namespace) -> Iterator[Database[dict[str, Any]]]:
    with mongosh(names.mongo_url) as database:
        yield database


@pytest.fixture
async def mongo(names: Namespace) -> AsyncIterator[Mongo]:
    async with connected(names.mongo_url) as mongo:
        yield mongo


def insert(database: Database[dict[str, Any]], *ids: int) -> None:
    database["notes"].insert_many([{"_id": one, "version": 1, "words": str(one)} for one in ids])


async def some(changes: AsyncIterator[Changed[Note]], count: int) -> list[object]:
    """The ids of the next changes."""
    return [(await asyncio.wait_for(anext(changes), 10)).id for _ in range(count)]


def handled(database: Database[dict[str, Any]]) -> Counter[int]:
    return Counter(one["note"] for one in database["handled"].find({}, ["note"]))


def insert_and_wait(database: Database[dict[str, Any]], first: int, last: int) -> None:
    """Insert notes, a few more whenever some are handled, up to one of which the handling has not begun."""
    for number in range(first, last, BATCH):
        insert(database, *range(number, min(number + BATCH, last)))
        wait_for(lambda: database["handled"].count_documents({}) >= number - 4 * BATCH)  # noqa: B023 - in this turn


# -- a reader that is killed


def test_a_reader_that_is_killed_again_and_again_handles_every_change_and_few_of_them_twice(
    names: Namespace, database: Database[dict[str, Any]]
) -> None:
    kills = 4
    step = CHANGES // kills
    for turn in range(kills):
        with other("follow", names.mongo_url, "reader", SAVE_EVERY):
            insert_and_wait(database, turn * step, (turn + 1) * step)  # it is killed with some yet to be handled

    with other("follow", names.mongo_url, "reader", SAVE_EVERY):
        wait_for(lambda: len(handled(database)) == CHANGES)

    seen = handled(database)
    assert sorted(seen) == list(range(CHANGES))
    assert seen.total() - CHANGES <= kills * SAVE_EVERY
    assert len(database["handled"].distinct("by")) == kills + 1


async def test_a_change_in_whose_handling_a_reader_ends_comes_again(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    async def handle(*, fails_at: int) -> list[object]:
        seen: list[object] = []
        async with following(mongo, NOTES, "reader", save_every=1) as changes:
            async for change in changes:
                seen.append(change.id)
                if change.id == fails_at:
                    raise LookupError(seen)
        return seen

    async with following(mongo, NOTES, "reader"):
        pass
    insert(database, 1, 2, 3)

    seen: list[object] = []
    for fails_at in (2, 3):
        with pytest.raises(LookupError) as caught:
            await handle(fails_at=fails_at)
        seen += caught.value.args[0]

    assert seen == [1, 2, 2, 3]


async def test_a_reader_misses_nothing_from_its_first_start_on_although_it_ends_before_the_first_change(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    insert(database, 1)
    async with following(mongo, NOTES, "reader"):
        pass
    insert(database, 2, 3)

    async with following(mongo, NOTES, "reader") as changes:
        assert await some(changes, 2) == [2, 3]


async def test_two_readers_each_handle_every_change(mongo: Mongo, database: Database[dict[str, Any]]) -> None:
    async with following(mongo, NOTES, "one") as one, following(mongo, NOTES, "two") as two:
        insert(database, 1, 2)
        assert [*await asyncio.gather(some(one, 2), some(two, 2))] == [[1, 2], [1, 2]]


async def test_every_kind_of_change_is_told_with_the_document_as_it_is_then(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    notes = MongoRepository(mongo, NOTES)
    async with following(mongo, NOTES, "reader") as changes:
        made = await notes.insert(Note(id=1, words="a"))
        first = await asyncio.wait_for(anext(changes), 10)
        await notes.replace(made.model_copy(update={"words": "b"}))
        second = await asyncio.wait_for(anext(changes), 10)
        database["notes"].replace_one({"_id": 1}, {"_id": 1, "version": 3, "words": "c"})
        third = await asyncio.wait_for(anext(changes), 10)
        await notes.delete(1)
        fourth = await asyncio.wait_for(anext(changes), 10)

    assert first == Changed(kind="insert", id=1, document=Note(id=1, version=1, words="a"))
    assert second == Changed(kind="update", id=1, document=Note(id=1, version=2, words="b"))
    assert third == Changed(kind="replace", id=1, document=Note(id=1, version=3, words="c"))
    assert fourth == Changed(kind="delete", id=1, document=None)


async def test_what_a_transaction_changes_is_told_when_it_is_committed_and_not_before(mongo: Mongo) -> None:
    notes = MongoRepository(mongo, NOTES)
    async with following(mongo, NOTES, "reader") as changes:
        async with mongo.transaction():
            await notes.insert(Note(id=1))
        with suppress(LookupError):
            async with mongo.transaction():
                await notes.insert(Note(id=2))
                raise LookupError
        await notes.insert(Note(id=3))

        assert await some(changes, 2) == [1, 3]


async def test_a_document_that_does_not_fit_comes_as_such_and_the_next_ones_after_it(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    async with following(mongo, NOTES, "reader") as changes:
        database["notes"].insert_one({"_id": 1, "version": 1, "words": ["no", "text"]})
        insert(database, 2)
        first, second = [await asyncio.wait_for(anext(changes), 10) for _ in range(2)]

    assert (first.id, first.document) == (1, None)
    assert first.misfit is not None
    assert "words" in first.misfit.why
    assert (second.id, second.misfit) == (2, None)


async def test_a_reader_to_whom_nothing_happens_saves_its_place_all_the_same(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    def place() -> object:
        found = database[PLACES].find_one({"_id": "reader"})
        return found and found["place"]

    async with following(mongo, NOTES, "reader") as changes:
        before = place()
        idle = asyncio.ensure_future(anext(changes))
        database["others"].insert_one({})

        async def has_moved() -> bool:
            return place() != before

        await until(has_moved)
        assert not idle.done()
        idle.cancel()
        await asyncio.wait([idle])

    assert before is not None


# -- a server that goes away


def test_a_reader_whose_server_is_killed_goes_on_where_it_was(
    private: Stack, names: Namespace, database: Database[dict[str, Any]]
) -> None:
    with other("follow", names.mongo_url, "reader", SAVE_EVERY):
        insert_and_wait(database, 0, 300)
        with killed(private):
            pass
        insert_and_wait(database, 300, 600)
        wait_for(lambda: len(handled(database)) == 600)

    assert sorted(handled(database)) == list(range(600))


# -- a history that is lost


async def follow(mongo: Mongo) -> None:
    """Until there is an error."""
    async with asyncio.timeout(10), following(mongo, NOTES, "reader") as changes:
        while True:
            await anext(changes)


@pytest.mark.parametrize("code", [136, 260, 280, 286])
@pytest.mark.parametrize("command", ["aggregate", "getMore"])
async def test_a_history_that_is_lost_says_the_way_out_and_this_is_it(
    mongo: Mongo, names: Namespace, database: Database[dict[str, Any]], command: str, code: int
) -> None:
    async with following(mongo, NOTES, "reader"):
        pass
    insert(database, 1)

    with (
        failing(names.mongo_url, [command], errorCode=code),
        pytest.raises(HistoryLost, match="forget the place, and build anew"),
    ):
        await follow(mongo)

    await forget(mongo, "reader")
    async with following(mongo, NOTES, "reader") as changes:
        insert(database, 2)
        assert await some(changes, 1) == [2]


async def test_a_place_at_which_nothing_happened_is_of_another_history(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    async with following(mongo, NOTES, "reader", save_every=1) as changes:
        insert(database, 1, 2, 3)
        await some(changes, 2)
    found = database[PLACES].find_one({"_id": "reader"})
    assert found
    place = found["place"]["_data"]
    another = f"{place[:2]}{int(place[2:10], 16) - 1:08X}{place[10:]}"  # after the type comes the time, in seconds
    database[PLACES].update_one({"_id": "reader"}, {"$set": {"place": {"_data": another}}})

    for _ in range(2):
        with pytest.raises(HistoryLost, match="forget the place, and build anew"):
            await follow(mongo)


@pytest.mark.parametrize("how", ["dropped", "renamed"])
async def test_a_collection_that_goes_is_a_lost_history_until_the_place_is_forgotten(
    mongo: Mongo, database: Database[dict[str, Any]], how: str
) -> None:
    insert(database, 1)
    async with following(mongo, NOTES, "reader") as changes:
        insert(database, 2)
        if how == "dropped":
            database["notes"].drop()
        else:
            database["notes"].rename("memos")
        assert await some(changes, 1) == [2]
        with pytest.raises(HistoryLost, match="forget the place, and build anew"):
            await asyncio.wait_for(anext(changes), 10)

    with pytest.raises(HistoryLost):
        await follow(mongo)

    await forget(mongo, "reader")
    async with following(mongo, NOTES, "reader") as changes:
        insert(database, 3)
        assert await some(changes, 1) == [3]


async def test_an_error_that_is_no_loss_is_none(mongo: Mongo, names: Namespace) -> None:
    with failing(names.mongo_url, ["aggregate"], errorCode=13), pytest.raises(OperationFailure):
        await follow(mongo)


async def test_a_reader_of_another_database_of_the_same_client(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    second = f"{database.name}_second"
    notes = MongoRepository(mongo, NOTES, database=second)
    try:
        async with following(mongo, NOTES, "reader", database=second) as changes:
            insert(database, 1)
            assert await notes.bulk([Insert(Note(id=2))]) == [None]
            assert await some(changes, 1) == [2]
        assert database[PLACES].count_documents({}) == 0
        await forget(mongo, "reader", database=second)
        assert database.client[second][PLACES].count_documents({}) == 0
    finally:
        database.client.drop_database(second)
