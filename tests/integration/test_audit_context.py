"""Who did it, as PostgreSQL writes it down: over HTTP, in a consumer's batch, by hand; and the tables of the audit."""

import asyncio
import struct
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg import errors
from psycopg.rows import dict_row
from sqlalchemy import text
from sqlalchemy.exc import ProgrammingError
from sqlalchemy.ext.asyncio import AsyncConnection

from showcase.kernel.acting import LIMITS, Acting, acting
from showcase.kernel.events import Event
from showcase.messaging.application.handlers import Anything, Handlers
from showcase.messaging.domain import EVENTS, Message, Queue, Route, Topology
from showcase.messaging.infrastructure.inbox import SqlInbox
from showcase.messaging.worker.consumer import consume
from showcase.migrations.versions.v0007_audit import AUDITED
from showcase.platform.database import Database
from tests.fakes_broker import MemoryBroker
from tests.integration.system import System, basket, system_on
from workshop import accounts
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ADA = Acting(actor="staff/ada", session_id="s", request_id="r", reason='it\'s \\ "quoted" %s ü', traceparent=PARENT)
BOB = Acting(actor="staff/bob")
UNREADABLE = "what audit.context says cannot be read"


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        yield system


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[httpx.Client]:
    system.slices = "auth,shop"
    (app,) = system.start("app")
    with httpx.Client(base_url=app.url, timeout=15) as client:
        yield client


@pytest.fixture
def db(system: System) -> Iterator[psycopg.Connection]:
    """Somebody with psql, on tables in which nobody has done anything."""
    with psycopg.connect(system.postgres_url, autocommit=True, application_name="psql") as db:
        db.execute("TRUNCATE orders CASCADE")
        db.execute("TRUNCATE payment.charges CASCADE")
        db.execute("TRUNCATE messaging.actions")
        db.execute("TRUNCATE audit_context")
        yield db


@pytest.fixture
async def database(system: System) -> AsyncIterator[Database]:
    database = Database(system.postgres_url)
    yield database
    await database.close()


async def act(db: AsyncConnection, what: str) -> None:
    await db.execute(
        text("INSERT INTO messaging.actions VALUES (gen_random_uuid(), now(), 'x', 'discard', :what, '')"),
        {"what": what},
    )


def contexts(db: psycopg.Connection) -> list[dict[str, Any]]:
    """All that were written, in the order of the log."""
    with db.cursor(row_factory=dict_row) as rows:
        return rows.execute("SELECT * FROM audit_context ORDER BY context_id").fetchall()


def actors(db: psycopg.Connection) -> list[str | None]:
    return [one["actor"] for one in contexts(db)]


def acts(db: psycopg.Connection) -> list[tuple[Any, ...]]:
    """What was done, with the transaction that has done it."""
    return db.execute("SELECT parked_id, xmin::text::bigint FROM messaging.actions ORDER BY parked_id").fetchall()


# -- over HTTP


def test_an_order_has_one_context_with_who_placed_it_and_why(
    system: System, client: httpx.Client, db: psycopg.Connection
) -> None:
    login = client.post("/auth/login", json={"email": accounts.email_of("households/7"), "password": accounts.PASSWORD})
    bearer = {"Authorization": f"Bearer {login.json()['access_token']}"}
    db.execute("TRUNCATE audit_context")

    sent = bearer | {"X-Request-Id": "placed-by-hand", "traceparent": PARENT, "X-Audit-Reason": "hungry"}
    answer = client.post("/orders", json=basket((1, 199), (2, 199)), headers=sent)

    assert answer.status_code == 201
    (context,) = contexts(db)
    session_id = system.one("SELECT session_id::text FROM auth.sessions ORDER BY created_at DESC LIMIT 1")
    assert (context["actor"], context["session_id"]) == ("households/7", session_id)
    assert (context["request_id"], context["reason"]) == ("placed-by-hand", "hungry")
    assert context["traceparent"] == answer.headers["traceparent"]
    assert context["application"] == "showcase"
    assert system.sql("SELECT DISTINCT xmin::text::bigint FROM order_lines") == [(context["transaction_id"],)]
    assert system.sql("SELECT xmin::text::bigint FROM orders") == [(context["transaction_id"],)]


