"""Kafka: one consumer's loop. What was read is committed only after it was handled: at least once."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import unquote, urlsplit

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message

from showcase.kernel.errors import Unavailable

log = structlog.get_logger()

POLL_S = 0.2
Handle = Callable[[Sequence[Message]], Awaitable[None]]


def client_config(url: str) -> dict[str, str | int | float | bool]:
    """What librdkafka needs to know for `kafka://user:password@host:port`."""
    parsed = urlsplit(url)
    return {
        "bootstrap.servers": f"{parsed.hostname}:{parsed.port}",
        "security.protocol": "SASL_PLAINTEXT",
        "sasl.mechanism": "PLAIN",
        "sasl.username": unquote(parsed.username or ""),
        "sasl.password": unquote(parsed.password or ""),
        "socket.timeout.ms": 10_000,
        "log_level": 0,
    }


async def consume(
    url: str,
    topics: Sequence[str],
    handle: Handle,
    stop: asyncio.Event,
    *,
    group: str,
    batch: int = 1_000,
    session_timeout_s: float = 6.0,
) -> None:
    """Read topics from their beginning, batch by batch, until `stop` is set.

    Args:
        handle: called with one to `batch` records; their offsets are committed when it returns. When it raises,
            nothing is committed, and whoever reads next gets the same records again.
        group: of consumers that share the work.
        session_timeout_s: how long a consumer that died holds its partitions.

    While the broker is away the client looks for it by itself. Raises Unavailable for what it cannot mend, and what
    `handle` raises.
    """
    loop = asyncio.get_running_loop()
    consumer = Consumer(
        client_config(url)
        | {
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "session.timeout.ms": round(session_timeout_s * 1000),
            "heartbeat.interval.ms": round(session_timeout_s * 1000 / 3),
            "fetch.wait.max.ms": 10,
            "topic.metadata.refresh.interval.ms": 5_000,
        }
    )
    with ThreadPoolExecutor(1, "kafka") as thread:  # the client blocks, and belongs to one thread at a time
        try:
            consumer.subscribe(list(topics), on_assign=lambda _, parts: log.info("ready", partitions=len(parts)))
            while not stop.is_set():
                messages = await loop.run_in_executor(thread, _next, consumer, batch)
                if records := [message for message in messages if _is_record(message)]:
                    await handle(records)
                    await loop.run_in_executor(thread, _commit, consumer)
        except KafkaException as error:
            raise Unavailable(f"kafka does not answer: {error.args[0].str()}") from error
        finally:
            await loop.run_in_executor(thread, consumer.close)


def _next(consumer: Consumer, batch: int) -> list[Message]:
    """What has come, as soon as anything has: `consume` alone would wait for a whole batch."""
    first = consumer.poll(POLL_S)
    return [] if first is None else [first, *consumer.consume(batch - 1, 0)]


def _commit(consumer: Consumer) -> None:
    """Commit what was read last. That a rebalance took the partitions away meanwhile is no loss: they come again."""
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() not in (
            KafkaError._NO_OFFSET,  # noqa: SLF001 - how the library names it
            KafkaError.ILLEGAL_GENERATION,
            KafkaError.UNKNOWN_MEMBER_ID,
            KafkaError.REBALANCE_IN_PROGRESS,
        ):
            raise


def _is_record(message: Message) -> bool:
    """Whether a message is a record, not news of the client. Raises KafkaException for news that it cannot mend."""
    error = message.error()
    if error is None:
        return True
    if error.fatal() or not (error.retriable() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        raise KafkaException(error)
    return False
