"""Events: what happened, told to whoever wants to know. CloudEvents 1.0 (https://cloudevents.io)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from showcase.kernel import trace
from showcase.kernel.clock import system_clock
from showcase.kernel.ids import EventId, new_uuid


class BrokenEvent(ValueError):
    """What arrived is no event that we can read. Reading it again is no use."""


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
        causation_id: the event that was being handled when this one came about.
    """

    type: str
    source: str
    subject: str
    data: Mapping[str, object]
    id: EventId = field(default_factory=lambda: EventId(str(new_uuid())))
    time: datetime = field(default_factory=system_clock)
    traceparent: str = field(default_factory=trace.current)
    causation_id: str = ""

    def attributes(self) -> dict[str, str]:
        """The context attributes: all but the data. In AMQP's binary mode they are headers."""
        attributes = {
            "specversion": "1.0",
            "id": self.id,
            "type": self.type,
            "source": self.source,
            "subject": self.subject,
            "time": self.time.isoformat(),
            "datacontenttype": "application/json",
            "traceparent": self.traceparent,
        }
        return attributes | ({"causationid": self.causation_id} if self.causation_id else {})

    def body(self) -> bytes:
        """The data as JSON."""
        return json.dumps(self.data, ensure_ascii=False, separators=(",", ":")).encode()

    @classmethod
    def read(cls, attributes: Mapping[str, object], body: bytes) -> "Event":
        """The event that these attributes and this body are of. Raises BrokenEvent."""
        try:
            if attributes["specversion"] != "1.0":
                raise BrokenEvent(f"specversion is {attributes['specversion']!r}, not '1.0'")
            data = json.loads(body)
            if not isinstance(data, dict):
                raise BrokenEvent("data is no JSON object")
            time = datetime.fromisoformat(str(attributes["time"]))
            if time.tzinfo is None:
                raise BrokenEvent(f"time {time} has no offset from UTC (RFC 3339)")
            return cls(
                type=str(attributes["type"]),
                source=str(attributes["source"]),
                subject=str(attributes["subject"]),
                data=data,
                id=EventId(str(attributes["id"])),
                time=time,
                traceparent=str(attributes.get("traceparent", "")),
                causation_id=str(attributes.get("causationid", "")),
            )
        except KeyError as error:
            raise BrokenEvent(f"the attribute {error} is missing") from error
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BrokenEvent(f"data is no JSON: {error}") from error
        except ValueError as error:
            raise error if isinstance(error, BrokenEvent) else BrokenEvent(str(error)) from error


class EventSink(Protocol):
    """Where a use case puts the events of what it did; told if, and only if, its transaction commits."""

    async def add(self, event: Event) -> None:
        """Take one event."""
