"""Access tokens: only what this system issued, for this system, in time, is anybody's."""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import SecretStr

from showcase.auth.infrastructure import MAX_BYTES, TYPE, AccessTokens, InvalidToken
from showcase.kernel.clock import system_clock
from showcase.kernel.principal import Principal, Scope

pytestmark = pytest.mark.anyio
KEY = "only-for-these-tests-and-long-enough"
ISSUER, AUDIENCE = "https://shop.example", "https://shop.example/api"
PRINCIPAL = Principal(subject="households/7", scopes=frozenset({Scope.ORDERS_READ, Scope.ORDERS_WRITE}))
MINUTE = timedelta(minutes=1)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def tokens(key: str = KEY, clock: Callable[[], datetime] = system_clock) -> AccessTokens:
    return AccessTokens(SecretStr(key), issuer=ISSUER, audience=AUDIENCE, clock=clock)


def signed(changes: dict[str, object], headers: dict[str, Any] | None = None, without: str = "", key: str = KEY) -> str:
    now = datetime.now(UTC)
    claims: dict[str, object] = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "households/7",
        "iat": now,
        "exp": now + MINUTE,
        "jti": "1",
        "scope": "orders:read",
        **changes,
    }
    return jwt.encode(
        {name: value for name, value in claims.items() if name != without},
        key,
        "HS256",
        {"typ": TYPE, **(headers or {})},
    )


def unsigned() -> str:
    def part(content: dict[str, object]) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    payload = jwt.decode(signed({}), options={"verify_signature": False})
    return f"{part({'alg': 'none', 'typ': TYPE})}.{part(payload)}."


def signed_with_a_public_key() -> str:
    """RS256's public key taken as an HMAC key: what a verifier falls for that trusts `alg`."""
    public = rsa.generate_private_key(65_537, 2_048).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    content = signed({}).rpartition(".")[0]
    signature = hmac.digest(pem, content.encode(), "sha256")
    return f"{content}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def signed_by_another_kind_of_key() -> str:
    """By an RSA key of the caller's own, `alg` and all."""
    claims = jwt.decode(signed({}), options={"verify_signature": False})
    return jwt.encode(claims, rsa.generate_private_key(65_537, 2_048), "RS256", {"typ": TYPE})


async def test_a_token_stands_for_whom_it_was_issued_to() -> None:
    assert await tokens().authenticate(tokens().issue(PRINCIPAL, MINUTE)) == PRINCIPAL
    assert await tokens().authenticate(signed({})) == Principal(
        subject="households/7", scopes=frozenset({"orders:read"})
    )


YESTERDAY = datetime.now(UTC) - timedelta(days=1)
BAD: dict[str, str] = {
    "nothing": "",
    "no token": "nonsense",
    "no ASCII": "ü.ü.ü",
    "surrogates": "\ud800.e30.e30",
    "no signature": unsigned(),
    "algorithm none, signed": signed({}).rsplit(".", 1)[0] + ".",
    "another key": signed({}, key="x" * 32),
    "a public key": signed_with_a_public_key(),
    "another kind of key": signed_by_another_kind_of_key(),
    "another algorithm": jwt.encode({"sub": "a"}, KEY * 2, "HS512", {"typ": TYPE}),
    "a type that is none": signed({}, {"typ": "JWT"}),
    "another type": signed({}, {"typ": "refresh+jwt"}),
    "expired": signed({"exp": YESTERDAY}),
    "issued tomorrow": signed({"iat": datetime.now(UTC) + timedelta(days=1)}),
    "of another issuer": signed({"iss": "https://evil.example"}),
    "for another audience": signed({"aud": "https://evil.example"}),
    "no subject": signed({}, without="sub"),
    "no end": signed({}, without="exp"),
    "no id": signed({}, without="jti"),
    "no audience": signed({}, without="aud"),
    "unknown critical extension": signed({}, {"crit": ["x"], "x": 1}),
    "deep header": base64.urlsafe_b64encode(b"[" * 5_000).decode().rstrip("=") + ".e30.e30",
    "deep claims": "e30." + base64.urlsafe_b64encode(b"[" * 5_000).decode().rstrip("=") + ".e30",
}


@pytest.mark.parametrize("bad", BAD)
async def test_any_other_token_is_refused_with_the_same_words(bad: str) -> None:
    with pytest.raises(InvalidToken) as refused:
        await tokens().authenticate(BAD[bad])
    assert refused.value.detail == "the access token is not valid"


async def test_a_token_that_is_too_long_is_refused_before_it_is_read() -> None:
    long = Principal(subject=f"staff/{'x' * MAX_BYTES}", scopes=frozenset())
    with pytest.raises(InvalidToken):
        await tokens().authenticate(tokens().issue(long, MINUTE))


async def test_a_token_ends_at_its_time() -> None:
    past = tokens(clock=lambda: datetime.now(UTC) - timedelta(hours=1))
    assert await tokens().authenticate(past.issue(PRINCIPAL, timedelta(hours=2))) == PRINCIPAL
    with pytest.raises(InvalidToken):
        await tokens().authenticate(past.issue(PRINCIPAL, timedelta(minutes=59)))


async def test_no_two_tokens_are_the_same() -> None:
    assert tokens().issue(PRINCIPAL, MINUTE) != tokens().issue(PRINCIPAL, MINUTE)


@pytest.mark.parametrize("subject", ["households/7\x00", "a b", "", "x\n", "households/\ud800"])
async def test_a_subject_that_is_no_plain_name_is_refused(subject: str) -> None:
    with pytest.raises(InvalidToken):
        await tokens().authenticate(signed({"sub": subject}))
