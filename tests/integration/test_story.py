"""The way of an order through real processes, while they are killed, stopped, and lose their servers.

The first tests are one story, told in this order on one system: each leaves it with all orders on their way.
"""

import json
import socket
from collections.abc import Iterator
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

import httpx
import pika
import psutil
import psycopg
import pytest
from psycopg import errors

from showcase.composition import QUEUES
from showcase.messaging.domain import ATTRIBUTE, EVENTS, PARKING
from tests.integration.system import Process, System, at_once, basket, log_events, problem_of, system_on, wait_for
from workshop.stack import Stack
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.rabbitmq import queues_on_disk

TABLES_OF_OTHERS = {
    "payment": ("public.orders", "public.outbox", "stock.picks", "notice.notices", "messaging.parked"),
    "stock": ("public.orders", "payment.charges", "public.inbox", "payment.outbox_buckets"),
    "notice": ("public.households", "payment.outbox", "stock.inbox"),
}
OWN_TABLE = {"payment": "payment.charges", "stock": "stock.picks", "notice": "notice.notices"}

CHAIN = [
    *("shop.order.placed", "payment.order.charged", "shop.order.paid", "stock.order.reserved"),
    *("shop.order.reserved", "stock.order.packed", "shop.order.packed"),
]
PIECES, CENTS, LIMIT_CENTS = 3, 200, 5_000
TESTED = "shop.test.numbered.v1"
HELD = 7


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        names = ("app", "app", "relay", "payment", "payment", "stock", "shop", "notice", "parking")
        system.start(*names, payment_latency="PT0.05S", payment_limit_cents=LIMIT_CENTS, consume_batch=2)
        yield system


def test_thirty_baskets_are_packed_and_charged_once_though_a_payment_worker_is_killed(system: System) -> None:
    place(system, 15)
    wait_for(lambda: system.one("SELECT count(*) FROM payment.charges") >= 3)
    system.running("payment")[0].kill()
    place(system, 15)

    wait_for(lambda: steps(system) == {"packed": 30})
    assert_each_was_charged_once(system)
    assert system.one("SELECT sum(total_cents) FROM payment.charges") == 30 * CENTS
    assert system.one("SELECT sum(total_cents) FROM order_lines") == 30 * CENTS
    assert system.one("SELECT sum(quantity) FROM stock.picks") == 30 * PIECES
    assert parked(system) == 0
    assert_one_trace_an_order(system)


def assert_one_trace_an_order(system: System) -> None:
    """From the request on, each event of an order belongs to one trace, and names the event that caused it."""
    rows = system.sql("""
        SELECT attributes FROM outbox UNION ALL SELECT attributes FROM payment.outbox
        UNION ALL SELECT attributes FROM stock.outbox
    """)
    events = sorted((row[0] for row in rows), key=lambda one: (one["subject"], one["time"]))
    for _, some in groupby(events, key=lambda one: str(one["subject"])):
        placed, alarm, *others = some
        chain = [placed, *others]
        assert [one["type"].removesuffix(".v1") for one in chain] == CHAIN
        assert alarm["type"] == "shop.deadline.passed.v1"
        assert len({one["traceparent"][3:35] for one in (alarm, *chain)}) == 1
        assert {one["correlationid"] for one in (alarm, *chain)} == {placed["id"]}
        assert [one.get("causationid") for one in chain] == [None, *(one["id"] for one in chain[:-1])]
        assert alarm["causationid"] == placed["id"]


def test_a_payment_above_the_limit_is_declined_and_the_order_refused_and_nobody_is_charged(system: System) -> None:
    orders = [place_one(system, cents).json()["order_id"] for cents in (LIMIT_CENTS, LIMIT_CENTS + 1)]

    def found(query: str) -> list[Any]:
        return [system.sql(query, order) for order in orders]

    wait_for(
        lambda: (
            found("SELECT text LIKE '%%declined%%' FROM notice.notices WHERE order_id = %s") == [[(False,)], [(True,)]]
        )
    )
    assert found("SELECT status FROM orders WHERE order_id = %s") == [[("packed",)], [("refused",)]]
    assert found("SELECT total_cents FROM payment.charges WHERE order_id = %s") == [[(LIMIT_CENTS,)], []]
    assert found("SELECT sum(quantity) FROM stock.picks WHERE order_id = %s") == [[(PIECES,)], [(None,)]]


