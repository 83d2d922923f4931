"""Phones and guessers, as lessons use them: what they send, and the arithmetic of what comes of it."""

import json
import math
import time
from collections.abc import Callable
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace

import httpx
import pyotp
import pytest

from workshop import guessing, phones
from workshop.phones import Phone

DAY = timedelta(days=1)
SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""Of RFC 6238, appendix B."""
PHONE = Phone(email="a@shop.test", secret=SECRET, access_token="")

Answer = Callable[[str, dict[str, str]], httpx.Response]


def shop(answer: Answer) -> httpx.Client:
    """A client of a shop that answers like this: path and body to response."""
    transport = httpx.MockTransport(lambda request: answer(request.url.path, json.loads(request.content or b"{}")))
    return httpx.Client(base_url="http://shop", transport=transport)


def second_factor_required() -> httpx.Response:
    return httpx.Response(401, json={"challenge_id": "c"})


# -- phones


def test_a_phone_shows_the_code_of_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workshop.phones.time", SimpleNamespace(time=lambda: 1_111_111_109.0))  # RFC 6238, appendix B
    assert PHONE.code() == "081804"
    assert PHONE.code(+1) == "050471"
    assert PHONE.code(-1) == pyotp.TOTP(SECRET).at(1_111_111_079)
    assert phones.seconds_left() == 1


def test_a_client_without_an_answer_sends_the_same_code_to_the_next_process() -> None:
    sent: list[str] = []

    def answer(path: str, body: dict[str, str]) -> httpx.Response:
        sent.append(body["code"])
        if len(sent) < 3:
            raise httpx.ConnectError("gone")
        return httpx.Response(200, json={})

    assert phones.finish(shop(answer), "c", "123456").status_code == 200
    assert sent == ["123456"] * 3


def test_a_client_does_not_ask_for_ever() -> None:
    asked: list[str] = []

    def answer(path: str, body: dict[str, str]) -> httpx.Response:
        asked.append(path)
        raise httpx.ConnectError("gone")

    with pytest.raises(httpx.ConnectError):
        phones.finish(shop(answer), "c", "123456")
    assert len(asked) == phones.TRIES


@pytest.mark.parametrize("status", [200, 401, 429])
def test_a_login_that_asks_for_no_code_is_no_first_half_of_one(status: int) -> None:
    with pytest.raises(ValueError, match=str(status)):
        phones.begin(shop(lambda path, body: httpx.Response(status, json={})), "a@shop.test")


def test_enrolling_again_confirms_when_the_step_turned_on_the_way() -> None:
    codes: list[str] = []

    def answer(path: str, body: dict[str, str]) -> httpx.Response:
        if path == "/auth/totp/confirm":
            codes.append(body["code"])
            return httpx.Response(422 if len(codes) == 1 else 200, json={"recovery_codes": ["R"]})
        return httpx.Response(200, json={"access_token": "A", "secret": SECRET})

    phone = phones.enrolled(shop(answer), "a@shop.test")
    assert (phone.recovery_codes, phone.access_token, len(codes)) == (("R",), "A", 2)


# -- guessing


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at the clock takes a tenth of a second."""
    now = iter(range(10_000))
    monkeypatch.setattr("workshop.guessing.time", SimpleNamespace(monotonic=lambda: next(now) / 10))


@pytest.mark.usefixtures("clock")
def test_a_guesser_signs_in_again_after_five_tries_and_writes_every_answer_down() -> None:
    def answer(path: str, body: dict[str, str]) -> httpx.Response:
        if path == "/auth/login":
            return second_factor_required()
        return httpx.Response(429, headers={"Retry-After": "7"})

    heard = guessing.guess(shop(answer), "a@shop.test", seconds=1)
    assert heard.status.tolist() == [401, 429, 429, 429, 429, 429, 401, 429, 429, 429, 429, 429]
    assert heard.retry_after_s.tolist() == [0, 7, 7, 7, 7, 7] * 2
    assert heard.at_s.is_monotonic_increasing


