"""Stock: takes the goods of paid orders off the shelves, all of them or none. Knows events and its own tables.

One row an order says how far it is, so that whatever arrives twice, or after the order was cancelled, changes nothing.
What an order's picks have taken is not on the shelves; together they are always all pieces that there are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, Field, PositiveInt
from sqlalchemy import text

from showcase.kernel.errors import Conflict
from showcase.kernel.events import Event, EventSink
from showcase.messaging.application.handlers import Handlers
from showcase.platform.database import Database

SCHEMA = "stock"
TAKES = ("shop.order.paid.v1", "shop.order.reserved.v1", "shop.order.cancelled.v1")
BATCH = 1
"""One order a transaction. It locks its shelves in the order of their products, so that no two processes ever wait for
each other; two orders in one transaction would lock in two orders, and best sellers for longer."""


class NotReserved(Conflict):
    """Stock holds nothing for this order."""


class Pick(BaseModel):
    """So many pieces of a product."""

    product_id: int
    quantity: PositiveInt


class PaidOrder(BaseModel):
    """What stock needs to know of `shop.order.paid.v1`; more may come with it."""

    order_id: UUID
    lines: Annotated[Sequence[Pick], Field(min_length=1)]


class OrderNumber(BaseModel):
    """What stock needs to know of `shop.order.reserved.v1` and `shop.order.cancelled.v1`."""

    order_id: UUID


class Reserved(BaseModel):
    """All goods of an order are kept for it."""

    order_id: UUID


class Short(BaseModel):
    """Of some products there is less than an order wants. Nothing was taken."""

    order_id: UUID
    product_ids: Sequence[int]


class Packed(BaseModel):
    """An order can be fetched."""

    order_id: UUID
    pieces: int


TELLS: Mapping[str, type[BaseModel]] = {
    "stock.order.reserved.v1": Reserved,
    "stock.order.short.v1": Short,
    "stock.order.packed.v1": Packed,
}
_TYPES = {model: type_ for type_, model in TELLS.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """The handlers of paid, of reserved and of cancelled orders.

    Attributes:
        shelf_pieces: what a shelf holds that nobody has taken from yet.
    """

    database: Database
    events: EventSink
    shelf_pieces: int

    def handlers(self) -> Handlers:
        """What its queue's consumer does."""
        handlers = Handlers()
        handlers.on("shop.order.paid.v1", PaidOrder, self.reserve)
        handlers.on("shop.order.reserved.v1", OrderNumber, self.pack)
        handlers.on("shop.order.cancelled.v1", OrderNumber, self.release)
        return handlers

    async def reserve(self, event: Event, order: PaidOrder) -> None:
        """Take an order's goods off the shelves, or none of them if one lacks, and tell."""
        names = {"order_id": order.order_id}
        lines = {
            "products": [line.product_id for line in order.lines],
            "quantities": [line.quantity for line in order.lines],
        }
        async with self.database.transaction() as db:
            if (await db.execute(_BEGIN, names)).one_or_none() is None:
                return  # reserved or short before, or cancelled, which came first
            await db.execute(_SET_UP_SHELVES, {"products": lines["products"], "pieces": self.shelf_pieces})
            if lacking := (await db.execute(_LOCK_AND_FIND_LACKING, lines)).scalars().all():
                await db.execute(_SHORT, names)
                await self._tell(Short(order_id=order.order_id, product_ids=lacking))
                return
            await db.execute(_TAKE, lines | names)
            await self._tell(Reserved(order_id=order.order_id))

    async def pack(self, event: Event, order: OrderNumber) -> None:
        """Pack what is kept for an order, and tell. Raises NotReserved."""
        names = {"order_id": order.order_id}
        async with self.database.transaction() as db:
            state = (await db.execute(_STATE, names)).scalar_one_or_none()
            if state == "packed":
                return
            if state != "reserved":
                raise NotReserved(f"nothing is kept for the order {order.order_id}: it is {state or 'unknown'} here")
            pieces = (await db.execute(_PACK, names)).scalar_one()
            await self._tell(Packed(order_id=order.order_id, pieces=pieces))

    async def release(self, event: Event, order: OrderNumber) -> None:
        """Put back what is kept for an order, once, and see to it that nothing will be taken for it any more."""
        names = {"order_id": order.order_id}
        async with self.database.transaction() as db:
            if (await db.execute(_END, names)).scalar_one_or_none() == "released":
                await db.execute(_PUT_BACK, names)

    async def _tell(self, data: Reserved | Short | Packed) -> None:
        await self.events.add(
            Event(
                type=_TYPES[type(data)],
                source="/stock",
                subject=f"orders/{data.order_id}",
                data=data.model_dump(mode="json"),
            )
        )


