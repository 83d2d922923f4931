"""The keeper of the parking lot: moves what arrives in its queue to where it can be listed, replayed and discarded."""

import asyncio

import structlog

from showcase.messaging.application.parked import Parked
from showcase.messaging.application.parking_lot import ParkingLot
from showcase.messaging.application.ports import D, Queueing

log = structlog.get_logger()

BATCH = 20
"""Messages out at once, and kept in one transaction: few, since each may have the largest body that there is."""
BATCH_BYTES = 8_000_000
"""No further message is added to a batch of so many bytes: a transaction has a deadline."""


async def ingest(broker: Queueing[D], queue: str, lot: ParkingLot, stop: asyncio.Event) -> None:
    """Keep what arrives in the parking lot, until `stop` is set; the batch in hand is finished first.

    A message is kept first and acknowledged after it: one that comes again in between is the same message still.
    Raises Unavailable when the broker or the database is away.
    """
    deliveries = await broker.consume(queue, BATCH)
    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(lambda _: deliveries.put_nowait(None))  # wakes `get`
    try:
        while not stop.is_set():
            batch = await _next(deliveries)
            if not batch:
                break
            new = await lot.add([Parked.of(delivery) for delivery in batch])
            broker.acknowledge(batch)
            log.info("kept", messages=len(batch), new=new)
        if not stop.is_set():
            broker.check()  # says why there are no more
        await broker.hand_back()
    finally:
        stopping.cancel()


async def _next(deliveries: "asyncio.Queue[D | None]") -> list[D]:
    """What is there, as soon as something is; nothing when no more will come."""
    batch: list[D] = []
    size = 0
    delivery = await deliveries.get()
    while delivery is not None:
        batch.append(delivery)
        size += len(delivery.body)
        if len(batch) == BATCH or size >= BATCH_BYTES or deliveries.empty():
            break
        delivery = deliveries.get_nowait()
    else:
        if batch:
            deliveries.put_nowait(None)  # for the next call
    return batch
