"""Transactions that meet what MongoDB has in store for them: others in the way, lost answers, deadlines, cancellation.

The server is of its own: it is told to fail.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from pymongo import _csot

from showcase.documents import NestedTransaction, NoSuchDocument, VersionConflict
from showcase.documents.infrastructure.mongo import Mongo
from showcase.documents.infrastructure.repository import MongoRepository
from tests.documents_others import (
    COUNTERS,
    LATER_S,
    NOTES,
    TIMEOUT_S,
    Counter,
    Note,
    closes_late,
    connected,
    failing,
    mongosh,
    unavailable_in_time,
)
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
IN_THE_WAY: dict[str, Any] = {"errorCode": 112, "errorLabels": ["TransientTransactionError"]}
"""WriteConflict."""
LOST: dict[str, dict[str, Any]] = {
    "before it is committed": {"closeConnection": True},
    "after it was committed": {"writeConcernError": {"code": 64, "errmsg": "waiting took too long"}},
    "with the server's own word for it": {"errorCode": 50_000, "errorLabels": ["UnknownTransactionCommitResult"]},
}
Way = Callable[[Mongo, Callable[[], Awaitable[None]]], Awaitable[None]]


async def as_block(mongo: Mongo, work: Callable[[], Awaitable[None]]) -> None:
    async with mongo.transaction():
        await work()


async def as_function(mongo: Mongo, work: Callable[[], Awaitable[None]]) -> None:
    await mongo.in_transaction(work)


ways = pytest.mark.parametrize("way", [as_block, as_function])


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["mongo"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names
        with mongosh(names.mongo_url) as database:  # a commit that never came would hold up the namespace for a minute
            database.client.admin.command("killAllSessions", [])


@pytest.fixture
async def mongo(names: Namespace) -> AsyncIterator[Mongo]:
    async with connected(names.mongo_url) as mongo:
        await MongoRepository(mongo, NOTES).insert(Note(id=0))
        yield mongo


@pytest.fixture
async def patient(names: Namespace) -> AsyncIterator[Mongo]:
    """A client with the time to find its server again, which takes half a second each time."""
    async with connected(names.mongo_url, timeout_s=10.0, select_s=10.0) as mongo:
        await MongoRepository(mongo, NOTES).insert(Note(id=0))
        yield mongo


@pytest.fixture
async def other(names: Namespace) -> AsyncIterator[Mongo]:
    """The client of another process."""
    async with connected(names.mongo_url) as mongo:
        yield mongo


def stored(names: Namespace) -> dict[int, str]:
    """The notes that are there, for whoever looks."""
    with mongosh(names.mongo_url) as database:
        return {one["_id"]: one["words"] for one in database["notes"].find(sort=["_id"])}


class Work:
    """Changes two notes.

    Attributes:
        times: how often it was called.
    """

    def __init__(self, mongo: Mongo) -> None:
        self.times = 0
        self._notes = MongoRepository(mongo, NOTES)

    async def __call__(self) -> None:
        self.times += 1
        await self._notes.insert(Note(id=1, words="new"))
        await self._notes.patch(0, {"words": "changed"})


DONE = {0: "changed", 1: "new"}
UNDONE = {0: ""}


# -- others in the way


@pytest.mark.parametrize("command", ["insert", "findAndModify"])
async def test_a_function_that_meets_another_transaction_is_called_again(
    mongo: Mongo, names: Namespace, command: str
) -> None:
    work = Work(mongo)

    with failing(names.mongo_url, [command], 2, **IN_THE_WAY):
        await mongo.in_transaction(work)

    assert work.times == 3
    assert stored(names) == DONE


async def test_a_block_that_meets_another_transaction_is_unavailable_and_leaves_nothing(
    mongo: Mongo, names: Namespace
) -> None:
    with failing(names.mongo_url, ["findAndModify"], 1, **IN_THE_WAY), unavailable_in_time():
        await as_block(mongo, Work(mongo))

    assert stored(names) == UNDONE


async def test_a_function_that_really_meets_another_transaction_comes_after_it(patient: Mongo, other: Mongo) -> None:
    counters, others = MongoRepository(patient, COUNTERS), MongoRepository(other, COUNTERS)
    await counters.insert(Counter(id="c"))
    has_met = asyncio.Event()
    seen: list[int] = []

    async def add() -> None:
        if seen:
            has_met.set()
            await first
        counter = await counters.get("c")
        seen.append(counter.total)
        await counters.replace(counter.model_copy(update={"total": counter.total + 1}))

    async def hold(is_in_the_way: asyncio.Event) -> None:
        async with other.transaction():
            await others.patch("c", {"total": 10})
            is_in_the_way.set()
            await has_met.wait()

    is_in_the_way = asyncio.Event()
    first = asyncio.create_task(hold(is_in_the_way))
    await is_in_the_way.wait()
    await patient.in_transaction(add)

    assert seen == [0, 10]
    assert (await counters.get("c")).total == 11


async def test_a_block_that_really_meets_another_transaction_is_unavailable(mongo: Mongo, other: Mongo) -> None:
    notes, others = MongoRepository(mongo, NOTES), MongoRepository(other, NOTES)
    async with other.transaction():
        await others.patch(0, {"words": "other"})
        with unavailable_in_time():
            async with mongo.transaction():
                await notes.patch(0, {"words": "mine"})

    assert (await notes.get(0)).words == "other"


async def test_many_functions_that_add_to_one_document_at_once_each_add_once(patient: Mongo) -> None:
    counters = MongoRepository(patient, COUNTERS)
    await counters.insert(Counter(id="c"))

    async def add() -> None:
        counter = await counters.get("c")
        await counters.replace(counter.model_copy(update={"total": counter.total + 1}))

    await asyncio.gather(*(patient.in_transaction(add) for _ in range(10)))

    assert (await counters.get("c")).total == 10


# -- lost answers


@ways
@pytest.mark.parametrize("how", LOST)
async def test_a_commit_whose_answer_is_lost_is_asked_for_again_and_is_made_once(
    patient: Mongo, names: Namespace, how: str, way: Way
) -> None:
    work = Work(patient)

    with failing(names.mongo_url, ["commitTransaction"], 3, **LOST[how]) as server:
        await way(patient, work)
        await server.has_met(3)

    assert work.times == 1
    assert stored(names) == DONE
    assert (await MongoRepository(patient, NOTES).get(0)).version == 2


@ways
async def test_a_commit_that_is_refused_is_unavailable_or_made_by_another_call(
    mongo: Mongo, names: Namespace, way: Way
) -> None:
    work = Work(mongo)
    gone: dict[str, Any] = {"errorCode": 251, "errorLabels": ["TransientTransactionError"]}

    with failing(names.mongo_url, ["commitTransaction"], 1, **gone):
        if way is as_function:
            await way(mongo, work)
        else:
            with unavailable_in_time():
                await way(mongo, work)

    assert (work.times, stored(names)) == ((2, DONE) if way is as_function else (1, UNDONE))


@pytest.mark.parametrize("how", [IN_THE_WAY, *LOST.values()])
@ways
async def test_what_is_tried_again_ends_at_the_deadline(
    mongo: Mongo, names: Namespace, how: dict[str, Any], way: Way
) -> None:
    command = "insert" if how is IN_THE_WAY else "commitTransaction"

    with failing(names.mongo_url, [command], **how), unavailable_in_time():
        await way(mongo, Work(mongo))


# -- deadlines


@ways
async def test_a_transaction_that_takes_too_long_is_unavailable_in_time_and_holds_nothing_up(
    mongo: Mongo, other: Mongo, names: Namespace, way: Way
) -> None:
    notes, others = MongoRepository(mongo, NOTES), MongoRepository(other, NOTES)

    async def work() -> None:
        await notes.patch(0, {"words": "mine"})
        while True:
            await notes.get(0)

    with unavailable_in_time():
        await way(mongo, work)

    began = time.monotonic()
    await others.patch(0, {"words": "other"})
    assert time.monotonic() - began < 0.5
    assert stored(names) == {0: "other"}


@ways
async def test_the_deadline_of_a_transaction_is_one_for_all_of_its_calls(
    mongo: Mongo, names: Namespace, way: Way
) -> None:
    notes = MongoRepository(mongo, NOTES)
    slow = {"blockConnection": True, "blockTimeMS": round(TIMEOUT_S * 400)}

    async def work() -> None:
        for number in range(1, 10):
            await notes.insert(Note(id=number))

    with failing(names.mongo_url, ["insert"], **slow), unavailable_in_time():
        await way(mongo, work)

    assert stored(names) == UNDONE


# -- tasks


async def test_two_tasks_each_have_a_transaction_of_their_own(mongo: Mongo, names: Namespace) -> None:
    notes = MongoRepository(mongo, NOTES)
    meet = asyncio.Barrier(2)
    seen: dict[int, list[int]] = {}

    async def change(number: int, *, fails: bool) -> None:
        async with mongo.transaction():
            await notes.insert(Note(id=number))
            await meet.wait()
            seen[number] = [note.id for note in await notes.find(sort=["id"])]
            await meet.wait()
            if fails:
                raise LookupError

    outcomes = await asyncio.gather(change(1, fails=False), change(2, fails=True), return_exceptions=True)

    assert isinstance(outcomes[1], LookupError)
    assert seen == {1: [0, 1], 2: [0, 2]}
    assert stored(names) == {0: "", 1: ""}


async def test_a_task_that_is_started_within_a_transaction_is_refused(mongo: Mongo) -> None:
    notes = MongoRepository(mongo, NOTES)
    async with mongo.transaction():
        with pytest.raises(RuntimeError, match="another task"):
            await asyncio.create_task(notes.get(0))
        assert (await notes.get(0)).id == 0


async def test_two_clients_know_nothing_of_each_others_transactions(
    mongo: Mongo, other: Mongo, names: Namespace
) -> None:
    async def fails() -> None:
        async with mongo.transaction():
            await MongoRepository(mongo, NOTES).insert(Note(id=1))
            await MongoRepository(other, NOTES).insert(Note(id=2))
            async with other.transaction():
                await MongoRepository(other, NOTES).insert(Note(id=3))
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert stored(names) == {0: "", 2: "", 3: ""}


@ways
async def test_a_transaction_within_another_is_refused_and_the_outer_one_goes_on(
    mongo: Mongo, names: Namespace, way: Way
) -> None:
    work = Work(mongo)
    async with mongo.transaction():
        with pytest.raises(NestedTransaction):
            await way(mongo, work)
        await work()

    assert (work.times, stored(names)) == (1, DONE)


@ways
async def test_an_error_undoes_everything_and_what_is_conflict_stays_conflict(
    mongo: Mongo, names: Namespace, way: Way
) -> None:
    notes = MongoRepository(mongo, NOTES)
    times = 0

    async def work() -> None:
        nonlocal times
        times += 1
        await notes.insert(Note(id=1))
        await notes.replace(Note(id=0, version=7))

    with pytest.raises(VersionConflict):
        await way(mongo, work)

    assert (times, stored(names)) == (1, UNDONE)
    assert not mongo.is_in_transaction


async def test_bulk_is_refused_within_a_transaction_and_reads_see_what_it_has_written(mongo: Mongo) -> None:
    notes = MongoRepository(mongo, NOTES)
    async with mongo.transaction():
        await notes.delete(0)
        with pytest.raises(NoSuchDocument):
            await notes.get(0)
        with pytest.raises(RuntimeError, match="all or nothing"):
            await notes.put_newer(Note(id=0, version=3))


# -- cancellation


@ways
@pytest.mark.parametrize("where", ["between two calls", "within a call"])
async def test_a_task_that_is_cancelled_undoes_its_transaction_and_holds_nothing_up(
    mongo: Mongo, other: Mongo, names: Namespace, where: str, way: Way
) -> None:
    notes, others = MongoRepository(mongo, NOTES), MongoRepository(other, NOTES)
    is_between = asyncio.Event()

    async def work() -> None:
        await notes.patch(0, {"words": "mine"})
        if where == "between two calls":
            is_between.set()
            await asyncio.Event().wait()
        await notes.insert(Note(id=1))

    with failing(names.mongo_url, ["insert"], 1, blockConnection=True, blockTimeMS=500) as server:
        task = asyncio.ensure_future(way(mongo, work))
        await (is_between.wait() if where == "between two calls" else server.has_met())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, LATER_S)

        began = time.monotonic()
        await others.patch(0, {"words": "other"})
        assert time.monotonic() - began < TIMEOUT_S

    assert stored(names) == {0: "other"}
    assert mongo.watch.connections_in_use == 0
    assert _csot.get_timeout() is None  # the deadline ends with the transaction
