"""What becomes of messages: handled once, tried again, parked. On a broker and a database in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError
from structlog.testing import capture_logs

from showcase.kernel import trace
from showcase.kernel.errors import Conflict, Invalid, Unavailable
from showcase.kernel.events import Event
from showcase.kernel.ids import EventId
from showcase.messaging.application.handlers import Anything, Handlers, Unhandleable
from showcase.messaging.application.settling import MAX_REASON, Failure, attempt_of, onward
from showcase.messaging.domain import DEAD, EVENTS, MAX_ATTRIBUTES_BYTES, PARKING, Message, Queue, Route, Topology
from showcase.messaging.worker import consumer
from showcase.messaging.worker.consumer import consume
from showcase.platform import worker
from tests.fakes import until
from tests.fakes_broker import MemoryBroker, MemoryDelivery
from tests.fakes_outbox import Memory, MemoryInbox

pytestmark = pytest.mark.anyio
RUNG = timedelta(milliseconds=5)
TOPOLOGY = Topology(queues=[Queue(name="q", types=("t.#",))], retries=(RUNG, 2 * RUNG))
NOW = datetime(2017, 12, 23, 12, tzinfo=UTC)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "FIRST_PAUSE_S", 0.002)
    monkeypatch.setattr(consumer, "LONGEST_PAUSE_S", 0.01)


def event(name: str = "1", **changes: Any) -> Event:
    return Event(**{"type": "t.v1", "source": "/t", "subject": f"things/{name}", "data": {"name": name}, **changes})


def message(of: Event, headers: Mapping[str, str | int] = MappingProxyType({})) -> Message:
    return Message(attributes=of.attributes(), body=of.body(), route=Route(EVENTS, of.type), headers=headers)


class World:
    """A queue, its consumer, and a database that can be away.

    Attributes:
        effects: what handlers have written, in the database.
        fails: what the handler of an event raises, by its name.
    """

    def __init__(self, topology: Topology = TOPOLOGY, max_length: int = 1_000) -> None:
        self.broker = MemoryBroker(topology, max_length=max_length)
        self.topology = topology
        self.memory = Memory()
        self.effects = self.memory.table("effects")
        self.inbox: World | None = self
        self.stop = asyncio.Event()
        self.handlers = Handlers()
        self.handlers.on("t.v1", Anything, self.handle)
        self.fails: dict[str, BaseException] = {}
        self.commit_fails: set[str] = set()
        self.is_away = False
        self.transactions = 0
        self.looks = 0
        self._inbox = MemoryInbox(self.memory)

    async def handle(self, event: Event, data: Anything) -> None:
        self.effects[event.id] = data.root["name"]
        if error := self.fails.get(str(data.root["name"])):
            raise error

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[object]:
        self._check()
        async with self.memory.transaction():
            yield self
            self._check()
            if found := self.commit_fails.intersection(self.effects.values()):
                raise Unavailable(f"too slow: {found}")
            self.transactions += 1

    async def seen(self, ids: Collection[EventId]) -> set[EventId]:
        self.looks += 1
        self._check()
        return await self._inbox.seen(ids)

    async def enter(self, ids: Collection[EventId]) -> set[EventId]:
        return await self._inbox.enter(ids)

    async def leave(self, id_: EventId) -> None:
        await self._inbox.leave(id_)

    def _check(self) -> None:
        if self.is_away:
            raise Unavailable("away")

    async def tell(self, *events: Event) -> None:
        await self.broker.publish([message(one) for one in events])

    @asynccontextmanager
    async def consuming(self, batch: int = 10, prefetch: int = 100) -> AsyncIterator["asyncio.Task[None]"]:
        task = asyncio.create_task(
            consume(
                self.broker,
                "q",
                self.handlers,
                self.stop,
                topology=self.topology,
                inbox=self.inbox,
                transaction=self.transaction,
                savepoint=self.memory.savepoint,
                prefetch=prefetch,
                batch=batch,
            )
        )
        try:
            yield task
        finally:
            self.stop.set()
            await asyncio.wait_for(task, 5)

    def parked(self) -> list[MemoryDelivery]:
        return self.broker.ready(PARKING)

    def is_empty(self) -> bool:
        server = self.broker.server
        out = [one for taker in server.consumers for one in taker.out]
        return not out and not any(server.ready[name] for name in server.ready if name != PARKING)

    async def until(self, condition: Callable[[], object]) -> None:
        async def holds() -> object:
            return condition()

        await until(holds, within_s=5)


# -- a batch


async def test_a_batch_is_handled_in_one_transaction_and_acknowledged_after_it() -> None:
    world = World()
    await world.tell(*(event(str(number)) for number in range(25)))
    async with world.consuming(batch=10):
        await world.until(world.is_empty)
    assert (len(world.effects), world.transactions) == (25, 3)


async def test_a_failure_undoes_what_its_handler_did_and_nothing_else() -> None:
    world = World()
    world.fails["2"] = Invalid("nonsense")
    events = [event(str(number)) for number in range(5)]
    await world.tell(*events)
    async with world.consuming():
        await world.until(lambda: world.parked() and world.is_empty())
    assert sorted(world.effects.values()) == ["0", "1", "3", "4"]
    assert events[2].id not in await world.seen([one.id for one in events])
    assert world.transactions == 1


class Crash(BaseException):
    """The process ends here."""


async def test_a_consumer_that_dies_in_a_handler_leaves_nothing_of_its_batch() -> None:
    world = World()
    world.fails["1"] = Crash()
    events = [event(str(number)) for number in range(3)]
    await world.tell(*events)

    async def dies() -> None:
        async with world.consuming() as task:
            await asyncio.wait({task}, timeout=5)

    with pytest.raises(Crash):
        await dies()
    assert (world.effects, await world.seen([one.id for one in events])) == ({}, set())
    assert not world.is_empty()


async def test_the_same_event_twice_in_a_batch_is_handled_once() -> None:
    world, calls = World(), []

    async def handle(event: Event, data: Anything) -> None:
        calls.append(event.id)

    world.handlers.on("t.v1", Anything, handle)
    twice = event()
    await world.tell(twice, twice)
    async with world.consuming():
        await world.until(world.is_empty)
    assert calls == [twice.id]


async def test_what_was_handled_before_is_not_even_asked_again() -> None:
    world, asked = World(), []

    async def ask(event: Event, data: Anything) -> None:
        asked.append(event.id)

    async def handle(event: Event, data: Anything, answer: None) -> None: ...

    world.handlers.on("t.v1", Anything, handle, ask=ask)
    again = event()
    with capture_logs() as logged:
        async with world.consuming():
            await world.tell(again)
            await world.until(world.is_empty)
            await world.tell(again)
            await world.until(world.is_empty)
    assert asked == [again.id]
    assert [one["messages"] for one in logged if one["event"] == "came again"] == [1]


async def test_all_of_a_batch_is_asked_at_once_before_the_transaction() -> None:
    world = World()
    barrier = asyncio.Barrier(5)

    async def ask(event: Event, data: Anything) -> int:
        await barrier.wait()
        return world.transactions

    async def handle(event: Event, data: Anything, answer: int) -> None:
        world.effects[event.id] = answer

    world.handlers.on("t.v1", Anything, handle, ask=ask)
    await world.tell(*(event(str(number)) for number in range(5)))
    async with world.consuming():
        await world.until(world.is_empty)
    assert list(world.effects.values()) == [0] * 5


async def test_an_answer_that_never_comes_is_a_failed_attempt_of_its_message_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consumer, "HANDLED_WITHIN_S", 0.01)
    world = World()

    async def ask(event: Event, data: Anything) -> None:
        await asyncio.Event().wait()

    async def never(event: Event, data: Anything, answer: None) -> None: ...

    async def handle(event: Event, data: Anything) -> None:
        await (asyncio.Event().wait() if data.root["name"] == "slow" else world.handle(event, data))

    world.handlers.on("t.asks.v1", Anything, never, ask=ask)
    world.handlers.on("t.v1", Anything, handle)
    await world.tell(event(type="t.asks.v1"), event("slow"), event("good"))
    async with world.consuming():
        await world.until(lambda: len(world.parked()) == 2 and world.is_empty())
    assert list(world.effects.values()) == ["good"]
    assert {one.headers["x-reason"] for one in world.parked()} == {"TimeoutError"}


async def test_what_comes_about_while_a_message_is_handled_was_caused_by_it() -> None:
    world, told = World(), []

    async def ask(event: Event, data: Anything) -> str:
        return trace.current()

    async def handle(event: Event, data: Anything, asked_in: str) -> None:
        told.append((asked_in, Event(type="t.v2", source="/t", subject="", data={})))

    world.handlers.on("t.v1", Anything, handle, ask=ask)
    cause = event(traceparent=PARENT, correlation_id="first")
    await world.tell(cause)
    async with world.consuming():
        await world.until(world.is_empty)
    ((asked_in, effect),) = told
    assert (effect.causation_id, effect.correlation_id) == (cause.id, "first")
    assert asked_in[:36] == effect.traceparent[:36] == PARENT[:36]


async def test_without_an_inbox_there_is_nothing_but_the_work() -> None:
    world = World()
    world.inbox = None
    twice = event()
    world.fails["bad"] = Invalid("nonsense")
    await world.tell(twice, event("bad"))
    async with world.consuming():
        await world.until(lambda: world.parked() and world.is_empty())
    assert list(world.effects.values()) == ["1"]


# -- the ladder and the parking lot


async def test_a_message_climbs_the_ladder_and_is_parked_with_all_reasons_and_what_it_came_with() -> None:
    world = World()
    world.fails["1"] = Unavailable("the provider is away")
    failing = event()
    await world.broker.publish([message(failing, {"x-replays": 2, "their-own": "header"})])
    async with world.consuming():
        await world.until(lambda: world.parked() and world.is_empty())
    (parked,) = world.parked()
    assert (parked.attributes, parked.body) == (failing.attributes(), failing.body())
    assert (parked.headers["x-queue"], parked.headers["x-attempt"], parked.headers["x-replays"]) == ("q", 3, 2)
    assert parked.headers["their-own"] == "header"
    for number in (1, 2, 3):
        at, _, why = str(parked.headers[f"x-reason-{number}"]).partition(" ")
        assert datetime.fromisoformat(at).utcoffset() == timedelta(0)
        assert why == parked.headers["x-reason"] == "Unavailable: the provider is away"
    waited = [one.route for one in world.broker.published if one.route.exchange.startswith("retry")]
    assert waited == [Route("retry.0.005s", "q"), Route("retry.0.01s", "q")]
    assert world.effects == {}


@pytest.mark.parametrize(
    ("error", "attempts"), [(Conflict("not yet"), 3), (ValueError("a bug"), 3), (Invalid("nonsense"), 1)]
)
async def test_what_a_handler_raises_decides_how_often_it_is_called(error: Exception, attempts: int) -> None:
    world = World()
    world.fails["1"] = error
    await world.tell(event())
    async with world.consuming():
        await world.until(lambda: world.parked() and world.is_empty())
    assert world.parked()[0].headers["x-attempt"] == attempts


async def test_a_message_that_is_cured_in_time_has_its_effect_once() -> None:
    world = World()
    world.fails["1"] = Conflict("not yet")
    await world.tell(event())
    async with world.consuming():
        await world.until(lambda: len(world.broker.published) > 1)
        world.fails.clear()
        await world.until(world.is_empty)
    assert (list(world.effects.values()), world.parked()) == (["1"], [])


async def test_bad_input_is_parked_at_once_and_the_queue_moves_on() -> None:
    world = World()
    good = event("good")
    bad = Message(attributes={"type": "t.v1", "id": "x"}, body=b"{", route=Route(EVENTS, "t.v1"))
    await world.broker.publish([bad, message(event(type="t.v9")), message(good)])
    async with world.consuming():
        await world.until(lambda: len(world.parked()) == 2 and world.is_empty())
    assert list(world.effects) == [good.id]
    assert [one.headers["x-reason"] for one in world.parked()] == [
        "the attribute 'specversion' is missing",
        "nobody here handles t.v9, only t.v1",
    ]


async def test_while_the_parking_lot_is_full_its_messages_wait_and_the_others_are_handled() -> None:
    world = World(max_length=5)
    world.fails |= {"bad": Invalid("nonsense")}
    filler = Message(attributes={}, body=b"", route=Route(DEAD, "q"))
    await world.broker.publish([filler] * 5)
    await world.tell(event("bad"))
    async with world.consuming():
        await world.until(lambda: len(world.broker.published) > 8)  # tried again
        await world.tell(event("good"))
        await world.until(lambda: "good" in world.effects.values())
        assert len(world.parked()) == 5
        assert not world.is_empty()
        world.broker.server.ready[PARKING].clear()
        await world.until(world.is_empty)
        assert len(world.parked()) == 1


async def test_what_cannot_be_parked_before_the_end_goes_back_into_its_queue() -> None:
    world = World(max_length=1)
    world.fails["bad"] = Invalid("nonsense")
    await world.broker.publish([Message(attributes={}, body=b"", route=Route(DEAD, "q"))])
    await world.tell(event("bad"))
    async with world.consuming():
        await world.until(lambda: len(world.broker.published) > 3)
    assert len(world.broker.ready("q")) == 1


# -- a database that is away


async def test_a_database_that_is_away_is_nobodys_failed_attempt() -> None:
    world = World()
    world.is_away = True
    await world.tell(*(event(str(number)) for number in range(5)))
    async with world.consuming():
        await world.until(lambda: world.looks > 3)
        world.is_away = False
        await world.until(world.is_empty)
    assert len(world.effects) == 5
    assert len(world.broker.published) == 5, "none was sent on"


async def test_a_database_that_goes_away_in_the_middle_of_a_batch_is_nobodys_failed_attempt() -> None:
    world, breaks = World(), [True, True]

    async def handle(event: Event, data: Anything) -> None:
        if breaks and not world.is_away:
            world.is_away = breaks.pop()
        await world.handle(event, data)

    world.handlers.on("t.v1", Anything, handle)
    await world.tell(*(event(str(number)) for number in range(5)))
    async with world.consuming():
        for _ in range(2):  # in the middle of the batch, and then of the first message that is handled alone
            await world.until(lambda: world.is_away)
            world.looks = 0
            await world.until(lambda: world.looks > 2)
            assert not world.effects
            world.is_away = False
        await world.until(world.is_empty)
    assert (len(world.effects), len(world.broker.published)) == (5, 5)


async def test_whoever_waits_for_the_database_can_be_stopped_and_leaves_all_messages() -> None:
    world = World()
    world.is_away = True
    await world.tell(event(), event("2"))
    async with world.consuming():
        await world.until(lambda: world.looks > 1)
    assert len(world.broker.ready("q")) == 2


async def test_a_message_at_which_the_transaction_fails_each_time_is_found_and_the_others_are_handled() -> None:
    world = World()
    world.commit_fails = {"2"}
    await world.tell(*(event(str(number)) for number in range(5)))
    async with world.consuming():
        await world.until(lambda: world.parked() and world.is_empty())
    assert sorted(world.effects.values()) == ["0", "1", "3", "4"]
    assert world.parked()[0].headers["x-attempt"] == 3


# -- the broker, and the end


async def test_a_consumer_that_loses_its_broker_says_so() -> None:
    world = World()

    async def loses_it() -> None:
        async with world.consuming() as task:
            await world.tell(event())
            await world.until(world.is_empty)
            world.broker.lose()
            await asyncio.wait_for(asyncio.shield(task), 5)

    with pytest.raises(Unavailable):
        await loses_it()


async def test_what_is_in_hand_is_finished_before_the_end_and_the_rest_handed_back() -> None:
    world = World()
    begun, go_on = asyncio.Event(), asyncio.Event()

    async def handle(event: Event, data: Anything) -> None:
        begun.set()
        await go_on.wait()
        await world.handle(event, data)

    world.handlers.on("t.v1", Anything, handle)
    await world.tell(*(event(str(number)) for number in range(5)))
    async with world.consuming(batch=2) as task:
        await asyncio.wait_for(begun.wait(), 5)
        world.stop.set()
        go_on.set()
        await asyncio.wait_for(task, 5)
    assert sorted(world.effects.values()) == ["0", "1"]
    assert len(world.broker.ready("q")) == 3


async def test_work_is_begun_again_while_a_server_is_away_and_ends_with_any_other_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "FIRST_PAUSE_S", 0.001)
    outcomes = [LookupError("a bug"), Unavailable("away"), Unavailable("away")]

    async def attempt(stop: asyncio.Event) -> None:
        raise outcomes.pop()

    with pytest.raises(LookupError):
        await asyncio.wait_for(worker.persist(attempt, asyncio.Event()), 5)
    assert outcomes == []


async def test_work_that_waits_for_a_server_can_be_stopped() -> None:
    stop = asyncio.Event()

    async def attempt(stop: asyncio.Event) -> None:
        stop.set()
        raise Unavailable("away")

    await asyncio.wait_for(worker.persist(attempt, stop), 5)


# -- decisions


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (Unhandleable("no such type"), "no such type"),
        (Invalid("nonsense"), "Invalid: nonsense"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("one\ntwo"), "ValueError: one"),
        (OSError("no way to amqp://shop:secret@host:1/x"), "OSError: no way to amqp://***@host:1/x"),
        (ValueError("a\x00b\ud800c"), "ValueError: a b c"),
        (
            IntegrityError("INSERT …", {"password": "secret"}, Exception("duplicate\nDETAIL: Key (code)=(secret)")),
            "IntegrityError: (builtins.Exception) duplicate",
        ),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_reason_is_one_line_without_secrets(error: Exception, reason: str) -> None:
    assert Failure.of(error).reason == reason


def test_a_reason_has_a_limit() -> None:
    assert len(Failure.of(ValueError("x" * 10_000)).reason) == MAX_REASON


@pytest.mark.parametrize("written", [None, "2", 0, -3, True, 10**12, 1.5, b"2", [2]])
def test_what_a_stranger_writes_for_the_attempt_is_not_believed(written: object) -> None:
    assert attempt_of({"x-attempt": written}) == 1


def sent_on(attributes: dict[str, object], headers: dict[str, object]) -> Message:
    delivery = MemoryDelivery(attributes, headers, b"{}", "q")
    return onward(delivery, "q", Failure("why", is_permanent=False), TOPOLOGY, NOW)


def test_what_the_broker_has_said_of_a_message_and_who_else_was_to_get_it_are_not_copied() -> None:
    headers = {"CC": ["other"], "BCC": ["other"], "x-death": [{}], "x-first-death-queue": "q", "x-delivery-count": 3}
    assert set(sent_on({}, {**headers, "x-queue": "q", "x-replays": 1}).headers) == {
        "x-attempt",
        "x-reason",
        "x-reason-1",
        "x-replays",
    }


def test_whatever_a_stranger_sends_can_be_sent_on() -> None:
    odd: dict[str, object] = {
        "bytes": b"\xff",
        "date": NOW,
        "table": {"a": [1]},
        "none": None,
        "real": 1.5,
        "true": True,
    }
    copy = sent_on(odd, {**odd, "number": 7})
    assert all(type(value) is str for value in copy.attributes.values())
    assert {type(value) for value in copy.headers.values()} == {str, int}
    assert copy.headers["number"] == 7


@pytest.mark.parametrize("length", [1, 100, 60_000])
def test_a_copy_of_a_message_with_too_many_headers_still_fits_into_a_frame(length: int) -> None:
    many: dict[str, object] = {f"name{number}": "x" * length for number in range(120_000 // (length + 10))}
    copy = sent_on({"id": "1", **many}, many)
    size = sum(len(str(name)) + len(str(value)) for name, value in (*copy.attributes.items(), *copy.headers.items()))
    assert size <= MAX_ATTRIBUTES_BYTES
    assert copy.attributes["id"] == "1"
    assert copy.headers["x-reason"] == "why"
