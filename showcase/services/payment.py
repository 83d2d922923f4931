"""Payment: charges each order once. Knows events, its own tables, and a provider that takes its time."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel, NonNegativeInt
from sqlalchemy import text

from showcase.kernel.events import Event, EventSink
from showcase.kernel.ids import new_uuid
from showcase.messaging.application import Inbox
from showcase.platform.database import Database

SCHEMA = "payment"
TAKES = ("shop.order.placed.v1",)
CHARGED = "payment.order.charged.v1"
DECLINED = "payment.order.declined.v1"


class PlacedOrder(BaseModel):
    """What payment needs to know of `shop.order.placed.v1`; more may come with it."""

    order_id: UUID
    total_cents: NonNegativeInt


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """The handler of placed orders.

    Attributes:
        latency: of the provider. There is none; the time it would take is simulated.
        limit_cents: what is more is declined.
    """

    database: Database
    inbox: Inbox
    events: EventSink
    latency: timedelta
    limit_cents: int

    async def __call__(self, event: Event) -> None:
        """Charge the order, and tell. Raises pydantic.ValidationError for an event that is none of ours."""
        order = PlacedOrder.model_validate(event.data)
        # Before the transaction: nothing holds one open while it waits for somebody else. A provider that is asked
        # twice, because we died in between, recognises the order's id.
        await asyncio.sleep(self.latency.total_seconds())
        is_charged = order.total_cents <= self.limit_cents
        async with self.database.transaction() as db:
            if not await self.inbox.first_time(event):
                return
            if is_charged:
                await db.execute(_CHARGE, {"charge_id": new_uuid(), **order.model_dump()})
            await self.events.add(
                Event(
                    type=CHARGED if is_charged else DECLINED,
                    source="/payment",
                    subject=event.subject,
                    data=order.model_dump(mode="json"),
                    causation_id=event.id,
                )
            )


_CHARGE = text(
    "INSERT INTO payment.charges (charge_id, order_id, total_cents) VALUES (:charge_id, :order_id, :total_cents)"
)
