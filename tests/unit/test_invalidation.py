"""What the invalidator makes of Debezium's records: duplicates, old ones, truncations, garbage."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import permutations
from typing import Any, cast

import pytest

from showcase.caching.domain import NEWEST_VERSION
from showcase.caching.worker import removing
from showcase.kernel.errors import Unavailable

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Record:
    """A message as the Kafka client gives it."""

    content: bytes | None

    def key(self) -> bytes:
        return b'{"product_id": 1}'

    def value(self) -> bytes | None:
        return self.content

    def topic(self) -> str:
        return "public.products"

    def offset(self) -> int:
        return 0


@dataclass
class Answers:
    """What was removed, in its order; everything is "all".

    Attributes:
        is_away: each removal fails.
    """

    removed: list[object] = field(default_factory=list)
    is_away: bool = False

    async def invalidate(self, row: int, version: int, is_gone: bool) -> None:
        if self.is_away:
            raise Unavailable("away")
        self.removed.append((row, version, is_gone))

    async def clear(self) -> None:
        self.removed.append("all")

    async def read(self, *records: Record) -> list[object]:
        await removing("product_id", self.invalidate, self.clear)(cast("Any", records))
        return self.removed


def row(product_id: object = 1, version: object = 1) -> dict[str, object]:
    return {"product_id": product_id, "version": version, "brand": "National"}


def change(op: str, before: object = None, after: object = None) -> Record:
    source = {"schema": "public", "table": "products", "lsn": 1, "txId": 7, "ts_ms": 1_700_000_000_000}
    return Record(json.dumps({"op": op, "source": source, "before": before, "after": after}).encode())


CREATED, UPDATED = change("c", after=row(version=1)), change("u", before=row(version=1), after=row(version=2))
DELETED = change("d", before=row(version=2))
CREATED_AGAIN = change("c", after=row(version=3))


@pytest.mark.parametrize(
    ("record", "removed"),
    [
        (CREATED, (1, 1, False)),
        (UPDATED, (1, 2, False)),
        (DELETED, (1, 2, True)),
        (change("r", after=row(version=5)), (1, 5, False)),
    ],
)
async def test_a_change_removes_what_is_older_and_a_deletion_that_version_as_well(
    record: Record, removed: object
) -> None:
    assert await Answers().read(record) == [removed]


@pytest.mark.parametrize(("last", "removed"), [(DELETED, (1, 2, True)), (CREATED_AGAIN, (1, 3, False))])
async def test_of_a_batch_the_newest_change_of_a_row_removes_in_whatever_order_they_come(
    last: Record, removed: object
) -> None:
    for records in permutations([CREATED, UPDATED, DELETED, UPDATED, last]):
        assert await Answers().read(*records) == [removed]


async def test_a_row_whose_key_changes_is_removed_under_both() -> None:
    moved = [change("d", before=row(1, 4)), change("c", after=row(2, 5))]
    assert await Answers().read(*moved) == [(1, 4, True), (2, 5, False)]


async def test_a_truncation_removes_everything_and_a_tombstone_or_a_message_nothing() -> None:
    assert await Answers().read(Record(None), change("m")) == []
    assert await Answers().read(change("t"), UPDATED, change("t")) == ["all", (1, 2, False)]


GARBAGE: Mapping[str, Record] = {
    "no JSON": Record(b"\xff{"),
    "no envelope": Record(b"[]"),
    "no source": Record(b'{"op": "u"}'),
    "no such operation": change("x", after=row()),
    "no row": change("u"),
    "a deletion of nothing": change("d", after=row()),
    "a row that is none": change("u", after=["product_id", "version"]),
    "a row without a version": change("u", after={"product_id": 1}),
    "a row without a key": change("u", after={"version": 1}),
    "a version that is none": change("u", after=row(version="1")),
    "a version beyond any": change("u", after=row(version=NEWEST_VERSION + 1)),
    "a version below any": change("u", after=row(version=-1)),
    "a key beyond any": change("u", after=row(10**600)),
    "a key that is none": change("u", after=row({"id": 1})),
}


@pytest.mark.parametrize("what", GARBAGE)
async def test_garbage_holds_up_nothing(what: str) -> None:
    assert await Answers().read(GARBAGE[what], UPDATED) == [(1, 2, False)]


async def test_what_could_not_be_removed_is_not_read() -> None:
    answers = Answers(is_away=True)
    with pytest.raises(Unavailable):  # so that Kafka gives it again
        await answers.read(UPDATED)
    answers.is_away = False
    assert await answers.read(UPDATED) == [(1, 2, False)]