# -- how far an order is; each waits for whoever is at the same order in another process

_BEGIN = text("""
    INSERT INTO stock.reservations (order_id, state) VALUES (:order_id, 'reserved')
    ON CONFLICT DO NOTHING RETURNING order_id
""")
_STATE = text("SELECT state FROM stock.reservations WHERE order_id = :order_id FOR UPDATE")
_SHORT = text("UPDATE stock.reservations SET state = 'short' WHERE order_id = :order_id")
_PACK = text("""
    WITH packed AS (
        UPDATE stock.reservations SET state = 'packed', changed_at = now() WHERE order_id = :order_id
        RETURNING order_id
    )
    SELECT sum(quantity) FROM stock.picks JOIN packed USING (order_id)
""")
_END = text("""
    INSERT INTO stock.reservations AS reservation (order_id, state) VALUES (:order_id, 'void')
    ON CONFLICT (order_id) DO UPDATE SET state = 'released', changed_at = now() WHERE reservation.state = 'reserved'
    RETURNING state
""")

# -- the shelves: a basket can have a product in two lines

_WANTED = """
    wanted AS (
        SELECT product_id, sum(quantity) AS pieces
        FROM unnest(CAST(:products AS bigint[]), CAST(:quantities AS bigint[])) AS line (product_id, quantity)
        GROUP BY product_id
    )
"""
_SET_UP_SHELVES = text("""
    INSERT INTO stock.shelves (product_id, pieces)
    SELECT product_id, CAST(:pieces AS bigint) FROM unnest(CAST(:products AS bigint[])) AS product_id
    GROUP BY product_id ORDER BY product_id ON CONFLICT DO NOTHING
""")
_LOCK_AND_FIND_LACKING = text(f"""
    WITH {_WANTED}, held AS MATERIALIZED (
        SELECT product_id, shelf.pieces AS there, wanted.pieces AS wanted
        FROM stock.shelves AS shelf JOIN wanted USING (product_id) ORDER BY product_id FOR UPDATE OF shelf
    )
    SELECT product_id FROM held WHERE there < wanted
""")  # noqa: S608 - put together of constants
_TAKE = text(f"""
    WITH {_WANTED}, picked AS (
        INSERT INTO stock.picks (order_id, product_id, quantity) SELECT :order_id, product_id, pieces FROM wanted
    )
    UPDATE stock.shelves AS shelf SET pieces = shelf.pieces - wanted.pieces
    FROM wanted WHERE shelf.product_id = wanted.product_id
""")  # noqa: S608
_PUT_BACK = text("""
    WITH back AS (
        DELETE FROM stock.picks WHERE order_id = :order_id RETURNING product_id, quantity
    ), held AS MATERIALIZED (
        SELECT product_id, back.quantity FROM stock.shelves AS shelf JOIN back USING (product_id)
        ORDER BY product_id FOR UPDATE OF shelf
    )
    UPDATE stock.shelves AS shelf SET pieces = shelf.pieces + held.quantity
    FROM held WHERE shelf.product_id = held.product_id
""")
