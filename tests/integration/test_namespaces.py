"""Namespaces on real servers: made, filled, dropped without a trace, and never meeting one another.

Run as a program, this file is another process that makes namespaces: its lines on stdin and stdout are the
barrier at which such processes meet.
"""

import json
import os
import signal
import smtplib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import Barrier
from typing import Any

import httpx
import psycopg
import pytest
import redis
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from pika.exceptions import AMQPError

from workshop.stack import SERVERS, Stack, StackError
from workshop.stack.local import connect, mail, mongo, rabbitmq
from workshop.stack.local.kafka import client_config
from workshop.stack.model import Urls, credentials, url_of
from workshop.stack.namespace import Namespace, leftovers, names_left, reset
from workshop.stack.namespace.part import new_name
from workshop.stack.namespace.postgres import MAKING, session, template

HERE = Path(__file__)
REPOSITORY = HERE.parents[2]
WITHIN_S = 30.0
PAUSED_WITHIN_S = 2.0
ALL_AT_ONCE, PROCESSES = 20, 4
REDIS = ("SHOWCASE_REDIS_CACHE_URL", "SHOWCASE_REDIS_STATE_URL")


@pytest.fixture
def urls(stack: Stack) -> Urls:
    return stack.urls


@pytest.fixture(scope="module")
def breakable() -> Iterator[Stack]:
    """All servers, for this module alone."""
    with Stack.private() as stack:
        yield stack


@pytest.fixture
def fresh_postgres() -> Iterator[Stack]:
    """A PostgreSQL in which nobody has made a template yet."""
    with Stack.private(["postgres"]) as stack:
        yield stack


# -- coming


def test_namespaces_come_and_go_in_well_under_two_seconds(urls: Urls) -> None:
    with Namespace.create(urls):
        pass  # from here on there is a template
    made, dropped = [], []
    for _ in range(5):
        started = time.perf_counter()
        names = Namespace.create(urls)
        made.append(time.perf_counter() - started)
        started = time.perf_counter()
        names.drop()
        dropped.append(time.perf_counter() - started)
    print(f"created in {statistics.median(made):.3f} s, dropped in {statistics.median(dropped):.3f} s (median of 5)")
    assert statistics.median(made) < 2
    assert statistics.median(dropped) < 2


def test_its_database_is_migrated(urls: Urls) -> None:
    with Namespace.create(urls) as names, psycopg.connect(names.postgres_url) as db:
        assert db.execute("SELECT id FROM heartbeat").fetchall() == [(1,)]
        with pytest.raises(psycopg.errors.CheckViolation):
            db.execute("INSERT INTO heartbeat VALUES (2, now())")


def test_a_name_that_is_taken_is_refused_and_its_owner_left_alone(urls: Urls) -> None:
    with Namespace.create(urls) as names:
        fill(names)
        before = leftovers(urls, names.name)
        with pytest.raises(StackError, match="exists already"):
            Namespace.create(urls, names.name)
        assert leftovers(urls, names.name) == before
        assert seen(names) == all_of(names.name)


def test_a_name_that_left_something_in_one_server_is_taken_too(urls: Urls) -> None:
    names = Namespace(urls, new_name())
    with redis.Redis.from_url(urls["SHOWCASE_REDIS_STATE_URL"], socket_timeout=WITHIN_S) as client:
        client.set(f"{names.redis_prefix}old", 1)
    with names, pytest.raises(StackError, match="exists already: redis-state key"):
        Namespace.create(urls, names.name)


def test_of_many_who_want_one_name_at_once_one_gets_it(urls: Urls) -> None:
    together = Barrier(6)
    name = new_name()

    def attempt(_: int) -> bool:
        together.wait(WITHIN_S)
        try:
            Namespace.create(urls, name)
        except StackError as error:
            if "exists already" not in error.what:
                raise
            return False
        return True

    with ThreadPoolExecutor(6) as pool:
        assert sum(pool.map(attempt, range(6))) == 1
    assert leftovers(urls, name) == [
        f"mongo users ns_{name}",
        f"postgres database ns_{name}",
        f"rabbitmq vhost ns_{name}",
    ]
    Namespace(urls, name).drop()


@pytest.mark.parametrize("name", ["", "A", "1a", "a_b", "a-b", "a.b", "a b", "a\n", "ä", "a'; drop", "a" * 22])
def test_bad_names_are_refused_before_any_server_is_asked(name: str) -> None:
    with pytest.raises(StackError, match="cannot be called") as refusal:
        Namespace.create({}, name)
    assert "lower-case" in refusal.value.remedy


