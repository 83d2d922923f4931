"""Access tokens: only what this system issued, for this system, in time, is anybody's; everything else is refused."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import UUID

import jwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.auth.infrastructure.jwk import Algorithm, SigningKey
from showcase.auth.infrastructure.keys import KeyRing, State, StoredKey
from showcase.auth.infrastructure.tokens import AccessTokens
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal, Scope
from tests.attacks import ATTACKS, AUDIENCE, CLAIMS, ISSUER, NOW, NOW_S, Ours, header_of, signed, without
from tests.fakes_keys import MemoryKeys

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)
OURS = Ours(SigningKey.new("ES256"), SigningKey.new("EdDSA"))
PRINCIPAL = Principal(
    subject="households/7",
    scopes=frozenset({Scope.ORDERS_READ, Scope.ORDERS_WRITE}),
    session_id=UUID(CLAIMS["sid"]),
    acr=CLAIMS["acr"],
    amr=("pwd", "otp"),
    auth_time=NOW - MINUTE,
)


class Time:
    """A clock that stands until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> datetime:
        return self.now


async def at_once(seconds: float) -> None:
    """Waits for nothing: these tests are not about how often keys are loaded."""


def our_keys() -> MemoryKeys:
    stored = zip((OURS.key, OURS.next), (State.CURRENT, State.NEXT), strict=True)
    return MemoryKeys(stored=[StoredKey(key.public, state, key.der()) for key, state in stored])


def tokens(keys: MemoryKeys | None = None, clock: Time | None = None, cached: int = 10_000) -> AccessTokens:
    ring = KeyRing(keys or our_keys(), sleep=at_once)
    return AccessTokens(ring, issuer=ISSUER, audience=AUDIENCE, clock=clock or Time(), cached=cached)


async def refusal(tokens: AccessTokens, token: str) -> Reason:
    """Why a token is refused; that it is refused with the same words as any other."""
    with capture_logs() as logs, pytest.raises(InvalidToken) as refused:
        await tokens.verify(token)
    assert refused.value.detail == "the access token is not valid"
    assert refused.value.facts == {}
    assert dict(refused.value.challenge) == {
        "error": "invalid_token",
        "error_description": "the access token is not valid",
    }
    told = [entry for entry in logs if entry["event"] == "token refused"]
    assert told == [{"event": "token refused", "log_level": "info", "reason": refused.value.reason.value}]
    return refused.value.reason


@pytest.mark.parametrize("attack", ATTACKS)
async def test_an_attack_is_refused_for_its_reason(attack: str) -> None:
    reason, forge = ATTACKS[attack]
    assert await refusal(tokens(), forge(OURS)) == reason


async def test_every_reason_has_an_attack() -> None:
    known_elsewhere = {Reason.REVOKED}
    assert {reason for reason, _ in ATTACKS.values()} == set(Reason) - known_elsewhere


@pytest.mark.parametrize("algorithm", ["ES256", "EdDSA"])
async def test_a_token_stands_for_whom_it_was_issued_to(algorithm: Algorithm) -> None:
    keys, plain = MemoryKeys(algorithm), Principal(subject="staff/ada", scopes=frozenset())
    issuer, other = tokens(keys), tokens(keys)

    for principal in (PRINCIPAL, plain):
        found = await other.verify(await issuer.issue(principal, MINUTE))
        assert found == principal
        assert found.expires_at == NOW + MINUTE


async def test_a_token_is_what_its_standard_asks_for() -> None:
    token = await tokens().issue(PRINCIPAL, MINUTE)

    assert jwt.get_unverified_header(token) == header_of(OURS.key)
    options = {"verify_exp": False, "verify_iat": False}
    claims = jwt.decode(token, OURS.key.public.key, ["ES256"], options, audience=AUDIENCE, issuer=ISSUER)  # type: ignore[arg-type]  # a TypedDict
    assert without(claims, "jti") == {**without(CLAIMS, "jti"), "exp": NOW_S + 60}
    assert UUID(claims["jti"]).version == 7


async def test_no_two_tokens_are_the_same() -> None:
    ours = tokens()
    one, two = [await ours.issue(PRINCIPAL, MINUTE) for _ in range(2)]
    assert one.split(".")[0] == two.split(".")[0]
    assert one.split(".")[1] != two.split(".")[1]


