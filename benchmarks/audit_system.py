"""What the audit is measured on: a topic full of envelopes as Debezium writes them, and who reads it, as processes.

Run as a program (`python -m benchmarks.audit_system TOPIC…`) it is the bare loop: it takes what comes, parses it,
stores it and commits, and does nothing else.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from uuid import UUID

import psutil
import psycopg
from confluent_kafka import Consumer, KafkaException, Producer
from pymongo import MongoClient
from pymongo.database import Database

from showcase.audit.infrastructure.records import RECORDS, SEALS
from showcase.platform.kafka import client_config
from workshop.stack.namespace import Namespace

SERVERS = ("postgres", "kafka", "connect", "mongo")
TABLES = ("public.audit_context", "public.orders", "public.order_lines")
BARE = "bare"
"""The collection of the bare loop: it has no index but that of ids."""
AT_ONCE = 1_000
LINES = 9
"""Of an order, as the real ones have (9.4)."""
HOUSEHOLDS = 2_469
LSN_STEP = 1_000
"""From an order to the next, in the database's log."""
READY_WITHIN_S = 60.0
FLUSHED_WITHIN_S = 30.0
END_WITHIN_S = 20.0
STALLED_AFTER_S = 60.0
LOOK_S = 0.02
TELL = "SELECT set_config('audit.context', %s, true)"
AUDIT = ("-m", "showcase", "worker", "audit")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Envelope:
    """A message of Debezium, taken apart."""

    topic: str
    key: Document
    value: Document
    headers: Sequence[tuple[str, bytes]]


