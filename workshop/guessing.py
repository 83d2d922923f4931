"""Guessing one-time codes: done over HTTP, and what chance and throttle make of it on paper."""

import math
import random
import time
from datetime import timedelta

import httpx
import numpy as np
import pandas as pd
from limits import parse_many

from workshop.accounts import PASSWORD

CODES = 10**6
"""Six digits."""
VALID = 2
"""The code of this step, and the one before it."""
TRIES = 5
"""That one login allows."""
WRONG = 422
ACCOUNTS_AT_ONCE = 10_000


def guess(shop: httpx.Client, email: str, seconds: float, patience_s: float = math.inf, seed: int = 0) -> pd.DataFrame:
    """Be a thief who knows the password, and try codes as fast as the answers come.

    Args:
        seconds: how long, at the most.
        patience_s: give up when for so long no code was found wrong, but all were told to wait.

    Returns one row a request: `at_s` (seconds since the first), `status`, `retry_after_s` (0 where nobody asks to
    wait). A login stands among them with 401: the password is right, now give a code.
    """
    chance = random.Random(seed)  # noqa: S311 - the same guesses in every run
    rows: list[tuple[float, int, int]] = []
    began = time.monotonic()

    def ask(path: str, body: dict[str, str]) -> httpx.Response:
        at_s = time.monotonic() - began
        answer = shop.post(path, json=body)
        rows.append((at_s, answer.status_code, int(answer.headers.get("Retry-After", 0))))
        return answer

    def goes_on() -> bool:
        now_s = time.monotonic() - began
        wrong_s = next((at_s for at_s, status, _ in reversed(rows) if status == WRONG), 0.0)
        return now_s < seconds and now_s - wrong_s < patience_s

    while goes_on():
        challenge = ask("/auth/login", {"email": email, "password": PASSWORD}).json().get("challenge_id")
        for _ in range(TRIES if challenge else 0):
            ask("/auth/login/code", {"challenge_id": challenge, "code": f"{chance.randrange(CODES):06}"})
    return pd.DataFrame(rows, columns=["at_s", "status", "retry_after_s"])


def let_through(windows: str, within: timedelta) -> list[float]:
    """When a throttle lets through somebody who never stops trying: seconds since the first attempt.

    Args:
        windows: as in the settings, "5 per minute; 20 per 15 minutes": the last so many attempts are remembered, and
            the next comes when each of the windows has room.
    """
    sizes = [(window.amount, window.get_expiry()) for window in parse_many(windows)]
    times = [0.0]
    while True:
        room = [times[-amount] + length_s for amount, length_s in sizes if len(times) >= amount]
        following = max([times[-1], *room])
        if following >= within.total_seconds():
            return times
        times.append(following)


def chance_of_a_hit(guesses: float, valid: int = VALID, codes: int = CODES) -> float:
    """The chance that at least one of some guesses is right: 1 - (1 - valid/codes)^guesses."""
    return -math.expm1(guesses * math.log1p(-valid / codes))


def guesses_until(chance: float, valid: int = VALID, codes: int = CODES) -> int:
    """How many guesses it takes to have such a chance of a hit."""
    return math.ceil(math.log1p(-chance) / math.log1p(-valid / codes))


def simulated_hits(accounts: int, bursts: int, burst: int, seed: int = 0) -> int:
    """Of accounts under attack, how many are hit: codes and guesses are drawn, and compared with one another.

    Args:
        bursts: how often the throttle opens; each time there are two other codes.
        burst: guesses before it closes again.
        seed: the same one draws the same.
    """
    draw = np.random.default_rng(seed)
    hits = 0
    for first in range(0, accounts, ACCOUNTS_AT_ONCE):
        count = min(ACCOUNTS_AT_ONCE, accounts - first)
        codes = draw.integers(CODES, size=(count, bursts, VALID, 1), dtype=np.int32)
        guesses = draw.integers(CODES, size=(count, bursts, 1, burst), dtype=np.int32)
        hits += int((codes == guesses).any(axis=(1, 2, 3)).sum())
    return hits