def test_an_order_sent_twice_with_one_key_has_one_context(
    client: httpx.Client, system: System, db: psycopg.Connection
) -> None:
    sent = system.headers() | {"Idempotency-Key": f"{uuid4()}"}
    answers = [client.post("/orders", json=basket(), headers=sent) for _ in range(2)]
    assert [one.status_code for one in answers] == [201, 201]
    assert answers[1].headers["Idempotent-Replayed"] == "true"
    assert [(one["actor"], one["reason"]) for one in contexts(db)] == [("households/7", "POST /orders")]


def test_what_happens_while_somebody_signs_in_is_done_by_somebody_unknown(
    client: httpx.Client, db: psycopg.Connection
) -> None:
    answer = client.post(
        "/auth/login", json={"email": accounts.email_of("households/8"), "password": accounts.PASSWORD}
    )
    assert answer.status_code == 200
    found = contexts(db)
    assert {(one["actor"], one["reason"]) for one in found} == {("anonymous", "POST /auth/login")}
    assert {one["request_id"] for one in found} == {answer.headers["X-Request-Id"]}


# -- a transaction and its parts


async def test_what_is_said_arrives_as_it_was_said_whatever_is_in_it(
    database: Database, db: psycopg.Connection
) -> None:
    with acting(ADA):
        async with database.transaction() as connection:
            await act(connection, "x")
    (context,) = contexts(db)
    assert {name: context[name] for name in LIMITS} == {name: getattr(ADA, name) for name in LIMITS}


async def test_many_changes_by_one_in_one_transaction_have_one_context(
    database: Database, db: psycopg.Connection
) -> None:
    with acting(ADA):
        for _ in range(2):
            async with database.transaction() as connection:
                for number in range(3):
                    await act(connection, str(number))
                async with database.savepoint():
                    await act(connection, "4")
    assert actors(db) == ["staff/ada", "staff/ada"]
    assert len({one["transaction_id"] for one in contexts(db)}) == 2


async def test_nobody_has_acted_in_a_transaction_that_comes_later_on_the_same_connection(
    database: Database, db: psycopg.Connection
) -> None:
    one = Database(database._url, connections=1)
    with acting(ADA):
        async with one.transaction() as connection:
            await act(connection, "1")
    async with one.transaction() as connection:
        await act(connection, "2")
    await one.close()
    assert actors(db) == ["staff/ada", None]


async def test_another_acts_in_a_part_and_the_first_again_after_it(database: Database, db: psycopg.Connection) -> None:
    with acting(ADA):
        async with database.transaction() as connection:
            await act(connection, "1")
            with acting(BOB):
                async with database.savepoint():
                    await act(connection, "2")
            await act(connection, "3")
    assert actors(db) == ["staff/ada", "staff/bob", "staff/ada"]


async def test_a_part_that_is_undone_leaves_no_context_and_the_next_one_has_its_own(
    database: Database, db: psycopg.Connection
) -> None:
    async with database.transaction() as connection:
        for who, fails in ((ADA, True), (ADA, False), (BOB, True), (ADA, False)):
            with acting(who), suppress(ProgrammingError):
                async with database.savepoint():
                    await act(connection, who.actor)
                    if fails:
                        await connection.execute(text("SELECT * FROM nowhere"))
        await act(connection, "nobody")
    assert actors(db) == ["staff/ada", None]
    assert [what for what, _ in acts(db)] == ["nobody", "staff/ada", "staff/ada"]


