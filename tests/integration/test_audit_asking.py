"""Asking the audit of real servers: a table rebuilt from its records, who did what, and servers that are away."""

import json
import random
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, cast
from uuid import uuid4

import httpx
import psycopg
import pytest
from psycopg.sql import SQL, Identifier, Literal

from showcase.audit import wiring
from showcase.audit.application.asking import Question, everything
from showcase.audit.domain.history import reconstruct
from showcase.audit.infrastructure.reading import MongoArchive
from showcase.audit.infrastructure.records import RECORDS, MongoStore
from showcase.documents.wiring import apply, mongo
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.web.app import build
from tests.contract.test_audit_archive import entries
from tests.documents_others import closes_late
from tests.fakes import serving, settings_of, until
from tests.integration.test_audit import api, consumer, execute, place_order
from tests.unit.test_audit_asking import change
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]

SEEDS = (1, 2, 3)
Rows = dict[tuple[str, ...], dict[str, Any]]


@pytest.fixture
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, stack.namespace() as names:
        yield names


class History:
    """Statements on a table, by chance, with changes of its columns in the middle."""

    def __init__(self, db: "psycopg.Connection[Any]", table: str, seed: int) -> None:
        self.db = db
        self.table = Identifier(table)
        self.chance = random.Random(seed)  # noqa: S311 - the same history each time
        self.note = "note"
        self.run("""
            CREATE TABLE {} (
                region text, id int, n int, note text, price numeric(12, 2), flag bool, doc jsonb, at timestamptz,
                PRIMARY KEY (region, id)
            )
        """)
        self.run("ALTER TABLE {} REPLICA IDENTITY FULL")

    def run(self, statement: str, **values: object) -> None:
        filled = {name: one if isinstance(one, Identifier) else Literal(one) for name, one in values.items()}
        self.db.execute(SQL(cast("Any", statement)).format(self.table, **filled))

    def steps(self, total: int) -> None:
        """Some transactions, of which some are rolled back."""
        for _ in range(total):
            with self.db.transaction(force_rollback=self.chance.random() < 0.1):
                for _ in range(self.chance.choice([1, 1, 1, 2, 5])):
                    self.step()

    def step(self) -> None:
        chance = self.chance
        row = {"region": chance.choice(["eu", "us/ca"]), "id": chance.randint(1, 6)}
        kind = chance.choices(("write", "touch", "move", "delete", "truncate"), (6, 3, 2, 2, 0.2))[0]
        if kind == "write":
            # A long text that is no part of a later change is not in the log again (TOAST).
            note = chance.choice([None, "", "naïve ✓", chance.randbytes(6_000).hex()])
            doc = json.dumps({"deep": [chance.randint(0, 9), None, "x"]})
            price, n = chance.choice([None, "0.10", "123456789.99"]), chance.randint(0, 9)
            values = {**row, "n": n, "text": note, "price": price, "doc": doc, "note": Identifier(self.note)}
            self.run(
                """
                INSERT INTO {} AS t (region, id, n, {note}, price, doc, at)
                VALUES ({region}, {id}, {n}, {text}, {price}, {doc}, clock_timestamp())
                ON CONFLICT (region, id) DO UPDATE SET
                    n = excluded.n, {note} = excluded.{note}, price = excluded.price, at = excluded.at
                """,
                **values,
            )
        elif kind == "touch":
            self.run("UPDATE {} SET n = n + 1 WHERE region = {region}", **row)
        elif kind == "move":
            self.run(
                """
                UPDATE {0} SET id = (SELECT coalesce(max(id), 0) + 1 FROM {0} WHERE region = {region})
                WHERE region = {region} AND id = {id}
                """,
                **row,
            )
        elif kind == "delete":
            self.run("DELETE FROM {} WHERE region = {region} AND id = {id}", **row)
        else:
            self.run("TRUNCATE {}")

    def change_columns(self) -> None:
        self.run("ALTER TABLE {} ADD COLUMN extra int DEFAULT 7, DROP COLUMN flag")
        self.run("ALTER TABLE {} RENAME COLUMN note TO remark")
        self.note = "remark"

    @property
    def rows(self) -> Rows:
        """The table as it is, as JSON of the kind that Debezium writes."""
        found = self.db.execute(
            SQL("""
                SELECT to_jsonb(t) || jsonb_build_object('price', price::text, 'doc', doc::text, 'at',
                    to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')) FROM {} AS t
            """).format(self.table)
        )
        return {(row["region"], str(row["id"])): row for (row,) in found}


