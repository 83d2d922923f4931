"""One connection: what waits to be sent, within bounds; what it follows, whose it is, and why it ends."""

import asyncio
from collections import Counter, OrderedDict, deque
from dataclasses import dataclass

from showcase.kernel.principal import Principal
from showcase.realtime.application.messages import Dropped, Reset, Said, Subscribed, text_of
from showcase.realtime.domain import Place, Policy, Topic

QUEUE_LENGTH = 256

GOING_AWAY = 1001
POLICY_VIOLATION = 1008
TOO_BIG = 1009
INTERNAL_ERROR = 1011
RESTARTING = 1012
TRY_AGAIN_LATER = 1013


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a connection ends (RFC 6455 §7.4)."""

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Waits:
    """Attributes: number: in the order of which things are sent; id: of an event, empty for anything else."""

    number: int
    text: str
    topic: str = ""
    id: str = ""


class Client:
    """What one connection is told. Putting something in waits for nobody.

    For each policy there is a lane of its own, of `QUEUE_LENGTH`, so that a flood in one topic costs no event of
    another; they are sent in the order in which they came. Answers go before events: they are few, and somebody waits.
    """

    def __init__(self) -> None:
        self.topics: set[Topic] = set()
        self.principal: Principal | None = None
        self.told_up_to: Place | None = None
        """After catching up: what the hub delivers up to here was told already."""
        self.catching_up: asyncio.Task[None] | None = None
        self.closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self.dropped = 0
        self.window: int | None = None
        self._number = 0
        self._answers: deque[str] = deque()
        self._lanes: dict[Policy, OrderedDict[int | str, _Waits]] = {policy: OrderedDict() for policy in Policy}
        self._to_tell: Counter[str] = Counter()  # what was dropped and not told yet, by topic
        self._unacknowledged: deque[str] = deque()
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How much waits to be sent."""
        return len(self._answers) + sum(map(len, self._lanes.values()))

    def answer(self, message: Said) -> None:
        """Have an answer sent."""
        if len(self._answers) < QUEUE_LENGTH:
            self._answers.append(text_of(message))
            self._news.set()
        else:
            self.close(TRY_AGAIN_LATER, f"more than {QUEUE_LENGTH} answers were waiting to be read", at_once=True)

    def mark(self, message: Subscribed | Reset) -> None:
        """Have a message sent that has its place among the events."""
        self._put(Policy.DISCONNECT, _Waits(self._next_number(), text_of(message)))

    def tell(self, topic: Topic, subject: str, place: str, text: str) -> None:
        """Have an event sent, or what its topic's policy does instead."""
        self._put(topic.policy, _Waits(self._next_number(), text, topic.name, place), subject)

    def _put(self, policy: Policy, one: _Waits, subject: str = "") -> None:
        if self.closing.done():
            return
        lane = self._lanes[policy]
        key = subject if policy is Policy.COALESCE else one.number
        lane.pop(key, None)
        if len(lane) >= QUEUE_LENGTH:
            if policy is Policy.DISCONNECT:
                self.close(TRY_AGAIN_LATER, f"more than {QUEUE_LENGTH} events were waiting to be read", at_once=True)
                return
            _, oldest = lane.popitem(last=False)
            self._to_tell[oldest.topic] += 1
            self.dropped += 1
        lane[key] = one
        self._news.set()

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    async def next(self) -> str | None:
        """What is to be sent next; None when that was all and the connection is to be closed."""
        while True:
            if self._answers:
                return self._answers.popleft()
            lane = min(filter(None, self._lanes.values()), key=lambda lane: _first(lane).number, default=None)
            if lane is not None and (self.closing.done() or not self._is_full()):
                return self._taken(lane)
            if self.closing.done():
                return None
            self._news.clear()
            await self._news.wait()

    def _taken(self, lane: "OrderedDict[int | str, _Waits]") -> str:
        if self._to_tell and (topic := _first(lane).topic) in self._to_tell:
            return text_of(Dropped(topic=topic, count=self._to_tell.pop(topic)))
        _, one = lane.popitem(last=False)
        if one.id and self.window is not None:
            self._unacknowledged.append(one.id)
        self._room.set()
        return one.text

    def _is_full(self) -> bool:
        return self.window is not None and len(self._unacknowledged) >= self.window

    def acknowledge(self, id_: str) -> None:
        """An event, and all before it, are handled; harmless for one that was not told, or is acknowledged already."""
        if id_ in self._unacknowledged:
            while self._unacknowledged.popleft() != id_:
                pass
            self._news.set()

    async def room(self) -> None:
        """Wait until half of what may wait is sent, or the connection is to be closed."""
        while len(self._lanes[Policy.DISCONNECT]) > QUEUE_LENGTH // 2 and not self.closing.done():
            self._room.clear()
            await self._room.wait()

    def close(self, code: int, reason: str, *, at_once: bool = False) -> None:
        """Have the connection closed; the first reason counts.

        Args:
            at_once: what waits is not sent any more, rather than sent first.
        """
        if at_once:
            self._answers.clear()
            for lane in self._lanes.values():
                lane.clear()
        if not self.closing.done():
            self.closing.set_result(Closing(code, reason))
        self._news.set()
        self._room.set()


def _first(lane: "OrderedDict[int | str, _Waits]") -> _Waits:
    return next(iter(lane.values()))
