"""What can be done with orders and products, and what that needs."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol
from uuid import UUID

from showcase.kernel.errors import Forbidden
from showcase.kernel.events import Event, EventSink
from showcase.kernel.principal import Principal, Scope
from showcase.shop.domain import (
    HouseholdId,
    Line,
    NoSuchOrder,
    NoSuchProduct,
    Order,
    OrderId,
    ProductId,
    Status,
    advance,
    place,
)

STEPS: Mapping[str, Status] = {
    "payment.order.charged.v1": Status.PAID,
    "payment.order.declined.v1": Status.REFUSED,
    "stock.order.packed.v1": Status.PACKED,
}
"""What an order does when another service tells something."""


class NotAHousehold(Forbidden):
    """Only a household has a basket."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """An article of the catalogue; None where the catalogue does not say."""

    product_id: ProductId
    department: str | None
    brand: str | None
    category: str | None
    type: str | None
    package_size: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSummary:
    """An order without its lines."""

    order_id: OrderId
    household_id: HouseholdId
    reference: str
    status: Status
    version: int
    line_count: int
    total_cents: int
    placed_at: datetime


class Orders(Protocol):
    """Where orders are kept."""

    async def add(self, order: Order) -> None:
        """Raises UnknownProduct, UnknownHousehold."""

    async def find(self, order_id: OrderId, *, to_change: bool = False) -> Order | None:
        """The order, all of it.

        Args:
            to_change: nobody else changes it until the transaction ends.
        """

    async def save_step(self, order: Order) -> None:
        """Store where a known order stands now."""

    async def of_household(
        self, household_id: HouseholdId, before: OrderId | None, limit: int
    ) -> Sequence[OrderSummary]:
        """The newest first; only those older than `before`, if it is given."""

    async def owner(self, order_id: OrderId) -> HouseholdId | None:
        """Whose it is."""


class Products(Protocol):
    """Where the catalogue is read."""

    async def find(self, product_id: ProductId) -> Product | None: ...


class Inbox(Protocol):
    """Remembers which events were handled."""

    async def first_time(self, event: Event) -> bool: ...


Transaction = Callable[[], AbstractAsyncContextManager[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The use cases. What happens within one `transaction` happens wholly or not at all."""

    transaction: Transaction
    orders: Orders
    products: Products
    events: EventSink
    inbox: Inbox

    async def place(self, caller: Principal, lines: Sequence[Line], reference: str) -> Order:
        """Take a household's basket as an order; its event becomes known if, and only if, the order is stored.

        Raises NotAHousehold, EmptyBasket, BasketTooLarge, UnknownProduct, UnknownHousehold.
        """
        if caller.household_id is None:
            raise NotAHousehold("orders are placed with a household's token")
        order = place(HouseholdId(caller.household_id), lines, reference)
        async with self.transaction():
            await self.orders.add(order)
            await self._tell(order)
        return order

    async def order(self, caller: Principal, order_id: OrderId) -> Order:
        """An order that the caller may see. Raises NoSuchOrder, also for one that is somebody else's."""
        async with self.transaction():
            order = await self.orders.find(order_id)
        if order is None or not _may_see(caller, order.household_id):
            raise NoSuchOrder(f"there is no order {order_id} of yours")
        return order

    async def own_orders(self, caller: Principal, before: OrderId | None, limit: int) -> Sequence[OrderSummary]:
        """The caller's orders, the newest first. Raises NotAHousehold."""
        if caller.household_id is None:
            raise NotAHousehold("only a household has orders of its own")
        return await self.orders.of_household(HouseholdId(caller.household_id), before, limit)

    async def product(self, product_id: ProductId) -> Product:
        """An article of the catalogue. Raises NoSuchProduct."""
        product = await self.products.find(product_id)
        if product is None:
            raise NoSuchProduct(f"the catalogue has no product {product_id}")
        return product

    async def heard(self, event: Event) -> None:
        """Move an order on, because another service told that it did its part; once for each event.

        Raises NoSuchOrder, WrongStep, LookupError for a type of event that means nothing here.
        """
        step = STEPS[event.type]
        order_id = OrderId(_uuid(event))
        async with self.transaction():
            if not await self.inbox.first_time(event):
                return
            order = await self.orders.find(order_id, to_change=True)
            if order is None:
                raise NoSuchOrder(f"there is no order {order_id}")
            moved = advance(order, step)
            await self.orders.save_step(moved)
            await self._tell(moved, causation_id=event.id)

    async def _tell(self, order: Order, causation_id: str = "") -> None:
        for event in order.events:
            await self.events.add(replace(event, causation_id=causation_id))


def _may_see(caller: Principal, household_id: HouseholdId) -> bool:
    return caller.household_id == household_id or Scope.ORDERS_FOLLOW in caller.scopes


def _uuid(event: Event) -> UUID:
    return UUID(str(event.data["order_id"]))
