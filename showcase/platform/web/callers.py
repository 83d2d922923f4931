"""Who is calling, and may they: `require(scope)` as a dependency of a route."""

from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Depends
from starlette.requests import HTTPConnection

from showcase.kernel.errors import Forbidden, Unauthenticated
from showcase.kernel.principal import Principal, Scope


class Authenticate(Protocol):
    """Turns an access token into the one it was given to; the auth slice has it."""

    async def __call__(self, token: str) -> Principal:
        """Raises Unauthenticated."""


class MissingToken(Unauthenticated):
    """There is no bearer token in the Authorization header."""


class MissingScope(Forbidden):
    """The token does not allow this."""


async def caller(connection: HTTPConnection) -> Principal:
    """Who makes a request; looked at once a request. Raises Unauthenticated."""
    known = getattr(connection.state, "principal", None)
    if isinstance(known, Principal):
        return known
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise MissingToken("send an access token: Authorization: Bearer …")
    authenticate: Authenticate = connection.app.state.authenticate
    principal = await authenticate(token)
    connection.state.principal = principal
    return principal


@dataclass(frozen=True, slots=True)
class Allowed:
    """Gives the principal, if it has a scope. Raises Unauthenticated, MissingScope."""

    scope: Scope

    async def __call__(self, connection: HTTPConnection) -> Principal:
        principal = await caller(connection)
        if self.scope not in principal.scopes:
            raise MissingScope(f"the token needs the scope {self.scope}")
        return principal


def require(scope: Scope) -> Any:
    """A dependency of a route: see `Allowed`."""
    return Depends(Allowed(scope))
