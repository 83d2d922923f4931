"""`Idempotency-Key` over HTTP: two app processes, one database, and every request of a race at one barrier."""

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import psycopg
import pytest

from showcase.kernel.principal import Scope
from showcase.platform.resources import Resources
from showcase.platform.web.idempotency import prune
from tests.fakes import settings_of
from tests.integration.system import (
    HOUSEHOLD,
    Process,
    System,
    at_once,
    basket,
    problem_of,
    system_on,
    wait_for,
)
from workshop.stack import Stack

AT_ONCE = 20


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        yield system


@pytest.fixture(scope="module")
def apps(system: System) -> list[Process]:
    return system.start("app", "app")


@pytest.fixture(scope="module")
def client(apps: list[Process]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=apps[0].url, timeout=15) as client:
        yield client


@pytest.fixture
def key() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def reference() -> str:
    """By which a test finds its own orders."""
    return str(uuid.uuid4())


def orders(system: System, reference: str) -> int:
    return int(system.one("SELECT count(*) FROM orders WHERE reference = %s", reference))


def test_twenty_requests_at_once_with_one_key_place_one_order(
    system: System, apps: list[Process], key: str, reference: str
) -> None:
    headers = {**system.headers(), "Idempotency-Key": key}

    def send(number: int) -> httpx.Response:
        url = f"{apps[number % len(apps)].url}/orders"
        return httpx.post(url, json=basket(reference=reference), headers=headers, timeout=15)

    answers = at_once(AT_ONCE, send)

    seen = Counter(answer.status_code for answer in answers)
    placed = [answer for answer in answers if answer.status_code == 201]
    assert seen[201] >= 1
    assert seen[201] + seen[409] == AT_ONCE
    assert len({answer.content for answer in placed}) == 1
    assert sum("Idempotent-Replayed" not in answer.headers for answer in placed) == 1
    assert {problem_of(answer)[1] for answer in answers if answer.status_code == 409} <= {"still-in-flight"}
    assert orders(system, reference) == 1
    placed_events = "SELECT count(*) FROM outbox WHERE convert_from(body, 'UTF8')::jsonb ->> 'reference' = %s"
    assert system.one(placed_events, reference) == 1


