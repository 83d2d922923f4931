"""Outbox, relay, queue and inbox together: whatever breaks between two steps, each order has its effect once."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from showcase.kernel import trace
from showcase.kernel.errors import Conflict, Unavailable
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.messaging import worker
from showcase.messaging.application import Verdict, handle_message, one_a_subject, relay_once
from showcase.messaging.domain import Queue, Topology
from showcase.platform.worker import persist
from showcase.shop.domain import Line, Order, OrderId, ProductId, Status
from tests.fakes_messaging import Fakes, Memory, MemoryBroker, MemoryOutbox

pytestmark = pytest.mark.anyio
HOUSEHOLD = Principal(subject="households/7", scopes=frozenset({Scope.ORDERS_WRITE}))
LINE = Line(product_id=ProductId(1), quantity=2, total_cents=199)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def event(subject: str = "orders/1") -> Event:
    return Event(type="t.v1", source="/s", subject=subject, data={}, traceparent=PARENT)


async def nothing(event: Event) -> None: ...


# -- what becomes of a message


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (None, Verdict.DONE),
        (Unavailable("away"), Verdict.AGAIN),
        (Conflict("wrong step"), Verdict.PARK),
        (ValueError("wrong data"), Verdict.PARK),
        (RecursionError(), Verdict.PARK),
    ],
)
async def test_what_a_handler_raises_decides_what_becomes_of_its_message(
    error: Exception | None, verdict: Verdict
) -> None:
    async def handle(event: Event) -> None:
        if error:
            raise error

    told, why = await handle_message(dict(event().attributes()), b"{}", handle)
    assert told is verdict
    assert bool(why) == (verdict is not Verdict.DONE)


async def test_a_message_that_is_no_event_is_parked_and_never_handled() -> None:
    async def handle(event: Event) -> None:
        pytest.fail("it is no event")

    assert (await handle_message({}, b"{}", handle))[0] is Verdict.PARK
    assert (await handle_message(dict(event().attributes()), b"{", handle))[0] is Verdict.PARK


async def test_a_message_is_handled_as_part_of_the_trace_it_came_with() -> None:
    seen = []

    async def handle(event: Event) -> None:
        seen.append(trace.current())

    await handle_message(dict(event().attributes()), b"{}", handle)
    assert seen[0][:36] == PARENT[:36]


# -- relay and consumer


def test_of_each_subject_only_the_first_event_is_sent_at_once() -> None:
    a, b, c = event("orders/1"), event("orders/2"), event("orders/1")
    assert one_a_subject([a, b, c]) == [a, b]


async def test_a_relay_stops_when_it_is_told_to_and_asks_again_at_once_while_there_is_more() -> None:
    outbox, stop = MemoryOutbox(Memory()), asyncio.Event()
    for number in range(3):
        await outbox.add(event(f"orders/{number}"))
    left_when_waiting = []

    async def woken(within_s: float) -> bool:
        left_when_waiting.append(await relay_once([outbox], broker, 10))
        stop.set()
        return False

    broker = MemoryBroker(Topology([Queue(name="q", types=("t.v1",))]))
    async with asyncio.timeout(5):
        await worker.relay([outbox], broker, woken, stop, batch=1, poll_s=1)
    assert (left_when_waiting, len(broker.queues["q"])) == ([0], 3)


async def test_a_consumer_that_waits_for_a_server_can_be_stopped_and_leaves_its_message() -> None:
    broker = MemoryBroker(Topology([Queue(name="q", types=("t.v1",))]))
    await broker.publish([event()])
    stop = asyncio.Event()

    async def handle(event: Event) -> None:
        stop.set()
        raise Unavailable("away")

    async with asyncio.timeout(5):
        await worker.consume(broker, await broker.consume("q", 1), handle, stop)
    assert len(broker.queues["q"]) == 1


async def test_a_consumer_that_loses_its_broker_says_so() -> None:
    broker = MemoryBroker(Topology([Queue(name="q", types=("t.v1",))]))
    deliveries = await broker.consume("q", 1)
    broker.lose()

    async with asyncio.timeout(5):
        with pytest.raises(Unavailable):
            await worker.consume(broker, deliveries, nothing, asyncio.Event())


async def test_work_is_begun_again_while_a_server_is_away_and_ends_with_any_other_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("showcase.platform.worker.FIRST_PAUSE_S", 0.001)
    outcomes = [Unavailable("away"), Unavailable("away"), LookupError("a bug")]

    async def attempt(stop: asyncio.Event) -> None:
        raise outcomes.pop(0)

    with pytest.raises(LookupError):
        await persist(attempt, asyncio.Event())
    assert outcomes == []


async def test_work_that_waits_for_a_server_can_be_stopped() -> None:
    stop = asyncio.Event()

    async def attempt(stop: asyncio.Event) -> None:
        stop.set()
        raise Unavailable("away")

    async with asyncio.timeout(5):
        await persist(attempt, stop)


def test_a_queue_that_is_none_is_named_with_those_that_are() -> None:
    with pytest.raises(LookupError, match="only q"):
        Topology([Queue(name="q", types=())]).queue("x")


# -- the whole way, with a crash between any two steps


class Crash(Exception):
    """The process ends here."""


class OrdersOnTheirWay(RuleBasedStateMachine):
    """Orders are placed, told, charged and paid; relay and consumers die wherever they like."""

    placed = Bundle("placed")

    def __init__(self) -> None:
        super().__init__()
        self.shop = Fakes()
        self.payment = Fakes()  # another memory: services share nothing
        self.charged: list[OrderId] = []
        self.queues: dict[str, list[Event]] = {"payment": [], "shop": []}
        self.placed_count = 0

    @rule(target=placed)
    def place(self) -> OrderId:
        order: Order = run(self.shop.shop.place(HOUSEHOLD, [LINE], ""))
        self.placed_count += 1
        return order.id

    @rule()
    def place_and_crash_before_the_commit(self) -> None:
        self.shop.outbox_is_full = True
        with pytest.raises(MemoryError):
            run(self.shop.shop.place(HOUSEHOLD, [LINE], ""))
        self.shop.outbox_is_full = False

    @rule(dies=st.booleans(), from_payment=st.booleans())
    def relay(self, dies: bool, from_payment: bool) -> None:
        source, queue = (self.payment, "shop") if from_payment else (self.shop, "payment")

        async def publish(events: Any) -> list[bool]:
            self.queues[queue] += [one for one in events if one.type in TAKES[queue]]
            if dies:
                raise Crash
            return [True] * len(events)

        survive(source._outbox.relay(publish, 2))

    @rule(place=st.integers(0, 50), acknowledges=st.booleans(), dies=st.booleans())
    def pay(self, place: int, acknowledges: bool, dies: bool) -> None:
        if (found := self._delivery("payment", place)) is None:
            return

        async def charge() -> None:
            async with self.payment.memory.transaction():
                charged = list(self.charged)
                if await self.payment.shop.inbox.first_time(found):
                    self.charged.append(order_of(found))
                    await self.payment._outbox.add(answer_to(found))
                if dies:
                    self.charged = charged
                    raise Crash

        if survive(charge()) and acknowledges:
            self.queues["payment"].remove(found)

    @rule(place=st.integers(0, 50), acknowledges=st.booleans())
    def hear(self, place: int, acknowledges: bool) -> None:
        if (found := self._delivery("shop", place)) is None:
            return
        run(self.shop.shop.heard(found))
        if acknowledges:
            self.queues["shop"].remove(found)

    @invariant()
    def nothing_is_done_twice_and_nothing_out_of_nothing(self) -> None:
        assert len(self.charged) == len(set(self.charged))
        assert set(self.charged) <= set(self.shop.orders)
        assert len(self.shop.orders) == self.placed_count
        paid = {order.id for order in self.shop.orders.values() if order.status is Status.PAID}
        assert paid <= set(self.charged)
        assert all(order.version <= 2 for order in self.shop.orders.values())

    def teardown(self) -> None:
        """Once nothing breaks any longer, all goes to its end: each order paid, by one charge."""
        for _ in range(10 + 4 * len(self.shop.orders)):
            self.relay(dies=False, from_payment=False)
            self.relay(dies=False, from_payment=True)
            while self.queues["payment"]:
                self.pay(0, acknowledges=True, dies=False)
            while self.queues["shop"]:
                self.hear(0, acknowledges=True)
        assert {order.status for order in self.shop.orders.values()} <= {Status.PAID}
        assert sorted(self.charged) == sorted(self.shop.orders)

    def _delivery(self, queue: str, place: int) -> Event | None:
        waiting = self.queues[queue]
        return waiting[place % len(waiting)] if waiting else None


TAKES = {"payment": {"shop.order.placed.v1"}, "shop": {"payment.order.charged.v1"}}


def order_of(event: Event) -> OrderId:
    return OrderId(UUID(str(event.data["order_id"])))


def answer_to(event: Event) -> Event:
    return Event(
        type="payment.order.charged.v1",
        source="/payment",
        subject=event.subject,
        data={"order_id": event.data["order_id"]},
        causation_id=event.id,
    )


def run(steps: Any) -> Any:
    """Run a coroutine that never really waits."""
    try:
        steps.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")


def survive(steps: Any) -> bool:
    """Whether it came to its end."""
    try:
        run(steps)
    except Crash:
        return False
    return True


TestOrdersOnTheirWay = OrdersOnTheirWay.TestCase
TestOrdersOnTheirWay.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
