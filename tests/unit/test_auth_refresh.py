"""Refresh tokens as values, what the use of one means under each policy, and from what a successor is derived."""

import base64
import hashlib
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showcase.auth.application.sessions import proven_by
from showcase.auth.domain.refresh import (
    PREFIX,
    InvalidRefreshToken,
    Outcome,
    Policy,
    RefreshToken,
    Refusal,
    Use,
    decide,
    lineage,
)
from showcase.kernel.principal import MULTI_FACTOR_ACR, ONE_FACTOR_ACR

LEEWAY_S = 10.0
ID = UUID("0199b2f0-0000-7000-8000-000000000001")
FAMILY = UUID("0199b2f0-0000-7000-8000-000000000002")
SECRET = bytes(range(32))
TEXT = RefreshToken(ID, SECRET).text

ids = st.uuids()
keys = st.binary(min_size=32, max_size=32)
EVERY = tuple(Policy)


# -- the token as a value


@given(ids, keys)
def test_a_token_is_read_as_it_was_written(id_: UUID, secret: bytes) -> None:
    token = RefreshToken(id_, secret)

    assert RefreshToken.read(token.text) == token


def test_the_first_of_a_family_is_random() -> None:
    tokens = [RefreshToken.first() for _ in range(100)]

    assert len({token.id for token in tokens}) == len({token.secret for token in tokens}) == 100


def test_scanners_recognise_a_token_and_its_representation_shows_no_secret() -> None:
    token = RefreshToken(ID, SECRET)

    assert token.text.startswith("showcase_rt_")
    assert repr(SECRET) not in repr(token)
    assert base64.urlsafe_b64encode(SECRET).decode()[:-1] not in repr(token)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(TEXT[len(PREFIX) :], id="no prefix"),
        pytest.param(TEXT.replace(".", ""), id="no dot"),
        pytest.param(TEXT[:-1], id="a character short"),
        pytest.param(TEXT + "A", id="a character long"),
        pytest.param(TEXT + "=", id="padded"),
        pytest.param(TEXT + "\n", id="line break at the end"),
        pytest.param(" " + TEXT, id="space before"),
        pytest.param(TEXT[:-1] + "9", id="trailing bits set"),
        pytest.param(TEXT.replace("0199b2f0", "0199B2F0"), id="id in capitals"),
        pytest.param(TEXT.replace("0199b2f0", "0199b2f٠"), id="digits of another script"),  # noqa: RUF001 - meant
        pytest.param(TEXT[:-2] + "+/", id="alphabet of plain base64"),
        pytest.param(TEXT + TEXT, id="twice"),
        pytest.param(TEXT * 100_000, id="very long"),
        pytest.param(TEXT[:-1] + "\x00", id="NUL"),
        pytest.param(TEXT[:-1] + "\ud800", id="lone surrogate"),
    ],
)
def test_any_other_spelling_is_refused_in_the_same_words(text: str) -> None:
    with pytest.raises(InvalidRefreshToken) as refused:
        RefreshToken.read(text)

    assert refused.value.detail == InvalidRefreshToken().detail


@given(st.text())
def test_no_text_at_all_raises_anything_else(text: str) -> None:
    with pytest.raises(InvalidRefreshToken):
        RefreshToken.read(text)


def test_only_a_hash_of_the_secret_is_stored_and_only_the_secret_matches_it() -> None:
    token = RefreshToken(ID, SECRET)

    assert token.secret_hash == hashlib.sha256(SECRET).digest()
    assert token.matches(token.secret_hash)
    assert not RefreshToken(ID, SECRET[::-1]).matches(token.secret_hash)


# -- what a successor is derived from


@given(keys, keys, ids, ids, st.integers(1, 2**31 - 1), st.integers(1, 2**31 - 1))
def test_two_lineages_are_the_same_bytes_only_if_every_part_is_the_same(
    secret: bytes, secret_2: bytes, family: UUID, family_2: UUID, generation: int, generation_2: int
) -> None:
    one = lineage(RefreshToken(ID, secret), family, generation)

    assert lineage(RefreshToken(FAMILY, secret), family, generation) == one
    assert (lineage(RefreshToken(ID, secret_2), family, generation) == one) == (secret_2 == secret)
    assert (lineage(RefreshToken(ID, secret), family_2, generation) == one) == (family_2 == family)
    assert (lineage(RefreshToken(ID, secret), family, generation_2) == one) == (generation_2 == generation)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_secret_of_another_length_has_no_lineage(size: int) -> None:
    with pytest.raises(ValueError, match="32"):
        lineage(RefreshToken(ID, bytes(size)), FAMILY, 2)


