"""Households who ask again and again whether there is news, beside those who are told."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import cycle
from typing import Any

import httpx
import pandas as pd

from workshop.lab.background import Beside

ANSWER_WITHIN_S = 10.0
NEWEST = 20
POLLED, PUSHED = "asking every half second", "told over a WebSocket"


class Polling(Beside):
    """Each household asks for its orders, in its own time, while the block runs.

    Args:
        urls: of app processes, asked in turn.
        tokens: of each household.
        every_s: between two questions of one household.
    """

    ends_within_s = ANSWER_WITHIN_S

    def __init__(self, urls: Sequence[str], tokens: Mapping[int, str], *, every_s: float) -> None:
        self._urls, self._tokens, self._every_s = urls, tokens, every_s
        self._known: dict[str, int] = {}
        self._rows: list[tuple[str, int, float]] = []
        self.requests = 0
        self.with_news = 0

    def known(self) -> Mapping[str, int]:
        """The version of each order that its household knows."""
        return dict(self._known)

    def frame(self) -> pd.DataFrame:
        """One row an order that was seen in another version than before: `order_id`, `version`, `at` (Unix time)."""
        return pd.DataFrame(list(self._rows), columns=["order_id", "version", "at"])

    async def _go_on(self) -> None:
        async with httpx.AsyncClient(timeout=ANSWER_WITHIN_S, trust_env=False) as client, asyncio.TaskGroup() as tasks:
            for place, token in enumerate(self._tokens.values()):
                begins_s = self._every_s * place / len(self._tokens)  # households do not ask in step
                tasks.create_task(self._ask(client, token, begins_s))

    async def _ask(self, client: httpx.AsyncClient, token: str, begins_s: float) -> None:
        loop, headers = asyncio.get_running_loop(), {"Authorization": f"Bearer {token}"}
        due = loop.time() + begins_s
        for url in cycle(self._urls):
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await self._stop.wait()
            if self._stop.is_set():
                return
            answer = await client.get(f"{url}/orders", params={"limit": NEWEST}, headers=headers)
            self._note(answer.raise_for_status().json()["items"])
            due = max(due + self._every_s, loop.time())

    def _note(self, orders: Sequence[Mapping[str, Any]]) -> None:
        self.requests += 1
        news = [one for one in orders if self._known.get(one["order_id"], 0) < one["version"]]
        self.with_news += bool(news)
        for one in news:
            self._known[one["order_id"]] = one["version"]
            self._rows.append((one["order_id"], one["version"], time.time()))


def latencies(steps: pd.DataFrame, polled: pd.DataFrame, pushed: pd.DataFrame) -> pd.DataFrame:
    """How long each step of an order took to be known, by either way.

    Args:
        steps: as PostgreSQL has them: `order_id`, `version`, `at` (Unix time).
        polled: `Polling.frame()`: a later version makes all those before it known.
        pushed: `Followers.frame()` of the same households.

    Returns one row a step and way: `way`, `order_id`, `version`, `ms`, `is_shown` (whether that very version was seen).
    """
    told = pd.DataFrame(
        {
            "order_id": pushed.subject.str.removeprefix("orders/"),
            "version": [data["version"] for data in pushed.data],
            "at": pushed["at"],
        }
    )
    rows = []
    for way, seen in ((POLLED, polled), (PUSHED, told)):
        by_order = {order: group.sort_values("version") for order, group in seen.groupby("order_id")}
        for order, version, at in steps[["order_id", "version", "at"]].itertuples(index=False):
            later = by_order[order][by_order[order].version >= version].iloc[0]
            rows.append((way, order, version, 1000 * (later["at"] - at), later.version == version))
    return pd.DataFrame(rows, columns=["way", "order_id", "version", "ms", "is_shown"])
