"""The state of a table, made of nothing but its records, and compared with the table row by row."""

from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pandas as pd

from workshop.auditing.asking import Record

Row = dict[str, Any]


def rebuilt(records: Iterable[Record]) -> dict[str, Row]:
    """The rows that there are after some records of one table, by their keys. Ids sort as changes became true."""
    rows: dict[str, Row] = {}
    for record in sorted(records, key=lambda record: str(record["id"])):
        if record["operation"] == "truncate":
            rows.clear()
        elif record["operation"] == "delete":
            rows.pop(record["entity_id"], None)
        else:
            rows[record["entity_id"]] = record["after"]
    return rows


def differing(rows: dict[str, Row], table: pd.DataFrame, key: list[str]) -> pd.DataFrame:
    """What differs between rows that were rebuilt and a table: one row a value: `key`, `column`, `audit`, `table`.

    Args:
        table: as SQL gives it, all columns.
        key: the columns of the primary key, in their order.

    A row that one of both lacks is one difference, of the column `*`. Columns that the table no longer has are not
    looked at.
    """
    there = {"/".join(str(row[name]) for name in key): row for row in table.astype(object).to_dict("records")}
    found: list[tuple[str, str, Any, Any]] = [
        (id_, "*", "a row" if id_ in rows else "none", "a row" if id_ in there else "none")
        for id_ in sorted(rows.keys() ^ there.keys())
    ]
    for id_ in sorted(rows.keys() & there.keys()):
        for column, value in there[id_].items():
            audited = rows[id_].get(str(column))
            if (wanted := as_audited(value)) != _in_time(audited, value):
                found.append((id_, str(column), audited, wanted))
    return pd.DataFrame(found, columns=["key", "column", "audit", "table"])


def as_audited(value: Any) -> Any:
    """A value of SQL as a record has it: what JSON knows stays, all else is text; times are compared as times."""
    if value is None or value is pd.NaT:
        return None
    if isinstance(value, pd.Timestamp | datetime):
        return pd.Timestamp(value).tz_convert("UTC") if value.tzinfo else pd.Timestamp(value)
    return str(value) if isinstance(value, UUID | Decimal) else value


def _in_time(audited: Any, like: Any) -> Any:
    if isinstance(audited, str) and isinstance(like, datetime):
        return pd.Timestamp(audited).tz_convert("UTC") if like.tzinfo else pd.Timestamp(audited)
    return audited
