"""What the use cases of authentication need, and what they hand to one another."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from showcase.auth.domain.accounts import Account, Device
from showcase.kernel.principal import Principal

Transaction = Callable[[], AbstractAsyncContextManager[object]]
"""What happens within one happens wholly or not at all; one within another is the same."""


class Happened(StrEnum):
    """The types of security events, in the log that owners, lessons and the audit read."""

    REGISTERED = "registered"
    LOGIN = "login"
    LOGIN_REFUSED = "login.refused"
    ROTATED = "refresh.rotated"
    REPEATED = "refresh.repeated"
    """A refresh token was used once more within the leeway: the answer is the same successor."""
    REUSED = "refresh.reused"
    """A refresh token was used that had been replaced: somebody has stolen one."""
    REFRESH_REFUSED = "refresh.refused"
    REVOKED = "session.revoked"
    STEPPED_UP = "session.stepped-up"
    PASSWORD_CHANGED = "password.changed"  # noqa: S105
    PASSWORD_RESET = "password.reset"  # noqa: S105
    FACTOR_ADDED = "factor.added"
    FACTOR_REMOVED = "factor.removed"
    FACTOR_REFUSED = "factor.refused"
    RECOVERY_USED = "recovery-code.used"
    KEY_ROTATED = "key.rotated"


class Events(Protocol):
    """The log of security events; written with the transaction that is open."""

    async def add(
        self,
        happened: Happened,
        *,
        actor: str = "",
        account_id: UUID | None = None,
        session_id: UUID | None = None,
        device: Device | None = None,
        reason: str = "",
        **data: object,
    ) -> None:
        """Write one down.

        Args:
            actor: the subject who did it; empty when nobody knows.
            reason: why something was refused or revoked; never with a secret.
            data: JSON values.
        """


class Mails(Protocol):
    """Letters, handed in with the transaction that is open and sent soon after it commits."""

    async def add(self, recipient: str | None, subject: str, text: str) -> None:
        """Hand in a letter.

        Args:
            recipient: None for one that is never sent: it costs the same time as a real one, so that nobody can
                tell from that whether an account exists.
        """


class Issue(Protocol):
    """Makes access tokens."""

    async def issue(self, principal: Principal, lifetime: timedelta) -> str:
        """A token that stands for a principal for some time (RFC 9068 §2.2). Raises Unavailable."""


class Verify(Protocol):
    """Checks access tokens: all that can be told from the token and our keys alone."""

    async def verify(self, token: str) -> Principal:
        """Whom a token stands for. Raises InvalidToken, Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """What a client gets when it has signed in.

    Attributes:
        expires_in: of the access token.
        refresh_token: None where the client's present one stays.
        refresh_lifetime: for how long it can be used at the most.
    """

    access_token: str
    expires_in: timedelta
    scopes: frozenset[str]
    session_id: UUID
    refresh_token: str | None = None
    refresh_lifetime: timedelta = timedelta()


class SessionsOpened(Protocol):
    """Sessions, as signing in needs them (`application.sessions.Sessions`)."""

    async def open(self, account: Account, device: Device, *, amr: tuple[str, ...]) -> Tokens:
        """Begin a session; with two methods or more it is multi-factor."""

    async def step_up(self, session_id: UUID, *, amr: tuple[str, ...]) -> Tokens:
        """A new access token of a session whose owner has just given a second factor."""

    async def revoke_all(self, account_id: UUID, *, why: str, actor: str, keep: UUID | None = None) -> int:
        """End all sessions of an account, but for one; how many."""
