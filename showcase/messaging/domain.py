"""What queues there are and who gets which messages: one typed description, from which the broker is set up.

An event goes to the exchange `events`, and from there to each queue whose consumer takes its type. What a consumer
fails at climbs the retry ladder: a queue without a consumer for each rung, in which a message waits until its time is
up and then goes straight back. An event that is told later waits likewise, and then goes to `events`. What nobody can
handle is parked.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

EVENTS = "events"
"""The exchange that all events go to; the routing key is the event's type."""
DEAD = "dead"
"""The exchange of messages that nobody could handle."""
PARKING = "parking"
"""The queue behind it: the parking lot."""
ATTRIBUTE = "cloudEvents:"
"""What the headers of an event's attributes begin with (CloudEvents AMQP binding, binary mode)."""
DEFAULT_EXCHANGE = ""
"""AMQP's own: its routing key is the name of a queue."""

DELIVERY_LIMIT = 50
"""A guard against a message that kills its consumer each time. It also counts deliveries of messages that were
only waiting in a consumer that died, so it is far above any number of honest tries."""
MAX_LENGTH = 100_000
"""Every queue has a limit. When it is reached the broker refuses, and events wait in the outbox."""
MAX_ATTRIBUTES_BYTES = 64_000
"""All headers of a message have to fit into one AMQP frame, of 131,072 bytes."""

Arguments = Mapping[str, str | int]


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message is sent."""

    exchange: str
    key: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message on its way, as it is stored and sent: nothing in it is read again.

    Attributes:
        attributes: of CloudEvents, its data apart.
        headers: what we say of the delivery rather than of the event: `x-attempt`, `x-reason` …
    """

    attributes: Mapping[str, str]
    body: bytes
    route: Route
    headers: Mapping[str, str | int] = field(default_factory=dict)


class Outcome(StrEnum):
    """What the broker said to a message."""

    TAKEN = "taken"
    REFUSED = "refused"
    """A queue is full: the same message may be taken later."""
    UNROUTABLE = "no queue takes it"
    TOO_LARGE = "it is too large"


@dataclass(frozen=True, slots=True)
class Exchange:
    name: str
    type: str


@dataclass(frozen=True, slots=True)
class Declared:
    """A queue as the broker knows it."""

    name: str
    arguments: Arguments


@dataclass(frozen=True, slots=True)
class Binding:
    exchange: str
    queue: str
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One consumer's queue.

    Attributes:
        types: the events it takes; `*` stands for one word, `#` for any number (AMQP topic exchange).
    """

    name: str
    types: Sequence[str]

    def takes(self, type_: str) -> bool:
        """Whether it gets events of a type."""
        return any(takes(pattern, type_) for pattern in self.types)


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """All that is declared in the broker.

    Attributes:
        retries: how long a message waits before each further try, the shortest first.
        delays: how much later an event can be told.
    """

    queues: Sequence[Queue]
    retries: Sequence[timedelta] = ()
    delays: Sequence[timedelta] = ()

    def queue(self, name: str) -> Queue:
        """Raises LookupError for a queue that is none."""
        for queue in self.queues:
            if queue.name == name:
                return queue
        raise LookupError(f"there is no queue {name!r}, only {', '.join(queue.name for queue in self.queues)}")

    # -- ways through it

    def retry(self, queue: str, attempt: int) -> Route | None:
        """The way back into a queue after so many attempts (1 is the first); None when the ladder ends."""
        return Route(_retry(self.retries[attempt - 1]), queue) if attempt <= len(self.retries) else None

    def later(self, type_: str, after: timedelta) -> Route:
        """The way of an event that is told later. Raises LookupError for a delay that is not declared."""
        if after not in self.delays:
            known = ", ".join(_seconds(delay) for delay in self.delays) or "none"
            raise LookupError(f"events can be told later by {known}, not by {_seconds(after)}")
        return Route(_delay(after), type_)

    # -- what there is to declare

    def exchanges(self) -> Iterator[Exchange]:
        yield Exchange(EVENTS, "topic")
        yield Exchange(DEAD, "fanout")
        for name in self._waiting():
            yield Exchange(name, "fanout")  # and so the routing key stays what it was: where to go afterwards

    def declared(self) -> Iterator[Declared]:
        for queue in self.queues:
            limit = {"x-delivery-limit": DELIVERY_LIMIT}
            yield Declared(queue.name, {**_limits(), **_dead_letters_to(DEAD), **limit})
        yield Declared(PARKING, _limits())
        for name, (delay, then) in self._waiting().items():
            yield Declared(name, {**_limits(), **_dead_letters_to(then), "x-message-ttl": _milliseconds(delay)})

    def bindings(self) -> Iterator[Binding]:
        for queue in self.queues:
            for type_ in queue.types:
                yield Binding(EVENTS, queue.name, type_)
        yield Binding(DEAD, PARKING)
        for name in self._waiting():
            yield Binding(name, name)

    def _waiting(self) -> dict[str, tuple[timedelta, str]]:
        """The queues in which messages wait: for how long, and to which exchange they go then."""
        retries = {_retry(delay): (delay, DEFAULT_EXCHANGE) for delay in self.retries}
        return retries | {_delay(delay): (delay, EVENTS) for delay in self.delays}


def straight_to(queue: str) -> Route:
    """The way into one queue and no other."""
    return Route(DEFAULT_EXCHANGE, queue)


def takes(pattern: str, type_: str) -> bool:
    """Whether a binding with this pattern takes events of a type (AMQP 0-9-1, topic exchange)."""
    return _takes(pattern.split("."), type_.split("."))


def _takes(pattern: list[str], words: list[str]) -> bool:
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(_takes(pattern[1:], words[skipped:]) for skipped in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and _takes(pattern[1:], words[1:])


def _limits() -> dict[str, str | int]:
    """What holds for every queue: replicated, bounded, and no message ever dropped."""
    return {"x-queue-type": "quorum", "x-max-length": MAX_LENGTH, "x-overflow": "reject-publish"}


def _dead_letters_to(exchange: str) -> dict[str, str | int]:
    return {"x-dead-letter-exchange": exchange, "x-dead-letter-strategy": "at-least-once"}


def _retry(delay: timedelta) -> str:
    return f"retry.{_seconds(delay)}"


def _delay(delay: timedelta) -> str:
    return f"delay.{_seconds(delay)}"


def _milliseconds(delay: timedelta) -> int:
    return round(delay / timedelta(milliseconds=1))


def _seconds(delay: timedelta) -> str:
    """`0.5s`: the name says how long, so another setting is another queue, and no mismatch."""
    return f"{_milliseconds(delay) / 1000:g}s"