async def test_within_a_part_that_is_undone_the_one_who_acted_before_acts_again(
    database: Database, db: psycopg.Connection
) -> None:
    with acting(ADA):
        async with database.transaction() as connection:
            with acting(BOB), suppress(ProgrammingError):
                async with database.savepoint():
                    await act(connection, "undone")
                    await connection.execute(text("SELECT * FROM nowhere"))
            await act(connection, "1")
            async with database.savepoint():
                await act(connection, "2")
    assert actors(db) == ["staff/ada"]


async def test_two_transactions_at_once_do_not_mix(database: Database, db: psycopg.Connection) -> None:
    barrier = asyncio.Barrier(2)

    async def one(who: Acting) -> None:
        with acting(who):
            async with database.transaction() as connection:
                for number in range(3):
                    await barrier.wait()
                    await act(connection, f"{who.actor} {number}")

    async with asyncio.timeout(10):
        await asyncio.gather(one(ADA), one(BOB))
    by = {one["transaction_id"]: one["actor"] for one in contexts(db)}
    assert len(by) == len(contexts(db)) == 2
    assert all(what.startswith(by[transaction]) for what, transaction in acts(db))


async def test_whoever_does_not_act_has_nothing_more_sent(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    execute = psycopg.AsyncCursor.execute

    async def noted(self: Any, query: Any, *args: Any, **options: Any) -> Any:
        sent.append(query if isinstance(query, bytes) else str(query).encode())
        return await execute(self, query, *args, **options)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", noted)

    async def statements(who: Acting | None) -> int:
        sent.clear()
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
            async with database.savepoint():
                await connection.execute(text("SELECT 1"))
        return len(sent)

    await statements(None)  # the first connection asks for more
    assert await statements(None) == 4
    with acting(ADA):
        assert await statements(ADA) == 5
        assert any(b"audit.context" in one for one in sent)


# -- a consumer


async def test_each_event_of_a_batch_has_its_context_in_the_log_before_the_rows_it_explains(
    system: System, db: psycopg.Connection
) -> None:
    """As the role of a service, which may not write contexts itself."""
    topology = Topology(queues=[Queue(name="payment", types=("t.#",))], retries=())
    broker, stop = MemoryBroker(topology), asyncio.Event()
    told = [Event(type="t.v1", source="/t", subject=f"t/{name}", data={"name": name}) for name in "abcde"]
    database = Database(system.environment["SHOWCASE_PAYMENT_POSTGRES_URL"])
    charge = text("INSERT INTO payment.charges VALUES (gen_random_uuid(), gen_random_uuid(), 1)")

    async def handle(event: Event, data: Anything) -> None:
        async with database.transaction() as connection:
            await connection.execute(charge)
            await connection.execute(charge)
        if data.root["name"] == "e":
            stop.set()
        if data.root["name"] == "c":
            raise ValueError("is undone, with its context")

    handlers = Handlers()
    handlers.on("t.v1", Anything, handle)
    await broker.publish(
        [Message(attributes=one.attributes(), body=one.body(), route=Route(EVENTS, one.type)) for one in told]
    )
    slot = f"slot_{uuid4().hex}"
    db.execute("CREATE PUBLICATION everything FOR ALL TABLES")
    db.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [slot])
    try:
        async with asyncio.timeout(15):
            await consume(
                broker,
                "payment",
                handlers,
                stop,
                topology=topology,
                inbox=SqlInbox(database, "payment", "payment"),
                transaction=database.transaction,
                savepoint=database.savepoint,
                prefetch=9,
                batch=9,
            )
        changes = log_of(db, slot)
    finally:
        await database.close()
        db.execute("SELECT pg_drop_replication_slot(%s)", [slot])
        db.execute("DROP PUBLICATION everything")

    found = contexts(db)
    handled = [one for one in told if one.data["name"] != "c"]
    assert [(one["actor"], one["request_id"], one["reason"]) for one in found] == [
        ("services/payment", event.correlation_id, f"t.v1 {event.id}") for event in handled
    ]
    assert {one["database_user"] for one in found} == {"showcase_payment"}
    (transaction_id,) = {one["transaction_id"] for one in found}
    inserted = [table for xid, table in changes if table in ("audit_context", "charges") and xid == transaction_id]
    assert inserted == ["audit_context", "charges", "charges"] * 4


