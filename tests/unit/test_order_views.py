"""The views of orders, over documents in memory: what becomes of events in any order, and of a rebuilding."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showcase.composition import CONSUMERS
from showcase.documents import BadCursor, Unstorable
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope
from showcase.messaging.application.handlers import Handlers, Unhandleable
from showcase.platform.resources import Resources
from showcase.shop.application.events import step_of
from showcase.shop.application.views import (
    ORDER_VIEWS,
    SETTLED_AFTER,
    NoSuchHousehold,
    OrderSeen,
    OrderView,
    OrderViews,
    Rebuilt,
    Which,
    of_household,
)
from showcase.shop.domain import HouseholdId, Line, News, Order, OrderId, ProductId, Status, advance
from tests.fakes import settings_of
from tests.fakes_documents import MemoryDocuments

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
WAY = (News.CHARGED, News.SHORT, News.SETTLED)
NUMBERS = count(1)
EVERYTHING = Which()
CALLER = Principal(subject="households/7", scopes=frozenset({Scope.ORDERS_READ}))
STAFF = Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_READ, Scope.ORDERS_FOLLOW}))


def an_order(placed_at: datetime = NOW, **changes: Any) -> Order:
    """An order whose id tells when it was placed, as ids do."""
    order = Order(
        id=OrderId(UUID(int=round(placed_at.timestamp() * 1000) << 80 | next(NUMBERS))),
        household_id=HouseholdId(7),
        reference="receipt 1",
        lines=(
            Line(product_id=ProductId(1), quantity=2, total_cents=199),
            Line(product_id=ProductId(2), quantity=1, total_cents=1),
        ),
        placed_at=placed_at,
    )
    return replace(order, **changes)


def way_of(order: Order) -> list[Order]:
    """The order at each of its steps: paid, then found short, then refused."""
    steps = [order]
    for news in WAY:
        step = advance(steps[-1], news)
        assert step is not None
        steps.append(step)
    return steps


class World:
    """Views in memory, and the handlers that keep them."""

    def __init__(self) -> None:
        self.store = MemoryDocuments()
        self.views = self.store.repository(ORDER_VIEWS)
        self.keeper = OrderViews(self.views, clock=lambda: NOW)
        self._handlers = Handlers()
        self._handlers.on("shop.order.#", OrderSeen, self.keeper.heard)

    async def hear(self, *steps: Order) -> None:
        """What the shop tells of these steps, read as a consumer reads it."""
        for step in steps:
            event = step_of(step)
            await self._handlers.read(event.attributes(), event.body()).handle()

    async def all(self) -> dict[UUID, OrderView]:
        return {view.id: view async for view in self.views.stream()}

    async def rebuild(self, *orders: Order, at_once: int = 2) -> Rebuilt:
        return await self.keeper.rebuild(Table(orders, at_once))


@dataclass
class Table:
    """Orders as the database has them; it has pages of its own size."""

    orders: Sequence[Order]
    pages: int

    async def all(self, at_once: int) -> AsyncIterator[Sequence[Order]]:
        some = sorted(self.orders, key=lambda order: order.id)
        for start in range(0, len(some), self.pages):
            yield some[start : start + self.pages]


# -- events


@given(st.data())
async def test_whatever_comes_twice_or_in_whatever_order_the_view_is_the_newest_step(data: st.DataObject) -> None:
    world, steps = World(), way_of(an_order())
    told = data.draw(st.lists(st.sampled_from(steps), min_size=1, max_size=12))

    await world.hear(*told)

    newest = max(told, key=lambda step: step.version)
    (view,) = (await world.all()).values()
    assert (view.version, view.status, view.reason) == (newest.version, newest.status, newest.reason)


async def test_a_view_tells_all_of_the_order() -> None:
    world, order = World(), an_order()
    await world.hear(order)

    view = await world.views.get(order.id)

    assert view.model_dump(exclude={"lines"}) == {
        "id": order.id,
        "version": 1,
        "household_id": 7,
        "reference": "receipt 1",
        "status": Status.PLACED,
        "reason": "",
        "total_cents": 200,
        "placed_at": NOW,
    }
    assert [(x.product_id, x.quantity, x.total_cents) for x in view.lines] == [(1, 2, 199), (2, 1, 1)]


async def test_an_event_that_tells_too_little_is_no_view() -> None:
    handlers, event = Handlers(), Event(type="shop.order.paid.v1", source="/x", subject="orders/1", data={"version": 1})
    handlers.on("shop.order.#", OrderSeen, World().keeper.heard)

    with pytest.raises(Unhandleable, match="order_id"):
        handlers.read(event.attributes(), event.body())


async def test_messages_wait_while_mongo_is_away_and_the_schema_is_made_before_the_first() -> None:
    url = "mongodb://a:b@127.0.0.1:1/c"
    async with Resources(settings_of({"SHOWCASE_MONGO_URL": url})) as resources:
        consumer = CONSUMERS["views"](resources)

        assert consumer.inbox is not None
        assert consumer.prepare is not None


# -- questions


async def test_a_household_sees_its_own_orders_the_newest_first_and_staff_sees_all() -> None:
    world = World()
    orders = [an_order(NOW - timedelta(minutes=age)) for age in (3, 1, 2)]
    await world.hear(*orders, an_order(household_id=HouseholdId(8)))

    for caller in (CALLER, STAFF):
        page = await of_household(world.views, caller, 7, EVERYTHING, 10, None)
        assert [view.id for view in page] == [orders[1].id, orders[2].id, orders[0].id]
    with pytest.raises(NoSuchHousehold):
        await of_household(world.views, CALLER, 8, EVERYTHING, 10, None)


async def test_pages_have_all_orders_once_and_a_cursor_is_good_for_one_question() -> None:
    world = World()
    orders = [an_order(NOW - timedelta(minutes=age // 2)) for age in range(9)]
    await world.hear(*orders)

    seen: list[UUID] = []
    after: str | None = None
    while True:
        page = await of_household(world.views, CALLER, 7, EVERYTHING, 2, after)
        seen += [view.id for view in page]
        if page.next is None:
            break
        after = page.next

    assert sorted(seen) == sorted(order.id for order in orders)
    assert len(seen) == len(set(seen))
    with pytest.raises(BadCursor):
        await of_household(world.views, STAFF, 8, EVERYTHING, 2, after)
    with pytest.raises(BadCursor):
        await of_household(world.views, CALLER, 7, Which(status=Status.PAID), 2, after)


@pytest.mark.parametrize(
    ("which", "seen"),
    [
        (Which(status=Status.PAID), "paid"),
        (Which(since=NOW - timedelta(minutes=1)), "placed"),
        (Which(until=NOW - timedelta(minutes=1)), "paid"),
        (Which(until=NOW - timedelta(hours=1)), ""),
        (Which(product_id=5), "paid"),
        (Which(product_id=5, status=Status.PLACED), ""),
    ],
)
async def test_orders_are_found_by_status_time_and_product(which: Which, seen: str) -> None:
    world = World()
    five = (Line(product_id=ProductId(5), quantity=1, total_cents=1),)
    paid = an_order(NOW - timedelta(hours=1), status=Status.PAID, lines=five)
    await world.hear(paid, an_order(NOW - timedelta(minutes=1)))

    page = await of_household(world.views, CALLER, 7, which, 10, None)

    assert [view.status for view in page] == ([seen] if seen else [])


# -- rebuilding


async def test_rebuilt_from_nothing_the_views_are_as_the_events_made_them() -> None:
    heard, rebuilt = World(), World()
    orders = [way_of(an_order(NOW - timedelta(minutes=age)))[age % 4] for age in range(5)]
    await heard.hear(*orders)

    assert await rebuilt.rebuild(*orders) == Rebuilt(written=5)

    assert await rebuilt.all() == await heard.all()


async def test_rebuilding_mends_what_somebody_has_spoilt_even_where_the_version_is_the_same() -> None:
    world, order = World(), an_order()
    await world.hear(order)
    good = await world.all()
    spoilt = good[order.id].model_copy(update={"total_cents": 1})
    world.store.put(ORDER_VIEWS.name, spoilt.model_dump(by_alias=True))
    assert await world.all() != good

    await world.rebuild(order)

    assert await world.all() == good


async def test_a_step_that_is_heard_while_its_order_is_rebuilt_stays() -> None:
    world, steps = World(), way_of(an_order())
    await world.hear(steps[2])

    assert await world.rebuild(steps[1], an_order()) == Rebuilt(written=1, newer=1)

    assert (await world.views.get(steps[0].id)).version == 3


async def test_views_of_orders_that_there_are_not_go_but_not_those_that_may_be_on_their_way() -> None:
    world = World()
    old, known, recent = (an_order(NOW - age) for age in (2 * SETTLED_AFTER, timedelta(hours=1), timedelta(seconds=1)))
    older, last = an_order(NOW - timedelta(hours=2)), an_order(NOW - SETTLED_AFTER - timedelta(seconds=1))
    await world.hear(old, known, recent, older, last)

    assert await world.rebuild(known) == Rebuilt(written=1, removed=3)

    assert set(await world.all()) == {known.id, recent.id}


async def test_rebuilding_again_and_again_removes_nothing_that_there_is() -> None:
    world = World()
    orders = [an_order(NOW - timedelta(hours=age)) for age in range(1, 8)]

    for _ in range(2):
        assert await world.rebuild(*orders) == Rebuilt(written=7)

    assert set(await world.all()) == {order.id for order in orders}


async def test_without_any_order_there_are_no_views() -> None:
    world = World()
    await world.hear(an_order(NOW - timedelta(hours=1)))

    assert await world.rebuild() == Rebuilt(removed=1)


async def test_an_order_that_cannot_be_stored_stops_the_rebuilding_and_says_which() -> None:
    world, order = World(), an_order(reference="\ud800")

    with pytest.raises(Unstorable, match=str(order.id)):
        await world.rebuild(order)