def test_a_poisoned_message_is_parked_and_the_worker_goes_on(system: System) -> None:
    (payment,) = system.running("payment")
    good = {f"{ATTRIBUTE}{name}": "x" for name in ("id", "type", "source", "subject")}
    good |= {f"{ATTRIBUTE}specversion": "1.0", f"{ATTRIBUTE}time": "2017-12-23T10:00:00+00:00"}
    with system.channel() as channel:
        for headers, body in (({}, b"{}"), (good, b"{"), (good, b'{"order_id": "nonsense"}')):
            channel.basic_publish(EVENTS, "shop.order.placed.v1", body, pika.BasicProperties(headers=headers))
    place_one(system)

    wait_for(lambda: steps(system).keys() == {"packed", "refused"})
    wait_for(lambda: parked(system) == 3)
    reasons = "SELECT reason FROM messaging.parked WHERE queue = 'payment'"
    told = [entry["why"] for entry in log_events(payment) if entry["event"] == "parked"]
    assert sorted(told) == sorted(reason for (reason,) in system.sql(reasons))
    assert len(set(told)) == 3, "each says what is wrong with it"


def test_a_relay_killed_after_sending_and_before_marking_sends_again_and_the_effect_is_one(system: System) -> None:
    (payment,) = system.running("payment")
    before = came_again(payment)
    with psycopg.connect(system.postgres_url) as held:
        wait_for(lambda: left(system) == 0)
        # A trigger that waits holds the relay between the broker's answer and its own mark.
        hold_marks(system)
        held.execute("SELECT pg_advisory_xact_lock(%s)", [HELD])
        order = place_one(system).json()["order_id"]
        charges = "SELECT count(*) FROM payment.charges WHERE order_id = %s"
        wait_for(lambda: system.one(charges, order) == 1)
        system.running("relay")[0].kill()

    system.start("relay")
    wait_for(lambda: came_again(payment) == before + 1)  # it was killed before it could mark
    wait_for(lambda: left(system) == 0)
    wait_for(lambda: steps(system).keys() == {"packed", "refused"})
    assert system.one(charges, order) == 1
    assert parked(system) == 3, "those of the test before"


def test_two_relays_tell_each_event_in_the_order_of_its_subject_and_lose_none_when_killed(system: System) -> None:
    system.start("relay", relay_batch=7)
    with system.channel() as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, EVENTS, TESTED)
        insert_events(system, subjects=100, each=20)
        wait_for(lambda: 0 < left(system) < 2_000)
        system.running("relay")[0].kill()
        wait_for(lambda: left(system) == 0)
        seen = list(all_messages(channel, queue))

    by_subject: dict[str, list[int]] = {}
    for subject, number in seen:
        if number not in by_subject.setdefault(subject, []):  # the same again: at least once
            by_subject[subject].append(number)
    assert len(by_subject) == 100
    assert all(numbers == list(range(1, 21)) for numbers in by_subject.values())


def test_a_worker_told_to_stop_finishes_the_event_in_hand_and_leaves_the_others(system: System) -> None:
    assert [worker.stop() for worker in system.running("payment")] == [0]
    (slow,) = system.start("payment", payment_latency="PT0.7S", consume_batch=1)
    before = charges(system)
    place(system, 3)
    wait_for(lambda: charges(system) == before + 1)

    assert slow.stop() == 0
    assert charges(system) == before + 2, "the one in hand, and no other"
    wait_for(lambda: system.waiting("payment") == 1)

    (stuck,) = system.start("payment", payment_latency="PT60S", drain_s=0.3)
    wait_for(lambda: system.waiting("payment") == 0)
    assert stuck.stop() == 1
    assert "did not finish in time" in stuck.log.read_text()
    wait_for(lambda: system.waiting("payment") == 1)


