"""A message in the parking lot: what nobody could handle, made fit to be kept, looked at and sent back.

It may come from strangers, so nothing about it is taken for granted but that it has some headers and a body.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID, uuid5

from showcase.messaging.application.ports import Delivery
from showcase.messaging.domain import Message, straight_to

MAX_NAME = 255
"""Characters of a name: AMQP's names have no more, and an index takes no more than it can hold."""
MAX_REASON = 2_000
MAX_COUNT = 1_000_000
MAX_DEPTH = 8
"""Tables within tables of a header (AMQP 0-9-1, field-table): what lies deeper is left out."""
_NAMESPACE = UUID("0199a5c0-5b1e-7000-8000-706172b3ed00")
_CHANGING = re.compile(r"x-(delivery-count|acquired-count|parked-at|reason-\d+)")
"""What RabbitMQ counts up each time that it hands over a message, and times that we have written: a message that was
parked, but not acknowledged before its consumer died, is parked again a moment later."""

_WHY = {
    "delivery_limit": "its consumer died with it, or handed it back, more often than the queue allows",
    "rejected": "its consumer refused it without saying why",
    "expired": "it waited in its queue for longer than the queue allows",
    "maxlen": "its queue was full",
}
"""Reasons for which RabbitMQ moves a message by itself (`x-death`), in plain words."""


class State(StrEnum):
    """What has become of a parked message."""

    PARKED = "parked"
    REPLAYED = "replayed"
    DISCARDED = "discarded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A message as it is kept: every value can be stored.

    Attributes:
        parked_id: the same for the same message handed over twice, another one after a replay.
        queue: the queue whose consumer failed at it; empty if nobody can tell.
        event_id, type, subject: of the event; empty where it has none.
        attempts: how often a handler has failed at it since it came, or came back.
        replays: how often an operator has sent it back.
    """

    parked_id: UUID
    queue: str
    event_id: str
    type: str
    subject: str
    reason: str
    attempts: int
    replays: int
    attributes: Mapping[str, str]
    headers: Mapping[str, object]
    body: bytes

    @classmethod
    def of(cls, delivery: Delivery) -> "Parked":
        """What is kept of a message that was found in the parking lot. Raises nothing: every message can be kept."""
        attributes = {text_of(name): text_of(value) for name, value in delivery.attributes.items()}
        headers = {text_of(name): _json(value) for name, value in delivery.headers.items()}
        queue, reason = _why(headers)
        replays = _count(headers.get("x-replays"))
        # An event is known by what it is, not by the headers that its way has left on it: sent twice by the relay, it
        # is one message. (Not by its id alone: two strangers may have taken the same one.) All else by all it has.
        left = {} if attributes.get("id") else {k: v for k, v in headers.items() if not _CHANGING.fullmatch(k)}
        identity = json.dumps([queue, replays, attributes, left], sort_keys=True).encode()
        return cls(
            parked_id=uuid5(_NAMESPACE, hashlib.sha256(identity + b"\n" + delivery.body).hexdigest()),
            queue=queue[:MAX_NAME],
            event_id=attributes.get("id", "")[:MAX_NAME],
            type=attributes.get("type", "")[:MAX_NAME],
            subject=attributes.get("subject", "")[:MAX_NAME],
            reason=reason[:MAX_REASON],
            attempts=_count(headers.get("x-attempt", 1)),
            replays=replays,
            attributes=attributes,
            headers=headers,
            body=delivery.body,
        )

    def again(self) -> Message:
        """The message to send for a replay: the same event, straight into its queue, as if it had never failed."""
        headers = {"x-replays": self.replays + 1}
        return Message(attributes=self.attributes, body=self.body, route=straight_to(self.queue), headers=headers)


def _why(headers: Mapping[str, object]) -> tuple[str, str]:
    """The queue a message was in, and why it is no longer there: what our consumer says, or else RabbitMQ."""
    if "x-queue" in headers:
        return str(headers["x-queue"]), str(headers.get("x-reason", "its consumer does not say why"))
    deaths = headers.get("x-death")
    last = deaths[0] if isinstance(deaths, list) and deaths else None  # the last one comes first
    if not isinstance(last, dict):
        return "", "nobody says why: it did not come from a queue of ours"
    why = str(last.get("reason", ""))
    told = _WHY.get(why, f"RabbitMQ says {why!r}")
    before = f"; before that: {headers['x-reason']}" if "x-reason" in headers else ""
    return str(last.get("queue", "")), told + before


def text_of(value: object) -> str:
    """Any value of a header as text that a database takes: no NUL (PostgreSQL has none), no half a character."""
    if isinstance(value, bytes | bytearray):
        value = bytes(value).decode(errors="backslashreplace")
    elif isinstance(value, datetime):
        value = value.isoformat()
    elif not isinstance(value, str):
        value = json.dumps(_json(value), ensure_ascii=False)
    return value.encode(errors="replace").decode().replace("\x00", "\ufffd")


def _json(value: object, depth: int = 0) -> object:
    """Any value of a header as one that JSON has."""
    if isinstance(value, bool | int) or value is None:
        return value
    if depth >= MAX_DEPTH and isinstance(value, Mapping | list):
        return "…"
    if isinstance(value, Mapping):
        return {text_of(name): _json(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list):
        return [_json(inner, depth + 1) for inner in value]
    return text_of(value if isinstance(value, str | bytes | bytearray | datetime) else str(value))


def _count(value: object) -> int:
    return min(max(value, 0), MAX_COUNT) if isinstance(value, int) and not isinstance(value, bool) else 0
