"""The doctor: this machine, what is installed, and a real round trip through every server.

Each check is on its own: one that fails says what to try, and the others still run.
"""

import os
import platform
import smtplib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from email.message import EmailMessage
from typing import Any

import httpx
import psutil

from workshop.stack.local.backend import LocalBackend
from workshop.stack.model import CURES, URL_VARIABLES, Backend, NotReady, Phase, StackError, Urls, credentials, url_of

DEADLINE_S = 15.0
LEAST_MEMORY_BYTES = 1024**3
OLDEST_PYTHON = (3, 11)


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the doctor's table."""

    what: str
    ok: bool
    seen: str
    remedy: str = ""


def examine(backend: Backend) -> Iterator[Finding]:
    """Check everything, one finding after the other."""
    yield from machine()
    if isinstance(backend, LocalBackend):
        yield disk(backend)
        yield from packages()
    yield from servers(backend)


def machine() -> Iterator[Finding]:
    """Python and memory."""
    enough = sys.version_info >= OLDEST_PYTHON
    yield Finding("python", enough, platform.python_version(), "" if enough else "install Python 3.11 or later")
    available = psutil.virtual_memory().available
    yield Finding(
        "memory",
        available >= LEAST_MEMORY_BYTES,
        f"{available / 2**30:.1f} GiB available on {os.cpu_count()} cores",
        "" if available >= LEAST_MEMORY_BYTES else "the servers take about 700 MiB: close something large",
    )


def disk(backend: LocalBackend) -> Finding:
    """Room where the servers keep their data."""
    from workshop.stack.local.supervisor import FREE_SPACE, LEAST_FREE_BYTES, free_bytes

    free = free_bytes(backend.folder.path)
    enough = free >= LEAST_FREE_BYTES
    remedy = "" if enough else FREE_SPACE
    return Finding("disk", enough, f"{free / 2**30:.1f} GiB free", remedy)


def packages() -> Iterator[Finding]:
    """Whether all that the local servers need is installed."""
    from workshop.stack.local.catalogue import SERVERS_BY_NAME

    for name, server in SERVERS_BY_NAME.items():
        try:
            yield Finding(f"{name} installed", True, server.find())
        except StackError as error:
            yield Finding(f"{name} installed", False, error.what, error.remedy)


def servers(backend: Backend) -> Iterator[Finding]:
    """State and round trip of every server."""
    try:
        urls = backend.urls()
        found = {status.name: status for status in backend.status()}
    except StackError as error:
        yield Finding("stack", False, error.what, error.remedy)
        return
    for name, trip in TRIPS.items():
        if name not in found:
            continue
        status = found[name]
        if waits := [other for other in NEEDS.get(name, ()) if other in found and found[other].phase != Phase.READY]:
            yield Finding(name, False, f"needs {' and '.join(waits)}", "that first")
            continue
        if status.phase != Phase.READY:
            how = CURES.get(status.phase, "restart")
            seen = f"{status.phase}{': ' if status.detail else ''}{status.detail}"
            yield Finding(name, False, seen, f"`workshop {how} {name}`")
            continue
        yield attempt(name, status.version, trip, urls)


def attempt(name: str, version: str, trip: "Trip", urls: Urls) -> Finding:
    """Make one round trip and tell how it went."""
    began = time.perf_counter()
    try:
        seen = trip(urls)
    except StackError as error:
        return Finding(name, False, error.what, error.remedy or f"`workshop logs {name}`")
    except driver_errors() as error:
        seen = f"{type(error).__name__}: {error}".splitlines()[0]
        return Finding(name, False, seen, f"`workshop logs {name}`, then `workshop restart {name}`")
    return Finding(name, True, f"{version}: {seen} in {(time.perf_counter() - began) * 1000:.0f} ms")


# -- the round trips: each in a namespace of its own, which is gone at its end

Trip = Callable[[Urls], str]


def only(urls: Urls, *names: str) -> dict[str, str]:
    """The URLs of some servers, so that a namespace touches no other."""
    return {variable: urls[variable] for name in names for variable in URL_VARIABLES[name]}


