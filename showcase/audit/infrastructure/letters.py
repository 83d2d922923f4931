"""Dead letters in a topic of Kafka: the message as it came, and in its headers where it stood and what is wrong.

What is replayed goes to a topic of its own, which the recorder reads like the others: Debezium's stay Debezium's.
"""

import asyncio
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka import Message as Delivered

from showcase.audit.application.ports import Letter, Message, Partition
from showcase.audit.application.replaying import Found, NoSuchLetter, Replay
from showcase.kernel.clock import Clock, system_clock
from showcase.kernel.errors import Unavailable
from showcase.platform.kafka import client_config, make_topics

PLACE, REASON, REPLAYED_FROM = "x-place", "x-reason", "x-replayed-from"
MAX_BYTES = 32 * 1024 * 1024 + 64 * 1024
"""The broker's own limit (`message.max.bytes`), and room for our headers: or the largest message that the broker takes
would become no letter, and hold up all that come after it."""
MAX_REASON = 1_000
BUFFER_KB = 64 * 1024
"""So much is under way at once."""
ELECTING = (
    KafkaError._UNKNOWN_PARTITION,  # noqa: SLF001 - how the library names it
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.NOT_COORDINATOR,
)
ASK_AGAIN_S = 0.05

T = TypeVar("T")
Headers = Sequence[tuple[str, bytes | None]]
Sent = tuple[bytes | None, bytes | None, Headers]
"""Key, value and headers."""


async def make(url: str, topics: Sequence[str], kept: timedelta) -> None:
    """Make the topics of letters and replays; those that are there stay as they are. Raises Unavailable."""
    await make_topics(url, topics, kept=kept, max_message_bytes=MAX_BYTES)


class KafkaDeadLetters:
    """See `application.ports.DeadLetters`. A letter that is put away twice is there twice: its place tells.

    Args:
        url: of Kafka.
        topic: made beforehand; nothing is made by a misspelt name.
        timeout_s: the longest that putting letters away may take.
    """

    def __init__(self, url: str, topic: str, timeout_s: float = 10.0) -> None:
        self._topic = topic
        self._sender = _Sender(url, timeout_s)

    async def add(self, letters: Sequence[Letter]) -> None:
        sent = [(letter.message.key, letter.message.value, headers_of(letter)) for letter in letters]
        await asyncio.to_thread(self._sender.send, self._topic, sent)


