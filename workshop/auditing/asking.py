"""What the audit's API answers, and the frames that pictures are drawn of."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pandas as pd

Record = dict[str, Any]

MOST_PAGES = 1_000
DONE = {"create": "added", "update": "changed", "delete": "removed", "read": "there before", "truncate": "emptied"}


class Audit:
    """A person who may read the audit.

    Args:
        http: a client on app processes.
        headers: by which a request is that person's.

    Every call raises httpx.HTTPStatusError.
    """

    def __init__(self, http: httpx.Client, headers: Mapping[str, str]) -> None:
        self._http = http
        self._headers = headers

    def timeline(self, entity_type: str, entity_id: str) -> list[Record]:
        """All that happened to one row, the oldest first; nothing if nothing is recorded yet."""
        return self._all(f"/audit/entities/{entity_type}/{entity_id}")

    def at(self, entity_type: str, entity_id: str, time: str) -> Record:
        """The row as it was."""
        return self._get(f"/audit/entities/{entity_type}/{entity_id}/at", time=time)

    def diff(self, entity_type: str, entity_id: str, since: str, until: str) -> Record:
        """What became of the row between two times."""
        return self._get(f"/audit/entities/{entity_type}/{entity_id}/diff", **{"from": since, "to": until})

    def request(self, request_id: str) -> list[Record]:
        """The deeds of one request, or of all workers for the sake of one event."""
        return self._all(f"/audit/requests/{request_id}")

    def actor(self, actor: str) -> list[Record]:
        """What somebody did, the newest first."""
        return self._all(f"/audit/actors/{actor}")

    def export(self, entity_type: str = "") -> list[Record]:
        """All records, or those of one table. Raises ValueError when the export was broken off."""
        wanted = {"type": entity_type} if entity_type else {}
        with self._http.stream("GET", "/audit/export", params=wanted, headers=self._headers) as answer:
            answer.raise_for_status()
            found = [json.loads(line) for line in answer.iter_lines() if line]
        if found and "error" in found[-1]:
            raise ValueError(f"the export is not whole: {found[-1]['error']}")
        return found

    def _get(self, path: str, **query: str | int) -> Record:
        answer: Record = self._http.get(path, params=query, headers=self._headers).raise_for_status().json()
        return answer

    def _all(self, path: str) -> list[Record]:
        found: list[Record] = []
        query: dict[str, str | int] = {"limit": 100}
        for _ in range(MOST_PAGES):
            try:
                page = self._get(path, **query)
            except httpx.HTTPStatusError as error:
                if error.response.status_code == httpx.codes.NOT_FOUND and not found:
                    return []  # it is on its way, or never was
                raise
            found += page["items"]
            if page["next"] is None:
                return found
            query["after"] = page["next"]
        raise ValueError(f"{path} has more than {MOST_PAGES:,} pages")


def attributed(records: Sequence[Record]) -> bool:
    """Whether it has arrived who made each of these changes: that comes in a topic of its own, and may come later."""
    return all(record["who"]["database_user"] for record in records)


def life(records: Sequence[Record], columns: Sequence[str] = ()) -> pd.DataFrame:
    """The records of one row as steps for a picture: `who`, `why`, `does`, `changes`; the same in every run.

    Args:
        columns: those that are shown of a row that is created; of one that is changed all that did.
    """
    steps = []
    for record in records:
        shown = {
            name: both for name, both in record["changes"].items() if record["operation"] == "update" or name in columns
        }
        steps.append(
            {
                "who": record["who"]["summary"],
                "why": _without_ids(record["who"]["reason"] or ""),
                "does": record["operation"],
                "changes": [_change(record["operation"], name, both) for name, both in shown.items()],
            }
        )
    return pd.DataFrame(steps, columns=["who", "why", "does", "changes"])


def deeds(found: Sequence[Record]) -> pd.DataFrame:
    """Deeds as steps for a picture, as `life` has them: for each what was changed, table by table."""
    steps = []
    for deed in found:
        kinds = [(record["entity_type"], record["operation"]) for record in deed["records"]]
        counted = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
        steps.append(
            {
                "who": deed["who"]["summary"],
                "why": _without_ids(deed["who"]["reason"] or ""),
                "does": "transaction",
                "changes": [f"{table}: {count} {DONE[operation]}" for (table, operation), count in counted.items()],
            }
        )
    return pd.DataFrame(steps, columns=["who", "why", "does", "changes"])


def columns_through(records: Sequence[Record], columns: Sequence[str]) -> pd.DataFrame:
    """What some columns of a row held after each of its records: one row a record, None where there was no column."""

    def held(row: Record, name: str) -> str | None:
        return None if name not in row else "NULL" if row[name] is None else str(row[name])

    rows = [[held(record["after"] or {}, name) for name in columns] for record in records]
    return pd.DataFrame(rows, columns=list(columns), dtype=object)


def _change(operation: str, name: str, both: Mapping[str, Any]) -> str:
    if operation == "create":
        return f"{name}: {both['after']}"
    return f"{name}: {both['before']} → {both['after']}"


def _without_ids(reason: str) -> str:
    """The reason of a worker is an event's type and its id, which is another one in every run."""
    return " ".join(word for word in reason.split(" ") if not (len(word) == 36 and word.count("-") == 4))
