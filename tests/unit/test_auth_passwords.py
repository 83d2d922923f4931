"""What may be a password, and how passwords are hashed."""

import asyncio
import time
import unicodedata
from contextlib import suppress

import pytest
from argon2 import PasswordHasher
from hypothesis import given
from hypothesis import strategies as st

from showcase.auth.domain.passwords import (
    MAX_LENGTH,
    MIN_LENGTH,
    MIN_LENGTH_WITH_SECOND_FACTOR,
    WeakPassword,
    accepted,
    readable,
)
from showcase.auth.infrastructure.hashing import ITERATIONS, LANES, MEMORY_KIB, Hashing
from showcase.kernel.errors import Unavailable
from tests.fakes import uncollected

GOOD = "plum tractor velvet"
EMAIL = "hephzibah.quill@example.org"
AS_EMOJI = "\U0001f951"


def refused(text: str, *, minimum: int = MIN_LENGTH) -> str:
    """Why a password is refused."""
    with pytest.raises(WeakPassword) as caught:
        accepted(text, email=EMAIL, minimum=minimum)
    return caught.value.detail


def test_a_long_password_is_accepted_and_one_character_less_is_not() -> None:
    assert accepted(GOOD[:MIN_LENGTH], email=EMAIL) == GOOD[:MIN_LENGTH]
    assert "15 characters or more" in refused(GOOD[: MIN_LENGTH - 1])


def test_beside_a_second_factor_eight_characters_are_enough() -> None:
    assert accepted("pL4#tvqz", email=EMAIL, minimum=MIN_LENGTH_WITH_SECOND_FACTOR) == "pL4#tvqz"
    assert "8 characters or more" in refused("pL4#tvq", minimum=MIN_LENGTH_WITH_SECOND_FACTOR)


def test_128_characters_are_accepted_and_129_are_not() -> None:
    words = (GOOD + " ") * 10
    longest = (words + "x" * MAX_LENGTH)[:MAX_LENGTH]
    assert accepted(longest, email=EMAIL) == longest
    assert "at the most" in refused(longest + "y")


@pytest.mark.parametrize(
    "text",
    [
        "nothing but small letters",
        "éàü ñandú œuvre",
        "пароль из трёх слов",
        "十五文字以上の長いパスワードです",
        "🥑🍞🧀🥚🍎🍇🍋🍌🍉🍓🍒🍑🥝🍍🥥",
    ],
    ids=["no digits", "accents", "cyrillic", "japanese", "emoji"],
)
def test_any_characters_will_do_without_rules_of_composition(text: str) -> None:
    assert accepted(text, email=EMAIL) == text


def test_two_spellings_of_one_password_are_one() -> None:
    composed = "café crème brûlée"
    assert accepted(unicodedata.normalize("NFD", composed), email=EMAIL) == composed


def test_length_is_that_of_the_normal_form() -> None:
    composed = "é" * 10 + "plum"
    assert len(unicodedata.normalize("NFD", composed)) >= MIN_LENGTH
    assert "15 characters or more" in refused(unicodedata.normalize("NFD", composed))
    assert readable("e\u0301" * MAX_LENGTH) == "é" * MAX_LENGTH


def test_a_run_of_combining_marks_is_refused_before_it_costs_time() -> None:
    began = time.perf_counter()
    refused("a" + "\u0301\u0316" * 50_000)  # sorted by normalising: tens of seconds
    assert time.perf_counter() - began < 0.5


@pytest.mark.parametrize("text", [GOOD + "\0", GOOD + "\ud800", "\udfff" + GOOD], ids=["NUL", "high", "low"])
def test_what_is_no_text_is_refused(text: str) -> None:
    assert "is text" in refused(text)


@given(st.text(max_size=200))
def test_whatever_is_typed_is_a_password_or_refused(text: str) -> None:
    with suppress(WeakPassword):
        password = accepted(text, email=EMAIL)
        assert MIN_LENGTH <= len(password) <= MAX_LENGTH
        assert readable(password.encode().decode()) == password


@pytest.mark.parametrize("text", ["iloveyou", "SuperMan", "password1", "starwars!", "1qaz2wsx#"])
def test_a_common_password_is_refused_in_any_case_and_with_digits_around_it(text: str) -> None:
    assert "most common" in refused(text, minimum=MIN_LENGTH_WITH_SECOND_FACTOR)