# -- going


def test_dropped_it_leaves_nothing_in_any_server(urls: Urls) -> None:
    with Namespace.create(urls) as names:
        fill(names)
        make_sales(names)
        names.capture(["sales"])
        change_a_sale(names)
        next_change(names, "public.sales", "u")
        identifier = f"ns_{names.name}"
        assert set(leftovers(urls, names.name)) == {
            f"connector {identifier}",
            f"kafka consumer group {identifier}.readers",
            f"kafka topic {identifier}.notes",
            f"kafka topic {identifier}.public.audit_context",
            f"kafka topic {identifier}.public.heartbeat",
            f"kafka topic {identifier}.public.sales",
            f"kafka topic {identifier}.transaction",
            f"kafka topic __debezium-heartbeat.{identifier}",
            f"mail to {names.mail_domain}",
            f"mongo database {identifier}",
            f"mongo users {identifier}",
            f"postgres database {identifier}",
            f"postgres slot {identifier}",
            f"rabbitmq vhost {identifier}",
            f"redis-cache key {identifier}:note",
            f"redis-state key {identifier}:note",
        }
        assert names.name in names_left(urls)
        names.drop()
        assert leftovers(urls, names.name) == []
        assert raw_traces(urls, names.name) == []
        names.drop()  # safe to repeat


def test_dropping_takes_all_of_one_and_nothing_of_another(urls: Urls) -> None:
    with Namespace.create(urls) as names, Namespace.create(urls) as other:
        fill(other)
        with redis.Redis.from_url(urls["SHOWCASE_REDIS_STATE_URL"], socket_timeout=WITHIN_S) as client:
            client.mset({f"{names.redis_prefix}{number}": number for number in range(5_000)})
            client.set(f"ns_{names.name}x:1", "a longer name")
            names.drop()
            try:
                assert leftovers(urls, names.name) == []
                assert client.get(f"ns_{names.name}x:1") == b"a longer name"
            finally:
                client.delete(f"ns_{names.name}x:1")
        assert seen(other) == all_of(other.name)


def test_dropping_ends_the_sessions_that_are_still_open(urls: Urls) -> None:
    names = Namespace.create(urls)
    broker = rabbitmq.connect(names.rabbitmq_url, WITHIN_S)
    with psycopg.connect(names.postgres_url) as db:
        db.execute("UPDATE heartbeat SET beat_at = now()")
        names.drop()
        assert leftovers(urls, names.name) == []
        with pytest.raises(psycopg.OperationalError):
            db.execute("SELECT 1")
    with pytest.raises(AMQPError):
        broker.process_data_events(time_limit=WITHIN_S)


def test_what_a_killed_process_made_is_found_and_dropped(urls: Urls) -> None:
    with other_process("hold", urls) as other:
        name = read(other)
        assert len(leftovers(urls, name)) >= 14
        other.kill()
        other.wait(WITHIN_S)
        assert name in names_left(urls)
        Namespace(urls, name).drop()
        assert leftovers(urls, name) == []
        assert raw_traces(urls, name) == []


def test_reset_drops_every_namespace_and_old_templates(breakable: Stack) -> None:
    urls = breakable.urls
    names = [Namespace.create(urls) for _ in range(3)]
    fill(names[0])
    with redis.Redis.from_url(urls["SHOWCASE_REDIS_STATE_URL"], socket_timeout=WITHIN_S) as client:
        client.set("ns_onlyakey:1", 1)
        client.set("nsother:1", 1)
    with psycopg.connect(urls["SHOWCASE_POSTGRES_URL"], autocommit=True) as db:
        db.execute("CREATE DATABASE showcase_template_old IS_TEMPLATE true ALLOW_CONNECTIONS false")
        assert reset(urls) == sorted(["onlyakey", *(one.name for one in names)])
        databases = {row[0] for row in db.execute("SELECT datname FROM pg_database").fetchall()}
    assert databases == {"postgres", "template0", "template1", template()}
    assert names_left(urls) == []
    assert reset(urls) == []
    with redis.Redis.from_url(urls["SHOWCASE_REDIS_STATE_URL"], socket_timeout=WITHIN_S) as client:
        assert client.keys() == [b"nsother:1"]
        client.delete("nsother:1")


# -- side by side


