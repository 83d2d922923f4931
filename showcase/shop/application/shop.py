"""What can be done with orders and products.

An order is a saga: payment, stock and the clock are heard, each step is told, and so the next one is asked for.
Source: Microservices Patterns (Richardson, 2018), ch. 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from showcase.kernel.errors import Forbidden, Invalid
from showcase.kernel.events import Event, EventSink
from showcase.kernel.principal import Principal, Scope
from showcase.shop.application.events import HEARS, OrderNumber, alarm_after, change_of, step_of
from showcase.shop.application.ports import (
    CHANGEABLE,
    Changed,
    Orders,
    OrderSummary,
    Product,
    Products,
    Step,
    Transaction,
    nobody,
)
from showcase.shop.domain import (
    HouseholdId,
    Line,
    NoSuchOrder,
    NoSuchProduct,
    Order,
    OrderId,
    ProductId,
    advance,
    place,
)

log = structlog.get_logger()


class NotAHousehold(Forbidden):
    """Only a household has a basket."""


class NoSuchChange(Invalid):
    """This is nothing that can be changed of a product."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """The use cases. What happens within one `transaction` happens wholly or not at all.

    Attributes:
        order_within: an order that is not reserved by then is cancelled.
        changed: told of each change of a product after it has committed, before its request is answered. It takes
            its own time to a limit; what it raises is logged, since the change is made.
    """

    transaction: Transaction
    orders: Orders
    products: Products
    events: EventSink
    order_within: timedelta
    changed: Changed = nobody

    async def place(self, caller: Principal, lines: Sequence[Line], reference: str) -> Order:
        """Take a household's basket as an order; its event becomes known if, and only if, the order is stored.

        So does the alarm for when its time is up.

        Raises NotAHousehold, EmptyBasket, BasketTooLarge, UnknownProduct, UnknownHousehold.
        """
        if caller.household_id is None:
            raise NotAHousehold("orders are placed with a household's token")
        order = place(HouseholdId(caller.household_id), lines, reference)
        async with self.transaction():
            await self.orders.add(order)
            placed = step_of(order)
            await self.events.add(placed)
            await self.events.add(alarm_after(placed, order), after=self.order_within)
        return order

    async def order(self, caller: Principal, order_id: OrderId) -> Order:
        """An order that the caller may see. Raises NoSuchOrder, also for one that is somebody else's."""
        async with self.transaction():
            order = await self.orders.find(order_id)
        if order is None or not _may_see(caller, order.household_id):
            raise NoSuchOrder(f"there is no order {order_id} of yours")
        return order

    async def steps(self, caller: Principal, order_id: OrderId) -> Sequence[Step]:
        """The way of an order that the caller may see. Raises NoSuchOrder."""
        async with self.transaction():
            await self.order(caller, order_id)
            return await self.orders.steps(order_id)

    async def own_orders(self, caller: Principal, before: OrderId | None, limit: int) -> Sequence[OrderSummary]:
        """The caller's orders, the newest first. Raises NotAHousehold."""
        if caller.household_id is None:
            raise NotAHousehold("only a household has orders of its own")
        return await self.orders.of_household(HouseholdId(caller.household_id), before, limit)

    async def product(self, product_id: ProductId) -> Product:
        """An article of the catalogue. Raises NoSuchProduct."""
        product = await self.products.find(product_id)
        if product is None:
            raise _no_product(product_id)
        return product

    async def products_by_id(self, product_ids: Sequence[ProductId]) -> Sequence[Product]:
        """Articles in the order in which they are asked for; those that there are not are left out."""
        found = await self.products.find_many(list(dict.fromkeys(product_ids)))
        return [found[product_id] for product_id in product_ids if product_id in found]

    async def change_product(
        self, product_id: ProductId, changes: Mapping[str, str | None], if_version: int | None = None
    ) -> Product:
        """Change an article; its event becomes known if, and only if, the change is stored.

        Args:
            changes: of some columns (`CHANGEABLE`); None for what is no longer known.
            if_version: only if it is of this version still, so that nobody's change is lost.

        Raises NoSuchChange, NoSuchProduct, Overtaken.
        """
        if not changes or not changes.keys() <= CHANGEABLE:
            raise NoSuchChange(f"of a product can be changed: {', '.join(sorted(CHANGEABLE))}")
        async with self.transaction():
            product = await self.products.change(product_id, changes, if_version)
            if product is None:
                raise _no_product(product_id)
            await self.events.add(change_of(product))
        try:
            await self.changed(product_id, product.version)
        except Exception:
            log.exception("nobody was told that a product has changed", product_id=product_id)
        return product

    async def heard(self, event: Event, data: OrderNumber) -> None:
        """Take an order one step on, since another service, or the clock, told something; see `HEARS`.

        What is heard twice, or too late, changes nothing. Raises NoSuchOrder; WrongStep for what is heard too early.
        """
        order_id = OrderId(data.order_id)
        async with self.transaction():
            order = await self.orders.find(order_id, to_change=True)
            if order is None:
                raise NoSuchOrder(f"there is no order {order_id}")
            moved = advance(order, HEARS[event.type])
            if moved is not None:
                await self.orders.save_step(moved, cause=event.id)
                await self.events.add(step_of(moved))


def _no_product(product_id: ProductId) -> NoSuchProduct:
    return NoSuchProduct(f"the catalogue has no product {product_id}")


def _may_see(caller: Principal, household_id: HouseholdId) -> bool:
    return caller.household_id == household_id or Scope.ORDERS_FOLLOW in caller.scopes