@pytest.mark.parametrize(
    "text", ["123456789987654321", "iloveyou-2024-2025", "!!superman123456789", "supermansuperman"]
)
def test_a_long_password_is_refused_if_it_is_a_common_one_with_little_around_it(text: str) -> None:
    assert "most common" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 15,
        AS_EMOJI * 20,
        "abcdefghijklmno",
        "абвгдежзийклмнопр",
        "876543210987654321",
        "012345678901234567",
        "zyxwvutsrqponmlkji",
        "qwertyuiopasdfghjkl",
        "QWERTZUIOPASDFGHJKL",
        "xyzxyzxyzxyzxyzxyz",
    ],
)
def test_a_pattern_is_refused(text: str) -> None:
    assert "repeats itself" in refused(text)


@pytest.mark.parametrize(
    "text",
    [
        "showcase-grocery",
        EMAIL,
        "Hephzibah.Quill-2024",
        "hephzibah.quillshop1",
        "grocerypassword1",
        "showcaseshowcase..",
    ],
)
def test_the_words_of_the_context_are_refused(text: str) -> None:
    assert "your address or the shop's name" in refused(text)


@pytest.mark.parametrize("text", ["hephzibah.quill likes plums", "a grocery is where I buy plums", "83649150372615948"])
def test_words_of_the_context_may_be_in_a_password_that_has_others(text: str) -> None:
    assert accepted(text, email=EMAIL) == text


def test_a_short_name_is_no_word_of_the_context() -> None:
    assert accepted("ada wrote 9 notes", email="ada@example.org") == "ada wrote 9 notes"


@pytest.mark.anyio
async def test_a_password_is_hashed_as_owasp_asks_with_a_salt() -> None:
    hashing = Hashing(at_once=1, waiting=9)
    first, second = await hashing.hash(GOOD), await hashing.hash(GOOD)
    assert (MEMORY_KIB, ITERATIONS, LANES) == (19_456, 2, 1)
    assert first.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert first != second
    assert await hashing.verify(GOOD, first) == (True, None)
    assert await hashing.verify(GOOD + "!", first) == (False, None)


@pytest.mark.anyio
async def test_without_an_account_no_password_is_right() -> None:
    hashing = Hashing(at_once=1, waiting=9)
    assert await hashing.verify("nobody's", None) == (False, None)


@pytest.mark.anyio
async def test_a_hash_by_weaker_parameters_is_made_anew_if_the_password_is_right() -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(GOOD)
    hashing = Hashing(at_once=1, waiting=9)
    is_right, better = await hashing.verify(GOOD, weak)
    assert is_right
    assert better is not None
    assert await hashing.verify(GOOD, better) == (True, None)
    assert await hashing.verify("wrong", weak) == (False, None)


@pytest.mark.anyio
async def test_who_comes_when_too_many_wait_is_sent_away_at_once_and_the_loop_stays_free() -> None:
    hashing = Hashing(at_once=1, waiting=4)
    longest_s, stop = 0.0, asyncio.Event()

    async def beat() -> None:
        nonlocal longest_s
        while not stop.is_set():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            longest_s = max(longest_s, time.perf_counter() - began)

    sent_away: list[float] = []

    async def one() -> None:
        began = time.perf_counter()
        try:
            await hashing.hash(GOOD)
        except Unavailable as error:
            sent_away.extend([time.perf_counter() - began] * error.retry_after_s)

    with uncollected():
        beating = asyncio.create_task(beat())
        await asyncio.gather(*(one() for _ in range(50)))
        stop.set()
        await beating
    assert len(sent_away) == 45
    assert max(sent_away) < 0.2
    assert longest_s < 0.2
    assert await hashing.hash(GOOD)  # room again


@pytest.mark.anyio
async def test_no_more_are_hashed_at_once_than_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    hashing = Hashing(at_once=2, waiting=20)
    inside = most = 0

    def work(password: str) -> str:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        time.sleep(0.01)  # long enough for another thread to come in, if it may
        inside -= 1
        return password

    monkeypatch.setattr(hashing._hasher, "hash", work)
    await asyncio.gather(*(hashing.hash(GOOD) for _ in range(10)))
    assert most == 2
