"""RabbitMQ: declares the topology, publishes, hands over what is in queues.

A blocking publisher waits one round trip for each confirm; here many messages are on their way at once, and several
callers share one channel.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pika import BasicProperties
from pika.channel import Channel
from pika.spec import Basic

from showcase.kernel.errors import Unavailable
from showcase.messaging.domain import DEFAULT_EXCHANGE, Message, Outcome, Topology
from showcase.messaging.infrastructure import wire
from showcase.messaging.infrastructure.confirms import Batch, Confirms
from showcase.messaging.infrastructure.connection import ChannelRefused, Connection
from showcase.platform.settings import Misconfigured

HEARTBEAT_S = 10
MAX_MESSAGE_BYTES = 16 * 1024 * 1024
BATCH = 100
BATCH_BYTES = 64 * 1024
"""So many messages go out in one write; then the event loop may see to others."""
NOT_FOUND, PRECONDITION_FAILED = 404, 406
_DIFFERS = re.compile("inequivalent arg '(.+?)' .*: received (.+) but current is (.+)")


class TopologyMismatch(Misconfigured):
    """The broker has something of that name already, and it is another."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the broker handed over, to be acknowledged.

    Attributes:
        tag: what the channel calls it.
        attributes: of CloudEvents, whatever a stranger sent.
        headers: all others: ours, and the broker's.
    """

    tag: int
    attributes: Mapping[str, object]
    headers: Mapping[str, object]
    body: bytes


class Broker:
    """An open connection to the broker. Once it is lost, every call raises Unavailable: open another one."""

    def __init__(self, connection: Connection, max_message_bytes: int) -> None:
        self._connection = connection
        self._channel = connection.channel
        self._max_message_bytes = max_message_bytes
        self._confirms = Confirms()
        self._exchanges = {DEFAULT_EXCHANGE}
        self._consumers: dict[str, asyncio.Queue[Delivery | None]] = {}
        self._unsettled: set[int] = set()

    @classmethod
    @asynccontextmanager
    async def connected(
        cls,
        url: str,
        *,
        timeout_s: float,
        name: str,
        heartbeat_s: int = HEARTBEAT_S,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
    ) -> AsyncIterator["Broker"]:
        """A connection for the length of a block.

        Args:
            timeout_s: the longest that a call may wait for its answer.
            name: what the broker's management page shows it as.
            heartbeat_s: when the broker has heard nothing for twice as long, it takes us for gone.
            max_message_bytes: the broker's own limit: it closes the channel for a larger message.

        Raises Unavailable.
        """
        async with Connection.opened(url, timeout_s=timeout_s, heartbeat_s=heartbeat_s, name=name) as connection:
            broker = cls(connection, max_message_bytes)
            channel = connection.channel
            channel.add_on_cancel_callback(lambda _: connection.lose(RuntimeError("the queue is gone")))
            channel.add_on_return_callback(broker._confirms.on_return)
            await connection.call(channel.confirm_delivery, ack_nack_callback=broker._confirms.on_confirm)
            yield broker

    # -- topology

    async def declare(self, topology: Topology) -> None:
        """Declare all exchanges, queues and bindings; harmless when they are there.

        Raises TopologyMismatch when the broker has one of them otherwise; Unavailable.
        """
        for exchange in topology.exchanges():
            arguments = {"exchange": exchange.name, "exchange_type": exchange.type, "durable": True}
            await self._declare("exchange", exchange.name, "exchange_declare", arguments)
            self._exchanges.add(exchange.name)
        for queue in topology.declared():
            arguments = {"queue": queue.name, "durable": True, "arguments": dict(queue.arguments)}
            await self._declare("queue", queue.name, "queue_declare", arguments)
        for one in topology.bindings():
            await self._connection.call(
                self._channel.queue_bind, queue=one.queue, exchange=one.exchange, routing_key=one.key
            )

    async def _declare(self, kind: str, name: str, method: str, arguments: dict[str, Any]) -> None:
        try:
            await self._connection.try_call(method, **arguments)
        except ChannelRefused as refused:
            if refused.code != PRECONDITION_FAILED:
                raise Unavailable(f"rabbitmq refuses to declare the {kind} {name!r}: {refused}") from refused
            differs = _DIFFERS.search(str(refused))
            how = "{0}: it has {2}, and this process wants {1}".format(*differs.groups()) if differs else str(refused)
            raise TopologyMismatch(
                f"rabbitmq has the {kind} {name!r} with another {how}. "
                f"Set that back, or delete the {kind} when it is empty, and start again"
            ) from refused

    async def depths(self, names: Sequence[str]) -> dict[str, tuple[int, int] | None]:
        """How many messages are ready in each queue, and how many consumers it has; None for one that is not there.

        Raises Unavailable.
        """
        found: dict[str, tuple[int, int] | None] = {}
        for name in names:
            try:
                frame = await self._connection.try_call("queue_declare", queue=name, passive=True)
                found[name] = frame.method.message_count, frame.method.consumer_count
            except ChannelRefused as refused:
                if refused.code != NOT_FOUND:
                    raise Unavailable(f"rabbitmq does not show the queue {name!r}: {refused}") from refused
                found[name] = None
        return found

    # -- publishing

    async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        """See `application.Publisher`.

        Several calls at once are fine: each has its own outcomes. A call waits while the broker is blocked, or too much
        is on its way already.

        Raises Unavailable when some are not confirmed within `timeout_s`, and when the connection is lost: then each
        may or may not have been taken.
        """
        self._connection.check()
        await self._look_for({message.route.exchange for message in messages} - self._exchanges)
        sent: list[tuple[Batch, list[int | Outcome]]] = []
        for some in _batches(messages):
            await self._room()
            sent.append(self._send(some))
            await asyncio.sleep(0)  # these leave while the next ones are encoded
        outcomes: list[Outcome] = []
        for batch, places in sent:
            await self._connection.answer(batch.confirmed)
            outcomes += [tag if isinstance(tag, Outcome) else batch.others.get(tag, Outcome.TAKEN) for tag in places]
        return outcomes

    def _send(self, messages: Sequence[Message]) -> tuple[Batch, list[int | Outcome]]:
        """Send some messages; gives the tag of each, or what becomes of one that is not sent."""
        places: list[int | Outcome] = []
        frames: list[bytes] = []
        for message in messages:
            tag = self._confirms.next_tag + len(frames)
            if message.route.exchange not in self._exchanges:
                places.append(Outcome.UNROUTABLE)
            elif len(message.body) > self._max_message_bytes:
                places.append(Outcome.TOO_LARGE)
            else:
                try:
                    frames.append(wire.frames(message, self._channel.channel_number, tag, self._connection.frame_max))
                    places.append(tag)
                except wire.TooLarge:
                    places.append(Outcome.TOO_LARGE)
        together = b"".join(frames)
        batch = self._confirms.sent(len(frames), len(together))
        if frames:
            self._connection.send(together)
        return batch, places

    async def _room(self) -> None:
        """Wait while the broker takes nothing, or too much is on its way already."""
        await self._connection.unblocked()
        while self._confirms.is_full:
            self._confirms.room.clear()
            await self._connection.answer(asyncio.ensure_future(self._confirms.room.wait()))

    async def _look_for(self, exchanges: AbstractSet[str]) -> None:
        """See which of these are there: for a message to one that is not, the broker would close the channel."""
        for name in exchanges:
            try:
                await self._connection.try_call("exchange_declare", exchange=name, passive=True)
            except ChannelRefused:
                continue
            self._exchanges.add(name)

    # -- consuming

    async def consume(self, queue: str, prefetch: int) -> "asyncio.Queue[Delivery | None]":
        """See `application.Queueing`. What may be out bounds what the queue here holds."""
        await self._connection.call(self._channel.basic_qos, prefetch_count=prefetch)
        deliveries: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._connection.lost.add_done_callback(lambda _: deliveries.put_nowait(None))

        def deliver(channel: Channel, method: Basic.Deliver, properties: BasicProperties, body: bytes) -> None:
            tag = method.delivery_tag
            self._unsettled.add(tag)
            deliveries.put_nowait(Delivery(tag, *wire.read(properties), body))

        started = await self._connection.call(self._channel.basic_consume, queue=queue, on_message_callback=deliver)
        self._consumers[started.method.consumer_tag] = deliveries
        return deliveries

    def acknowledge(self, deliveries: Sequence[Delivery]) -> None:
        """See `application.Queueing`. What was handed back meanwhile is left out: it comes again."""
        self._connection.check()
        tags = self._unsettled.intersection(delivery.tag for delivery in deliveries)
        self._unsettled -= tags
        oldest_left = min(self._unsettled, default=math.inf)
        if together := [tag for tag in tags if tag < oldest_left]:
            self._channel.basic_ack(max(together), multiple=True)  # all before it were settled already, or are with it
        for tag in tags.difference(together):
            self._channel.basic_ack(tag)

    async def hand_back(self) -> None:
        """See `application.Queueing`.

        The broker counts each return towards the delivery limit of a quorum queue, but from 4.3 on not one by
        `basic.nack`; that of a channel that closes it always counts.
        """
        for tag, deliveries in self._consumers.items():
            await self._connection.call(self._channel.basic_cancel, consumer_tag=tag)
            while not deliveries.empty():
                deliveries.get_nowait()
        self._consumers.clear()
        if self._unsettled:
            self._unsettled.clear()
            self._channel.basic_nack(multiple=True)  # tag 0: all that are out

    def check(self) -> None:
        """See `application.Queueing`."""
        self._connection.check()


def _batches(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """Messages to go out together."""
    start = size = 0
    for end, message in enumerate(messages, 1):
        size += len(message.body)
        if end - start >= BATCH or size >= BATCH_BYTES:
            yield messages[start:end]
            start, size = end, 0
    if start < len(messages):
        yield messages[start:]