def postgres(urls: Urls) -> str:
    """A committed transaction, read back by another session."""
    from workshop.stack.namespace import Namespace
    from workshop.stack.namespace.postgres import session

    with Namespace.create(only(urls, "postgres")) as names:
        with session(names.postgres_url, DEADLINE_S, autocommit=False) as db:
            db.execute("CREATE TABLE trip (id int PRIMARY KEY, note text NOT NULL)")
            db.execute("INSERT INTO trip VALUES (1, 'there')")
        with session(names.postgres_url, DEADLINE_S) as db:
            row = db.execute("SELECT note FROM trip WHERE id = 1").fetchone()
    expect(row == ("there",), f"committed 'there', read {row}")
    return "a transaction"


def mongo(urls: Urls) -> str:
    """A transaction over two documents in two collections."""
    from workshop.stack.local.mongo import client
    from workshop.stack.namespace import Namespace

    with Namespace.create(only(urls, "mongo")) as names, client(names.mongo_url, DEADLINE_S) as connection:
        database = connection[names.mongo_database]
        database.create_collection("there")
        database.create_collection("back")

        def both(session: Any) -> None:
            database["there"].insert_one({"_id": 1}, session=session)
            database["back"].insert_one({"_id": 1}, session=session)

        with connection.start_session() as session:
            session.with_transaction(both)
        count = database["there"].count_documents({}) + database["back"].count_documents({})
    expect(count == 2, f"committed 2 documents, found {count}")
    return "a multi-document transaction"


def redis_cache(urls: Urls) -> str:
    """A value that expires."""
    with redis_client(urls["SHOWCASE_REDIS_CACHE_URL"]) as connection:
        key = f"doctor:{os.getpid()}:{time.time_ns()}"
        connection.set(key, b"there", ex=10)
        value = connection.getdel(key)
    expect(value == b"there", f"set 'there', got {value!r}")
    return "a value with a time to live"


def redis_state(urls: Urls) -> str:
    """An entry in a stream, read back."""
    with redis_client(urls["SHOWCASE_REDIS_STATE_URL"]) as connection:
        stream = f"doctor:{os.getpid()}:{time.time_ns()}"
        connection.xadd(stream, {"note": "there"}, maxlen=10)
        entries = connection.xrange(stream)
        connection.delete(stream)
    expect([entry[1] for entry in entries] == [{b"note": b"there"}], f"one entry added, read {entries}")
    return "a stream entry"


