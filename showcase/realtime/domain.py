"""Topics: what a client can follow, who may, and which topics an event belongs to."""

import re
from dataclasses import dataclass
from uuid import UUID

from showcase.kernel.errors import Forbidden, Invalid
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal, Scope

_HOUSEHOLD = re.compile(r"[1-9][0-9]{0,17}")


class UnknownTopic(Invalid):
    """There is no such topic."""


class NotYourTopic(Forbidden):
    """This topic is someone else's."""


@dataclass(frozen=True, slots=True)
class Topic:
    """What a client can follow: every order (`orders`), one (`orders/{uuid}`), one household's (`households/{n}`)."""

    name: str

    @classmethod
    def read(cls, text: str) -> "Topic":
        """The topic as everybody spells it. Raises UnknownTopic."""
        kind, _, identifier = text.partition("/")
        if text == "orders" or (kind == "households" and _HOUSEHOLD.fullmatch(identifier)):
            return cls(text)
        try:
            if kind == "orders":
                return cls(f"orders/{UUID(identifier)}")
        except ValueError:
            pass
        raise UnknownTopic("there are orders, orders/{uuid} and households/{number}")

    @property
    def order_id(self) -> UUID | None:
        """The order, if the topic is one order's."""
        kind, _, identifier = self.name.partition("/")
        return UUID(identifier) if kind == "orders" and identifier else None


ALL_ORDERS = Topic("orders")


def may_follow(principal: Principal, topic: Topic, owner: int | None) -> bool:
    """Whether a caller may follow a topic: a household what is its own, `orders:follow` everything.

    Args:
        owner: the household whose order the topic is of; None if it is of no order, or of one that is not there.
    """
    if Scope.ORDERS_FOLLOW in principal.scopes:
        return True
    household = principal.household_id
    return household is not None and (household == owner or topic.name == f"households/{household}")


def topics_of(event: Event) -> tuple[Topic, ...]:
    """Every topic that an event belongs to, the narrowest first."""
    found = []
    if event.subject.startswith("orders/"):
        found.append(Topic(event.subject))
    household = event.data.get("household_id")
    if isinstance(household, int):
        found.append(Topic(f"households/{household}"))
    if event.subject.startswith("orders/"):
        found.append(ALL_ORDERS)
    return tuple(found)