class KafkaLetterBox:
    """See `application.replaying.LetterBox`.

    Each call reads a topic from its beginning to what was its end when the call began.

    Args:
        url: of Kafka.
        letters: topic; while it is not there, there are no letters.
        replayed: topic of what is replayed; made when something is.
        group: of the consumers that record.
        kept: for how long a letter counts. Kafka removes by the segment, later: a letter could be there still when its
            replay is gone, and would pass for one that nobody has replayed.
        timeout_s: the longest that Kafka may be silent.
    """

    def __init__(
        self,
        url: str,
        *,
        letters: str,
        replayed: str,
        group: str,
        kept: timedelta,
        timeout_s: float = 10.0,
        clock: Clock = system_clock,
    ) -> None:
        self._url = url
        self._letters = letters
        self._replayed = replayed
        self._group = group
        self._kept = kept
        self._timeout_s = timeout_s
        self._clock = clock

    async def handled(self) -> Mapping[Partition, int]:
        return await self._in_thread(self._handled)

    async def replays(self) -> Sequence[Replay]:
        return await self._in_thread(
            lambda: [_replay(message) for message in self._scan(self._replayed) if self._counts(message)]
        )

    async def letters(self) -> Sequence[Found]:
        return await self._in_thread(
            lambda: [found(message, self._replayed) for message in self._scan(self._letters) if self._counts(message)]
        )

    async def message(self, letter: Found) -> Message:
        def read() -> Message:
            partition, offset = letter.at
            for message in self._scan(self._letters, {partition: offset}):
                if _at(message) == letter.at:
                    return Message(
                        topic=self._letters,
                        partition=partition,
                        offset=offset,
                        key=message.key(),
                        value=message.value(),
                        headers=_headers(message),
                        arrived_ms=max(0, message.timestamp()[1]),
                    )
            raise NoSuchLetter(f"the letter of {letter.origin} was removed meanwhile")

        return await self._in_thread(read)

    async def replay(self, letters: Collection[Found]) -> int:
        if not letters:
            return 0
        await make(self._url, [self._replayed], self._kept)
        return await self._in_thread(lambda: self._replay({letter.at: letter.origin for letter in letters}))

    def _replay(self, origins: Mapping[tuple[int, int], str]) -> int:
        """One message after the other: all of them together may be more than there is memory for."""
        begin = dict(sorted(origins, reverse=True))  # of each partition the lowest, which comes last

        def again() -> Iterator[Sent]:
            for message in self._scan(self._letters, begin):
                if (origin := origins.get(_at(message))) is not None:
                    yield message.key(), message.value(), replayed_headers(_headers(message), origin)

        return _Sender(self._url, self._timeout_s).send(self._replayed, again())

    def _handled(self) -> Mapping[Partition, int]:
        consumer = self._consumer(self._group)  # which joins no group unless it subscribes
        try:
            committed = once_led(lambda: self._committed(consumer), self._timeout_s)
            return {(one.topic, one.partition): one.offset for one in committed if one.offset >= 0}
        finally:
            consumer.close()

    def _committed(self, consumer: Consumer) -> Sequence[TopicPartition]:
        there = [TopicPartition(self._replayed, partition) for partition in self._partitions(consumer, self._replayed)]
        committed = consumer.committed(there, timeout=self._timeout_s) if there else []
        for one in committed:
            if one.error is not None:
                raise KafkaException(one.error)
        return committed

    def _bounds(self, consumer: Consumer, topic: str) -> Mapping[int, tuple[int, int]]:
        """By partition, its first offset and the one after its last."""
        return {
            partition: consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=self._timeout_s)
            for partition in self._partitions(consumer, topic)
        }

    def _scan(self, topic: str, begin: Mapping[int, int] | None = None) -> Iterator[Delivered]:
        """The messages of a topic up to its end as it is now.

        Args:
            begin: by partition, the offset of the first; of other partitions none. All, if there is none.

        Raises Unavailable when Kafka is silent.
        """
        consumer = self._consumer(f"{self._group}.looking")
        try:
            places = []
            ends: dict[int, int] = {}
            bounds = once_led(lambda: self._bounds(consumer, topic), self._timeout_s)
            for partition, (low, end) in bounds.items():
                first = low if begin is None else max(low, begin.get(partition, end))
                if first < end:
                    places.append(TopicPartition(topic, partition, first))
                    ends[partition] = end
            consumer.assign(places)
            while ends:
                message = consumer.poll(self._timeout_s)
                if message is None:
                    raise Unavailable(f"kafka does not answer: nothing of {topic} within {self._timeout_s:g} s")
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's name
                    raise KafkaException(error)
                partition, offset = _at(message)
                if error is None and offset < ends.get(partition, 0):
                    yield message
                if offset >= ends.get(partition, 0) - 1:
                    ends.pop(partition, None)
        finally:
            consumer.close()

    def _counts(self, message: Delivered) -> bool:
        return _time(message) > self._clock() - self._kept

    def _partitions(self, consumer: Consumer, topic: str) -> Sequence[int]:
        there = consumer.list_topics(timeout=self._timeout_s).topics.get(topic)
        return sorted(there.partitions) if there is not None else ()

    def _consumer(self, group: str) -> Consumer:
        return Consumer(
            client_config(self._url)
            | {
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )

    async def _in_thread(self, call: Callable[[], T]) -> T:
        """What a call of the client comes to: it blocks. Raises Unavailable."""
        try:
            return await asyncio.to_thread(call)
        except KafkaException as error:
            raise Unavailable(f"kafka does not answer: {error.args[0].str()}") from error


def once_led(ask: Callable[[], T], timeout_s: float) -> T:
    """What Kafka says of partitions, as soon as each has a leader.

    While one is elected, and just after, the client fails at once: it takes it for a partition that is not there.

    Args:
        ask: reads from Kafka which partitions there are, too: the client remembers that one had no leader.
        timeout_s: the longest that it is asked again.

    Raises what `ask` raised last.
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            return ask()
        except KafkaException as error:
            if error.args[0].code() not in ELECTING or time.monotonic() >= until:
                raise
        time.sleep(ASK_AGAIN_S)


class _Sender:
    """Sends messages and waits until they are kept."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._producer = Producer(
            client_config(url)
            | {
                "acks": "all",
                "enable.idempotence": True,
                "message.max.bytes": MAX_BYTES,
                "queue.buffering.max.kbytes": BUFFER_KB,
                "delivery.timeout.ms": round(timeout_s * 1000),
            }
        )

    def send(self, topic: str, messages: Iterable[Sent]) -> int:
        """How many; when it returns they survive a crash. Raises Unavailable, and then some may be kept."""
        failed: list[object] = []
        count = 0
        try:
            for message in messages:
                self._produce(topic, message, lambda error, _: failed.append(error) if error is not None else None)
                if failed:
                    break
                count += 1
            left = self._producer.flush(self._timeout_s + 1)
        except (KafkaException, BufferError) as error:
            raise Unavailable(f"kafka takes nothing for {topic}: {error}") from error
        if failed or left:
            raise Unavailable(f"kafka takes nothing for {topic}: {failed[0] if failed else 'no answer in time'}")
        return count

    def _produce(self, topic: str, message: Sent, delivered: Callable[[object, Delivered], None]) -> None:
        """Hand a message to the client, as soon as there is room: what fills it is sent, or has failed, in time."""
        key, value, headers = message
        until = time.monotonic() + self._timeout_s + 1
        is_full = True
        while is_full:
            try:
                self._producer.produce(topic, value, key, headers=list(headers), on_delivery=delivered)
                is_full = False
            except BufferError:
                if time.monotonic() > until:
                    raise
            self._producer.poll(0.1 if is_full else 0)


