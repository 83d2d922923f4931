"""One-time codes: of an authenticator, for recovery, by mail."""

import secrets
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from showcase.auth.domain.codes import (
    MAIL_DIGITS,
    RECOVERY_ALPHABET,
    RECOVERY_CODES,
    RECOVERY_LENGTH,
    base32,
    matching_step,
    new_mail_code,
    new_recovery_codes,
    new_totp_secret,
    provisioning_uri,
    recovery_code,
    typed,
)

RFC_SECRET = b"12345678901234567890"
NOW = datetime(2017, 12, 23, 12, 0, 15, tzinfo=UTC)
STEP = int(NOW.timestamp()) // 30


def code_at(secret: bytes, step: int) -> str:
    """What an authenticator shows in a step."""
    return pyotp.TOTP(base32(secret)).generate_otp(step)


@pytest.mark.parametrize(
    ("at", "code"),
    [(59, "287082"), (1111111109, "081804"), (1111111111, "050471"), (1234567890, "005924"), (2000000000, "279037")],
)
def test_the_vectors_of_rfc_6238_appendix_b_match(at: int, code: str) -> None:
    assert matching_step(RFC_SECRET, code, datetime.fromtimestamp(at, UTC), 0) == at // 30


def test_the_present_step_and_the_one_before_match_and_no_other() -> None:
    secret = new_totp_secret()
    matched = {offset: matching_step(secret, code_at(secret, STEP + offset), NOW, 0) for offset in range(-3, 4)}
    assert matched == {-3: None, -2: None, -1: STEP - 1, 0: STEP, 1: None, 2: None, 3: None}


def test_a_step_up_to_the_last_accepted_does_not_match_again() -> None:
    secret = new_totp_secret()
    now, before = code_at(secret, STEP), code_at(secret, STEP - 1)
    assert matching_step(secret, now, NOW, STEP - 1) == STEP
    assert matching_step(secret, now, NOW, STEP) is None
    assert matching_step(secret, before, NOW, STEP - 1) is None
    assert matching_step(secret, before, NOW, STEP) is None


def test_a_code_may_be_typed_in_groups() -> None:
    code = code_at(RFC_SECRET, STEP)
    assert matching_step(RFC_SECRET, f" {code[:3]} {code[3:]} ", NOW, 0) == STEP


@given(st.text(max_size=80))
def test_whatever_is_typed_is_compared_without_an_error(text: str) -> None:
    matched = matching_step(RFC_SECRET, text, NOW, 0)
    assert (matched is not None) == (typed(text) in {code_at(RFC_SECRET, STEP), code_at(RFC_SECRET, STEP - 1)})


class Steps(RuleBasedStateMachine):
    """An account whose clock goes on, and codes of all kinds that come to it in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.secret = secrets.token_bytes(20)
        self.now = NOW
        self.last_step = 0
        self.accepted: list[int] = []

    @rule(seconds=st.integers(0, 70))
    def time_passes(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @rule(offset=st.integers(-4, 4))
    def a_code_comes(self, offset: int) -> None:
        present = int(self.now.timestamp()) // 30
        step = matching_step(self.secret, code_at(self.secret, present + offset), self.now, self.last_step)
        may = offset in (-1, 0) and present + offset > self.last_step
        assert (step == present + offset) if may else (step is None)
        if step is not None:
            self.last_step = step
            self.accepted.append(step)

    @rule()
    def the_last_code_comes_again(self) -> None:
        assert matching_step(self.secret, code_at(self.secret, self.last_step), self.now, self.last_step) is None

    @invariant()
    def no_step_is_accepted_twice_nor_an_older_one(self) -> None:
        assert self.accepted == sorted(set(self.accepted))


TestSteps = Steps.TestCase


def test_a_secret_has_160_bits_and_is_another_each_time() -> None:
    made = {new_totp_secret() for _ in range(100)}
    assert len(made) == 100
    assert {len(secret) for secret in made} == {20}


def test_an_authenticator_learns_the_secret_and_the_account_from_the_uri() -> None:
    uri = provisioning_uri(RFC_SECRET, "ada@example.org", "The shop")
    parts = urlsplit(uri)
    assert (parts.scheme, parts.netloc) == ("otpauth", "totp")
    assert unquote(parts.path) == "/The shop:ada@example.org"
    assert parse_qs(parts.query) == {"secret": [base32(RFC_SECRET)], "issuer": ["The shop"]}
    parsed = pyotp.parse_uri(uri)
    assert isinstance(parsed, pyotp.TOTP)
    assert parsed.at(NOW) == code_at(RFC_SECRET, STEP)


def test_there_are_ten_recovery_codes_of_60_bits_and_never_the_same() -> None:
    codes = new_recovery_codes()
    assert (RECOVERY_CODES, len(RECOVERY_ALPHABET), RECOVERY_LENGTH) == (10, 32, 12)
    assert len(set(codes)) == 10
    assert all(len(typed(code)) == 12 for code in codes)
    used = {character for _ in range(50) for code in new_recovery_codes() for character in typed(code)}
    assert used == set(RECOVERY_ALPHABET)


def test_a_recovery_code_is_read_as_people_type_it() -> None:
    for code in new_recovery_codes():
        plain = code.replace("-", "")
        misread = plain.replace("0", "o").replace("1", "l")
        for written in (code, plain, code.lower(), code.replace("-", " "), f" {misread} "):
            assert recovery_code(written) == plain


@pytest.mark.parametrize("text", ["", "123456", "7QJX-0V3K-ZP8", "7QJX-0V3K-ZP8MM", "7QJX-0V3K-ZP8U", "7QJX-0V3K-ZP8é"])
def test_what_is_no_recovery_code_is_none(text: str) -> None:
    assert recovery_code(text) is None


def test_a_mail_code_has_eight_digits_each_as_likely_as_the_others() -> None:
    codes = [new_mail_code() for _ in range(5_000)]
    assert all(len(code) == MAIL_DIGITS == 8 and code.isascii() and code.isdecimal() for code in codes)
    for place in range(8):
        counts = [sum(code[place] == digit for code in codes) for digit in "0123456789"]
        assert min(counts) > 350  # 500 expected, deviation 21: seven of them
        assert max(counts) < 650
