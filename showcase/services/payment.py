"""Payment: charges each order once, or never. Knows events, its own tables, and a provider that takes its time.

One row an order says what was decided. Whoever comes first decides, in whichever order placed and cancelled orders
arrive, and however often: a cancelled order is never charged afterwards.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from pydantic import BaseModel, NonNegativeInt
from sqlalchemy import text

from showcase.kernel.events import Event, EventSink
from showcase.kernel.ids import new_uuid
from showcase.messaging.application.handlers import Handlers
from showcase.platform.database import Database

SCHEMA = "payment"
TAKES = ("shop.order.placed.v1", "shop.order.cancelled.v1")


class PlacedOrder(BaseModel):
    """What payment needs to know of `shop.order.placed.v1`; more may come with it."""

    order_id: UUID
    total_cents: NonNegativeInt


class CancelledOrder(BaseModel):
    """What payment needs to know of `shop.order.cancelled.v1`."""

    order_id: UUID


class Charged(BaseModel):
    """An order was paid for."""

    order_id: UUID
    total_cents: int


class Declined(BaseModel):
    """The provider does not pay for an order."""

    order_id: UUID
    total_cents: int


class Settled(BaseModel):
    """Nothing is charged for an order any more: what had been was paid back, and that may be 0."""

    order_id: UUID
    refunded_cents: int


TELLS: Mapping[str, type[BaseModel]] = {
    "payment.order.charged.v1": Charged,
    "payment.order.declined.v1": Declined,
    "payment.order.settled.v1": Settled,
}
_TYPES = {model: type_ for type_, model in TELLS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payment:
    """The handlers of placed and of cancelled orders.

    Attributes:
        latency: of the provider. There is none; the time it would take is simulated.
        limit_cents: what is more is declined.
    """

    database: Database
    events: EventSink
    latency: timedelta
    limit_cents: int

    def handlers(self) -> Handlers:
        """What its queue's consumer does."""
        handlers = Handlers()
        handlers.on("shop.order.placed.v1", PlacedOrder, self.charge, ask=self.authorised)
        handlers.on("shop.order.cancelled.v1", CancelledOrder, self.settle)
        return handlers

    async def authorised(self, event: Event, order: PlacedOrder) -> bool:
        """Ask the provider to set the money aside: whether it does.

        The order's id goes with it, so that asking twice is asking once. What is never charged lapses by itself.
        """
        await asyncio.sleep(self.latency.total_seconds())
        return order.total_cents <= self.limit_cents

    async def charge(self, event: Event, order: PlacedOrder, is_authorised: bool) -> None:
        """Charge an order of which nothing is decided yet, and tell."""
        state = {"order_id": order.order_id, "state": "charged" if is_authorised else "declined"}
        async with self.database.transaction() as db:
            if (await db.execute(_DECIDE, state)).one_or_none() is None:
                return  # charged or declined before, or cancelled, which came first
            if is_authorised:
                await db.execute(_CHARGE, {"charge_id": new_uuid(), **order.model_dump()})
            await self._tell((Charged if is_authorised else Declined)(**order.model_dump()))

    async def settle(self, event: Event, order: CancelledOrder) -> None:
        """Pay back what was charged for an order, once, see to it that nothing will be, and tell."""
        names = {"order_id": order.order_id}
        async with self.database.transaction() as db:
            state = (await db.execute(_CANCEL, names)).scalar_one_or_none()
            if state is None:
                return  # settled before
            refunded_cents = 0
            if state == "refunded":
                refunded_cents = (await db.execute(_REFUND, {"refund_id": new_uuid(), **names})).scalar_one()
            await self._tell(Settled(order_id=order.order_id, refunded_cents=refunded_cents))

    async def _tell(self, data: Charged | Declined | Settled) -> None:
        await self.events.add(
            Event(
                type=_TYPES[type(data)],
                source="/payment",
                subject=f"orders/{data.order_id}",
                data=data.model_dump(mode="json"),
            )
        )


# Each waits for whoever is deciding about the same order in another process, and then goes by what that one decided.
_DECIDE = text("""
    INSERT INTO payment.decisions (order_id, state) VALUES (:order_id, :state)
    ON CONFLICT DO NOTHING RETURNING state
""")
_CANCEL = text("""
    INSERT INTO payment.decisions AS decision (order_id, state) VALUES (:order_id, 'void')
    ON CONFLICT (order_id) DO UPDATE
        SET state = CASE decision.state WHEN 'charged' THEN 'refunded' ELSE 'void' END, decided_at = now()
        WHERE decision.state IN ('charged', 'declined')
    RETURNING state
""")
_CHARGE = text(
    "INSERT INTO payment.charges (charge_id, order_id, total_cents) VALUES (:charge_id, :order_id, :total_cents)"
)
_REFUND = text("""
    INSERT INTO payment.refunds (refund_id, order_id, total_cents)
    SELECT :refund_id, order_id, total_cents FROM payment.charges WHERE order_id = :order_id RETURNING total_cents
""")
