"""Orders and products over HTTP."""

import re
from datetime import datetime
from typing import Annotated, Self
from uuid import UUID

from fastapi import APIRouter, Header, Path, Query, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, model_validator

from showcase.kernel.errors import Invalid
from showcase.kernel.principal import Principal, Scope
from showcase.platform.web.callers import MissingScope, MissingToken, require
from showcase.platform.web.idempotency import BadIdempotencyKey, IdempotencyKeyReused, StillInFlight
from showcase.platform.web.paging import BadCursor, Cursor, Limit, Page, cursor_of, uuid_of
from showcase.platform.web.problems import documented
from showcase.shop.application import NotAHousehold, Overtaken, Product, Shop
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
    Reason,
    Status,
    UnknownHousehold,
    UnknownProduct,
)

MAX_BIGINT = 2**63 - 1
MAX_PRODUCTS = 100


class BadIfMatch(Invalid):
    """The header If-Match is no ETag of ours."""


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
    """An order and where it stands; the reason is empty unless it is being cancelled or was refused."""

    order_id: UUID
    household_id: int
    reference: str
    status: Status
    reason: Reason
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
            reason=order.reason,
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
    reason: Reason
    version: int
    line_count: int
    total_cents: int
    placed_at: datetime


class StepModel(BaseModel):
    """Where an order came to, when, and by which event; by none, if a request has brought it there."""

    model_config = ConfigDict(from_attributes=True)

    version: int
    status: Status
    reason: Reason
    at: datetime
    cause: str


class ProductModel(BaseModel):
    """An article of the catalogue; null where the catalogue does not say."""

    model_config = ConfigDict(from_attributes=True)

    product_id: int
    department: str | None
    brand: str | None
    category: str | None
    type: str | None
    package_size: str | None


Text = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]


class ProductChanges(BaseModel):
    """What is to change of a product, one thing or more; null where nothing is known any more."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"minProperties": 1})

    department: Text | None = None
    brand: Text | None = None
    category: Text | None = None
    type: Text | None = None
    package_size: Text | None = None

    @model_validator(mode="after")
    def _not_nothing(self) -> Self:
        if not self.model_fields_set:
            raise ValueError("name at least one thing that changes")
        return self


def _split(given: object) -> object:
    """`ids=1,2,3` as well as `ids=1&ids=2&ids=3`."""
    return [one for part in given for one in str(part).split(",")] if isinstance(given, list) else given


Id = Annotated[int, Path(ge=1, le=MAX_BIGINT)]
Ids = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_BIGINT)]],
    BeforeValidator(_split),
    Query(min_length=1, max_length=MAX_PRODUCTS, description="Of products, with commas between them."),
]
IfMatch = Annotated[str | None, Header(description="The ETag that the product still has to have.")]
Staff = Annotated[Principal, require(Scope.CATALOGUE_WRITE)]
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

    @router.get("/orders/{order_id}/steps", responses=documented(MissingToken, MissingScope, NoSuchOrder))
    async def steps(order_id: UUID, caller: Reader) -> list[StepModel]:
        """The way of an order, the first step first."""
        return [StepModel.model_validate(step) for step in await shop.steps(caller, OrderId(order_id))]

    @router.get("/products", responses=documented())
    async def products(ids: Ids) -> list[ProductModel]:
        """Articles of the catalogue, in this order; those that there are not are left out."""
        found = await shop.products_by_id([ProductId(one) for one in ids])
        return [ProductModel.model_validate(product) for product in found]

    @router.get("/products/{product_id}", responses=documented(NoSuchProduct))
    async def product(product_id: Id, response: Response) -> ProductModel:
        """An article of the catalogue, for everybody to see. Its ETag is its version."""
        return _told(await shop.product(ProductId(product_id)), response)

    @router.patch(
        "/products/{product_id}",
        responses=documented(MissingToken, MissingScope, NoSuchProduct, Overtaken, BadIfMatch),
    )
    async def change_product(
        product_id: Id, changes: ProductChanges, caller: Staff, response: Response, if_match: IfMatch = None
    ) -> ProductModel:
        """Change an article. With `If-Match`, only if nobody else has changed it since it was read."""
        wanted = changes.model_dump(exclude_unset=True)
        return _told(await shop.change_product(ProductId(product_id), wanted, _version(if_match)), response)

    return router


def _told(product: Product, response: Response) -> ProductModel:
    response.headers["ETag"] = f'"{product.version}"'
    return ProductModel.model_validate(product)


def _version(if_match: str | None) -> int | None:
    """The version that If-Match asks for (RFC 9110 §13.1.1); None for any. Raises BadIfMatch."""
    if if_match is None or if_match == "*":
        return None
    found = re.fullmatch('"([0-9]{1,18})"', if_match)
    if found is None:
        raise BadIfMatch('it is one ETag as GET gave it, such as "42", or *')
    return int(found[1])
