"""How MongoDB goes about a question, index by index: what it looks at, and what it gives back."""

from collections.abc import Mapping, Sequence
from typing import Any

import bson
import pandas as pd
from pymongo.database import Database

from showcase.documents import Collection
from showcase.documents.domain.filters import Fields, Filter
from showcase.documents.infrastructure.codec import OPTIONS
from showcase.documents.infrastructure.mongo import path_of
from showcase.documents.infrastructure.repository import query

STAGES: Mapping[str, str] = {
    "COLLSCAN": "read every document",
    "IXSCAN": "go through the index",
    "FETCH": "fetch documents",
    "SORT": "sort in memory",
    "LIMIT": "stop",
}


def compared(
    database: Database[dict[str, Any]],
    collection: Collection[Any],
    where: Filter,
    sort: Sequence[str],
    limit: int,
    indexes: Mapping[str, Sequence[str]],
) -> pd.DataFrame:
    """Ask the same with one index after the other, and with no other one besides it.

    Args:
        indexes: the keys of each, `-total_cents` descends; none for an empty one.

    Returns one row an index: `index`, `keys` and `documents` (how many were looked at), `returned`, `stages`.
    """
    held = database[collection.name]
    rows = []
    for name, keys in indexes.items():
        held.drop_indexes()
        if keys:
            held.create_index(path_of(keys))
        told = explained(database, collection, where, sort, limit)
        found = told["executionStats"]
        stages = list(stages_of(told["queryPlanner"]["winningPlan"]))
        rows.append((name, found["totalKeysExamined"], found["totalDocsExamined"], found["nReturned"], stages))
    held.drop_indexes()
    return pd.DataFrame(rows, columns=["index", "keys", "documents", "returned", "stages"])


def explained(
    database: Database[dict[str, Any]], collection: Collection[Any], where: Filter, sort: Sequence[str], limit: int
) -> dict[str, Any]:
    """What MongoDB says of a question: the one that our repository would ask."""
    wanted = query(Fields(collection.model).check(where))
    find = {"find": collection.name, "filter": wanted, "sort": dict(path_of(sort)), "limit": limit}
    encoded: dict[str, Any] = bson.decode(bson.encode(find, codec_options=OPTIONS), OPTIONS)
    return dict(database.command("explain", encoded, verbosity="executionStats"))


def stages_of(plan: Mapping[str, Any]) -> Sequence[str]:
    """The stages of a plan, the one that is done first in front."""
    plan = plan.get("queryPlan", plan)
    before = stages_of(plan["inputStage"]) if "inputStage" in plan else ()
    return [*before, str(plan["stage"])]
