"""The rules of documents, without servers: what can be asked of a model, what a filter becomes, cursors, and BSON."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal

import bson
import pytest
from bson.decimal128 import Decimal128
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from showcase.documents import (
    BadCursor,
    BadQuery,
    Collection,
    Document,
    DocumentTooLarge,
    Index,
    Misfit,
    Moment,
    Unstorable,
    all_of,
    any_of,
    eq,
    gt,
    has,
    lt,
    ne,
    none_of,
    one_of,
)
from showcase.documents.domain.filters import MAX_VALUES, Fields, Filter, Where
from showcase.documents.infrastructure.codec import AT_ONCE, MAX_LEVELS, Codec, encoded, split
from showcase.documents.infrastructure.cursors import Cursors, beyond, keys_of
from showcase.documents.infrastructure.errors import already_there, refused
from showcase.documents.infrastructure.repository import query
from tests.documents_worlds import named


class Status(StrEnum):
    OPEN = "open"
    DONE = "done"


class Line(BaseModel):
    product: int
    note: str | None = None


class Card(BaseModel):
    by: Literal["card"] = "card"
    number: str


class Cash(BaseModel):
    by: Literal["cash"] = "cash"
    given: Decimal


@dataclass(frozen=True)
class Address:
    city: str
    at: tuple[float, float] | None = None


class Order(Document):
    id: int
    status: Status = Status.OPEN
    total: Annotated[Decimal, Field(ge=0)] = Decimal(0)
    lines: tuple[Line, ...] = ()
    first: Line | None = None
    paid: Annotated[Card | Cash, Field(discriminator="by")] | None = None
    address: Address | None = None
    tags: frozenset[str] = frozenset()
    marks: Annotated[list[int], Field(max_length=3)] | None = None
    notes: Mapping[str, Any] = {}
    placed_at: Moment | None = None
    due: date | None = None


FIELDS = Fields(Order)
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


def asked(where: Filter | None) -> dict[str, Any]:
    """What MongoDB is asked."""
    return query(FIELDS.check(where))


# -- what can be asked


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, {}),
        ({}, {}),
        ({"id": "7"}, {"$and": [{"_id": {"$eq": 7}}]}),
        (
            {"status": "open", "total": "1.10"},
            {"$and": [{"status": {"$eq": "open"}}, {"total": {"$eq": Decimal("1.10")}}]},
        ),
        (eq("id", 1), {"_id": {"$eq": 1}}),
        (ne("first.note", None), {"first.note": {"$ne": None}}),
        (gt("lines.product", "5"), {"lines.product": {"$gt": 5}}),
        (eq("lines.note", "x"), {"lines.note": {"$eq": "x"}}),
        (eq("paid.number", "x"), {"paid.number": {"$eq": "x"}}),
        (lt("paid.given", 1), {"paid.given": {"$lt": Decimal(1)}}),
        (eq("address.city", "x"), {"address.city": {"$eq": "x"}}),
        (eq("first", {"product": 1}), {"first": {"$eq": {"product": 1, "note": None}}}),
        (eq("notes", {"$ne": 1}), {"notes": {"$eq": {"$ne": 1}}}),
        (has("tags", "x"), {"tags": {"$eq": "x"}}),
        (has("marks", "3"), {"marks": {"$eq": 3}}),
        (has("lines", {"product": 1, "note": "n"}), {"lines": {"$eq": {"product": 1, "note": "n"}}}),
        (one_of("status", ["open", Status.DONE]), {"status": {"$in": ["open", "done"]}}),
        (none_of("id", []), {"_id": {"$nin": []}}),
        (one_of("notes", [{"$x": 1}, {}]), {"$or": [{"notes": {"$eq": {"$x": 1}}}, {"notes": {"$eq": {}}}]}),
        (none_of("first", [{"product": 1}]), {"$nor": [{"first": {"$eq": {"product": 1, "note": None}}}]}),
        (all_of(), {}),
        (any_of(), {"_id": {"$in": []}}),
        (all_of(eq("id", 1), any_of(eq("id", 2))), {"$and": [{"_id": {"$eq": 1}}, {"$or": [{"_id": {"$eq": 2}}]}]}),
    ],
    ids=named,
)
def test_a_filter_becomes_what_mongo_is_asked(where: Filter | None, expected: Mapping[str, Any]) -> None:
    assert asked(where) == expected


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"statsu": "open"}, "no field 'statsu': status?"),
        ({"x" * 1_000: 1}, "no field '" + "x" * 100 + "'"),
        ({"$where": "1"}, "no field '$where'"),
        ({"lines.product": 1}, "no field"),
        ({"_id": 1}, "no field '_id'"),
        ({"model_config": 1}, "no field"),
        ({7: 1}, "no field '7'"),
        ({"status": "gone"}, "status: Input should be"),
        ({"status": {"$ne": None}}, "status: Input should be"),
        ({"first": {"$gt": ""}}, "first: Field required"),
        (eq("lines.prodct", 1), "no field 'lines.prodct'"),
        (eq("lines.product.x", 1), "no field"),
        (eq("lines.0.product", 1), "no field"),
        (eq("lines.$.product", 1), "no field"),
        (eq("notes.a", 1), "no field"),
        (eq("paid.city", 1), "no field"),
        (eq("address.at.0", 1), "no field"),
        (eq("", 1), "no field"),
        (eq("lines.", 1), "no field"),
        (eq(".status", 1), "no field"),
        (eq("total", -1), "total: Input should be greater"),
        (eq("placed_at", datetime(2026, 1, 1)), "placed_at: Input should have timezone info"),
        (has("status", "open"), "status is no list"),
        (has("notes", "a"), "notes is no list"),
        (has("tags", 1), "tags: Input should be a valid string"),
        (one_of("status", "open"), "status: a list of values"),
        (one_of("status", b"open"), "status: a list of values"),
        (one_of("status", {"open": 1}), "status: a list of values"),  # type: ignore[arg-type]  # as from a body
        (one_of("status", None), "status: a list of values"),  # type: ignore[arg-type]  # as from a body
        (one_of("id", range(MAX_VALUES + 1)), "id: up to 10,000 values, not 10,001"),
        (all_of(eq("id", 1), any_of(eq("nope", 1))), "no field 'nope'"),
    ],
    ids=named,
)
def test_what_the_model_does_not_have_is_a_bad_query_that_says_why(where: Any, said: str) -> None:
    with pytest.raises(BadQuery) as refused:
        FIELDS.check(where)
    assert said in refused.value.detail


def test_as_many_values_as_may_be_are_taken() -> None:
    assert len(asked(one_of("id", range(MAX_VALUES)))["_id"]["$in"]) == MAX_VALUES


def test_documents_are_sorted_by_what_has_one_place() -> None:
    for name in ("id", "status", "first", "notes", "due"):
        assert FIELDS.sortable(name) == name
    for name in ("lines", "tags", "marks", "lines.product", "nope", "-id", ""):
        with pytest.raises(BadQuery):
            FIELDS.sortable(name)


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["$ne", "$where", "a", "$gt", "status", "product"]), inner, max_size=3)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from([*Order.model_fields, "$where", "$or", "x"]), JSON, max_size=4))
def test_whatever_a_body_says_below_our_operators_are_values_only(body: dict[str, Any]) -> None:
    try:
        found = asked(body)
    except BadQuery:
        return
    for part in found.get("$and", []):
        [(name, compared)] = part.items()
        assert name in ("_id", *Order.model_fields)
        assert list(compared) == ["$eq"]


# -- cursors


@pytest.mark.parametrize(
    ("sort", "keys"),
    [
        ((), []),
        (("id",), [("_id", 1)]),
        (("-id",), [("_id", -1)]),
        (("status",), [("status", 1), ("_id", 1)]),
        (("status", "-due"), [("status", 1), ("due", -1), ("_id", -1)]),
        (("-status", "status"), [("status", -1), ("_id", -1)]),
        (("due", "-id", "status", "id"), [("due", 1), ("_id", -1)]),
    ],
    ids=named,
)
def test_each_key_of_an_order_decides_once_and_the_id_comes_last(
    sort: Sequence[str], keys: Sequence[tuple[str, int]]
) -> None:
    assert keys_of(sort, FIELDS) == keys


CURSORS = Cursors([b"secret"])
QUESTION = {"of": "orders", "where": {"_id": {"$eq": 1}}, "sort": [("placed_at", -1), ("_id", -1)]}


def test_a_key_comes_back_from_its_cursor() -> None:
    for key in ([NOON, 7], [None, 1], [Decimal("1.10"), "x" * 500], []):
        assert CURSORS.opened(CURSORS.sealed(key, QUESTION), QUESTION) == key


@given(st.text() | st.binary().map(lambda some: base64.urlsafe_b64encode(some).decode()))
def test_anything_but_a_cursor_is_a_bad_cursor(text: str) -> None:
    with pytest.raises(BadCursor):
        CURSORS.opened(text, QUESTION)


def test_no_bit_of_a_cursor_can_be_changed() -> None:
    whole = base64.urlsafe_b64decode(CURSORS.sealed([NOON, 7], QUESTION) + "==")
    for bit in range(len(whole) * 8):
        forged = bytearray(whole)
        forged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BadCursor):
            CURSORS.opened(base64.urlsafe_b64encode(forged).decode().rstrip("="), QUESTION)


@pytest.mark.parametrize("change", [{"of": "others"}, {"where": {}}, {"sort": [("placed_at", 1), ("_id", 1)]}], ids=str)
def test_a_cursor_is_of_one_question(change: Mapping[str, Any]) -> None:
    cursor = CURSORS.sealed([NOON, 7], QUESTION)
    with pytest.raises(BadCursor):
        CURSORS.opened(cursor, {**QUESTION, **change})


def test_the_first_secret_signs_and_all_of_them_open() -> None:
    old, new, both = Cursors([b"old"]), Cursors([b"new"]), Cursors([b"new", b"old"])
    assert both.opened(old.sealed([1], QUESTION), QUESTION) == [1]
    assert new.opened(both.sealed([1], QUESTION), QUESTION) == [1]
    for cursors in (old, Cursors([])):
        with pytest.raises(BadCursor):
            cursors.opened(both.sealed([1], QUESTION), QUESTION)
    with pytest.raises(ValueError, match="secret"):
        Cursors([]).sealed([1], QUESTION)


@pytest.mark.parametrize(
    ("keys", "values", "branches"),
    [
        ([("_id", 1)], [True], [{"_id": {"$gt": True}}, {"_id": {"$type": [9, 17, 11, 13, 127]}}]),
        ([("_id", -1)], ["x"], [{"_id": {"$lt": "x"}}, {"_id": {"$type": [1, 16, 18, 19]}}]),
        ([("a", 1), ("_id", 1)], [None, 1], [{"a": {"$ne": None}}, {"a": {"$eq": None}, "_id": {"$gt": 1}}, ...]),
        ([("a", -1), ("_id", -1)], [None, 1], [{"a": {"$eq": None}, "_id": {"$lt": 1}}, ...]),
    ],
    ids=named,
)
def test_what_comes_after_a_key_is_asked_type_by_type(
    keys: Sequence[tuple[str, int]], values: Sequence[Any], branches: Sequence[Any]
) -> None:
    first, *no_lists = beyond(keys, values)["$and"]
    expected = [one for one in branches if one is not ...]
    assert first["$or"][: len(expected)] == expected
    assert no_lists == [{name: {"$not": {"$type": "array"}}} for name, _ in keys]


# -- BSON

CODEC = Codec("orders", Order)


def raws(count: int) -> list[bytes]:
    return [bson.encode({"_id": number, "version": 1}) for number in range(count)]


def test_a_batch_is_split_into_its_documents() -> None:
    assert list(split(b"".join(raws(3)))) == raws(3)
    assert list(split(b"")) == []


@pytest.mark.parametrize("place", [0, AT_ONCE - 1, AT_ONCE, 2 * AT_ONCE + 4])
def test_what_does_not_fit_stays_in_its_place_and_spoils_no_other(place: int) -> None:
    some = raws(2 * AT_ONCE + 5)
    some[place] = bson.encode({"_id": place, "status": "gone"})
    read = list(CODEC.decode_many(some))

    assert [one.id for one in read] == list(range(len(some)))
    misfit = read[place]
    assert isinstance(misfit, Misfit)
    assert "status" in misfit.why
    assert sum(isinstance(one, Misfit) for one in read) == 1


def test_bytes_that_are_no_document_are_a_misfit() -> None:
    for spoilt in (
        b"",
        b"\x05\0\0\0\0"[:3],
        raws(1)[0][:-4],
        bson.encode({"_id": 1, "a": "A"}).replace(b"A\0\0", b"\xff\0\0"),
    ):
        with pytest.raises(Misfit):
            CODEC.decode(spoilt)


def test_a_decimal_keeps_its_exponent() -> None:
    for number in map(Decimal, ["1.10", "-0.00", "1E+3", "9" * 34, "1E-6176", "0E+6111", "-9.99E+6144"]):
        raw = encoded({"total": number}, "it").raw
        assert bson.decode(raw)["total"] == Decimal128(number)
        assert next(iter(Codec("it", _Total).decode_many([bytes(raw)]))) == _Total(total=number)


class _Total(BaseModel):
    total: Decimal


@pytest.mark.parametrize(
    "value",
    [2**63, Decimal("0." + "1" * 35), Decimal("1E+6145"), "\ud800", {"a\0": 1}, object(), range(3), {1: 2}, 1j],
    ids=named,
)
def test_what_bson_does_not_have_is_unstorable(value: object) -> None:
    with pytest.raises(Unstorable, match="it cannot be stored"):
        encoded({"value": value}, "it")


def test_levels_and_bytes_have_their_limits() -> None:
    deep: dict[str, Any] = {}
    for _ in range(MAX_LEVELS - 1):
        deep = {"a": deep}
    encoded(deep, "it")
    encoded({"a": [{"b": 3}] * 1_000}, "it")
    for deeper in ({"a": deep}, {"a": [deep]}, {"a": (deep,)}):
        with pytest.raises(Unstorable, match="levels"):
            encoded(deeper, "it")
    with pytest.raises(DocumentTooLarge):
        encoded({"a": "x" * (16 * 1024 * 1024)}, "it")


def test_an_instant_that_only_json_has_is_kept_as_json_has_it() -> None:
    raw = encoded({"day": date(2026, 1, 2), "lasts": timedelta(hours=1), "some": {3}, "status": Status.OPEN}, "it").raw
    assert bson.decode(raw) == {"day": "2026-01-02", "lasts": "PT1H", "some": [3], "status": "open"}


# -- what is declared


def test_an_index_is_named_after_its_keys() -> None:
    assert Index(keys=("a", "-b.c", "_id")).name == "a_1_b.c_-1__id_1"


def test_a_collection_keeps_moments_and_no_other_times() -> None:
    class Other(Document):
        id: int
        at: datetime

    with pytest.raises(TypeError, match="Other has a datetime"):
        Collection(name="others", model=Other)
    assert Collection(name="orders", model=Order).model is Order


def test_two_indexes_on_the_same_keys_are_refused() -> None:
    twice = (Index(keys=("size",)), Index(keys=("size",), unique=True, only={"size": {"$type": "int"}}))

    with pytest.raises(TypeError, match="two indexes on the same keys"):
        Collection(name="orders", model=Order, indexes=twice)


def test_a_field_is_stored_by_the_name_it_is_asked_for() -> None:
    class Renamed(Document):
        id: int
        size: int = Field(alias="Size")

    with pytest.raises(TypeError, match="size has an alias"):
        Collection(name="renamed", model=Renamed)


# -- what the server says


def test_the_fields_of_an_index_are_told() -> None:
    told = {"keyPattern": {"code": 1, "shop": 1}, "errmsg": "E11000 … index: x_1 dup key"}
    assert already_there("it", told).fields == ("code", "shop")
    assert already_there("it", {"errmsg": "E11000 … index: code_1 dup key"}).fields == ("code_1",)
    assert already_there("it", {}).fields == ("values",)


def test_a_validators_answer_is_told_by_the_names_it_complains_of() -> None:
    details = {
        "details": {
            "schemaRulesNotSatisfied": [
                {"propertiesNotSatisfied": [{"propertyName": "size", "details": [{"operatorName": "minimum"}]}]},
                {"missingProperties": ["name", "code"]},
            ]
        }
    }
    refusal = refused("it", 121, {"errInfo": details})
    assert isinstance(refusal, Unstorable)
    assert refusal.facts == {"rules": ["size", "name", "code"]}
    assert refused("it", 1, {}) is None
    assert isinstance(refused("it", 17419, {}), DocumentTooLarge)


def test_a_checked_filter_is_of_the_same_shape() -> None:
    where: Where = all_of(eq("id", "1"), any_of(has("tags", "x")))
    assert FIELDS.check(where) == all_of(eq("id", 1), any_of(eq("tags", "x")))
