"""Events told by hand: into an outbox, as a service does, or to the broker directly, as only a stranger would.

For lessons that need one particular event, or one that no service of ours would ever send.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import httpx
import pandas as pd
import pika
import psycopg

from showcase.kernel.events import Event
from showcase.messaging.domain import ATTRIBUTE, EVENTS
from workshop.stack.local.rabbitmq import connect
from workshop.stack.model import Urls, credentials, url_of

WITHIN_S = 5.0
SEND = """
    INSERT INTO outbox (attributes, body, exchange, routing_key) VALUES (%s, %s, %s, %s)
    RETURNING pg_notify('outbox', '')
"""


def into_outbox(postgres_url: str, *events: Event, exchange: str = EVENTS, key: str = "") -> None:
    """Put events into the shop's outbox, all in one transaction; a relay publishes them.

    Args:
        exchange, key: the way, if it is not the usual one: to all that take its type.
    """
    with psycopg.connect(postgres_url, connect_timeout=int(WITHIN_S)) as db:
        for event in events:
            db.execute(SEND, (json.dumps(event.attributes()), event.body(), exchange, key or event.type))


def event_of(type_: str, order: Mapping[str, Any], **changed: object) -> Event:
    """An event about an order.

    Args:
        order: what another event has told of it.
        changed: of its data.
    """
    return Event(type=type_, source="/lesson", subject=f"orders/{order['order_id']}", data={**order, **changed})


def poison(rabbitmq_url: str, queue: str, event: Event) -> Sequence[str]:
    """Put messages into a queue that no consumer can do anything with; what is wrong with each.

    Args:
        event: a good one, from which they are made.
    """
    wrong = spoiled(event)
    with closing(connect(rabbitmq_url, WITHIN_S)) as broker:
        channel = broker.channel()
        channel.confirm_delivery()
        for attributes, body in wrong.values():
            headers = {ATTRIBUTE + name: value for name, value in attributes.items()}
            properties = pika.BasicProperties(content_type="application/json", delivery_mode=2, headers=headers)
            channel.basic_publish("", queue, body, properties, mandatory=True)
    return list(wrong)


def spoiled(event: Event) -> Mapping[str, tuple[dict[str, str], bytes]]:
    """An event with a fault, for each of four faults: its attributes and its body."""
    attributes, body = event.attributes(), event.body()
    return {
        "no JSON": (attributes, b"<order/>"),
        "no id": ({name: value for name, value in attributes.items() if name != "id"}, body),
        "a version from the future": (attributes | {"type": event.type[:-1] + "9"}, body),
        "a total in words": (attributes, json.dumps({**event.data, "total_cents": "twelve"}).encode()),
    }


def limit_queue(urls: Urls, rabbitmq_url: str, queue: str, messages: int | None) -> None:
    """Have a queue refuse more than so many messages, by a policy of the broker; None: as it was declared.

    Args:
        urls: with that of the broker's management.
        rabbitmq_url: with the virtual host.

    Raises httpx.HTTPError.
    """
    api = url_of(urls, "SHOWCASE_RABBITMQ_API_URL")
    vhost = pika.URLParameters(rabbitmq_url).virtual_host
    address = f"http://{api.hostname}:{api.port or 15672}/api/policies/{vhost}/limit-{queue}"
    with httpx.Client(auth=credentials(api), timeout=WITHIN_S) as client:
        if messages is None:
            client.delete(address).raise_for_status()
        else:
            policy = {"pattern": f"^{queue}$", "apply-to": "queues", "definition": {"max-length": messages}}
            client.put(address, json=policy).raise_for_status()


def steps_of(headers: Mapping[str, Any], replayed_at: datetime, handled_at: datetime) -> pd.DataFrame:
    """Where a parked message has been, for `pictures.message_timeline`: from the headers that it was parked with.

    Args:
        headers: `x-reason-1` … say when, and why, each attempt has failed.
        replayed_at, handled_at: what came after it was parked.
    """
    failed = [headers[f"x-reason-{number}"].partition(" ")[0] for number in range(1, int(headers["x-attempt"]) + 1)]
    rows = [*((at, "failed") for at in failed), (headers["x-parked-at"], "parked")]
    rows += [(replayed_at.isoformat(), "replayed"), (handled_at.isoformat(), "handled")]
    return pd.DataFrame(
        {"at": pd.to_datetime([at for at, _ in rows], format="ISO8601", utc=True), "what": [w for _, w in rows]}
    )


def waits(steps: pd.DataFrame) -> list[timedelta]:
    """How long a message waited between two attempts in a row, before it was parked."""
    failed = steps[steps["what"] == "failed"]["at"]
    return [wait.to_pytimedelta() for wait in failed.diff().dropna()]