def test_twenty_namespaces_side_by_side_never_meet(urls: Urls) -> None:
    with Namespace.create(urls), ExitStack() as stack:
        others = [stack.enter_context(other_process("many", urls)) for _ in range(PROCESSES)]
        assert [read(other) for other in others] == ["ready"] * PROCESSES
        created = in_step(others, "create")
        each = [json.loads(line) for line in in_step(others, "fill and look")]
        found = {name: what for one in each for name, what in one.items()}
        assert len(found) == ALL_AT_ONCE
        assert found == {name: all_of(name) for name in found}
        dropped = in_step(others, "drop")
        print(f"{ALL_AT_ONCE} at once from {PROCESSES} processes: created in {max(map(float, created)):.2f} s,")
        print(f"dropped in {max(map(float, dropped)):.2f} s")
        assert set(names_left(urls)).isdisjoint(found)


def test_processes_that_start_at_once_make_the_template_once(fresh_postgres: Stack) -> None:
    urls = fresh_postgres.urls
    with psycopg.connect(urls["SHOWCASE_POSTGRES_URL"], autocommit=True) as db:
        db.execute("ALTER SYSTEM SET log_statement = 'ddl'")
        db.execute("SELECT pg_reload_conf()")
    with ExitStack() as stack:
        others = [stack.enter_context(other_process("many", urls)) for _ in range(PROCESSES)]
        assert [read(other) for other in others] == ["ready"] * PROCESSES
        in_step(others, "create")
        in_step(others, "drop")
    log = fresh_postgres.backend.logs("postgres", 1_000)
    assert log.count(f'CREATE DATABASE "{MAKING}"') == 1
    assert log.count('CREATE DATABASE "ns_') >= ALL_AT_ONCE


def test_a_template_whose_maker_was_killed_is_made_afresh(fresh_postgres: Stack) -> None:
    urls = fresh_postgres.urls
    with psycopg.connect(urls["SHOWCASE_POSTGRES_URL"], autocommit=True) as db:
        killed_while_making(urls, db)
        assert databases_like(db, "showcase_template_%") == [MAKING]
        assert reset(urls) == []
        assert databases_like(db, "showcase_template_%") == []

        killed_while_making(urls, db)
        with Namespace.create(urls) as names, psycopg.connect(names.postgres_url) as own:
            assert own.execute("SELECT count(*) FROM heartbeat").fetchone() == (1,)
        assert databases_like(db, "showcase_template_%") == [template()]


# -- change data capture


def test_capture_shows_who_a_row_was_and_keeps_the_password_out_of_sight(urls: Urls) -> None:
    with Namespace.create(urls) as names:
        make_sales(names)
        names.capture(["sales"])
        change_a_sale(names)
        change = next_change(names, "public.sales", "u")
        assert change["before"] == {"id": 1, "total": "1.50"}
        assert change["after"] == {"id": 1, "total": "2.75"}
        assert change["transaction"]["id"]
        _, password = credentials(url_of(urls, "SHOWCASE_POSTGRES_URL"))
        with connect.client(urls, WITHIN_S) as api:
            shown = api.get(f"/connectors/{names.connector}").text + api.get("/connectors?expand=info").text
        assert names.connector in shown
        assert password not in shown


def test_capture_again_captures_the_tables_now_named(urls: Urls) -> None:
    with Namespace.create(urls) as names:
        names.capture(config={"heartbeat.interval.ms": "100"})
        next_change(names, "public.heartbeat", "u")  # by its own beat: nobody else touches the row
        make_sales(names)
        names.capture(["sales"])
        change_a_sale(names)
        assert next_change(names, "public.sales", "u")["after"]["total"] == "2.75"


def test_capture_returns_only_when_rows_that_were_there_are_copied_and_the_log_is_read(urls: Urls) -> None:
    with Namespace.create(urls) as names:
        make_sales(names)
        slowly = "snapshot.select.statement.overrides"
        slow = {slowly: "public.sales", f"{slowly}.public.sales": "SELECT sales.* FROM sales, pg_sleep(3)"}
        names.capture(["sales"], slow)
        with psycopg.connect(names.postgres_url) as db:
            query = "SELECT r.state FROM pg_replication_slots JOIN pg_stat_replication r ON pid = active_pid"
            assert db.execute(f"{query} WHERE slot_name = %s", [names.connector]).fetchall() == [("streaming",)]


