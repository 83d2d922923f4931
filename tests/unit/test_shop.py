"""What a basket may be, and the steps of an order; the rules and the use cases, on fakes."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showcase.kernel.events import Event
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import Principal, Scope
from showcase.shop.application import STEPS, NotAHousehold
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
    NoSuchOrder,
    NoSuchProduct,
    OrderId,
    ProductId,
    Status,
    WrongStep,
    advance,
    place,
)
from tests.fakes_messaging import Fakes

pytestmark = pytest.mark.anyio
HOUSEHOLD = Principal(subject="households/7", scopes=frozenset({Scope.ORDERS_READ, Scope.ORDERS_WRITE}))
OTHER = replace(HOUSEHOLD, subject="households/8")
STAFF = Principal(subject="staff/ada", scopes=frozenset({Scope.ORDERS_READ, Scope.ORDERS_FOLLOW}))
LINE = Line(product_id=ProductId(1), quantity=2, total_cents=199)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


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


ALLOWED = {
    (Status.PLACED, Status.PAID): "shop.order.paid.v1",
    (Status.PLACED, Status.REFUSED): "shop.order.refused.v1",
    (Status.PAID, Status.PACKED): "shop.order.packed.v1",
}


@pytest.mark.parametrize("to", [Status.PAID, Status.REFUSED, Status.PACKED])
@pytest.mark.parametrize("begins", list(Status))
def test_an_order_goes_from_placed_to_packed_or_refused_and_no_other_way(begins: Status, to: Status) -> None:
    order = replace(place(HouseholdId(7), [LINE]), status=begins)

    if (begins, to) not in ALLOWED:
        with pytest.raises(WrongStep):
            advance(order, to)
        return
    moved = advance(order, to)
    assert (moved.status, moved.version) == (to, order.version + 1)
    assert [event.type for event in moved.events] == [ALLOWED[begins, to]]


def test_an_event_tells_all_of_the_order() -> None:
    order = place(HouseholdId(7), [LINE, LINE], "receipt 1")

    (event,) = order.events
    assert (event.type, event.subject) == ("shop.order.placed.v1", f"orders/{order.id}")
    assert event.data == {
        "order_id": str(order.id),
        "household_id": 7,
        "reference": "receipt 1",
        "status": "placed",
        "version": 1,
        "total_cents": 398,
        "lines": [{"product_id": 1, "quantity": 2, "total_cents": 199}] * 2,
    }


# -- the use cases


async def test_an_order_and_its_event_are_stored_together_or_not_at_all() -> None:
    fakes = Fakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")
    assert [list(fakes.orders), [event.type for event in fakes.waiting]] == [[order.id], ["shop.order.placed.v1"]]

    fakes.outbox_is_full = True
    with pytest.raises(MemoryError):
        await fakes.shop.place(HOUSEHOLD, [LINE], "")
    assert list(fakes.orders) == [order.id]


async def test_only_a_household_places_orders_and_has_own_ones() -> None:
    fakes = Fakes()
    for caller in (STAFF, replace(HOUSEHOLD, subject="households/abc")):
        with pytest.raises(NotAHousehold):
            await fakes.shop.place(caller, [LINE], "")
        with pytest.raises(NotAHousehold):
            await fakes.shop.own_orders(caller, None, 10)
    assert fakes.orders == {}


async def test_an_order_is_seen_by_its_household_and_by_staff() -> None:
    fakes = Fakes()
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


async def test_a_product_that_is_none_is_not_found() -> None:
    with pytest.raises(NoSuchProduct):
        await Fakes().shop.product(ProductId(404))


def told(order_id: object, type_: str = "payment.order.charged.v1") -> Event:
    return Event(type=type_, source="/payment", subject=f"orders/{order_id}", data={"order_id": str(order_id)})


async def test_an_event_moves_an_order_once_and_the_next_event_names_its_cause() -> None:
    fakes = Fakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")
    charged = told(order.id)

    for _ in range(3):
        await fakes.shop.heard(charged)

    assert (fakes.orders[order.id].status, fakes.orders[order.id].version) == (Status.PAID, 2)
    assert [(event.type, event.causation_id) for event in fakes.waiting][1:] == [("shop.order.paid.v1", charged.id)]


async def test_a_second_charge_is_no_step_and_is_left_for_a_person() -> None:
    """Another event id is another charge: to swallow it would hide that somebody paid twice."""
    fakes = Fakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")
    await fakes.shop.heard(told(order.id))

    with pytest.raises(WrongStep):
        await fakes.shop.heard(told(order.id))
    assert fakes.orders[order.id].status is Status.PAID


async def test_an_event_that_failed_is_not_taken_for_handled() -> None:
    fakes = Fakes()
    order = await fakes.shop.place(HOUSEHOLD, [LINE], "")
    packed, charged = told(order.id, "stock.order.packed.v1"), told(order.id)

    with pytest.raises(WrongStep):
        await fakes.shop.heard(packed)
    await fakes.shop.heard(charged)
    await fakes.shop.heard(packed)
    assert fakes.orders[order.id].status is Status.PACKED


@pytest.mark.parametrize(
    ("event", "error"),
    [
        (told(new_uuid()), NoSuchOrder),
        (told("nonsense"), ValueError),
        (replace(told(new_uuid()), data={}), LookupError),
        (told(new_uuid(), "weather.changed.v1"), LookupError),
    ],
)
async def test_an_event_that_means_nothing_here_is_an_error(event: Event, error: type[Exception]) -> None:
    with pytest.raises(error):
        await Fakes().shop.heard(event)


def test_each_answer_of_another_service_is_a_step() -> None:
    assert set(STEPS.values()) == set(Status) - {Status.PLACED}
