"""Who is calling, and may they: `require(scope)` and `step_up(max_age)` as dependencies of a route."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from showcase.kernel import acting
from showcase.kernel.clock import system_clock
from showcase.kernel.errors import Forbidden, Unauthenticated
from showcase.kernel.principal import MULTI_FACTOR_ACR, SENSITIVE, Principal, Scope


class Authenticate(Protocol):
    """Turns an access token into the one it was given to; the auth slice has it."""

    async def __call__(self, token: str, *, sensitive: bool = False) -> Principal:
        """Whom a token stands for.

        Args:
            sensitive: rather no answer than one that could be wrong, since a revocation may not have come through.

        Raises Unauthenticated, Unavailable.
        """


class MissingToken(Unauthenticated):
    """There is no bearer token in the Authorization header."""


class MissingScope(Forbidden):
    """The token does not allow this."""


class InsufficientUserAuthentication(Unauthenticated):
    """This needs a sign-in, or a second factor, of just now."""

    def __init__(self, max_age: timedelta, acr: str = "") -> None:
        wanted = "give a second factor" if acr else "sign in again"
        super().__init__(f"{wanted}, then come back with the new token")
        self.challenge = {  # RFC 9470 §3
            "error": "insufficient_user_authentication",
            "error_description": "a fresh second factor is required" if acr else "a fresh sign-in is required",
            **({"acr_values": acr} if acr else {}),
            "max_age": str(round(max_age.total_seconds())),
        }


async def caller(connection: HTTPConnection, *, sensitive: bool = False) -> Principal:
    """Who makes a request; looked at once a request, and again for what is sensitive.

    From here on it is the caller who acts, if the request does anything.

    Raises Unauthenticated, Unavailable.
    """
    known = getattr(connection.state, "principal", None)
    if isinstance(known, Principal) and not sensitive:
        return known
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise MissingToken("send an access token: Authorization: Bearer …")
    authenticate: Authenticate = connection.app.state.authenticate
    principal = await authenticate(token, sensitive=sensitive)
    connection.state.principal = principal
    acting.identify(principal.subject, str(principal.session_id or ""))
    return principal


@dataclass(frozen=True, slots=True)
class Allowed:
    """Gives the principal, if it has a scope. Raises Unauthenticated, MissingScope."""

    scope: Scope

    async def __call__(self, connection: HTTPConnection) -> Principal:
        principal = await caller(connection, sensitive=self.scope in SENSITIVE)
        if self.scope not in principal.scopes:
            raise MissingScope(f"the token needs the scope {self.scope}")
        return principal


def require(scope: Scope) -> Any:
    """A dependency of a route: see `Allowed`."""
    return Depends(Allowed(scope))


@dataclass(frozen=True, slots=True)
class Fresh:
    """Gives the principal, if it has proven not longer ago than this who it is, and by that `acr` if one is given.

    Raises Unauthenticated, InsufficientUserAuthentication.
    """

    max_age: timedelta
    acr: str = ""

    async def __call__(self, connection: HTTPConnection) -> Principal:
        principal = await caller(connection, sensitive=True)
        proven = principal.auth_time
        if (self.acr and principal.acr != self.acr) or proven is None or system_clock() - proven > self.max_age:
            raise InsufficientUserAuthentication(self.max_age, self.acr)
        return principal


def step_up(max_age: timedelta) -> Any:
    """A dependency of a route: a second factor was given not longer ago than this (RFC 9470)."""
    return Depends(Fresh(max_age, MULTI_FACTOR_ACR))


def signed_in(max_age: timedelta) -> Any:
    """A dependency of a route: the caller has signed in not longer ago than this; refreshing does not count."""
    return Depends(Fresh(max_age))
