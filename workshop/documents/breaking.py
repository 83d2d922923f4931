"""MongoDB killed and paused while others count, and households who read meanwhile."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields

import httpx
import pandas as pd

from workshop.documents.counting import NAME
from workshop.documents.store import TALLIES
from workshop.lab.background import Beside
from workshop.lab.lab import Lab

ANSWER_WITHIN_S = 15.0
NO_ANSWER = 0


class Faults:
    """What is broken and mended while others count.

    Args:
        lab: whose MongoDB is looked into, to know how far they are.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._began = time.time()
        self._spans: dict[str, tuple[float, float]] = {}

    def strike(
        self,
        name: str,
        *,
        at: int,
        breaks: Callable[[], None],
        mends: Callable[[], None],
        lasts_s: float = 0.0,
    ) -> None:
        """Break something once so much is counted, and mend it a while later.

        Args:
            breaks, mends: do it, and return when it is done.
        """
        tallies = self._lab.mongo[TALLIES.name]
        self._lab.until(lambda: (tallies.find_one({"_id": NAME}) or {"total": 0})["total"] >= at, what=f"{at} counted")
        began = time.time()
        breaks()
        time.sleep(lasts_s)
        mends()
        self._spans[name] = (began - self._began, time.time() - self._began)

    def spans(self) -> dict[str, tuple[float, float]]:
        """From when to when each lasted, in seconds since the beginning."""
        return self._spans

    def since(self, frame: pd.DataFrame, column: str) -> pd.DataFrame:
        """What is in a frame since the beginning, and in `…_s` a column of Unix times as seconds since then."""
        seconds = frame[column] - self._began
        return frame.assign(**{f"{column}_s": seconds})[seconds >= 0]


@dataclass(frozen=True, slots=True)
class Asked:
    """One question over HTTP.

    Attributes:
        due, answered: Unix time; status: of HTTP, NO_ANSWER if nothing came in time.
        found: how many items are in the answer.
        error: why nothing came, or "".
    """

    path: str
    due: float
    answered: float
    status: int
    found: int
    error: str


class Asking(Beside):
    """Asks an app for lists, open loop, while its block goes on; whoever got no answer is not forgotten.

    with Asking(url, ["/households/1/orders"], headers, rate=20) as asking: …
    asking.frame()

    Args:
        paths: asked for in turn.
        rate: questions a second.
    """

    ends_within_s = ANSWER_WITHIN_S

    def __init__(self, url: str, paths: Sequence[str], headers: dict[str, str], *, rate: float) -> None:
        self._url, self._paths, self._headers, self._rate = url, paths, headers, rate
        self._asked: list[Asked] = []

    def frame(self) -> pd.DataFrame:
        """One row a question, in the order in which they were due; `took_ms`, and what `Asked` says."""
        frame = pd.DataFrame([astuple(one) for one in self._asked], columns=[one.name for one in fields(Asked)])
        return frame.assign(took_ms=1_000 * (frame.answered - frame.due)).sort_values("due", ignore_index=True)

    async def _go_on(self) -> None:
        began, number = time.time(), 0
        async with (
            httpx.AsyncClient(base_url=self._url, timeout=ANSWER_WITHIN_S, headers=self._headers) as client,
            asyncio.TaskGroup() as tasks,
        ):
            while not self._stop.is_set():
                due = began + number / self._rate
                await asyncio.sleep(max(0.0, due - time.time()))
                tasks.create_task(self._ask(client, self._paths[number % len(self._paths)], due))
                number += 1

    async def _ask(self, client: httpx.AsyncClient, path: str, due: float) -> None:
        status, found, why = NO_ANSWER, 0, ""
        try:
            answer = await client.get(path)
            status, found = answer.status_code, len(answer.json()["items"]) if answer.is_success else 0
        except httpx.TransportError as error:
            why = repr(error)
        self._asked.append(Asked(path, due, time.time(), status, found, why))