GOOD = {
    "as it is": signed(OURS.key),
    "by the key that is next": signed(OURS.next),
    "a longer spelling of typ": signed(OURS.key, header_of(OURS.key, typ="application/at+jwt")),
    "an unknown member in the header": signed(OURS.key, header_of(OURS.key, colour="red")),
    "an unknown claim": signed(OURS.key, claims={**CLAIMS, "colour": "red"}),
    "for us and others": signed(OURS.key, claims={**CLAIMS, "aud": ["https://a.example", AUDIENCE]}),
    "parts of a second": signed(OURS.key, claims={**CLAIMS, "exp": NOW_S + 0.5}),
    "valid now": signed(OURS.key, claims={**CLAIMS, "nbf": NOW_S}),
    "the clocks differ": signed(OURS.key, claims={**CLAIMS, "iat": NOW_S + 5, "nbf": NOW_S + 5}),
    "spaces in the JSON": signed(OURS.key, claims=json.dumps(dict(CLAIMS), indent=2)),
    "the longest subject": signed(OURS.key, claims={**CLAIMS, "sub": "households/7"}),
}


@pytest.mark.parametrize("good", GOOD)
async def test_what_the_standards_allow_is_accepted(good: str) -> None:
    assert await tokens().verify(GOOD[good]) == PRINCIPAL


async def test_a_token_without_a_session_or_scope_is_one_of_an_operator() -> None:
    fewest = {name: CLAIMS[name] for name in ("iss", "aud", "sub", "client_id", "iat", "exp", "jti")}
    expected = Principal(subject="households/7", scopes=frozenset())
    assert await tokens().verify(signed(OURS.key, claims=fewest)) == expected


async def test_a_token_ends_at_its_time_also_when_it_was_seen_before() -> None:
    clock = Time()
    ours = tokens(clock=clock)
    token = await ours.issue(PRINCIPAL, MINUTE)

    clock.now = NOW + timedelta(seconds=59.999)
    assert await ours.verify(token) == PRINCIPAL
    clock.now = NOW + MINUTE
    assert await refusal(ours, token) == Reason.EXPIRED
    assert await refusal(tokens(clock=clock), token) == Reason.EXPIRED


async def test_a_token_lives_no_shorter_than_was_asked_for() -> None:
    clock = Time()
    clock.now = NOW + timedelta(milliseconds=900)
    ours = tokens(clock=clock)
    token = await ours.issue(PRINCIPAL, timedelta(seconds=1))

    clock.now = NOW + timedelta(milliseconds=1_899)
    assert await ours.verify(token) == PRINCIPAL
    clock.now = NOW + timedelta(milliseconds=2_900)
    assert await refusal(ours, token) == Reason.EXPIRED


async def test_what_was_verified_is_not_verified_again() -> None:
    clock = Time()
    ours = tokens(clock=clock)
    token = signed(OURS.key)
    for _ in range(2):  # the first time loads the keys as well, whereupon all is forgotten
        await ours.verify(token)

    clock.now = NOW - timedelta(hours=1)  # whoever verifies it now has to find that it is of the future
    assert await ours.verify(token) == PRINCIPAL
    assert await refusal(tokens(clock=clock), token) == Reason.ISSUED_IN_FUTURE


async def test_what_was_refused_is_refused_again() -> None:
    ours = tokens()
    await ours.verify(signed(OURS.key))
    for _ in range(2):
        assert await refusal(ours, ATTACKS["other claims"][1](OURS)) == Reason.BAD_SIGNATURE


async def test_the_memory_of_verified_tokens_is_bounded() -> None:
    ours = tokens(cached=2)
    issued = [await ours.issue(PRINCIPAL, MINUTE) for _ in range(5)]
    for token in issued:
        assert await ours.verify(token) == PRINCIPAL
        assert len(ours._verified) <= 2
    assert await ours.verify(issued[0]) == PRINCIPAL


async def test_headers_of_strangers_are_not_remembered() -> None:
    ours = tokens()
    for _ in range(2):  # the first time loads the keys as well, whereupon all is forgotten
        await ours.verify(signed(OURS.key))
    for number in range(5):
        await refusal(ours, ATTACKS["another key under our kid"][1](OURS))
        await refusal(ours, signed(SigningKey.new("ES256"), header_of(OURS.key, n=number)))
    assert len(ours._keys) == 1


async def test_a_key_that_is_gone_takes_its_tokens_with_it() -> None:
    keys = our_keys()
    ring = KeyRing(keys, sleep=at_once)
    ours = AccessTokens(ring, issuer=ISSUER, audience=AUDIENCE, clock=Time())
    seen, unseen = [await ours.issue(PRINCIPAL, MINUTE) for _ in range(2)]
    await ours.verify(seen)

    await keys.revoke(OURS.key.public.kid)
    await ring.reload()

    for token in (seen, unseen):
        assert await refusal(ours, token) == Reason.UNKNOWN_KEY
    assert await ours.verify(await ours.issue(PRINCIPAL, MINUTE)) == PRINCIPAL