# -- what the use of a token leads to


def use(generation: int, newest: int, used_s: float | None, *, successor_used: bool = False) -> Use:
    return Use(generation=generation, newest=newest, used_s=used_s, successor_used=successor_used)


@pytest.mark.parametrize(
    ("used", "strict", "grace", "same"),
    [
        pytest.param(use(3, 3, None), Outcome.ROTATE, Outcome.ROTATE, Outcome.ROTATE, id="newest"),
        pytest.param(use(2, 3, 0.0), Outcome.REUSED, Outcome.BRANCH, Outcome.REPEAT, id="parent, at once"),
        pytest.param(use(2, 3, 10.0), Outcome.REUSED, Outcome.BRANCH, Outcome.REPEAT, id="parent, just in time"),
        pytest.param(use(2, 3, 10.001), Outcome.REUSED, Outcome.REUSED, Outcome.REUSED, id="parent, too late"),
        pytest.param(use(1, 3, 1.0), Outcome.REUSED, Outcome.BRANCH, Outcome.REUSED, id="grandparent, at once"),
        pytest.param(use(1, 3, 99.0), Outcome.REUSED, Outcome.REUSED, Outcome.REUSED, id="grandparent, too late"),
        pytest.param(
            use(2, 3, 1.0, successor_used=True),
            Outcome.REUSED,
            Outcome.BRANCH,
            Outcome.REUSED,
            id="parent of one that was used",
        ),
        pytest.param(
            use(2, 3, None), Outcome.REUSED, Outcome.ROTATE, Outcome.REUSED, id="sibling, left over from `grace`"
        ),
    ],
)
def test_each_policy_decides(used: Use, strict: Outcome, grace: Outcome, same: Outcome) -> None:
    decided = [decide(policy, used, leeway_s=LEEWAY_S) for policy in EVERY]

    assert decided == [strict, grace, same]


uses = st.builds(
    Use,
    generation=st.integers(1, 5),
    newest=st.integers(1, 5),
    used_s=st.none() | st.floats(0, 30),
    successor_used=st.booleans(),
    ended=st.none() | st.sampled_from([Refusal.REVOKED, Refusal.IDLE, Refusal.EXPIRED]),
)


@given(st.sampled_from(EVERY), uses)
def test_a_token_of_a_family_that_ended_leads_nowhere(policy: Policy, used: Use) -> None:
    assert (decide(policy, used, leeway_s=LEEWAY_S) is Outcome.ENDED) == (used.ended is not None)


@given(uses)
def test_only_grace_ever_branches_and_strict_forgives_nothing(used: Use) -> None:
    strict, grace, same = (decide(policy, used, leeway_s=LEEWAY_S) for policy in EVERY)

    assert strict in {Outcome.ROTATE, Outcome.REUSED, Outcome.ENDED}
    assert same in {strict, Outcome.REPEAT}
    assert grace is not Outcome.REPEAT


# -- what methods amount to


@pytest.mark.parametrize(
    ("given_", "acr", "amr"),
    [
        (("pwd",), ONE_FACTOR_ACR, ("pwd",)),
        (("pwd", "pwd"), ONE_FACTOR_ACR, ("pwd",)),
        (("mfa", "pwd"), ONE_FACTOR_ACR, ("pwd",)),
        (("pwd", "otp"), MULTI_FACTOR_ACR, ("pwd", "otp", "mfa")),
        (("pwd", "otp", "mfa", "otp"), MULTI_FACTOR_ACR, ("pwd", "otp", "mfa")),
    ],
)
def test_two_different_methods_make_it_multi_factor(given_: tuple[str, ...], acr: str, amr: tuple[str, ...]) -> None:
    assert proven_by(given_) == (acr, amr)
