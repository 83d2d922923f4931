"""A number that two processes count up, whatever becomes of MongoDB meanwhile.

An increment that got no answer may have been made or not. So each writer leaves the number of its last increment in the
document, beside the total and in the same change: whoever reads it again knows.
"""

import asyncio
import time
from dataclasses import dataclass

import pandas as pd

from showcase.documents import Repository, VersionConflict
from showcase.kernel.errors import Unavailable
from showcase.platform.settings import Settings
from workshop.documents.crew import Crew, Ready
from workshop.documents.store import TALLIES, Store, Tally

NAME = "broken"
PAUSE_S = 0.02
GIVES_UP_AFTER_S = 45.0


@dataclass(slots=True)
class Counting:
    """One writer.

    Attributes:
        conflicts: how often the other one was faster.
        unanswered: how often a call got no answer.
        made: how often it turned out that the increment had been made all the same.
    """

    tallies: Repository[Tally]
    writer: str
    conflicts: int = 0
    unanswered: int = 0
    made: int = 0

    async def one_more(self, number: int) -> None:
        """Make this writer's increment of this number, once. Raises Unavailable when MongoDB stays away."""
        deadline_s = time.monotonic() + GIVES_UP_AFTER_S
        while True:
            try:
                tally = await self.tallies.get(NAME)
                if tally.seen.get(self.writer, 0) >= number:
                    self.made += 1  # the answer was lost, not the increment
                    return
                seen = {**tally.seen, self.writer: number}
                await self.tallies.replace(tally.model_copy(update={"total": tally.total + 1, "seen": seen}))
            except VersionConflict:
                self.conflicts += 1
            except Unavailable:
                self.unanswered += 1
                if time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(PAUSE_S)
            else:
                return


class Counters(Crew):
    """Writers in a process each, who make so many increments each.

    with Counters(settings, each=500) as counters: …
    counters.frame()
    """

    def __init__(self, settings: Settings, *, each: int, writers: int = 2) -> None:
        names = [f"writer {number}" for number in range(1, writers + 1)]
        super().__init__(_count, [(settings, name, each) for name in names])

    def frame(self) -> pd.DataFrame:
        """One row an increment, in the order of the answers: `writer`, `number`, `at` (Unix time)."""
        rows = [row for result in self.results for row in result["rows"]]
        return pd.DataFrame(rows, columns=["writer", "number", "at"]).sort_values("at", ignore_index=True)

    def counted(self, what: str) -> int:
        """`conflicts`, `unanswered` or `made`, of all writers."""
        return sum(int(result[what]) for result in self.results)


async def _count(ready: Ready, settings: Settings, writer: str, each: int) -> dict[str, object]:
    store = Store(settings)
    counting, rows = Counting(store.of(TALLIES), writer), []
    try:
        await store.answers()
        await ready()
        for number in range(1, each + 1):
            await counting.one_more(number)
            rows.append((writer, number, time.time()))
    finally:
        await store.close()
    counts = {"conflicts": counting.conflicts, "unanswered": counting.unanswered, "made": counting.made}
    return {"rows": rows, **counts}
