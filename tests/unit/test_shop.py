"""What a basket may be, and the steps of an order; the rules and the use cases, on fakes."""

import asyncio
from dataclasses import asdict, replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import run_state_machine_as_test

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event, handling
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import Principal, Scope
from showcase.shop.application import NoSuchChange, NotAHousehold, OrderNumber, Overtaken
from showcase.shop.domain import (
    MAX_LINES,
    MAX_QUANTITY,
    MAX_TOTAL_CENTS,
    BadQuantity,
    BadTotal,
    BasketTooLarge,
    EmptyBasket,
    HouseholdId,
    Line,
    News,
    NoSuchOrder,
    NoSuchProduct,
    OrderId,
    ProductId,
    Reason,
    Status,
    WrongStep,
    advance,
    place,
)
from tests.fakes_shop import HOUSEHOLD, ShopFakes
from tests.sagas import AnyWayRound, MemorySaga, placed

pytestmark = pytest.mark.anyio
OTHER = replace(HOUSEHOLD, subject="households/8")
STAFF = Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_READ, Scope.ORDERS_FOLLOW}))
LINE = Line(product_id=ProductId(1), quantity=2, total_cents=199)
CHECKED = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


# -- a basket


@pytest.mark.parametrize("quantity", [0, -1, MAX_QUANTITY + 1, 2**70])
def test_a_line_has_one_piece_to_what_somebody_can_carry(quantity: int) -> None:
    with pytest.raises(BadQuantity):
        replace(LINE, quantity=quantity)
    assert [replace(LINE, quantity=pieces).quantity for pieces in (1, MAX_QUANTITY)] == [1, MAX_QUANTITY]


@pytest.mark.parametrize("cents", [-1, MAX_TOTAL_CENTS + 1])
def test_a_line_costs_nothing_to_what_a_till_takes(cents: int) -> None:
    with pytest.raises(BadTotal):
        replace(LINE, total_cents=cents)
    assert [replace(LINE, total_cents=total).total_cents for total in (0, MAX_TOTAL_CENTS)] == [0, MAX_TOTAL_CENTS]


def test_an_order_has_one_line_to_so_many() -> None:
    with pytest.raises(EmptyBasket):
        place(HouseholdId(7), [])
    with pytest.raises(BasketTooLarge):
        place(HouseholdId(7), [LINE] * (MAX_LINES + 1))
    assert len(place(HouseholdId(7), [LINE] * MAX_LINES).lines) == MAX_LINES


@given(st.lists(st.tuples(st.integers(1, MAX_QUANTITY), st.integers(0, MAX_TOTAL_CENTS)), min_size=1, max_size=20))
def test_an_order_costs_what_its_lines_cost_and_never_price_times_pieces(lines: list[tuple[int, int]]) -> None:
    order = place(HouseholdId(7), [replace(LINE, quantity=pieces, total_cents=cents) for pieces, cents in lines])
    assert order.total_cents == sum(cents for _, cents in lines)


# -- its steps

P, PAID, KEPT, DONE, BACK, NO = Status  # placed, paid, reserved, packed, cancelling, refused
STEPS: dict[News, dict[Status, Status | None]] = {
    News.CHARGED: {P: PAID, PAID: None, KEPT: None, DONE: None, BACK: None, NO: None},
    News.DECLINED: {P: NO, BACK: None, NO: None},
    News.RESERVED: {PAID: KEPT, KEPT: None, DONE: None, BACK: None, NO: None},
    News.SHORT: {PAID: BACK, BACK: None, NO: None},
    News.PACKED: {KEPT: DONE, DONE: None},
    News.SETTLED: {BACK: NO, NO: None},
    News.OVERDUE: {P: BACK, PAID: BACK, KEPT: None, DONE: None, BACK: None, NO: None},
}
"""Where each piece of news leads from each status; to None, where it comes too late. What is not here cannot be."""
REASONS = {News.DECLINED: Reason.DECLINED, News.SHORT: Reason.SHORT, News.OVERDUE: Reason.OVERDUE}


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("news", list(News))
def test_each_piece_of_news_takes_an_order_one_step_or_comes_too_late_or_cannot_be(news: News, status: Status) -> None:
    order = replace(place(HouseholdId(7), [LINE]), status=status)

    if status not in STEPS[news]:
        with pytest.raises(WrongStep):
            advance(order, news)
        return
    moved = advance(order, news)
    to = STEPS[news][status]
    assert moved == (to and replace(order, status=to, version=2, reason=REASONS.get(news, Reason.NONE)))


