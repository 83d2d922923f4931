"""The views of orders: one document an order, made of the events that tell of it, to be read in many ways.

A read model (CQRS: Microservices Patterns, Richardson, 2018, ch. 7). Every event tells all of its order, with a version
that counts the order's steps: the newest that has come is the view, whatever comes twice, late or out of order.
PostgreSQL has the truth: from there all views can be made anew, at any time, while they are read and others are made.
"""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Protocol
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from showcase.documents import (
    Collection,
    Delete,
    Document,
    Index,
    Moment,
    Page,
    Repository,
    Restore,
    VersionConflict,
    all_of,
    eq,
    gt,
    gte,
    lt,
    lte,
)
from showcase.documents.domain.filters import Where
from showcase.kernel.clock import Clock, system_clock
from showcase.kernel.errors import NotFound
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.shop.domain import Order, Reason, Status

AT_ONCE = 500
SETTLED_AFTER = timedelta(minutes=5)
"""An order that was placed so long ago is in the database, or never will be."""


class NoSuchHousehold(NotFound):
    """There is no such household, or its orders are none of the caller's business."""


@dataclass(frozen=True, slots=True)
class LineView:
    """One line of a basket."""

    product_id: int
    quantity: int
    total_cents: int


class OrderView(Document):
    """An order as it is shown. Its version is the order's."""

    id: UUID
    household_id: int
    reference: str
    status: Status
    reason: Reason
    total_cents: int
    placed_at: Moment
    lines: tuple[LineView, ...]


class OrderSeen(BaseModel):
    """What a view needs to know of the events of an order; more may come with them."""

    order_id: UUID
    household_id: int
    reference: str
    status: Status
    version: Annotated[int, Field(ge=1)]
    total_cents: int
    placed_at: Moment
    lines: tuple[LineView, ...]
    reason: Reason = Reason.NONE


ORDER_VIEWS = Collection(
    name="order_views",
    model=OrderView,
    indexes=(
        Index(keys=("household_id", "-placed_at", "-_id")),
        Index(keys=("household_id", "status", "-placed_at", "-_id")),
    ),
    schema={
        "required": ["household_id", "status", "version", "total_cents", "placed_at", "lines"],
        "properties": {
            "household_id": {"bsonType": ["int", "long"]},
            "status": {"enum": [*Status]},
            "version": {"bsonType": ["int", "long"], "minimum": 1},
            "total_cents": {"bsonType": ["int", "long"], "minimum": 0},
            "placed_at": {"bsonType": "date"},
            "lines": {"bsonType": "array", "minItems": 1},
        },
    },
)
"""Households read their orders by the first index (equality, then order), and those of one status by the second."""


class AllOrders(Protocol):
    """Every order that there is."""

    def all(self, at_once: int) -> AsyncIterator[Sequence[Order]]:
        """By their ids, so many at once, and never none. Raises Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Orders of a household that somebody wants to see; None where it does not matter."""

    status: Status | None = None
    since: datetime | None = None
    until: datetime | None = None
    product_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What came of making all views anew.

    Attributes:
        written: views that are as the database has their orders.
        newer: views that were ahead of it by then.
        removed: views of orders that there are not.
    """

    written: int = 0
    newer: int = 0
    removed: int = 0


async def of_household(
    views: Repository[OrderView], caller: Principal, household_id: int, which: Which, limit: int, after: str | None
) -> Page[OrderView]:
    """A household's orders, the newest first, page by page. Raises NoSuchHousehold, BadCursor, Unavailable."""
    if caller.household_id != household_id and Scope.ORDERS_FOLLOW not in caller.scopes:
        raise NoSuchHousehold(f"there is no household {household_id} whose orders you may see")
    wanted: list[Where] = [eq("household_id", household_id)]
    if which.status is not None:
        wanted.append(eq("status", which.status))
    if which.since is not None:
        wanted.append(gte("placed_at", which.since))
    if which.until is not None:
        wanted.append(lt("placed_at", which.until))
    if which.product_id is not None:
        wanted.append(eq("lines.product_id", which.product_id))
    return await views.find(all_of(*wanted), sort=("-placed_at",), limit=limit, after=after)


@dataclass(frozen=True, slots=True)
class OrderViews:
    """Keeps the views up to date."""

    views: Repository[OrderView]
    clock: Clock = system_clock

    async def heard(self, event: Event, data: OrderSeen) -> None:
        """An order has made a step. Raises Unavailable."""
        view = OrderView.model_validate({"id": data.order_id, **data.model_dump(exclude={"order_id"})})
        await self.views.put_newer(view)

    async def rebuild(self, orders: AllOrders) -> Rebuilt:
        """Make every view anew from the database, while events are heard and views are read. Safe to repeat.

        What is there stays until it is written over, so that whoever reads meanwhile misses nothing. A step that is
        heard while its order is on the way here is newer, and stays. Raises Unavailable.
        """
        done, before = Rebuilt(), UUID(int=0)
        async for some in orders.all(AT_ONCE):
            outcomes = await self.views.bulk([Restore(_view_of(order)) for order in some])
            newer = sum(isinstance(outcome, VersionConflict) for outcome in outcomes)
            if refused := [one for one in outcomes if one is not None and not isinstance(one, VersionConflict)]:
                raise refused[0]
            removed = await self._remove_between(before, some[-1].id, {order.id for order in some})
            before = some[-1].id
            done = Rebuilt(
                written=done.written + len(some) - newer, newer=done.newer + newer, removed=done.removed + removed
            )
        removed = await self._remove_between(before, UUID(int=2**128 - 1), set())
        return Rebuilt(written=done.written, newer=done.newer, removed=done.removed + removed)

    async def _remove_between(self, first: UUID, last: UUID, known: set[UUID]) -> int:
        """Remove views after `first`, up to `last`, of unknown orders; not of those that may be on their way."""
        settled = UUID(int=round((self.clock() - SETTLED_AFTER).timestamp() * 1000) << 80)  # ids begin with their time
        where = all_of(gt("id", first), lte("id", last), lt("id", settled))
        strays = [one.id async for one in self.views.into(_Id).stream(where) if one.id not in known]
        await self.views.bulk([Delete(id_) for id_ in strays])
        return len(strays)


class _Id(BaseModel):
    model_config = ConfigDict(alias_generator=lambda name: f"_{name}")

    id: UUID


def _view_of(order: Order) -> OrderView:
    return OrderView(
        id=order.id,
        version=order.version,
        household_id=order.household_id,
        reference=order.reference,
        status=order.status,
        reason=order.reason,
        total_cents=order.total_cents,
        placed_at=order.placed_at,
        lines=tuple(
            LineView(product_id=x.product_id, quantity=x.quantity, total_cents=x.total_cents) for x in order.lines
        ),
    )