def headers_of(letter: Letter) -> Headers:
    """The message's own headers, and what is to be known of it."""
    reason = letter.reason.encode(errors="backslashreplace")[:MAX_REASON]
    kept = [(name, value) for name, value in letter.message.headers if name not in (PLACE, REASON)]
    return [*kept, (PLACE, letter.message.place.encode()), (REASON, reason)]


def replayed_headers(headers: Headers, origin: str) -> Headers:
    """The message's own headers, and where it stood at first."""
    kept = [(name, value) for name, value in headers if name not in (PLACE, REASON, REPLAYED_FROM)]
    return [*kept, (REPLAYED_FROM, origin.encode())]


def found(message: Delivered, replayed: str) -> Found:
    """A letter without its content.

    Args:
        replayed: topic of what is replayed: a message of another one that says it was replayed is not believed.
    """
    headers = dict(_headers(message))
    place = _text(headers.get(PLACE)) or f"{message.topic()}:{message.partition()}:{message.offset()}"
    is_replayed = place.rsplit(":", 2)[0] == replayed
    return Found(
        at=_at(message),
        place=place,
        origin=(is_replayed and _text(headers.get(REPLAYED_FROM))) or place,
        reason=sys.intern(_text(headers.get(REASON)) or "it does not say"),  # often the same: of a table, for instance
        size_bytes=len(message.value() or b""),
        put_away_at=_time(message),
    )


def _replay(message: Delivered) -> Replay:
    partition, offset = _at(message)
    origin = _text(dict(_headers(message)).get(REPLAYED_FROM))
    return Replay(origin, (message.topic() or "", partition), offset)


def _at(message: Delivered) -> tuple[int, int]:
    partition, offset = message.partition(), message.offset()
    if partition is None or offset is None:
        raise ValueError("a message that comes from no topic")
    return partition, offset


def _headers(message: Delivered) -> Headers:
    headers = message.headers() or ()
    pairs = headers.items() if isinstance(headers, dict) else headers
    return [(name, value.encode() if isinstance(value, str) else value) for name, value in pairs]


def _time(message: Delivered) -> datetime:
    return datetime.fromtimestamp(max(0, message.timestamp()[1]) / 1000, UTC)


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
