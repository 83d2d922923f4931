"""Capture on real servers: what an operator types, what arrives in Kafka, what breaks and how it comes back.

The servers belong to this module alone: it kills them, and fills the log of PostgreSQL.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it has them, and does not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from pymongo import MongoClient

from showcase import composition
from showcase.audit import wiring
from showcase.audit.infrastructure.connectors import KafkaConnect, SqlServerSource
from showcase.platform.resources import Resources
from tests.fakes import settings_of
from tests.integration.stacks import Ended, ended
from tests.integration.system import wait_for
from workshop.attacking.suppliers import NOBODY
from workshop.stack import Stack
from workshop.stack.local import connect
from workshop.stack.local.kafka import client_config
from workshop.stack.model import credentials, url_of
from workshop.stack.namespace import Namespace

CHECKOUT = Path(__file__).resolve().parents[2]
CONNECTORS = ("audit", "connectors")
WITHIN_S = 60.0


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["postgres", "kafka", "connect"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


def environment(names: Namespace, settings: Mapping[str, str]) -> dict[str, str]:
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")}
    return {**bare, **names.env, "SHOWCASE_ENVIRONMENT": "workshop", **settings}


def showcase(names: Namespace, *command: str, **settings: str) -> Ended:
    """Run a command of the system to its end."""
    return ended(
        subprocess.Popen(
            [sys.executable, "-m", "showcase", *command],
            env=environment(names, settings),
            cwd=CHECKOUT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    )


def execute(names: Namespace, *statements: LiteralString, **values: object) -> None:
    """Run statements, each in a transaction of its own."""
    with psycopg.connect(names.postgres_url, autocommit=True) as db:
        for statement in statements:
            db.execute(statement, values)


def one(names: Namespace, query: LiteralString, **values: object) -> Any:
    """The only value that a query finds."""
    with psycopg.connect(names.postgres_url, autocommit=True) as db:
        row = db.execute(query, values).fetchone()
    return row and row[0]


def act(names: Namespace, method: str, path: str) -> Any:
    """Something that an operator asks of Kafka Connect with curl."""
    with connect.client(names.env, WITHIN_S) as api:
        answer = api.request(method, f"/connectors/{names.connector}{path}")
        answer.raise_for_status()
        return answer.json() if answer.content else None


def states(names: Namespace) -> list[str]:
    """Of the connector and its tasks."""
    status = act(names, "GET", "/status")
    return [part["state"] for part in (status["connector"], *status["tasks"])]


def make_things(names: Namespace) -> None:
    execute(names, "CREATE TABLE things (id int PRIMARY KEY, name text)", "ALTER TABLE things REPLICA IDENTITY FULL")


@dataclass(frozen=True)
class Arrived:
    """A message of a table's topic."""

    headers: dict[str, Any]
    value: dict[str, Any]

    @property
    def row(self) -> dict[str, Any]:
        """As it is now, or was when it was deleted."""
        found: dict[str, Any] = self.value["after"] or self.value["before"]
        return found


