"""Topics: what a client can follow, who may, and which topics an event belongs to. Places: where in the stream."""

import re
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from showcase.kernel.errors import Forbidden, Invalid
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope

_NUMBER = re.compile(r"[1-9][0-9]{0,17}")
_PLACE = re.compile(r"([0-9a-f]{8})-([0-9]{1,15})-([0-9]{1,9})", re.ASCII)


class UnknownTopic(Invalid):
    """There is no such topic."""


class UnknownPlace(Invalid):
    """This is no place in the stream."""


class NotYourTopic(Forbidden):
    """This topic is someone else's."""


class Policy(StrEnum):
    """What becomes of the events that a client does not take in time."""

    DISCONNECT = "disconnect"
    """It is closed with 1013, and comes back for what it missed: nothing is lost."""
    COALESCE = "coalesce"
    """Of each subject only the latest waits."""
    DROP_OLDEST = "drop-oldest"
    """The oldest are dropped, and the client is told how many."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What a client can follow.

    Every order (`orders`), one (`orders/{uuid}`), one household's (`households/{n}`); the products that change
    (`catalogue`); all there is (`ops`).
    """

    name: str

    @classmethod
    def read(cls, text: str) -> "Topic":
        """The topic as everybody spells it. Raises UnknownTopic."""
        kind, _, identifier = text.partition("/")
        if text in _WHOLE or (kind == "households" and _NUMBER.fullmatch(identifier)):
            return cls(text)
        try:
            if kind == "orders":
                return cls(f"orders/{UUID(identifier)}")
        except ValueError:
            pass
        raise UnknownTopic("there are orders, orders/{uuid}, households/{number}, catalogue and ops")

    @property
    def order_id(self) -> UUID | None:
        """The order, if the topic is one order's."""
        kind, _, identifier = self.name.partition("/")
        return UUID(identifier) if kind == "orders" and identifier else None

    @property
    def policy(self) -> Policy:
        """What becomes of its events when a client is slow."""
        return _POLICIES.get(self.name, Policy.DISCONNECT)


ALL_ORDERS, CATALOGUE, OPS = Topic("orders"), Topic("catalogue"), Topic("ops")
_WHOLE = {topic.name for topic in (ALL_ORDERS, CATALOGUE, OPS)}
_POLICIES = {CATALOGUE.name: Policy.COALESCE, OPS.name: Policy.DROP_OLDEST}


def may_follow(principal: Principal, topic: Topic, owner: int | None) -> bool:
    """Whether a caller may follow a topic.

    A household may follow what is its own, `orders:follow` all orders, `support` all there is, anybody the catalogue.

    Args:
        owner: the household whose order the topic is of; None if it is of no order, or of one that is not there.
    """
    if topic == CATALOGUE:
        return True
    if topic == OPS:
        return Scope.SUPPORT in principal.scopes
    if Scope.ORDERS_FOLLOW in principal.scopes:
        return True
    household = principal.household_id
    return household is not None and (household == owner or topic.name == f"households/{household}")


def topics_of(event: Event) -> tuple[Topic, ...]:
    """Every topic that an event belongs to, the narrowest first."""
    found = []
    is_order = event.subject.startswith("orders/")
    if is_order:
        found.append(Topic(event.subject))
    household = event.data.get("household_id")
    if isinstance(household, int):
        found.append(Topic(f"households/{household}"))
    if is_order:
        found.append(ALL_ORDERS)
    if event.subject.startswith("products/"):
        found.append(CATALOGUE)
    return (*found, OPS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where an event is in the stream: `5f3a91c2-1764410400000-0`.

    Attributes:
        epoch: another one since the stream was made anew, or lost its end: its numbers may have been given twice.
        number: grows from one event to the next; milliseconds, and a counter within them.
    """

    epoch: str
    number: tuple[int, int]

    @classmethod
    def read(cls, text: str) -> "Place":
        """Raises UnknownPlace."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise UnknownPlace("a place is the id of an event, as it was told")
        return cls(found[1], (int(found[2]), int(found[3])))

    def __str__(self) -> str:
        return f"{self.epoch}-{self.number[0]}-{self.number[1]}"

    def is_after(self, other: "Place") -> bool:
        """Whether this comes later, in the same epoch."""
        return self.epoch == other.epoch and self.number > other.number
