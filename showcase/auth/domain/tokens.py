"""Access tokens: why one is refused, and what its claims must say (RFC 9068 §4, RFC 8725 §3, RFC 7519 §4.1).

Form and signature are checked before (`infrastructure.tokens`): here the claims are known to be ours.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType
from uuid import UUID

from showcase.kernel.errors import Unauthenticated
from showcase.kernel.principal import Principal

CLOCK_SKEW_S = 5
"""How far the clocks of two of our machines may be apart. Helps a token to begin, never to live longer."""
MAX_SUBJECT = 255
_SUBJECT = re.compile(r"[!-~]+")
"""Goes to databases and logs: nothing that those could stumble over."""
_SCOPE = re.compile(r"[!#-\[\]-~]+(?: [!#-\[\]-~]+)*|")
"""RFC 6749 §3.3; empty for a token that allows nothing."""
_LAST_TIME = 253_402_300_799
"""The end of the year 9999: later ones are no `datetime`."""


class Reason(StrEnum):
    """Why a token is refused: for our log. Whoever sent it learns none of this."""

    # -- form: RFC 7515 §3.1, §7.1 and RFC 4648 §3
    TOO_LONG = "longer than any token of ours"
    NOT_ASCII = "characters that are not ASCII"
    JSON_SERIALISATION = "JSON serialisation"
    WRONG_PARTS = "not three parts"
    EMPTY_PART = "an empty header or empty claims"
    PADDING = "base64url with padding"
    ALPHABET = "characters outside of the base64url alphabet"
    IMPOSSIBLE_LENGTH = "base64url of a length that encodes nothing"
    TRAILING_BITS = "non-canonical trailing bits in base64url"
    NOT_A_JSON_OBJECT = "a header or claims that are no JSON object"
    DUPLICATE_MEMBER = "a member that is there twice"
    # -- header: RFC 7515 §4.1, RFC 8725 §3
    WRONG_TYPE = "typ is not that of an access token"
    CRITICAL_EXTENSION = "crit names an extension that nobody here knows"
    KEY_IN_HEADER = "the header names or brings a key of its own"
    UNENCODED_PAYLOAD = "b64: how the payload is encoded is not the token's choice"
    COMPRESSED = "zip: nothing is unpacked"
    NESTED = "cty: no token in a token"
    ALGORITHM_NONE = "algorithm none"
    WRONG_ALGORITHM = "the algorithm is not that of the key"
    NO_KEY_ID = "a kid that is missing or no thumbprint"
    UNKNOWN_KEY = "no key of ours has this kid"
    # -- signature: RFC 7518 §3.4, RFC 8037 §3.1
    SIGNATURE_LENGTH = "a signature of the wrong length"
    ZERO_SIGNATURE = "an ECDSA signature with r or s of zero"
    BAD_SIGNATURE = "the signature is not that of the key"
    # -- claims: RFC 7519 §4.1, RFC 9068 §4
    MISSING_CLAIM = "a claim is missing"
    MISTYPED_CLAIM = "a claim is of the wrong type"
    NOT_A_TIME = "a time that is no finite number or not in the calendar"
    WRONG_ISSUER = "from another issuer"
    WRONG_AUDIENCE = "for another audience"
    BAD_SUBJECT = "a subject that is no plain name"
    BAD_SCOPE = "a scope that is none"
    EXPIRED = "expired"
    NOT_YET_VALID = "not valid yet"
    ISSUED_IN_FUTURE = "issued in the future"
    # -- session
    REVOKED = "its session has ended"


class InvalidToken(Unauthenticated):
    """The access token is not valid, or not any longer.

    The same words whatever is wrong with it (RFC 6750 §3.1): an answer that tells more helps whoever tries.

    Args:
        reason: for the log.
    """

    challenge = MappingProxyType({"error": "invalid_token", "error_description": "the access token is not valid"})

    def __init__(self, reason: Reason) -> None:
        super().__init__("the access token is not valid")
        self.reason = reason


def principal_of(claims: Mapping[str, object], *, now: datetime, issuer: str, audience: str) -> Principal:
    """Whom the claims of a token stand for, once its signature is known to be ours (RFC 9068 §4).

    Args:
        issuer: compared letter by letter (RFC 8725 §3.8): no slash more or less.
        audience: must be the claim `aud` or one in its list (RFC 7519 §4.1.3).

    Raises InvalidToken.
    """
    if _text(claims, "iss") != issuer:
        raise InvalidToken(Reason.WRONG_ISSUER)
    if audience not in _audiences(claims):
        raise InvalidToken(Reason.WRONG_AUDIENCE)
    subject = _text(claims, "sub")
    if len(subject) > MAX_SUBJECT or not _SUBJECT.fullmatch(subject):
        raise InvalidToken(Reason.BAD_SUBJECT)
    _text(claims, "client_id")
    _text(claims, "jti")
    expires_at = _times(claims, now.timestamp())
    scope = _text(claims, "scope") if "scope" in claims else ""
    if not _SCOPE.fullmatch(scope):
        raise InvalidToken(Reason.BAD_SCOPE)
    return Principal(
        subject=subject,
        scopes=frozenset(scope.split()),
        session_id=_session(claims),
        acr=_text(claims, "acr") if "acr" in claims else "",
        amr=_methods(claims),
        auth_time=datetime.fromtimestamp(_time(claims, "auth_time"), UTC) if "auth_time" in claims else None,
        expires_at=datetime.fromtimestamp(expires_at, UTC),
    )


def _times(claims: Mapping[str, object], now: float) -> float:
    """The end of a token whose time is now."""
    expires_at = _time(claims, "exp")
    if now >= expires_at:  # "on or after" (RFC 7519 §4.1.4)
        raise InvalidToken(Reason.EXPIRED)
    if _time(claims, "iat") > now + CLOCK_SKEW_S:
        raise InvalidToken(Reason.ISSUED_IN_FUTURE)
    if "nbf" in claims and _time(claims, "nbf") > now + CLOCK_SKEW_S:
        raise InvalidToken(Reason.NOT_YET_VALID)
    return expires_at


def _time(claims: Mapping[str, object], name: str) -> float:
    """A NumericDate (RFC 7519 §2) in seconds. JSON's `true` is an `int` in Python, and no time."""
    value = _claim(claims, name)
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InvalidToken(Reason.MISTYPED_CLAIM)
    if not 0 <= value <= _LAST_TIME:  # false for NaN as well
        raise InvalidToken(Reason.NOT_A_TIME)
    return value


def _text(claims: Mapping[str, object], name: str) -> str:
    value = _claim(claims, name)
    if not isinstance(value, str):
        raise InvalidToken(Reason.MISTYPED_CLAIM)
    return value


def _claim(claims: Mapping[str, object], name: str) -> object:
    if name not in claims:
        raise InvalidToken(Reason.MISSING_CLAIM)
    return claims[name]


def _audiences(claims: Mapping[str, object]) -> list[str]:
    """One string, or a list of strings."""
    value = _claim(claims, "aud")
    return _texts([value] if isinstance(value, str) else value)


def _methods(claims: Mapping[str, object]) -> tuple[str, ...]:
    return tuple(_texts(claims["amr"])) if "amr" in claims else ()


def _texts(value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InvalidToken(Reason.MISTYPED_CLAIM)
    return value


def _session(claims: Mapping[str, object]) -> UUID | None:
    """The claim `sid`: a UUID in the one spelling that we write."""
    if "sid" not in claims:
        return None
    written = _text(claims, "sid")
    try:
        found = UUID(written)
    except ValueError as error:
        raise InvalidToken(Reason.MISTYPED_CLAIM) from error
    if str(found) != written:
        raise InvalidToken(Reason.MISTYPED_CLAIM)
    return found
