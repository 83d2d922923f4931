"""Customers who are signed in and use the shop, all the time, while something is done to it."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event, Lock, Thread
from types import TracebackType
from typing import Any, Self

import httpx
import pandas as pd

from workshop.attacks.forging import unb64

ASK_EVERY_S = 0.1
AT_MOST_S = 120.0
"""Then they go home by themselves."""
NO_ANSWER = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One request and its answer.

    Attributes:
        at_s: seconds since the customers came in.
        path: `/me`, or `/auth/refresh`.
        kid: the key that the customer's access token was signed with.
        status: NO_ANSWER when the process that it was sent to is gone.
    """

    at_s: float
    customer: str
    path: str
    kid: str
    status: int


class Customers:
    """Each in a thread of its own: asks `/me` ten times a second, and refreshes its token now and then, or after a 401.

    with Customers(client, {"households/7": ("household-7@…", "password")}) as customers: …

    Args:
        client: may be used by several threads.
        accounts: address and password of each.
        renew_after_s: how old an access token gets before it is exchanged for the next; others wait minutes.

    Attributes:
        began_at: when they came in.

    Raises httpx.HTTPStatusError when somebody cannot sign in.
    """

    def __init__(
        self, client: httpx.Client, accounts: Mapping[str, tuple[str, str]], *, renew_after_s: float = 1.0
    ) -> None:
        self._client = client
        self._renew_after_s = renew_after_s
        self._requests: list[Request] = []
        self._last: dict[str, str] = {}
        self._lock = Lock()
        self._stop = Event()
        self._tokens = {name: self._signed_in(*account) for name, account in accounts.items()}
        self._threads = [Thread(target=self._shop, args=(name,), name=name, daemon=True) for name in accounts]
        self.began_at, self._began_s = datetime.now(UTC), time.monotonic()

    def __enter__(self) -> Self:
        self.began_at, self._began_s = datetime.now(UTC), time.monotonic()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)

    def now_s(self) -> float:
        """Seconds since they came in."""
        return time.monotonic() - self._began_s

    def frame(self, path: str = "/me") -> pd.DataFrame:
        """All requests to a path so far: at_s, customer, path, kid, status; the earliest first."""
        with self._lock:
            made = [request for request in self._requests if request.path == path]
        columns = list(Request.__slots__)
        rows = [[getattr(request, name) for name in columns] for request in made]
        return pd.DataFrame(rows, columns=columns).sort_values("at_s", ignore_index=True)

    def keys_in_use(self) -> set[str]:
        """The `kid` of the token with which each customer has asked last, and got an answer."""
        with self._lock:
            return set(self._last.values())

    def _signed_in(self, email: str, password: str) -> dict[str, Any]:
        answer = self._client.post("/auth/login", json={"email": email, "password": password})
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    def _shop(self, name: str) -> None:
        renewed_s = time.monotonic()
        while not self._stop.wait(ASK_EVERY_S) and self.now_s() < AT_MOST_S:
            headers = {"Authorization": f"Bearer {self._tokens[name]['access_token']}"}
            answer = self._ask(name, "GET", "/me", headers=headers)
            is_refused = answer is not None and answer.status_code == 401
            if is_refused or time.monotonic() - renewed_s > self._renew_after_s:
                body = {"refresh_token": self._tokens[name]["refresh_token"]}
                renewed = self._ask(name, "POST", "/auth/refresh", json=body)
                if renewed is not None and renewed.is_success:
                    self._tokens[name] = renewed.json()
                    renewed_s = time.monotonic()

    def _ask(self, name: str, method: str, path: str, **how: Any) -> httpx.Response | None:
        """The answer; None if there is none, and the next request goes to another process."""
        at_s, kid = self.now_s(), kid_of(self._tokens[name]["access_token"])
        try:
            answer = self._client.request(method, path, **how)
        except httpx.TransportError:
            answer = None
        status = NO_ANSWER if answer is None else answer.status_code
        with self._lock:
            self._requests.append(Request(at_s, name, path, kid, status))
            if path == "/me" and answer is not None:
                self._last[name] = kid
        return answer


def kid_of(token: str) -> str:
    """The name of the key that a genuine token was signed with."""
    return str(json.loads(unb64(token.partition(".")[0]))["kid"])
