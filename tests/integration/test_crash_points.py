"""Real processes, each killed between two of its steps: every order is charged once all the same.

Locks in PostgreSQL hold a process exactly there. To hold a consumer between the broker's answer and its own
acknowledgement, its line to the broker lets the answer not through.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pika
import psycopg
import pytest
from anyio.from_thread import start_blocking_portal

from showcase.kernel.events import Event
from showcase.messaging.domain import ATTRIBUTE, DEAD, EVENTS, PARKING
from tests.integration.system import System, basket, log_events, ready, system_on, wait_for
from tests.lines import Line
from workshop.stack import Stack

ORDERS = 3
RETRY_S = 0.3
MARKING, COMMITTING = 11, 12
"""Locks that whoever marks an event as published, or commits a charge, waits for."""

POINTS = [
    ("relay", "LOCK TABLE outbox_buckets IN ACCESS EXCLUSIVE MODE", "FOR UPDATE SKIP LOCKED", False),
    ("relay", f"SELECT pg_advisory_xact_lock({MARKING})", "UPDATE public.outbox", True),
    ("payment", "LOCK TABLE payment.inbox IN ACCESS EXCLUSIVE MODE", "SELECT event_id FROM payment.inbox", False),
    ("payment", "LOCK TABLE payment.charges IN SHARE MODE", "INSERT INTO payment.charges", False),
    ("payment", f"SELECT pg_advisory_xact_lock({COMMITTING})", "COMMIT", True),
]
"""Who is killed; what holds it, and in which statement; whether the same events must come again."""
NAMES = (
    *("before it publishes", "published, not marked"),
    *("before its transaction", "in the handler", "committed, not acknowledged"),
)
POISON = Event(type="shop.order.placed.v1", source="/tests", subject="orders/0", data={})
LEFT = """
    SELECT FROM outbox WHERE published_at IS NULL UNION ALL SELECT FROM payment.outbox WHERE published_at IS NULL
