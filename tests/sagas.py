"""A saga whose letters a test delivers: in any order, any number of times, and the alarm whenever it likes.

It asks nothing of the shop, of payment and of stock but their handlers: `AnyWayRound` runs on those in memory and on
those in PostgreSQL.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Protocol, TypeVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from showcase.kernel.errors import Conflict
from showcase.kernel.events import Event, handling
from showcase.kernel.ids import EventId, new_uuid
from showcase.messaging.application.handlers import Handlers
from showcase.shop.application import Shop, Step
from showcase.shop.domain import Line, Order, OrderId, ProductId, Status
from tests.fakes_shop import HOUSEHOLD, LIMIT_CENTS, SHELF, MemoryPayment, MemoryStock, ShopFakes, handlers_of

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Letter:
    """An event on its way to one of those who take it."""

    to: str
    event: Event


class Post:
    """An event sink whose letters arrive when, in which order, and as often as a test says. There is no inbox.

    Attributes:
        takers: whoever takes letters, by name.
        alarms: events that are told later, when a test says so.
    """

    def __init__(self) -> None:
        self.takers: dict[str, Handlers] = {}
        self.letters: list[Letter] = []
        self.alarms: list[Event] = []
        self._written: list[tuple[Event, bool]] = []

    async def add(self, event: Event, *, after: timedelta | None = None) -> None:
        self._written.append((event, after is not None))

    def collect(self) -> None:
        """Take what was written by a transaction that has committed."""
        for event, is_alarm in self._written:
            if is_alarm:
                self.alarms.append(event)
            else:
                self.letters += self._to_all(event)
        self._written.clear()

    async def deliver(self, letter: Letter) -> bool:
        """Hand a letter over: whether it was handled. If not, it is still to be delivered."""
        task = self.takers[letter.to].read(letter.event.attributes(), letter.event.body())
        with handling(task.event):
            await task.ask()
            try:
                await task.handle()
            except Conflict:
                self._written.clear()
                return False
        self.letters.remove(letter)
        self.collect()
        return True

    async def deliver_all(self) -> None:
        """Hand over all letters, and all that come of them. Raises AssertionError when one is never handled."""
        while self.letters:
            handled = [await self.deliver(letter) for letter in tuple(self.letters)]
            assert any(handled), f"nobody can handle {[(one.to, one.event.type) for one in self.letters]}"

    def ring(self, alarm: Event) -> None:
        """The time of an alarm has come."""
        self.alarms.remove(alarm)
        self.letters += self._to_all(alarm)

    def _to_all(self, event: Event) -> list[Letter]:
        return [Letter(name, event) for name, handlers in self.takers.items() if event.type in handlers.types]


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the tables of all three say of some orders."""

    statuses: Mapping[UUID, str]
    charges: Mapping[UUID, int]
    refunds: Mapping[UUID, int]
    picks: Mapping[UUID, Mapping[int, int]]
    shelves: Mapping[int, int]


class Saga(Protocol):
    """The three services on one post."""

    post: Post
    shop: Shop
    products: tuple[int, int]

    def books(self) -> Awaitable[Books]: ...


class MemorySaga:
    """All of it in memory."""

    def __init__(self) -> None:
        self.post = Post()
        self.products = (1, 2)
        self._fakes = ShopFakes(self.post)
        self.shop = self._fakes.shop
        self._payment, self._stock = MemoryPayment(self.post), MemoryStock(self.post)
        self.post.takers |= {
            "shop": handlers_of(self.shop),
            "payment": self._payment.handlers(),
            "stock": self._stock.handlers(),
        }

    async def books(self) -> Books:
        return Books(
            statuses={order.id: order.status for order in self._fakes.orders.values()},
            charges=self._payment.charges,
            refunds=self._payment.refunds,
            picks=self._stock.picks,
            shelves=self._stock.shelves,
        )