def test_a_connector_does_not_go_on_where_its_dropped_namesake_stopped(urls: Urls) -> None:
    with Namespace.create(urls) as names:
        names.capture()
        names.drop()
        with Namespace.create(urls, names.name) as namesake:
            make_sales(namesake)
            namesake.capture(["sales"])
            assert next_change(namesake, "public.sales", "r")["after"] == {"id": 1, "total": "1.50"}


def test_a_connector_that_fails_says_why_at_once(urls: Urls) -> None:
    with Namespace.create(urls) as names:
        with pytest.raises(StackError, match=r"no table public\.nothing") as missing:
            names.capture(["nothing"])
        assert "public.heartbeat" in missing.value.remedy
        with pytest.raises(StackError, match="Publication autocreation is disabled") as failure:
            names.capture(config={"publication.autocreate.mode": "disabled"})
        assert "logs connect" in failure.value.remedy
        with pytest.raises(StackError, match=r'database "nowhere" does not exist'):
            names.capture(config={"database.dbname": "nowhere"})
        names.capture()  # and a good config mends it


# -- servers that do not answer


@pytest.mark.parametrize("server", SERVERS)
def test_with_a_server_paused_all_else_is_dropped_in_time_and_the_rest_later(breakable: Stack, server: str) -> None:
    urls = breakable.urls
    names = Namespace.create(urls)
    fill(names)
    if server == "connect":
        names.capture()
    impatient = Namespace(urls, names.name, within_s=PAUSED_WITHIN_S)
    with paused(breakable, server):
        started = time.perf_counter()
        with pytest.raises(StackError, match=f"not wholly dropped: {server}: "):
            impatient.drop()
        assert time.perf_counter() - started < PAUSED_WITHIN_S + 3
    kind = "connector" if server == "connect" else server
    assert {trace.split()[0] for trace in leftovers(urls, names.name)} == {kind}
    names.drop()
    assert leftovers(urls, names.name) == []


@pytest.mark.parametrize("server", ["postgres", "rabbitmq"])
def test_with_a_server_paused_nothing_half_made_stays(breakable: Stack, server: str) -> None:
    with paused(breakable, server):
        started = time.perf_counter()
        with pytest.raises(StackError, match=server):
            Namespace.create(breakable.urls, within_s=PAUSED_WITHIN_S)
        assert time.perf_counter() - started < PAUSED_WITHIN_S + 3
    # What the paused server had in its ears it may still do when it wakes: nothing else is there.
    assert {trace.split()[0] for name in names_left(breakable.urls) for trace in leftovers(breakable.urls, name)} <= {
        server
    }
    reset(breakable.urls)


def test_a_server_paused_in_the_middle_of_a_session_is_not_waited_for(breakable: Stack) -> None:
    started = time.perf_counter()
    with (
        pytest.raises(StackError, match="no answer within 1 s"),
        session(breakable.urls["SHOWCASE_POSTGRES_URL"], 1) as db,
        paused(breakable, "postgres"),
    ):
        db.execute("SELECT 1")
    assert time.perf_counter() - started < 4


def test_what_went_wrong_first_is_what_is_raised(breakable: Stack) -> None:
    names = Namespace.create(breakable.urls, within_s=PAUSED_WITHIN_S)
    with paused(breakable, "redis-state"), pytest.raises(ZeroDivisionError) as failure, names:
        raise ZeroDivisionError
    assert "redis-state" in failure.value.__notes__[0]
    names.drop()


# -- something in every system


def fill(names: Namespace) -> None:
    """Put a note that holds the namespace's name into every system, in places that all namespaces share."""
    with psycopg.connect(names.postgres_url) as db:
        db.execute("CREATE TABLE note (text text)")
        db.execute("INSERT INTO note VALUES (%s)", [names.name])
    with mongo.client(names.mongo_url, WITHIN_S) as client:
        client[names.mongo_database].note.insert_one({"_id": 1, "text": names.name})
    for variable in REDIS:
        with redis.Redis.from_url(names.urls[variable], socket_timeout=WITHIN_S) as cache:
            cache.set(f"{names.redis_prefix}note", names.name)
    broker = rabbitmq.connect(names.rabbitmq_url, WITHIN_S)
    channel = broker.channel()
    channel.confirm_delivery()
    channel.queue_declare("notes", durable=True)
    channel.basic_publish("", "notes", names.name.encode())
    broker.close()
    admin = AdminClient(client_config(names.urls))
    admin.create_topics([NewTopic(f"{names.topic_prefix}notes", 1)])[f"{names.topic_prefix}notes"].result(WITHIN_S)
    producer = Producer(client_config(names.urls))
    producer.produce(f"{names.topic_prefix}notes", names.name)
    assert producer.flush(WITHIN_S) == 0
    post = url_of(names.urls, "SHOWCASE_MAIL_URL")
    with smtplib.SMTP(post.hostname or "", post.port or 0, timeout=WITHIN_S) as smtp:
        smtp.login(*credentials(post))
        someone = f"someone@{names.mail_domain}"
        smtp.sendmail("shop@shop.invalid", [someone], f"To: {someone}\r\nSubject: {names.name}\r\n\r\nHello")


