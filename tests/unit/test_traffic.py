"""Customers that ask all the time: what they note is what happened, and they go home in the end."""

import itertools
import json
import time
from collections.abc import Callable
from threading import active_count

import httpx
import pytest

from workshop import traffic
from workshop.attacks.forging import token, unsigned
from workshop.traffic import NO_ANSWER, Customers

WITHIN_S = 10.0


class App:
    """Signs with the key that is set, accepts tokens of the keys that are known, and may be gone."""

    def __init__(self) -> None:
        self.key = "1"
        self.known = {"1"}
        self.is_gone = False
        self.refreshed: list[str] = []
        self._numbers = itertools.count(1)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.is_gone:
            raise httpx.ConnectError("gone")
        if request.url.path == "/me":
            kid = traffic.kid_of(request.headers["Authorization"].removeprefix("Bearer "))
            return httpx.Response(200 if kid in self.known else 401)
        if request.url.path == "/auth/refresh":
            self.refreshed.append(json.loads(request.content)["refresh_token"])
        elif json.loads(request.content)["password"] != "right":
            return httpx.Response(401)
        pair = {"access_token": token({"kid": self.key}, {}, unsigned), "refresh_token": str(next(self._numbers))}
        return httpx.Response(200, json=pair)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.setattr(traffic, "ASK_EVERY_S", 0.002)
    return App()


def customers(app: App, *names: str, knows: str = "right", renew_after_s: float = 60.0) -> Customers:
    client = httpx.Client(transport=httpx.MockTransport(app), base_url="http://shop")
    return Customers(client, {name: (f"{name}@shop.test", knows) for name in names}, renew_after_s=renew_after_s)


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_all_ask_and_every_answer_is_noted(app: App) -> None:
    before = active_count()
    with customers(app, "a", "b") as some:
        until(lambda: len(some.frame()) > 20)
        until(lambda: some.keys_in_use() == {"1"})
    frame = some.frame()
    assert set(frame.customer) == {"a", "b"}
    assert set(frame.status) == {200}
    assert frame.at_s.is_monotonic_increasing
    assert frame.at_s.min() >= 0
    assert active_count() == before


def test_who_is_refused_refreshes_at_once_and_goes_on_with_the_new_key(app: App) -> None:
    with customers(app, "a") as one:
        until(lambda: len(one.frame()) > 3)
        app.key, app.known = "2", {"2"}
        until(lambda: one.keys_in_use() == {"2"} and (one.frame().status == 200).iloc[-1])
    frame = one.frame()
    assert (frame.status == 401).sum() == 1
    assert frame[frame.status == 401].kid.tolist() == ["1"]
    assert app.refreshed == ["1"]
    assert one.frame("/auth/refresh").status.tolist() == [200]


def test_tokens_are_renewed_when_they_are_old(app: App) -> None:
    with customers(app, "a", renew_after_s=0.01) as one:
        until(lambda: len(app.refreshed) > 3)
    assert app.refreshed == [str(number) for number in range(1, len(app.refreshed) + 1)]  # each used once
    assert set(one.frame().status) == {200}


def test_who_gets_no_answer_asks_again(app: App) -> None:
    with customers(app, "a") as one:
        until(lambda: len(one.frame()) > 3)
        app.is_gone = True
        until(lambda: (one.frame().status == NO_ANSWER).sum() > 3)
        app.is_gone = False
        until(lambda: one.frame().status.iloc[-1] == 200)
    assert set(one.frame().status) == {200, NO_ANSWER}


def test_they_go_home_by_themselves(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "AT_MOST_S", 0.05)
    before = active_count()
    with customers(app, "a", "b"):
        until(lambda: active_count() == before)


def test_who_cannot_sign_in_is_told(app: App) -> None:
    with pytest.raises(httpx.HTTPStatusError):
        customers(app, "a", knows="wrong")