def test_an_app_finishes_the_request_in_flight_when_it_is_told_to_stop(system: System) -> None:
    app, before = system.running("app")[0], system.one("SELECT count(*) FROM orders")
    body = json.dumps(basket()).encode()
    head = f"POST /orders HTTP/1.1\r\nHost: shop\r\nAuthorization: {system.headers()['Authorization']}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%INSERT%%outbox%%'"
    with connected(app) as line:
        with psycopg.connect(system.postgres_url) as held:
            held.execute("LOCK TABLE outbox IN ACCESS EXCLUSIVE MODE")
            line.sendall(head.encode() + body)
            wait_for(lambda: system.one(waits) == 1)
            app.popen.terminate()
            wait_for(lambda: not is_listening(app))
        assert line.recv(65_536).startswith(b"HTTP/1.1 201")
    assert app.popen.wait(15) == 0
    assert system.one("SELECT count(*) FROM orders") == before + 1


def test_each_worker_of_the_story_ends_well_when_it_is_told_to(system: System) -> None:
    living = [process for process in system.started if process.popen.poll() is None]
    for process in living:
        process.popen.terminate()
    assert {process.name: process.popen.wait(15) for process in living} == {process.name: 0 for process in living}
    assert {process.name for process in living} == {"app", "relay", "stock", "shop", "notice", "parking"}


# -- without a server


def test_workers_find_back_to_a_broker_that_was_killed_and_to_one_that_was_paused(stack: Stack) -> None:
    with Stack.private(["rabbitmq"]) as broken, system_on(stack, broken) as system:
        _, relay, _ = system.start("app", "relay", "payment", broker_timeout_s=1)
        place(system, 2)
        wait_for(lambda: charges(system) == 2)
        assert isinstance(broken.backend, LocalBackend)
        folder = broken.backend.folder
        wait_for(lambda: queues_on_disk(folder, [queue.name for queue in QUEUES]))

        broken.server("rabbitmq").kill()
        place(system, 3)
        broken.server("rabbitmq").restart()
        wait_for(lambda: charges(system) == 5)

        broken.server("rabbitmq").pause()
        place(system, 3)
        wait_for(lambda: log_events(relay)[-1]["event"] == "waiting for a server")
        broken.server("rabbitmq").resume()
        wait_for(lambda: charges(system) == 8)
        wait_for(lambda: connections(relay, broken.urls["SHOWCASE_RABBITMQ_URL"]) == 1)  # those it gave up are closed
        assert_each_was_charged_once(system)
        assert system.waiting(PARKING) == 0