def assert_books_agree(books: Books, orders: Mapping[UUID, Order]) -> None:
    """Whatever has happened: who got goods has paid once, who got none has paid nothing, and no piece is lost."""
    assert set(books.statuses) == set(orders)
    taken: Counter[int] = Counter()
    for id_, order in orders.items():
        wanted: Counter[int] = Counter()
        for line in order.lines:
            wanted[line.product_id] += line.quantity
        picks, paid = books.picks.get(id_, {}), (books.charges.get(id_, 0), books.refunds.get(id_, 0))
        if books.statuses[id_] == Status.PACKED:
            assert (paid, picks) == ((1, 0), wanted)
        else:
            assert books.statuses[id_] == Status.REFUSED
            assert (paid in [(0, 0), (1, 1)], picks) == (True, {})
        taken += Counter(picks)
    assert {product: left + taken[product] for product, left in books.shelves.items()} == dict.fromkeys(
        books.shelves, SHELF
    )


places = st.integers(0, 1_000)
BASKETS: Mapping[str, Sequence[tuple[int, int, int]]] = {
    "small": [(0, 2, 100)],
    "of two shelves, one of them twice": [(1, 2, 100), (0, 1, 100), (1, 1, 100)],
    "of the other shelf first": [(1, 1, 100), (0, 2, 100)],
    "too dear": [(0, 1, LIMIT_CENTS + 1)],
    "too large": [(1, SHELF, 100), (1, 1, 0)],
}
"""Of each line: which of the two products, how many pieces, cents."""


class AnyWayRound(RuleBasedStateMachine):
    """Some orders, whose letters come in any order, any number of times, while the time of any may be up."""

    saga: Saga
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.orders: dict[UUID, Order] = {}
        self.handled: list[Letter] = []

    @property
    def post(self) -> Post:
        return self.saga.post

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @precondition(lambda self: len(self.orders) < 3)
    @rule(basket=st.sampled_from(sorted(BASKETS)))
    def place(self, basket: str) -> None:
        order = self.run(placed(self.saga, basket))
        self.orders[order.id] = order

    @precondition(lambda self: self.post.letters)
    @rule(place=places)
    def deliver_any(self, place: int) -> None:
        letter = self.post.letters[place % len(self.post.letters)]
        if self.run(self.post.deliver(letter)):
            self.handled.append(letter)

    @precondition(lambda self: self.handled)
    @rule(place=places, has_another_id=st.booleans())
    def one_comes_again(self, place: int, has_another_id: bool) -> None:
        letter = self.handled[place % len(self.handled)]
        event = replace(letter.event, id=EventId(str(new_uuid()))) if has_another_id else letter.event
        self.post.letters.append(Letter(letter.to, event))

    @precondition(lambda self: self.post.alarms)
    @rule(place=places)
    def time_is_up(self, place: int) -> None:
        self.post.ring(self.post.alarms[place % len(self.post.alarms)])

    def teardown(self) -> None:
        """In the end everything arrives, and at last every alarm."""
        for alarms in ([], self.post.alarms):
            for alarm in tuple(alarms):
                self.post.ring(alarm)
            self.run(self.post.deliver_all())
            assert_books_agree(self.run(self.read_books()), self.orders)
        for id_ in self.orders:
            steps = self.run(self.read_steps(id_))
            assert [step.version for step in steps] == list(range(1, len(steps) + 1))

    async def read_books(self) -> Books:
        return await self.saga.books()

    async def read_steps(self, order_id: UUID) -> Sequence[Step]:
        return await self.saga.shop.steps(HOUSEHOLD, OrderId(order_id))


async def placed(saga: Saga, basket: str) -> Order:
    """An order of one of the baskets."""
    lines = [
        Line(product_id=ProductId(saga.products[which]), quantity=pieces, total_cents=cents)
        for which, pieces, cents in BASKETS[basket]
    ]
    order = await saga.shop.place(HOUSEHOLD, lines, "")
    saga.post.collect()
    return order
