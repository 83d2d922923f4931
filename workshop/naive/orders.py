"""An order service with two writes: it stores an order, and it tells the others. In either order."""

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from typing import Any
from uuid import UUID, uuid4

import pandas as pd
import pika
import psycopg

from workshop.stack.local.rabbitmq import connect

QUEUE = "naive.orders"
WITHIN_S = 5.0
TABLES = """
    CREATE SCHEMA IF NOT EXISTS naive;
    DROP TABLE IF EXISTS naive.orders, naive.charges;
    CREATE TABLE naive.orders (order_id uuid PRIMARY KEY, reference text NOT NULL UNIQUE, total_cents bigint NOT NULL);
    CREATE TABLE naive.charges (
        charge_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, order_id uuid NOT NULL, total_cents bigint NOT NULL
    );
"""


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the two writes go: URLs."""

    postgres: str
    rabbitmq: str


@dataclass(frozen=True, slots=True)
class Basket:
    """What a customer asks for.

    Attributes:
        reference: the customer's own number for it: asked for again, it is still one order.
    """

    reference: str
    total_cents: int


Database = psycopg.Connection[Any]
Take = Callable[[Database, str, Basket], None]
"""Takes a basket: with an open connection to the database, and the URL of the broker."""


def set_up(servers: Servers) -> None:
    """Empty tables, and an empty queue."""
    with psycopg.connect(servers.postgres, connect_timeout=int(WITHIN_S)) as db:
        db.execute(TABLES)
    with closing(connect(servers.rabbitmq, WITHIN_S)) as broker:
        channel = broker.channel()
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_purge(QUEUE)


def store_then_tell(db: Database, broker_url: str, basket: Basket) -> None:
    """Take an order: first the database, then the broker."""
    order_id = uuid4()
    if store(db, basket, order_id):
        tell(broker_url, basket, order_id)


def tell_then_store(db: Database, broker_url: str, basket: Basket) -> None:
    """Take an order: first the broker, then the database."""
    order_id = uuid4()
    tell(broker_url, basket, order_id)
    store(db, basket, order_id)


def store(db: Database, basket: Basket, order_id: UUID) -> bool:
    """Store an order and commit; False for one that is there already."""
    with db.transaction():
        stored = db.execute(
            "INSERT INTO naive.orders VALUES (%s, %s, %s) ON CONFLICT (reference) DO NOTHING",
            (order_id, basket.reference, basket.total_cents),
        )
    return stored.rowcount == 1


def tell(broker_url: str, basket: Basket, order_id: UUID) -> None:
    """Publish the event, persistent, to a durable queue."""
    body = json.dumps({"order_id": str(order_id), "total_cents": basket.total_cents})
    with closing(connect(broker_url, WITHIN_S)) as broker:
        broker.channel().basic_publish("", QUEUE, body.encode(), pika.BasicProperties(delivery_mode=2))


def fates(servers: Servers) -> pd.DataFrame:
    """Of each order that one of them knows: whether the database has it (`postgres`), and the queue (`rabbitmq`).

    The order of the rows is that of the database, then that of the queue. The queue is empty afterwards.
    """
    with psycopg.connect(servers.postgres, connect_timeout=int(WITHIN_S)) as db:
        stored = [str(row[0]) for row in db.execute("SELECT order_id FROM naive.orders ORDER BY reference")]
    told: list[str] = []
    with closing(connect(servers.rabbitmq, WITHIN_S)) as broker:
        channel = broker.channel()
        while (found := channel.basic_get(QUEUE, auto_ack=True))[0] is not None:
            told.append(json.loads(found[2])["order_id"])
    every = list(dict.fromkeys([*stored, *told]))
    seen = {"postgres": [one in set(stored) for one in every], "rabbitmq": [one in set(told) for one in every]}
    return pd.DataFrame(seen, index=pd.Index(every, name="order_id"))
