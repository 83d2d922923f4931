"""What the shop reads and writes, and whom it needs for that."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from showcase.kernel.errors import Outdated
from showcase.shop.domain import HouseholdId, Order, OrderId, ProductId, Reason, Status


class Overtaken(Outdated):
    """Somebody else has changed it since it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """An article of the catalogue; None where the catalogue does not say.

    Attributes:
        version: higher with each change, whoever makes it; the database counts.
    """

    product_id: ProductId
    department: str | None
    brand: str | None
    category: str | None
    type: str | None
    package_size: str | None
    version: int


CHANGEABLE = frozenset({"department", "brand", "category", "type", "package_size"})
"""What of a product can be changed."""


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
    reason: Reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Where an order once came to.

    Attributes:
        cause: the id of the event that brought it there; empty for the first step, which a request has brought.
    """

    version: int
    status: Status
    reason: Reason
    at: datetime
    cause: str


class Orders(Protocol):
    """Where orders are kept."""

    async def add(self, order: Order) -> None:
        """Store a new order, with its first step. Raises UnknownProduct, UnknownHousehold."""

    async def find(self, order_id: OrderId, *, to_change: bool = False) -> Order | None:
        """The order, all of it.

        Args:
            to_change: nobody else changes it until the transaction ends.
        """

    async def save_step(self, order: Order, cause: str) -> None:
        """Store where a known order stands now, and that an event with this id has brought it there."""

    async def steps(self, order_id: OrderId) -> Sequence[Step]:
        """Where an order has been, the first step first."""

    async def of_household(
        self, household_id: HouseholdId, before: OrderId | None, limit: int
    ) -> Sequence[OrderSummary]:
        """The newest first; only those older than `before`, if it is given."""

    async def owner(self, order_id: OrderId) -> HouseholdId | None:
        """Whose it is."""


class Products(Protocol):
    """Where the catalogue is kept."""

    async def find(self, product_id: ProductId) -> Product | None: ...

    async def find_many(self, product_ids: Sequence[ProductId]) -> Mapping[ProductId, Product]:
        """Those that there are."""

    async def change(
        self, product_id: ProductId, changes: Mapping[str, str | None], if_version: int | None = None
    ) -> Product | None:
        """Change some columns (`CHANGEABLE`); the product as it is then, or None if there is none.

        Args:
            if_version: only while it is of this version. Raises Overtaken when it is not.
        """


Transaction = Callable[[], AbstractAsyncContextManager[object]]
Changed = Callable[[ProductId, int], Awaitable[None]]
"""Whoever wants to know at once that a product has changed, and which version it has now."""


async def nobody(product_id: ProductId, version: int) -> None:
    """Nobody wants to know."""
