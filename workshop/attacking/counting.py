"""What PostgreSQL has, beside what the audit has recorded of it: each looked at by itself."""

from collections.abc import Collection, Sequence
from datetime import datetime

import pandas as pd

from workshop.attacking.load import Version
from workshop.lab.lab import Lab

COUNTERS = ("committed", "recorded", "missing", "duplicated", "unexpected", "forgotten")
"""What `counters` gives.

- committed: versions of orders that PostgreSQL has had; recorded: records of them in MongoDB.
- missing: committed, and not recorded. duplicated: records of a version beyond its first.
- unexpected: records of versions that PostgreSQL never had.
- forgotten: what PostgreSQL confirmed and has not: none of the audit's faults, but who would know?
"""


def committed(lab: Lab) -> set[Version]:
    """Every version that an order has had, says PostgreSQL: an order of version 2 was of version 1 before."""
    orders = lab.sql("SELECT order_id::text, version FROM orders")
    return {(order_id, version) for order_id, last in orders.itertuples(index=False) for version in range(1, last + 1)}


def recorded(lab: Lab) -> pd.DataFrame:
    """Every record of an order, says MongoDB: `order_id`, `version`, `status`, `id`, `committed_at`, `recorded_at`."""
    found = lab.mongo.audit_records.find({"change.entity_type": "orders"}, sort=[("_id", 1)])
    rows = [
        (
            one["change"]["entity_id"],
            one["change"]["after"]["version"],
            one["change"]["after"]["status"],
            one["_id"],
            one["change"]["committed_at"],
            one["recorded_at"],
        )
        for one in found
    ]
    return pd.DataFrame(rows, columns=["order_id", "version", "status", "id", "committed_at", "recorded_at"])


def is_recorded(lab: Lab, committed: Collection[Version]) -> bool:
    """Whether MongoDB has as many records of orders as PostgreSQL had changes of them."""
    return lab.mongo.audit_records.count_documents({"change.entity_type": "orders"}) >= len(committed)


def counters(
    acknowledged: Collection[Version], committed: Collection[Version], recorded: Sequence[Version]
) -> dict[str, int]:
    """All `COUNTERS`.

    Args:
        acknowledged: what the writer was told is done.
        committed: what PostgreSQL has.
        recorded: what MongoDB has; a version twice if there are two records of it.
    """
    known, kept = set(committed), set(recorded)
    numbers = (
        len(known),
        len(recorded),
        len(known - kept),
        len(recorded) - len(kept),
        len(kept - known),
        len(set(acknowledged) - known),
    )
    return dict(zip(COUNTERS, numbers, strict=True))


def versions(records: pd.DataFrame) -> list[Version]:
    """What each record is of."""
    return list(records[["order_id", "version"]].itertuples(index=False, name=None))


def last_rows(lab: Lab, records: pd.DataFrame) -> tuple[dict[str, str], dict[str, str]]:
    """The status of every order: as PostgreSQL has it, and as the last record of each says."""
    rows = lab.sql("SELECT order_id::text, status FROM orders")
    last = records.groupby("order_id").status.last()
    return dict(rows.itertuples(index=False, name=None)), {str(order): str(status) for order, status in last.items()}


def delays(records: pd.DataFrame, began: float) -> pd.DataFrame:
    """For a picture: `committed_s` and `recorded_s` of each record, since a Unix time; `recorded_at` is exact to 1 ms.

    Args:
        records: as `recorded` gives them.
    """
    seconds = {
        f"{what}_s": (pd.to_datetime(records[f"{what}_at"], utc=True) - pd.Timestamp(began, unit="s", tz="UTC"))
        / pd.Timedelta(seconds=1)
        for what in ("committed", "recorded")
    }
    return pd.DataFrame(seconds)


def contexts(lab: Lab) -> dict[str, int]:
    """Who did it: how many contexts the database has written down, and how many of them are recorded."""
    return {
        "postgres": int(lab.sql("SELECT count(*)::int AS n FROM audit_context").n[0]),
        "mongo": lab.mongo.audit_records.count_documents({"change.entity_type": "audit_context"}),
    }


def seals(lab: Lab, table: str = "orders") -> pd.DataFrame:
    """The seals over a table's records: `partition`, `first`, `next`, `previous`, `hash`, `sealed_at`, in order."""
    topic = f"{lab.namespace.topic_prefix}public.{table}"
    fields = ["partition", "first", "next", "previous", "hash", "sealed_at"]
    found = lab.mongo.audit_seals.find({"topic": topic}, fields, sort=[("partition", 1), ("first", 1)])
    return pd.DataFrame([[one[name] for name in fields] for one in found], columns=fields)


def sealed(lab: Lab, table: str = "orders") -> int:
    """How many records of a table are under a seal."""
    topic = f"{lab.namespace.topic_prefix}public.{table}"
    return len({id_ for one in lab.mongo.audit_seals.find({"topic": topic}, ["ids"]) for id_ in one["ids"]})


def sealed_since(lab: Lab, moment: datetime) -> set[int]:
    """The partitions of the orders in which a seal was made after a moment."""
    topic = f"{lab.namespace.topic_prefix}public.orders"
    return set(lab.mongo.audit_seals.distinct("partition", {"topic": topic, "sealed_at": {"$gt": moment}}))


def is_one_chain(seals: pd.DataFrame) -> bool:
    """Whether in each partition every seal begins where the one before it ended, and names it."""
    for _, chain in seals.groupby("partition"):
        begins, ends = chain["first"].tolist(), chain["next"].tolist()
        if begins != [0, *ends[:-1]] or chain["previous"].tolist()[1:] != chain["hash"].tolist()[:-1]:
            return False
    return True