def environment(names: Namespace) -> dict[str, str]:
    """That of a process of the system, with no setting of whoever runs the benchmark."""
    bare = {name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")}
    return {**bare, **names.env, "SHOWCASE_ENVIRONMENT": "workshop"}


def capture(names: Namespace) -> None:
    """Capture all audited tables, by the command that an operator types. Raises CalledProcessError, TimeoutExpired."""
    command = [sys.executable, "-m", "showcase", "audit", "connectors", "apply"]
    subprocess.run(command, env=environment(names), check=True, timeout=120, capture_output=True)


def topics(names: Namespace) -> list[str]:
    return [f"{names.topic_prefix}{table}" for table in TABLES]


def place_orders(db: "psycopg.Connection[tuple[Any, ...]]", count: int) -> list[UUID]:
    """Orders of as many households, each in a transaction of its own; paid ones, in another one each."""
    db.execute("INSERT INTO households SELECT generate_series(1, %s) ON CONFLICT DO NOTHING", (count,))
    db.execute("INSERT INTO products (product_id) SELECT generate_series(1, %s) ON CONFLICT DO NOTHING", (LINES,))
    ids: list[UUID] = []
    for household in range(1, count + 1):
        who = json.dumps({"actor": f"households/{household}", "request_id": f"r-{household}", "reason": "benchmark"})
        with db.transaction():
            db.execute(TELL, (who,))
            row = db.execute(
                "INSERT INTO orders VALUES (gen_random_uuid(), %s, %s, 'placed', 1, %s, 2500, now())"
                " RETURNING order_id",
                (household, f"basket-{household}", LINES),
            ).fetchone()
            assert row is not None
            lines = "INSERT INTO order_lines SELECT %s, line, line, 1, 250 FROM generate_series(1, %s) AS line"
            db.execute(lines, (row[0], LINES))
        with db.transaction():
            db.execute(TELL, (who,))
            db.execute("UPDATE orders SET status = 'paid', version = 2 WHERE order_id = %s", (row[0],))
        ids.append(row[0])
    return ids


PER_ORDER = LINES + 4
"""Changes: the order and its lines, that it is paid, and who did each."""


def captured(names: Namespace, count: int) -> list[Envelope]:
    """So many messages that Debezium has written, in the order of the database's log. Raises TimeoutError."""
    consumer = Consumer(
        client_config(names.env["SHOWCASE_KAFKA_URL"])
        | {"group.id": f"{names.topic_prefix}look", "auto.offset.reset": "earliest", "enable.auto.commit": False}
    )
    consumer.subscribe(topics(names))
    found: list[Envelope] = []
    deadline = time.monotonic() + STALLED_AFTER_S
    try:
        while len(found) < count:
            if time.monotonic() > deadline:
                raise TimeoutError(f"Debezium has told {len(found)} of {count} changes")
            found += [_envelope(one) for one in consumer.consume(AT_ONCE, 0.2) if not one.error() and one.value()]
    finally:
        consumer.close()
    return sorted(found, key=lambda one: (one.value["source"]["lsn"], one.topic))


def _envelope(message: Any) -> Envelope:
    key, value = json.loads(message.key()), json.loads(message.value())
    return Envelope(message.topic(), key, value, message.headers() or ())


def varied(history: Sequence[Envelope], number: int) -> Iterator[Envelope]:
    """What an order went through, as if another one had: it has other ids, another household and place in the log."""
    order_id, household = str(UUID(int=0x0199_0000_0000_7000_8000_0000_0000_0000 + number)), number % HOUSEHOLDS + 1
    first = history[0].value["source"]
    for step, one in enumerate(history):
        source = one.value["source"]
        new = {
            "order_id": order_id,
            "household_id": household,
            "actor": f"households/{household}",
            "request_id": f"r-{number}",
            "reference": f"basket-{number}",
            "transaction_id": source["txId"] + 2 * number,
            "context_id": 1_000_000 + number * len(history) + step,
        }
        lsn = source["lsn"] - first["lsn"] + (number + 1_000_000) * LSN_STEP * len(history)
        value = {
            **one.value,
            "before": _changed(one.value["before"], new),
            "after": _changed(one.value["after"], new),
            "source": {**source, "lsn": lsn, "txId": source["txId"] + 2 * number},
        }
        yield Envelope(one.topic, _changed(one.key, new) or {}, value, one.headers)


def _changed(row: Document | None, new: Document) -> Document | None:
    return row and {name: new.get(name, value) for name, value in row.items()}


def fill(names: Namespace, history: Sequence[Envelope], numbers: range) -> int:
    """Write what so many orders went through into the topics, from where Debezium's own messages end.

    Returns how many messages. Raises RuntimeError when Kafka does not take them.
    """
    producer = Producer(
        client_config(names.env["SHOWCASE_KAFKA_URL"])
        | {"acks": "all", "enable.idempotence": True, "linger.ms": 50, "partitioner": "murmur2_random"}
    )
    failed: list[object] = []
    written = 0

    def delivered(error: object, _: object) -> None:
        if error is not None:
            failed.append(error)

    for number in numbers:
        for one in varied(history, number):
            key, value = (json.dumps(it, separators=(",", ":")).encode() for it in (one.key, one.value))
            message: dict[str, Any] = {
                "key": key,
                "value": value,
                "headers": list(one.headers),
                "on_delivery": delivered,
            }
            try:
                producer.produce(one.topic, **message)
            except BufferError:  # its queue is full
                producer.flush(FLUSHED_WITHIN_S)
                producer.produce(one.topic, **message)
            written += 1
        producer.poll(0)
    if producer.flush(FLUSHED_WITHIN_S) or failed:
        raise RuntimeError(f"kafka does not take the messages: {failed[:1]}")
    return written


class Bench:
    """The store of a namespace, and how far somebody has got with filling it."""

    def __init__(self, names: Namespace) -> None:
        self.names = names
        self.client: MongoClient[Document] = MongoClient(names.mongo_url, serverSelectionTimeoutMS=10_000)
        self.database: Database[Document] = self.client.get_default_database()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()

    def empty(self) -> None:
        """Have no records, no seals, and nothing of the bare loop."""
        for name in (RECORDS.name, SEALS.name, BARE):
            self.database.drop_collection(name)

    def count(self, collection: str) -> int:
        return self.database[collection].estimated_document_count()

    def sealed(self) -> int:
        """Records in seals."""
        found = self.database[SEALS.name].aggregate([{"$group": {"_id": None, "all": {"$sum": {"$size": "$ids"}}}}])
        return sum(one["all"] for one in found)


@contextmanager
def started(names: Namespace, folder: Path, *arguments: str, **settings: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Python on something that says in its log when it is `"ready"`, once it is. It has ended when the block is over.

    Args:
        folder: for its log.

    Raises RuntimeError, with the end of its log, when it does not get there.
    """
    log = folder / "process.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, *arguments],
            env={**environment(names), **settings},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait(lambda: b'"ready"' in log.read_bytes() or popen.poll() is not None, READY_WITHIN_S, log.read_text)
        if popen.poll() is not None:
            raise RuntimeError(f"it has ended: {log.read_text(errors='replace')[-2_000:]}")
        yield popen
    finally:
        popen.terminate()
        try:
            popen.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def wait(is_so: Callable[[], bool], within_s: float, why: Callable[[], object] = lambda: "") -> None:
    """Raises TimeoutError when it does not become so."""
    deadline = time.monotonic() + within_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {within_s:.0f} s: {str(why())[-2_000:]}")
        time.sleep(LOOK_S)


def processor_s(pid: int) -> float:
    """What a process has used of all cores."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@dataclass(frozen=True, slots=True)
class Taken:
    """What a turn came to.

    Attributes:
        rate: records a second.
        shares: of one core, by whose process.
    """

    rate: float
    shares: Mapping[str, float]


def taken(bench: Bench, folder: Path, servers: Mapping[str, int], count: int, collection: str) -> Taken:
    """One turn: from when the consumer has its partitions to when the last record is in the store.

    Args:
        servers: the processes that are looked at, by name.
        collection: that of the audit's records, or `BARE`.

    Raises RuntimeError, TimeoutError when it does not get there.
    """
    bench.empty()
    bare = ("-m", "benchmarks.audit_system", *topics(bench.names))
    arguments = bare if collection == BARE else AUDIT
    with started(bench.names, folder, *arguments) as popen:
        pids = {"consumer": popen.pid, **servers}
        began, before = time.perf_counter(), {name: processor_s(pid) for name, pid in pids.items()}
        wait(lambda: bench.count(collection) >= count, STALLED_AFTER_S, lambda: bench.count(collection))
        took_s = time.perf_counter() - began
        shares = {name: (processor_s(pid) - before[name]) / took_s for name, pid in pids.items()}
        if collection != BARE:
            wait(lambda: bench.sealed() >= count, STALLED_AFTER_S, bench.sealed)
    if (there := bench.database[collection].count_documents({})) != count:
        raise RuntimeError(f"{there:,} records of {count:,} messages")
    return Taken(count / took_s, shares)


def main() -> None:
    """Be the bare loop, until told to stop."""

    def assigned(*_: object) -> None:
        print(json.dumps({"event": "ready"}), flush=True)

    settings = os.environ
    consumer = Consumer(
        client_config(settings["SHOWCASE_KAFKA_URL"])
        | {
            "group.id": f"{settings['SHOWCASE_TOPIC_PREFIX']}bare-{datetime.now(UTC):%H%M%S%f}",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "session.timeout.ms": 6_000,  # its group goes with the namespace, and it is killed
            "fetch.wait.max.ms": 10,
        }
    )
    client: MongoClient[Document] = MongoClient(settings["SHOWCASE_MONGO_URL"], timeoutMS=30_000)
    collection = client.get_default_database()[BARE]
    consumer.subscribe(sys.argv[1:], on_assign=assigned)
    while True:
        messages = consumer.consume(AT_ONCE, 0.2)
        if broken := [one.error() for one in messages if one.error()]:
            raise KafkaException(broken[0])
        if messages:
            collection.insert_many([json.loads(one.value() or b"null") for one in messages], ordered=False)
            consumer.commit(asynchronous=False)


if __name__ == "__main__":
    main()
