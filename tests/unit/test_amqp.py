"""Confirms in any order, and messages as bytes: read back by pika, they are what was sent."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pika import BasicProperties, frame, spec

from showcase.messaging.domain import MAX_ATTRIBUTES_BYTES, Message, Outcome, Route
from showcase.messaging.infrastructure import confirms
from showcase.messaging.infrastructure.confirms import Batch, Confirms
from showcase.messaging.infrastructure.wire import TooLarge, frames, read

pytestmark = pytest.mark.anyio
FRAME_MAX = 4_096
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
NAMES = st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20)


# -- confirms


def confirm(kept: Confirms, tag: int, *, multiple: bool = False, refused: bool = False) -> None:
    kept.on_confirm(frame.Method(1, (spec.Basic.Nack if refused else spec.Basic.Ack)(tag, multiple)))


def returned(kept: Confirms, tag: int) -> None:
    kept.on_return(None, spec.Basic.Return(), BasicProperties(correlation_id=str(tag)), b"")


def done(*batches: Batch) -> list[bool]:
    return [batch.confirmed.done() for batch in batches]


async def test_a_batch_is_confirmed_when_all_of_it_is_in_whatever_order() -> None:
    kept = Confirms()
    first, second, third = (kept.sent(2, 10) for _ in range(3))

    confirm(kept, 4)
    confirm(kept, 2)
    assert done(first, second, third) == [False] * 3
    confirm(kept, 3, multiple=True)
    assert done(first, second, third) == [True, True, False]
    confirm(kept, 6, multiple=True)
    assert done(first, second, third) == [True] * 3


async def test_what_was_refused_or_sent_back_is_told_of_that_message_alone() -> None:
    kept = Confirms()
    first, second = kept.sent(3, 10), kept.sent(3, 10)

    confirm(kept, 1)
    returned(kept, 3)
    returned(kept, 4)
    confirm(kept, 5, multiple=True, refused=False)
    confirm(kept, 6, refused=True)
    assert first.others == {3: Outcome.UNROUTABLE}
    assert second.others == {4: Outcome.UNROUTABLE, 6: Outcome.REFUSED}


async def test_several_are_refused_together() -> None:
    kept = Confirms()
    batch = kept.sent(3, 10)

    confirm(kept, 1)
    confirm(kept, 3, multiple=True, refused=True)
    assert batch.others == {2: Outcome.REFUSED, 3: Outcome.REFUSED}


async def test_there_is_room_again_when_a_batch_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(confirms, "OUT", 3)
    monkeypatch.setattr(confirms, "OUT_BYTES", 100)
    kept = Confirms()
    kept.sent(2, 10)
    assert not kept.is_full
    kept.sent(1, 10)
    assert kept.is_full
    confirm(kept, 3)
    assert not kept.is_full
    kept.sent(1, 90)
    assert kept.is_full
    kept.room.clear()
    confirm(kept, 4, multiple=True)
    assert kept.room.is_set()
    assert not kept.is_full


async def test_nobody_may_be_waiting_any_longer() -> None:
    kept = Confirms()
    batch = kept.sent(1, 10)
    batch.confirmed.cancel()
    await asyncio.sleep(0)
    confirm(kept, 1)
    assert kept.sent(0, 0).confirmed.done()


# -- bytes


def decoded(data: bytes) -> tuple[spec.Basic.Publish, BasicProperties, bytes]:
    """What pika reads; no frame is larger than may be."""
    parts: list[Any] = []
    while data:
        size, part = frame.decode_frame(data)
        assert 0 < size <= FRAME_MAX
        parts.append(part)
        data = data[size:]
    method, header, *bodies = parts
    body = b"".join(one.fragment for one in bodies)
    assert header.body_size == len(body)
    return method.method, header.properties, body


@given(
    st.dictionaries(NAMES, TEXT, max_size=5),
    st.dictionaries(NAMES, TEXT | st.integers(-(2**63), 2**63 - 1) | st.booleans() | st.none(), max_size=5),
    st.binary(max_size=10_000),
)
def test_pika_reads_what_was_sent(attributes: dict[str, str], headers: dict[str, Any], body: bytes) -> None:
    sent = Message(attributes=attributes, headers=headers, body=body, route=Route("events", "a.v1"))

    method, properties, read_body = decoded(frames(sent, 1, 7, FRAME_MAX))

    assert (method.exchange, method.routing_key, method.mandatory) == ("events", "a.v1", True)
    assert read(properties) == (attributes, headers)
    assert read_body == body
    assert (properties.delivery_mode, properties.correlation_id) == (2, "7")
    assert properties.message_id == (attributes.get("id") or None)


def test_the_content_type_and_encoding_are_properties_of_amqp() -> None:
    sent = Message(
        attributes={"datacontenttype": "text/xml", "contentencoding": "utf-8"}, body=b"", route=Route("", "q")
    )
    _, properties, _ = decoded(frames(sent, 1, 1, FRAME_MAX))
    assert (properties.content_type, properties.content_encoding, properties.headers) == ("text/xml", "utf-8", {})
    assert read(properties)[0] == sent.attributes


@pytest.mark.parametrize(
    "odd", [2**70, 1.5, float("nan"), "\ud800", {"a": [1]}, b"\xff", datetime(1, 1, 1, tzinfo=UTC), Ellipsis], ids=repr
)
def test_no_value_of_a_header_keeps_a_message_from_being_sent(odd: Any) -> None:
    sent = Message(attributes={"id": odd}, headers={"x": odd}, body=b"{}", route=Route("", "q"))
    _, properties, body = decoded(frames(sent, 1, 1, FRAME_MAX))
    assert properties.headers.keys() == {"cloudEvents:id", "x"}
    assert json.loads(body) == {}


@pytest.mark.parametrize(
    "sent",
    [
        Message(attributes={"a": "x" * MAX_ATTRIBUTES_BYTES}, body=b"", route=Route("", "q")),
        Message(attributes={"a": "x" * FRAME_MAX}, body=b"", route=Route("", "q")),
        Message(attributes={"datacontenttype": "x" * 256}, body=b"", route=Route("", "q")),
        Message(attributes={"a" * 250: "x"}, body=b"", route=Route("", "q")),
        Message(attributes={}, body=b"", route=Route("", "ü" * 128)),
    ],
    ids=["all of it", "for a frame", "the content type", "a name", "a routing key"],
)
def test_what_amqp_has_no_room_for_is_too_large(sent: Message) -> None:
    with pytest.raises(TooLarge):
        frames(sent, 1, 1, FRAME_MAX)


def test_the_other_prefix_of_attributes_is_read_too() -> None:
    assert read(BasicProperties(headers={"cloudEvents_id": "1", "cloudEvents": "x"})) == (
        {"id": "1"},
        {"cloudEvents": "x"},
    )
