"""Kafka: one consumer's loop. What was read is committed only after it was handled: at least once."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TookTooLong
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar
from urllib.parse import unquote, urlsplit

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from showcase.kernel.errors import Unavailable

log = structlog.get_logger()

R = TypeVar("R")

POLL_S = 0.2
FINISH_WITHIN_S = 8.0
"""Longer than one call of a ledger to its store may take, which then ends by itself and says why."""
Handle = Callable[[Sequence[Message]], Awaitable[None]]
Offsets = Mapping[tuple[str, int], int]
"""By topic and partition, the offset of the next record."""


class Ledger(Protocol):
    """A handler that itself knows how far it has got."""

    async def begin(self, there: Mapping[tuple[str, int], tuple[int, int]]) -> Offsets:
        """Take partitions over; from where each is to be read.

        Args:
            there: the offset of the oldest record that each still has, and of the next one that it will get.
        """

    async def handle(self, messages: Sequence[Message]) -> Offsets:
        """Handle what has come, nothing as well; what may be committed now."""

    async def end(self, partitions: Collection[tuple[str, int]]) -> Offsets:
        """Finish what is begun of partitions that somebody else gets; what may be committed of them."""

    def lose(self, partitions: Collection[tuple[str, int]]) -> None:
        """Somebody else has these partitions already."""


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


async def make_topics(
    url: str,
    topics: Sequence[str],
    *,
    partitions: int = 1,
    kept: timedelta,
    max_message_bytes: int | None = None,
    within_s: float = 15.0,
) -> None:
    """Make topics; those that are there stay as they are.

    Args:
        kept: how long a record stays, at least, however many bytes they come to.
        max_message_bytes: of one record with all that is around it; as much as in other topics, if not given.

    Raises Unavailable.
    """
    config = {"retention.ms": str(round(kept.total_seconds() * 1000)), "retention.bytes": "-1"}
    if max_message_bytes is not None:
        config["max.message.bytes"] = str(max_message_bytes)
    new = [NewTopic(topic, num_partitions=partitions, config=config) for topic in topics]

    def make() -> None:
        admin = AdminClient(client_config(url))
        for made in admin.create_topics(new, operation_timeout=within_s, request_timeout=within_s).values():
            try:
                made.result(within_s + 1)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                    raise Unavailable(f"kafka does not answer: {error.args[0].str()}") from error

    await asyncio.to_thread(make)


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
    async with _Reading(url, group, batch, session_timeout_s) as reading:
        await reading.subscribe(topics)
        while not stop.is_set():
            if records := await reading.next():
                await handle(records)
                await reading.commit()


async def consume_into(
    url: str,
    topics: Sequence[str],
    ledger: Ledger,
    stop: asyncio.Event,
    *,
    group: str,
    batch: int = 1_000,
    session_timeout_s: float = 6.0,
    finish_within_s: float = FINISH_WITHIN_S,
) -> None:
    """Read topics from where a ledger stands, until `stop` is set; otherwise as `consume`.

    Args:
        finish_within_s: how long the ledger may take to take over, or to finish, some partitions.
    """
    async with _Reading(url, group, batch, session_timeout_s, ledger, finish_within_s) as reading:
        await reading.subscribe(topics)
        while not stop.is_set():
            await reading.commit(await ledger.handle(await reading.next()))


class _Reading:
    """A consumer in a thread of its own: the client blocks, and belongs to one thread at a time."""

    def __init__(
        self,
        url: str,
        group: str,
        batch: int,
        session_timeout_s: float,
        ledger: Ledger | None = None,
        finish_within_s: float = FINISH_WITHIN_S,
    ) -> None:
        self._batch = batch
        self._ledger = ledger
        self._finish_within_s = finish_within_s
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "kafka")
        self._consumer = Consumer(
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

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self._call(self._consumer.close)  # hands partitions over: the broker may be away for that as well
            if isinstance(error, KafkaException):
                raise error
        except KafkaException as failed:
            raise Unavailable(f"kafka does not answer: {failed.args[0].str()}") from failed
        finally:
            self._thread.shutdown(wait=False)

    async def subscribe(self, topics: Sequence[str]) -> None:
        """Share the work with the others of the group."""
        await self._call(
            self._consumer.subscribe,
            list(topics),
            on_assign=self._assigned,
            on_revoke=self._revoked,
            on_lost=self._lost,
        )

    async def next(self) -> list[Message]:
        """What has come, as soon as anything has; nothing when nothing comes for a while."""
        return [message for message in await self._call(self._poll) if _is_record(message)]

    async def commit(self, offsets: Offsets | None = None) -> None:
        """Commit what was read last, or some offsets."""
        if offsets is None or offsets:
            await self._call(self._commit, offsets)

    async def _call(self, function: Callable[..., R], *given: Any, **named: Any) -> R:
        return await self._loop.run_in_executor(self._thread, partial(function, *given, **named))

    def _poll(self) -> list[Message]:
        """`consume` alone would wait for a whole batch."""
        first = self._consumer.poll(POLL_S)
        return [] if first is None else [first, *self._consumer.consume(self._batch - 1, 0)]

    def _commit(self, offsets: Offsets | None) -> None:
        """That a rebalance took the partitions away meanwhile is no loss: what was read comes again."""
        places = offsets and [TopicPartition(*partition, offset) for partition, offset in offsets.items()]
        try:
            self._consumer.commit(asynchronous=False, **({"offsets": places} if places else {}))
        except KafkaException as error:
            if error.args[0].code() not in (
                KafkaError._NO_OFFSET,  # noqa: SLF001 - how the library names it
                KafkaError.ILLEGAL_GENERATION,
                KafkaError.UNKNOWN_MEMBER_ID,
                KafkaError.REBALANCE_IN_PROGRESS,
            ):
                raise

    # -- called by the client, in its thread, while it polls or closes; what they raise comes out of that call

    def _assigned(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if self._ledger is not None:
            there = {
                (part.topic, part.partition): consumer.get_watermark_offsets(part, timeout=self._finish_within_s)
                for part in parts
            }
            begin = self._wait(self._ledger.begin(there))
            consumer.assign([TopicPartition(*partition, offset) for partition, offset in begin.items()])
        log.info("ready", partitions=len(parts))

    def _revoked(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if self._ledger is not None and (offsets := self._wait(self._ledger.end(_named(parts)))):
            self._commit(offsets)

    def _lost(self, consumer: Consumer, parts: list[TopicPartition]) -> None:
        if self._ledger is not None:
            self._ledger.lose(_named(parts))

    def _wait(self, coroutine: Coroutine[Any, Any, R]) -> R:
        """Have the event loop do something meanwhile. Raises Unavailable when it takes too long."""
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(self._finish_within_s)
        except TookTooLong as error:
            future.cancel()
            raise Unavailable("taking partitions over, or handing them over, took too long") from error


def _named(parts: Sequence[TopicPartition]) -> list[tuple[str, int]]:
    return [(part.topic, part.partition) for part in parts]


def _is_record(message: Message) -> bool:
    """Whether a message is a record, not news of the client. Raises KafkaException for news that it cannot mend."""
    error = message.error()
    if error is None:
        return True
    if error.fatal() or not (error.retriable() or error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART):
        raise KafkaException(error)
    return False
