"""Devices that hold the tokens of a session, and what a lesson measures with them: races, ends, what a check costs."""

import asyncio
import http.client
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any, Self, TypeVar

import httpx
import pandas as pd
from websockets.exceptions import ConnectionClosed

from showcase.realtime.client import follow
from workshop.accounts import PASSWORD

T = TypeVar("T")

BARRIER_WITHIN_S = 10.0
ENDS_WITHIN_S = 10.0
ENDED = 1008
"""The code with which the WebSockets of a session are closed when it ends."""


class Device:
    """Whatever holds the tokens of a session: its owner's phone, or a thief's laptop.

    Args:
        http: a client on an app process; every request goes through it.
        name: what it calls itself (User-Agent). The log of security events keeps it, so that pictures can tell who
            did what.

    Attributes:
        access, refresh: the tokens that it holds; empty before it has any.
    """

    def __init__(self, http: httpx.Client, name: str) -> None:
        self.http = http
        self.name = name
        self.access = ""
        self.refresh = ""
        self.session_id = ""

    def sign_in(self, email: str, password: str = PASSWORD) -> Self:
        """Begin a session. Raises httpx.HTTPStatusError."""
        answer = self._post("/auth/login", {"email": email, "password": password})
        self._take(answer.raise_for_status())
        return self

    def copy(self, other: "Device") -> Self:
        """Hold what another one holds: a second tab does so, and whoever reads a stolen disk."""
        self.access, self.refresh, self.session_id = other.access, other.refresh, other.session_id
        return self

    def renew(self) -> int:
        """Trade the refresh token for new tokens, and keep those; the status of the answer."""
        answer = self.ask()
        if answer.is_success:
            self._take(answer)
        return answer.status_code

    def ask(self) -> httpx.Response:
        """Send the refresh token, and keep the present one whatever the answer is: as if that had been lost."""
        return self._post("/auth/refresh", {"refresh_token": self.refresh})

    def get(self, path: str = "/me") -> int:
        """The status of a request with the access token."""
        return self.http.get(path, headers=self.headers).status_code

    def delete(self, path: str) -> int:
        """The status of a request with the access token."""
        return self.http.delete(path, headers=self.headers).status_code

    def log_out(self) -> int:
        """End the session; the status of the answer."""
        return self._post("/auth/logout", None).status_code

    @property
    def headers(self) -> dict[str, str]:
        """Who asks, and by which right."""
        return {"User-Agent": self.name} | ({"Authorization": f"Bearer {self.access}"} if self.access else {})

    def _post(self, path: str, body: Mapping[str, str] | None) -> httpx.Response:
        return self.http.post(path, json=body, headers=self.headers)

    def _take(self, answer: httpx.Response) -> None:
        tokens = answer.json()
        self.access, self.refresh, self.session_id = (
            tokens[name] for name in ("access_token", "refresh_token", "session_id")
        )


# -- races


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """Make calls together: each waits at a barrier, in a thread of its own, until all the others are there.

    Returns what they returned, in their order. Raises what one of them raised.
    """
    barrier = threading.Barrier(len(calls))

    def one(call: Callable[[], T]) -> T:
        barrier.wait(BARRIER_WITHIN_S)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(one, calls))


def children(answers: Iterable[httpx.Response]) -> list[str]:
    """The refresh tokens in some answers, each once, in the order in which they came."""
    return list(dict.fromkeys(answer.json()["refresh_token"] for answer in answers if answer.is_success))


def that_work(http: httpx.Client, tokens: Iterable[str]) -> list[str]:
    """Which refresh tokens are taken, when each is used once, one after the other. It uses them up."""
    working = []
    for token in tokens:
        device = Device(http, "whoever holds it")
        device.refresh = token
        if device.ask().is_success:
            working.append(token)
    return working


# -- ends


async def endings(here: httpx.Client, there: httpx.Client, email: str, topic: str, tries: int) -> pd.DataFrame:
    """Log out in one process, and measure how long another one still lets the session in; again and again.

    For each try a session is opened `here`; with its access token a WebSocket follows a topic `there`, and one request
    after the other goes there, until it is refused.

    Returns two rows a try, `what` and `ms`: from the moment in which the logout is sent to the first answer that
    denies, and to the end of the WebSocket. Raises TimeoutError when that takes longer than ten seconds.
    """
    rows: list[dict[str, Any]] = []
    for _ in range(tries):
        device = Device(here, "phone")
        await asyncio.to_thread(device.sign_in, email)
        denied_ms, closed_ms = await _ending(device, there, topic)
        rows += [{"what": "request denied", "ms": denied_ms}, {"what": "WebSocket closed", "ms": closed_ms}]
    return pd.DataFrame(rows, columns=["what", "ms"])


async def _ending(device: Device, there: httpx.Client, topic: str) -> tuple[float, float]:
    url = str(there.base_url)
    async with (
        asyncio.timeout(ENDS_WITHIN_S),
        follow(url, device.access, [topic], reconnect=False) as events,
        httpx.AsyncClient(base_url=there.base_url, headers=device.headers) as client,
    ):
        (await client.get("/me")).raise_for_status()  # so far it is let in, and the connection is open

        async def denied() -> float:
            while (await client.get("/me")).status_code != httpx.codes.UNAUTHORIZED:
                pass  # at once again: the next answer may be the one
            return time.perf_counter()

        async def closed() -> float:
            try:
                async for _ in events:
                    pass
            except ConnectionClosed as error:
                if error.rcvd is None or error.rcvd.code != ENDED:
                    raise
            return time.perf_counter()

        began = time.perf_counter()
        denied_at, closed_at, _ = await asyncio.gather(denied(), closed(), asyncio.to_thread(device.log_out))
    return (denied_at - began) * 1000, (closed_at - began) * 1000


def still_works(device: Device, within: timedelta) -> timedelta:
    """For how long, from now on, an access token is still taken.

    Raises TimeoutError when it is taken for longer than `within`.
    """
    began = time.perf_counter()
    while device.get() != httpx.codes.UNAUTHORIZED:
        if time.perf_counter() - began > within.total_seconds():
            raise TimeoutError(f"the token still works after {within}")
    return timedelta(seconds=time.perf_counter() - began)


# -- what a check costs


def side_by_side(apps: Mapping[str, httpx.Client], device: Device, requests: int) -> pd.DataFrame:
    """How long `GET /me` takes in each of some app processes, one request at a time.

    The processes take turns, so that whatever else the machine does, it does to all of them. The connections stay
    open; the client is Python's barest, since its own time is in every number.

    Args:
        requests: to each process.

    Returns one row a request: `app`, `ms`. Raises OSError, and ValueError for an answer that is not 200.
    """
    lines = {name: http.client.HTTPConnection(*_place(client), timeout=10) for name, client in apps.items()}
    rows: list[dict[str, Any]] = []
    try:
        for _ in range(requests):
            for name, line in lines.items():
                began = time.perf_counter()
                line.request("GET", "/me", headers=device.headers)
                answer = line.getresponse()
                answer.read()
                took = time.perf_counter() - began
                if answer.status != httpx.codes.OK:
                    raise ValueError(f"{name} answers {answer.status}")
                rows.append({"app": name, "ms": took * 1000})
    finally:
        for line in lines.values():
            line.close()
    return pd.DataFrame(rows, columns=["app", "ms"])


def _place(client: httpx.Client) -> tuple[str, int | None]:
    return client.base_url.host, client.base_url.port
