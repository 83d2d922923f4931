"""What lesson 09 counts and compares, without servers: each mistake that it is to find is made here once."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import httpx
import pandas as pd
import pytest

from workshop.auditing import asking, hops, rebuilding, told
from workshop.auditing.keeping_up import rate

NOON = datetime(2017, 12, 23, 12, tzinfo=UTC)
ORDER = UUID(int=7)


def who(actor: str = "staff/ada", summary: str | None = None, reason: str = "", database_user: str = "app") -> Any:
    return {
        "actor": actor,
        "summary": summary or actor,
        "reason": reason,
        "database_user": database_user,
        "application": "showcase",
    }


def record(
    number: int,
    operation: str = "update",
    *,
    id_: str = "7",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    by: Any = None,
) -> asking.Record:
    names = sorted({*(before or {}), *(after or {})})
    pairs = {name: {"before": (before or {}).get(name), "after": (after or {}).get(name)} for name in names}
    return {
        "id": f"{number:04}",
        "entity_type": "orders",
        "entity_id": id_,
        "operation": operation,
        "who": by or who(),
        "before": before,
        "after": after,
        "changes": {name: both for name, both in pairs.items() if both["before"] != both["after"]},
    }


# -- asking


def audit(*pages: dict[str, Any] | int | str) -> asking.Audit:
    """An audit that answers with these, one after the other."""
    left = list(pages)

    def answer(request: httpx.Request) -> httpx.Response:
        page = left.pop(0)
        if isinstance(page, int):
            return httpx.Response(page, json={})
        return httpx.Response(200, text=page) if isinstance(page, str) else httpx.Response(200, json=page)

    return asking.Audit(httpx.Client(transport=httpx.MockTransport(answer), base_url="http://test"), {})


def test_a_timeline_is_read_to_its_last_page() -> None:
    pages = {"items": [record(1), record(2)], "next": "x"}, {"items": [record(3)], "next": None}
    assert audit(*pages).timeline("orders", "7") == [record(1), record(2), record(3)]


def test_what_is_not_recorded_yet_has_an_empty_timeline_and_other_errors_are_told() -> None:
    assert audit(404).timeline("orders", "7") == []
    with pytest.raises(httpx.HTTPStatusError):
        audit(503).timeline("orders", "7")


def test_a_page_that_is_gone_in_the_middle_is_no_empty_timeline() -> None:
    with pytest.raises(httpx.HTTPStatusError):
        audit({"items": [1], "next": "x"}, 404).timeline("orders", "7")


def test_an_export_that_was_broken_off_is_not_taken_for_a_whole_one() -> None:
    whole = json.dumps(record(1))
    assert len(audit(f"{whole}\n").export()) == 1
    with pytest.raises(ValueError, match="not whole: mongo is away"):
        audit(f'{whole}\n{{"error": "mongo is away"}}\n').export()


def test_a_life_shows_of_a_new_row_the_wanted_columns_and_of_a_change_all_that_changed() -> None:
    row = {"status": "placed", "version": 1, "reference": "x"}
    steps = asking.life(
        [
            record(1, "create", after=row),
            record(
                2, before=row, after={**row, "status": "paid"}, by=who("services/shop", reason=f"charged.v1 {ORDER}")
            ),
        ],
        columns=["status"],
    )
    assert steps.changes.tolist() == [["status: placed"], ["status: placed → paid"]]
    assert steps.why.tolist() == ["", "charged.v1"]


def test_deeds_are_counted_table_by_table() -> None:
    records = [record(1, "create"), record(2, "create"), record(3, "update")]
    (changes,) = asking.deeds([{"who": who(), "records": records}]).changes
    assert changes == ["orders: 2 added", "orders: 1 changed"]


def test_a_column_that_is_not_there_is_told_from_one_that_is_null() -> None:
    rows = asking.columns_through([record(1, after={}), record(2, after={"gift": None})], ["gift"])
    assert rows.gift.tolist() == [None, "NULL"]


def test_who_did_it_may_come_later_than_what_was_done() -> None:
    assert asking.attributed([record(1)])
    assert not asking.attributed([record(1), record(2, by=who("unknown", database_user=""))])


# -- the log of the application


class Log:
    """What `told.compared` needs of a collection."""

    def __init__(self, *lines: dict[str, Any]) -> None:
        self.lines = lines

    def find(self, wanted: dict[str, Any], sort: object) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["order_id"] == wanted["order_id"]]


def test_a_log_is_right_only_if_it_says_what_has_happened_and_nothing_else() -> None:
    log: Any = Log(
        {"order_id": "a", "actor": "ada", "before": 250, "after": 150},
        {"order_id": "b", "actor": "ada", "before": 250, "after": 150},
    )
    change = record(2, before={"total_cents": 250}, after={"total_cents": 150})
    by_hand = record(2, before={"total_cents": 250}, after={"total_cents": 1}, by=who("unknown", "by hand"))
    books = told.compared(
        {"given": "a", "taken back": "b", "by hand": "c"},
        {"a": 250, "b": 250, "c": 250},
        {"a": 150, "b": 250, "c": 1},
        log,
        {"a": [record(1, "create", after={"total_cents": 250}), change], "b": [], "c": [by_hand]},
    )
    assert books.log_is_right.tolist() == [True, False, False]
    assert books.audit_is_right.tolist() == [True, True, True]
    assert books.audit.tolist() == ["2.50 → 1.50, staff/ada", "nothing", "2.50 → 0.01, by hand"]


def test_an_audit_that_misses_a_change_is_not_right() -> None:
    log: Any = Log()
    books = told.compared({"by hand": "c"}, {"c": 250}, {"c": 1}, log, {"c": []})
    assert books.audit_is_right.tolist() == [False]


# -- hops


class Records:
    """What `hops.traced` needs of a database."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self.documents = documents

    def __getitem__(self, name: str) -> "Records":
        return self

    def find(self, wanted: dict[str, Any], names: object) -> tuple[dict[str, Any], ...]:
        return self.documents


