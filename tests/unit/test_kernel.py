"""Errors, events, ids, principals and traces."""

import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showcase.kernel import trace
from showcase.kernel.events import BrokenEvent, Event
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import Principal

EVENT = Event(
    type="shop.order.placed.v1",
    source="/shop",
    subject="orders/1",
    data={"order_id": "1", "words": "Käse ✓"},
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    causation_id="0",
)
PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


# -- events


def test_an_event_is_read_as_it_was_written() -> None:
    assert Event.read(EVENT.attributes(), EVENT.body()) == EVENT


@pytest.mark.parametrize("name", ["specversion", "id", "type", "source", "subject", "time"])
def test_an_event_without_one_of_its_attributes_is_broken(name: str) -> None:
    attributes = EVENT.attributes()
    del attributes[name]

    with pytest.raises(BrokenEvent, match=name):
        Event.read(attributes, EVENT.body())


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b'{"n": ' + b"9" * 5_000 + b"}", b'"\x00"']
)
def test_a_body_that_is_no_json_object_is_a_broken_event(body: bytes) -> None:
    with pytest.raises(BrokenEvent):
        Event.read(EVENT.attributes(), body)


@pytest.mark.parametrize("changed", [{"specversion": "0.3"}, {"time": "yesterday"}, {"time": "2017-12-23T10:00:00"}])
def test_an_event_of_another_version_or_time_is_broken(changed: dict[str, str]) -> None:
    with pytest.raises(BrokenEvent):
        Event.read({**EVENT.attributes(), **changed}, EVENT.body())


@given(st.dictionaries(st.text(), st.one_of(st.none(), st.integers(), st.text(), st.binary())), st.binary())
def test_whatever_arrives_is_an_event_or_a_broken_one(attributes: dict[str, object], body: bytes) -> None:
    with pytest.raises(BrokenEvent):
        Event.read(attributes, body)


# -- ids


def test_ids_sort_by_the_time_they_were_made() -> None:
    for _ in range(1_000):
        first, made = new_uuid(), time.time_ns()
        while time.time_ns() - made < 1_000:
            pass
        assert first < new_uuid()


def test_an_id_is_a_uuid_of_version_7_of_now() -> None:
    made = new_uuid()

    assert (made.version, made.variant) == (7, "specified in RFC 4122")
    at = datetime.fromtimestamp((made.int >> 80) / 1000, UTC)
    assert abs((datetime.now(UTC) - at).total_seconds()) < 5
    assert len({new_uuid() for _ in range(1_000)}) == 1_000


# -- principals


@pytest.mark.parametrize(
    ("subject", "household"),
    [
        ("households/7", 7),
        ("households/abc", None),
        ("households/", None),
        ("households/-7", None),
        ("households/٣", None),
        ("households/07", None),
        ("households/7/8", None),
        (f"households/{2**70}", None),
        ("staff/7", None),
        ("", None),
    ],
)
def test_only_a_well_formed_subject_is_a_household(subject: str, household: int | None) -> None:
    assert Principal(subject=subject, scopes=frozenset()).household_id == household


# -- traces


def test_a_trace_goes_on_with_a_span_of_its_own() -> None:
    here = trace.continued(PARENT)

    assert here[:36] == PARENT[:36]
    assert here != PARENT
    assert here.endswith("-01")


@pytest.mark.parametrize(
    "bad", [None, "", "nonsense", PARENT.upper(), f"ff{PARENT[2:]}", f"00-{'0' * 32}-{'1' * 16}-01", f"{PARENT}-more"]
)
def test_a_broken_parent_begins_a_new_trace(bad: str | None) -> None:
    assert trace.continued(bad)[3:35] != PARENT[3:35]
    assert trace.continued(trace.continued(bad)) != trace.continued(bad)


def test_a_body_is_compact_json_in_utf_8() -> None:
    assert json.loads(EVENT.body()) == EVENT.data
    assert "Käse ✓".encode() in EVENT.body()
