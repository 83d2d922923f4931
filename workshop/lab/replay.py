"""Sending real baskets to the app, as the households would."""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pandas as pd

TRIES = 8
PAUSE_S = 0.25
AT_ONCE = 50
ANSWER_WITHIN_S = 15.0
RETRYABLE = {409, 502, 503, 504}


@dataclass(slots=True)
class Replay:
    """One replay, while it runs and after.

    Attributes:
        baskets: how many there are to send.
        answers: one row for each that was answered, in the order of the answers.
    """

    baskets: int
    answers: list[dict[str, Any]] = field(default_factory=list)

    def frame(self) -> pd.DataFrame:
        """What was answered, one row a basket, in the order in which they were sent."""
        columns = ["basket_id", "household_id", "order_id", "status", "tries", "sent_at", "answered_at"]
        frame = pd.DataFrame(self.answers, columns=columns)
        return frame.sort_values("sent_at", ignore_index=True)


def bodies(lines: pd.DataFrame) -> list[tuple[int, int, dict[str, Any]]]:
    """For each basket, in order: its number, its household's, and the request body."""
    columns = ["product_id", "quantity", "total_cents"]
    found = []
    for basket, group in lines.groupby("basket_id", sort=False):
        body = {"reference": str(basket), "lines": group[columns].to_dict("records")}
        found.append((int(str(basket)), int(group.household_id.iloc[0]), body))
    return found


async def send(
    replay: Replay,
    urls: Sequence[str],
    baskets: Sequence[tuple[int, int, dict[str, Any]]],
    token_of: Callable[[int], str],
    rate: float | None,
    tries: int = TRIES,
) -> None:
    """Send all baskets, and wait for all answers.

    Open loop: a basket is sent when its time has come, whether earlier ones were answered or not. Each has an
    Idempotency-Key, so it can be sent again when no answer comes.

    Args:
        rate: baskets a second; as fast as the app takes them if None.
        tries: how often each is sent, at the most.
    """
    loop = asyncio.get_running_loop()
    limits = httpx.Limits(max_connections=AT_ONCE)
    one_more = asyncio.Semaphore(AT_ONCE)
    async with httpx.AsyncClient(timeout=ANSWER_WITHIN_S, limits=limits) as client:

        async def post(number: int, basket: int, household: int, body: dict[str, Any]) -> None:
            in_turn = [f"{urls[(number + further) % len(urls)]}/orders" for further in range(len(urls))]
            headers = {"Authorization": f"Bearer {token_of(household)}", "Idempotency-Key": f"basket-{basket}"}
            sent_at = datetime.now(UTC)
            async with one_more:
                response, tried = await _until_answered(client, in_turn, body, headers, tries)
            answer = response.json() if response is not None and response.is_success else {}
            replay.answers.append(
                {
                    "basket_id": basket,
                    "household_id": household,
                    "order_id": answer.get("order_id"),
                    "status": 0 if response is None else response.status_code,
                    "tries": tried,
                    "sent_at": sent_at,
                    "answered_at": datetime.now(UTC),
                }
            )

        began = loop.time()
        async with asyncio.TaskGroup() as tasks:
            for number, (basket, household, body) in enumerate(baskets):
                if rate is not None:
                    await asyncio.sleep(began + number / rate - loop.time())
                tasks.create_task(post(number, basket, household, body))


async def _until_answered(
    client: httpx.AsyncClient, urls: Sequence[str], body: dict[str, Any], headers: dict[str, str], at_most: int
) -> tuple[httpx.Response | None, int]:
    """Send a request again while it makes sense, to one process after the other: the first may be dead.

    Returns the last answer, None if there was none, and the tries.
    """
    response = None
    for tries, url in zip(range(1, at_most + 1), itertools.cycle(urls), strict=False):
        try:
            response = await client.post(url, json=body, headers=headers)
        except httpx.TransportError:
            response = None
        if tries == at_most or (response is not None and response.status_code not in RETRYABLE):
            return response, tries
        await asyncio.sleep(PAUSE_S * tries)
    raise ValueError("tries: at least one")