def test_an_order_that_was_taken_back_is_refused_for_the_reason_it_was_taken_back_for() -> None:
    order = advance(place(HouseholdId(7), [LINE]), News.OVERDUE)
    assert order is not None
    refused = advance(order, News.SETTLED)
    assert refused is not None
    assert (refused.status, refused.reason) == (Status.REFUSED, Reason.OVERDUE)


# -- the use cases


async def test_an_order_and_its_event_are_stored_together_or_not_at_all() -> None:
    fakes = ShopFakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")
    assert list(fakes.orders) == [order.id]
    assert types(fakes) == ["shop.order.placed.v1", "shop.deadline.passed.v1"]

    fakes.outbox.is_full = True
    with pytest.raises(MemoryError):
        await fakes.shop.place(HOUSEHOLD, [LINE], "")
    assert list(fakes.orders) == [order.id]
    assert len(types(fakes)) == 2


async def test_an_order_sets_an_alarm_that_is_part_of_its_story() -> None:
    fakes = ShopFakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")

    placed, alarm = fakes.outbox.events
    assert [row.message.route.exchange for row in fakes.outbox.rows.values()] == ["events", "delay.600s"]
    assert (alarm.causation_id, alarm.correlation_id) == (placed.id, placed.id)
    assert (alarm.subject, alarm.data) == (placed.subject, {"order_id": str(order.id)})


async def test_an_event_tells_all_of_the_order() -> None:
    fakes = ShopFakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE, LINE], "receipt 1")
    await hear(fakes, order.id, "payment.order.declined.v1")

    placed, _, refused = fakes.outbox.events
    assert (placed.type, placed.subject) == ("shop.order.placed.v1", f"orders/{order.id}")
    data = {
        "order_id": str(order.id),
        "household_id": 7,
        "reference": "receipt 1",
        "status": "placed",
        "version": 1,
        "total_cents": 398,
        "placed_at": order.placed_at.isoformat().replace("+00:00", "Z"),
        "lines": [{"product_id": 1, "quantity": 2, "total_cents": 199}] * 2,
    }
    assert placed.data == data
    assert refused.type == "shop.order.refused.v2"
    assert refused.data == data | {"status": "refused", "version": 2, "reason": "payment declined"}


async def test_only_a_household_places_orders_and_has_own_ones() -> None:
    fakes = ShopFakes()
    for caller in (STAFF, replace(HOUSEHOLD, subject="households/abc")):
        with pytest.raises(NotAHousehold):
            await fakes.shop.place(caller, [LINE], "")
        with pytest.raises(NotAHousehold):
            await fakes.shop.own_orders(caller, None, 10)
    assert fakes.orders == {}


async def test_an_order_is_seen_by_its_household_and_by_staff() -> None:
    fakes = ShopFakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")

    for caller in (HOUSEHOLD, STAFF):
        assert await fakes.shop.order(caller, order.id) == order
    with pytest.raises(NoSuchOrder) as not_mine:
        await fakes.shop.order(OTHER, order.id)
    with pytest.raises(NoSuchOrder) as not_there:
        await fakes.shop.order(HOUSEHOLD, OrderId(new_uuid()))
    assert (
        str(not_mine.value).replace(str(order.id), "")
        == str(not_there.value)[: len("there is no order ")] + " of yours"
    )


# -- the catalogue


async def test_a_product_that_is_none_is_not_found() -> None:
    fakes = ShopFakes()
    for asked in (fakes.shop.product(ProductId(404)), fakes.shop.change_product(ProductId(404), {"brand": "x"})):
        with pytest.raises(NoSuchProduct):
            await asked
    assert fakes.outbox.events == []


async def test_products_come_in_the_order_in_which_they_are_asked_for() -> None:
    fakes = ShopFakes()
    one, two = fakes.products.put(1), fakes.products.put(2)
    ids = [ProductId(number) for number in (2, 404, 1, 2)]
    assert await fakes.shop.products_by_id(ids) == [two, one, two]


async def test_a_change_is_told_with_all_of_the_product_and_at_once_when_it_is_stored() -> None:
    fakes = ShopFakes()
    product = fakes.products.put(1, brand="National", type="MILK")
    changed = await fakes.shop.change_product(product.product_id, {"brand": "Private", "type": None})

    assert changed == replace(product, brand="Private", type=None, version=changed.version)
    assert changed.version > product.version
    (event,) = fakes.outbox.events
    assert (event.type, event.subject) == ("shop.product.changed.v1", "products/1")
    assert event.data == asdict(changed)
    assert fakes.heard == [(1, changed.version)]


async def test_a_product_and_its_event_are_changed_together_or_not_at_all() -> None:
    fakes = ShopFakes()
    product = fakes.products.put(1)
    fakes.outbox.is_full = True
    with pytest.raises(MemoryError):
        await fakes.shop.change_product(product.product_id, {"brand": "x"})
    assert await fakes.shop.product(product.product_id) == product
    assert fakes.heard == []


