"""The benchmark's peers keep the same: a library that stores less than the others would be the faster for it."""

from typing import Any

import bson
import pytest

from benchmarks.documents_kinds import DECIMAL, FLAT, ORDER, Kind
from showcase.documents.infrastructure.codec import LENIENT, encoded

KINDS = pytest.mark.parametrize("kind", [FLAT, ORDER, DECIMAL], ids=lambda kind: kind.name)


@KINDS
def test_a_document_of_ours_is_the_drivers_in_bson(kind: Kind) -> None:
    ours = encoded(kind.new().model_dump(by_alias=True), "it")
    assert shape(bson.decode(ours.raw, LENIENT)) == shape(bson.decode(encoded(kind.new_dict(), "it").raw, LENIENT))


@KINDS
def test_beanies_document_has_the_same_fields_and_a_revision_for_the_version(kind: Kind) -> None:
    assert {*kind.beanies.model_fields} ^ {*kind.ours.model_fields} == {"version", "revision_id"}
    assert kind.beanies.Settings.use_revision


def shape(value: Any) -> Any:
    """Names, types and how many, whatever the values are."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value)
