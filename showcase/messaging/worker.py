"""What runs in the background: the relay, and consumers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from showcase.messaging.application import Handle, Outbox, Publisher, Verdict, handle_message, relay_once
from showcase.platform.worker import wait

log = structlog.get_logger()

PAUSE_BEFORE_AGAIN_S = 1.0
"""A message whose handler needs a server that is away: others would fare no better, so all wait. It is not given
back meanwhile: the broker counts that as a failed delivery, and would park the message when the limit is reached."""


class Message(Protocol):
    """What a queue hands over."""

    @property
    def attributes(self) -> dict[str, object]: ...

    @property
    def body(self) -> bytes: ...


M = TypeVar("M", bound=Message)
M_contra = TypeVar("M_contra", contravariant=True)


class Queueing(Protocol[M_contra]):
    """The consumer's side of a broker; each call raises Unavailable when the connection is lost."""

    def check(self) -> None: ...

    def acknowledge(self, delivery: M_contra) -> None: ...

    def park(self, delivery: M_contra) -> None: ...


async def relay(
    outboxes: Sequence[Outbox],
    publisher: Publisher,
    woken: Callable[[float], Awaitable[bool]],
    stop: asyncio.Event,
    *,
    batch: int,
    poll_s: float,
) -> None:
    """Move events from outboxes to the broker until `stop` is set.

    Args:
        woken: waits for news of an outbox, so many seconds at the most.
        poll_s: how long an event waits if that news is lost.

    Raises Unavailable.
    """
    while not stop.is_set():
        if not await relay_once(outboxes, publisher, batch):
            await woken(poll_s)


async def consume(
    broker: Queueing[M], deliveries: "asyncio.Queue[M | None]", handle: Handle, stop: asyncio.Event
) -> None:
    """Handle one message after the other until `stop` is set; the one in hand is finished first.

    Args:
        deliveries: what the broker hands over, then None when the connection is lost.

    Raises Unavailable then: whatever was not acknowledged comes again.
    """
    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(lambda _: deliveries.put_nowait(None))
    try:
        while (delivery := await deliveries.get()) is not None and not stop.is_set():
            broker.check()
            while (told := await handle_message(delivery.attributes, delivery.body, handle))[0] is Verdict.AGAIN:
                log.warning("not handled yet", why=told[1], event_id=delivery.attributes.get("id"))
                if await wait(stop, PAUSE_BEFORE_AGAIN_S):
                    return  # not acknowledged: the broker hands it to another consumer
                broker.check()
            if told[0] is Verdict.DONE:
                broker.acknowledge(delivery)
            else:
                log.warning("parked", why=told[1], event_id=delivery.attributes.get("id"))
                broker.park(delivery)
        if not stop.is_set():
            broker.check()
    finally:
        stopping.cancel()
