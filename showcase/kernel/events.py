"""Events: what happened, told to whoever wants to know. CloudEvents 1.0 (https://cloudevents.io)."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from showcase.kernel import trace
from showcase.kernel.clock import system_clock
from showcase.kernel.ids import EventId, new_uuid

JSON = "application/json"
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
"""What no attribute has in it (CloudEvents §3.1.1)."""
MAX_ID = 256

_HANDLED: "ContextVar[Event | None]" = ContextVar("handled", default=None)


class BrokenEvent(ValueError):
    """What arrived is no event that we can read. Reading it again is no use."""


def _causation() -> str:
    handled = _HANDLED.get()
    return handled.id if handled else ""


def _correlation() -> str:
    handled = _HANDLED.get()
    return handled.correlation_id if handled else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One thing that happened.

    Attributes:
        type: what, with its version: `shop.order.placed.v1`.
        source: the service in which it happened: `/shop`.
        subject: the thing it happened to, `orders/0199…`. Events of one subject keep their order.
        data: JSON values.
        id: unique for all time; a consumer recognises by it what it has seen before.
        traceparent: of the request or message that made it happen (CloudEvents extension "distributed tracing").
        causation_id: the event that was being handled when this one came about; empty for the first one.
        correlation_id: the first event of all that came of one cause: its own id, if it is that.
    """

    type: str
    source: str
    subject: str
    data: Mapping[str, object]
    id: EventId = field(default_factory=lambda: EventId(str(new_uuid())))
    time: datetime = field(default_factory=system_clock)
    traceparent: str = field(default_factory=trace.current)
    causation_id: str = field(default_factory=_causation)
    correlation_id: str = field(default_factory=_correlation)

    def __post_init__(self) -> None:
        if not self.correlation_id:
            object.__setattr__(self, "correlation_id", self.id)

    def attributes(self) -> dict[str, str]:
        """The context attributes: all but the data. In AMQP's binary mode they are headers."""
        attributes = {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "subject": self.subject,
            "time": self.time.isoformat(),
            "datacontenttype": JSON,
            "traceparent": self.traceparent,
            "correlationid": self.correlation_id,
        }
        return attributes | ({"causationid": self.causation_id} if self.causation_id else {})

    def body(self) -> bytes:
        """The data as JSON."""
        return json.dumps(self.data, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def read(cls, attributes: Mapping[str, object], body: bytes) -> "Event":
        """The event that these attributes and this body are of. Raises BrokenEvent."""
        try:
            names = {name: _text(name, attributes[name]) for name in _REQUIRED}
            optional = {name: _text(name, attributes.get(name, "")) for name in _OPTIONAL}
            if names["specversion"] != "1.0":
                raise BrokenEvent(f"specversion is {names['specversion']!r}, not '1.0'")
            if (kind := optional["datacontenttype"]).partition(";")[0].strip().lower() not in ("", JSON):
                raise BrokenEvent(f"the content type is {kind!r}, not {JSON}")
            if (encoding := optional["contentencoding"]).lower() not in ("", "utf-8"):
                raise BrokenEvent(f"the content encoding is {encoding!r}, not utf-8")
            if not 1 <= len(names["id"]) <= MAX_ID:
                raise BrokenEvent(f"an id has 1 to {MAX_ID} characters")
            data = json.loads(body)
            if not isinstance(data, dict):
                raise BrokenEvent("data is no JSON object")
            time = datetime.fromisoformat(names["time"])
            if time.tzinfo is None:
                raise BrokenEvent(f"time {time} has no offset from UTC (RFC 3339)")
            return cls(
                type=names["type"],
                source=names["source"],
                subject=names["subject"],
                data=data,
                id=EventId(names["id"]),
                time=time,
                traceparent=optional["traceparent"],
                causation_id=optional["causationid"],
                correlation_id=optional["correlationid"],
            )
        except KeyError as error:
            raise BrokenEvent(f"the attribute {error} is missing") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BrokenEvent(f"data is no JSON: {error}") from error
        except ValueError as error:
            raise error if isinstance(error, BrokenEvent) else BrokenEvent(str(error)) from error


_REQUIRED = ("specversion", "id", "type", "source", "subject", "time")
_OPTIONAL = ("datacontenttype", "contentencoding", "traceparent", "causationid", "correlationid")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise BrokenEvent(f"the attribute {name!r} is no text")
    if _CONTROL.search(value):
        raise BrokenEvent(f"the attribute {name!r} has a control character in it")
    return value


@contextmanager
def handling(event: Event) -> Iterator[None]:
    """While the block runs, events that come about are caused by this one, and part of its trace."""
    trace.enter(event.traceparent)
    token = _HANDLED.set(event)
    try:
        yield
    finally:
        _HANDLED.reset(token)


class EventSink(Protocol):
    """Where a use case puts the events of what it did; told if, and only if, its transaction commits."""

    async def add(self, event: Event, *, after: timedelta | None = None) -> None:
        """Take one event.

        Args:
            after: tell it so much later: an alarm. Only delays that the topology has are known.

        Raises Unavailable; LookupError for an unknown delay.
        """
