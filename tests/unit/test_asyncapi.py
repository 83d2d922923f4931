"""The AsyncAPI document is valid, and says what the topology and the models say."""

import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types of its own
import pytest
from pydantic import BaseModel

from showcase import composition
from showcase.kernel.events import Event
from showcase.messaging.application.asyncapi import document
from showcase.messaging.domain import Queue, Topology
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


@pytest.mark.parametrize("made", ["small", "whole"])
def test_valid_by_the_official_schema_and_every_reference_leads_somewhere(made: str) -> None:
    whole = document(TOPOLOGY, TELLS) if made == "small" else composition.asyncapi(settings_of({}))
    jsonschema.validate(whole, SCHEMA)
    found = references(whole)
    assert len(found) > 10
    assert all(resolved(whole, reference) for reference in found)


def test_a_broken_document_is_noticed() -> None:
    whole = document(TOPOLOGY, TELLS)
    whole["operations"]["shop.sends.shop.placed.v1"]["bindings"]["amqp"]["deliveryMode"] = 3
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