def rabbitmq(urls: Urls) -> str:
    """A confirmed, mandatory publish to a quorum queue and its delivery."""
    import pika

    from workshop.stack.local.rabbitmq import connect
    from workshop.stack.namespace import Namespace

    with (
        Namespace.create(only(urls, "rabbitmq")) as names,
        closing(connect(names.rabbitmq_url, DEADLINE_S)) as connection,
    ):
        channel = connection.channel()
        channel.confirm_delivery()
        channel.queue_declare("trip", durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", "trip", b"there", pika.BasicProperties(delivery_mode=2), mandatory=True)
        method, _, body = next(channel.consume("trip", inactivity_timeout=DEADLINE_S))
        expect(method is not None, f"a confirmed message was not delivered in {DEADLINE_S:.0f} s")
        channel.basic_ack(method.delivery_tag)
    expect(body == b"there", f"published b'there', was delivered {body!r}")
    return "a confirmed publish and its delivery"


def kafka(urls: Urls) -> str:
    """A record produced with all acknowledgements and consumed."""
    from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient
    from confluent_kafka.cimpl import NewTopic

    from workshop.stack.local.kafka import client_config
    from workshop.stack.namespace import Namespace

    config = client_config(urls)
    with Namespace.create(only(urls, "kafka")) as names:
        topic = f"{names.topic_prefix}trip"
        admin = AdminClient(config)  # named, since its end would end what it is asked to do
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(DEADLINE_S)
        producer = Producer(config | {"acks": "all", "linger.ms": 0})
        producer.produce(topic, b"there")
        expect(producer.flush(DEADLINE_S) == 0, "the record was not acknowledged")
        consumer = Consumer(config | {"group.id": f"{names.topic_prefix}doctor", "fetch.wait.max.ms": 10})
        with closing(consumer):
            consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
            record = consumer.poll(DEADLINE_S)
    expect(record is not None and record.value() == b"there", "the record was not delivered")
    return "a record produced and consumed"


def connect(urls: Urls) -> str:
    """A change of a row, seen on Kafka: commit to consumer in milliseconds."""
    from confluent_kafka import OFFSET_END, Consumer, TopicPartition

    from workshop.stack.local.kafka import client_config
    from workshop.stack.namespace import Namespace
    from workshop.stack.namespace.postgres import session

    config = client_config(urls)
    with Namespace.create(only(urls, "postgres", "kafka", "connect")) as names:
        names.capture(["public.heartbeat"])
        consumer = Consumer(
            config
            | {
                "group.id": f"{names.topic_prefix}doctor",
                "isolation.level": "read_committed",
                "fetch.wait.max.ms": 10,
            }
        )
        with closing(consumer):
            consumer.assign([TopicPartition(f"{names.topic_prefix}public.heartbeat", 0, OFFSET_END)])
            consumer.poll(0.5)  # the position is fixed by the first poll
            latencies = []
            with session(names.postgres_url, DEADLINE_S) as db:
                for _ in range(5):
                    db.execute("UPDATE heartbeat SET beat_at = clock_timestamp()")
                    committed = time.perf_counter()
                    record = consumer.poll(DEADLINE_S)
                    expect(record is not None and record.error() is None, "the change did not reach Kafka")
                    latencies.append(time.perf_counter() - committed)
    return f"a change of a row seen on Kafka after {sorted(latencies)[2] * 1000:.0f} ms (median of 5), with set-up"


def mail(urls: Urls) -> str:
    """A mail sent by SMTP and read back."""
    from workshop.stack.local.mail import client

    smtp = url_of(urls, "SHOWCASE_MAIL_URL")
    message = EmailMessage()
    message["From"], message["To"] = "doctor@workshop.test", "patient@workshop.test"
    message["Subject"] = f"round trip {time.time_ns()}"
    message.set_content("there")
    with smtplib.SMTP(smtp.hostname or "", smtp.port or 25, timeout=DEADLINE_S) as session:
        session.login(*credentials(smtp))
        session.send_message(message)
    with client(urls, DEADLINE_S) as reader:
        found = reader.get("/api/v1/messages").raise_for_status().json()["messages"]
        mine = [one["ID"] for one in found if one["Subject"] == message["Subject"]]
        reader.request("DELETE", "/api/v1/messages", json={"IDs": mine}).raise_for_status()
    expect(len(mine) == 1, f"sent 1 mail, found {len(mine)}")
    return "a mail sent and read back"


NEEDS = {"connect": ("postgres", "kafka")}
TRIPS: Mapping[str, Trip] = {  # Connect last of those it needs
    "postgres": postgres,
    "mongo": mongo,
    "redis-cache": redis_cache,
    "redis-state": redis_state,
    "rabbitmq": rabbitmq,
    "kafka": kafka,
    "connect": connect,
    "mail": mail,
}


def redis_client(url: str) -> Any:
    """A Redis client none of whose calls outlasts the deadline."""
    import redis

    return redis.Redis.from_url(url, socket_timeout=DEADLINE_S, socket_connect_timeout=DEADLINE_S)


def expect(holds: bool, otherwise: str) -> None:
    """Raises StackError unless what a round trip needs holds."""
    if not holds:
        raise StackError(otherwise)


def driver_errors() -> tuple[type[Exception], ...]:
    """The errors by which the drivers say that a server did not do what was asked."""
    import psycopg
    import redis
    from confluent_kafka import KafkaException
    from pika.exceptions import AMQPError
    from pymongo.errors import PyMongoError

    drivers = (psycopg.Error, redis.RedisError, KafkaException, AMQPError, PyMongoError, httpx.HTTPError)
    return (OSError, NotReady, *drivers)
