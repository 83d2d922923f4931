"""What messaging is measured beside: the same work by aio-pika, pika and FastStream, set up as their manuals advise.

All of them send the same message: the same bytes, headers and properties, persistent, `mandatory` and confirmed.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence

import aio_pika
import pika
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue

from benchmarks.messaging_system import QUEUE, Handle, Thing
from showcase.messaging.domain import Message

Clock = Callable[[], float]
"""Seconds of some kind: those on the wall, or those of the processor that this process has used."""

ALL_WITHIN_S = 60.0
LANES = 200
"""How many publishes aio-pika has under way at once. Of 20 to 2,000, in lanes and in waves, nothing was faster: a lane
sends its next message as soon as it has its confirm, and a wave waits for its last one."""


async def aio_pika_publishes(url: str, messages: Sequence[Message], seconds: float, clock: Clock) -> float:
    """How many messages a second are confirmed: one channel, and `gather` over as many publishes as are best."""
    connection = await aio_pika.connect(url)  # not `connect_robust`, which does more
    async with connection:
        channel = await connection.channel(publisher_confirms=True)
        to_send = itertools.cycle([aio_pika_message(message) for message in messages])
        confirmed = 0
        until, began = time.perf_counter() + seconds, clock()

        async def lane() -> None:
            nonlocal confirmed
            while time.perf_counter() < until:
                await channel.default_exchange.publish(next(to_send), QUEUE)
                confirmed += 1

        await asyncio.gather(*(lane() for _ in range(LANES)))
        return confirmed / (clock() - began)


def aio_pika_message(message: Message) -> aio_pika.Message:
    """The same message."""
    return aio_pika.Message(
        message.body,
        headers=dict(headers(message)),
        content_type=message.attributes["datacontenttype"],
        delivery_mode=aio_pika.DeliveryMode.PERSISTENT,
        message_id=message.attributes["id"],
    )


def pika_publishes(url: str, messages: Sequence[Message], seconds: float, *, is_confirmed: bool) -> float:
    """How many messages a second a BlockingConnection sends: each after the confirm of the last, or with no confirms.

    Without confirms it ends with a question, so that the broker has read all that was sent.
    """
    to_send = itertools.cycle([(message.body, pika_properties(message)) for message in messages])
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        if is_confirmed:
            channel.confirm_delivery()
        sent = 0
        began = time.perf_counter()
        while time.perf_counter() < began + seconds:
            body, properties = next(to_send)
            channel.basic_publish("", QUEUE, body, properties, mandatory=is_confirmed)
            sent += 1
        channel.queue_declare(QUEUE, passive=True)
        return sent / (time.perf_counter() - began)
    finally:
        connection.close()


def pika_properties(message: Message) -> pika.BasicProperties:
    """The same message."""
    return pika.BasicProperties(
        headers=headers(message),
        content_type=message.attributes["datacontenttype"],
        delivery_mode=pika.DeliveryMode.Persistent.value,
        message_id=message.attributes["id"],
    )


def headers(message: Message) -> dict[str, str]:
    """CloudEvents in AMQP's binary mode."""
    return {f"cloudEvents:{name}": value for name, value in message.attributes.items() if name != "datacontenttype"}


async def faststream_handles(url: str, count: int, prefetch: int, write: Handle | None) -> float:
    """How many messages a second FastStream hands to a handler and acknowledges; there is no inbox.

    Args:
        count: as many are in the queue.
        prefetch: how many are handled at once.
        write: what the handler does with each.
    """
    broker = RabbitBroker(url, default_channel=Channel(prefetch_count=prefetch), logger=None)
    left, all_done = count, asyncio.Event()

    @broker.subscriber(RabbitQueue(QUEUE, declare=False))
    async def handle(thing: Thing) -> None:
        nonlocal left
        if write is not None:
            await write(thing)
        left -= 1
        if not left:
            all_done.set()

    async with broker:  # connected
        began = time.perf_counter()
        await broker.start()
        await asyncio.wait_for(all_done.wait(), ALL_WITHIN_S)
        return count / (time.perf_counter() - began)
