"""Servers and processes that are broken in turn, and mended, while a load goes on."""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from pymongo.errors import PyMongoError

from workshop.lab.checks import CheckFailed
from workshop.lab.lab import Lab

WITHIN = "120 s"
LAST_WORDS = 5
CALM_S = 0.5
"""Between two faults: what is recorded then shows that the first one is over."""
Span = tuple[float, float, float]
"""In seconds since the beginning: when something was broken, when it was mended, when records came again."""


class Storm:
    """Breaks one thing after the other, each when the one before is forgotten.

    Args:
        lab: whose audit is looked at, to know whether records come.

    Attributes:
        began: Unix time.
        spans: under the name of each fault.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.began = time.time()
        self.spans: dict[str, Span] = {}

    def strike(self, name: str, *, breaks: Callable[[], None], mends: Callable[[], None], lasts_s: float = 0.0) -> None:
        """Break something in the middle of the load, mend it a while later, and wait until records come again.

        Args:
            breaks, mends: do it, and return when it is done.

        Raises CheckFailed when no records come before it, or after it.
        """
        self.until_recorded(time.time() + CALM_S)
        broken = time.time()
        breaks()
        time.sleep(lasts_s)
        mends()
        mended = time.time()
        self.until_recorded(mended)
        self.spans[name] = (broken - self.began, mended - self.began, time.time() - self.began)

    def until_recorded(self, since: float) -> None:
        """Wait until a change is recorded that was committed after this Unix time.

        Raises CheckFailed, with the last words of whoever should have recorded it.
        """
        try:
            self._lab.until(lambda: self._newest() > since, WITHIN, "a change that was committed just now is recorded")
        except CheckFailed as error:
            words = {name: self._last_words(name) for name in ("audit", "capture")}
            after = list(self.spans)[-1:]
            raise CheckFailed(f"{error}\nover so far: {after}; last words: {words}") from error

    def _last_words(self, process: str) -> list[dict[str, Any]]:
        rows = json.loads(self._lab.log(process).tail(LAST_WORDS).to_json(orient="records"))
        return [{name: value for name, value in row.items() if value is not None} for row in rows]

    def _newest(self) -> float:
        """When the newest change was committed of which there is a record; 0 while nobody can be asked."""
        with suppress(PyMongoError):
            found: dict[str, Any] | None = self._lab.mongo.audit_records.find_one(
                {"change.committed_at": {"$gte": datetime.fromtimestamp(self.began, UTC)}},
                {"change.committed_at": 1},
                sort=[("change.committed_at", -1)],
            )
            return 0.0 if found is None else float(found["change"]["committed_at"].timestamp())
        return 0.0