def log_of(db: psycopg.Connection, slot: str) -> Sequence[tuple[int, str]]:
    """The rows inserted, in the order of the log: 32-bit transaction id and table (PostgreSQL manual, 54.9)."""
    query = """
        SELECT data FROM pg_logical_slot_peek_binary_changes(
            %s, NULL, NULL, 'proto_version', '1', 'publication_names', 'everything'
        )
    """
    tables: dict[int, str] = {}
    xid, found = 0, []
    for (data,) in db.execute(query, [slot]):
        kind, rest = data[:1], data[1:]
        if kind == b"B":
            (xid,) = struct.unpack_from("!I", rest, 16)
        elif kind == b"R":
            tables[struct.unpack_from("!I", rest)[0]] = rest[4:].split(b"\0")[1].decode()
        elif kind == b"I":
            found.append((xid, tables[struct.unpack_from("!I", rest)[0]]))
    return found


# -- by hand


def test_a_change_made_with_psql_has_what_the_database_knows(db: psycopg.Connection, system: System) -> None:
    db.execute("INSERT INTO orders VALUES (gen_random_uuid(), 7, 'x', 'placed', 1, 0, 0, now())")
    db.execute("UPDATE orders SET status = 'packed'")
    db.execute("DELETE FROM orders")
    found = contexts(db)
    assert len(found) == 3
    for one in found:
        assert {one[name] for name in LIMITS} == {None}
        assert one["database_user"] == db.info.user
        assert (one["application"], one["client_address"]) == ("psql", "127.0.0.1")


def test_so_has_a_truncation_and_a_copy(db: psycopg.Connection) -> None:
    with (
        db.cursor() as cursor,
        cursor.copy("COPY payment.charges (charge_id, order_id, total_cents) FROM STDIN") as copy,
    ):
        for _ in range(3):
            copy.write_row((uuid4(), uuid4(), 1))
    db.execute("TRUNCATE payment.charges CASCADE")
    assert [one["application"] for one in contexts(db)] == ["psql", "psql"]


def test_the_tables_that_are_audited_have_the_trigger_and_log_whole_rows(db: psycopg.Connection) -> None:
    query = """
        SELECT tgrelid::regclass::text, tgenabled, relreplident
        FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
        WHERE tgfoid = 'public.audit_who'::regproc AND NOT tgisinternal
    """
    found = {name if "." in name else f"public.{name}": rest for name, *rest in db.execute(query)}
    assert found == {table: ["A", "f"] for table in AUDITED}


def test_not_even_a_session_that_replays_the_work_of_others_escapes(db: psycopg.Connection) -> None:
    db.execute("SET session_replication_role = replica")
    db.execute("INSERT INTO payment.charges VALUES (gen_random_uuid(), gen_random_uuid(), 1)")
    assert len(contexts(db)) == 1


@pytest.mark.parametrize(
    "said", ["{", "[1]", "7", "null", '{"actor": "\\u0000"}', '{"actor": "\\ud800"}', "[" * 100_000]
)
def test_what_cannot_be_read_fails_no_change_and_shows(db: psycopg.Connection, said: str) -> None:
    with db.transaction():
        db.execute("SELECT set_config('audit.context', %s, true)", [said])
        db.execute("INSERT INTO payment.charges VALUES (gen_random_uuid(), gen_random_uuid(), 1)")
    (context,) = contexts(db)
    assert (context["actor"], context["reason"]) == (None, UNREADABLE)


