"""What an operator sees and does: queues, outboxes, and messages that nobody could handle or publish.

Whatever an operator does is written down in the same transaction: who, when, what, why.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple, Protocol
from uuid import UUID

from showcase.kernel.errors import Conflict, Invalid, NotFound, Unavailable
from showcase.messaging.application.parked import State
from showcase.messaging.application.parking_lot import Details, Entry, ParkingLot, Place, Unpublished, Which, read_id
from showcase.messaging.application.ports import Transaction
from showcase.messaging.domain import Message

OPERATOR = "operator"
"""Who acts on the command line."""
MAX_REASON = 500
BATCH = 100
"""So many are replayed in one transaction."""
MAX_REPLAYED = 5_000
"""So many are replayed by one request: that takes some seconds."""


class NoSuchMessage(NotFound):
    """There is no such parked message."""


class AlreadySettled(Conflict):
    """The message was replayed or discarded before."""


class NoSuchQueue(Conflict):
    """Nobody consumes the queue that the message came from."""


class BadReason(Invalid):
    """The reason is missing, too long, or more than one line."""


class OutboxState(Protocol):
    """How an outbox is doing: how many wait, how long the oldest has, how many could not be published."""

    @property
    def waiting(self) -> int: ...

    @property
    def oldest(self) -> timedelta | None: ...

    @property
    def parked(self) -> int: ...


class OperatedOutbox(Protocol):
    """An operator's side of an outbox. Each call joins the transaction that is open, and raises Unavailable."""

    async def waiting(self) -> OutboxState: ...

    async def release(self, position: int) -> bool:
        """Let a parked message wait again; False if it is none."""

    async def discard(self, position: int) -> bool:
        """Drop a parked message; False if it is none."""


class Rate(NamedTuple):
    """Messages a second that go into a queue, and that consumers have acknowledged."""

    in_per_s: float
    out_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """How a queue is doing; `rate` is None where nobody has measured it."""

    name: str
    ready: int
    consumers: int
    rate: Rate | None


Depths = Callable[[Sequence[str]], Awaitable[Mapping[str, tuple[int, int]]]]
"""How many messages are ready, and how many consumers there are, by queue. Raises Unavailable."""
Rates = Callable[[], Awaitable[Mapping[str, Rate]]]
"""What the broker has measured, by queue. Raises Unavailable."""


