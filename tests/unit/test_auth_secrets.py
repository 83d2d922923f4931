"""Secrets from the settings: what they seal, and who can open it."""

import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from showcase.auth.infrastructure.secrets import Secrets, Unreadable

OLD, NEW = "a" * 32, "b" * 32


def secrets(given: str = f"s1:{OLD}") -> Secrets:
    return Secrets(SecretStr(given))


@settings(deadline=None)
@given(plain=st.binary(max_size=100), context=st.text(st.characters(codec="utf-8"), max_size=20))
def test_what_is_sealed_can_be_opened(plain: bytes, context: str) -> None:
    assert secrets().open("mail", secrets().seal("mail", plain, context), context) == plain


def test_a_seal_shows_nothing_and_is_never_the_same() -> None:
    plain = b"something that nobody shall read"
    one, two = (secrets().seal("mail", plain, "1") for _ in range(2))
    assert one != two
    assert plain not in one
    assert OLD.encode() not in one


@pytest.mark.parametrize(
    ("purpose", "context", "given"),
    [
        ("totp", "1", f"s1:{OLD}"),
        ("mail", "2", f"s1:{OLD}"),
        ("mail", "1", f"s1:{NEW}"),
        ("mail", "1", f"s2:{OLD}"),
    ],
)
def test_nobody_else_can_open_it(purpose: str, context: str, given: str) -> None:
    sealed = secrets().seal("mail", b"plain", "1")
    with pytest.raises(Unreadable):
        secrets(given).open(purpose, sealed, context)


def test_what_was_changed_cannot_be_opened() -> None:
    sealed = secrets().seal("mail", b"plain", "1")
    for place in range(len(sealed)):
        changed = sealed[:place] + bytes([sealed[place] ^ 1]) + sealed[place + 1 :]
        with pytest.raises(Unreadable):
            secrets().open("mail", changed, "1")
        with pytest.raises(Unreadable):
            secrets().open("mail", sealed[:place], "1")


def test_a_new_secret_in_front_seals_and_the_old_one_still_opens() -> None:
    before, both, after = secrets(), secrets(f"s2:{NEW},s1:{OLD}"), secrets(f"s2:{NEW}")
    old = before.seal("mail", b"plain", "1")

    assert both.open("mail", old, "1") == b"plain"
    assert after.open("mail", both.seal("mail", b"plain", "1"), "1") == b"plain"
    with pytest.raises(Unreadable, match="SHOWCASE_SECRETS has no secret s1 any more"):
        after.open("mail", old, "1")


def test_a_mac_is_that_of_the_purpose_and_of_the_secret() -> None:
    both = secrets(f"s2:{NEW},s1:{OLD}")
    assert both.mac("code", b"1") == both.mac("code", b"1", "s2") == secrets(f"s2:{NEW}").mac("code", b"1")
    assert both.mac("code", b"1", "s1") == secrets().mac("code", b"1")
    assert (
        len({both.mac("code", b"1"), both.mac("code", b"2"), both.mac("mail", b"1"), both.mac("code", b"1", "s1")}) == 4
    )
    with pytest.raises(Unreadable):
        both.mac("code", b"1", "s3")


def test_a_key_is_derived_as_the_standard_says() -> None:
    """RFC 5869 §2, written out: what is stored today must be opened by every later version."""
    extracted = hmac.digest(bytes(32), OLD.encode(), "sha256")
    expanded = hmac.digest(extracted, b"showcase mail\x01", "sha256")
    assert secrets().key("mail", "s1") == expanded
