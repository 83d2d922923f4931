"""Devices and races of a lesson, against an app that is made up."""

import json
import threading
from collections.abc import Callable
from datetime import timedelta

import httpx
import pytest

from workshop.lab.devices import Device, at_once, children, still_works, that_work


class Shop:
    """Tokens are numbers; each refresh gives the next one. Whatever is asked is noted."""

    def __init__(self) -> None:
        self.asked: list[httpx.Request] = []
        self.used: set[str] = set()
        self.let_in = 3

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        body = json.loads(request.content or b"{}")
        match request.url.path:
            case "/auth/login":
                return self._tokens("1")
            case "/auth/refresh":
                token = str(body["refresh_token"])
                if token in self.used:
                    return httpx.Response(401)
                self.used.add(token)
                return self._tokens(str(int(token) + 1))
            case "/auth/logout":
                return httpx.Response(204)
            case _:
                self.let_in -= 1
                return httpx.Response(200 if self.let_in >= 0 else 401)

    def _tokens(self, number: str) -> httpx.Response:
        return httpx.Response(
            200, json={"access_token": f"a{number}", "refresh_token": number, "session_id": "s", "scope": "account"}
        )


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
def phone(shop: Shop) -> Device:
    client = httpx.Client(base_url="http://shop", transport=httpx.MockTransport(shop))
    return Device(client, "phone").sign_in("household-7@shop.test")


def test_a_device_says_its_name_and_sends_the_tokens_that_it_holds(shop: Shop, phone: Device) -> None:
    assert phone.renew() == 200
    assert (phone.access, phone.refresh, phone.session_id) == ("a2", "2", "s")
    assert phone.get("/orders") == 200
    assert {request.headers["User-Agent"] for request in shop.asked} == {"phone"}
    assert shop.asked[-1].headers["Authorization"] == "Bearer a2"


def test_what_is_refused_leaves_a_device_with_what_it_held(phone: Device) -> None:
    thief = Device(phone.http, "thief").copy(phone)
    phone.renew()
    assert thief.renew() == 401
    assert (thief.access, thief.refresh) == ("a1", "1")


def test_asking_keeps_the_present_token_as_if_the_answer_had_been_lost(phone: Device) -> None:
    assert phone.ask().json()["refresh_token"] == "2"
    assert phone.refresh == "1"


def test_calls_at_once_keep_their_order_and_none_begins_before_all_are_there() -> None:
    before = threading.active_count()

    def call(number: int) -> Callable[[], tuple[int, int]]:
        return lambda: (number, threading.active_count() - before)

    numbers, threads = zip(*at_once([call(number) for number in range(5)]), strict=True)
    assert numbers == (0, 1, 2, 3, 4)
    assert min(threads) == 5


def test_children_are_counted_once_each_however_often_they_were_given(phone: Device) -> None:
    answers = [phone.ask()]
    twice = [*answers, *answers, httpx.Response(401)]
    assert children(twice) == ["2"]


def test_tokens_that_work_are_found_by_using_each_once(phone: Device, shop: Shop) -> None:
    shop.used = {"7"}
    assert that_work(phone.http, ["7", "8", "9"]) == ["8", "9"]
    assert phone.refresh == "1"


def test_a_token_works_until_it_is_refused(phone: Device, shop: Shop) -> None:
    assert still_works(phone, timedelta(seconds=5)) > timedelta(0)
    assert shop.let_in == -1
    shop.let_in = 1_000_000
    with pytest.raises(TimeoutError, match="still works"):
        still_works(phone, timedelta(0))