@pytest.mark.usefixtures("clock")
def test_guesses_are_codes_of_six_digits_and_the_same_in_every_run() -> None:
    def guesses() -> list[str]:
        sent: list[str] = []

        def answer(path: str, body: dict[str, str]) -> httpx.Response:
            if path == "/auth/login":
                return second_factor_required()
            sent.append(body["code"])
            return httpx.Response(422)

        guessing.guess(shop(answer), "a@shop.test", seconds=3)
        return sent

    first = guesses()
    assert all(len(code) == 6 and code.isdigit() for code in first)
    assert len(set(first)) > 5
    assert guesses() == first


@pytest.mark.usefixtures("clock")
def test_a_guesser_who_is_not_asked_for_a_code_sends_none() -> None:
    heard = guessing.guess(shop(lambda path, body: httpx.Response(429, json={})), "a@shop.test", seconds=1)
    assert set(heard.status) == {429}


@pytest.mark.usefixtures("clock")
def test_a_guesser_gives_up_when_nothing_is_compared_for_as_long_as_its_patience() -> None:
    codes: list[str] = []

    def answer(path: str, body: dict[str, str]) -> httpx.Response:
        if path == "/auth/login":
            return second_factor_required()
        codes.append(body["code"])
        return httpx.Response(422 if len(codes) <= 12 else 429)

    heard = guessing.guess(shop(answer), "a@shop.test", seconds=100, patience_s=2)
    last_wrong = heard.at_s[heard.status == 422].max()
    assert (heard.status == 422).sum() == 12
    assert 1 < heard.at_s.max() - last_wrong < 3


@pytest.mark.parametrize(
    ("windows", "within", "count"),
    [
        ("5 per minute", DAY, 5 * 24 * 60),
        ("5 per minute; 20 per 15 minutes", DAY, 20 * 24 * 4),
        ("5 per minute; 20 per 15 minutes; 100 per day", DAY, 100),
        ("5 per minute; 20 per 15 minutes; 100 per day", timedelta(minutes=15), 20),
        ("5 per minute; 20 per 15 minutes; 100 per day", 3 * DAY, 300),
        ("5 per second; 20 per 15 seconds; 100 per 1440 seconds", timedelta(seconds=40), 60),
    ],
)
def test_windows_let_through_what_is_written_on_them(windows: str, within: timedelta, count: int) -> None:
    assert len(guessing.let_through(windows, within)) == count


def test_no_window_ever_holds_more_than_it_may() -> None:
    times = guessing.let_through("3 per 10 seconds; 7 per minute", timedelta(minutes=10))
    for limit, length_s in ((3, 10), (7, 60)):
        assert all(times[at + limit] - times[at] >= length_s for at in range(len(times) - limit))
    assert all(later >= earlier for earlier, later in pairwise(times))


def test_the_chance_of_a_hit_is_that_of_not_missing_every_time() -> None:
    assert guessing.chance_of_a_hit(1) == pytest.approx(2e-6)
    assert guessing.chance_of_a_hit(3, valid=1, codes=10) == pytest.approx(1 - 0.9**3)
    assert guessing.chance_of_a_hit(0) == 0


def test_even_odds_take_the_number_of_guesses_at_which_the_chance_is_a_half() -> None:
    guesses = guessing.guesses_until(0.5)
    assert guessing.chance_of_a_hit(guesses - 1) < 0.5 <= guessing.chance_of_a_hit(guesses)
    assert guesses == math.ceil(math.log(2) / -math.log(1 - 2e-6))


def test_what_is_drawn_is_near_what_is_computed_and_the_same_for_a_seed() -> None:
    began = time.process_time()
    accounts, guesses = 25_000, 1_000
    drawn = guessing.simulated_hits(accounts, bursts=200, burst=5, seed=1)
    computed = accounts * guessing.chance_of_a_hit(guesses)  # 50
    assert abs(drawn - computed) < 4 * math.sqrt(computed)
    assert guessing.simulated_hits(1_000, bursts=2, burst=5, seed=1) == guessing.simulated_hits(
        1_000, bursts=2, burst=5, seed=1
    )
    assert time.process_time() - began < 10


def test_of_no_guesses_nobody_is_hit_and_of_enough_everybody() -> None:
    assert guessing.simulated_hits(100, bursts=1, burst=0) == 0
    assert guessing.simulated_hits(2, bursts=4, burst=3_000_000) == 2
