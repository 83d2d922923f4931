"""Publishing without waiting for an answer, and with: what each of them notices."""

import pika.exceptions
from pika import BasicProperties
from pika.adapters.blocking_connection import BlockingChannel

from workshop.stack.local.rabbitmq import connect

WITHIN_S = 5.0
PERSISTENT = BasicProperties(delivery_mode=2)


def channel_to(url: str) -> BlockingChannel:
    """A channel of a connection of its own."""
    return connect(url, WITHIN_S).channel()


def fire_and_forget(channel: BlockingChannel, exchange: str, key: str, bodies: list[bytes]) -> str:
    """Publish, as most examples do; what the sender learns of it."""
    for body in bodies:
        channel.basic_publish(exchange, key, body, PERSISTENT)
    return f"{len(bodies)} sent, no error"


def with_answers(channel: BlockingChannel, exchange: str, key: str, bodies: list[bytes]) -> str:
    """Publish with confirms, and `mandatory`; what the sender learns of it."""
    channel.confirm_delivery()
    taken = unroutable = 0
    for body in bodies:
        try:
            channel.basic_publish(exchange, key, body, PERSISTENT, mandatory=True)
            taken += 1
        except pika.exceptions.UnroutableError:
            unroutable += 1
    return f"{taken} taken, {unroutable} that no queue takes"


def left_in(url: str, queue: str) -> list[bytes]:
    """All messages that a queue holds; it is empty afterwards."""
    channel = channel_to(url)
    found: list[bytes] = []
    while (message := channel.basic_get(queue, auto_ack=True))[0] is not None:
        found.append(message[2])
    channel.connection.close()
    return found
