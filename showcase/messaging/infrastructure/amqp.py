"""RabbitMQ through pika's asyncio connection: one connection, one channel, every call a coroutine with a deadline.

A blocking publisher waits one round trip for each confirm; here a whole window of messages is on its way at once.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pika
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.spec import Basic

from showcase.kernel.errors import Unavailable
from showcase.kernel.events import Event
from showcase.messaging.domain import DEAD, EVENTS, PARKING, Topology, limits

HEARTBEAT_S = 10
ATTRIBUTE = "cloudEvents:"
"""What the context attributes' headers begin with (CloudEvents AMQP binding, binary mode)."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message that the broker handed over, to be acknowledged."""

    tag: int
    attributes: dict[str, object]
    body: bytes


class Broker:
    """An open connection to the broker. Once it is lost, every call raises Unavailable: open another one."""

    _connection: AsyncioConnection
    _channel: Channel

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed = asyncio.Event()
        self._next_tag = 1
        self._unconfirmed: dict[int, asyncio.Future[bool]] = {}
        self._returned: set[str] = set()

    @classmethod
    @asynccontextmanager
    async def connected(cls, url: str, *, timeout_s: float, name: str) -> AsyncIterator["Broker"]:
        """A connection for the length of a block.

        Args:
            timeout_s: the longest that a call may wait for its answer.
            name: what the broker's management page shows it as.

        Raises Unavailable.
        """
        broker = cls(timeout_s)
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parameters = pika.URLParameters(url)
        parameters.heartbeat = HEARTBEAT_S
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = timeout_s
        parameters.client_properties = {"connection_name": name}
        broker._connection = AsyncioConnection(
            parameters,
            on_open_callback=lambda _: _settle(opened, None),
            on_open_error_callback=lambda _, error: _settle(opened, error),
            on_close_callback=lambda _, error: broker._on_closed(error),
            custom_ioloop=asyncio.get_running_loop(),
        )
        try:
            await broker._answer(opened)
            await broker._open_channel()
            yield broker
        finally:
            await broker._close()

    async def declare(self, topology: Topology) -> None:
        """Declare all exchanges, queues and bindings; harmless when they are there."""
        channel = self._channel
        await self._call(channel.exchange_declare, exchange=EVENTS, exchange_type="topic", durable=True)
        await self._call(channel.exchange_declare, exchange=DEAD, exchange_type="fanout", durable=True)
        await self._call(channel.queue_declare, queue=PARKING, durable=True, arguments=limits())
        await self._call(channel.queue_bind, queue=PARKING, exchange=DEAD)
        for queue in topology.queues:
            await self._call(channel.queue_declare, queue=queue.name, durable=True, arguments=queue.arguments)
            for type_ in queue.types:
                await self._call(channel.queue_bind, queue=queue.name, exchange=EVENTS, routing_key=type_)

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        """Send events, all at once, and wait until the broker has said of each whether it took charge of it.

        False for one that it refused (a full queue) or could not route. Raises Unavailable.
        """
        waiting: list[asyncio.Future[bool]] = []
        for event in events:
            if self._lost.done():
                break
            confirmed: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            self._unconfirmed[self._next_tag] = confirmed
            self._next_tag += 1
            waiting.append(confirmed)
            properties = pika.BasicProperties(
                content_type="application/json",
                delivery_mode=pika.DeliveryMode.Persistent.value,
                message_id=event.id,
                headers={f"{ATTRIBUTE}{name}": value for name, value in event.attributes().items()},
            )
            self._channel.basic_publish(EVENTS, event.type, event.body(), properties, mandatory=True)
        taken = await self._answer(asyncio.ensure_future(_all(waiting)))
        self.check()
        unroutable, self._returned = self._returned, set()
        return [was_taken and event.id not in unroutable for event, was_taken in zip(events, taken, strict=True)]

    async def consume(self, queue: str, prefetch: int) -> "asyncio.Queue[Delivery | None]":
        """Have the broker hand over a queue's messages; None comes after the last one, when the connection is lost.

        Args:
            prefetch: how many may be out without an acknowledgement, and so how many there are at the most.
        """
        await self._call(self._channel.basic_qos, prefetch_count=prefetch)
        deliveries: asyncio.Queue[Delivery | None] = asyncio.Queue()
        self._lost.add_done_callback(lambda _: deliveries.put_nowait(None))

        def deliver(channel: Channel, method: Basic.Deliver, properties: pika.BasicProperties, body: bytes) -> None:
            headers = properties.headers or {}
            attributes = {k.removeprefix(ATTRIBUTE): v for k, v in headers.items() if k.startswith(ATTRIBUTE)}
            deliveries.put_nowait(Delivery(method.delivery_tag, attributes, body))

        await self._call(self._channel.basic_consume, queue=queue, on_message_callback=deliver)
        return deliveries

    def acknowledge(self, delivery: Delivery) -> None:
        """The message was handled. Raises Unavailable: then it comes again."""
        self.check()
        self._channel.basic_ack(delivery.tag)

    def park(self, delivery: Delivery) -> None:
        """The message cannot be handled: move it to the parking lot. Raises Unavailable: then it comes again."""
        self.check()
        self._channel.basic_nack(delivery.tag, requeue=False)

    def check(self) -> None:
        """Raises Unavailable when the connection is lost."""
        if self._lost.done():
            self._lost.result()

    # -- how coroutines come out of pika's callbacks

    async def _open_channel(self) -> None:
        opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._connection.channel(on_open_callback=lambda channel: _settle(opened, channel))
        self._channel = await self._answer(opened)
        self._channel.add_on_close_callback(lambda _, error: self._on_lost(error))
        self._channel.add_on_cancel_callback(lambda _: self._on_lost(RuntimeError("the queue is gone")))
        self._channel.add_on_return_callback(
            lambda _, method, properties, body: self._returned.add(properties.message_id)
        )
        await self._call(self._channel.confirm_delivery, self._on_confirm)

    async def _call(self, method: Callable[..., object], *args: object, **kwargs: object) -> Any:
        """Call a method that takes a callback, and wait for what it is called with."""
        self.check()
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        method(*args, **kwargs, callback=lambda frame: _settle(answered, frame))
        return await self._answer(answered)

    async def _answer(self, answer: "asyncio.Future[Any]") -> Any:
        """Wait for an answer, but not beyond the deadline, nor when the connection is lost."""
        done, _ = await asyncio.wait({answer, self._lost}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if answer in done:
            return answer.result()
        answer.cancel()
        self.check()
        raise Unavailable("rabbitmq does not answer in time")

    def _on_confirm(self, frame: Any) -> None:
        """The broker took or refused one message, or all up to one."""
        tag, taken = frame.method.delivery_tag, isinstance(frame.method, Basic.Ack)
        tags = [one for one in self._unconfirmed if one <= tag] if frame.method.multiple else [tag]
        for one in tags:
            confirmed = self._unconfirmed.pop(one, None)
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(taken)

    def _on_closed(self, error: BaseException) -> None:
        self._closed.set()
        self._on_lost(error)

    def _on_lost(self, error: BaseException) -> None:
        if not self._lost.done():
            self._lost.set_exception(Unavailable(f"the connection to rabbitmq was lost: {error}"))
            self._lost.exception()  # looked at: nobody may be waiting for it

    async def _close(self) -> None:
        """Say goodbye, unless there is nobody to say it to; do not let a connection open that nobody waits for."""
        was_open = self._connection.is_open
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()
        if was_open:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), self._timeout_s)


async def _all(futures: "Sequence[asyncio.Future[bool]]") -> list[bool]:
    return [await future for future in futures]


def _settle(future: "asyncio.Future[Any]", outcome: object) -> None:
    """Give a future its outcome, unless nobody waits for it any longer."""
    if future.done():
        return
    if isinstance(outcome, BaseException):
        future.set_exception(Unavailable(f"rabbitmq cannot be reached: {outcome}"))
    else:
        future.set_result(outcome)
