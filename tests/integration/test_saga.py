"""The saga in PostgreSQL: the same state machine as in memory, two processes that meet, and real ones of which one is
away."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import httpx
import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from showcase.kernel.events import Event, handling
from showcase.kernel.ids import EventId, new_uuid
from showcase.platform.database import Database
from showcase.services.notice import Notice, PackedOrder
from showcase.services.payment import Payment
from showcase.services.stock import NotReserved, OrderNumber, PaidOrder, Pick, Stock
from showcase.shop.application import Products, Shop
from showcase.shop.infrastructure import SqlOrders
from tests.fakes import until
from tests.fakes_shop import LIMIT_CENTS, SHELF, WITHIN, handlers_of
from tests.integration.system import basket, system_on, wait_for
from tests.sagas import AnyWayRound, Books, Letter, Post, assert_books_agree, placed
from workshop.stack import Stack
from workshop.stack.local.mail import client
from workshop.stack.namespace import Namespace
from workshop.stack.namespace.mail import messages

pytestmark = pytest.mark.anyio
SOON = {"order_within": "PT1S", "shelf_pieces": SHELF}
TABLES = (
    *("orders", "payment.refunds", "payment.charges", "payment.decisions"),
    *("stock.reservations", "stock.picks", "stock.shelves"),
)
CHECKED = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class SqlSaga:
    """The real services, each in its own schema and as its own role."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._url = env["SHOWCASE_POSTGRES_URL"]
        self.databases = {
            "shop": Database(self._url),
            "payment": Database(env["SHOWCASE_PAYMENT_POSTGRES_URL"]),
            "stock": Database(env["SHOWCASE_STOCK_POSTGRES_URL"]),
        }
        database = self.databases["shop"]
        self.post = Post()
        self.shop = Shop(
            transaction=database.transaction,
            orders=SqlOrders(database),
            products=cast("Products", None),
            events=self.post,
            order_within=WITHIN,
        )
        payment = Payment(
            database=self.databases["payment"], events=self.post, latency=timedelta(0), limit_cents=LIMIT_CENTS
        )
        self.stock = Stock(database=self.databases["stock"], events=self.post, shelf_pieces=SHELF)
        self.post.takers |= {
            "shop": handlers_of(self.shop),
            "payment": payment.handlers(),
            "stock": self.stock.handlers(),
        }
        self._past = psycopg.connect(self._url, autocommit=True)
        ((first,), (second,)) = self.sql("SELECT product_id FROM products ORDER BY 1 LIMIT 2")
        self.products = (first, second)
        self.forget()

    def forget(self) -> None:
        """Nothing has happened yet."""
        for table in TABLES:
            self._past.execute(f"DELETE FROM {table}".encode())  # noqa: S608 - names from above
        self.post.letters.clear()
        self.post.alarms.clear()

    def sql(self, query: str) -> list[tuple[Any, ...]]:
        return self._past.execute(query.encode()).fetchall()

    async def books(self) -> Books:
        picks: dict[Any, Counter[int]] = {}
        for order_id, product_id, quantity in self.sql("SELECT order_id, product_id, quantity FROM stock.picks"):
            picks.setdefault(order_id, Counter())[product_id] += quantity
        return Books(
            statuses=dict(self.sql("SELECT order_id, status FROM orders")),
            charges=dict(self.sql("SELECT order_id, count(*) FROM payment.charges GROUP BY 1")),
            refunds=dict(self.sql("SELECT order_id, count(*) FROM payment.refunds GROUP BY 1")),
            picks=picks,
            shelves=dict(self.sql("SELECT product_id, pieces FROM stock.shelves")),
        )

    async def close(self) -> None:
        self._past.close()
        for database in self.databases.values():
            await database.close()


@pytest.fixture(scope="module")
def env(stack: Stack) -> Iterator[Mapping[str, str]]:
    names = ("SHOWCASE_POSTGRES_URL", "SHOWCASE_MAIL_URL", "SHOWCASE_MAIL_API_URL")
    with Namespace.create({name: stack.urls[name] for name in names}) as namespace:
        yield namespace.env


@pytest.fixture
async def saga(env: Mapping[str, str]) -> AsyncIterator[SqlSaga]:
    saga = SqlSaga(env)
    yield saga
    await saga.close()


