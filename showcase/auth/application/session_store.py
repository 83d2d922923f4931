"""What sessions are stored as, and what they ask of their store; the use cases are in `application.sessions`."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol
from uuid import UUID

from showcase.auth.domain.accounts import SCOPES, Account, Device, Role
from showcase.auth.domain.refresh import Policy, RefreshToken, Use
from showcase.kernel.principal import Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How sessions live, from the settings.

    Attributes:
        access: lifetime of an access token.
        idle: a session that is not used for so long ends.
        session: so long after it was opened it ends in any case.
        leeway: see `domain.refresh.decide`.
    """

    policy: Policy
    access: timedelta
    idle: timedelta
    session: timedelta
    leeway: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A session that lives, and whose it is.

    Attributes:
        auth_time: when its owner last proved who it is; a refresh does not change that (RFC 9470 §6.1).
        lasts: from now to its absolute limit.
    """

    id: UUID
    account_id: UUID
    email: str
    subject: str
    role: Role
    acr: str
    amr: tuple[str, ...]
    auth_time: datetime
    lasts: timedelta

    @property
    def principal(self) -> Principal:
        """As access tokens tell it; with what its role may do today."""
        return Principal(
            subject=self.subject,
            scopes=SCOPES[self.role],
            session_id=self.id,
            acr=self.acr,
            amr=self.amr,
            auth_time=self.auth_time,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Successor:
    """The token that replaced another: enough to derive it again."""

    id: UUID
    secret_hash: bytes
    key_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is stored of a refresh token."""

    session: Session
    secret_hash: bytes
    use: Use
    successor: Successor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionInfo:
    """A session as its owner sees it."""

    session_id: UUID
    device: str
    address: str
    in_browser: bool
    amr: tuple[str, ...]
    created_at: datetime
    used_at: datetime
    expires_at: datetime


class Store(Protocol):
    """Sessions and their tokens. All time is the database's; everything belongs to the transaction that is open.

    A session *lives* until it is revoked, idle or expired. Raises Unavailable.
    """

    async def open(
        self, session_id: UUID, account: Account, device: Device, *, acr: str, amr: tuple[str, ...], rules: Rules
    ) -> Session:
        """A new session, of generation 1."""

    async def add_token(
        self, token: RefreshToken, session_id: UUID, generation: int, *, key_id: str, parent_id: UUID | None
    ) -> None:
        """Store a token's hash, and that its parent, if it has one, was used.

        Args:
            key_id: of the key that derived it; "" if it is random.
        """

    async def find(self, token_id: UUID) -> Known | None:
        """What is stored of a token, of any session."""

    async def advance(self, session_id: UUID, after: int | None, device: Device, idle: timedelta) -> int | None:
        """Give a session that lives its next generation, and note that it is used: one compare-and-set.

        Args:
            after: only if this is still its youngest generation; None for whichever it is.

        Returns the new generation; None if the session no longer lives, or has another generation.
        """

    async def touch(self, session_id: UUID, generation: int, device: Device, idle: timedelta) -> bool:
        """Note that a session that lives is used; False if it no longer lives or has another generation."""

    async def held(self, session_id: UUID) -> Session | None:
        """A session that lives, which nobody else changes until the transaction ends; None if it does not live."""

    async def step_up(self, session_id: UUID, *, acr: str, amr: tuple[str, ...], idle: timedelta) -> datetime:
        """Note that the owner of a session that is held was there, and by which methods; the new `auth_time`."""

    async def revoke(self, session_id: UUID, why: str, *, account_id: UUID | None = None) -> bool:
        """End a session, of this account if one is given; False if there is none that was not ended before."""

    async def revoke_all(self, account_id: UUID, why: str, *, keep: UUID | None = None) -> Sequence[UUID]:
        """End the sessions of an account, but for one; those that were not ended before."""

    async def of_account(self, account_id: UUID) -> Sequence[SessionInfo]:
        """The sessions of an account that live, those used last first; no more than a hundred."""
