"""A consumer: takes messages from a queue, has them handled in batches, and settles each by what came of it.

Of a batch, what has to be asked of others is asked at once; then one transaction enters all events into the inbox and
handles one after the other, each within a savepoint. The broker hears of it after the commit. So a crash anywhere
leaves messages that come again, and an inbox that knows which of them were handled.

- A message whose handler fails climbs the retry ladder: a copy waits in another queue, and comes back. Only when the
  broker has taken the copy is the message itself acknowledged. When the ladder ends, or at once if trying again is no
  use, the copy goes to the parking lot.
- A database that is away is nobody's failure: the batch waits for it.
- A message at which the whole transaction fails, such as one that takes too long, is found by handling the messages of
  the batch one by one.
"""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Generic

import structlog

from showcase.kernel import events, trace
from showcase.kernel.acting import Acting, acting
from showcase.kernel.clock import Clock, system_clock
from showcase.kernel.errors import Unavailable
from showcase.kernel.ids import EventId
from showcase.messaging.application.handlers import Handlers, Task
from showcase.messaging.application.ports import D, Inbox, Queueing, Transaction
from showcase.messaging.application.settling import Failure, onward
from showcase.messaging.domain import DEAD, Message, Outcome, Topology
from showcase.platform.worker import Pauses

log = structlog.get_logger()

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 3.0
HANDLED_WITHIN_S = 30.0
"""What one event's `ask`, or its `handle`, may take. Adapters have shorter limits of their own: this one is for those
that have forgotten it, since whoever waits for ever holds up the queue."""


async def consume(
    broker: Queueing[D],
    queue: str,
    handlers: Handlers,
    stop: asyncio.Event,
    *,
    topology: Topology,
    inbox: Inbox | None = None,
    transaction: Transaction = nullcontext,
    savepoint: Transaction = nullcontext,
    prefetch: int,
    batch: int,
) -> None:
    """Handle a queue's messages until `stop` is set; the batch in hand is finished first, the others handed back.

    Args:
        inbox: remembers what was handled. Without one a message may be handled twice, and so its work has to be the
            same, done twice.
        transaction: of the database that the inbox is in, and the handlers write to.
        savepoint: a part of that transaction.
        prefetch: how many messages may be here at once.
        batch: how many of them are handled in one transaction, at the most.

    Raises Unavailable when the broker is away: whatever was not acknowledged then comes again.
    """
    consumer = _Consumer(broker, queue, handlers, stop, topology, inbox, transaction, savepoint)
    deliveries = await broker.consume(queue, prefetch)
    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(lambda _: deliveries.put_nowait(None))  # wakes `_take`
    try:
        while not stop.is_set() and (taken := await _take(deliveries, batch)):
            broker.check()
            await consumer.settle(taken)
        if not stop.is_set():
            broker.check()
            raise Unavailable(f"rabbitmq hands over no more messages of {queue!r}")
        await consumer.finish()
        await broker.hand_back()
    finally:
        stopping.cancel()
        await consumer.abandon()


async def _take(deliveries: "asyncio.Queue[D | None]", limit: int) -> Sequence[D]:
    """What is there, as soon as there is something; nothing when there will be no more."""
    taken: list[D] = []
    while len(taken) < limit and not (taken and deliveries.empty()):
        delivery = await deliveries.get()
        if delivery is None:
            return []  # what was taken is not acknowledged, and so comes again
        taken.append(delivery)
    return taken


@dataclass(slots=True)
class _Work(Generic[D]):
    """An event to be handled, with all deliveries of it in this batch: it is handled once."""

    task: Task
    deliveries: list[D] = field(default_factory=list)
    failure: Failure | None = None
    is_done: bool = False

    @property
    def id(self) -> EventId:
        return self.task.event.id


class _Stopped(Exception):
    """Told to stop while waiting for the database."""


