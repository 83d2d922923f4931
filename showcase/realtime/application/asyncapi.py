"""The protocol of the WebSocket as a part of an AsyncAPI 3.0 document, from the models that read and write it.

As in the rest of the document, `send` is what this system says and `receive` what it hears.
"""

from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from showcase.realtime.application.messages import SUBPROTOCOL, Asked, Said

Json = dict[str, Any]

SERVER, CHANNEL = "app", "websocket"
WS = "0.1.0"
"""The version of AsyncAPI's WebSockets bindings."""
JSON = "application/json"


def with_websocket(document: Mapping[str, Any], *, host: str = "localhost:8000") -> Json:
    """The document with one server, one channel and two operations more.

    Args:
        host: of the app, with its port.
    """
    asked, said = _names(get_args(Asked)), _names(get_args(Said))
    schemas, payloads = _schemas({**asked, **said})
    components = document["components"]
    return {
        **document,
        "servers": {**document["servers"], SERVER: {"host": host, "protocol": "ws", "title": SUBPROTOCOL}},
        "channels": {**document["channels"], CHANNEL: _channel([*asked, *said])},
        "operations": {
            **document["operations"],
            f"{CHANNEL}.receives": _operation("receive", asked),
            f"{CHANNEL}.sends": _operation("send", said),
        },
        "components": {
            **components,
            "messages": {
                **components["messages"],
                **{name: _message(model, payloads[name]) for name, model in (asked | said).items()},
            },
            "schemas": {**components["schemas"], **schemas},
        },
    }


def _names(models: Iterable[type[BaseModel]]) -> dict[str, type[BaseModel]]:
    """Each message by its `type`, in this channel's part of the names."""
    return {f"{CHANNEL}.{model.model_fields['type'].default}": model for model in models}


def _schemas(models: Mapping[str, type[BaseModel]]) -> tuple[Json, dict[str, Json]]:
    """All schemas, and the reference to that of each message. What is sent always has its type."""
    kinds = models_json_schema(
        [(model, "serialization") for model in models.values()],
        ref_template=f"#/components/schemas/{CHANNEL}.{{model}}",
    )
    schemas = {f"{CHANNEL}.{name}": schema for name, schema in kinds[1]["$defs"].items()}
    for model in models.values():
        schema = schemas[f"{CHANNEL}.{model.__name__}"]
        schema["required"] = ["type", *(one for one in schema.get("required", ()) if one != "type")]
    return schemas, {name: kinds[0][model, "serialization"] for name, model in models.items()}


def _channel(names: Iterable[str]) -> Json:
    headers = {
        "type": "object",
        "properties": {
            "Sec-WebSocket-Protocol": {
                "type": "string",
                "description": f"`{SUBPROTOCOL}`, and perhaps `ticket.{{ticket}}` in place of the first message",
            }
        },
        "required": ["Sec-WebSocket-Protocol"],
    }
    return {
        "address": "/ws",
        "servers": [_ref("servers", SERVER)],
        "messages": {name: _ref("components", "messages", name) for name in names},
        "bindings": {"ws": {"method": "GET", "headers": headers, "bindingVersion": WS}},
    }


def _operation(action: str, names: Iterable[str]) -> Json:
    return {
        "action": action,
        "channel": _ref("channels", CHANNEL),
        "messages": [_ref("channels", CHANNEL, "messages", name) for name in names],
    }


def _message(model: type[BaseModel], payload: Json) -> Json:
    return {
        "name": model.model_fields["type"].default,
        "summary": (model.__doc__ or "").strip(),
        "contentType": JSON,
        "payload": payload,
    }


def _ref(*path: str) -> Json:
    return {"$ref": "#/" + "/".join(path)}