class Reader:
    """Reads the topic of a table from its beginning."""

    def __init__(self, names: Namespace, table: str) -> None:
        options = {"group.id": f"{names.topic_prefix}{table}", "auto.offset.reset": "earliest"}
        self._consumer = Consumer(client_config(names.env) | options | {"isolation.level": "read_committed"})
        self._consumer.subscribe([f"{names.topic_prefix}{table}"])
        self.seen: list[Arrived] = []

    def until(self, found: Callable[[Sequence[Arrived]], object]) -> list[Arrived]:
        """Everything so far, once it is as wanted."""

        def is_found() -> object:
            message = self._consumer.poll(0.2)
            if message is not None and not message.error():
                self.seen.append(Arrived(dict(message.headers() or ()), json.loads(message.value() or b"null")))
            return found(self.seen)

        wait_for(is_found, within_s=WITHIN_S)
        return self.seen

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The newest state of so many changes."""
        return [message.row for message in self.until(lambda seen: len(seen) >= count)]

    def close(self) -> None:
        self._consumer.close()


@contextmanager
def reading(names: Namespace, table: str = "public.things") -> Iterator[Reader]:
    reader = Reader(names, table)
    try:
        yield reader
    finally:
        reader.close()


class Worker:
    """`showcase worker capture` in a process of its own."""

    def __init__(self, names: Namespace, log: Path) -> None:
        self._log = log
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "showcase", "worker", "capture"],
                env=environment(names, {"SHOWCASE_AUDIT_LOOK_S": "0.2"}),
                cwd=CHECKOUT,
                stdout=output,
                stderr=output,
            )

    def events(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log that tell of something."""
        assert self._process.poll() is None, self._log.read_text()
        lines = [json.loads(line) for line in self._log.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def end(self) -> int:
        self._process.terminate()
        return self._process.wait(WITHIN_S)


@contextmanager
def worker(names: Namespace, folder: Path) -> Iterator[Worker]:
    running = Worker(names, folder / "capture.log")
    try:
        yield running
    finally:
        running.end()


# -- what an operator types


def test_what_is_planned_is_applied_once_and_shown(names: Namespace) -> None:
    planned = showcase(names, *CONNECTORS, "plan")
    assert planned.code == 2, planned
    assert f"connector {names.connector}: new" in planned.output
    assert f"topic {names.topic_prefix}payment.charges: new, 3 partitions, kept 7 days" in planned.output
    assert one(names, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = %(name)s", name=names.connector) == 0

    assert showcase(names, *CONNECTORS, "apply").code == 0
    again, then = showcase(names, *CONNECTORS, "apply"), showcase(names, *CONNECTORS, "plan")
    assert (again.code, again.output) == (0, "nothing to do\n"), again
    assert (then.code, then.output) == (0, "nothing to do\n"), then
    shown = showcase(names, *CONNECTORS, "status")
    assert shown.code == 0, shown
    assert f"{names.connector}/0  RUNNING" in shown.output
    assert "reserved" in shown.output

    _, password = credentials(url_of(names.env, "SHOWCASE_POSTGRES_URL"))
    everything = planned.output + shown.output + json.dumps([act(names, "GET", path) for path in ("", "/config")])
    assert "${env:POSTGRES_PASSWORD}" in everything
    assert password not in everything


def test_topics_have_the_partitions_and_the_retention_that_were_asked_for(names: Namespace) -> None:
    small = {"SHOWCASE_AUDIT_PARTITIONS": "2", "SHOWCASE_AUDIT_RETENTION": "PT1H"}
    assert showcase(names, *CONNECTORS, "apply", **small).code == 0
    admin, orders = AdminClient(client_config(names.env)), f"{names.topic_prefix}public.orders"

    def found(topic: str) -> tuple[int, str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        config = admin.describe_configs([resource], request_timeout=WITHIN_S)[resource].result(WITHIN_S)
        count = len(admin.list_topics(topic, timeout=WITHIN_S).topics[topic].partitions)
        return count, config["retention.ms"].value, config["retention.bytes"].value

    assert found(orders) == (2, "3600000", "-1")
    assert found(f"{names.topic_prefix}transaction") == (1, "3600000", "-1")
    assert showcase(names, *CONNECTORS, "apply").code == 0
    wait_for(lambda: found(orders) == (3, "604800000", "-1"))
    refused = showcase(names, *CONNECTORS, "apply", SHOWCASE_AUDIT_PARTITIONS="2")
    assert refused.code == 1, refused
    assert "partitions grow only" in refused.errors
    assert f"{orders} has 3, not 2" in refused.errors
    assert len(refused.errors.splitlines()) == 1


def test_a_table_without_before_images_is_named_with_what_mends_it(names: Namespace) -> None:
    execute(names, "ALTER TABLE orders REPLICA IDENTITY DEFAULT")
    refused = showcase(names, *CONNECTORS, "apply")
    assert refused.code == 1, refused
    assert "ALTER TABLE public.orders REPLICA IDENTITY FULL" in refused.errors
    assert "public.order_lines" not in refused.errors
    with connect.client(names.env, WITHIN_S) as api:
        assert names.connector not in api.get("/connectors").json()


def test_paused_is_not_running_and_resumed_it_is(names: Namespace) -> None:
    assert showcase(names, *CONNECTORS, "apply").code == 0
    assert showcase(names, *CONNECTORS, "pause").code == 0
    wait_for(lambda: states(names) == ["PAUSED", "PAUSED"])
    assert showcase(names, *CONNECTORS, "status").code == 1
    assert showcase(names, *CONNECTORS, "resume").code == 0
    assert states(names) == ["RUNNING", "RUNNING"]
    assert showcase(names, *CONNECTORS, "restart").output == "nothing has failed\n"


def test_what_cannot_be_done_is_told_in_one_line(names: Namespace) -> None:
    url = url_of(names.env, "SHOWCASE_CONNECT_URL")
    nobody = url._replace(netloc="user:s3cret@127.0.0.1:1").geturl()
    for ended_, says in (
        (showcase(names, *CONNECTORS, "status"), "connectors apply"),
        (showcase(names, *CONNECTORS, "plan", SHOWCASE_CONNECT_URL=nobody), "Kafka Connect does not answer"),
        (showcase(names, *CONNECTORS, "plan", SHOWCASE_TOPIC_PREFIX="Shop."), "names no replication slot"),
    ):
        assert ended_.code != 0
        assert says in ended_.errors
        assert "s3cret" not in ended_.errors
        assert len(ended_.errors.splitlines()) == 1, ended_


# -- what arrives


def test_the_epoch_comes_with_every_change(names: Namespace) -> None:
    assert showcase(names, *CONNECTORS, "apply", SHOWCASE_AUDIT_EPOCH="2").code == 0
    beat = "UPDATE heartbeat SET beat_at = now()"
    execute(names, beat)
    with reading(names, "public.heartbeat") as reader:
        reader.until(lambda seen: any(message.headers["epoch"] == b"2" for message in seen))
        assert showcase(names, *CONNECTORS, "apply", SHOWCASE_AUDIT_EPOCH="3").code == 0
        execute(names, beat)
        epochs = [message.headers["epoch"] for message in reader.until(lambda seen: seen[-1].headers["epoch"] == b"3")]
    assert sorted(set(epochs)) == [b"2", b"3"]


def test_times_dates_and_numbers_arrive_in_words(names: Namespace) -> None:
    make_things(names)
    execute(
        names,
        "ALTER TABLE things ADD day date, ADD at timestamp, ADD zoned timestamptz, ADD hour time, ADD price numeric",
    )
    names.capture(["things"])
    execute(
        names,
        "INSERT INTO things (id, name, day, hour, price) VALUES (1, 'a', '2017-12-23', '10:11', 1.10)",
        "UPDATE things SET at = '2017-12-23 10:11:12.5', zoned = '2017-12-23 10:11:12+02'",
    )
    with reading(names) as reader:
        row = reader.rows(2)[1]
    assert row == {
        "id": 1,
        "name": "a",
        "day": "2017-12-23Z",
        "at": "2017-12-23T10:11:12.5Z",
        "zoned": "2017-12-23T08:11:12.000000Z",
        "hour": "10:11:00Z",
        "price": "1.10",
    }


def test_a_column_that_is_added_renamed_or_dropped_flows_through_and_is_seen(names: Namespace) -> None:
    make_things(names)
    names.capture(["things"])
    execute(
        names,
        "INSERT INTO things VALUES (1, 'a')",
        "ALTER TABLE things ADD COLUMN pieces int DEFAULT 3",
        "INSERT INTO things VALUES (2, 'b')",
        "ALTER TABLE things RENAME COLUMN name TO title",
        "UPDATE things SET title = 'c' WHERE id = 2",
        "ALTER TABLE things DROP COLUMN pieces",
        "DELETE FROM things WHERE id = 2",
    )
    with reading(names) as reader:
        changes = reader.until(lambda seen: len(seen) >= 4)
    assert [change.row for change in changes] == [
        {"id": 1, "name": "a"},
        {"id": 2, "name": "b", "pieces": 3},
        {"id": 2, "title": "c", "pieces": 3},
        {"id": 2, "title": "c"},
    ]
    assert changes[2].value["before"] == {"id": 2, "title": "b", "pieces": 3}


def test_a_row_of_five_megabytes_arrives_before_and_after(names: Namespace) -> None:
    make_things(names)
    names.capture(["things"])
    execute(
        names,
        "INSERT INTO things VALUES (1, repeat('a', 5000000))",
        "UPDATE things SET name = repeat('b', 5000000)",
    )
    with reading(names) as reader:
        change = reader.until(lambda seen: len(seen) >= 2)[1].value
    assert (len(change["before"]["name"]), len(change["after"]["name"])) == (5_000_000, 5_000_000)
    assert change["after"]["name"][0] == "b"


# -- what breaks


def restrict(names: Namespace, topic: str, max_bytes: int) -> None:
    """Let a topic take no larger message."""
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient(client_config(names.env))
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(WITHIN_S)


def test_a_task_that_has_failed_is_restarted_and_goes_on_where_it_was(names: Namespace, tmp_path: Path) -> None:
    make_things(names)
    names.capture(["things"], {"producer.override.transaction.timeout.ms": "2000"})  # it fails no sooner
    topic = f"{names.topic_prefix}public.things"
    with worker(names, tmp_path) as running, reading(names) as reader:
        wait_for(lambda: running.events("ready"))
        execute(names, "INSERT INTO things VALUES (1, 'a')")
        reader.rows(1)
        restrict(names, topic, 500)
        execute(names, "INSERT INTO things VALUES (2, repeat('b', 1000))")
        wait_for(lambda: running.events("restarted"), within_s=WITHIN_S)
        assert "RecordTooLargeException" in running.events("has failed")[0]["why"]
        restrict(names, topic, 1_000_000)
        execute(names, "INSERT INTO things VALUES (3, 'c')")
        assert [row["id"] for row in reader.rows(3)] == [1, 2, 3]
        wait_for(lambda: running.events("runs again"))
        assert running.end() == 0


def test_a_dropped_connection_and_a_killed_connect_lose_nothing_and_tell_nothing_twice(
    private: Stack, names: Namespace, tmp_path: Path
) -> None:
    make_things(names)
    names.capture(["things"])
    with worker(names, tmp_path) as running, reading(names) as reader:
        wait_for(lambda: running.events("ready"))
        execute(names, "INSERT INTO things VALUES (1, 'a')")
        reader.rows(1)
        execute(
            names,
            "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = %(slot)s",
            slot=names.connector,
        )
        execute(names, "INSERT INTO things VALUES (2, 'b')")
        reader.rows(2)
        private.server("connect").kill()
        execute(names, "INSERT INTO things VALUES (3, 'c')")
        wait_for(lambda: running.events("waiting for a server"))
        refused = showcase(names, *CONNECTORS, "status")
        assert (refused.code, len(refused.errors.splitlines())) == (1, 1)
        private.server("connect").restart()
        execute(names, "INSERT INTO things VALUES (4, 'd')")
        assert [row["id"] for row in reader.rows(4)] == [1, 2, 3, 4]


def test_a_lost_slot_is_told_once_and_mended_as_the_page_says(private: Stack, names: Namespace, tmp_path: Path) -> None:
    make_things(names)
    names.capture(["things"])
    act(names, "PUT", "/stop")
    wait_for(lambda: states(names) == ["STOPPED"])
    lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = %(slot)s"
    execute(names, "INSERT INTO things VALUES (1, 'missed')")
    with psycopg.connect(private.urls["SHOWCASE_POSTGRES_URL"], autocommit=True) as server:
        server.execute("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        try:
            server.execute("SELECT pg_reload_conf()")

            def is_lost() -> object:
                # A segment has 16 MB: each switch leaves one behind.
                server.execute("SELECT pg_logical_emit_message(false, 'filler', 'x'), pg_switch_wal()")
                server.execute("CHECKPOINT")
                return one(names, lost, slot=names.connector)

            wait_for(is_lost, within_s=WITHIN_S)
        finally:
            server.execute("ALTER SYSTEM RESET max_slot_wal_keep_size")
            server.execute("SELECT pg_reload_conf()")
    with worker(names, tmp_path) as running:
        act(names, "PUT", "/resume")
        told = "the replication slot is lost: changes were not captured, and no restart brings them back"
        wait_for(lambda: running.events(told))
        shown = showcase(names, *CONNECTORS, "status")
        assert "lost" in shown.output
        assert running.events("restarted") == []
        assert len(running.events(told)) == 1

    # docs/capture.md, "When the slot is lost"
    act(names, "PUT", "/stop")
    wait_for(lambda: states(names) == ["STOPPED"])
    act(names, "DELETE", "/offsets")
    execute(names, "SELECT pg_drop_replication_slot(%(slot)s)", slot=names.connector)
    act(names, "PUT", "/resume")
    with reading(names) as reader:
        message = reader.until(lambda seen: seen)[0]
    assert (message.value["op"], message.row) == ("r", {"id": 1, "name": "missed"})


def test_the_slot_of_an_idle_database_moves_on_while_others_write(private: Stack, names: Namespace) -> None:
    names.capture(config={"heartbeat.interval.ms": "200"})
    with private.namespace() as other:
        make_things(other)
        execute(other, "INSERT INTO things SELECT n, repeat('x', 1000) FROM generate_series(1, 5000) AS n")
        written = one(other, "SELECT pg_current_wal_lsn()")
        places: LiteralString = (
            "SELECT confirmed_flush_lsn >= %(written)s::pg_lsn AND restart_lsn >= %(written)s::pg_lsn"
            " FROM pg_replication_slots WHERE slot_name = %(slot)s"
        )

        def has_moved() -> object:
            execute(other, "CHECKPOINT")  # says which transactions run: a reader needs the log from there on only
            return one(names, places, written=written, slot=names.connector)

        wait_for(has_moved, within_s=WITHIN_S)


# -- numbers


@pytest.mark.anyio
async def test_gauges_tell_of_the_slot_and_the_task(names: Namespace) -> None:
    names.capture(composition.AUDITED)
    async with Resources(settings_of(names.env)) as resources:
        found = {
            gauge.name: dict(gauge.values) for gauge in await wiring.capture_gauges(resources, composition.AUDITED)
        }
    assert found["showcase_audit_slot_active"] == {names.connector: 1}
    assert found["showcase_audit_connector_running"] == {names.connector: 1, f"{names.connector}/0": 1}
    assert found["showcase_audit_slot_lag_bytes"][names.connector] >= 0


# -- SQL Server


@pytest.mark.anyio
async def test_the_real_sql_server_connector_objects_to_nothing_but_the_absent_server(names: Namespace) -> None:
    config = {**SqlServerSource(name="shop").config(), **NOBODY}
    wrong = await KafkaConnect(names.env["SHOWCASE_CONNECT_URL"]).check("shop.sqlserver", config)
    assert wrong
    assert {line.partition(":")[0] for line in wrong} == {"database.hostname"}


PRICES = "SET NOCOUNT ON; SELECT COUNT(*) FROM dbo.price_list"


def sqlcmd(query: str) -> str:
    """What SQL Server answers, in the container of compose."""
    tool = ("/opt/mssql-tools18/bin/sqlcmd", "-C", "-b", "-h", "-1", "-U", "sa", "-d", "pricing", "-Q", query)
    command = ["docker", "compose", "exec", "-T", "sqlserver", *tool]
    return subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.mark.sqlserver
@pytest.mark.timeout(600)
def test_what_changes_in_sql_server_becomes_records(tmp_path: Path) -> None:
    """Needs `workshop up` with SHOWCASE_STACK=compose and the profiles core and sqlserver."""
    sources = {"SHOWCASE_AUDIT_SOURCES": "postgres sqlserver"}
    with Stack.attach() as stack, stack.namespace() as names:
        for source in ("postgres", "sqlserver"):
            applied = showcase(names, *CONNECTORS, "apply", "--source", source, **sources)
            assert applied.code == 0, applied
        log = tmp_path / "audit.log"
        with log.open("wb") as output:
            recorder = subprocess.Popen(
                [sys.executable, "-m", "showcase", "worker", "audit"],
                env=environment(names, sources),
                cwd=CHECKOUT,
                stdout=output,
                stderr=output,
            )
        try:
            with MongoClient[dict[str, Any]](names.mongo_url) as client:
                records = client.get_default_database()["audit_records"]

                def count(operation: str) -> int:
                    wanted = {"change.entity_type": "dbo.price_list", "change.operation": operation}
                    return records.count_documents(wanted)

                rows = int(sqlcmd(PRICES))
                wait_for(lambda: count("read") == rows, within_s=120)
                sqlcmd("EXEC dbo.change_prices @times = 5")
                wait_for(lambda: count("update") == 5, within_s=120)
                found = records.find_one({"change.entity_type": "dbo.price_list", "change.operation": "update"})
        finally:
            recorder.terminate()
            recorder.wait(WITHIN_S)
        assert found is not None, log.read_text()
        before, after = found["change"]["before"], found["change"]["after"]
        assert before["price"] != after["price"]
        assert {**after, "price": 0, "valid_from": 0} == {**before, "price": 0, "valid_from": 0}
