"""What a basket may be, and what an order goes through. No I/O, no framework."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NewType
from uuid import UUID

from showcase.kernel.clock import system_clock
from showcase.kernel.errors import Conflict, Invalid, NotFound
from showcase.kernel.ids import new_uuid

OrderId = NewType("OrderId", UUID)
ProductId = NewType("ProductId", int)
HouseholdId = NewType("HouseholdId", int)

MIN_QUANTITY = 1
MAX_QUANTITY = 1_000
"""What is sold by volume, such as fuel, has quantities above it: that is no line of a basket."""
MAX_LINES = 500
MAX_TOTAL_CENTS = 10_000_00


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
    RESERVED = "reserved"
    """Its goods are kept for it: from here on nothing stops it."""
    PACKED = "packed"
    CANCELLING = "cancelling"
    """What was done for it is being taken back."""
    REFUSED = "refused"


class Reason(StrEnum):
    """Why an order is refused."""

    NONE = ""
    DECLINED = "payment declined"
    SHORT = "out of stock"
    OVERDUE = "overdue"


class News(StrEnum):
    """What an order hears of others."""

    CHARGED = "charged"
    DECLINED = "declined"
    RESERVED = "reserved"
    SHORT = "short"
    PACKED = "packed"
    SETTLED = "settled"
    """Whatever was charged has been paid back, and nothing will be charged any more."""
    OVERDUE = "overdue"


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
        reason: why it is being cancelled or was refused.
    """

    id: OrderId
    household_id: HouseholdId
    reference: str
    lines: Sequence[Line]
    placed_at: datetime
    status: Status = Status.PLACED
    version: int = 1
    reason: Reason = Reason.NONE

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
    return Order(
        id=OrderId(new_uuid()),
        household_id=household_id,
        reference=reference,
        lines=tuple(lines),
        placed_at=system_clock(),
    )


@dataclass(frozen=True, slots=True)
class _Rule:
    """What some news means.

    Attributes:
        steps: from where to where an order goes.
        too_late: where it changes nothing: it came twice, or another step has come before it.
    """

    steps: Mapping[Status, Status]
    too_late: AbstractSet[Status]
    reason: Reason = Reason.NONE


_STOPPED = {Status.CANCELLING, Status.REFUSED}
_KEPT = {Status.RESERVED, Status.PACKED}
_RULES = {
    News.CHARGED: _Rule({Status.PLACED: Status.PAID}, {Status.PAID} | _KEPT | _STOPPED),
    News.DECLINED: _Rule({Status.PLACED: Status.REFUSED}, _STOPPED, Reason.DECLINED),
    News.RESERVED: _Rule({Status.PAID: Status.RESERVED}, _KEPT | _STOPPED),
    News.SHORT: _Rule({Status.PAID: Status.CANCELLING}, _STOPPED, Reason.SHORT),
    News.PACKED: _Rule({Status.RESERVED: Status.PACKED}, {Status.PACKED}),
    News.SETTLED: _Rule({Status.CANCELLING: Status.REFUSED}, {Status.REFUSED}),
    News.OVERDUE: _Rule(
        {Status.PLACED: Status.CANCELLING, Status.PAID: Status.CANCELLING}, _KEPT | _STOPPED, Reason.OVERDUE
    ),
}


def advance(order: Order, news: News) -> Order | None:
    """The order after it has heard something; None when that comes too late to change anything.

    Raises WrongStep when it comes too early, or cannot be: what is missing may still come, or a person has to look.
    """
    rule = _RULES[news]
    if order.status in rule.too_late:
        return None
    if order.status not in rule.steps:
        raise WrongStep(f"an order that is {order.status} cannot be {news}; first it is {' or '.join(rule.steps)}")
    to, reason = rule.steps[order.status], rule.reason or order.reason
    return replace(order, status=to, version=order.version + 1, reason=reason)
