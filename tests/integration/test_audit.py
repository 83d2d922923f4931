"""The audit pipeline on real servers: PostgreSQL, Debezium, Kafka, a consumer that is killed, MongoDB, HTTP."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, LiteralString
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
from confluent_kafka import Consumer as KafkaConsumer
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from showcase.audit import wiring
from showcase.audit.infrastructure.records import RECORDS
from showcase.audit.wiring import dead_letter_topic
from showcase.audit.worker.recording import group_of
from showcase.auth.application.ports import Happened
from showcase.auth.infrastructure.events import SqlEvents
from showcase.kernel.errors import Unauthenticated
from showcase.kernel.principal import Principal, Scope
from showcase.platform.database import Database
from showcase.platform.kafka import client_config
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.web.app import build
from showcase.platform.worker import run
from tests.documents_others import closes_late, failing
from tests.fakes import settings_of, until
from tests.unit.test_audit import envelope
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
KEY_NOT_FOUND = 211
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, stack.namespace() as names:
        yield names


async def audit(settings: Settings, tables: Sequence[str]) -> None:
    """The consumer, as a process runs it."""
    async with Resources(settings) as resources:
        await run("audit", wiring.work(resources, tables), drain_s=settings.drain_s)


class Consumer:
    """The consumer in a process of its own."""

    def __init__(self, env: Mapping[str, str], *tables: str, session_timeout_s: float = 6.0) -> None:
        code = (
            "import os, sys; from tests.integration.test_audit import audit; from tests.fakes import settings_of;"
            "from showcase.platform.worker import run_in_loop;"
            "run_in_loop(audit(settings_of(os.environ), sys.argv[1:]))"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, *tables],
            env={**os.environ, **env, "SHOWCASE_KAFKA_SESSION_TIMEOUT_S": str(session_timeout_s)},
            cwd=CHECKOUT,
            start_new_session=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    async def says(self, what: str) -> None:
        """Wait for a line of its log."""
        assert self.process.stdout is not None
        while what not in await asyncio.to_thread(self.process.stdout.readline):
            assert self.process.poll() is None, "it has ended"

    def kill(self) -> None:
        with self.process:  # waits, and closes the pipe
            self.process.kill()

    def end(self) -> int:
        """Tell it to stop; its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(15)
        finally:
            self.kill()


@contextmanager
def consumer(names: Namespace, *tables: str) -> Iterator[Consumer]:
    started = Consumer(names.env, *tables)
    try:
        yield started
    finally:
        started.end()


@asynccontextmanager
async def api(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """The audit over HTTP; the token `auditor` may read it."""

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        if token not in ("auditor", "household"):
            raise Unauthenticated("who?")
        return Principal(subject=f"staff/{token}", scopes=frozenset({Scope.AUDIT_READ} if token == "auditor" else ()))

    resources = Resources(settings)
    app = build(resources, [wiring.build(resources)], authenticate)
    transport = httpx.ASGITransport(app)
    headers = {"authorization": "Bearer auditor"}
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as client,
    ):
        yield client


@asynccontextmanager
async def looking(settings: Settings) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    """A person with mongosh."""
    async with AsyncMongoClient[dict[str, Any]](settings.url("mongo_url"), tz_aware=True) as client:
        yield client.get_default_database()


async def recorded(settings: Settings, table: str, **wanted: object) -> list[dict[str, Any]]:
    """The documents of one table, by their places."""
    async with looking(settings) as database:
        found = database["audit_records"].find({"change.entity_type": table, **wanted}, sort=["_id"])
        return [{**document["change"], "_id": document["_id"]} async for document in found]


def execute(names: Namespace, *statements: LiteralString, **values: object) -> None:
    """Run statements, each in a transaction of its own."""
    with psycopg.connect(names.postgres_url, autocommit=True) as db:
        for statement in statements:
            db.execute(statement, values)


def place_order(names: Namespace, order_id: UUID) -> None:
    execute(
        names,
        "INSERT INTO households (household_id) VALUES (1) ON CONFLICT DO NOTHING",
        "INSERT INTO orders VALUES (%(id)s, 1, 'r', 'placed', 1, 1, 250, now())",
        id=order_id,
    )