async def test_a_rotation_refuses_nobody() -> None:
    keys = our_keys()
    ours = tokens(keys)
    before = await ours.issue(PRINCIPAL, MINUTE)
    await keys.rotate(MINUTE)
    assert await ours.verify(before) == PRINCIPAL
    assert await tokens(keys).verify(before) == PRINCIPAL
    after = await tokens(keys).issue(PRINCIPAL, MINUTE)
    assert jwt.get_unverified_header(after)["kid"] == OURS.next.public.kid
    assert await ours.verify(after) == PRINCIPAL


async def test_while_the_keys_cannot_be_had_nobody_can_tell() -> None:
    keys = our_keys()
    keys.away = True
    ours = tokens(keys)
    with pytest.raises(Unavailable):
        await ours.issue(PRINCIPAL, MINUTE)
    with pytest.raises(Unavailable):
        await ours.verify(signed(OURS.key))
    assert await refusal(ours, ATTACKS["alg none"][1](OURS)) == Reason.ALGORITHM_NONE


# -- whatever comes

unhurried = settings(deadline=None, max_examples=200)
VERIFIER = tokens()
TOKEN = signed(OURS.key)
CHARACTERS = st.characters(max_codepoint=0x10FFFF)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(CHARACTERS, max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


def outcome(token: str) -> Principal | Reason:
    """What comes of a token. Anything but InvalidToken goes on: that is a bug."""
    try:
        return asyncio.run(VERIFIER._principal(token))
    except InvalidToken as refused:
        return refused.reason


@unhurried
@given(place=st.integers(0, len(TOKEN) - 1), bit=st.integers(0, 6))
def test_a_token_with_a_bit_flipped_is_refused(place: int, bit: int) -> None:
    flipped = TOKEN[:place] + chr(ord(TOKEN[place]) ^ 1 << bit) + TOKEN[place + 1 :]
    assert isinstance(outcome(flipped), Reason)


@unhurried
@given(place=st.integers(0, len(TOKEN)), more=st.text(CHARACTERS, min_size=1, max_size=4))
def test_a_token_with_something_put_in_is_refused(place: int, more: str) -> None:
    assert isinstance(outcome(TOKEN[:place] + more + TOKEN[place:]), Reason)


@unhurried
@given(begin=st.integers(0, len(TOKEN) - 1), length=st.integers(1, 100))
def test_a_token_with_something_cut_out_is_refused(begin: int, length: int) -> None:
    assert isinstance(outcome(TOKEN[:begin] + TOKEN[begin + length :]), Reason)


@unhurried
@given(order=st.lists(st.integers(0, 5), max_size=5).filter(lambda order: order not in ([0, 1, 2], [3, 4, 5])))
def test_parts_put_together_in_another_way_are_refused(order: list[int]) -> None:
    parts = TOKEN.split(".") + signed(OURS.next, claims={**CLAIMS, "sub": "staff/ada"}).split(".")
    assert isinstance(outcome(".".join(parts[place] for place in order)), Reason)


@unhurried
@given(st.text(CHARACTERS))
def test_any_text_is_refused_and_no_error(text: str) -> None:
    assert isinstance(outcome(text), Reason)


@unhurried
@given(header=JSON, claims=JSON)
def test_anything_that_we_sign_by_mistake_is_no_error(header: object, claims: object) -> None:
    assert isinstance(outcome(signed(OURS.key, json.dumps(header), json.dumps(claims))), Reason)


@unhurried
@given(name=st.sampled_from([*CLAIMS, "nbf", "x"]), value=JSON)
def test_any_value_of_a_claim_is_refused_or_understood_and_no_error(name: str, value: object) -> None:
    found = outcome(signed(OURS.key, claims=json.dumps({**CLAIMS, name: value})))
    if isinstance(found, Principal):
        assert found.expires_at is not None
        assert found.expires_at > NOW
        assert found.expires_at.tzinfo is UTC


@unhurried
@given(name=st.sampled_from(["alg", "kid", "typ", "crit", "jwk", "x"]), value=JSON)
def test_any_value_in_a_header_is_refused_or_ignored_and_no_error(name: str, value: object) -> None:
    found = outcome(signed(OURS.key, json.dumps({**header_of(OURS.key), name: value})))
    assert isinstance(found, Reason) or name == "x"
