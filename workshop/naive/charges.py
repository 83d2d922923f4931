"""A consumer that charges whatever it is handed, and acknowledges afterwards, as the tutorials have it."""

import json
from contextlib import closing
from typing import Any

import psycopg

from workshop.naive.orders import WITHIN_S, Servers
from workshop.stack.local.rabbitmq import connect

QUEUE = "naive.payment"
IDLE_S = 0.5
"""A queue that has given nothing for so long is empty."""
PREFETCH = 20
RECEIPT_S = 0.005


def listen(servers: Servers, exchange: str, type_: str) -> None:
    """Have a queue of its own for all events of a type, from now on."""
    with closing(connect(servers.rabbitmq, WITHIN_S)) as broker:
        channel = broker.channel()
        channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
        channel.queue_bind(QUEUE, exchange, type_)


def charge_all(servers: Servers) -> None:
    """Charge every order in its queue, until that is empty: once each, says every test that kills nothing."""
    with (
        closing(connect(servers.rabbitmq, WITHIN_S)) as broker,
        closing(psycopg.connect(servers.postgres, connect_timeout=int(WITHIN_S), autocommit=True)) as db,
    ):
        channel = broker.channel()
        channel.basic_qos(prefetch_count=PREFETCH)
        for method, _, body in channel.consume(QUEUE, inactivity_timeout=IDLE_S):
            if method is None:
                break
            charge(db, json.loads(body))
            broker.sleep(RECEIPT_S)  # prints the receipt
            channel.basic_ack(method.delivery_tag)


def charge(db: "psycopg.Connection[Any]", order: dict[str, Any]) -> None:
    """Take the money."""
    db.execute(
        "INSERT INTO naive.charges (order_id, total_cents) VALUES (%s, %s)", (order["order_id"], order["total_cents"])
    )
