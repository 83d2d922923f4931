"""Access tokens: JWTs (RFC 7519) in the profile of RFC 9068, issued and checked with our own keys alone.

PyJWT signs, and checks signatures. The form is read here, more strictly than libraries do: a token of ours has one
spelling (RFC 7515 §7.1, RFC 8725 §3), and everything else is refused before anything is done with it. Only an ECDSA
signature has a second form (s and n - s): so nothing here takes a token's bytes for its identity.
"""

import base64
import hashlib
import json
import math
import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn

import jwt
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from showcase.auth.domain.tokens import InvalidToken, Reason, principal_of
from showcase.auth.infrastructure.jwk import SIGNATURE_BYTES, SigningKey, VerifyingKey
from showcase.auth.infrastructure.keys import KeyRing
from showcase.kernel.clock import Clock
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import Principal

log = structlog.get_logger()

TYPE = "at+jwt"
ACCEPTED_TYPES = (TYPE, f"application/{TYPE}")
"""Both spellings of RFC 9068 §4."""
CLIENT_ID = "showcase"
MAX_BYTES = 8_192
_BASE64URL = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_KID = re.compile("[A-Za-z0-9_-]{43}")
"""A SHA-256 thumbprint in base64url: what cannot be the name of a key of ours is not looked up."""

_REFUSED = {
    "crit": Reason.CRITICAL_EXTENSION,  # RFC 7515 §4.1.11: we know no extension
    "jwk": Reason.KEY_IN_HEADER,  # RFC 8725 §3.10, and CVE-2018-0114
    "jku": Reason.KEY_IN_HEADER,
    "x5u": Reason.KEY_IN_HEADER,
    "x5c": Reason.KEY_IN_HEADER,
    "x5t": Reason.KEY_IN_HEADER,
    "x5t#S256": Reason.KEY_IN_HEADER,
    "b64": Reason.UNENCODED_PAYLOAD,  # RFC 7797 §7
    "zip": Reason.COMPRESSED,  # RFC 8725 §3.6
    "cty": Reason.NESTED,  # RFC 7519 §5.2
}
"""Members of a header that are never in one of ours, and that somebody has believed before. Others say nothing."""


class AccessTokens:
    """See `application.ports.Issue` and `Verify`.

    Args:
        issuer: who issues them, a URL.
        audience: whom they are for, a URL.
        cached: so many verified tokens are remembered, by their hash, until they end or the keys change.
    """

    def __init__(self, ring: KeyRing, *, issuer: str, audience: str, clock: Clock, cached: int = 10_000) -> None:
        self._ring = ring
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._cached = cached
        self._version = ring.version
        self._keys: dict[bytes, VerifyingKey] = {}
        """By header: all tokens of one key have the same. Only what a genuine token had comes in here."""
        self._verified: dict[bytes, Principal] = {}

    async def issue(self, principal: Principal, lifetime: timedelta) -> str:
        """A token that stands for a principal for some time (RFC 9068 §2.2).

        Its times are whole seconds: it may live up to one second longer, never shorter.

        Raises Unavailable.
        """
        return self._signed(await self._ring.current(), principal, lifetime)

    async def signer(self) -> Callable[[Principal, timedelta], str]:
        """The same as a function that asks nobody: it signs by the key that signs now. Raises Unavailable."""
        return partial(self._signed, await self._ring.current())

    def _signed(self, key: SigningKey, principal: Principal, lifetime: timedelta) -> str:
        now = self._clock()
        claims: dict[str, object] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": principal.subject,
            "client_id": CLIENT_ID,
            "iat": math.floor(now.timestamp()),
            "exp": math.ceil((now + lifetime).timestamp()),
            "jti": str(new_uuid()),
            "scope": " ".join(sorted(principal.scopes)),
        }
        if principal.session_id is not None:
            claims["sid"] = str(principal.session_id)
        if principal.acr:
            claims["acr"] = principal.acr
        if principal.amr:
            claims["amr"] = list(principal.amr)
        if principal.auth_time is not None:
            claims["auth_time"] = math.floor(principal.auth_time.timestamp())
        return jwt.encode(claims, key.private, key.public.algorithm, {"typ": TYPE, "kid": key.public.kid})

    async def verify(self, token: str) -> Principal:
        """Whom a token stands for. Raises InvalidToken, with the reason in the log only; Unavailable."""
        try:
            return await self._principal(token)
        except InvalidToken as error:
            log.info("token refused", reason=error.reason.value)
            raise

    async def _principal(self, token: str) -> Principal:
        if len(token) > MAX_BYTES:
            raise InvalidToken(Reason.TOO_LONG)
        if not token.isascii():
            raise InvalidToken(Reason.NOT_ASCII)
        written = token.encode()
        digest = hashlib.sha256(written).digest()
        if self._version != self._ring.version:
            self._forget()
        known = self._verified.get(digest)
        if known is None:
            known = await self._check(written)
            self._remember(digest, known)
        elif known.expires_at is None or self._clock() >= known.expires_at:
            del self._verified[digest]
            raise InvalidToken(Reason.EXPIRED)
        return known

    async def _check(self, written: bytes) -> Principal:
        """Read the form, find the key, check the signature, then believe the claims: in this order."""
        header, claims, signature = split(written)
        plain_claims, plain_signature = decoded(claims), decoded(signature)
        key = self._keys.get(header)
        if key is None:
            key = await self._key_of(read_object(decoded(header)))
        _check_signature(key, written[: -len(signature) - 1], plain_signature)
        self._keys[header] = key
        return principal_of(read_object(plain_claims), now=self._clock(), issuer=self._issuer, audience=self._audience)

    async def _key_of(self, header: dict[str, Any]) -> VerifyingKey:
        """The key that a header names, which must be one of ours and of the header's algorithm (RFC 8725 §3.1)."""
        kid, algorithm = checked_header(header)
        key = await self._ring.find(kid)
        if key is None:
            raise InvalidToken(Reason.UNKNOWN_KEY)
        if algorithm != key.algorithm:
            raise InvalidToken(Reason.WRONG_ALGORITHM)
        return key

    def _remember(self, digest: bytes, principal: Principal) -> None:
        if len(self._verified) >= self._cached:
            del self._verified[next(iter(self._verified))]  # the oldest
        self._verified[digest] = principal

    def _forget(self) -> None:
        self._version = self._ring.version
        self._keys.clear()
        self._verified.clear()