def test_whatever_arrives_in_whatever_order_every_order_ends_well(env: Mapping[str, str]) -> None:
    with asyncio.Runner() as runner:
        saga = SqlSaga(env)

        class InPostgres(AnyWayRound):
            def __init__(self) -> None:
                self.saga, self.runner = saga, runner
                saga.forget()
                super().__init__()

        try:
            run_state_machine_as_test(InPostgres, settings=CHECKED)
        finally:
            runner.run(saga.close())


# -- two processes meet


MEETINGS: list[tuple[str, Sequence[str], str, str]] = [
    ("payment", ["passed"], "placed", "cancelled"),
    ("payment", [], "placed", "placed"),
    ("payment", ["placed", "passed"], "cancelled", "cancelled"),
    ("stock", ["placed", "charged", "passed"], "paid", "cancelled"),
    ("stock", ["placed", "charged"], "paid", "paid"),
    ("stock", ["placed", "charged", "paid", "passed"], "cancelled", "cancelled"),
    ("stock", ["placed", "charged", "paid", "reserved"], "reserved", "reserved"),
    ("shop", ["placed"], "charged", "passed"),
    ("shop", ["placed", "charged", "paid"], "reserved", "passed"),
]
"""Who; what has arrived before; and the two that arrive at once. An order's deadline is what has passed."""
SWAPPED = [(who, before, second, first) for who, before, first, second in MEETINGS if first != second]


@pytest.mark.parametrize(
    ("who", "before", "first", "second"),
    MEETINGS + SWAPPED,
    ids=lambda value: value if isinstance(value, str) else f"after {' and '.join(value) or 'nothing'}",
)
async def test_two_processes_that_are_at_one_order_wait_for_each_other(
    saga: SqlSaga, who: str, before: Sequence[str], first: str, second: str
) -> None:
    order = await placed(saga, "of two shelves, one of them twice")
    for word in before:
        assert await saga.post.deliver(letter_of(saga.post, word))
    earlier, later = (letter_of(saga.post, word, who) for word in (first, second))
    again = replace(later, event=replace(later.event, id=EventId(str(new_uuid()))))

    async with saga.databases[who].transaction():
        await handle(saga, earlier)
        meeting = asyncio.create_task(handle(saga, again))
        await until(lambda: wait_for_a_lock(saga), within_s=5)
    await meeting
    saga.post.letters = [one for one in saga.post.letters if one not in (earlier, later)]
    saga.post.collect()

    answers = [(one.to, one.event.type) for one in saga.post.letters]
    assert len(set(answers)) == len(answers), "nothing is told twice"
    await saga.post.deliver_all()
    assert_books_agree(await saga.books(), {order.id: order})


def letter_of(post: Post, word: str, to: str = "") -> Letter:
    """The letter that tells an event named so; the alarm is rung for it."""
    if word == "passed" and post.alarms:
        post.ring(post.alarms[0])
    return next(one for one in post.letters if one.event.type.split(".")[2] == word and one.to.startswith(to))


async def handle(saga: SqlSaga, letter: Letter) -> None:
    """What a consumer does in its transaction."""
    task = saga.post.takers[letter.to].read(letter.event.attributes(), letter.event.body())
    await task.ask()
    with handling(task.event):
        await task.handle()


async def wait_for_a_lock(saga: SqlSaga, processes: int = 1) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    return len(saga.sql(query)) >= processes


SET_UP = "INSERT INTO stock.shelves SELECT number, 5 FROM generate_series(1, 100) AS number"


@pytest.mark.parametrize(
    ("before", "held"),
    [
        ("DELETE FROM stock.shelves", "INSERT INTO stock.shelves VALUES (50, 5)"),
        (SET_UP, "SELECT FROM stock.shelves WHERE product_id = 50 FOR UPDATE"),
    ],
    ids=["new shelves", "known shelves"],
)
async def test_many_at_once_take_no_more_than_there_is_and_none_waits_in_a_circle(
    saga: SqlSaga, before: str, held: str
) -> None:
    """Each wants a piece of every shelf, from another end: as many get theirs as there are pieces."""
    shelves = range(1, 101)
    orders = [
        PaidOrder(order_id=new_uuid(), lines=[Pick(product_id=one, quantity=1) for one in shelves[::way]])
        for way in (1, -1, 1) * SHELF
    ]
    event = Event(type="shop.order.paid.v1", source="/shop", subject="orders/1", data={})
    async with saga.databases["stock"].transaction() as db:
        await db.exec_driver_sql(before)
    async with saga.databases["stock"].transaction() as db:  # on one of its ten connections
        await db.exec_driver_sql(held)
        crowd = asyncio.gather(*(saga.stock.reserve(event, order) for order in orders))
        await until(lambda: wait_for_a_lock(saga, 9), within_s=5)
    await crowd

    assert saga.sql("SELECT state, count(*) FROM stock.reservations GROUP BY 1 ORDER BY 1") == [
        ("reserved", SHELF),
        ("short", 2 * SHELF),
    ]
    assert (await saga.books()).shelves == dict.fromkeys(shelves, 0)


