"""The views of orders on real servers: kept while orders arrive and workers die, rebuilt, and read over HTTP."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from pymongo import MongoClient
from pymongo.database import Database as MongoDatabase

from showcase.kernel.principal import Scope
from showcase.platform.database import Database
from showcase.shop.infrastructure import SqlOrders
from tests.integration.system import System, at_once, basket, problem_of, system_on, wait_for
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
STAFF = frozenset({Scope.ORDERS_READ, Scope.ORDERS_FOLLOW})
LIMIT_CENTS = 5_000
ORDERS = "SELECT order_id::text, household_id, reference, status, reason, version, total_cents, placed_at FROM orders"
LINES = "SELECT order_id::text, product_id, quantity, total_cents FROM order_lines ORDER BY order_id, line"


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        system.slices = "shop,views"
        system.start("app", "app", "relay", "payment", "stock", "shop", "views", payment_limit_cents=LIMIT_CENTS)
        yield system


@contextmanager
def mongo_of(system: System) -> "Iterator[MongoDatabase[dict[str, Any]]]":
    """A person with a shell of MongoDB."""
    url = system.environment["SHOWCASE_MONGO_URL"]
    client: MongoClient[dict[str, Any]] = MongoClient(
        url, timeoutMS=10_000, tz_aware=True, uuidRepresentation="standard"
    )
    with client:
        yield client.get_default_database()


def place(system: System, count: int, household: int = 7, cents: int = 200) -> list[httpx.Response]:
    """So many orders, some at a time."""
    apps = [process.url for process in system.running("app")]
    headers = system.headers(f"households/{household}")

    def one(number: int) -> httpx.Response:
        body = basket((1, cents), (2, 0), reference=f"{household}/{number}")
        return httpx.post(f"{apps[number % len(apps)]}/orders", json=body, headers=headers, timeout=15)

    answers = [answer for start in range(0, count, 10) for answer in at_once(min(10, count - start), one)]
    assert {answer.status_code for answer in answers} == {201}
    return answers


def in_postgres(system: System) -> dict[str, tuple[Any, ...]]:
    """Each order by its id, with its lines."""
    lines: dict[str, list[tuple[Any, ...]]] = {}
    for order_id, *line in system.sql(LINES):
        lines.setdefault(order_id, []).append(tuple(line))
    return {
        order_id: (*rest, in_milliseconds(placed_at), lines[order_id])
        for order_id, *rest, placed_at in system.sql(ORDERS)
    }


def in_mongo(system: System) -> dict[str, tuple[Any, ...]]:
    """The same of the views."""
    names = ("household_id", "reference", "status", "reason", "version", "total_cents")
    with mongo_of(system) as db:
        return {
            str(one["_id"]): (
                *(one[name] for name in names),
                in_milliseconds(one["placed_at"]),
                [(line["product_id"], line["quantity"], line["total_cents"]) for line in one["lines"]],
            )
            for one in db["order_views"].find()
        }


def in_milliseconds(at: datetime) -> int:
    return int((at - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(milliseconds=1))


def is_over(system: System) -> bool:
    return bool(
        system.one("SELECT count(*) FROM orders WHERE status IN ('placed', 'paid', 'reserved', 'cancelling')") == 0
    )


def settle(system: System) -> None:
    """Wait until every order has ended, and every view knows."""
    wait_for(lambda: is_over(system), within_s=60)
    wait_for(lambda: in_mongo(system) == in_postgres(system))


def test_every_order_has_a_view_that_is_as_the_order_is(system: System) -> None:
    place(system, 20)
    place(system, 3, cents=LIMIT_CENTS + 1)

    settle(system)

    views = in_mongo(system)
    assert sorted(view[2] for view in views.values()) == ["packed"] * 20 + ["refused"] * 3
    assert {view[3] for view in views.values()} == {"", "payment declined"}


def test_the_worker_makes_the_schema(system: System) -> None:
    with mongo_of(system) as db:
        assert len(db["order_views"].index_information()) == 3
        assert "$jsonSchema" in db["order_views"].options()["validator"]


async def test_all_orders_come_once_by_their_ids_with_their_lines(system: System) -> None:
    place(system, 5)
    database = Database(system.postgres_url)
    pages = [page async for page in SqlOrders(database).all(2)]
    await database.close()

    orders = [order for page in pages for order in page]
    assert {len(page) for page in pages[:-1]} == {2}
    assert [str(order.id) for order in orders] == [row[0] for row in system.sql(f"{ORDERS} ORDER BY order_id")]
    lines = [(str(order.id), x.product_id, x.quantity, x.total_cents) for order in orders for x in order.lines]
    assert lines == system.sql(LINES)


def test_a_worker_that_is_killed_in_the_middle_leaves_no_view_behind(system: System) -> None:
    placing = threading.Thread(target=place, args=(system, 40, 8))
    placing.start()
    with mongo_of(system) as db:
        wait_for(lambda: db["order_views"].count_documents({"household_id": 8}) > 0)
    system.running("views")[0].kill()
    placing.join()
    system.start("views", "views")

    settle(system)


def test_views_are_rebuilt_from_nothing_while_orders_arrive(system: System) -> None:
    placing = threading.Thread(target=place, args=(system, 40, 9))
    placing.start()
    with mongo_of(system) as db:
        wait_for(lambda: db["order_views"].count_documents({"household_id": 9}) > 0)
        before = db["order_views"].count_documents({})

        ended = system.run("documents", "rebuild", "--from-nothing")

        assert ended.code == 0, ended
        assert int(ended.output.split(" written")[0].replace(",", "")) >= before - 40
        indexes = db["order_views"].index_information()
    placing.join()
    settle(system)
    assert len(indexes) == 3


def test_rebuilt_in_place_no_reader_misses_an_order_and_what_was_spoilt_is_mended(system: System) -> None:
    place(system, 30, household=10)
    settle(system)
    with mongo_of(system) as db:
        db["order_views"].update_many({"household_id": 10}, {"$set": {"total_cents": 1}})
    headers, url = system.headers("households/10"), f"{system.running('app')[0].url}/households/10/orders"
    seen: list[int] = []
    over = threading.Event()

    def read() -> None:
        while not over.is_set():
            page = httpx.get(url, headers=headers, params={"limit": 100}, timeout=15).raise_for_status().json()
            seen.append(len(page["items"]))

    reading = threading.Thread(target=read)
    reading.start()
    ended = system.run("documents", "rebuild")
    over.set()
    reading.join()

    assert ended.code == 0, ended
    assert ended.output.endswith("0 newer by then, 0 removed\n")
    assert set(seen) == {30}
    assert in_mongo(system) == in_postgres(system)


def test_a_household_reads_its_orders_page_by_page_the_newest_first(system: System) -> None:
    placed = [answer.json()["order_id"] for answer in place(system, 7, household=11)]
    settle(system)
    url = f"{system.running('app')[1].url}/households/11/orders"
    headers = system.headers("households/11")

    items: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        params = {"limit": "3", **({"cursor": cursor} if cursor else {})}
        page = httpx.get(url, headers=headers, params=params, timeout=15).raise_for_status().json()
        items += page["items"]
        if (cursor := page["next"]) is None:
            break

    assert sorted(item["order_id"] for item in items) == sorted(placed)
    assert [item["placed_at"] for item in items] == sorted((item["placed_at"] for item in items), reverse=True)
    one = httpx.get(f"{system.running('app')[0].url}/orders/{placed[0]}", headers=headers, timeout=15).json()
    same = next(item for item in items if item["order_id"] == placed[0])
    assert same == {**one, "placed_at": same["placed_at"]}


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"cursor": "forged"}, (422, "bad-cursor")),
        ({"cursor": "A" * 200}, (422, "bad-cursor")),
        ({"status": '{"$ne": null}'}, (422, "invalid-request")),
        ({"status[$ne]": "paid", "limit": "0"}, (422, "invalid-request")),
        ({"since": "2026-01-01T00:00:00"}, (422, "invalid-request")),
        ({"product_id": str(2**63)}, (422, "invalid-request")),
    ],
)
def test_what_cannot_be_asked_is_refused(system: System, params: dict[str, str], problem: tuple[int, str]) -> None:
    url = f"{system.running('app')[0].url}/households/7/orders"

    assert problem_of(httpx.get(url, headers=system.headers(), params=params, timeout=15)) == problem


def test_nobody_sees_the_orders_of_others_but_staff(system: System) -> None:
    url = f"{system.running('app')[0].url}/households/8/orders"

    assert problem_of(httpx.get(url, headers=system.headers("households/7"), timeout=15)) == (404, "no-such-household")
    assert problem_of(httpx.get(url, timeout=15)) == (401, "missing-token")
    staff = httpx.get(url, headers=system.headers("staff/ada", STAFF), timeout=15)
    assert len(staff.json()["items"]) == 40


def test_a_view_that_does_not_fit_is_named_and_the_others_are_shown(system: System) -> None:
    place(system, 3, household=12)
    settle(system)
    with mongo_of(system) as db:
        spoilt = db["order_views"].find_one({"household_id": 12})
        assert spoilt is not None
        raw = db.get_collection("order_views")
        db.command("collMod", "order_views", validationLevel="off")
        raw.update_one({"_id": spoilt["_id"]}, {"$set": {"reference": 5}})
        db.command("collMod", "order_views", validationLevel="strict")
    url = f"{system.running('app')[0].url}/households/12/orders"

    page = httpx.get(url, headers=system.headers("households/12"), timeout=15).raise_for_status().json()

    assert page["unreadable"] == [str(spoilt["_id"])]
    assert len(page["items"]) == 2
    assert system.run("documents", "rebuild").code == 0
    settle(system)


def test_applied_twice_the_schema_is_made_once(system: System) -> None:
    first, second = (system.run("documents", "apply") for _ in range(2))

    assert (first.code, second.code) == (0, 0)
    assert second.output == "created: nothing\nchanged: nothing\nleft over: nothing\n"


def test_a_command_without_a_server_says_so_in_one_line(system: System) -> None:
    away = system.run(
        "documents", "apply", SHOWCASE_MONGO_URL="mongodb://a:b@127.0.0.1:1/c", SHOWCASE_MONGO_TIMEOUT_S="0.5"
    )
    none = system.run("documents", "rebuild", SHOWCASE_MONGO_URL="mongodb://a:b@127.0.0.1:1/")

    assert (away.code, away.errors.splitlines()[-1]) == (1, "error: mongo does not answer in time")
    assert none.code == 2
    assert "SHOWCASE_MONGO_URL" in none.errors.splitlines()[-1]


def test_while_mongo_is_paused_readers_are_told_so_and_messages_wait_and_none_is_parked(stack: Stack) -> None:
    with Stack.private(["mongo"]) as private, system_on(stack, private) as system:
        system.slices = "shop,views"
        system.start("app", "relay", "views", mongo_timeout_s=1.0, retry_delays_s="0.1")
        place(system, 5)
        wait_for(lambda: len(in_mongo(system)) == 5)
        url = f"{system.running('app')[0].url}/households/7/orders"
        server = private.server("mongo")

        server.pause()
        place(system, 20)
        answer = httpx.get(url, headers=system.headers(), timeout=15)
        assert problem_of(answer) == (503, "unavailable")
        assert "Retry-After" in answer.headers
        assert answer.elapsed < timedelta(seconds=3)
        wait_for(lambda: system.running("views")[0].log.read_text().count("waiting for the database") >= 2)
        server.resume()

        wait_for(lambda: len(in_mongo(system)) == 25)
        assert in_mongo(system) == in_postgres(system)
        assert system.waiting("parking") == 0
        page = httpx.get(url, headers=system.headers(), params={"limit": 200}, timeout=15).json()
        assert len(page["items"]) == 25
