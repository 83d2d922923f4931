"""What a basket may be, and what an order goes through. No I/O, no framework."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from showcase.kernel.clock import system_clock
from showcase.kernel.errors import Conflict, Invalid, NotFound
from showcase.kernel.events import Event
from showcase.kernel.ids import new_uuid

OrderId = NewType("OrderId", UUID)
ProductId = NewType("ProductId", int)
HouseholdId = NewType("HouseholdId", int)

MIN_QUANTITY = 1
MAX_QUANTITY = 1_000
"""What is sold by volume, such as fuel, has quantities above it: that is no line of a basket."""
MAX_LINES = 500
MAX_TOTAL_CENTS = 10_000_00

SOURCE = "/shop"
PLACED = "shop.order.placed.v1"
PAID = "shop.order.paid.v1"
PACKED = "shop.order.packed.v1"
REFUSED = "shop.order.refused.v1"


class EmptyBasket(Invalid):
    """A basket without a line."""


class BasketTooLarge(Invalid):
    """More lines than any real basket has."""


class BadQuantity(Invalid):
    """A line with less than one piece, or with more than anybody carries."""


class BadTotal(Invalid):
    """A line whose total is below nothing, or beyond any till."""


class UnknownProduct(Invalid):
    """A line with a product that is not in the catalogue."""


class UnknownHousehold(Invalid):
    """An order of a household that nobody knows."""


class NoSuchOrder(NotFound):
    """There is no such order, or it belongs to somebody else."""


class NoSuchProduct(NotFound):
    """The catalogue has no such product."""


class WrongStep(Conflict):
    """The order is not where this step begins."""


class Status(StrEnum):
    """Where an order stands."""

    PLACED = "placed"
    PAID = "paid"
    PACKED = "packed"
    REFUSED = "refused"
    """Its payment was declined."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a basket, as the till wrote it.

    Attributes:
        total_cents: what was paid for all pieces together. Never unit price times quantity: three for 1.00 have
            no unit price in whole cents.

    Raises BadQuantity, BadTotal.
    """

    product_id: ProductId
    quantity: int
    total_cents: int

    def __post_init__(self) -> None:
        if not MIN_QUANTITY <= self.quantity <= MAX_QUANTITY:
            raise BadQuantity(
                f"a line has {MIN_QUANTITY} to {MAX_QUANTITY:,} pieces, that of product {self.product_id} has"
                f" {self.quantity:,}"
            )
        if not 0 <= self.total_cents <= MAX_TOTAL_CENTS:
            raise BadTotal(
                f"a line costs 0 to {MAX_TOTAL_CENTS:,} cents, that of product {self.product_id} {self.total_cents:,}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A household's basket on its way.

    Attributes:
        version: one more with each step, so that whoever hears of steps out of order can tell.
        events: what has happened to it since it was read, to be told when it is stored.
    """

    id: OrderId
    household_id: HouseholdId
    reference: str
    lines: Sequence[Line]
    placed_at: datetime
    status: Status = Status.PLACED
    version: int = 1
    events: Sequence[Event] = field(default=(), compare=False)

    @property
    def total_cents(self) -> int:
        return sum(line.total_cents for line in self.lines)


def place(household_id: HouseholdId, lines: Sequence[Line], reference: str = "") -> Order:
    """A new order.

    Args:
        reference: the caller's own name for it, such as the number of a receipt.

    Raises EmptyBasket, BasketTooLarge.
    """
    if not lines:
        raise EmptyBasket("an order needs at least one line")
    if len(lines) > MAX_LINES:
        raise BasketTooLarge(f"an order has up to {MAX_LINES} lines, this one {len(lines):,}: split it")
    order = Order(
        id=OrderId(new_uuid()),
        household_id=household_id,
        reference=reference,
        lines=tuple(lines),
        placed_at=system_clock(),
    )
    return _told(order, PLACED)


_STEPS = {
    Status.PAID: (Status.PLACED, PAID),
    Status.REFUSED: (Status.PLACED, REFUSED),
    Status.PACKED: (Status.PAID, PACKED),
}


def advance(order: Order, to: Status) -> Order:
    """The order after one step. Raises WrongStep when it is not where that step begins."""
    begins, event = _STEPS[to]
    if order.status != begins:
        raise WrongStep(f"an order is {begins} before it is {to}, this one is {order.status}")
    moved = replace(order, status=to, version=order.version + 1, events=())
    return _told(moved, event)


def _told(order: Order, event: str) -> Order:
    """The order with the event of what has just happened to it, which tells all of it: who hears asks nobody."""
    data = {
        "order_id": str(order.id),
        "household_id": order.household_id,
        "reference": order.reference,
        "status": order.status,
        "version": order.version,
        "total_cents": order.total_cents,
        "lines": [
            {"product_id": line.product_id, "quantity": line.quantity, "total_cents": line.total_cents}
            for line in order.lines
        ],
    }
    happened = Event(type=event, source=SOURCE, subject=f"orders/{order.id}", data=data)
    return replace(order, events=(*order.events, happened))
