"""A look into each server, now, as a pandas frame. Nothing here goes through the system that is looked at."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pika
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from pika.adapters.blocking_connection import BlockingChannel

from showcase.composition import QUEUES
from showcase.messaging.domain import ATTRIBUTE, EVENTS, PARKING
from showcase.platform.kafka import client_config
from workshop.stack import StackError
from workshop.stack.local.mail import client
from workshop.stack.model import Urls
from workshop.stack.namespace.mail import messages
from workshop.stack.namespace.postgres import session

WITHIN_S = 15.0
TAP_KEPT_MS = 600_000


def sql(url: str, query: str, names: dict[str, object]) -> pd.DataFrame:
    """What a query finds in PostgreSQL; `%(name)s` stands for a value."""
    with session(url, WITHIN_S) as db:
        cursor = db.execute(query.encode(), names or None)
        if cursor.description is None:
            return pd.DataFrame({"rows": [cursor.rowcount]})
        return pd.DataFrame(cursor.fetchall(), columns=[column.name for column in cursor.description])


def mails(urls: Urls, address: str) -> list[str]:
    """The text of every letter to an address, the oldest first."""
    with client(urls, WITHIN_S) as api:
        found = [
            message
            for message in messages(api)
            if address.lower() in {one["Address"].lower() for one in message["To"] or ()}
        ]
        return [  # they come with the newest first
            str(api.get(f"/api/v1/message/{one['ID']}").raise_for_status().json()["Text"]) for one in reversed(found)
        ]


@contextmanager
def amqp(url: str) -> Iterator[BlockingChannel]:
    """A channel to RabbitMQ for one short look."""
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = WITHIN_S
    connection = pika.BlockingConnection(parameters)
    try:
        yield connection.channel()
    finally:
        connection.close()


def queues(url: str) -> pd.DataFrame:
    """Each queue: how many messages are ready in it, and how many consumers it has. Counted by the broker just now."""
    names = [*(queue.name for queue in QUEUES), PARKING]
    with amqp(url) as channel:
        found = [channel.queue_declare(name, passive=True).method for name in names]
    rows = [(one.queue, one.message_count, one.consumer_count) for one in found]
    return pd.DataFrame(rows, columns=["queue", "ready", "consumers"]).set_index("queue")


class Tap:
    """A queue of the lesson's own: it gets a copy of the events of some types, from now on.

    Args:
        types: as a queue binds them: `shop.order.#`.
    """

    def __init__(self, url: str, types: tuple[str, ...]) -> None:
        self._url = url
        self._rows: list[dict[str, Any]] = []
        with amqp(url) as channel:
            channel.exchange_declare(EVENTS, "topic", durable=True)
            declared = channel.queue_declare("", durable=False, arguments={"x-expires": TAP_KEPT_MS})
            self._queue = declared.method.queue
            for type_ in types:
                channel.queue_bind(self._queue, EVENTS, type_)

    def frame(self) -> pd.DataFrame:
        """All messages so far, in the order in which the broker got them; one that came twice is here twice."""
        with amqp(self._url) as channel:
            while True:
                method, properties, body = channel.basic_get(self._queue, auto_ack=True)
                if method is None:
                    break
                self._rows.append(_event_row(properties.headers or {}, body))
        return pd.DataFrame(self._rows, columns=["id", "type", "subject", "at", "data"])


def _event_row(headers: dict[str, Any], body: bytes) -> dict[str, Any]:
    return {
        **{name: headers[f"{ATTRIBUTE}{name}"] for name in ("id", "type", "subject")},
        "at": datetime.fromisoformat(headers[f"{ATTRIBUTE}time"]),
        "data": json.loads(body),
    }


def topic(url: str, name: str) -> pd.DataFrame:
    """All records that a Kafka topic holds now: partition, offset, at, key and value (read as JSON)."""
    settings = {"group.id": "lab", "enable.auto.commit": False, "isolation.level": "read_committed"}
    consumer = Consumer(client_config(url) | settings | {"enable.partition.eof": True})
    rows: list[dict[str, Any]] = []
    try:
        metadata = consumer.list_topics(name, timeout=WITHIN_S).topics[name]
        if metadata.error is not None:
            raise StackError(f"kafka has no topic {name}: {metadata.error.str()}")
        to_read = set(metadata.partitions)
        consumer.assign([TopicPartition(name, partition, 0) for partition in to_read])
        deadline = time.monotonic() + WITHIN_S
        while to_read and time.monotonic() < deadline:
            for message in consumer.consume(1_000, timeout=0.1):
                if (news := message.error()) is None:
                    rows.append(_record(message))
                elif news.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - how the library names it
                    to_read.discard(message.partition())
    finally:
        consumer.close()
    if to_read:
        raise StackError(f"kafka did not give all of {name} within {WITHIN_S:.0f} s", "run `workshop doctor`")
    return pd.DataFrame(rows, columns=["partition", "offset", "at", "key", "value"])


def _record(message: Message) -> dict[str, Any]:
    return {
        "partition": message.partition(),
        "offset": message.offset(),
        "at": datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC),
        "key": json.loads(message.key() or b"null"),
        "value": json.loads(message.value() or b"null"),
    }