def brought_up_to_date(row: Mapping[str, object]) -> dict[str, Any]:
    """A row that was written last when the table had other columns, as the table has it now."""
    now = dict(row)
    if "note" in now:
        now["remark"] = now.pop("note")
        now.setdefault("extra", 7)
    now.pop("flag", None)
    return now


async def test_table_rebuilt_from_its_records_is_the_table_whatever_happened_to_it(names: Namespace) -> None:
    tables = [f"things_{seed}" for seed in SEEDS]
    with psycopg.connect(names.postgres_url, autocommit=True) as db:
        histories = [History(db, table, seed) for table, seed in zip(tables, SEEDS, strict=True)]
        for history in histories:
            history.steps(20)  # what is left of these is the snapshot
        names.capture(tables)
        with consumer(names, *tables) as running:
            for history in histories:
                history.steps(40)
                history.change_columns()
                history.steps(40)
            async with Resources(settings_of(names.env)) as resources:
                archive = MongoArchive(mongo(resources))

                async def rebuilt(table: str) -> Rows:
                    question = Question(entity_type=table, by_time=True)
                    records = [one.record async for one in everything(archive, question)]
                    random.Random(0).shuffle(records)  # noqa: S311 - their ids alone put them in order
                    return {key: brought_up_to_date(row) for (_, key), row in reconstruct(records).items()}

                async def is_complete() -> bool:
                    return all([await rebuilt(table) == one.rows for table, one in zip(tables, histories, strict=True)])

                with suppress(TimeoutError):  # what differs is told below
                    await until(is_complete, within_s=30)
                for table, history in zip(tables, histories, strict=True):
                    assert await rebuilt(table) == history.rows
                    assert history.rows
            assert running.end() == 0


async def test_what_was_done_by_hand_and_what_a_request_did_say_who_it_was_and_readers_are_seen(
    names: Namespace,
) -> None:
    order = uuid4()
    names.capture(["orders", "order_lines", "audit.reads"])
    place_order(names, order)
    execute(names, "INSERT INTO products (product_id) VALUES (5) ON CONFLICT DO NOTHING")
    said = {"actor": "households/1", "request_id": "request-0001", "reason": "PATCH /orders"}
    with psycopg.connect(names.postgres_url, application_name="showcase") as db:
        db.execute("SELECT set_config('audit.context', %s, true)", [json.dumps(said)])
        db.execute("UPDATE orders SET status = 'paid', version = 2 WHERE order_id = %s", [order])
        db.execute("INSERT INTO order_lines VALUES (%s, 1, 5, 2, 250)", [order])
    with consumer(names, "orders", "order_lines", "audit.reads", "audit_context"):
        async with api(settings_of(names.env)) as client:

            async def get(path: str, **query: str) -> Any:
                answer = await client.get(f"/audit/{path}", params=query)
                return answer.json() if answer.status_code == 200 else {"items": []}

            async def is_told() -> bool:
                timeline = (await get(f"entities/orders/{order}"))["items"]
                deeds = (await get("requests/request-0001"))["items"]
                by_hand = (await get("actors/unknown"))["items"]
                return len(timeline) == 2 and bool(by_hand) and [len(one["records"]) for one in deeds] == [2]

            await until(is_told, within_s=30)
            placed, paid = (await get(f"entities/orders/{order}"))["items"]
            (deed,) = (await get("requests/request-0001"))["items"]
            same = (await get("actors/households/1"))["items"]
            transaction = (await get(f"transactions/{paid['transaction']}"))["items"]
            by_hand = (await get("actors/unknown"))["items"]

            async def is_seen() -> bool:
                reads = (await get("records", type="audit.reads"))["items"]
                return len([one for one in reads if one["who"]["actor"] != "unknown"]) >= 3

            await until(is_seen, within_s=30)
            reads = (await get("records", type="audit.reads"))["items"]

    assert placed["who"]["actor"] == "unknown"
    assert placed["who"]["database_user"]
    assert placed["who"]["summary"].startswith(f"by hand, as {placed['who']['database_user']} from ")
    assert paid["who"] | said == paid["who"]
    assert paid["changes"]["status"] == {"before": "placed", "after": "paid"}
    assert [one["entity_type"] for one in deed["records"]] == ["orders", "order_lines"]
    assert deed["is_whole"]
    assert [deed] == same
    assert [one["id"] for one in transaction] == [one["id"] for one in deed["records"]]
    assert placed["id"] in [one["id"] for deed in by_hand for one in deed["records"]]
    assert {(one["after"]["actor"], one["who"]["actor"]) for one in reads[:3]} == {("staff/auditor", "staff/auditor")}