@pytest.mark.parametrize("cancelled", [True, False])
async def test_what_is_not_kept_is_not_packed(saga: SqlSaga, cancelled: bool) -> None:
    order = OrderNumber(order_id=new_uuid())
    event = Event(type="shop.order.reserved.v1", source="/shop", subject=f"orders/{order.order_id}", data={})
    if cancelled:
        await saga.stock.release(event, order)
    with pytest.raises(NotReserved):
        await saga.stock.pack(event, order)


async def test_it_is_told_which_products_lack(saga: SqlSaga) -> None:
    await placed(saga, "too large")
    for word in ("placed", "charged", "paid"):
        await saga.post.deliver(letter_of(saga.post, word))
    assert letter_of(saga.post, "short").event.data["product_ids"] == [saga.products[1]]


async def test_the_way_of_an_order_names_the_events_that_brought_it_there(saga: SqlSaga) -> None:
    order = await placed(saga, "too large")
    causes = [""]
    for word in ("placed", "charged", "paid", "short", "cancelled", "settled"):
        letter = letter_of(saga.post, word)
        causes += [letter.event.id] if letter.to == "shop" else []
        assert await saga.post.deliver(letter)

    rows = saga.sql("SELECT version, status, reason, cause FROM order_steps ORDER BY at")
    assert [row[:3] for row in rows] == [
        (1, "placed", ""),
        (2, "paid", ""),
        (3, "cancelling", "out of stock"),
        (4, "refused", "out of stock"),
    ]
    assert [row[3] for row in rows] == causes
    found = await saga.shop.orders.find(order.id)
    assert found is not None
    assert (found.status, found.reason, found.version) == ("refused", "out of stock", 4)


async def test_a_household_hears_of_an_order_once_also_if_the_event_comes_twice(env: Mapping[str, str]) -> None:
    database = Database(env["SHOWCASE_NOTICE_POSTGRES_URL"])
    notice = Notice(database=database, mail_url=env["SHOWCASE_MAIL_URL"], domain=env["SHOWCASE_MAIL_DOMAIN"])
    order = PackedOrder(order_id=new_uuid(), household_id=7)
    for _ in range(2):
        event = Event(type="shop.order.packed.v1", source="/shop", subject=f"orders/{order.order_id}", data={})
        await notice.tell(event, order)
        await notice.write_down(event, order, None)

    async with database.transaction() as db:
        assert (await db.exec_driver_sql("SELECT count(*), min(text) FROM notice.notices")).one() == (1, order.words)
    await database.close()
    with client(env, 10) as api:
        ids = [one["MessageID"] for one in messages(api) if str(order.order_id) in one["MessageID"]]
    assert ids == [f"order-{order.order_id}@{env['SHOWCASE_MAIL_DOMAIN']}"]


# -- real processes


def test_an_order_that_is_not_reserved_in_time_is_refused_and_paid_back_and_stock_catches_up(stack: Stack) -> None:
    with system_on(stack) as system:
        app, *_ = system.start("app", "relay", "payment", "shop", "notice", **SOON)
        answer = httpx.post(f"{app.url}/orders", json=basket(), headers=system.headers(), timeout=15)
        order = answer.json()["order_id"]
        wait_for(lambda: system.sql("SELECT text FROM notice.notices WHERE order_id = %s", order) != [])
        query = "SELECT status, reason FROM orders WHERE order_id = %s"
        assert system.sql(query, order) == [("refused", "overdue")]
        assert system.one("SELECT count(*) FROM payment.refunds WHERE order_id = %s", order) == 1

        system.start("stock", **SOON)
        wait_for(lambda: system.sql("SELECT state FROM stock.reservations WHERE state IN ('released', 'void')") != [])
        assert system.sql("SELECT * FROM stock.picks") == []
        assert system.sql("SELECT * FROM stock.shelves WHERE pieces <> %s", SHELF) == []
