"""What queues there are, and who gets which events: one typed description, from which the broker is set up."""

from collections.abc import Sequence
from dataclasses import dataclass

EVENTS = "events"
"""The exchange that all events go to; the routing key is the event's type."""
DEAD = "dead"
"""The exchange of messages that nobody could handle."""
PARKING = "parking"
"""The queue behind it: they wait there for a person, with the reason in their headers."""

DELIVERY_LIMIT = 50
"""A guard against a message that kills its consumer each time. It also counts deliveries of messages that were
only waiting in a consumer that died, so it is far above any number of honest tries."""
MAX_LENGTH = 100_000
"""Every queue has a limit. When it is reached the broker refuses, and events wait in the outbox."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One consumer's queue.

    Attributes:
        types: the events it takes; `*` stands for one word, `#` for any number (AMQP topic exchange).
    """

    name: str
    types: Sequence[str]

    @property
    def arguments(self) -> dict[str, str | int]:
        """Of `queue.declare`: replicated, bounded, and no message ever dropped."""
        return {
            **limits(),
            "x-delivery-limit": DELIVERY_LIMIT,
            "x-dead-letter-exchange": DEAD,
            "x-dead-letter-strategy": "at-least-once",
        }


def limits() -> dict[str, str | int]:
    """What holds for every queue, the parking lot's included."""
    return {"x-queue-type": "quorum", "x-max-length": MAX_LENGTH, "x-overflow": "reject-publish"}


@dataclass(frozen=True, slots=True)
class Topology:
    """All that is declared in the broker."""

    queues: Sequence[Queue]

    def queue(self, name: str) -> Queue:
        """Raises LookupError for a queue that is none."""
        for queue in self.queues:
            if queue.name == name:
                return queue
        raise LookupError(f"there is no queue {name!r}, only {', '.join(queue.name for queue in self.queues)}")
