"""What runs in the background: the relay, and consumers."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

import structlog

from showcase.messaging.application import Handle, Outbox, Publisher, Verdict, handle_message, relay_once
from showcase.platform.worker import wait

log = structlog.get_logger()

PAUSE_BEFORE_AGAIN_S = 1.0
"""A message whose handler needs a server that is away: others would fare no better, so all wait."""


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

    def give_back(self, delivery: M_contra, *, again: bool) -> None: ...


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
            verdict, why = await handle_message(delivery.attributes, delivery.body, handle)
            if verdict is Verdict.DONE:
                broker.acknowledge(delivery)
                continue
            log.warning("not handled", verdict=verdict, why=why, event=delivery.attributes.get("id"))
            if verdict is Verdict.AGAIN:
                await wait(stop, PAUSE_BEFORE_AGAIN_S)
            broker.give_back(delivery, again=verdict is Verdict.AGAIN)
        if not stop.is_set():
            broker.check()
    finally:
        stopping.cancel()
