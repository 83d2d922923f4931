"""Relay, consumer and keeper of the parking lot, any of which may die, or lose its connection, between any two steps.

Their real code, on an outbox, an inbox and a broker in memory. Whatever happens: each order has exactly one effect,
each message that nobody can handle is parked exactly once, and in the end nothing waits.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from itertools import count
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from pydantic import BaseModel
from structlog.testing import capture_logs

from showcase.kernel.errors import Invalid, Unavailable
from showcase.kernel.events import Event
from showcase.messaging.application.handlers import Handlers
from showcase.messaging.application.ports import Publish
from showcase.messaging.domain import PARKING, Message, Outcome, Queue, Topology
from showcase.messaging.worker.consumer import consume
from showcase.messaging.worker.parking import ingest
from showcase.messaging.worker.relay import relay
from tests.fakes_broker import MemoryBroker, MemoryDelivery, MemoryServer
from tests.fakes_outbox import Memory, MemoryInbox, MemoryOutbox
from tests.fakes_parked import Kept, MemoryParkingLot

CHECKED = settings(
    max_examples=150,
    stateful_step_count=8,
    deadline=None,
    database=None,
    phases=[Phase.generate],  # what fails is shown as it was found: to make it shorter takes half a minute
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
NOW = timedelta(0)
TOPOLOGY = Topology(queues=[Queue(name="payment", types=("order.placed.v1",))], retries=(NOW, NOW))
TURNS = 5_000
"""Of the event loop: more than any run needs."""
ORDERS = {"fine": 0, "fails once": 1, "fails twice": 2}
"""How often the handler of an order fails at first; the ladder has two rungs."""
POISONS = ("cannot be read", "is never valid", "always fails")
POINTS = {
    "relay": ("before publishing", "after publishing", "when marked"),
    "consumer": (
        *("before the transaction", "in the handler", "before the commit", "after the commit"),
        *("before publishing", "after publishing", "before acknowledging", "after acknowledging"),
    ),
    "keeper": ("before acknowledging", "after acknowledging"),
}
"""Where each may be struck: between two of its steps. What a consumer publishes is the copy of a message that is tried
again later, or parked."""
FAULTS = st.sampled_from(sorted(POINTS)).flatmap(lambda who: st.tuples(st.just(who), st.sampled_from(POINTS[who])))


class Killed(BaseException):
    """The process is gone: nothing of what it would have done happens."""


@dataclass(slots=True)
class Fault:
    """What strikes a process.

    Attributes:
        after: it strikes when the process gets to the point for this time.
        kills: if not, only the connection to the broker is lost.
    """

    point: str
    after: int
    kills: bool


class Process:
    """A process, and its connection to the broker. Whatever it does, it does by way of its methods."""

    def __init__(self, server: MemoryServer, memory: Memory, fault: Fault | None) -> None:
        self.is_dead = False
        self._broker = MemoryBroker(server.topology, server=server)
        self._memory = memory
        self._fault = fault

    def reach(self, point: str) -> None:
        """Come to a point between two steps."""
        if self.is_dead:
            raise Killed
        if self._fault is None or self._fault.point != point:
            return
        self._fault.after -= 1
        if self._fault.after == 0:
            self._broker.lose()
            self.is_dead = self._fault.kills
        if self.is_dead:
            raise Killed

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        async with self._memory.transaction():
            yield
            self.reach("before the commit")
        self.reach("after the commit")

    async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        self.reach("before publishing")
        outcomes = await self._broker.publish(messages)
        self.reach("after publishing")
        self._broker.check()  # if it is lost by now, so is the answer
        return outcomes

    async def consume(self, queue: str, prefetch: int) -> "asyncio.Queue[MemoryDelivery | None]":
        return await self._broker.consume(queue, prefetch)

    async def hand_back(self) -> None:
        await self._broker.hand_back()

    def acknowledge(self, deliveries: Sequence[MemoryDelivery]) -> None:
        if deliveries:
            self.reach("before acknowledging")
            self._broker.acknowledge(deliveries)
            self.reach("after acknowledging")

    def check(self) -> None:
        self._broker.check()


@dataclass(frozen=True, slots=True)
class Marking:
    """An outbox whose relay may die when it has marked what it has sent."""

    outbox: MemoryOutbox
    process: Process

    async def relay(self, publish: Publish, limit: int) -> int:
        marked = await self.outbox.relay(publish, limit)
        if marked:
            self.process.reach("when marked")
        return marked


class Placed(BaseModel):
    """The data of an order's event."""

    number: int
    how: str


