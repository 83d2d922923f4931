"""One contract for the parking lot: in memory and in PostgreSQL. Then what takes two transactions at once."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from showcase.kernel.clock import system_clock
from showcase.messaging.application.parked import Parked, State
from showcase.messaging.application.parking_lot import Details, Entry, ParkingLot, Place, Unpublished, Which
from showcase.messaging.domain import Message, Route
from showcase.messaging.infrastructure.parked import BATCH_BYTES, SqlParkingLot
from showcase.platform.database import Database
from tests.fakes_outbox import Memory, MemoryOutbox, Row
from tests.fakes_parked import Delivered, MemoryParkingLot, delivered
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
POSTGRES = "SHOWCASE_POSTGRES_URL"
ALL = Which()
END = Place(datetime(9999, 1, 1, tzinfo=UTC), "")
ATTRIBUTES = {"id": "1", "type": "t.v1", "subject": "orders/1"}


@dataclass(frozen=True, kw_only=True)
class Lot:
    """A parking lot, and `strand`: a message of an outbox that cannot be published; returns its position."""

    lot: ParkingLot
    transaction: Callable[[], AbstractAsyncContextManager[object]]
    strand: Callable[[str], Awaitable[int]]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Stack.attach() as stack, Namespace.create({POSTGRES: stack.urls[POSTGRES]}) as names:
        yield names.postgres_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    await database.close()
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("TRUNCATE messaging.parked, messaging.actions, public.outbox, payment.outbox")


@pytest.fixture(params=["memory", "postgres"])
def kept(request: pytest.FixtureRequest, url: str) -> Lot:
    if request.param == "memory":
        return in_memory()
    database: Database = request.getfixturevalue("database")

    async def strand(schema: str) -> int:
        with psycopg.connect(url, autocommit=True) as db:
            row = db.execute(
                f"INSERT INTO {schema}.outbox (attributes, body, exchange, routing_key, headers, parked_at,"  # noqa: S608 - of this test
                " parked_reason) VALUES (%s, 'null', '', 'gone', %s, now(), 'no queue takes it') RETURNING position",
                (json.dumps(ATTRIBUTES), '{"x-replays": 1}'),
            ).fetchone()
        assert row is not None
        return int(row[0])

    return Lot(lot=SqlParkingLot(database), transaction=database.transaction, strand=strand)


def in_memory() -> Lot:
    memory = Memory()
    outboxes = {schema: MemoryOutbox(memory, schema=schema) for schema in ("public", "payment")}

    async def strand(schema: str) -> int:
        sent = Message(attributes=ATTRIBUTES, body=b"null", route=Route("", "gone"), headers={"x-replays": 1})
        rows = outboxes[schema].rows
        rows[len(rows) + 1] = Row(message=sent, added_at=system_clock(), reason="no queue takes it")
        return len(rows)

    return Lot(lot=MemoryParkingLot(memory, outboxes), transaction=memory.transaction, strand=strand)


async def parked(kept: Lot, *queues: str, **more: Any) -> list[Parked]:
    """Messages of some queues, parked one after the other."""
    found = [Parked.of(delivered(queue, **more)) for queue in queues]
    for one in found:
        assert await kept.lot.add([one]) == 1
    return found


async def details(lot: ParkingLot, one: Parked) -> Details:
    found = await lot.find(one.parked_id)
    assert found is not None
    return found


async def listed(lot: ParkingLot, which: Which = ALL) -> list[str]:
    return [entry.id for entry in await lot.page(which, None, 100)]


async def test_a_message_is_found_as_it_was_kept(kept: Lot) -> None:
    (one,) = await parked(kept, "payment", body=b"\x00\xff", extra=[1, {"deep": "Käse ✓"}])

    found = await details(kept.lot, one)
    assert (found.attributes, found.headers, found.body) == (one.attributes, one.headers, one.body)
    entry = found.entry
    assert (entry.queue, entry.type, entry.subject) == ("payment", "t.v1", "orders/1")
    assert (entry.reason, entry.attempts, entry.replays, entry.state) == ("broken", 4, 0, State.PARKED)
    assert abs(system_clock() - entry.parked_at) < timedelta(minutes=1)
    assert await kept.lot.find(uuid4()) is None
    assert await kept.lot.page(ALL, None, 10) == [entry]


async def test_a_message_handed_over_twice_is_there_once_whatever_became_of_it(kept: Lot) -> None:
    (one,) = await parked(kept, "payment")
    assert await kept.lot.add([one, one]) == 0
    await kept.lot.settle([one.parked_id], State.DISCARDED)

    assert await kept.lot.add([one]) == 0
    assert await listed(kept.lot) == []


async def test_pages_show_each_message_once_the_newest_first_though_others_come_meanwhile(kept: Lot) -> None:
    ids = [str(one.parked_id) for one in await parked(kept, *["payment"] * 4)]
    together = [Parked.of(delivered("stock")) for _ in range(3)]
    await kept.lot.add(together)  # at one time: their ids decide

    seen: list[Entry] = []
    while page := await kept.lot.page(ALL, seen[-1].place if seen else None, 2):
        seen += page
        await parked(kept, "late")

    names = [entry.id for entry in seen]
    assert names == [*sorted((str(one.parked_id) for one in together), reverse=True), *reversed(ids)]


async def test_what_cannot_be_published_stands_in_the_same_list(kept: Lot) -> None:
    (first,) = await parked(kept, "payment")
    stranded = Unpublished("payment", await kept.strand("payment"))
    (last,) = await parked(kept, "stock")

    assert await listed(kept.lot) == [str(last.parked_id), str(stranded), str(first.parked_id)]
    assert await listed(kept.lot, Which(queue="outbox:payment")) == [str(stranded)]
    found = await kept.lot.find(stranded)
    assert found is not None
    assert (found.entry.id, found.entry.event_id, found.entry.replays) == (str(stranded), "1", 1)
    assert (found.entry.reason, found.entry.subject) == ("no queue takes it", "orders/1")
    assert (found.attributes, found.headers, found.body) == (ATTRIBUTES, {"x-replays": 1}, b"null")
    assert await kept.lot.find(stranded._replace(position=999)) is None
    assert await kept.lot.find(stranded._replace(outbox="public")) is None


async def test_the_list_is_filtered_by_queue_and_type(kept: Lot) -> None:
    (a,) = await parked(kept, "payment", type_="a.v1")
    (b,) = await parked(kept, "payment", type_="b.v1")
    (c,) = await parked(kept, "stock", type_="a.v1")

    async def seen(**which: str) -> list[str]:
        return (await listed(kept.lot, Which(**which)))[::-1]

    assert await seen(queue="payment") == [str(a.parked_id), str(b.parked_id)]
    assert await seen(type="a.v1") == [str(a.parked_id), str(c.parked_id)]
    assert await seen(queue="stock", type="b.v1") == []
    assert await kept.lot.counts() == {"payment": 2, "stock": 1}


async def test_the_oldest_of_some_queues_come_first_and_none_later_than_a_place(kept: Lot) -> None:
    a, _, c, d = [str(one.parked_id) for one in await parked(kept, "payment", "stock", "payment", "payment")]
    places = {entry.id: entry.place for entry in await kept.lot.page(ALL, None, 10)}

    assert await kept.lot.oldest(["payment"], None, END, 10) == [a, c, d]
    assert await kept.lot.oldest(["payment"], None, places[c], 10) == [a, c]
    assert await kept.lot.oldest(["payment"], None, END, 1) == [a]
    assert await kept.lot.oldest(["payment"], "other.v1", END, 10) == []
    assert await kept.lot.oldest(["notice"], None, END, 10) == []


async def test_the_oldest_are_no_more_bytes_than_one_transaction_can_take(kept: Lot) -> None:
    large = [await parked(kept, "payment", body=b"x" * (BATCH_BYTES // 2)) for _ in range(3)]

    assert await kept.lot.oldest(["payment"], None, END, 10) == [str(one.parked_id) for (one,) in large[:2]]


async def test_a_message_is_settled_once_and_comes_back_whole(kept: Lot) -> None:
    one, other = await parked(kept, "payment", "payment", body=b"\xff")

    assert await kept.lot.settle([one.parked_id, uuid4()], State.REPLAYED) == [one]
    assert await kept.lot.settle([one.parked_id], State.DISCARDED) == []
    assert await listed(kept.lot) == [str(other.parked_id)]
    found = (await details(kept.lot, one)).entry
    assert (found.state, found.settled_at is not None) == (State.REPLAYED, True)


async def test_what_a_transaction_did_that_failed_was_not_done(kept: Lot) -> None:
    (one,) = await parked(kept, "payment")

    async def fails() -> None:
        async with kept.transaction():
            await kept.lot.settle([one.parked_id], State.REPLAYED)
            await kept.lot.act([str(one.parked_id)], actor="staff/ada", action="replay")
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    found = await details(kept.lot, one)
    assert (found.entry.state, found.actions) == (State.PARKED, [])


async def test_what_was_done_is_remembered_the_last_first(kept: Lot) -> None:
    (one,) = await parked(kept, "payment")
    id_ = str(one.parked_id)
    await kept.lot.act([id_, "outbox:public:1"], actor="staff/ada", action="replay")
    await kept.lot.act([id_], actor="operator", action="discard", reason="a test")

    actions = (await details(kept.lot, one)).actions
    assert [(done.actor, done.action, done.reason) for done in actions] == [
        ("operator", "discard", "a test"),
        ("staff/ada", "replay", ""),
    ]
    assert all(abs(system_clock() - done.at) < timedelta(minutes=1) for done in actions)


async def test_pruning_removes_what_was_settled_long_ago_and_nothing_else(kept: Lot) -> None:
    one, other = await parked(kept, "payment", "payment")
    await kept.lot.settle([one.parked_id], State.REPLAYED)
    await kept.lot.act([str(one.parked_id)], actor="operator", action="replay")

    assert await kept.lot.prune(timedelta(hours=1)) == (0, 0)
    assert await kept.lot.prune(timedelta(seconds=-1)) == (1, 0)
    assert await kept.lot.find(one.parked_id) is None
    assert await listed(kept.lot) == [str(other.parked_id)]


# -- in PostgreSQL alone


async def test_a_message_that_somebody_is_settling_is_waited_for_by_nobody(database: Database) -> None:
    lot = SqlParkingLot(database)
    one, other = Parked.of(delivered()), Parked.of(delivered())
    await lot.add([one, other])

    async with database.transaction():
        await lot.settle([one.parked_id], State.REPLAYED)
        meanwhile = asyncio.create_task(lot.settle([one.parked_id, other.parked_id], State.DISCARDED))
        assert await asyncio.wait_for(meanwhile, 2) == [other]
    assert (await details(lot, one)).entry.state is State.REPLAYED


async def test_actions_of_more_than_a_year_ago_are_pruned(url: str, database: Database) -> None:
    lot = SqlParkingLot(database)
    await lot.act(["old", "new"], actor="operator", action="replay")
    with psycopg.connect(url, autocommit=True) as db:
        db.execute("UPDATE messaging.actions SET at = now() - interval '366 days' WHERE parked_id = 'old'")

        assert await lot.prune(timedelta(days=1)) == (0, 1)
        assert db.execute("SELECT parked_id FROM messaging.actions").fetchall() == [("new",)]


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(st.characters()),  # with NUL and halves of characters
    st.binary(),
    st.datetimes(),
    st.just(Decimal("1.50")),
)
NAMES = st.one_of(st.text(max_size=20), st.sampled_from(["x-queue", "x-reason", "x-replays", "x-death", "x-attempt"]))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner), max_leaves=8)
HEADERS = st.dictionaries(NAMES, VALUES, max_size=5)


async def test_whatever_a_stranger_sends_can_be_kept(database: Database) -> None:
    lot = SqlParkingLot(database)
    nested: list[Any] = []
    for _ in range(900):
        nested = [nested]
    found = [Delivered({"id": nested, "type": b"\xff\x00"}, {"x-death": nested, "x-queue": "é" * 40_000})]

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(HEADERS, HEADERS, st.binary())
    def collect(attributes: dict[str, object], headers: dict[str, object], body: bytes) -> None:
        found.append(Delivered(attributes, headers, body))

    await asyncio.to_thread(collect)
    for number, one in enumerate(found):
        message = Parked.of(replace(one, body=b"%d %b" % (number, one.body)))
        assert await lot.add([message]) == 1
        kept = await details(lot, message)
        assert (kept.attributes, kept.headers, kept.body) == (message.attributes, message.headers, message.body)
        assert (kept.entry.queue, kept.entry.reason) == (message.queue, message.reason)
