"""One connection: what waits to be sent, within bounds; what it follows, whose it is, and why it ends."""

import asyncio
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

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


class _Waits(NamedTuple):
    """Attributes: number: in the order of which things are sent; id: of an event, empty for anything else."""

    number: int
    text: str
    topic: str = ""
    id: str = ""


class Client:
    """What one connection is told. Putting something in waits for nobody.

    For each policy there is a lane of its own, of `QUEUE_LENGTH`, so that a flood in one topic costs no event of
    another; they are sent in the order in which they came. Answers go before events: they are few, and somebody waits.

    Args:
        at_once: sends a text if the connection has room for it, and says whether. What is told to whoever keeps up then
            costs neither a place in a lane nor a switch of tasks.
    """

    def __init__(self, at_once: Callable[[str], bool] = lambda _: False) -> None:
        self.topics: set[Topic] = set()
        self.principal: Principal | None = None
        self.told_up_to: Place | None = None
        """After catching up: what the hub delivers up to here was told already."""
        self.catching_up: asyncio.Task[None] | None = None
        self.resuming: set[Topic] = set()
        """What it catches up with, and follows after that."""
        self.closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self.dropped = 0
        self.window: int | None = None
        self._at_once = at_once
        self._numbers = count()
        self._answers: deque[str] = deque()
        self._lanes: defaultdict[Policy, OrderedDict[int | str, _Waits]] = defaultdict(OrderedDict)
        self._to_tell: Counter[str] = Counter()  # what was dropped and not told yet, by topic
        self._unacknowledged: deque[str] = deque()
        self._asleep: asyncio.Future[None] | None = None  # an asyncio.Event takes twice as long, with each message
        self._room = asyncio.Event()

    @property
    def waiting(self) -> int:
        """How much waits to be sent."""
        return len(self._answers) + sum(map(len, self._lanes.values()))

    def answer(self, message: Said) -> None:
        """Have an answer sent."""
        if len(self._answers) < QUEUE_LENGTH:
            self._answers.append(text_of(message))
            self._wake()
        else:
            self.close(TRY_AGAIN_LATER, f"more than {QUEUE_LENGTH} answers were waiting to be read", at_once=True)

    def mark(self, message: Subscribed | Reset) -> None:
        """Have a message sent that has its place among the events."""
        self._put(Policy.DISCONNECT, _Waits(next(self._numbers), text_of(message)))

    def tell(self, topic: Topic, subject: str, place: str, text: str) -> None:
        """Have an event sent, or what its topic's policy does instead."""
        if self._is_idle() and self._at_once(text):
            self._note_sent(place)
            return
        self._put(topic.policy, _Waits(next(self._numbers), text, topic.name, place), subject)

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
        self._wake()

    def _is_idle(self) -> bool:
        """Whether all was sent, and whoever sends waits for more."""
        if self._asleep is None or self._asleep.done():
            return False
        return not (any(self._lanes.values()) or self._to_tell or self._is_full())

    def _wake(self) -> None:
        if self._asleep is not None and not self._asleep.done():
            self._asleep.set_result(None)

    async def next(self) -> str | None:
        """What is to be sent next; None when that was all and the connection is to be closed."""
        while True:
            if self._answers:
                return self._answers.popleft()
            lane = self._next_lane()
            if lane is not None and (self.closing.done() or not self._is_full()):
                return self._taken(lane)
            if self.closing.done():
                return None
            self._asleep = asyncio.get_running_loop().create_future()
            await self._asleep

    def _next_lane(self) -> "OrderedDict[int | str, _Waits] | None":
        found = None
        for lane in self._lanes.values():
            if lane and (found is None or _first(lane).number < _first(found).number):
                found = lane
        return found

    def _taken(self, lane: "OrderedDict[int | str, _Waits]") -> str:
        if self._to_tell and (topic := _first(lane).topic) in self._to_tell:
            return text_of(Dropped(topic=topic, count=self._to_tell.pop(topic)))
        _, one = lane.popitem(last=False)
        if one.id:
            self._note_sent(one.id)
        self._room.set()
        return one.text

    def _note_sent(self, id_: str) -> None:
        if self.window is not None:
            self._unacknowledged.append(id_)

    def _is_full(self) -> bool:
        return self.window is not None and len(self._unacknowledged) >= self.window

    def acknowledge(self, id_: str) -> None:
        """An event, and all before it, are handled; harmless for one that was not told, or is acknowledged already."""
        if id_ in self._unacknowledged:
            while self._unacknowledged.popleft() != id_:
                pass
            self._wake()

    async def room(self) -> None:
        """Wait until half of what may wait is sent, or the connection is to be closed."""
        while not self.has_room:
            self._room.clear()
            await self._room.wait()

    @property
    def has_room(self) -> bool:
        """See `room`."""
        return len(self._lanes[Policy.DISCONNECT]) <= QUEUE_LENGTH // 2 or self.closing.done()

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
        self._wake()
        self._room.set()


def _first(lane: "OrderedDict[int | str, _Waits]") -> _Waits:
    return next(iter(lane.values()))
