"""A reader of changes in a process of its own, which is killed in the middle, and started again.

What it has handled, it writes into MongoDB itself, one document a change: the lesson asks MongoDB, not the reader.
"""

import time
from typing import Any

import pandas as pd
from pymongo.database import Database

from showcase.documents.infrastructure import changes
from showcase.documents.infrastructure.changes import PLACES
from showcase.platform.settings import Settings
from workshop.documents.crew import Crew, Ready
from workshop.documents.racing import plain
from workshop.documents.store import SALES, Store

HANDLED = "handled"
SAVE_EVERY = 20
POLL_S = 0.01
WITHIN_S = 20.0


class Reader:
    """Follows the sales in a process; each start is another life of the same reader.

    Args:
        name: under which its place is stored.
        database: to look into.
    """

    def __init__(self, settings: Settings, name: str, database: Database[dict[str, Any]]) -> None:
        self._settings = settings
        self._name = name
        self._database = database
        self._crew: Crew | None = None
        self._lives = 0

    def start(self) -> None:
        """Begin, or go on where the last life has stopped; returns when it follows."""
        self._lives += 1
        self._crew = Crew(_follow, [(self._settings, self._name, self._lives)])
        self._crew.__enter__()
        self._until_place()

    def kill(self, when: int) -> None:
        """SIGKILL, once it has handled so many changes in all of its lives. Raises TimeoutError if it does not."""
        deadline_s = time.monotonic() + WITHIN_S
        while self._database[HANDLED].count_documents({}) < when:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self._name} has not handled {when:,} changes within {WITHIN_S:g} s")
            time.sleep(POLL_S)
        assert self._crew is not None
        self._crew.kill()

    def close(self) -> None:
        """End it for good; harmless when it is dead."""
        if self._crew is not None:
            self._crew.kill()

    def frame(self) -> pd.DataFrame:
        """One row a change that was handled, in the order in which that was: `life`, `document`, `is_again`."""
        rows = [
            (one["life"], one["document"]) for one in self._database[HANDLED].find().sort([("life", 1), ("_id", 1)])
        ]
        frame = pd.DataFrame(rows, columns=["life", "document"])
        return frame.assign(is_again=frame.document.duplicated())

    def _until_place(self) -> None:
        """A new reader follows from when its place is stored."""
        deadline_s = time.monotonic() + WITHIN_S
        while self._database[PLACES].find_one({"_id": self._name}) is None:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"{self._name} does not follow")
            time.sleep(POLL_S)


async def _follow(ready: Ready, settings: Settings, reader: str, life: int) -> None:
    """One life. It ends by SIGKILL."""
    store = Store(settings)
    handled = plain(store, HANDLED)
    await store.answers()
    await ready()
    async with changes.following(store.mongo, SALES, reader, save_every=SAVE_EVERY) as told:
        async for change in told:
            await handled.insert_one({"life": life, "document": change.id, "at": time.time()})
