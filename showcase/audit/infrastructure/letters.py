"""Dead letters in a topic of Kafka: the message as it came, and in its headers where it stood and what is wrong."""

import asyncio
from collections.abc import Sequence
from threading import Lock

from confluent_kafka import KafkaException, Producer
from confluent_kafka import Message as Delivered

from showcase.audit.application.ports import Letter, Message
from showcase.kernel.errors import Unavailable
from showcase.platform.kafka import client_config

PLACE, REASON = "x-place", "x-reason"
MAX_BYTES = 32 * 1024 * 1024
"""The broker's own limit (`message.max.bytes`)."""
MAX_REASON = 1_000


class KafkaDeadLetters:
    """See `application.ports.DeadLetters`. A letter that is put away twice is there twice: its place tells.

    Args:
        url: of Kafka.
        topic: made beforehand; nothing is made by a misspelt name.
        timeout_s: the longest that putting letters away may take.
    """

    def __init__(self, url: str, topic: str, timeout_s: float = 10.0) -> None:
        self._topic = topic
        self._timeout_s = timeout_s
        self._producer = Producer(
            client_config(url)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "message.max.bytes": MAX_BYTES,
                "delivery.timeout.ms": round(timeout_s * 1000),
            }
        )

    async def add(self, letters: Sequence[Letter]) -> None:
        await asyncio.to_thread(self._send, [(letter.message, headers_of(letter)) for letter in letters])

    def _send(self, messages: Sequence[tuple[Message, list[tuple[str, bytes | None]]]]) -> None:
        failed: list[object] = []
        lock = Lock()

        def delivered(error: object, _: Delivered) -> None:
            if error is not None:
                with lock:
                    failed.append(error)

        try:
            for message, headers in messages:
                self._producer.produce(self._topic, message.value, message.key, headers=headers, on_delivery=delivered)
                self._producer.poll(0)
            left = self._producer.flush(self._timeout_s + 1)
        except (KafkaException, BufferError) as error:
            raise Unavailable(f"kafka takes no dead letters: {error}") from error
        if failed or left:
            raise Unavailable(f"kafka takes no dead letters: {failed[0] if failed else 'no answer in time'}")


def headers_of(letter: Letter) -> list[tuple[str, bytes | None]]:
    """The message's own headers, and what is to be known of it."""
    reason = letter.reason.encode(errors="backslashreplace")[:MAX_REASON]
    kept = [(name, value) for name, value in letter.message.headers if name not in (PLACE, REASON)]
    return [*kept, (PLACE, letter.message.place.encode()), (REASON, reason)]
