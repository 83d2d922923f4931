"""Products that are changed by requests and by hand: their versions and events, and who hears of it; real servers.

One namespace for all: a test has a product of its own.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import count
from typing import Any

import httpx
import psycopg
import pytest

from showcase.auth.domain.accounts import SCOPES, Role
from showcase.caching.worker import following
from showcase.kernel.errors import Unauthenticated, Unavailable
from showcase.kernel.events import Event, EventSink
from showcase.kernel.principal import Principal
from showcase.messaging.infrastructure.outbox import SqlOutbox
from showcase.platform.resources import Resources
from showcase.platform.web.app import build
from showcase.shop import wiring
from showcase.shop.application import Shop
from showcase.shop.domain import ProductId
from showcase.shop.infrastructure import SqlOrders, SqlProducts
from tests.fakes import settings_of, until
from tests.integration.system import problem_of
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
POSTGRES = "SHOWCASE_POSTGRES_URL"
STAFF, HOUSEHOLD = ({"Authorization": f"Bearer {role}"} for role in (Role.SUPPORT, Role.CUSTOMER))
NOT_THE_ROWS = {"snapshot.include.collection.list": "public.heartbeat"}
"""The connector copies no row of the catalogue first: there are 92,331."""
NUMBERS = count(900_000_001)


@pytest.fixture(scope="module")
def names(stack: Stack) -> Iterator[Namespace]:
    with Namespace.create({POSTGRES: stack.urls[POSTGRES]}) as names:
        yield names


@pytest.fixture(scope="module")
def db(names: Namespace) -> "Iterator[psycopg.Connection[Any]]":
    """A person with psql."""
    with closing(psycopg.connect(names.postgres_url, autocommit=True)) as db:
        yield db


@pytest.fixture
def number(db: "psycopg.Connection[Any]") -> int:
    """A product of one's own."""
    number = next(NUMBERS)
    db.execute("INSERT INTO products (product_id, brand) VALUES (%s, 'National')", [number])
    return number


@dataclass
class Heard:
    """Who is told of changes at once, with what the database then said to others."""

    db: "psycopg.Connection[Any]"
    told: list[tuple[int, int, int]] = field(default_factory=list)

    async def changed(self, product_id: ProductId, version: int) -> None:
        self.told.append((product_id, version, version_of(self.db, product_id)))


@pytest.fixture
def heard(db: "psycopg.Connection[Any]") -> Heard:
    return Heard(db)


