"""Households' orders, as their views have them."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Path, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from showcase.documents import BadCursor, Repository
from showcase.documents.api import provided
from showcase.platform.web.callers import MissingScope, MissingToken
from showcase.platform.web.paging import Cursor, Limit, Page
from showcase.platform.web.problems import documented
from showcase.shop.api.shop import MAX_BIGINT, LineModel, Reader
from showcase.shop.application.views import ORDER_VIEWS, NoSuchHousehold, OrderView, Which, of_household
from showcase.shop.domain import Reason, Status

Views = Annotated[Repository[OrderView], provided(ORDER_VIEWS)]
HouseholdId = Annotated[int, Path(ge=1, le=MAX_BIGINT)]


class OrderViewModel(BaseModel):
    """An order, all of it, as it was a moment ago."""

    model_config = ConfigDict(from_attributes=True)

    order_id: UUID = Field(validation_alias="id")
    household_id: int
    reference: str
    status: Status
    reason: Reason
    version: int
    total_cents: int
    placed_at: datetime
    lines: list[LineModel]


class OrdersPage(Page[OrderViewModel]):
    """Some of the orders."""

    unreadable: list[str] = Field(description="orders of this page that cannot be shown; an operator knows of it")


def routes() -> APIRouter:
    """The routes of the views; the app's repositories are where they read."""
    router = APIRouter(tags=["shop"])

    @router.get(
        "/households/{household_id}/orders",
        responses=documented(MissingToken, MissingScope, NoSuchHousehold, BadCursor),
    )
    async def orders(
        household_id: HouseholdId,
        caller: Reader,
        views: Views,
        status: Status | None = None,
        since: AwareDatetime | None = None,
        until: Annotated[AwareDatetime | None, Query(description="not those of this moment, or later")] = None,
        product_id: Annotated[int | None, Query(ge=1, le=MAX_BIGINT, description="in one of the lines")] = None,
        limit: Limit = 50,
        cursor: Cursor = None,
    ) -> OrdersPage:
        """A household's orders with their lines, the newest first. A step is seen here some milliseconds after it was
        made."""
        which = Which(status=status, since=since, until=until, product_id=product_id)
        page = await of_household(views, caller, household_id, which, limit, cursor)
        return OrdersPage(
            items=[OrderViewModel.model_validate(view) for view in page],
            next=page.next,
            unreadable=[str(misfit.id) for misfit in page.misfits],
        )

    return router
