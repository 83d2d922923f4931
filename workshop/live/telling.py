"""Events told to the stream directly, as the worker `realtime` does it: for experiments that need thousands of them."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from showcase.kernel.events import Event
from showcase.kernel.ids import new_uuid
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.realtime import wiring

Tell = Callable[[Sequence[Event]], Awaitable[list[float]]]


@asynccontextmanager
async def telling(settings: Settings) -> AsyncIterator[Tell]:
    """What tells events, one after the other, and returns when each was in the stream (Unix time)."""
    async with Resources(settings) as resources:
        publish = wiring.publisher(resources)

        async def tell(events: Sequence[Event]) -> list[float]:
            told = []
            for event in events:
                await publish(event)
                told.append(time.time())
            return told

        yield tell


def order_event(household: int, number: int = 0, text: str = "") -> Event:
    """An event of an order of a household.

    Args:
        text: makes it as long as wanted.
    """
    data: dict[str, Any] = {"household_id": household, "number": number, "text": text}
    return Event(type="shop.order.paid.v1", source="/lesson", subject=f"orders/{new_uuid()}", data=data)


def product_event(product: int, version: int, text: str = "") -> Event:
    """An event of a product that has changed."""
    data: dict[str, Any] = {"product_id": product, "version": version, "text": text}
    return Event(type="shop.product.changed.v1", source="/lesson", subject=f"products/{product}", data=data)