class Replayed(NamedTuple):
    """How many were sent back, and whether more of those that were asked for are left."""

    replayed: int
    more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Operations:
    """All of it. Each call raises Unavailable.

    Args:
        send: puts a message into an outbox, with the transaction that is open.
        outboxes: by schema.
        queues: all that the broker has; `consumed`: those of them with a consumer, to which messages can go back.
    """

    transaction: Transaction
    lot: ParkingLot
    send: Callable[[Message], Awaitable[None]]
    outboxes: Mapping[str, OperatedOutbox]
    queues: Sequence[str]
    consumed: Sequence[str]
    depths: Depths
    rates: Rates | None = None

    # -- to look at

    async def queue_states(self) -> Sequence[QueueState]:
        """Every queue that the broker has; those that nobody has declared yet are left out."""
        depths, rates = await asyncio.gather(self.depths(self.queues), self._rates())
        return [
            QueueState(name=name, ready=depths[name][0], consumers=depths[name][1], rate=rates.get(name))
            for name in self.queues
            if name in depths
        ]

    async def outbox_states(self) -> Mapping[str, OutboxState]:
        """Every outbox, by schema."""
        return {schema: await outbox.waiting() for schema, outbox in self.outboxes.items()}

    async def counts(self) -> Mapping[str, int]:
        """How many messages are parked, by queue: 0 as well; those of unknown queues together as `other`."""
        found = await self.lot.counts()
        other = sum(count for queue, count in found.items() if queue not in self.consumed)
        return {queue: found.get(queue, 0) for queue in self.consumed} | {"other": other}

    async def parked(self, which: Which, before: Place | None, limit: int) -> tuple[Sequence[Entry], Place | None]:
        """One page of parked messages, the newest first, and the place after which the next one begins, if any."""
        found = await self.lot.page(which, before, limit + 1)
        page = found[:limit]
        return page, page[-1].place if len(found) > limit else None

    async def message(self, id_: str) -> Details:
        """One message, settled or not. Raises NoSuchMessage."""
        found = await self.lot.find(self._read(id_))
        if found is None:
            raise NoSuchMessage(f"there is no parked message {id_[:100]!r}: look at the list")
        return found

    # -- to do

    async def replay(self, id_: str, actor: str) -> None:
        """Send one message back: if, and only if, this transaction commits, and once however many ask.

        Raises NoSuchMessage, AlreadySettled, NoSuchQueue.
        """
        async with self.transaction():
            if not await self._replay([id_], actor):
                raise await self._why_not(id_)

    async def replay_all(self, which: Which, actor: str, limit: int = MAX_REPLAYED) -> Replayed:
        """Send back those that are parked now, the oldest first, in transactions of a bounded size.

        One that fails again meanwhile is not sent again. Raises NoSuchQueue.
        """
        known = [*self.consumed, *(f"outbox:{schema}" for schema in self.outboxes)]
        if which.queue is not None and which.queue not in known:
            raise NoSuchQueue(f"there is no queue {which.queue!r} to replay to, only {', '.join(known)}")
        queues = known if which.queue is None else [which.queue]
        replayed = 0
        newest = await self.lot.page(which, None, 1)
        while newest:
            ids = await self.lot.oldest(queues, which.type, newest[0].place, min(BATCH, limit - replayed + 1))
            if replayed >= limit or not ids:
                return Replayed(replayed, bool(ids))
            async with self.transaction():
                done = await self._replay(ids[: limit - replayed], actor)
            replayed += done
            if not done:  # somebody else is replaying these
                return Replayed(replayed, True)
        return Replayed(0, False)

    async def discard(self, id_: str, actor: str, reason: str) -> None:
        """Give one message up, for a reason. Raises NoSuchMessage, AlreadySettled, BadReason."""
        reason = reason.strip()
        if not 1 <= len(reason) <= MAX_REASON or not reason.isprintable():
            raise BadReason(f"say why in one line of up to {MAX_REASON} characters")
        message = self._read(id_)
        async with self.transaction():
            if isinstance(message, Unpublished):
                done = await self.outboxes[message.outbox].discard(message.position)
            else:
                done = bool(await self.lot.settle([message], State.DISCARDED))
            if not done:
                raise await self._why_not(id_)
            await self.lot.act([str(message)], actor=actor, action="discard", reason=reason)

    async def _replay(self, ids: Sequence[str], actor: str) -> int:
        """Send some back in the transaction that is open; how many. Raises NoSuchMessage, NoSuchQueue."""
        messages = [self._read(id_) for id_ in ids]
        settled = await self.lot.settle([one for one in messages if isinstance(one, UUID)], State.REPLAYED)
        for parked in settled:
            if parked.queue not in self.consumed:
                raise NoSuchQueue(f"there is no queue {parked.queue!r} to replay to: discard the message")
            await self.send(parked.again())
        unpublished = [one for one in messages if isinstance(one, Unpublished)]
        released = [str(one) for one in unpublished if await self.outboxes[one.outbox].release(one.position)]
        done = [*(str(parked.parked_id) for parked in settled), *released]
        await self.lot.act(done, actor=actor, action="replay")
        return len(done)

    async def _why_not(self, id_: str) -> AlreadySettled:
        """Why a message could not be settled. Raises NoSuchMessage."""
        entry = (await self.message(id_)).entry
        done = "is at it right now" if entry.state is State.PARKED else f"has {entry.state} it before"
        return AlreadySettled(f"somebody {done}")

    def _read(self, id_: str) -> UUID | Unpublished:
        """What an id names. Raises NoSuchMessage."""
        message = read_id(id_)
        if message is None or (isinstance(message, Unpublished) and message.outbox not in self.outboxes):
            raise NoSuchMessage(f"there is no parked message {id_[:100]!r}: look at the list")
        return message

    async def _rates(self) -> Mapping[str, Rate]:
        try:
            return await self.rates() if self.rates else {}
        except Unavailable:  # depths are what matters
            return {}
