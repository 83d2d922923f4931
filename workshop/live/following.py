"""Clients that follow topics beside the notebook, each as fast as it is told to be, and a note of all that came."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import pandas as pd
from structlog.testing import capture_logs

from showcase.realtime.client import WINDOW, Following, Gap, follow
from showcase.realtime.domain import Place
from workshop.lab.background import Background

OPEN_WITHIN_S = 20.0
COLUMNS = ["who", "id", "subject", "data", "told_at", "added_at", "at", "process", "connection"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Follower:
    """One client, and what it wants.

    Args:
        urls: of app processes: the first is tried first, and the next one when a connection ends.
        window: how many events may be under way that it has not taken; None for as many as the server has.
        each_s: how long it is busy with each event, or what tells: a slow phone, or a page that draws a lot.
    """

    name: str
    urls: Sequence[str]
    token: str
    topics: Sequence[str]
    window: int | None = WINDOW
    each_s: float | Callable[[], float] = 0.0


class Followers:
    """Clients that follow while the block runs.

    with Followers(Follower(name="kitchen", …)) as followers: …

    Entered once all are confirmed. Raises what has ended one of them when it is entered, or asked for its frame.
    """

    def __init__(self, *followers: Follower) -> None:
        self._followers = followers
        self._rows: list[tuple[Any, ...]] = []
        self._gaps: list[tuple[str, Gap]] = []
        self._following: dict[str, Following] = {}
        self._leaving = ExitStack()
        self._tasks: list[asyncio.Task[None]] = []

    def __enter__(self) -> Self:
        with ExitStack() as entered:
            self._logged = entered.enter_context(capture_logs())  # a thread beside a notebook prints nothing
            self._background = Background()
            entered.callback(self._background.close)
            entered.callback(lambda: self._background.run(self._leave()))
            self._background.run(self._open())
            self._leaving = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.close()

    def frame(self) -> pd.DataFrame:
        """What came so far, in this order.

        One row an event that a client has taken: `who`, `id`, `subject`, `data`; `told_at` (when it happened),
        `added_at` (when it came into the stream) and `at` (when it was taken), all as Unix times; `process` and
        `connection`, both counted from 1.
        """
        for task in self._tasks:
            if task.done() and not task.cancelled():
                task.result()
        return pd.DataFrame(list(self._rows), columns=COLUMNS)

    def counts(self) -> Counter[str]:
        """How many events each client has taken so far."""
        return Counter(row[0] for row in list(self._rows))

    def gaps(self, who: str) -> list[Gap]:
        """What a client was told that it is not told."""
        return [gap for name, gap in list(self._gaps) if name == who]

    def connections(self, who: str) -> int:
        """How often a client was let in."""
        return self._following[who].connections

    def ends(self) -> list[str]:
        """How connections ended, of all clients, in the order in which that was."""
        return [str(entry["why"]).partition("; then")[0] for entry in self._logged if "why" in entry]

    async def _leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _open(self) -> None:
        opened = [asyncio.Event() for _ in self._followers]
        pairs = zip(self._followers, opened, strict=True)
        self._tasks = [asyncio.create_task(self._follow(one, is_open)) for one, is_open in pairs]
        async with asyncio.timeout(OPEN_WITHIN_S):
            for task, is_open in zip(self._tasks, opened, strict=True):
                waiting = asyncio.create_task(is_open.wait())
                await asyncio.wait({waiting, task}, return_when=asyncio.FIRST_COMPLETED)
                if not is_open.is_set():
                    waiting.cancel()
                    task.result()

    async def _follow(self, one: Follower, is_open: asyncio.Event) -> None:
        async with follow(one.urls, one.token, one.topics, window=one.window) as events:
            self._following[one.name] = events
            is_open.set()
            async for told in events:
                if isinstance(told, Gap):
                    self._gaps.append((one.name, told))
                    continue
                event, process = told.event, list(one.urls).index(events.url) + 1
                added_ms, _ = Place.read(told.id).number
                times = (event.time.timestamp(), added_ms / 1000, time.time())
                row = (one.name, event.id, event.subject, event.data, *times, process, events.connections)
                self._rows.append(row)
                if one.each_s:
                    await asyncio.sleep(one.each_s() if callable(one.each_s) else one.each_s)
