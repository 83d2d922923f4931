"""What `POST /orders` refuses, and that it leaves nothing then; pages of orders; the app without its database."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
import jwt
import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from showcase.kernel.principal import Principal, Scope
from showcase.platform.settings import Settings
from showcase.platform.web.paging import cursor_of
from showcase.shop.domain import MAX_LINES
from tests.integration.system import HOUSEHOLD, System, basket, problem_of, system_on
from workshop.stack import Stack

TABLES = ("orders", "order_lines", "order_steps", "outbox", "inbox", "idempotency_keys")
CALLER = Principal(subject="households/7", scopes=HOUSEHOLD)
UNKNOWN = "0199b2f0-0000-7000-8000-000000000001"
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        system.start("app")
        yield system


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=system.started[0].url, timeout=15) as client:
        yield client


def stored(system: System) -> list[int]:
    return [system.one(f"SELECT count(*) FROM {table}") for table in TABLES]  # noqa: S608 - names from above


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def forged(system: System) -> str:
    """A genuine token of somebody else's, signed by a key of one's own."""
    token = system.token("households/8")
    claims = jwt.decode(token, options={"verify_signature": False})
    return jwt.encode(claims, generate_private_key(SECP256R1()), "ES256", jwt.get_unverified_header(token))


# -- what is refused leaves nothing


BASKETS: dict[str, tuple[dict[str, Any], str]] = {
    "no line": ({"lines": []}, "empty-basket"),
    "too many lines": (basket(*[(1, 1)] * 10_000), "basket-too-large"),
    "one line too many": (basket(*[(1, 1)] * (MAX_LINES + 1)), "basket-too-large"),
    "no pieces": (basket((1, 199), (0, 0)), "bad-quantity"),
    "negative pieces": (basket((-1, 199)), "bad-quantity"),
    "fuel": (basket((9_055, 2_000)), "bad-quantity"),
    "negative total": (basket((1, -1)), "bad-total"),
    "beyond any till": (basket((1, 2**62)), "bad-total"),
    "unknown product": (basket(product_id=1), "unknown-product"),
    "unknown product of any size": (basket(product_id=2**63 - 1), "unknown-product"),
    "product beyond a database": (basket(product_id=2**63), "invalid-request"),
    "half a piece": ({"lines": [{"product_id": 1, "quantity": 0.5, "total_cents": 1}]}, "invalid-request"),
    "text for a number": ({"lines": [{"product_id": "1", "quantity": 1, "total_cents": 1}]}, "invalid-request"),
    "something more": (basket(discount=1), "invalid-request"),
    "NUL in the reference": (basket(reference="\x00"), "invalid-request"),
    "long reference": (basket(reference="x" * 65), "invalid-request"),
}


@pytest.mark.parametrize("what", BASKETS)
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "refused"}], ids=["no key", "key"])
def test_a_basket_that_cannot_be_is_refused_and_nothing_is_stored(
    system: System, client: httpx.Client, what: str, key: dict[str, str]
) -> None:
    body, kind = BASKETS[what]
    before = stored(system)

    assert problem_of(client.post("/orders", json=body, headers=system.headers() | key)) == (422, kind)
    assert stored(system) == before


def test_all_unknown_products_are_named(system: System, client: httpx.Client) -> None:
    lines = [{"product_id": product, "quantity": 1, "total_cents": 1} for product in (3, 1_082_185, 1, 2, 1)]
    answer = client.post("/orders", json={"lines": lines}, headers=system.headers())
    assert answer.json()["product_ids"] == [1, 2, 3]


CALLERS: dict[str, tuple[Callable[[System], dict[str, str]], int, str]] = {
    "nobody": (lambda system: {}, 401, "missing-token"),
    "may only read": (lambda system: system.headers(scopes=HOUSEHOLD - {Scope.ORDERS_WRITE}), 403, "missing-scope"),
    "no household": (lambda system: system.headers("staff/ada"), 403, "not-a-household"),
    "a household of no number": (lambda system: system.headers("households/abc"), 403, "not-a-household"),
    "a household of any size": (lambda system: system.headers(f"households/{2**64}"), 403, "not-a-household"),
    "unknown household": (lambda system: system.headers("households/999999"), 422, "unknown-household"),
    "a NUL": (lambda system: system.headers("households/7\x00"), 401, "invalid-token"),
    "not signed": (lambda system: bearer(system.token("households/7").rpartition(".")[0] + "."), 401, "invalid-token"),
    "signed by himself": (lambda system: bearer(forged(system)), 401, "invalid-token"),
    "expired": (lambda system: bearer(system.sign(CALLER, -timedelta(hours=1))), 401, "invalid-token"),
    "far too long": (lambda system: bearer("x" * 20_000), 401, "invalid-token"),
}


@pytest.mark.parametrize("who", CALLERS)
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "refused"}], ids=["no key", "key"])
def test_a_caller_who_may_not_order_is_refused_and_nothing_is_stored(
    system: System, client: httpx.Client, who: str, key: dict[str, str]
) -> None:
    headers, status, kind = CALLERS[who]
    before = stored(system)

    answer = client.post("/orders", json=basket(), headers=headers(system) | key)
    assert problem_of(answer) == (status, kind)
    assert stored(system) == before


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "too-large"}], ids=["no key", "key"])
def test_a_body_over_the_limit_is_refused(
    system: System, client: httpx.Client, announced: bool, key: dict[str, str]
) -> None:
    size = Settings(environment="workshop").max_body_bytes + 1
    body = b" " * size
    content = body if announced else iter([body[:-1], body[-1:]])

    assert problem_of(client.post("/orders", content=content, headers=system.headers() | key)) == (413, "too-large")


@pytest.mark.parametrize(
    "content", [b"{", b"\xff", b'{"lines": ' + b"[" * 100_000, b'{"lines": ' + b"9" * 5_000 + b"}"]
)
def test_a_body_that_is_no_json_is_a_problem(system: System, client: httpx.Client, content: bytes) -> None:
    headers = system.headers() | {"Content-Type": "application/json", "Idempotency-Key": "broken"}
    status, _ = problem_of(client.post("/orders", content=content, headers=headers))
    assert status in (400, 422)


# -- what is taken


def test_an_order_its_lines_and_its_event_are_stored_and_the_trace_goes_on(
    system: System, client: httpx.Client
) -> None:
    headers = system.headers() | {"traceparent": PARENT}
    answer = client.post("/orders", json=basket((2, 199), (1, 1), reference="receipt 1"), headers=headers)

    order = answer.json()["order_id"]
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/orders/{order}")
    query = "SELECT status, line_count, total_cents FROM orders WHERE order_id = %s"
    assert system.sql(query, order) == [("placed", 2, 200)]
    query = "SELECT line, quantity, total_cents FROM order_lines WHERE order_id = %s ORDER BY line"
    assert system.sql(query, order) == [(1, 2, 199), (2, 1, 1)]
    query = "SELECT attributes, published_at FROM outbox WHERE attributes ->> 'subject' = %s ORDER BY position"
    rows = system.sql(query, f"orders/{order}")
    assert [one["type"] for one, _ in rows] == ["shop.order.placed.v1", "shop.deadline.passed.v1"]
    assert {(one["traceparent"][:36], published_at) for one, published_at in rows} == {(PARENT[:36], None)}
    assert client.get(f"/orders/{order}", headers=system.headers()).json() == answer.json()
    assert problem_of(client.get(f"/orders/{order}", headers=system.headers("households/8"))) == (404, "no-such-order")


def test_the_way_of_an_order_begins_where_it_was_placed(system: System, client: httpx.Client) -> None:
    order = client.post("/orders", json=basket(), headers=system.headers()).json()
    assert (order["status"], order["reason"], order["version"]) == ("placed", "", 1)

    (step,) = client.get(f"/orders/{order['order_id']}/steps", headers=system.headers()).json()
    assert datetime.fromisoformat(step.pop("at")).tzinfo is not None
    assert step == {"version": 1, "status": "placed", "reason": "", "cause": ""}
    for path, whose in ((order["order_id"], "households/8"), (UNKNOWN, "households/7")):
        answer = client.get(f"/orders/{path}/steps", headers=system.headers(whose))
        assert problem_of(answer) == (404, "no-such-order")


@pytest.mark.parametrize("key", [{}, {"Idempotency-Key": "shut"}], ids=["no key", "key"])
def test_when_the_event_cannot_be_stored_the_order_is_not_either(
    system: System, client: httpx.Client, key: dict[str, str]
) -> None:
    before = stored(system)
    with psycopg.connect(system.postgres_url, autocommit=True) as db:
        db.execute("ALTER TABLE outbox ADD CONSTRAINT shut CHECK (false) NOT VALID")
        try:
            answer = client.post("/orders", json=basket(), headers=system.headers() | key)
        finally:
            db.execute("ALTER TABLE outbox DROP CONSTRAINT shut")

    assert problem_of(answer) == (500, "internal")
    assert answer.headers["X-Request-Id"]
    assert stored(system) == before


# -- pages


def test_pages_show_each_order_once_though_new_ones_come_meanwhile(system: System, client: httpx.Client) -> None:
    headers = system.headers("households/9")
    placed = [client.post("/orders", json=basket(), headers=headers).json()["order_id"] for _ in range(7)]

    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = client.get("/orders", params={"limit": "3", **cursor}, headers=headers).json()
        seen += [order["order_id"] for order in page["items"]]
        client.post("/orders", json=basket(), headers=headers)
        if page["next"] is None:
            break
        cursor = {"cursor": page["next"]}

    assert sorted(seen) == sorted(placed)
    assert seen == sorted(placed, reverse=True)


def test_a_cursor_of_somebody_else_shows_only_ones_own_orders(system: System, client: httpx.Client) -> None:
    mine = client.post("/orders", json=basket(), headers=system.headers("households/10")).json()["order_id"]
    client.post("/orders", json=basket(), headers=system.headers("households/11"))
    params = {"cursor": cursor_of("ffffffff-ffff-ffff-ffff-ffffffffffff")}
    page = client.get("/orders", params=params, headers=system.headers("households/10")).json()
    assert [order["order_id"] for order in page["items"]] == [mine]


@pytest.mark.parametrize("cursor", ["", "nonsense", cursor_of(7), cursor_of("7"), cursor_of("\x00"), "W10", "ü"])
def test_a_cursor_that_is_none_is_refused(system: System, client: httpx.Client, cursor: str) -> None:
    answer = client.get("/orders", params={"cursor": cursor}, headers=system.headers())
    assert problem_of(answer) == (422, "bad-cursor")


@pytest.mark.parametrize(
    "path", ["/orders/nonsense", "/orders/%00", "/orders?limit=0", "/orders?limit=201", "/products/0"]
)
def test_an_address_that_cannot_be_is_a_problem(system: System, client: httpx.Client, path: str) -> None:
    assert problem_of(client.get(path, headers=system.headers())) == (422, "invalid-request")


# -- the description of it all


def test_the_description_lists_the_problems_of_each_route(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]

    for path, method in (
        ("/orders", "post"),
        ("/orders", "get"),
        ("/orders/{order_id}", "get"),
        ("/orders/{order_id}/steps", "get"),
        ("/products/{product_id}", "get"),
    ):
        responses = paths[path][method]["responses"]
        assert {"422", "503"} <= set(responses)
        for status, response in responses.items():
            assert list(response["content"]) == ["application/json" if status < "300" else "application/problem+json"]
    kinds = {
        example["value"]["type"].removeprefix("/problems/")
        for status, response in paths["/orders"]["post"]["responses"].items()
        if status >= "400"
        for example in response["content"]["application/problem+json"]["examples"].values()
    }
    # Who issues tokens is not the shop's affair, and how large a body may be not the route's.
    expected = {kind for _, kind in BASKETS.values()} | {kind for _, _, kind in CALLERS.values()} - {"invalid-token"}
    assert expected <= kinds
