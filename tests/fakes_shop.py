"""The shop in memory, and payment and stock with it.

Payment and stock have the real services' rules in other words; the same state machine, `tests/sagas.py`, runs on both.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count
from typing import Any
from uuid import UUID

from showcase.kernel.clock import system_clock
from showcase.kernel.events import Event, EventSink
from showcase.kernel.principal import Principal, Scope
from showcase.messaging.application.handlers import Handlers
from showcase.messaging.domain import Topology
from showcase.services import payment, stock
from showcase.shop.application import HEARS, OrderNumber, OrderSummary, Overtaken, Product, Shop, Step
from showcase.shop.domain import HouseholdId, Order, OrderId, ProductId
from tests.fakes_outbox import Memory, MemoryOutbox

WITHIN = timedelta(minutes=10)
HOUSEHOLD = Principal(subject="households/7", scopes=frozenset({Scope.ORDERS_READ, Scope.ORDERS_WRITE}))
SHELF = 5
"""What a shelf holds at first."""
LIMIT_CENTS = 1_000
"""Dearer orders are declined."""


class MemoryOrders:
    """See `SqlOrders`."""

    def __init__(self, memory: Memory) -> None:
        self._orders: dict[OrderId, Order] = memory.table("orders")
        self._steps: dict[tuple[OrderId, int], Step] = memory.table("order_steps")

    async def add(self, order: Order) -> None:
        await self.save_step(order, cause="")

    async def find(self, order_id: OrderId, *, to_change: bool = False) -> Order | None:
        return self._orders.get(order_id)

    async def save_step(self, order: Order, cause: str) -> None:
        step = Step(version=order.version, status=order.status, reason=order.reason, at=system_clock(), cause=cause)
        self._orders[order.id], self._steps[order.id, order.version] = order, step

    async def steps(self, order_id: OrderId) -> Sequence[Step]:
        return [step for (of, _), step in sorted(self._steps.items()) if of == order_id]

    async def of_household(
        self, household_id: HouseholdId, before: OrderId | None, limit: int
    ) -> Sequence[OrderSummary]:
        return []

    async def owner(self, order_id: OrderId) -> HouseholdId | None:
        order = self._orders.get(order_id)
        return None if order is None else order.household_id


class MemoryProducts:
    """See `SqlProducts`."""

    def __init__(self, memory: Memory) -> None:
        self._rows: dict[ProductId, Product] = memory.table("products")
        self._versions = count(1)

    def put(self, product_id: int, **columns: Any) -> Product:
        """Store a product, whatever was there."""
        unknown: dict[str, Any] = dict.fromkeys(("department", "brand", "category", "type", "package_size"))
        product = Product(**{**unknown, **columns, "product_id": product_id, "version": next(self._versions)})
        self._rows[product.product_id] = product
        return product

    async def find(self, product_id: ProductId) -> Product | None:
        return self._rows.get(product_id)

    async def find_many(self, product_ids: Sequence[ProductId]) -> Mapping[ProductId, Product]:
        return {product_id: self._rows[product_id] for product_id in product_ids if product_id in self._rows}

    async def change(
        self, product_id: ProductId, changes: Mapping[str, str | None], if_version: int | None = None
    ) -> Product | None:
        product = self._rows.get(product_id)
        if product is None:
            return None
        if if_version not in (None, product.version):
            raise Overtaken(f"version {product.version}")
        columns: dict[str, Any] = dict(changes)
        self._rows[product_id] = replace(product, **columns, version=next(self._versions))
        return self._rows[product_id]


class ShopFakes:
    """The shop on one memory."""

    def __init__(self, events: EventSink | None = None) -> None:
        self.memory = Memory()
        self.products = MemoryProducts(self.memory)
        self.heard: list[tuple[ProductId, int]] = []
        self.outbox = MemoryOutbox(self.memory, Topology(queues=(), delays=[WITHIN]))
        self.shop = Shop(
            transaction=self.memory.transaction,
            orders=MemoryOrders(self.memory),
            products=self.products,
            events=events or self.outbox,
            order_within=WITHIN,
            changed=self.hear,
        )

    async def hear(self, product_id: ProductId, version: int) -> None:
        """What the shop tells at once of a product that has changed; `heard` has it all."""
        self.heard.append((product_id, version))

    @property
    def orders(self) -> dict[OrderId, Order]:
        return self.memory.table("orders")


# -- payment and stock, each in the words of its own module


@dataclass
class MemoryPayment:
    """See `services.payment`."""

    events: EventSink
    decisions: dict[UUID, str] = field(default_factory=dict)
    charges: "Counter[UUID]" = field(default_factory=Counter)
    refunds: "Counter[UUID]" = field(default_factory=Counter)

    def handlers(self) -> Handlers:
        handlers = Handlers()
        handlers.on("shop.order.placed.v1", payment.PlacedOrder, self.charge)
        handlers.on("shop.order.cancelled.v1", payment.CancelledOrder, self.settle)
        return handlers

    async def charge(self, event: Event, order: payment.PlacedOrder) -> None:
        if order.order_id in self.decisions:
            return
        is_charged = order.total_cents <= LIMIT_CENTS
        self.decisions[order.order_id] = "charged" if is_charged else "declined"
        self.charges[order.order_id] += is_charged
        await self.events.add(of("payment.order.charged.v1" if is_charged else "payment.order.declined.v1", order))

    async def settle(self, event: Event, order: payment.CancelledOrder) -> None:
        state = self.decisions.get(order.order_id)
        if state in ("void", "refunded"):
            return
        self.decisions[order.order_id] = "refunded" if state == "charged" else "void"
        self.refunds[order.order_id] += state == "charged"
        await self.events.add(of("payment.order.settled.v1", order))


@dataclass
class MemoryStock:
    """See `services.stock`."""

    events: EventSink
    states: dict[UUID, str] = field(default_factory=dict)
    picks: "dict[UUID, Counter[int]]" = field(default_factory=dict)
    shelves: dict[int, int] = field(default_factory=dict)

    def handlers(self) -> Handlers:
        handlers = Handlers()
        handlers.on("shop.order.paid.v1", stock.PaidOrder, self.reserve)
        handlers.on("shop.order.reserved.v1", stock.OrderNumber, self.pack)
        handlers.on("shop.order.cancelled.v1", stock.OrderNumber, self.release)
        return handlers

    async def reserve(self, event: Event, order: stock.PaidOrder) -> None:
        if order.order_id in self.states:
            return
        wanted = Counter[int]()
        for line in order.lines:
            wanted[line.product_id] += line.quantity
        is_short = any(self.shelves.setdefault(product, SHELF) < pieces for product, pieces in wanted.items())
        self.states[order.order_id] = "short" if is_short else "reserved"
        if not is_short:
            self.picks[order.order_id] = wanted
            for product, pieces in wanted.items():
                self.shelves[product] -= pieces
        await self.events.add(of(f"stock.order.{self.states[order.order_id]}.v1", order))

    async def pack(self, event: Event, order: stock.OrderNumber) -> None:
        if self.states.get(order.order_id) == "packed":
            return
        if self.states.get(order.order_id) != "reserved":
            raise stock.NotReserved("nothing is kept for it")
        self.states[order.order_id] = "packed"
        await self.events.add(of("stock.order.packed.v1", order))

    async def release(self, event: Event, order: stock.OrderNumber) -> None:
        if self.states.setdefault(order.order_id, "void") == "reserved":
            self.states[order.order_id] = "released"
            for product, pieces in self.picks.pop(order.order_id).items():
                self.shelves[product] += pieces


def of(type_: str, order: payment.PlacedOrder | payment.CancelledOrder | stock.PaidOrder | stock.OrderNumber) -> Event:
    """An event of an order, with no more data than its number."""
    number = str(order.order_id)
    return Event(type=type_, source="/test", subject=f"orders/{number}", data={"order_id": number})


def handlers_of(shop: Shop) -> Handlers:
    """What the consumer of the shop's queue does."""
    handlers = Handlers()
    for type_ in HEARS:
        handlers.on(type_, OrderNumber, shop.heard)
    return handlers
