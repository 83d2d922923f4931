"""What is told and who takes it, as an AsyncAPI 3.0 document (https://www.asyncapi.com/docs/reference/specification/v3.0.0).

OpenAPI for events: the same models that read and write them, so that it cannot fall behind.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from showcase.kernel.events import JSON, Event
from showcase.kernel.ids import EventId
from showcase.messaging.domain import ATTRIBUTE, EVENTS, Queue, Topology

Json = dict[str, Any]
Tells = Mapping[str, Mapping[str, type[BaseModel]]]
"""What each service tells: the types of its events, and what their data is."""

AMQP = "0.3.0"
"""The version of AsyncAPI's AMQP bindings."""
HEADERS = "CloudEvent"
_OPTIONAL = {"subject", "traceparent", "correlationid", "causationid"}


def document(topology: Topology, tells: Tells, *, host: str = "localhost:5672") -> Json:
    """The document.

    A channel is an event type, which its service sends to the exchange, or a queue, from which its consumer receives.

    Args:
        host: of the broker, with its port.
    """
    told = {type_: model for types in tells.values() for type_, model in types.items()}
    models, schemas = models_json_schema(
        [(model, "serialization") for model in dict.fromkeys(told.values())],
        ref_template="#/components/schemas/{model}",
    )
    taken = {queue.name: [type_ for type_ in told if queue.takes(type_)] for queue in topology.queues}
    payloads = {type_: models[model, "serialization"] for type_, model in told.items()}
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Backend Architecture Showcase",
            "version": "1.0.0",
            "description": "Events of the grocery shop: CloudEvents 1.0 over AMQP 0-9-1, binary mode.",
        },
        "defaultContentType": JSON,
        "servers": {"rabbitmq": {"host": host, "protocol": "amqp", "protocolVersion": "0.9.1"}},
        "channels": {type_: _event(type_) for type_ in told}
        | {queue.name: _queue(queue, taken[queue.name]) for queue in topology.queues},
        "operations": {
            f"{service}.sends.{type_}": _operation("send", type_, [type_])
            for service, types in tells.items()
            for type_ in types
        }
        | {f"{queue}.receives": _operation("receive", queue, types) for queue, types in taken.items()},
        "components": {
            "messages": {type_: _message(type_, payload) for type_, payload in payloads.items()},
            "schemas": schemas.get("$defs", {}) | {HEADERS: _headers()},
        },
    }


def _event(type_: str) -> Json:
    exchange = {"name": EVENTS, "type": "topic", "durable": True, "autoDelete": False}
    return {
        "address": type_,
        "messages": {type_: _ref("components", "messages", type_)},
        "bindings": {"amqp": {"is": "routingKey", "exchange": exchange, "bindingVersion": AMQP}},
    }


def _queue(queue: Queue, types: list[str]) -> Json:
    """A queue. Its patterns may be wider than what is told: `x-takes` has them as they are."""
    declared = {"name": queue.name, "durable": True, "exclusive": False, "autoDelete": False}
    return {
        "address": queue.name,
        "messages": {type_: _ref("components", "messages", type_) for type_ in types},
        "bindings": {"amqp": {"is": "queue", "queue": declared, "bindingVersion": AMQP}},
        "x-takes": list(queue.types),
    }


def _operation(action: str, channel: str, types: list[str]) -> Json:
    how: Json = {"deliveryMode": 2, "mandatory": True} if action == "send" else {"ack": True}
    return {
        "action": action,
        "channel": _ref("channels", channel),
        "messages": [_ref("channels", channel, "messages", type_) for type_ in types],
        "bindings": {"amqp": {**how, "bindingVersion": AMQP}},
    }


def _message(type_: str, payload: Json) -> Json:
    return {
        "name": type_,
        "contentType": JSON,
        "headers": {
            "allOf": [
                _ref("components", "schemas", HEADERS),
                {"type": "object", "properties": {f"{ATTRIBUTE}type": {"const": type_}}},
            ]
        },
        "correlationId": {"location": f"$message.header#/{ATTRIBUTE}correlationid"},
        "payload": payload,
        "examples": [{"name": "headers", "headers": _example(type_)}],
    }


def _headers() -> Json:
    """The context attributes as headers; the content type is a property of AMQP's own."""
    names = list(_example(""))
    formats = {f"{ATTRIBUTE}time": "date-time", f"{ATTRIBUTE}source": "uri-reference"}
    return {
        "type": "object",
        "description": "CloudEvents 1.0, AMQP protocol binding, binary mode",
        "properties": {
            name: {"type": "string", **({"format": formats[name]} if name in formats else {})} for name in names
        },
        "required": [name for name in names if name.removeprefix(ATTRIBUTE) not in _OPTIONAL],
    }


def _example(type_: str) -> dict[str, str]:
    """The headers of an event of this type; the same in each document."""
    event = Event(
        type=type_,
        source=f"/{type_.partition('.')[0]}",
        subject="orders/0198c3a2-7b1c-7000-8000-000000000001",
        data={},
        id=EventId("0198c3a2-7b1c-7000-8000-000000000003"),
        time=datetime(2017, 12, 23, 9, 30, tzinfo=UTC),
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        causation_id="0198c3a2-7b1c-7000-8000-000000000002",
        correlation_id="0198c3a2-7b1c-7000-8000-000000000001",
    )
    return {f"{ATTRIBUTE}{name}": value for name, value in event.attributes().items() if name != "datacontenttype"}


def _ref(*path: str) -> Json:
    return {"$ref": "#/" + "/".join(path)}
