"""What is done to processes and servers in the middle of a replay, and what a client got before and after it."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd

from workshop.lab.checks import until
from workshop.lab.replay import Replay


def nothing() -> None:
    """It stays as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strike:
    """One thing that is broken, and perhaps mended.

    Args:
        after: so many answered baskets.
        breaks, mends: do it, and return when it is done.
        lasts: so many more answered baskets.
    """

    name: str
    after: int
    breaks: Callable[[], None]
    mends: Callable[[], None] = nothing
    lasts: int = 0


class Strikes:
    """Breaks one thing after the other while baskets are sent: `lab.replay(…, then=strikes)`.

    Attributes:
        spans: under the name of each, from when to when it lasted, as Unix times.
    """

    def __init__(self, *strikes: Strike) -> None:
        self._left = list(strikes)
        self.spans: dict[str, tuple[float, float]] = {}

    def __call__(self, replay: Replay) -> None:
        """Strike, if it is time to. Raises CheckFailed when the replay stands still meanwhile."""
        while self._left and len(replay.answers) >= self._left[0].after:
            strike = self._left.pop(0)
            began = time.time()
            strike.breaks()
            enough = min(replay.baskets, len(replay.answers) + strike.lasts)
            until(lambda: len(replay.answers) >= enough, what="orders are placed meanwhile")  # noqa: B023 - in this turn
            strike.mends()
            self.spans[strike.name] = (began, time.time())

    def since(self, began: float) -> dict[str, tuple[float, float]]:
        """From when to when each lasted, in seconds since a Unix time."""
        return {name: (start - began, end - began) for name, (start, end) in self.spans.items()}


def deliveries(frame: pd.DataFrame, began: float) -> pd.DataFrame:
    """What one client got: `Followers.frame()` with `at_s`, `told_s`, `late_ms` and `is_missed`.

    An event was missed if it was in the stream before the first one came from the process that told it, and that is
    not the first of all.

    Args:
        began: Unix time from which the seconds are counted.
    """
    first = frame.groupby("process")["at"].transform("min")
    return frame.assign(
        at_s=frame["at"] - began,
        told_s=frame["told_at"] - began,
        late_ms=1000 * (frame["at"] - frame["told_at"]),
        is_missed=(frame["added_at"] < first) & (frame["process"] != frame["process"].iloc[0]),
    )