@asynccontextmanager
async def app(names: Namespace, heard: Heard, events: EventSink | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """The shop over HTTP; who has a role's name for a token has that role."""

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        if token not in list(Role):
            raise Unauthenticated("who?")
        return Principal(subject=f"staff/{token}", scopes=frozenset(SCOPES[Role(token)]))

    resources = Resources(settings_of(names.env))
    database = resources.database
    shop = Shop(
        transaction=database.transaction,
        orders=SqlOrders(database),
        products=SqlProducts(database),
        events=events or SqlOutbox(database),
        order_within=timedelta(minutes=10),
        changed=heard.changed,
    )
    served = build(resources, [wiring.build(resources, shop)], authenticate)
    async with (
        served.router.lifespan_context(served),
        httpx.AsyncClient(transport=httpx.ASGITransport(served), base_url="http://test") as client,
    ):
        yield client


@pytest.fixture
async def client(names: Namespace, heard: Heard) -> AsyncIterator[httpx.AsyncClient]:
    async with app(names, heard) as client:
        yield client


def version_of(db: "psycopg.Connection[Any]", number: int) -> int:
    ((version,),) = db.execute("SELECT version FROM products WHERE product_id = %s", [number]).fetchall()
    return int(version)


def events_of(db: "psycopg.Connection[Any]", number: int) -> list[dict[str, Any]]:
    """The data of a product's events, in their order."""
    query = "SELECT convert_from(body, 'UTF8')::json FROM outbox WHERE attributes ->> 'subject' = %s ORDER BY position"
    return [data for (data,) in db.execute(query, [f"products/{number}"])]


# -- versions


def test_whoever_writes_a_product_raises_its_version_and_nobody_sets_it(
    db: "psycopg.Connection[Any]", number: int
) -> None:
    versions = [version_of(db, number)]
    for statement in (
        "UPDATE products SET brand = 'Private' WHERE product_id = %s",
        "UPDATE products SET brand = brand WHERE product_id = %s",
        "UPDATE products SET version = 1 WHERE product_id = %s",
        "INSERT INTO products (product_id) VALUES (%s) ON CONFLICT (product_id) DO UPDATE SET brand = 'x', version = 1",
    ):
        db.execute(statement.encode(), [number])
        versions.append(version_of(db, number))
    db.execute("DELETE FROM products WHERE product_id = %s", [number])
    db.execute("INSERT INTO products (product_id, version) VALUES (%s, 1)", [number])
    versions.append(version_of(db, number))
    db.execute("DELETE FROM products WHERE product_id = %s", [number])
    with db.cursor().copy("COPY products (product_id, version) FROM STDIN") as copy:
        copy.write_row((number, 1))
    versions.append(version_of(db, number))

    assert versions == sorted(set(versions))


async def changed_at_once(
    names: Namespace, db: "psycopg.Connection[Any]", number: int, calls: Sequence[Callable[[], Any]]
) -> list[httpx.Response]:
    """The answers to requests that all wait for one row, until a person lets go of it."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with psycopg.connect(names.postgres_url) as holder:
        holder.execute("SELECT FROM products WHERE product_id = %s FOR UPDATE", [number])
        tasks = [asyncio.create_task(call()) for call in calls]

        async def all_wait() -> bool:
            return db.execute(waiting).fetchone() == (len(calls),)

        await until(all_wait, within_s=4)
    return [await task for task in tasks]


async def test_versions_grow_in_the_order_in_which_changes_commit_and_so_do_the_events(
    names: Namespace, db: "psycopg.Connection[Any]", client: httpx.AsyncClient, number: int
) -> None:
    def change(body: dict[str, str]) -> Callable[[], Any]:
        return lambda: client.patch(f"/products/{number}", json=body, headers=STAFF)

    answers = await changed_at_once(names, db, number, [change({"brand": "x"}), change({"type": "MILK"})])

    assert [answer.status_code for answer in answers] == [200, 200]
    first, second = events_of(db, number)
    assert first["version"] < second["version"] == version_of(db, number)
    assert (second["brand"], second["type"]) == ("x", "MILK")  # neither change is lost
    assert {answer.headers["etag"] for answer in answers} == {f'"{one["version"]}"' for one in (first, second)}


async def test_of_two_who_change_what_both_have_read_one_is_overtaken(
    names: Namespace, db: "psycopg.Connection[Any]", client: httpx.AsyncClient, number: int
) -> None:
    etag = (await client.get(f"/products/{number}")).headers["etag"]

    def change(brand: str) -> Callable[[], Any]:
        headers = STAFF | {"If-Match": etag}
        return lambda: client.patch(f"/products/{number}", json={"brand": brand}, headers=headers)

    answers = await changed_at_once(names, db, number, [change("x"), change("y")])

    won, lost = sorted(answers, key=lambda answer: answer.status_code)
    assert (won.status_code, problem_of(lost)) == (200, (412, "overtaken"))
    (event,) = events_of(db, number)
    assert (await client.get(f"/products/{number}")).json()["brand"] == won.json()["brand"] == event["brand"]


# -- over HTTP


async def test_a_change_is_stored_told_and_answered_with_its_version(
    db: "psycopg.Connection[Any]", client: httpx.AsyncClient, heard: Heard, number: int
) -> None:
    read = await client.get(f"/products/{number}")
    headers = STAFF | {"If-Match": read.headers["etag"]}
    changed = await client.patch(f"/products/{number}", json={"brand": None, "type": "MILK"}, headers=headers)

    version = version_of(db, number)
    assert read.headers["etag"] != changed.headers["etag"] == f'"{version}"'
    assert changed.json() == read.json() | {"brand": None, "type": "MILK"}
    assert (await client.get(f"/products/{number}")).json() == changed.json()
    assert events_of(db, number) == [changed.json() | {"version": version}]
    assert heard.told == [(number, version, version)]  # when others could see it


async def test_a_change_whose_event_cannot_be_stored_is_none(
    names: Namespace, db: "psycopg.Connection[Any]", heard: Heard, number: int
) -> None:
    class Full:
        async def add(self, event: Event, *, after: timedelta | None = None) -> None:
            raise Unavailable("no room for an event")

    version = version_of(db, number)
    async with app(names, heard, Full()) as client:
        refused = await client.patch(f"/products/{number}", json={"brand": "x"}, headers=STAFF)
    assert problem_of(refused) == (503, "unavailable")
    assert (version_of(db, number), heard.told) == (version, [])


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ({}, (401, "missing-token")),
        (HOUSEHOLD, (403, "missing-scope")),
        ({"Authorization": f"Bearer {Role.AUDITOR}"}, (403, "missing-scope")),
        (STAFF | {"If-Match": 'W/"1"'}, (422, "bad-if-match")),
        (STAFF | {"If-Match": '"1", "2"'}, (422, "bad-if-match")),
        (STAFF | {"If-Match": ""}, (422, "bad-if-match")),
        (STAFF | {"If-Match": '"1"'}, (412, "overtaken")),
    ],
)
async def test_who_may_not_change_a_product_or_not_any_more_does_not(
    db: "psycopg.Connection[Any]",
    client: httpx.AsyncClient,
    number: int,
    headers: dict[str, str],
    problem: tuple[int, str],
) -> None:
    version = version_of(db, number)
    refused = await client.patch(f"/products/{number}", json={"brand": "x"}, headers=headers)
    assert problem_of(refused) == problem
    assert version_of(db, number) == version


BODIES: dict[str, bytes] = {
    "nothing": b"{}",
    "no object": b'["brand"]',
    "a number": b'{"brand": 1}',
    "no text": b'{"brand": ""}',
    "a long text": b'{"brand": "' + 201 * b"x" + b'"}',
    "NUL": b'{"brand": "\\u0000"}',
    "half a character": b'{"brand": "\\ud800"}',
    "its version": b'{"version": 1}',
    "its number": b'{"product_id": 1, "brand": "x"}',
}


@pytest.mark.parametrize("what", BODIES)
async def test_a_change_that_cannot_be_is_refused(
    db: "psycopg.Connection[Any]", client: httpx.AsyncClient, number: int, what: str
) -> None:
    version = version_of(db, number)
    headers = STAFF | {"Content-Type": "application/json"}
    refused = await client.patch(f"/products/{number}", content=BODIES[what], headers=headers)
    assert problem_of(refused) == (422, "invalid-request")
    assert version_of(db, number) == version


async def test_a_product_that_is_none_cannot_be_changed(client: httpx.AsyncClient) -> None:
    for headers in (STAFF, STAFF | {"If-Match": '"1"'}, STAFF | {"If-Match": "*"}):
        refused = await client.patch(f"/products/{2**63 - 1}", json={"brand": "x"}, headers=headers)
        assert problem_of(refused) == (404, "no-such-product")


async def test_many_products_come_in_the_order_of_the_request_without_those_that_are_none(
    client: httpx.AsyncClient, number: int
) -> None:
    async def ids(query: str) -> Any:
        answer = await client.get(f"/products?{query}")
        return [one["product_id"] for one in answer.json()] if answer.is_success else problem_of(answer)

    known = 1_082_185
    assert await ids(f"ids={number},404,{known},{number}") == [number, known, number]
    assert await ids(f"ids={known}&ids={number}") == [known, number]
    assert await ids(f"ids={','.join([str(known)] * 100)}") == [known] * 100
    for refused in ("", "ids=", "ids=1,,2", "ids=x", "ids=0", f"ids={2**63}", f"ids={','.join(['1'] * 101)}"):
        assert await ids(refused) == (422, "invalid-request"), refused


# -- by the database's own log


@dataclass
class Answers:
    """What the invalidator removed, in its order. Redis is away for the first removal."""

    removed: list[object] = field(default_factory=list)
    failed: int = 0

    async def invalidate(self, row: int, version: int, is_gone: bool) -> None:
        if not self.failed:
            self.failed = 1
            raise Unavailable("redis is away")
        self.removed.append((row, version, is_gone))

    async def clear(self) -> None:
        self.removed.append("all")


async def test_a_change_by_hand_reaches_the_invalidator_and_none_is_lost_while_redis_is_away(stack: Stack) -> None:
    with stack.namespace() as names, closing(psycopg.connect(names.postgres_url, autocommit=True)) as db:
        names.capture(["products"], NOT_THE_ROWS)
        answers, stop = Answers(), asyncio.Event()
        work = following(settings_of(names.env), "public.products", "product_id", answers.invalidate, answers.clear)
        running = asyncio.ensure_future(work(stop))

        async def seen(*wanted: object) -> None:
            async def all_of_them() -> bool:
                return running.done() or all(one in answers.removed for one in wanted)

            await until(all_of_them)
            assert not running.done()

        def version_after(update: str) -> int:
            ((version,),) = db.execute(f"{update} RETURNING version".encode()).fetchall()
            return int(version)

        try:
            updated = version_after("UPDATE products SET brand = 'x' WHERE product_id = 1082185")
            await seen((1_082_185, updated, False))
            assert answers.failed == 1
            moved = version_after("UPDATE products SET product_id = 7 WHERE product_id = 1082185")
            db.execute("DELETE FROM products WHERE product_id = 7")
            await seen((1_082_185, updated, True), (7, moved, True))
            assert "all" not in answers.removed
            db.execute("TRUNCATE products CASCADE")
            await seen("all")
        finally:
            stop.set()
            await running
