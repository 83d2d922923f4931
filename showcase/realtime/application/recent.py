"""The newest events, as one process has read them: most of those who come back were not away for long."""

import json
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

from showcase.kernel.events import Event
from showcase.realtime.application.ports import Stored
from showcase.realtime.domain import Place, Topic, topics_of


@dataclass(frozen=True, slots=True)
class Known:
    """An event in the stream, and what it belongs to."""

    place: Place
    event: Event | None
    topics: tuple[Topic, ...]
    size: int = 0
    _texts: dict[Topic, str] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, stored: Stored) -> "Known":
        topics = () if stored.event is None else topics_of(stored.event)
        return cls(stored.place, stored.event, topics, stored.size)

    def text(self, event: Event, topic: Topic) -> str:
        """The event as it is told under one of its topics; written once, however many are told, now or later."""
        text = self._texts.get(topic)
        if text is None:
            text = self._texts[topic] = text_of_event(self.place, event, topic)
        return text


def text_of_event(place: Place, event: Event, topic: Topic) -> str:
    """An event as it is told (`messages.Told`); written by hand, since that is done for every event."""
    told = {"type": "event", "topic": topic.name, "id": str(place), "event": {**event.attributes(), "data": event.data}}
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))


class Recent:
    """What comes after a place, without a gap, as long as that is not too far back.

    Args:
        begin: the place after which events were read.
        length: how many are kept; up to twice as many for a while.
        max_bytes: never more than this, and then fewer events.
    """

    def __init__(self, begin: Place, length: int, max_bytes: int) -> None:
        self._length, self._max_bytes = length, max_bytes
        self._bytes = 0
        self._kept = [Known(begin, None, ())]

    @property
    def end(self) -> Place:
        """Up to where the stream was read."""
        return self._kept[-1].place

    def add(self, one: Known) -> None:
        """The next event."""
        self._kept.append(one)
        self._bytes += one.size
        if len(self._kept) > 2 * self._length or self._bytes > self._max_bytes:
            half = len(self._kept) // 2
            self._bytes -= sum(known.size for known in self._kept[:half])
            del self._kept[:half]

    def since(self, after: Place, count: int) -> Sequence[Known] | None:
        """What comes after a place, so many at the most; None if the place is not among what is kept."""
        at = bisect_left(self._kept, after.number, key=lambda one: one.place.number)
        if at == len(self._kept) or self._kept[at].place != after:
            return None
        return self._kept[at + 1 : at + 1 + count]
