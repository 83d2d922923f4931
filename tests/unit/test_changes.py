"""Debezium's envelope in its two dialects: PostgreSQL's and SQL Server's, as its documentation gives them."""

import json
from typing import Any

import pytest

from showcase.kernel.changes import BrokenChange, Change, Operation, read

POSTGRESQL: dict[str, Any] = {
    "before": {"id": 1, "first_name": "Anne"},
    "after": {"id": 1, "first_name": "Anne Marie"},
    "source": {
        "version": "3.6.1.Final",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1559033904863,
        "snapshot": "false",
        "db": "shop",
        "sequence": '["24023119","24023128"]',
        "schema": "public",
        "table": "customers",
        "txId": 556,
        "lsn": 24023128,
        "xmin": None,
    },
    "op": "u",
    "ts_ms": 1465584025523,
    "transaction": {"id": "556:24023128", "total_order": 1, "data_collection_order": 1},
}
SQLSERVER: dict[str, Any] = {
    "before": {"supplier_id": 1, "price": "2.49"},
    "after": {"supplier_id": 1, "price": "2.59"},
    "source": {
        "version": "3.6.1.Final",
        "connector": "sqlserver",
        "name": "pricing",
        "ts_ms": 1559729998706,
        "snapshot": "false",
        "db": "pricing",
        "schema": "dbo",
        "table": "price_list",
        "change_lsn": "00000027:00000ac0:0002",
        "commit_lsn": "00000027:00000ac0:0007",
        "event_serial_no": 2,
    },
    "op": "u",
    "ts_ms": 1559729999000,
    "transaction": {"id": "00000027:00000ac0:0007", "total_order": 1, "data_collection_order": 1},
}


def told(envelope: dict[str, Any], source: dict[str, Any] | None = None, **changes: Any) -> Change:
    """The change in an envelope, some of which is said otherwise."""
    value = {**envelope, **changes, "source": {**envelope["source"], **(source or {})}}
    change = read(b'{"id": 1}', json.dumps(value).encode())
    assert change is not None
    return change


def test_postgresql_tells_its_place_by_lsn_and_its_transaction_by_number() -> None:
    change = told(POSTGRESQL)

    assert (change.source, change.table, change.operation, change.key) == ("shop", "customers", "update", {"id": 1})
    assert (int(change.position, 16), change.transaction) == (24023128, "556")
    assert (change.committed_at.year, change.changed()) == (2019, ["first_name"])


def test_sqlserver_tells_its_place_by_commit_then_change_then_serial() -> None:
    change = told(SQLSERVER)

    assert (change.source, change.table) == ("pricing", "dbo.price_list")
    assert change.position == "0000002700000ac00007" + "0000002700000ac00002" + "00000002"
    assert change.transaction == "00000027:00000ac0:0007"


def test_sqlserver_joins_by_the_commit_where_the_connector_names_no_transaction() -> None:
    assert told(SQLSERVER, transaction=None).transaction == "00000027:00000ac0:0007"


def test_sqlserver_snapshot_has_no_place_of_a_change_and_comes_first() -> None:
    snapshot = told(SQLSERVER, {"change_lsn": None, "event_serial_no": None, "snapshot": "true"}, op="r", before=None)

    assert snapshot.operation is Operation.READ
    assert snapshot.position < told(SQLSERVER).position
    assert len(snapshot.position) == len(told(SQLSERVER).position)


def test_a_key_that_changes_is_a_deletion_and_a_creation_in_one_place() -> None:
    gone = told(SQLSERVER, {"event_serial_no": 1}, op="d", after=None)
    come = told(SQLSERVER, op="c", before=None)

    assert gone.position < come.position
    assert gone.transaction == come.transaction


def test_positions_sort_as_the_log() -> None:
    lsns = [0, 1, 255, 256, 2**40, 2**63, 2**64 - 1]
    positions = [told(POSTGRESQL, {"lsn": lsn}).position for lsn in lsns]

    assert positions == sorted(positions)
    assert len(set(positions)) == len(lsns)


@pytest.mark.parametrize(
    "source",
    [
        {"connector": "db2"},
        {"connector": "sqlserver"},
        {"connector": "sqlserver", "commit_lsn": "12", "change_lsn": None},
        {"connector": "sqlserver", "commit_lsn": "0000002G:00000ac0:0007", "change_lsn": None},
        {"lsn": None},
        {"lsn": -1},
        {"lsn": 2**64},
        {"ts_ms": "yesterday"},
        {"ts_ms": None},
        {"schema": None},
    ],
)
def test_source_that_says_no_place_or_no_time_is_broken(source: dict[str, Any]) -> None:
    with pytest.raises(BrokenChange):
        told(POSTGRESQL, source)


def test_values_of_all_kinds_come_as_debezium_tells_them() -> None:
    row = {
        "decimal": "12345678901234567890.12",
        "time": "2026-01-02T03:04:05.678Z",
        "uuid": "0199c2a0-0000-7000-8000-000000000000",
        "binary": "AP8=",
        "json": '{"a": 1}',
        "nothing": None,
        "flag": True,
        "list": [1, 2],
    }

    assert told(POSTGRESQL, after=row).after == row


def test_column_that_came_or_went_is_a_change_also_where_it_is_null() -> None:
    change = told(POSTGRESQL, before={"id": 1, "old": None}, after={"id": 1, "new": None})

    assert change.changed() == ["new", "old"]
