"""One contract for outbox and inbox: in memory and in PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta

import pytest

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.kernel.ids import EventId
from showcase.messaging.application.ports import Inbox
from showcase.messaging.domain import EVENTS, Message, Outcome, Route, Topology, straight_to
from showcase.messaging.infrastructure.inbox import SqlInbox
from showcase.messaging.infrastructure.outbox import CHANNEL, SqlOutbox
from showcase.platform.database import Database
from tests.fakes import until
from tests.fakes_outbox import Memory, MemoryInbox, MemoryOutbox
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
POSTGRES = "SHOWCASE_POSTGRES_URL"
LIMIT = 10
TOPOLOGY = Topology(queues=(), delays=[timedelta(minutes=10)])
A, B, C = EventId("a"), EventId("b"), EventId("c")


@dataclass(frozen=True, kw_only=True)
class Boxes:
    transaction: Callable[[], AbstractAsyncContextManager[object]]
    outbox: SqlOutbox | MemoryOutbox
    inbox: SqlInbox | MemoryInbox
    other_inbox: Inbox


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with Stack.attach() as stack, Namespace.create({POSTGRES: stack.urls[POSTGRES]}) as names:
        yield names.postgres_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    async with database.transaction() as db:
        await db.exec_driver_sql("TRUNCATE outbox, inbox")
    await database.close()


@pytest.fixture(params=["memory", "postgres"])
def boxes(request: pytest.FixtureRequest) -> Boxes:
    if request.param == "memory":
        memory = Memory()
        return Boxes(
            transaction=memory.transaction,
            outbox=MemoryOutbox(memory, TOPOLOGY),
            inbox=MemoryInbox(memory),
            other_inbox=MemoryInbox(memory, "other"),
        )
    database: Database = request.getfixturevalue("database")
    return Boxes(
        transaction=database.transaction,
        outbox=SqlOutbox(database, topology=TOPOLOGY),
        inbox=SqlInbox(database, "public", "shop"),
        other_inbox=SqlInbox(database, "public", "other"),
    )


def event(subject: object = 1) -> Event:
    return Event(type="t.v1", source="/s", subject=f"orders/{subject}", data={"words": "Käse ✓"}, causation_id="0")


def message(one: Event) -> Message:
    return Message(attributes=one.attributes(), body=one.body(), route=Route(EVENTS, one.type))


async def all_taken(messages: Sequence[Message]) -> Sequence[Outcome]:
    return [Outcome.TAKEN] * len(messages)


class Taker:
    """Publishes, and takes all events but those of which it is told to say something else.

    Attributes:
        offered: the ids of all that it was given, in order.
    """

    def __init__(self, said: Outcome = Outcome.TAKEN, *events: Event) -> None:
        self.said = {one.id: said for one in events}
        self.offered: list[str] = []
        self.messages: list[Message] = []

    async def __call__(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        subjects = [one.attributes["subject"] for one in messages]
        assert len(subjects) == len(set(subjects)), "two of one subject are on their way at once"
        self.offered += [one.attributes["id"] for one in messages]
        self.messages += messages
        return [self.said.get(EventId(one.attributes["id"]), Outcome.TAKEN) for one in messages]


async def test_messages_are_handed_over_whole_and_once_and_those_of_a_subject_the_oldest_first(boxes: Boxes) -> None:
    added = [event(number % 4) for number in range(LIMIT + 5)]
    for one in added:
        await boxes.outbox.add(one)
    taker = Taker()

    async def moved_all() -> bool:
        moved = await boxes.outbox.relay(taker, LIMIT)
        assert moved <= LIMIT
        return not moved

    await until(moved_all)
    by_subject = sorted(taker.messages, key=lambda one: one.attributes["subject"])
    assert by_subject == [message(one) for one in sorted(added, key=lambda one: one.subject)]


async def test_an_event_of_a_transaction_that_failed_is_never_handed_over(boxes: Boxes) -> None:
    async def fails() -> None:
        async with boxes.transaction():
            await boxes.outbox.add(event())
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    assert await boxes.outbox.relay(all_taken, LIMIT) == 0


async def test_a_refused_message_stays_and_stops_no_other_subject(boxes: Boxes) -> None:
    refused, other = event("a"), event("b")
    for one in (refused, other):
        await boxes.outbox.add(one)

    assert await boxes.outbox.relay(Taker(Outcome.REFUSED, refused), LIMIT) == 1
    taker = Taker()
    assert await boxes.outbox.relay(taker, LIMIT) == 1
    assert taker.offered == [refused.id]


async def test_messages_of_a_subject_are_never_told_out_of_order_though_one_is_refused(boxes: Boxes) -> None:
    first, second = event("a"), event("a")
    for one in (first, second):
        await boxes.outbox.add(one)
    taker = Taker(Outcome.REFUSED, first)

    assert await boxes.outbox.relay(taker, LIMIT) == 0
    assert taker.offered == [first.id], "the second waits until the first is with the broker"
    taker.said.clear()
    assert [await boxes.outbox.relay(taker, LIMIT) for _ in range(2)] == [2, 0]
    assert taker.offered == [first.id, first.id, second.id]


@pytest.mark.parametrize("why", [Outcome.UNROUTABLE, Outcome.TOO_LARGE])
async def test_what_cannot_be_published_is_parked_and_holds_up_nobody(boxes: Boxes, why: Outcome) -> None:
    bad, next_ = event("a"), event("a")
    for one in (bad, next_):
        await boxes.outbox.add(one)
    taker = Taker(why, bad)

    assert await boxes.outbox.relay(taker, LIMIT) == 2
    assert taker.offered == [bad.id, next_.id]
    assert await boxes.outbox.relay(taker, LIMIT) == 0, "it waits no longer"
    state = await boxes.outbox.waiting()
    assert (state.waiting, state.oldest, state.parked) == (0, None, 1)


async def test_what_was_parked_is_released_or_discarded_by_an_operator_once(boxes: Boxes) -> None:
    bad = [event("a"), event("b")]
    for one in bad:
        await boxes.outbox.add(one)
    await boxes.outbox.relay(Taker(Outcome.UNROUTABLE, *bad), LIMIT)
    released, discarded = await parked_positions(boxes)

    assert [await boxes.outbox.release(released) for _ in range(2)] == [True, False]
    assert [await boxes.outbox.discard(discarded) for _ in range(2)] == [True, False]
    assert not await boxes.outbox.discard(released), "it is not parked any more"
    again = Taker()
    assert await boxes.outbox.relay(again, LIMIT) == 1
    assert again.offered == [bad[0].id]
    assert (await boxes.outbox.waiting()).parked == 0


async def test_an_event_that_is_told_later_takes_the_way_of_its_delay(boxes: Boxes) -> None:
    await boxes.outbox.add(one := event(), after=timedelta(minutes=10))
    taker = Taker()
    await boxes.outbox.relay(taker, LIMIT)
    assert [sent.route for sent in taker.messages] == [TOPOLOGY.later(one.type, timedelta(minutes=10))]


async def test_a_delay_that_nobody_has_declared_is_an_error_and_leaves_nothing(boxes: Boxes) -> None:
    with pytest.raises(LookupError, match="600s"):
        await boxes.outbox.add(event(), after=timedelta(minutes=11))
    assert (await boxes.outbox.waiting()).waiting == 0


async def test_a_message_is_sent_as_it_is(boxes: Boxes) -> None:
    sent = Message(attributes={"id": "1"}, body=b"\x00\xff", route=straight_to("payment"), headers={"x-replays": 2})
    await boxes.outbox.send(sent)
    offered: list[Message] = []

    async def publish(messages: Sequence[Message]) -> Sequence[Outcome]:
        offered.extend(messages)
        return await all_taken(messages)

    await boxes.outbox.relay(publish, LIMIT)
    assert offered == [sent]


async def test_a_message_whose_publishing_failed_is_handed_over_again(boxes: Boxes) -> None:
    """As when a relay dies after it has sent and before it has marked: at least once."""
    await boxes.outbox.add(event())

    async def breaks(messages: Sequence[Message]) -> Sequence[Outcome]:
        raise Unavailable("the connection was lost")

    with pytest.raises(Unavailable):
        await boxes.outbox.relay(breaks, LIMIT)
    assert await boxes.outbox.relay(all_taken, LIMIT) == 1


async def test_what_another_relay_has_on_its_way_is_left_to_it_and_new_subjects_are_not(boxes: Boxes) -> None:
    await boxes.outbox.add(event("a"))
    taker = Taker()

    async def other_relay() -> int:
        await boxes.outbox.add(event("a"))
        for number in range(3):  # of these, one at least is in another bucket than "a" is
            await boxes.outbox.add(event(number))
        return await boxes.outbox.relay(taker, LIMIT)

    async def publish(messages: Sequence[Message]) -> Sequence[Outcome]:
        assert await asyncio.create_task(other_relay()) == len(taker.offered) > 0
        return await all_taken(messages)

    assert await boxes.outbox.relay(publish, LIMIT) == 1
    assert "orders/a" not in {one.attributes["subject"] for one in taker.messages}


async def test_the_state_tells_how_long_the_oldest_has_waited(boxes: Boxes) -> None:
    await boxes.outbox.add(event("a"))
    state = await boxes.outbox.waiting()
    assert state.oldest is not None
    assert (state.waiting, state.parked) == (1, 0)

    async def is_older() -> bool:
        now = (await boxes.outbox.waiting()).oldest
        return now is not None and state.oldest is not None and now > state.oldest

    await until(is_older)


async def test_an_event_is_entered_for_the_first_time_once_by_each_consumer(boxes: Boxes) -> None:
    assert await boxes.inbox.enter([B, A, B]) == {A, B}
    assert await boxes.inbox.enter([A, C]) == {C}
    assert await boxes.inbox.seen([A, EventId("d")]) == {A}
    assert await boxes.other_inbox.seen([A]) == set()
    assert await boxes.other_inbox.enter([A]) == {A}
    assert await boxes.inbox.enter([]) == set()


async def test_an_event_whose_handling_failed_was_not_entered(boxes: Boxes) -> None:
    async def fails() -> None:
        async with boxes.transaction():
            assert await boxes.inbox.enter([A]) == {A}
            raise LookupError

    with pytest.raises(LookupError):
        await fails()
    async with boxes.transaction():
        assert await boxes.inbox.enter([A, B]) == {A, B}
        await boxes.inbox.leave(A)
    assert await boxes.inbox.seen([A, B]) == {B}


async def test_pruning_removes_what_was_published_and_handled_and_nothing_else(boxes: Boxes) -> None:
    old, waiting, parked = event("old"), event("waiting"), event("parked")
    for one in (old, waiting, parked):
        await boxes.outbox.add(one)
    taker = Taker(Outcome.REFUSED, waiting)
    taker.said[parked.id] = Outcome.UNROUTABLE
    await boxes.outbox.relay(taker, LIMIT)
    await boxes.inbox.enter([old.id])

    hour = timedelta(hours=1)
    assert (await boxes.outbox.prune(hour), await boxes.inbox.prune(hour)) == (0, 0)

    async def pruned() -> bool:  # "longer ago than nothing": some clocks are coarse
        return await boxes.outbox.prune(timedelta(0)) == 1

    await until(pruned)
    assert await boxes.inbox.prune(timedelta(0)) == 1
    assert await boxes.inbox.seen([old.id]) == set()
    state = await boxes.outbox.waiting()
    assert (state.waiting, state.parked) == (1, 1), "what nobody has published is still there"


async def test_a_committed_event_wakes_the_relay(database: Database) -> None:
    async with database.listening(CHANNEL) as woken:
        await SqlOutbox(database).add(event())
        assert await woken(20)


async def parked_positions(boxes: Boxes) -> Sequence[int]:
    if isinstance(boxes.outbox, MemoryOutbox):
        return [position for position, row in boxes.outbox.rows.items() if row.reason]
    async with boxes.outbox._database.transaction() as db:
        found = await db.exec_driver_sql("SELECT position FROM outbox WHERE parked_at IS NOT NULL ORDER BY position")
        return found.scalars().all()
