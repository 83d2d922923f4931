"""What becomes of a message that could not be handled: it climbs the retry ladder, and is parked when that ends.

Nothing here talks to anybody: from a delivery and what went wrong come the message by which it goes on.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from showcase.messaging.application.handlers import Unhandleable, is_permanent
from showcase.messaging.application.parked import text_of
from showcase.messaging.application.ports import Delivery
from showcase.messaging.domain import DEAD, MAX_ATTRIBUTES_BYTES, Message, Route, Topology

MAX_REASON = 300
"""Characters."""
MAX_ATTEMPT = 1_000
"""A number above it is no attempt that we have counted."""
ROOM_BYTES = MAX_ATTRIBUTES_BYTES // 3
"""For copied attributes, for copied headers, and for what we add."""
CUT = 200
"""Characters that are left of each value where all of them together are too long."""

NOT_COPIED = frozenset({"x-attempt", "x-reason", "x-queue", "x-parked-at", "x-death", "x-delivery-count"})
"""Said anew of each message, by us or by the broker: copied, they would say it of the wrong one."""
ROUTING = frozenset({"CC", "BCC"})
"""Whoever has sent it may have had copies routed to other queues (RabbitMQ, sender-selected distribution): what goes
on from here is for one queue."""
_OF_DEATHS = ("x-first-death-", "x-last-death-")
_PASSWORD = re.compile(r"://[^/\s@]*@")


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a message was not handled.

    Attributes:
        reason: one line, without secrets.
        is_permanent: trying again is no use.
    """

    reason: str
    is_permanent: bool

    @classmethod
    def of(cls, error: Exception) -> Self:
        """What an error means for the message whose handler raised it.

        Of an error that nobody foresaw only the first line is told: drivers put statements, parameters and rows into
        those that follow. And never the password of a URL.
        """
        first = next(iter(str(error).splitlines()), "").strip()
        named = first if isinstance(error, Unhandleable) else f"{type(error).__name__}: {first}".removesuffix(": ")
        shown = "".join(sign if sign.isprintable() else " " for sign in _PASSWORD.sub("://***@", named))
        return cls(shown if len(shown) <= MAX_REASON else f"{shown[: MAX_REASON - 1]}…", is_permanent(error))


def attempt_of(headers: Mapping[str, object]) -> int:
    """Which attempt this delivery is, from 1; whatever a stranger has written there."""
    number = headers.get("x-attempt")
    return number if type(number) is int and 1 <= number <= MAX_ATTEMPT else 1


def onward(delivery: Delivery, queue: str, failure: Failure, topology: Topology, now: datetime) -> Message:
    """The message to send in place of one that could not be handled: to the next rung of the ladder, or to be parked.

    It is the same event with the same body. Its headers keep what became of each attempt (`x-reason-1` …), and the
    number of its replays.
    """
    attempt = attempt_of(delivery.headers)
    retry = None if failure.is_permanent else topology.retry(queue, attempt)
    said: dict[str, str | int] = {
        f"x-reason-{attempt}": f"{now.isoformat(timespec='milliseconds')} {failure.reason}",
        "x-reason": failure.reason,
    }
    if retry is None:
        said |= {"x-attempt": attempt, "x-queue": queue, "x-parked-at": now.isoformat(timespec="milliseconds")}
    else:
        said |= {"x-attempt": attempt + 1}
    attributes = _copied(delivery.attributes)
    headers = _copied({name: value for name, value in delivery.headers.items() if _is_kept(name)})
    return Message(
        attributes={name: str(value) for name, value in attributes.items()},
        body=delivery.body,
        route=retry or Route(DEAD, queue),
        headers=headers | said,
    )


def _is_kept(name: str) -> bool:
    return name not in NOT_COPIED and name not in ROUTING and not name.startswith(_OF_DEATHS)


def _copied(values: Mapping[str, object]) -> dict[str, str | int]:
    """Attributes or headers as they were, in types that can be sent; cut where there is too much of them.

    We say more of a message than came with it, and a message that nobody takes could never be parked.
    """
    copied = {name: value if type(value) is int else text_of(value) for name, value in values.items()}
    if sum(map(_size, copied.items())) <= ROOM_BYTES:
        return copied
    kept: dict[str, str | int] = {}
    room = ROOM_BYTES
    for name, value in copied.items():
        short = value if isinstance(value, int) or len(value) <= CUT else f"{value[:CUT]}…"
        room -= _size((name, short))
        if room >= 0:
            kept[name] = short
    return kept


def _size(item: tuple[str, str | int]) -> int:
    name, value = item
    return 32 + len(name.encode(errors="replace")) + len(str(value).encode())