async def test_a_change_of_what_somebody_else_has_changed_is_refused() -> None:
    fakes = ShopFakes()
    product = fakes.products.put(1)
    changed = await fakes.shop.change_product(product.product_id, {"brand": "x"}, product.version)
    with pytest.raises(Overtaken):
        await fakes.shop.change_product(product.product_id, {"brand": "y"}, product.version)
    assert await fakes.shop.product(product.product_id) == changed


@pytest.mark.parametrize("changes", [{}, {"version": "1"}, {"product_id": "2"}, {"brand": "x", "manufacturer_id": "1"}])
async def test_what_cannot_be_changed_of_a_product_is_not(changes: dict[str, str]) -> None:
    fakes = ShopFakes()
    product = fakes.products.put(1)
    with pytest.raises(NoSuchChange):
        await fakes.shop.change_product(product.product_id, changes)
    assert await fakes.shop.product(product.product_id) == product


async def test_a_change_is_made_also_if_nobody_can_be_told_at_once() -> None:
    fakes = ShopFakes()
    product = fakes.products.put(1)

    async def broken(product_id: ProductId, version: int) -> None:
        raise Unavailable("away")

    changed = await replace(fakes.shop, changed=broken).change_product(product.product_id, {"brand": "x"})
    assert await fakes.shop.product(product.product_id) == changed


# -- who sees the way of an order


async def test_the_way_of_an_order_is_seen_by_whoever_may_see_it() -> None:
    fakes = ShopFakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")
    charged = await hear(fakes, order.id, "payment.order.charged.v1")

    for caller in (HOUSEHOLD, STAFF):
        steps = await fakes.shop.steps(caller, order.id)
        assert [(step.version, step.status, step.cause) for step in steps] == [(1, P, ""), (2, PAID, charged.id)]
    with pytest.raises(NoSuchOrder):
        await fakes.shop.steps(OTHER, order.id)


async def hear(fakes: ShopFakes, order_id: OrderId, *types: str) -> Event:
    """The shop hears events of these types, one after the other; the last of them."""
    for type_ in types:
        event = Event(type=type_, source="/test", subject=f"orders/{order_id}", data={})
        with handling(event):
            await fakes.shop.heard(event, OrderNumber(order_id=order_id))
    return event


def types(fakes: ShopFakes) -> list[str]:
    return [event.type for event in fakes.outbox.events]


async def test_what_is_heard_again_changes_nothing_also_under_another_id() -> None:
    fakes = ShopFakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")

    await hear(fakes, order.id, *["payment.order.charged.v1"] * 3)
    assert (fakes.orders[order.id].status, fakes.orders[order.id].version) == (Status.PAID, 2)
    assert types(fakes)[2:] == ["shop.order.paid.v1"]


async def test_what_comes_too_early_is_refused_for_now_and_handled_later() -> None:
    fakes = ShopFakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")

    with pytest.raises(WrongStep):
        await hear(fakes, order.id, "stock.order.packed.v1")
    await hear(fakes, order.id, "payment.order.charged.v1", "stock.order.reserved.v1", "stock.order.packed.v1")
    assert fakes.orders[order.id].status is Status.PACKED


async def test_an_answer_about_an_order_that_is_none_is_an_error() -> None:
    with pytest.raises(NoSuchOrder):
        await hear(ShopFakes(), OrderId(new_uuid()), "payment.order.charged.v1")


# -- with payment and stock


@pytest.fixture
def saga() -> MemorySaga:
    return MemorySaga()


ENDS = {
    "small": ("packed", ["placed", "paid", "reserved", "packed"]),
    "too dear": ("payment declined", ["placed", "refused"]),
    "too large": ("out of stock", ["placed", "paid", "cancelling", "refused"]),
}


@pytest.mark.parametrize("basket", ENDS)
async def test_an_order_ends_packed_or_for_a_reason(saga: MemorySaga, basket: str) -> None:
    order = await placed(saga, basket)
    await saga.post.deliver_all()

    steps = await saga.shop.steps(HOUSEHOLD, order.id)
    end, way = ENDS[basket]
    assert ([step.status for step in steps], steps[-1].reason or "packed") == (way, end)


def test_whatever_arrives_in_whatever_order_every_order_ends_well() -> None:
    class InMemory(AnyWayRound):
        def __init__(self) -> None:
            self.saga = MemorySaga()
            super().__init__()

    with asyncio.Runner() as InMemory.runner:
        run_state_machine_as_test(InMemory, settings=CHECKED)