def split(written: bytes) -> tuple[bytes, bytes, bytes]:
    """Header, claims and signature of a JWS in compact serialisation (RFC 7515 §7.1). Raises InvalidToken."""
    if written.lstrip().startswith(b"{"):
        raise InvalidToken(Reason.JSON_SERIALISATION)
    parts = written.split(b".", 3)
    if len(parts) != 3:
        raise InvalidToken(Reason.WRONG_PARTS)
    header, claims, signature = parts
    if not header or not claims:
        raise InvalidToken(Reason.EMPTY_PART)
    return header, claims, signature


def decoded(part: bytes) -> bytes:
    """What stands in base64url (RFC 4648 §5, without padding: RFC 7515 §2), in its one spelling.

    Raises InvalidToken.
    """
    if part.endswith(b"="):
        raise InvalidToken(Reason.PADDING)
    if part.translate(None, _BASE64URL):
        raise InvalidToken(Reason.ALPHABET)
    if len(part) % 4 == 1:
        raise InvalidToken(Reason.IMPOSSIBLE_LENGTH)
    plain = base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(plain).rstrip(b"=") != part:
        raise InvalidToken(Reason.TRAILING_BITS)
    return plain


def read_object(plain: bytes) -> dict[str, Any]:
    """A JSON object in UTF-8 whose members are there once (RFC 7515 §4, RFC 7519 §4). Raises InvalidToken."""
    try:
        found = _DECODER.decode(plain.decode())
    except (ValueError, RecursionError) as error:
        raise InvalidToken(Reason.NOT_A_JSON_OBJECT) from error
    if not isinstance(found, dict):
        raise InvalidToken(Reason.NOT_A_JSON_OBJECT)
    return found


def checked_header(header: dict[str, Any]) -> tuple[str, str]:
    """The `kid` and `alg` of a header in which nothing is wrong (RFC 7515 §4.1, RFC 9068 §4). Raises InvalidToken."""
    for name, reason in _REFUSED.items():
        if name in header:
            raise InvalidToken(reason)
    algorithm, kid = header.get("alg"), header.get("kid")
    if isinstance(algorithm, str) and algorithm.lower() == "none":
        raise InvalidToken(Reason.ALGORITHM_NONE)
    if header.get("typ") not in ACCEPTED_TYPES:
        raise InvalidToken(Reason.WRONG_TYPE)
    if not isinstance(algorithm, str):
        raise InvalidToken(Reason.WRONG_ALGORITHM)
    if not isinstance(kid, str) or not _KID.fullmatch(kid):
        raise InvalidToken(Reason.NO_KEY_ID)
    return kid, algorithm


def _check_signature(key: VerifyingKey, message: bytes, signature: bytes) -> None:
    if len(signature) != SIGNATURE_BYTES:
        raise InvalidToken(Reason.SIGNATURE_LENGTH)
    if isinstance(key.key, EllipticCurvePublicKey):
        half = SIGNATURE_BYTES // 2
        if not any(signature[:half]) or not any(signature[half:]):  # FIPS 186-5 §6.4.2, and CVE-2022-21449
            raise InvalidToken(Reason.ZERO_SIGNATURE)
    if not key.verifies(message, signature):
        raise InvalidToken(Reason.BAD_SIGNATURE)


def _once(members: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(members)
    if len(found) < len(members):
        raise InvalidToken(Reason.DUPLICATE_MEMBER)
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)