def seen(names: Namespace) -> dict[str, list[str]]:
    """All the notes to be seen in a namespace."""
    with psycopg.connect(names.postgres_url) as db:
        notes = {"postgres": [str(row[0]) for row in db.execute("SELECT text FROM note").fetchall()]}
    with mongo.client(names.mongo_url, WITHIN_S) as client:
        notes["mongo"] = [str(note["text"]) for note in client.get_default_database().note.find()]
    for variable in REDIS:
        with redis.Redis.from_url(names.urls[variable], socket_timeout=WITHIN_S, decode_responses=True) as cache:
            notes[variable] = [str(cache.get(key)) for key in cache.scan_iter(f"{names.redis_prefix}*")]
    broker = rabbitmq.connect(names.rabbitmq_url, WITHIN_S)
    _, _, body = broker.channel().basic_get("notes")  # not acknowledged: it goes back
    broker.close()
    notes["rabbitmq"] = [body.decode()] if body else []
    notes["kafka"] = [str(message.decode()) for message in consume(names, "notes", lambda _: True)]
    with mail.client(names.urls, WITHIN_S) as api:
        messages = api.get("/api/v1/messages", params={"limit": 500}).raise_for_status().json()["messages"]
    to = [(message["Subject"], address["Address"]) for message in messages for address in message["To"]]
    notes["mail"] = [subject for subject, address in to if address.endswith(f"@{names.mail_domain}")]
    return notes


def all_of(name: str) -> dict[str, list[str]]:
    """What is to be seen in a namespace that was filled: its own note, once in each system."""
    return {system: [name] for system in ("postgres", "mongo", *REDIS, "rabbitmq", "kafka", "mail")}


def consume(names: Namespace, topic: str, wanted: Callable[[bytes], bool]) -> list[bytes]:
    """What a topic holds from its start to the first message that is wanted."""
    consumer = Consumer(
        client_config(names.urls)
        | {
            "group.id": f"{names.topic_prefix}readers",
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "session.timeout.ms": 2_000,
            "fetch.wait.max.ms": 10,
        }
    )
    messages: list[bytes] = []
    consumer.subscribe([names.topic_prefix + topic])
    deadline = time.monotonic() + WITHIN_S
    try:
        while not messages or not wanted(messages[-1]):
            assert time.monotonic() < deadline, f"nothing of the kind in {topic}: {messages}"
            message = consumer.poll(0.1)
            if message is not None and (error := message.error()):
                assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART, error
            elif message is not None and (value := message.value()) is not None:
                messages.append(value)
    finally:
        consumer.close()
    return messages


def make_sales(names: Namespace) -> None:
    with psycopg.connect(names.postgres_url) as db:
        db.execute("CREATE TABLE sales (id int PRIMARY KEY, total numeric(9, 2) NOT NULL)")
        db.execute("ALTER TABLE sales REPLICA IDENTITY FULL")
        db.execute("INSERT INTO sales VALUES (1, 1.5)")


def change_a_sale(names: Namespace) -> None:
    with psycopg.connect(names.postgres_url) as db:
        db.execute("UPDATE sales SET total = 2.75 WHERE id = 1")


def next_change(names: Namespace, table: str, operation: str) -> dict[str, Any]:
    """The first change of a kind (`u`: an update) that Debezium tells of a table."""
    messages = consume(names, table, lambda value: json.loads(value)["op"] == operation)
    change: dict[str, Any] = json.loads(messages[-1])
    return change