def test_an_app_without_its_database_says_when_to_come_back_and_what_is_missing(stack: Stack) -> None:
    with Stack.private(["postgres"]) as private, system_on(stack, private) as system:
        (app,) = system.start("app", database_timeout_s=1)
        headers = system.headers()
        with httpx.Client(base_url=app.url, timeout=15) as client:
            assert client.get("/orders", headers=headers).is_success
            private.server("postgres").pause()
            answer = client.post("/orders", json=basket(), headers=headers)
            ready, live = client.get("/health/ready"), client.get("/health/live")
            private.server("postgres").resume()
            wait_for(lambda: client.get("/health/ready").status_code == 200)

    assert problem_of(answer) == (503, "unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    assert answer.elapsed.total_seconds() < 2
    assert (ready.status_code, live.status_code) == (503, 200)
    assert ready.json()["checks"]["postgres"] != "ok"


# -- services


@pytest.mark.parametrize("service", TABLES_OF_OTHERS)
def test_a_service_reads_and_writes_its_own_tables_and_no_others(system: System, service: str) -> None:
    url = system.environment[f"SHOWCASE_{service.upper()}_POSTGRES_URL"]
    with psycopg.connect(url, autocommit=True) as db:
        for table in TABLES_OF_OTHERS[service]:
            for query in (f"SELECT FROM {table}", f"DELETE FROM {table}"):  # noqa: S608 - names from above
                with pytest.raises(errors.InsufficientPrivilege):
                    db.execute(query.encode())
        with pytest.raises(errors.InsufficientPrivilege):
            db.execute("CREATE TABLE public.mine ()")
        db.execute(f"SELECT FROM {OWN_TABLE[service]}".encode())
        db.execute(f"DELETE FROM {service}.inbox".encode())  # noqa: S608 - as above


# -- what the tests above are made of


def place_one(system: System, cents: int = CENTS) -> httpx.Response:
    """Order a basket as a household."""
    numbers = next(system.numbers)
    apps = system.running("app")
    headers = system.headers(f"households/{numbers + 1}") | {"Idempotency-Key": f"basket-{numbers}"}
    body = basket((PIECES - 1, cents - 1), (1, 1))
    return httpx.post(f"{apps[numbers % len(apps)].url}/orders", json=body, headers=headers, timeout=15)


def place(system: System, count: int) -> None:
    """Order so many baskets at once."""
    assert {answer.status_code for answer in at_once(count, lambda _: place_one(system))} == {201}


def steps(system: System) -> dict[str, int]:
    """How many orders are where."""
    return dict(system.sql("SELECT status, count(*) FROM orders GROUP BY status"))


def charges(system: System) -> int:
    return int(system.one("SELECT count(*) FROM payment.charges"))


def assert_each_was_charged_once(system: System) -> None:
    placed = system.sql("SELECT order_id, total_cents FROM orders ORDER BY 1")
    assert system.sql("SELECT order_id, total_cents FROM payment.charges ORDER BY 1") == placed


def parked(system: System) -> int:
    """How many messages the keeper of the parking lot has."""
    return int(system.one("SELECT count(*) FROM messaging.parked"))


def came_again(process: Process) -> int:
    """How many messages were handed over that had been handled before."""
    return sum(int(entry["messages"]) for entry in log_events(process) if entry["event"] == "came again")


def all_messages(channel: Any, queue: str) -> Iterator[tuple[str, int]]:
    """Subject and number of each test event in a queue."""
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return
        yield properties.headers[f"{ATTRIBUTE}subject"], json.loads(body)["number"]


def left(system: System) -> int:
    """How many events wait in the shop's outbox."""
    return int(system.one("SELECT count(*) FROM outbox WHERE published_at IS NULL"))


def insert_events(system: System, subjects: int, each: int) -> None:
    """Events in the shop's outbox, those of all subjects mixed."""
    with psycopg.connect(system.postgres_url) as db:
        db.execute(
            """
            INSERT INTO outbox (exchange, routing_key, attributes, body)
            SELECT 'events', %(type)s,
                jsonb_build_object('specversion', '1.0', 'id', gen_random_uuid(), 'source', '/shop', 'time', now(),
                    'type', %(type)s::text, 'subject', 'tests/' || subject),
                convert_to(jsonb_build_object('number', number)::text, 'UTF8')
            FROM generate_series(1, %(each)s) AS number, generate_series(1, %(subjects)s) AS subject
            ORDER BY number, subject
            """,
            {"type": TESTED, "subjects": subjects, "each": each},
        )
        db.execute("NOTIFY outbox")


def hold_marks(system: System) -> None:
    """Have whoever marks an event as published wait for whoever has the lock HELD."""
    with psycopg.connect(system.postgres_url) as db:
        db.execute(
            f"""
            CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM pg_advisory_xact_lock_shared({HELD}); RETURN NEW; END $$;
            CREATE TRIGGER wait_for_test BEFORE UPDATE ON outbox FOR EACH ROW EXECUTE FUNCTION wait_for_test()
            """.encode()
        )


def connected(app: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(app.url.rpartition(":")[2])), timeout=10)


def connections(process: Process, url: str) -> int:
    """How many connections a process has to a server."""
    every = psutil.Process(process.popen.pid).net_connections("tcp")
    return sum(bool(one.raddr) and one.raddr[1] == urlsplit(url).port for one in every)


def is_listening(app: Process) -> bool:
    try:
        connected(app).close()
    except OSError:
        return False
    return True
