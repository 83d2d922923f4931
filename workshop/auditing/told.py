"""An audit log that the application writes itself, as it is mostly done: beside the change, into another store."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import pandas as pd
import psycopg
from pymongo.collection import Collection

from showcase.kernel.acting import Acting
from workshop.auditing.asking import Record

LOG = "application_log"
WITHIN_S = 10.0
APPLICATION = "discounts"

Log = Collection[dict[str, Any]]


class BankSaidNo(RuntimeError):
    """What comes after the log was written, and fails."""


def nothing() -> None:
    """All is well."""


def bank_says_no() -> None:
    """The money cannot be given back. Raises BankSaidNo."""
    raise BankSaidNo("the bank does not give the money back")


def give_discount(
    url: str, log: Log, order_id: str, cents: int, actor: str, give_back: Callable[[], None] = nothing
) -> None:
    """Make an order cheaper, log that, and give the money back, in one transaction.

    Raises what `give_back` raises: then nothing has happened.
    """
    with connected(url) as db, db.transaction():
        # Who it is; for the trigger of our own audit, which this log knows nothing of.
        db.execute("SELECT set_config('audit.context', %s, true)", [Acting(actor=actor, reason="discount").as_json()])
        before = total_of(db, order_id)
        db.execute("UPDATE orders SET total_cents = %s WHERE order_id = %s", [before - cents, UUID(order_id)])
        log.insert_one({"order_id": order_id, "actor": actor, "before": before, "after": before - cents})
        give_back()


def total_of(db: "psycopg.Connection[Any]", order_id: str) -> int:
    """What an order costs, in cents; nobody changes that until the end of the transaction."""
    found = db.execute("SELECT total_cents FROM orders WHERE order_id = %s FOR UPDATE", [UUID(order_id)]).fetchone()
    if found is None:
        raise ValueError(f"there is no order {order_id}")
    return int(found[0])


def connected(url: str) -> "psycopg.Connection[Any]":
    """A connection of the application's."""
    return psycopg.connect(url, connect_timeout=int(WITHIN_S), application_name=APPLICATION)


def compared(
    deeds: Mapping[str, str],
    before: Mapping[str, int],
    now: Mapping[str, int],
    log: Log,
    timelines: Mapping[str, Sequence[Record]],
) -> pd.DataFrame:
    """What three books say of some deeds.

    Args:
        deeds: what was done, and to which order.
        before, now: what each order cost, and costs, as PostgreSQL has it.
        timelines: our audit's of each order.

    Returns one row a deed: `deed`, and for each book what it `says`: `postgres`, `log`, `audit`; `log_is_right` and
    `audit_is_right` tell whether that is what has happened.
    """
    rows = []
    for deed, order_id in deeds.items():
        truth = (before[order_id], now[order_id])
        logged = [
            (one["actor"], (one["before"], one["after"])) for one in log.find({"order_id": order_id}, sort=[("_id", 1)])
        ]
        audited = [
            (record["who"]["summary"], tuple(record["changes"]["total_cents"].values()))
            for record in timelines[order_id]
            if record["operation"] == "update" and "total_cents" in record["changes"]
        ]
        wanted = [] if truth[0] == truth[1] else [truth]
        rows.append(
            {
                "deed": deed,
                "postgres": _cents(truth) if wanted else "nothing has changed",
                "log": _said(logged),
                "log_is_right": [change for _, change in logged] == wanted,
                "audit": _said(audited),
                "audit_is_right": [change for _, change in audited] == wanted,
            }
        )
    return pd.DataFrame(rows)


def _said(changes: Sequence[tuple[str, Any]]) -> str:
    return "; ".join(f"{_cents(change)}, {who}" for who, change in changes) or "nothing"


def _cents(change: tuple[int, int]) -> str:
    return " → ".join(f"{cents / 100:,.2f}" for cents in change)
