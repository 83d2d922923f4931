"""Access tokens: JWTs (RFC 7519) in the profile of RFC 9068, signed with HMAC-SHA-256."""

import re
from datetime import timedelta

import jwt
from pydantic import SecretStr

from showcase.kernel.clock import Clock
from showcase.kernel.errors import Unauthenticated
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import Principal

ALGORITHM = "HS256"
TYPE = "at+jwt"
MAX_BYTES = 8_192
SUBJECT = re.compile(r"[!-~]+")
"""Goes to databases and logs: nothing that those could stumble over."""


class InvalidToken(Unauthenticated):
    """The access token is not valid, or not any longer."""


class AccessTokens:
    """Issues access tokens and checks them.

    Args:
        key: 32 bytes or more (RFC 7518 §3.2).
        issuer: who issues them, a URL.
        audience: whom they are for, a URL.
    """

    def __init__(self, key: SecretStr, *, issuer: str, audience: str, clock: Clock) -> None:
        self._key = key.get_secret_value()
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    def issue(self, principal: Principal, lifetime: timedelta) -> str:
        """A token that stands for a principal for some time (RFC 9068 §2.2)."""
        now = self._clock()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": principal.subject,
            "client_id": "showcase",
            "iat": now,
            "exp": now + lifetime,
            "jti": str(new_uuid()),
            "scope": " ".join(sorted(principal.scopes)),
        }
        return jwt.encode(claims, self._key, ALGORITHM, {"typ": TYPE})

    async def authenticate(self, token: str) -> Principal:
        """Whom a token stands for. Raises InvalidToken, with the same words whatever is wrong with it."""
        try:
            if len(token) > MAX_BYTES or jwt.get_unverified_header(token).get("typ") != TYPE:
                raise InvalidToken("the access token is not valid")
            claims = jwt.decode(
                token,
                self._key,
                algorithms=[ALGORITHM],  # ours, whatever the token says (RFC 8725 §3.1)
                issuer=self._issuer,
                audience=self._audience,
                options={"require": ["iss", "aud", "sub", "iat", "exp", "jti"]},
            )
        except (jwt.InvalidTokenError, ValueError, OverflowError) as error:  # ValueError: text that is no UTF-8
            raise InvalidToken("the access token is not valid") from error
        if not SUBJECT.fullmatch(claims["sub"]):
            raise InvalidToken("the access token is not valid")
        return Principal(subject=claims["sub"], scopes=frozenset(str(claims.get("scope", "")).split()))
