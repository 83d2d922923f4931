"""Stock: takes the goods of paid orders off the shelves. Knows events and its own tables."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from pydantic import BaseModel, PositiveInt
from sqlalchemy import text

from showcase.kernel.events import Event, EventSink
from showcase.messaging.application import Inbox
from showcase.platform.database import Database

SCHEMA = "stock"
TAKES = ("shop.order.paid.v1",)
PACKED = "stock.order.packed.v1"


class Pick(BaseModel):
    """So many pieces of a product."""

    product_id: int
    quantity: PositiveInt


class PaidOrder(BaseModel):
    """What stock needs to know of `shop.order.paid.v1`; more may come with it."""

    order_id: UUID
    lines: Sequence[Pick]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The handler of paid orders."""

    database: Database
    inbox: Inbox
    events: EventSink

    async def __call__(self, event: Event) -> None:
        """Pick the goods, and tell. Raises pydantic.ValidationError for an event that is none of ours."""
        order = PaidOrder.model_validate(event.data)
        async with self.database.transaction() as db:
            if not await self.inbox.first_time(event):
                return
            await db.execute(_PICK, [{"order_id": order.order_id, **line.model_dump()} for line in order.lines])
            await self.events.add(
                Event(
                    type=PACKED,
                    source="/stock",
                    subject=event.subject,
                    data={"order_id": str(order.order_id), "pieces": sum(line.quantity for line in order.lines)},
                    causation_id=event.id,
                )
            )


_PICK = text("INSERT INTO stock.picks (order_id, product_id, quantity) VALUES (:order_id, :product_id, :quantity)")