def test_the_same_request_again_gets_the_same_answer(
    system: System, client: httpx.Client, key: str, reference: str
) -> None:
    headers = {**system.headers(), "Idempotency-Key": key}

    first, again = [client.post("/orders", json=basket(reference=reference), headers=headers) for _ in range(2)]

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    for name in ("location", "content-type"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["Location"] == f"/orders/{first.json()['order_id']}"
    assert ("Idempotent-Replayed" in first.headers, again.headers["Idempotent-Replayed"]) == (False, "true")
    assert orders(system, reference) == 1


def test_another_body_under_the_same_key_is_refused(
    system: System, client: httpx.Client, key: str, reference: str
) -> None:
    headers = {**system.headers(), "Idempotency-Key": key}
    client.post("/orders", json=basket(reference=reference), headers=headers)

    other = client.post("/orders", json=basket((3, 299), reference=reference), headers=headers)

    assert problem_of(other) == (422, "idempotency-key-reused")
    assert orders(system, reference) == 1


def test_a_key_belongs_to_whoever_uses_it(system: System, client: httpx.Client, key: str, reference: str) -> None:
    for household in (7, 8):
        headers = {**system.headers(f"households/{household}"), "Idempotency-Key": key}
        answer = client.post("/orders", json=basket(reference=reference), headers=headers)
        assert (answer.status_code, answer.json()["household_id"]) == (201, household)

    assert orders(system, reference) == 2


@pytest.mark.parametrize("bad", ["", "x" * 201])
def test_a_key_that_is_empty_or_too_long_is_refused(
    system: System, client: httpx.Client, reference: str, bad: str
) -> None:
    headers = {**system.headers(), "Idempotency-Key": bad}

    refused = client.post("/orders", json=basket(reference=reference), headers=headers)

    assert problem_of(refused) == (422, "bad-idempotency-key")
    assert orders(system, reference) == 0


def test_a_stored_answer_is_not_shown_to_who_may_not_ask(system: System, client: httpx.Client, key: str) -> None:
    client.post("/orders", json=basket(), headers={**system.headers(), "Idempotency-Key": key})

    nobody = client.post("/orders", json=basket(), headers={"Idempotency-Key": key})
    only_reads = client.post(
        "/orders",
        json=basket(),
        headers={**system.headers(scopes=HOUSEHOLD - {Scope.ORDERS_WRITE}), "Idempotency-Key": key},
    )

    assert problem_of(nobody) == (401, "missing-token")
    assert problem_of(only_reads) == (403, "missing-scope")


def test_a_refused_request_stores_nothing_and_may_be_corrected_under_its_key(
    system: System, client: httpx.Client, key: str, reference: str
) -> None:
    headers = {**system.headers(), "Idempotency-Key": key}

    refused = client.post("/orders", json=basket(reference=reference, product_id=1), headers=headers)
    assert problem_of(refused) == (422, "unknown-product")
    assert system.one("SELECT count(*) FROM idempotency_keys WHERE key = %s", key) == 0

    corrected = client.post("/orders", json=basket(reference=reference), headers=headers)
    assert corrected.status_code == 201
    assert orders(system, reference) == 1


def test_an_answer_that_has_expired_is_forgotten_and_pruned(system: System, key: str, reference: str) -> None:
    (app,) = system.start("app", idempotency_lifetime="PT0.3S")
    headers = {**system.headers(), "Idempotency-Key": key}
    there = "SELECT count(*) FROM idempotency_keys WHERE key = %s AND expires_at > now()"

    httpx.post(f"{app.url}/orders", json=basket(reference=reference), headers=headers)
    wait_for(lambda: system.one(there, key) == 0)
    again = httpx.post(f"{app.url}/orders", json=basket((3, 299), reference=reference), headers=headers)
    assert again.status_code == 201
    assert orders(system, reference) == 2

    wait_for(lambda: system.one(there, key) == 0)
    asyncio.run(pruned(system))
    assert system.one("SELECT count(*) FROM idempotency_keys WHERE key = %s", key) == 0
    assert system.one("SELECT count(*) > 0 FROM idempotency_keys"), "those that have not expired stay"


async def pruned(system: System) -> None:
    async with Resources(settings_of(system.environment)) as resources:
        await prune(resources.database)


def test_an_app_killed_in_mid_request_leaves_nothing_and_the_request_can_be_sent_again(
    system: System, client: httpx.Client, key: str, reference: str
) -> None:
    (doomed,) = system.start("app")
    headers = {**system.headers(), "Idempotency-Key": key}
    body = basket(reference=reference)
    with psycopg.connect(system.postgres_url) as held, ThreadPoolExecutor() as pool:
        held.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")  # the order is written, its event must wait
        request = pool.submit(httpx.post, f"{doomed.url}/orders", json=body, headers=headers, timeout=15)
        locked = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
        waits = f"{locked} AND query LIKE '%%INSERT%%outbox%%'"
        wait_for(lambda: system.one(waits) == 1 or request.done())
        assert problem_of(client.post("/orders", json=body, headers=headers)) == (409, "still-in-flight")
        doomed.kill()
        assert isinstance(request.exception(), httpx.TransportError)

    wait_for(lambda: system.one(locked) == 0)
    assert orders(system, reference) == 0
    assert system.one("SELECT count(*) FROM idempotency_keys WHERE key = %s", key) == 0

    again = answered(client, body, headers)
    assert again.status_code == 201
    assert "Idempotent-Replayed" not in again.headers
    assert orders(system, reference) == 1


def answered(client: httpx.Client, body: object, headers: dict[str, str]) -> httpx.Response:
    """What a client gets that sends a request again while one with its key is in flight."""
    answers: list[httpx.Response] = []

    def is_free() -> bool:
        answers.append(client.post("/orders", json=body, headers=headers))
        return answers[-1].status_code != 409

    wait_for(is_free)
    return answers[-1]
