"""Orders and products over HTTP."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, StrictInt

from showcase.kernel.principal import Principal, Scope
from showcase.platform.web.callers import MissingScope, MissingToken, require
from showcase.platform.web.idempotency import BadIdempotencyKey, IdempotencyKeyReused, StillInFlight
from showcase.platform.web.paging import BadCursor, Cursor, Limit, Page, cursor_of, uuid_of
from showcase.platform.web.problems import documented
from showcase.shop.application import NotAHousehold, Shop
from showcase.shop.domain import (
    BadQuantity,
    BadTotal,
    BasketTooLarge,
    EmptyBasket,
    Line,
    NoSuchOrder,
    NoSuchProduct,
    Order,
    OrderId,
    ProductId,
    Status,
    UnknownHousehold,
    UnknownProduct,
)

MAX_BIGINT = 2**63 - 1


class LineModel(BaseModel):
    """One line of a basket."""

    model_config = ConfigDict(extra="forbid", from_attributes=True)

    product_id: Annotated[StrictInt, Field(ge=1, le=MAX_BIGINT, examples=[1082185])]
    quantity: Annotated[StrictInt, Field(ge=-MAX_BIGINT, le=MAX_BIGINT, examples=[2])]
    total_cents: Annotated[StrictInt, Field(ge=-MAX_BIGINT, le=MAX_BIGINT, examples=[199])]


class Basket(BaseModel):
    """What a household wants to order."""

    model_config = ConfigDict(extra="forbid")

    lines: list[LineModel]
    reference: Annotated[str, Field(max_length=64, pattern=r"^[ -~]*$")] = ""


class OrderModel(BaseModel):
    """An order and where it stands."""

    order_id: UUID
    household_id: int
    reference: str
    status: Status
    version: int
    total_cents: int
    placed_at: datetime
    lines: list[LineModel]

    @classmethod
    def of(cls, order: Order) -> "OrderModel":
        return cls(
            order_id=order.id,
            household_id=order.household_id,
            reference=order.reference,
            status=order.status,
            version=order.version,
            total_cents=order.total_cents,
            placed_at=order.placed_at,
            lines=[LineModel.model_validate(line) for line in order.lines],
        )


class OrderSummaryModel(BaseModel):
    """An order without its lines."""

    model_config = ConfigDict(from_attributes=True)

    order_id: UUID
    household_id: int
    reference: str
    status: Status
    version: int
    line_count: int
    total_cents: int
    placed_at: datetime


class ProductModel(BaseModel):
    """An article of the catalogue; null where the catalogue does not say."""

    model_config = ConfigDict(from_attributes=True)

    product_id: int
    department: str | None
    brand: str | None
    category: str | None
    type: str | None
    package_size: str | None


Reader = Annotated[Principal, require(Scope.ORDERS_READ)]
Writer = Annotated[Principal, require(Scope.ORDERS_WRITE)]


def routes(shop: Shop, route_class: type[APIRoute]) -> APIRouter:
    """The routes of the shop.

    Args:
        route_class: gives POSTs their Idempotency-Key.
    """
    router = APIRouter(tags=["shop"], route_class=route_class)

    @router.post(
        "/orders",
        status_code=201,
        responses=documented(
            *(MissingToken, MissingScope, NotAHousehold, EmptyBasket, BasketTooLarge, BadQuantity, BadTotal),
            *(UnknownProduct, UnknownHousehold, BadIdempotencyKey, IdempotencyKeyReused, StillInFlight),
        ),
    )
    async def place_order(basket: Basket, caller: Writer, response: Response) -> OrderModel:
        """Place a basket as an order. With an `Idempotency-Key`, sending it twice places it once."""
        lines = [
            Line(product_id=ProductId(x.product_id), quantity=x.quantity, total_cents=x.total_cents)
            for x in basket.lines
        ]
        order = await shop.place(caller, lines, basket.reference)
        response.headers["Location"] = f"/orders/{order.id}"
        return OrderModel.of(order)

    @router.get("/orders", responses=documented(MissingToken, MissingScope, NotAHousehold, BadCursor))
    async def own_orders(caller: Reader, limit: Limit = 50, cursor: Cursor = None) -> Page[OrderSummaryModel]:
        """The household's own orders, the newest first."""
        before = None if cursor is None else OrderId(uuid_of(cursor))
        orders = await shop.own_orders(caller, before, limit + 1)
        page = [OrderSummaryModel.model_validate(order) for order in orders[:limit]]
        return Page(items=page, next=cursor_of(str(page[-1].order_id)) if len(orders) > limit else None)

    @router.get("/orders/{order_id}", responses=documented(MissingToken, MissingScope, NoSuchOrder))
    async def order(order_id: UUID, caller: Reader) -> OrderModel:
        """An order; somebody else's is as good as none."""
        return OrderModel.of(await shop.order(caller, OrderId(order_id)))

    @router.get("/products/{product_id}", responses=documented(NoSuchProduct))
    async def product(product_id: Annotated[int, Path(ge=1, le=MAX_BIGINT)]) -> ProductModel:
        """An article of the catalogue, for everybody to see."""
        return ProductModel.model_validate(await shop.product(ProductId(product_id)))

    return router