"""


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        system.environment["SHOWCASE_RETRY_DELAYS_S"] = f"{RETRY_S} {RETRY_S}"
        system.start("app", "relay", "payment", "parking")
        with psycopg.connect(system.postgres_url) as db:
            db.execute("""
                CREATE FUNCTION wait_for_test() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(TG_ARGV[0]::int); RETURN NEW; END $$
            """)
            waits = "FOR EACH ROW EXECUTE FUNCTION public.wait_for_test"
            db.execute(f"CREATE TRIGGER waits BEFORE UPDATE ON outbox {waits}({MARKING})".encode())
            deferred = f"AFTER INSERT ON payment.charges DEFERRABLE INITIALLY DEFERRED {waits}({COMMITTING})"
            db.execute(f"CREATE CONSTRAINT TRIGGER waits {deferred}".encode())
        yield system


@pytest.mark.parametrize(("who", "hold", "held_in", "again"), POINTS, ids=NAMES)
def test_killed_between_two_steps_each_order_is_charged_once(
    system: System, who: str, hold: str, held_in: str, again: bool
) -> None:
    before = came_again(system)
    with psycopg.connect(system.postgres_url) as held:
        held.execute(hold.encode())
        orders = place(system)
        wait_for(lambda: is_held(system, held_in))
        system.running(who)[0].kill()

    system.start(who)
    wait_for(lambda: is_charged(system, orders))
    if again:
        wait_for(lambda: came_again(system) > before)
    assert_all_is_well(system)


def test_an_app_killed_before_its_commit_has_stored_nothing_and_the_household_asks_again(system: System) -> None:
    before = system.one("SELECT count(*) FROM orders")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(system.postgres_url) as held:
        held.execute("LOCK TABLE outbox IN SHARE MODE")
        lost = pool.submit(place_one, system, "the same")
        wait_for(lambda: is_held(system, "INSERT INTO public.outbox"))
        system.running("app")[0].kill()
        with pytest.raises(httpx.TransportError):
            lost.result()

    system.start("app")
    orders = [place_one(system, "the same") for _ in range(2)]
    wait_for(lambda: is_charged(system, orders))
    assert system.one("SELECT count(*) FROM orders") == before + 1
    assert_all_is_well(system)


def test_a_consumer_killed_when_its_copies_were_taken_and_the_originals_not_acknowledged(system: System) -> None:
    """One message was to be tried again, the other was parked."""
    before = came_again(system)
    url = system.environment["SHOWCASE_RABBITMQ_URL"]
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Line.to(url)) as line,
        system.channel() as channel,
    ):
        system.running("payment")[0].kill()
        (payment,) = system.start("payment", rabbitmq_url=portal.call(lambda: line.url))
        tap = channel.queue_declare("", exclusive=True).method.queue
        for exchange in (f"retry.{RETRY_S}s", DEAD):
            channel.queue_bind(tap, exchange)
        with psycopg.connect(system.postgres_url) as held:
            held.execute("ALTER TABLE payment.charges ADD CONSTRAINT not_now CHECK (false) NOT VALID")
            held.execute("LOCK TABLE payment.inbox IN ACCESS EXCLUSIVE MODE")
            headers = {f"{ATTRIBUTE}{name}": value for name, value in POISON.attributes().items()}
            channel.basic_publish(EVENTS, POISON.type, b"no JSON", pika.BasicProperties(headers=headers))
            orders = place(system)
            wait_for(lambda: is_held(system, "SELECT event_id FROM payment.inbox"))
            portal.call(line.hold_answers)
        wait_for(lambda: ready(channel, tap) >= 2)
        payment.kill()

    system.sql_alone("ALTER TABLE payment.charges DROP CONSTRAINT not_now")
    system.start("payment")
    wait_for(lambda: is_charged(system, orders))
    wait_for(lambda: came_again(system) > before)
    (keeper,) = system.running("parking")
    wait_for(lambda: sum(int(entry["messages"]) for entry in log_events(keeper) if entry["event"] == "kept") == 2)
    assert system.one("SELECT count(*) FROM messaging.parked") == 1
    assert_all_is_well(system)


# -- what the tests above are made of


def place_one(system: System, key: str) -> str:
    """Order a basket as a household; the order's id."""
    headers = system.headers() | {"Idempotency-Key": key}
    answer = httpx.post(f"{system.running('app')[0].url}/orders", json=basket(), headers=headers, timeout=15)
    return str(answer.raise_for_status().json()["order_id"])


def place(system: System) -> list[str]:
    """Order some baskets, one after the other; their ids."""
    return [place_one(system, f"basket-{next(system.numbers)}") for _ in range(ORDERS)]


def is_held(system: System, held_in: str) -> bool:
    """Whether a process waits for a lock in a statement with these words."""
    query = """
        SELECT query FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
    """
    return any(held_in in text for (text,) in system.sql(query))


def is_charged(system: System, orders: list[str]) -> bool:
    query = "SELECT count(DISTINCT order_id) FROM payment.charges WHERE order_id = ANY(%s::uuid[])"
    return bool(system.one(query, orders) == len(set(orders)))


def came_again(system: System) -> int:
    """How many messages were handed over to payment that had been handled before."""
    of_payment = [entry for process in system.started if process.name == "payment" for entry in log_events(process)]
    return sum(int(entry["messages"]) for entry in of_payment if entry["event"] == "came again")


def assert_all_is_well(system: System) -> None:
    """Each order has one charge, which is told once; nothing waits; and nothing is parked but poison."""
    placed = sorted(system.sql("SELECT order_id, total_cents FROM orders"))
    assert sorted(system.sql("SELECT order_id, total_cents FROM payment.charges")) == placed
    told = "SELECT count(*) FROM payment.outbox WHERE attributes->>'type' = 'payment.order.charged.v1'"
    assert system.one(told) == len(placed)
    wait_for(lambda: system.sql(LEFT) == [])
    assert system.sql("SELECT FROM messaging.parked WHERE event_id <> %s", POISON.id) == []
    with system.channel() as channel:
        assert [ready(channel, queue) for queue in ("payment", PARKING, f"retry.{RETRY_S}s")] == [0, 0, 0]