async def test_what_happens_to_a_row_becomes_its_timeline(names: Namespace) -> None:
    settings = settings_of(names.env)
    early, order = uuid4(), uuid4()
    place_order(names, early)
    names.capture(["orders", "order_lines"])
    place_order(names, order)
    execute(
        names,
        "UPDATE orders SET status = 'paid', version = 2 WHERE order_id = %(id)s",
        "INSERT INTO products (product_id) VALUES (5) ON CONFLICT DO NOTHING",
        "INSERT INTO order_lines VALUES (%(id)s, 1, 5, 2, 250)",
        "DELETE FROM orders WHERE order_id = %(id)s",
        id=order,
    )

    with consumer(names, "orders", "order_lines") as running:
        async with api(settings) as client:

            async def items(path: str, **query: str) -> list[dict[str, Any]]:
                answer = await client.get(f"/audit/entities/{path}", params=query)
                return list(answer.json().get("items", []))

            async def complete() -> bool:
                return len(await items(f"orders/{order}")) == 3 and len(await items(f"order_lines/{order}/1")) == 2

            await until(complete)
            timeline = await items(f"orders/{order}")
            snapshot = await items(f"orders/{early}")
            lines = await items(f"order_lines/{order}/1")
            first = (await client.get(f"/audit/entities/orders/{order}", params={"limit": 2})).json()
            rest = (
                await client.get(f"/audit/entities/orders/{order}", params={"limit": 2, "after": first["next"]})
            ).json()
            missing = await client.get(f"/audit/entities/orders/{uuid4()}")
            bad_cursor = await client.get(f"/audit/entities/orders/{order}", params={"after": "bm8"})
            forbidden = await client.get(
                f"/audit/entities/orders/{order}", headers={"authorization": "Bearer household"}
            )
        assert running.end() == 0

    placed, paid, deleted = timeline
    assert [one["operation"] for one in timeline] == ["create", "update", "delete"]
    assert placed["before"] is None
    assert placed["after"]["status"] == "placed"
    assert paid["before"] == placed["after"]
    assert (paid["after"]["status"], paid["changed"]) == ("paid", ["status", "version"])
    assert (deleted["before"], deleted["after"]) == (paid["after"], None)
    assert len({one["transaction"] for one in timeline}) == 3
    assert [one["operation"] for one in snapshot] == ["read"]
    assert [one["operation"] for one in lines] == ["create", "delete"]
    assert lines[1]["transaction"] == deleted["transaction"]
    assert first["items"] + rest["items"] == timeline
    assert rest["next"] is None
    assert (missing.status_code, missing.json()["type"]) == (404, "/problems/no-such-entity")
    assert (bad_cursor.status_code, forbidden.status_code) == (422, 403)


async def test_what_happens_to_an_account_is_audited(names: Namespace) -> None:
    settings = settings_of(names.env)
    names.capture(["auth.events"])
    database = Database(names.postgres_url)
    try:
        for happened in (Happened.LOGIN, Happened.REUSED):
            await SqlEvents(database).add(happened, actor="households/7", reason="shown", token_id="t1")
    finally:
        await database.close()

    with consumer(names, "auth.events"):

        async def both() -> bool:
            return len(await recorded(settings, "auth.events")) == 2

        await until(both)

    rows = [document["after"] for document in await recorded(settings, "auth.events")]
    assert [(row["type"], row["actor"]) for row in rows] == [
        ("login", "households/7"),
        ("refresh.reused", "households/7"),
    ]


async def test_rows_of_one_copy_which_share_their_place_in_the_log_are_all_recorded(names: Namespace) -> None:
    names.capture(["orders"])
    execute(names, "INSERT INTO households (household_id) VALUES (1) ON CONFLICT DO NOTHING")
    columns = "order_id, household_id, reference, status, version, line_count, total_cents, placed_at"
    with psycopg.connect(names.postgres_url) as db, db.cursor().copy(f"COPY orders ({columns}) FROM STDIN") as copy:
        for _ in range(500):
            copy.write_row((uuid4(), 1, "r", "placed", 1, 1, 250, "2026-01-01"))

    with consumer(names, "orders"):

        async def all_there() -> bool:
            return len(await recorded(settings_of(names.env), "orders")) == 500

        await until(all_there)

    assert len({one["position"] for one in await recorded(settings_of(names.env), "orders")}) < 500