# -- servers that are away


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["postgres", "mongo"]) as stack:
        yield stack


async def auditor(token: str, *, sensitive: bool = False) -> Principal:
    return Principal(subject="staff/auditor", scopes=frozenset({Scope.AUDIT_READ}))


@pytest.mark.parametrize(("fault", "mend"), [("pause", "resume"), ("kill", "restart")])
async def test_while_readers_cannot_be_noted_nothing_is_shown(private: Stack, fault: str, mend: str) -> None:
    with private.namespace() as names:
        settings = settings_of({**names.env, "SHOWCASE_DATABASE_TIMEOUT_S": "1"})
        async with Resources(settings) as resources:
            await apply(resources, RECORDS)
            await MongoStore(mongo(resources, "audit_mongo_url")).add(entries(change(1)))
        async with api(settings) as client:
            assert (await client.get("/audit/entities/orders/a")).status_code == 200
            getattr(private.server("postgres"), fault)()
            try:
                answer = await client.get("/audit/entities/orders/a")
            finally:
                getattr(private.server("postgres"), mend)()

            async def is_shown() -> bool:
                return (await client.get("/audit/entities/orders/a")).status_code == 200

            await until(is_shown)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert "order_id" not in answer.text


async def test_export_that_mongo_leaves_in_the_middle_says_so_in_its_last_line(private: Stack) -> None:
    total, text = 20_000, "x" * 1_000  # more than lies in the buffers on the way
    with private.namespace() as names:
        settings = settings_of({**names.env, "SHOWCASE_MONGO_TIMEOUT_S": "1"})
        async with Resources(settings) as resources:
            await apply(resources, RECORDS)
            stored = MongoStore(mongo(resources, "audit_mongo_url"))
            for begin in range(0, total, 2_000):
                some = [change(n, key={"order_id": n}, after={"text": text}) for n in range(begin, begin + 2_000)]
                await stored.add(entries(*some))
        resources = Resources(settings)
        app = build(resources, [wiring.build(resources)], auditor)
        async with (
            serving(app) as address,
            httpx.AsyncClient(headers={"authorization": "Bearer auditor"}, timeout=30) as client,
            client.stream("GET", f"http://{address}/audit/export") as answer,
        ):
            lines = answer.aiter_lines()
            told = [await anext(lines)]
            private.server("mongo").kill()
            try:
                told += [line async for line in lines]
            finally:
                private.server("mongo").restart()

    *records, last = map(json.loads, told)
    assert answer.status_code == 200
    assert 0 < len(records) < total
    assert [one["key"]["order_id"] for one in records] == list(range(len(records)))
    assert (last["type"], last["status"]) == ("/problems/unavailable", 503)
    assert last["error"]