@dataclass(slots=True)
class _Consumer(Generic[D]):
    broker: Queueing[D]
    queue: str
    handlers: Handlers
    stop: asyncio.Event
    topology: Topology
    inbox: Inbox | None
    transaction: Transaction
    savepoint: Transaction
    clock: Clock = system_clock
    moving: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def settle(self, taken: Sequence[D]) -> None:
        """Handle a batch of messages, and tell the broker what became of them."""
        works: dict[EventId, _Work[D]] = {}
        failed: list[tuple[D, Failure]] = []
        for delivery in taken:
            try:
                task = self.handlers.read(delivery.attributes, delivery.body)
            except Exception as error:
                failed.append((delivery, Failure.of(error)))
            else:
                works.setdefault(task.event.id, _Work(task)).deliveries.append(delivery)
        with suppress(_Stopped):
            await self._handle(list(works.values()))
        self.broker.acknowledge([one for work in works.values() if work.is_done for one in work.deliveries])
        failed += [(one, work.failure) for work in works.values() if work.failure for one in work.deliveries]
        if failed:
            now = self.clock()
            copies = [(one, onward(one, self.queue, failure, self.topology, now)) for one, failure in failed]
            moving = asyncio.create_task(self._move(copies))
            self.moving.add(moving)
            moving.add_done_callback(self.moving.discard)

    # -- handling

    async def _handle(self, works: Sequence[_Work[D]]) -> None:
        """Have each done, or know its failure. Raises _Stopped: then some are neither."""
        seen = await self._seen([work.id for work in works])
        for work in works:
            work.is_done = work.id in seen
        if again := sum(len(work.deliveries) - (not work.is_done) for work in works):
            log.info("came again", queue=self.queue, messages=again)
        fresh = [work for work in works if not work.is_done]
        await asyncio.gather(*(self._ask(work) for work in fresh))
        ready = [work for work in fresh if work.failure is None]
        try:
            await self._commit(ready)
        except Exception as error:
            log.warning("handled one by one", queue=self.queue, why=Failure.of(error).reason, events=len(ready))
            for work in ready:
                await self._handle_alone(work)

    async def _handle_alone(self, work: _Work[D]) -> None:
        """Have it done, or know its failure, as soon as the database answers. Raises _Stopped."""
        while True:
            await self._seen([work.id])
            try:
                await self._commit([work])
            except Exception as error:
                if not await self._answers(work):
                    continue
                work.failure = Failure.of(error)  # the database is not to blame
            return

    async def _ask(self, work: _Work[D]) -> None:
        try:
            with events.handling(work.task.event):
                async with asyncio.timeout(HANDLED_WITHIN_S):
                    await work.task.ask()
        except Exception as error:
            work.failure = Failure.of(error)

    async def _commit(self, works: Sequence[_Work[D]]) -> None:
        """Handle some events in one transaction. Raises whatever it fails with: then none of them was handled."""
        if not works:
            return
        failures: dict[EventId, Failure] = {}
        async with self.transaction():
            ids = [work.id for work in works]
            entered = set(ids) if self.inbox is None else await self.inbox.enter(ids)
            for work in works:
                if work.id in entered and (failure := await self._attempt(work.task)):
                    failures[work.id] = failure
                    if self.inbox is not None:
                        await self.inbox.leave(work.id)  # fails, and so the transaction, if the connection was lost
        for work in works:
            work.failure = failures.get(work.id)
            work.is_done = work.failure is None

    async def _attempt(self, task: Task) -> Failure | None:
        try:
            with events.handling(task.event), acting(self._acting(task.event)):
                async with asyncio.timeout(HANDLED_WITHIN_S), self.savepoint():
                    await task.handle()
        except Exception as error:
            return Failure.of(error)
        return None

    def _acting(self, event: events.Event) -> Acting:
        """Who changes what an event makes change: this consumer, for the sake of the request that the event came of."""
        return Acting(
            actor=f"services/{self.queue}",
            request_id=event.correlation_id,
            reason=f"{event.type} {event.id}",
            traceparent=trace.current(),
        )

    # -- a database that is away

    async def _seen(self, ids: Sequence[EventId]) -> set[EventId]:
        """Those that were handled before; waits until the database answers. Raises _Stopped."""
        pauses = Pauses(self.stop, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while self.inbox is not None:
            try:
                return await self.inbox.seen(ids)
            except Unavailable as error:
                log.warning("waiting for the database", queue=self.queue, why=error.detail)
            if await pauses.stopped():
                raise _Stopped
        return set()

    async def _answers(self, work: _Work[D]) -> bool:
        """Whether the database answers now."""
        try:
            if self.inbox is not None:
                await self.inbox.seen([work.id])
        except Unavailable:
            return False
        return True

    # -- what could not be handled

    async def _move(self, copies: Sequence[tuple[D, Message]]) -> None:
        """Send copies on, and acknowledge each original whose copy was taken; what was refused is sent again later.

        The consumer goes on meanwhile: what waits here is limited by the prefetch. When the connection is lost, all of
        them come again.
        """
        pauses = Pauses(self.stop, FIRST_PAUSE_S, LONGEST_PAUSE_S)
        while copies:
            try:
                outcomes = await self.broker.publish([copy for _, copy in copies])
                moved = [one for one, outcome in zip(copies, outcomes, strict=True) if outcome is Outcome.TAKEN]
                self.broker.acknowledge([delivery for delivery, _ in moved])
                for _, copy in moved:
                    _log_moved(self.queue, copy)
                copies = [one for one, outcome in zip(copies, outcomes, strict=True) if outcome is not Outcome.TAKEN]
                why = ", ".join(sorted(set(outcomes) - {Outcome.TAKEN}))
            except Exception as error:
                why = Failure.of(error).reason
            if copies:
                log.warning("not moved yet", queue=self.queue, why=why, messages=len(copies))
            if copies and await pauses.stopped():
                return

    async def finish(self) -> None:
        """Wait for what is on its way; what the broker has refused is not sent again."""
        await asyncio.gather(*self.moving)

    async def abandon(self) -> None:
        """Move no more."""
        for moving in self.moving:
            moving.cancel()
        await asyncio.gather(*self.moving, return_exceptions=True)


def _log_moved(queue: str, copy: Message) -> None:
    is_parked = copy.route.exchange == DEAD
    log.warning(
        "parked" if is_parked else "tried again later",
        queue=queue,
        event_id=copy.attributes.get("id"),
        why=copy.headers["x-reason"],
        attempt=copy.headers["x-attempt"],
    )