def produce(names: Namespace, topic: str, values: Sequence[bytes], *, partitions: int = 1, key: str = "") -> None:
    """Write messages to a topic of the namespace, as a source of changes would."""
    url = names.env["SHOWCASE_KAFKA_URL"]
    admin = AdminClient(client_config(url))
    if topic not in admin.list_topics(timeout=60).topics:  # a broker that was paused has no controller for a while
        for future in admin.create_topics([NewTopic(topic, num_partitions=partitions)]).values():
            if future.exception(60) is not None:
                assert "already exists" in str(future.exception())
    producer = Producer(client_config(url))
    for number, value in enumerate(values):
        producer.produce(topic, value, key or f'{{"id": {number}}}')
        producer.poll(0)
    assert producer.flush(30) == 0


def read(names: Namespace, topic: str, number: int) -> list[Any]:
    """The first messages of a topic."""
    config = {"group.id": f"{names.topic_prefix}test", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    reader = KafkaConsumer(client_config(names.env["SHOWCASE_KAFKA_URL"]) | config)
    try:
        reader.subscribe([topic])
        return [message for message in reader.consume(number, 30) if message.error() is None]
    finally:
        reader.close()


async def test_killed_consumer_that_starts_again_misses_nothing_and_records_nothing_twice(names: Namespace) -> None:
    settings = settings_of(names.env)
    total = 30_000
    topic = f"{names.topic_prefix}public.things"
    produce(names, topic, [envelope("c", table="things", lsn=n, after={"n": n}) for n in range(total)], partitions=3)
    kills = 0
    seen = 0
    while seen < total and kills < 5:
        running = Consumer(names.env, "things", session_timeout_s=2.0)
        try:

            async def further() -> bool:
                return await count(settings) >= min(seen + 3_000, total)  # noqa: B023 - awaited in this turn

            await until(further, within_s=60)
        finally:
            running.kill()
        kills += 1
        seen = await count(settings)

    assert kills > 1
    with consumer(names, "things"):

        async def complete() -> bool:
            return await count(settings) >= total

        await until(complete, within_s=60)
    documents = await recorded(settings, "things")
    assert [int(document["position"], 16) for document in documents] == list(range(total))


async def reached(settings: Settings, total: int) -> bool:
    return await count(settings) >= total


async def count(settings: Settings) -> int:
    async with looking(settings) as database:
        return await database["audit_records"].estimated_document_count()


async def test_broken_messages_are_put_away_and_the_rest_goes_on(names: Namespace) -> None:
    settings = settings_of(names.env)
    topic = f"{names.topic_prefix}public.things"
    good = [envelope("c", table="things", lsn=n, after={"n": n}) for n in range(3)]
    huge = envelope("c", table="things", lsn=9, after={"n": 2**70})
    produce(names, topic, [good[0], b"{", good[1], b'{"op": "c"}', huge, b"\xff\x00", good[2]])

    with consumer(names, "things") as running:

        async def complete() -> bool:
            return await count(settings) == 3

        await until(complete)
        assert running.end() == 0

    letters = read(names, dead_letter_topic(settings), 4)
    headers = [dict(one.headers()) for one in letters]
    assert [one["x-place"].decode() for one in headers] == [f"{topic}:0:{offset}" for offset in (1, 3, 4, 5)]
    assert [one.value() for one in letters] == [b"{", b'{"op": "c"}', huge, b"\xff\x00"]
    assert all(one["x-reason"] for one in headers)


async def test_consumers_share_a_topic_and_take_over_from_one_that_leaves(names: Namespace) -> None:
    settings = settings_of(names.env)
    topic = f"{names.topic_prefix}public.things"
    total = 6_000
    produce(names, topic, [envelope("c", table="things", lsn=n) for n in range(total // 2)], partitions=4)
    admin = AdminClient(client_config(settings.url("kafka_url")))
    with consumer(names, "things") as first, consumer(names, "things"):

        async def half() -> bool:
            return await count(settings) >= total // 2

        async def shared() -> bool:
            asked = admin.describe_consumer_groups([group_of(settings)], request_timeout=10)
            members = (await asyncio.to_thread(asked[group_of(settings)].result)).members
            held = [[part for part in one.assignment.topic_partitions if part.topic == topic] for one in members]
            return [len(parts) for parts in held] == [2, 2]

        await until(half, within_s=60)
        await until(shared, within_s=60)
        assert first.end() == 0
        produce(names, topic, [envelope("c", table="things", lsn=n) for n in range(total // 2, total)])

        async def complete() -> bool:
            return await count(settings) >= total

        await until(complete, within_s=60)
    assert await count(settings) == total


async def test_topic_that_comes_after_the_consumer_is_read_from_its_beginning(names: Namespace) -> None:
    settings = settings_of(names.env)
    with consumer(names, "later") as running:

        async def about_to_read() -> bool:
            async with looking(settings) as database:
                return RECORDS.indexes[0].name in await database["audit_records"].index_information()

        await until(about_to_read)
        produce(names, f"{names.topic_prefix}public.later", [envelope("c", table="later", lsn=n) for n in range(10)])

        async def complete() -> bool:
            return await count(settings) == 10

        await until(complete, within_s=30)
        assert running.end() == 0


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["mongo", "kafka"]) as stack:
        yield stack


@pytest.mark.parametrize(("fault", "mend"), [("pause", "resume"), ("kill", "restart")])
async def test_consumer_waits_for_mongo_and_loses_nothing(private: Stack, fault: str, mend: str) -> None:
    with private.namespace() as names:
        settings = settings_of(names.env)
        topic = f"{names.topic_prefix}public.things"
        produce(names, topic, [envelope("c", table="things", lsn=n) for n in range(100)])
        running = Consumer({**names.env, "SHOWCASE_MONGO_TIMEOUT_S": "1"}, "things")
        try:
            await until(lambda: reached(settings, 100), within_s=60)
            getattr(private.server("mongo"), fault)()
            try:
                produce(names, topic, [envelope("c", table="things", lsn=n) for n in range(100, 200)])
                await asyncio.wait_for(running.says("waiting for a server"), 60)
            finally:
                getattr(private.server("mongo"), mend)()
            await until(lambda: reached(settings, 200), within_s=60)
            assert running.end() == 0
        finally:
            running.kill()
        assert await count(settings) == 200


async def test_consumer_outlives_a_mongo_that_does_not_know_its_keys_yet(private: Stack) -> None:
    with private.namespace() as names:
        settings = settings_of(names.env)
        topic = f"{names.topic_prefix}public.things"
        running = Consumer(names.env, "things")
        try:
            with failing(names.mongo_url, ["insert"], 3, errorCode=KEY_NOT_FOUND):
                produce(names, topic, [envelope("c", table="things", lsn=n) for n in range(100)])
                await asyncio.wait_for(running.says("waiting for a server"), 60)
                await until(lambda: reached(settings, 100), within_s=60)
            assert running.end() == 0
        finally:
            running.kill()


@pytest.mark.parametrize(("fault", "mend"), [("pause", "resume"), ("kill", "restart")])
async def test_consumer_goes_on_with_a_broker_that_has_forgotten_it(private: Stack, fault: str, mend: str) -> None:
    with private.namespace() as names:
        settings = settings_of(names.env)
        topic = f"{names.topic_prefix}public.things"
        produce(names, topic, [envelope("c", table="things", lsn=n) for n in range(100)])
        running = Consumer(names.env, "things", session_timeout_s=2)
        try:
            await until(lambda: reached(settings, 100), within_s=60)
            getattr(private.server("kafka"), fault)()
            try:
                await asyncio.sleep(3)  # the time itself is the condition: the session is over
            finally:
                getattr(private.server("kafka"), mend)()
            produce(names, topic, [envelope("c", table="things", lsn=n) for n in range(100, 200)])
            await until(lambda: reached(settings, 200), within_s=60)
            assert running.end() == 0
        finally:
            running.kill()
        assert await count(settings) == 200