def raw_traces(urls: Urls, name: str) -> list[str]:
    """Whatever a server lists that has the name in it, asked without the code under test."""
    with psycopg.connect(urls["SHOWCASE_POSTGRES_URL"]) as db:
        found = [
            str(row[0])
            for query in ("SELECT datname FROM pg_database", "SELECT slot_name FROM pg_replication_slots")
            for row in db.execute(query).fetchall()
        ]
    with mongo.client(urls["SHOWCASE_MONGO_URL"], WITHIN_S) as client:
        found += client.list_database_names()
    for variable in REDIS:
        with redis.Redis.from_url(urls[variable], socket_timeout=WITHIN_S, decode_responses=True) as cache:
            found += cache.keys()
    api = url_of(urls, "SHOWCASE_RABBITMQ_API_URL")
    address = f"http://{api.hostname}:{api.port}/api/vhosts"
    found += [vhost["name"] for vhost in httpx.get(address, auth=credentials(api)).json()]
    admin = AdminClient(client_config(urls))
    found += admin.list_topics(timeout=WITHIN_S).topics
    found += [group.group_id for group in admin.list_consumer_groups().result(WITHIN_S).valid]
    with connect.client(urls, WITHIN_S) as client:
        found += client.get("/connectors").json()
    with mail.client(urls, WITHIN_S) as client:
        found += [str(message["To"]) for message in client.get("/api/v1/messages?limit=500").json()["messages"]]
    return [one for one in found if name in one]


def databases_like(db: psycopg.Connection, pattern: str) -> list[str]:
    return [str(row[0]) for row in db.execute("SELECT datname FROM pg_database WHERE datname LIKE %s", [pattern])]


# -- other processes


@contextmanager
def paused(stack: Stack, server: str) -> Iterator[None]:
    stack.server(server).pause()
    try:
        yield
    finally:
        stack.server(server).resume()
        until(lambda: names_left(stack.urls) is not None)


def until(done: Callable[[], bool]) -> None:
    """Wait until something is so, taking a server that does not answer for a no."""
    deadline = time.monotonic() + WITHIN_S
    while True:
        try:
            if done():
                return
        except StackError:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline
        time.sleep(0.002)


def killed_while_making(urls: Urls, db: psycopg.Connection) -> None:
    """SIGKILL a process in the middle of making the template."""
    with other_process("many", urls) as other:
        assert read(other) == "ready"
        write(other, "create")
        until(lambda: MAKING in databases_like(db, MAKING))
        other.send_signal(signal.SIGSTOP)
        assert databases_like(db, template()) == []  # stopped before it was done
        other.kill()
        other.wait(WITHIN_S)


@contextmanager
def other_process(role: str, urls: Urls) -> Iterator[subprocess.Popen[str]]:
    """This file as a program: see `hold` and `many`."""
    with subprocess.Popen(
        [sys.executable, HERE, role],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
        env={**os.environ, **urls},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "the other process ended"
    return line.strip()


def write(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def in_step(processes: list[subprocess.Popen[str]], step: str) -> list[str]:
    """Let processes that wait for it take a step, all at once, and collect what they say."""
    for process in processes:
        write(process, step)
    return [read(process) for process in processes]


def hold(urls: Urls) -> None:
    """Make and fill a namespace, capture its changes, consume, say its name, and wait to be killed."""
    names = Namespace.create(urls)
    fill(names)
    make_sales(names)
    names.capture(["sales"])
    consumer = Consumer(client_config(urls) | {"group.id": f"{names.topic_prefix}readers", "session.timeout.ms": 2_000})
    consumer.subscribe([f"{names.topic_prefix}notes"])
    while not consumer.assignment():
        consumer.poll(0.1)
    print(names.name, flush=True)
    sys.stdin.read()


def many(urls: Urls) -> None:
    """Make some namespaces at once, fill and read them, drop them: a step for each line on stdin."""
    with ThreadPoolExecutor(ALL_AT_ONCE // PROCESSES) as pool:

        def timed(call: Callable[[int], object]) -> float:
            started = time.perf_counter()
            list(pool.map(call, range(ALL_AT_ONCE // PROCESSES)))
            return time.perf_counter() - started

        made: list[Namespace] = []
        print("ready", flush=True)
        sys.stdin.readline()
        print(timed(lambda _: made.append(Namespace.create(urls))), flush=True)
        if sys.stdin.readline().strip() == "fill and look":
            list(pool.map(fill, made))
            print(json.dumps({names.name: found for names, found in zip(made, pool.map(seen, made), strict=True)}))
            sys.stdout.flush()
            sys.stdin.readline()
        print(timed(lambda index: made[index].drop()), flush=True)


if __name__ == "__main__":
    given = {name: value for name, value in os.environ.items() if name.startswith("SHOWCASE_") and "URL" in name}
    {"hold": hold, "many": many}[sys.argv[1]](given)