def test_what_is_said_by_hand_is_bounded_too(db: psycopg.Connection) -> None:
    said = "{" + ",".join(f'"{name}":"{"x" * 10_000}"' for name in LIMITS) + "}"
    with db.transaction():
        db.execute("SELECT set_config('audit.context', %s, true)", [said])
        db.execute("INSERT INTO payment.charges VALUES (gen_random_uuid(), gen_random_uuid(), 1)")
    (context,) = contexts(db)
    assert {name: len(context[name]) for name in LIMITS} == LIMITS


@pytest.mark.parametrize("service", ["PAYMENT", "STOCK", "NOTICE", "ANCHOR"])
def test_no_service_writes_or_reads_contexts_itself(system: System, service: str) -> None:
    with psycopg.connect(system.environment[f"SHOWCASE_{service}_POSTGRES_URL"], autocommit=True) as db:
        for statement in (
            "SELECT * FROM public.audit_context",
            "DELETE FROM public.audit_context",
            "INSERT INTO public.audit_context (transaction_id, database_user, application) VALUES (1, 'x', 'y')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                db.execute(statement.encode())


# -- anchors and keys


def test_anchors_are_added_and_read_by_a_role_that_may_nothing_else(system: System) -> None:
    with psycopg.connect(system.environment["SHOWCASE_ANCHOR_POSTGRES_URL"], autocommit=True) as db:
        add = "INSERT INTO audit.anchors (statement, signature, key_id) VALUES ('s', 'x', 'k')"
        db.execute(add)
        assert db.execute("SELECT statement FROM audit.anchors").fetchall() == [("s",)]
        with pytest.raises(errors.UniqueViolation):
            db.execute(add)
        query = """
            SELECT relname, privilege
            FROM pg_class, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) privilege
            WHERE relkind = 'r' AND relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
                AND has_table_privilege(oid, privilege)
        """
        assert set(db.execute(query).fetchall()) == {("anchors", "SELECT"), ("anchors", "INSERT")}
        with pytest.raises(errors.InsufficientPrivilege):
            db.execute("SELECT * FROM audit.subject_keys")


@pytest.mark.parametrize(
    "statement",
    ["UPDATE audit.anchors SET statement = 'other'", "DELETE FROM audit.anchors", "TRUNCATE audit.anchors"],
)
def test_nobody_changes_or_removes_an_anchor_not_even_their_owner(db: psycopg.Connection, statement: str) -> None:
    for role in ("origin", "replica"):
        db.execute(f"SET session_replication_role = {role}".encode())
        with pytest.raises(errors.InsufficientPrivilege, match="anchors are only ever added"):
            db.execute(statement.encode())


def test_a_key_is_there_or_was_erased_at_some_time(db: psycopg.Connection) -> None:
    db.execute("INSERT INTO audit.subject_keys (subject, key) VALUES ('households/1', 'k')")
    db.execute("UPDATE audit.subject_keys SET key = NULL, erased_at = now()")
    for wrong in ("UPDATE audit.subject_keys SET key = 'k'", "UPDATE audit.subject_keys SET erased_at = NULL"):
        with pytest.raises(errors.CheckViolation):
            db.execute(wrong.encode())
    db.execute("DELETE FROM audit.subject_keys")


def test_an_operator_acts_under_his_own_name(system: System, db: psycopg.Connection) -> None:
    db.execute("""
        INSERT INTO messaging.parked (
            parked_id, queue, event_id, type, subject, reason, attempts, replays, attributes, headers, body
        ) VALUES ('0199b2f0-0000-7000-8000-000000000001', 'payment', 'e', 't', 's', '', 1, 0, '{}', '{}', '')
    """)
    ended = system.run("messages", "discard", "0199b2f0-0000-7000-8000-000000000001", "--reason", "broken")
    assert ended.code == 0, ended
    (context,) = contexts(db)
    assert context["actor"].startswith("operators/")
    assert context["reason"] == "showcase messages discard"