class Crashing(RuleBasedStateMachine):
    """One outbox, one queue, two consumers of it."""

    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.memory = Memory()
        self.outbox = MemoryOutbox(self.memory)
        self.inbox = MemoryInbox(self.memory, "payment")
        self.lot = MemoryParkingLot(self.memory, {})
        self.effects: dict[str, int] = self.memory.table("effects")
        self.server = MemoryServer(TOPOLOGY, max_length=1_000)
        self.numbers = count()
        self.orders: set[str] = set()
        self.poisons: set[str] = set()
        self.failures: dict[int, int] = {}

    # -- what happens

    @initialize()
    def begin(self) -> None:
        """So that there is something for everybody from the beginning."""
        for how in (*ORDERS, *POISONS):
            self.place(how, dies=False)

    @precondition(lambda self: len(self.orders) + len(self.poisons) < 12)
    @rule(how=st.sampled_from([*ORDERS, *POISONS]), dies=st.integers(0, 5).map(lambda number: number == 5))
    def place(self, how: str, dies: bool) -> None:
        number = next(self.numbers)
        data: dict[str, object] = {"how": how} if how == "cannot be read" else {"number": number, "how": how}
        event = Event(type="order.placed.v1", source="/t", subject=f"orders/{number % 3}", data=data)
        self.failures[number] = ORDERS.get(how, 0)
        with suppress(Killed):
            self.runner.run(self.store(event, dies))
            (self.orders if how in ORDERS else self.poisons).add(event.id)

    async def store(self, event: Event, dies: bool) -> None:
        async with self.memory.transaction():
            await self.outbox.add(event)
            if dies:
                raise Killed

    @rule(fault=FAULTS, after=st.integers(1, 2), kills=st.booleans())
    def work(self, fault: tuple[str, str], after: int, kills: bool) -> None:
        who, point = fault
        self.work_on(who, Fault(point, after, kills))

    def work_on(self, struck: str = "", fault: Fault | None = None) -> None:
        """One after the other, as far as each gets."""
        with capture_logs():
            for who, work in {"relay": self.relay, "consumer": self.consumer, "keeper": self.keeper}.items():
                self.runner.run(work(fault if who == struck else None))

    def teardown(self) -> None:
        self.work_on()
        assert self.effects == dict.fromkeys(self.orders, 1)
        parked: list[Kept] = list(self.memory.table("parked").values())
        assert sorted(kept.parked.event_id for kept in parked) == sorted(self.poisons)
        assert not any(self.server.ready.values())
        assert all(row.published_at for row in self.outbox.rows.values())

    # -- the processes

    async def relay(self, fault: Fault | None) -> None:
        process = self.process(fault)
        outbox = Marking(self.outbox, process)

        async def woken(within_s: float) -> bool:
            await asyncio.sleep(within_s)
            return False

        await finish(
            lambda stop: relay([outbox], process, woken, stop, batch=3, poll_s=1, lanes=2),
            lambda: not any(row.is_waiting for row in self.outbox.rows.values()),
        )

    async def consumer(self, fault: Fault | None) -> None:
        """Two of them; the fault strikes one."""
        waiting = [name for name in self.server.ready if name != PARKING]

        def is_done() -> bool:
            return not any(self.server.ready[name] for name in waiting) and self.are_settled()

        first, second = self.process(fault), self.process(None)
        await asyncio.gather(*(finish(self.consuming(one), is_done) for one in (first, second)))

    def consuming(self, process: Process) -> Callable[[asyncio.Event], Coroutine[Any, Any, None]]:
        handlers = Handlers()

        async def ask(event: Event, data: Placed) -> None:
            process.reach("before the transaction")

        async def charge(event: Event, data: Placed, _: None) -> None:
            self.effects[event.id] = self.effects.get(event.id, 0) + 1
            process.reach("in the handler")
            if data.how == "is never valid":
                raise Invalid("not now, not ever")
            if data.how == "always fails" or self.failures[data.number] > 0:
                self.failures[data.number] -= 1
                raise RuntimeError("nobody foresaw it")

        handlers.on("order.placed.v1", Placed, charge, ask=ask)
        return lambda stop: consume(
            process,
            "payment",
            handlers,
            stop,
            topology=TOPOLOGY,
            inbox=self.inbox,
            transaction=process.transaction,
            savepoint=self.memory.savepoint,
            prefetch=4,
            batch=2,
        )

    async def keeper(self, fault: Fault | None) -> None:
        process = self.process(fault)
        await finish(
            lambda stop: ingest(process, PARKING, self.lot, stop),
            lambda: not self.server.ready[PARKING] and self.are_settled(),
        )

    def process(self, fault: Fault | None) -> Process:
        return Process(self.server, self.memory, fault)

    def are_settled(self) -> bool:
        return not any(consumer.out for consumer in self.server.consumers)


async def finish(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]], is_done: Callable[[], bool]) -> None:
    """Let a process work until there is nothing to do, or it dies, or it loses its connection."""
    stop = asyncio.Event()
    working = asyncio.create_task(work(stop))
    for _ in range(TURNS):
        await asyncio.sleep(0)
        if is_done() or working.done():
            break
    else:
        raise AssertionError("it never comes to an end")
    stop.set()
    with suppress(Killed, Unavailable):
        await working


def test_whoever_dies_wherever_each_order_has_one_effect_and_each_poison_is_parked_once() -> None:
    with asyncio.Runner() as runner:

        class InOneLoop(Crashing):
            def __init__(self) -> None:
                self.runner = runner
                super().__init__()

        run_state_machine_as_test(InOneLoop, settings=CHECKED)
