"""The AsyncAPI document is valid, and says what the topology and the models say."""

import json
from pathlib import Path
from typing import Any, get_args

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from pydantic import BaseModel, ValidationError

from showcase import composition
from showcase.kernel.events import Event
from showcase.messaging.application.asyncapi import document
from showcase.messaging.domain import Queue, Topology
from showcase.realtime.application.asyncapi import with_websocket
from showcase.realtime.application.messages import ASKED, Asked, Hello, Ping, Said, Subscribe, Subscribed, text_of
from showcase.services import payment, stock
from showcase.shop.application import TELLS as TELLS_OF_THE_SHOP
from tests.fakes import settings_of

SCHEMA = json.loads(Path(__file__).with_name("asyncapi-3.0.0.schema.json").read_bytes())


class Line(BaseModel):
    product: int


class Placed(BaseModel):
    lines: list[Line]


class Paid(BaseModel):
    total_cents: int


TOPOLOGY = Topology(queues=[Queue(name="payment", types=("shop.placed.v1",)), Queue(name="all", types=("#", "old.v0"))])
TELLS: dict[str, dict[str, type[BaseModel]]] = {
    "shop": {"shop.placed.v1": Placed},
    "payment": {"payment.paid.v1": Paid},
}


def resolved(whole: dict[str, Any], reference: dict[str, str]) -> Any:
    found: Any = whole
    for part in reference["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return found


def references(part: Any) -> list[dict[str, str]]:
    if isinstance(part, dict):
        return [part] if "$ref" in part else [one for value in part.values() for one in references(value)]
    return [one for value in part for one in references(value)] if isinstance(part, list) else []


MADE = {
    "small": lambda: document(TOPOLOGY, TELLS),
    "with the WebSocket": lambda: with_websocket(document(TOPOLOGY, TELLS)),
    "whole": lambda: composition.asyncapi(settings_of({})),
}


@pytest.mark.parametrize("made", MADE)
def test_valid_by_the_official_schema_and_every_reference_leads_somewhere(made: str) -> None:
    whole = MADE[made]()
    jsonschema.validate(whole, SCHEMA)
    found = references(whole)
    assert len(found) > 10
    assert all(resolved(whole, reference) for reference in found)


def test_a_broken_document_is_noticed() -> None:
    whole = document(TOPOLOGY, TELLS)
    whole["operations"]["shop.sends.shop.placed.v1"]["bindings"]["amqp"]["deliveryMode"] = 3
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, SCHEMA)


@pytest.mark.parametrize("broken", [{"method": "PUT"}, {"query": 3}, {"subprotocol": "x"}])
def test_a_broken_part_of_the_websocket_is_noticed(broken: dict[str, Any]) -> None:
    whole = with_websocket(document(TOPOLOGY, TELLS))
    whole["channels"]["websocket"]["bindings"]["ws"] |= broken
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, SCHEMA)


def test_who_sends_what_and_who_receives_it() -> None:
    whole = document(TOPOLOGY, TELLS)
    flows = {
        name: (one["action"], [resolved(whole, resolved(whole, message))["name"] for message in one["messages"]])
        for name, one in whole["operations"].items()
    }
    assert flows == {
        "shop.sends.shop.placed.v1": ("send", ["shop.placed.v1"]),
        "payment.sends.payment.paid.v1": ("send", ["payment.paid.v1"]),
        "payment.receives": ("receive", ["shop.placed.v1"]),
        "all.receives": ("receive", ["shop.placed.v1", "payment.paid.v1"]),
    }


def test_a_payload_is_what_the_model_says_and_the_headers_are_those_of_an_event() -> None:
    whole = document(TOPOLOGY, TELLS)
    message = whole["components"]["messages"]["shop.placed.v1"]
    schemas = {"components": whole["components"]}
    jsonschema.validate({"lines": [{"product": 1}]}, message["payload"] | schemas)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"lines": [{"product": "one"}]}, message["payload"] | schemas)

    attributes = Event(type="shop.placed.v1", source="/shop", subject="orders/1", data={}).attributes()
    headers = {f"cloudEvents:{name}": value for name, value in attributes.items() if name != "datacontenttype"}
    jsonschema.validate(headers, message["headers"] | schemas)
    for broken in (headers | {"cloudEvents:type": "shop.paid.v1"}, {}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, message["headers"] | schemas)
    [example] = message["examples"]
    assert example["headers"].keys() - headers.keys() == {"cloudEvents:causationid"}


def said_in(whole: dict[str, Any], operation: str) -> list[str]:
    return [resolved(whole, resolved(whole, one))["name"] for one in whole["operations"][operation]["messages"]]


def test_every_message_of_the_websocket_is_there_and_who_says_it() -> None:
    whole = with_websocket(document(TOPOLOGY, TELLS), host="shop.example:443")

    assert said_in(whole, "websocket.receives") == ["hello", "subscribe", "unsubscribe", "ack", "ping"]
    assert said_in(whole, "websocket.sends") == [
        *("welcome", "subscribed", "unsubscribed", "event", "dropped", "reset", "pong", "error")
    ]
    assert (len(get_args(Asked)), len(get_args(Said))) == (5, 8)
    channel = whole["channels"]["websocket"]
    assert channel["address"] == "/ws"
    assert [resolved(whole, one)["host"] for one in channel["servers"]] == ["shop.example:443"]


def test_the_websocket_takes_nothing_away_from_the_queues() -> None:
    settings = settings_of({})
    tells = {"shop": TELLS_OF_THE_SHOP, "payment": payment.TELLS, "stock": stock.TELLS}
    queues, whole = document(composition.topology(settings), tells), composition.asyncapi(settings)

    for part in ("servers", "channels", "operations"):
        assert queues[part].items() < whole[part].items()
    for part in ("messages", "schemas"):
        assert queues["components"][part].items() < whole["components"][part].items()


GOOD = (
    Hello(ticket="x", window=3),
    Subscribe(topics=["orders"], after="5f3a91c2-1764410400000-0", ref="1"),
    Ping(),
    Subscribed(topics=["orders"], at="5f3a91c2-1764410400000-0"),
)
BAD = (
    {"type": "hello"},
    {"type": "hello", "ticket": "x", "window": 0},
    {"type": "hello", "ticket": "x" * 201},
    {"type": "subscribe", "topics": []},
    {"type": "subscribe", "topics": ["orders"], "before": "x"},
    {"type": "ping", "ref": "x" * 65},
    {"type": "ping", "ref": 7},
    {"ticket": "x"},
)


def valid(whole: dict[str, Any], message: dict[str, Any]) -> bool:
    """Whether a message is what the document says of its type."""
    name = f"websocket.{message.get('type', 'hello')}"
    schema = whole["components"]["messages"][name]["payload"] | {"components": whole["components"]}
    try:
        jsonschema.validate(message, schema)
    except jsonschema.ValidationError:
        return False
    return True


def test_the_document_takes_the_messages_that_the_websocket_takes_and_no_others() -> None:
    whole = with_websocket(document(TOPOLOGY, TELLS))

    assert all(valid(whole, json.loads(text_of(one))) for one in GOOD)
    for message in BAD:
        assert not valid(whole, message), message
        with pytest.raises(ValidationError):
            ASKED.validate_python(message)