def test_each_hop_is_told_as_the_time_since_the_commit_and_one_not_made_has_no_row() -> None:
    commit = pd.Timestamp(NOON)
    us = int(commit.timestamp() * 1_000_000)
    envelope = {"op": "c", "source": {"ts_us": us}, "ts_us": us + 12_000}
    messages = pd.DataFrame(
        [
            {"key": {"order_id": "a"}, "value": envelope | {"op": "u"}, "at": commit + pd.Timedelta(9, "s")},
            {"key": {"order_id": "a"}, "value": envelope, "at": commit + pd.Timedelta(20, "ms")},
            {"key": {"order_id": "b"}, "value": envelope, "at": commit + pd.Timedelta(20, "ms")},
        ]
    )
    records: Any = Records({"change": {"entity_id": "a"}, "recorded_at": commit + pd.Timedelta(30, "ms")})
    seen = pd.DataFrame({"entity_id": ["a"], "at": [commit + pd.Timedelta(35, "ms")]})
    way = hops.traced(messages, records, seen, ["a", "b"])
    assert way[way.entity_id == "a"].ms.tolist() == [0.0, 12.0, 20.0, 30.0, 35.0]
    assert way[way.entity_id == "b"].hop.tolist() == ["postgres", "connect", "kafka"]


# -- rates


def test_a_rate_is_of_the_time_in_which_they_came() -> None:
    looks = pd.DataFrame({"at_s": [0.0, 1.0, 2.0, 3.0, 9.0], "changes": [0, 0, 50, 100, 100]})
    assert rate(looks, "changes") == 50.0


def test_nothing_that_came_has_no_rate() -> None:
    with pytest.raises(ValueError, match="no changes came"):
        rate(pd.DataFrame({"at_s": [0.0, 1.0], "changes": [3, 3]}), "changes")


# -- rebuilding


def test_a_table_is_what_its_records_come_to_in_whatever_order_they_are_told() -> None:
    records = [
        record(3, "update", id_="b", after={"x": 3}),
        record(1, "create", id_="a", after={"x": 1}),
        record(2, "create", id_="b", after={"x": 2}),
        record(4, "delete", id_="a", before={"x": 1}),
    ]
    assert rebuilding.rebuilt(records) == {"b": {"x": 3}}


def test_a_truncation_removes_what_was_there_and_nothing_that_came_later() -> None:
    records = [
        record(1, "create", id_="a", after={"x": 1}),
        record(2, "truncate", id_=""),
        record(3, "create", id_="b", after={"x": 2}),
    ]
    assert list(rebuilding.rebuilt(records)) == ["b"]


def table(**row: Any) -> pd.DataFrame:
    return pd.DataFrame([{"order_id": ORDER, "total": 250, "at": NOON, "note": None} | row])


SAME = {str(ORDER): {"order_id": str(ORDER), "total": 250, "at": "2017-12-23T12:00:00Z", "note": None, "old": "x"}}


def test_rows_that_are_the_same_do_not_differ_and_a_column_that_is_gone_is_not_looked_at() -> None:
    assert rebuilding.differing(SAME, table(), ["order_id"]).empty


@pytest.mark.parametrize(
    "row", [{"total": 251}, {"at": NOON.replace(microsecond=1)}, {"note": "!"}, {"added": 1}], ids=str
)
def test_a_value_that_differs_is_named(row: dict[str, Any]) -> None:
    found = rebuilding.differing(SAME, table(**row), ["order_id"])
    assert found.column.tolist() == list(row)


def test_a_row_that_one_of_both_lacks_is_a_difference() -> None:
    assert rebuilding.differing({}, table(), ["order_id"]).audit.tolist() == ["none"]
    assert rebuilding.differing(SAME, table().head(0), ["order_id"]).table.tolist() == ["none"]


def test_values_are_compared_as_the_audit_writes_them() -> None:
    assert rebuilding.as_audited(Decimal("1.50")) == "1.50"
    assert rebuilding.as_audited(ORDER) == str(ORDER)
    assert rebuilding.as_audited(pd.NaT) is None
