"""What the shop tells of orders and products, and what it hears of others."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel, ConfigDict

from showcase.kernel.events import Event
from showcase.shop.application.ports import Product
from showcase.shop.domain import News, Order, Reason, Status

SOURCE = "/shop"


class LineData(BaseModel):
    """One line of a basket, as it is told."""

    product_id: int
    quantity: int
    total_cents: int


class OrderData(BaseModel):
    """An event tells all of the order: who hears it asks nobody."""

    order_id: UUID
    household_id: int
    reference: str
    status: Status
    version: int
    total_cents: int
    placed_at: datetime
    lines: Sequence[LineData]


class StoppedOrderData(OrderData):
    """An order that is not to be, and why."""

    reason: Reason


class ProductData(BaseModel):
    """An event tells all of the product, as it is now."""

    model_config = ConfigDict(from_attributes=True)

    product_id: int
    version: int
    department: str | None
    brand: str | None
    category: str | None
    type: str | None
    package_size: str | None


class OrderNumber(BaseModel):
    """What an order needs to know of the events that it hears; more may come with them."""

    order_id: UUID


_STEPS: Mapping[Status, str] = {
    Status.PLACED: "shop.order.placed.v1",
    Status.PAID: "shop.order.paid.v1",
    Status.RESERVED: "shop.order.reserved.v1",
    Status.PACKED: "shop.order.packed.v1",
    Status.CANCELLING: "shop.order.cancelled.v1",
    Status.REFUSED: "shop.order.refused.v2",
}
"""By which event each step is told."""
DEADLINE_PASSED = "shop.deadline.passed.v1"
"""An alarm of the shop's own: told late, when an order was placed so long ago."""
PRODUCT_CHANGED = "shop.product.changed.v1"

TELLS: Mapping[str, type[BaseModel]] = {
    "shop.order.placed.v1": OrderData,
    "shop.order.paid.v1": OrderData,
    "shop.order.reserved.v1": OrderData,
    "shop.order.packed.v1": OrderData,
    "shop.order.cancelled.v1": StoppedOrderData,
    "shop.order.refused.v2": StoppedOrderData,
    DEADLINE_PASSED: OrderNumber,
    PRODUCT_CHANGED: ProductData,
}
"""The events of the shop, and their data."""
HEARS: Mapping[str, News] = {
    "payment.order.charged.v1": News.CHARGED,
    "payment.order.declined.v1": News.DECLINED,
    "payment.order.settled.v1": News.SETTLED,
    "stock.order.reserved.v1": News.RESERVED,
    "stock.order.short.v1": News.SHORT,
    "stock.order.packed.v1": News.PACKED,
    DEADLINE_PASSED: News.OVERDUE,
}
"""The events that an order goes on by."""


def step_of(order: Order) -> Event:
    """The event of the step that an order has just made."""
    type_ = _STEPS[order.status]
    values = {
        "order_id": order.id,
        "household_id": order.household_id,
        "reference": order.reference,
        "status": order.status,
        "version": order.version,
        "total_cents": order.total_cents,
        "placed_at": order.placed_at,
        "lines": [
            LineData(product_id=x.product_id, quantity=x.quantity, total_cents=x.total_cents) for x in order.lines
        ],
        "reason": order.reason,
    }
    return _event(type_, f"orders/{order.id}", TELLS[type_].model_validate(values))


def alarm_after(placed: Event, order: Order) -> Event:
    """The event of the order's time being up, to be told then; part of the same story."""
    alarm = _event(DEADLINE_PASSED, placed.subject, OrderNumber(order_id=order.id))
    return replace(alarm, causation_id=placed.id, correlation_id=placed.correlation_id)


def change_of(product: Product) -> Event:
    """The event of the change that was just made to a product."""
    return _event(PRODUCT_CHANGED, f"products/{product.product_id}", ProductData.model_validate(product))


def _event(type_: str, subject: str, data: BaseModel) -> Event:
    return Event(type=type_, source=SOURCE, subject=subject, data=data.model_dump(mode="json"))
