"""In-memory orders, outbox, inbox and broker: one memory with transactions, behind the ports of the slices.

The outbox and the inbox pass the same contract tests as those in PostgreSQL, the broker those of RabbitMQ.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.messaging.application import one_a_subject
from showcase.messaging.domain import PARKING, Topology
from showcase.shop.application import OrderSummary, Product, Shop
from showcase.shop.domain import HouseholdId, Order, OrderId, ProductId


class Memory:
    """What several fakes keep together. A transaction that fails leaves all of it as it was."""

    def __init__(self) -> None:
        self.orders: dict[OrderId, Order] = {}
        self.outbox: list[Event] = []
        self.published: set[str] = set()
        self.handled: set[tuple[str, str]] = set()
        self._depth = 0

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[object]:
        before = (dict(self.orders), list(self.outbox), set(self.published), set(self.handled))
        self._depth += 1
        try:
            yield self
        except BaseException:
            self.orders, self.outbox, self.published, self.handled = before
            raise
        finally:
            self._depth -= 1


@dataclass(frozen=True, slots=True)
class MemoryOrders:
    memory: Memory

    async def add(self, order: Order) -> None:
        self.memory.orders[order.id] = replace(order, events=())

    async def find(self, order_id: OrderId, *, to_change: bool = False) -> Order | None:
        return self.memory.orders.get(order_id)

    async def save_step(self, order: Order) -> None:
        self.memory.orders[order.id] = replace(order, events=())

    async def of_household(
        self, household_id: HouseholdId, before: OrderId | None, limit: int
    ) -> Sequence[OrderSummary]:
        return []

    async def owner(self, order_id: OrderId) -> HouseholdId | None:
        order = self.memory.orders.get(order_id)
        return None if order is None else order.household_id


class NoProducts:
    async def find(self, product_id: ProductId) -> Product | None:
        return None


@dataclass(slots=True)
class MemoryOutbox:
    memory: Memory
    is_full: bool = False

    async def add(self, event: Event) -> None:
        if self.is_full:
            raise MemoryError
        self.memory.outbox.append(event)

    async def relay(self, publish: Callable[[Sequence[Event]], Awaitable[Sequence[bool]]], limit: int) -> int:
        waiting = [event for event in self.memory.outbox if event.id not in self.memory.published][:limit]
        if not (chosen := one_a_subject(waiting)):
            return 0
        taken = await publish(chosen)
        marked = {event.id for event, is_taken in zip(chosen, taken, strict=True) if is_taken}
        self.memory.published |= marked
        return len(marked)


@dataclass(frozen=True, slots=True)
class MemoryInbox:
    memory: Memory
    consumer: str = "shop"

    async def first_time(self, event: Event) -> bool:
        seen = (self.consumer, event.id) in self.memory.handled
        self.memory.handled.add((self.consumer, event.id))
        return not seen


class Fakes:
    """The shop on one memory."""

    def __init__(self) -> None:
        self.memory = Memory()
        self._outbox = MemoryOutbox(self.memory)
        self.shop = Shop(
            transaction=self.memory.transaction,
            orders=MemoryOrders(self.memory),
            products=NoProducts(),
            events=self._outbox,
            inbox=MemoryInbox(self.memory),
        )

    @property
    def orders(self) -> dict[OrderId, Order]:
        return self.memory.orders

    @property
    def waiting(self) -> list[Event]:
        return [event for event in self.memory.outbox if event.id not in self.memory.published]

    @property
    def outbox_is_full(self) -> bool:
        return self._outbox.is_full

    @outbox_is_full.setter
    def outbox_is_full(self, is_full: bool) -> None:
        self._outbox.is_full = is_full


@dataclass(frozen=True, slots=True)
class MemoryDelivery:
    attributes: dict[str, object]
    body: bytes
    queue: str


class MemoryBroker:
    """Queues of messages. One consumer a queue."""

    def __init__(self, topology: Topology, max_length: int = 1_000) -> None:
        self.topology = topology
        self.max_length = max_length
        self.queues = {name: deque[MemoryDelivery]() for name in (PARKING, *(queue.name for queue in topology.queues))}
        self.out: dict[str, asyncio.Queue[MemoryDelivery | None]] = {}
        self.is_lost = False

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        self.check()
        return [self._take(event) for event in events]

    async def consume(self, queue: str, prefetch: int) -> "asyncio.Queue[MemoryDelivery | None]":
        self.out[queue] = asyncio.Queue()
        for delivery in self.queues[queue]:
            self.out[queue].put_nowait(delivery)
        return self.out[queue]

    def check(self) -> None:
        if self.is_lost:
            raise Unavailable("the connection was lost")

    def acknowledge(self, delivery: MemoryDelivery) -> None:
        self.check()
        self.queues[delivery.queue].remove(delivery)

    def park(self, delivery: MemoryDelivery) -> None:
        self.acknowledge(delivery)
        self.queues[PARKING].append(replace(delivery, queue=PARKING))

    def lose(self) -> None:
        """The connection breaks: what was not acknowledged is still in its queue."""
        self.is_lost = True
        for out in self.out.values():
            out.put_nowait(None)

    def _take(self, event: Event) -> bool:
        takers = [
            queue.name
            for queue in self.topology.queues
            if any(fnmatchcase(event.type, pattern.replace("#", "*")) for pattern in queue.types)
        ]
        if not takers or any(len(self.queues[name]) >= self.max_length for name in takers):
            return False
        for name in takers:
            delivery = MemoryDelivery(dict(event.attributes()), event.body(), name)
            self.queues[name].append(delivery)
            if name in self.out:
                self.out[name].put_nowait(delivery)
        return True
