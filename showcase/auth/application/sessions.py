"""Sessions: opened, refreshed, listed, ended. What a session is made of, `domain.refresh` says."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import Protocol
from uuid import UUID

import structlog

from showcase.auth.application.ports import Events, Happened, Issue, Mails, Tokens, Transaction
from showcase.auth.application.session_store import Known, Rules, Session, SessionInfo, Store
from showcase.auth.domain.accounts import MULTI_FACTOR, Account, Device
from showcase.auth.domain.refresh import (
    PURPOSE,
    InvalidRefreshToken,
    Outcome,
    Policy,
    RefreshToken,
    Refusal,
    decide,
    lineage,
)
from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.kernel.errors import NotFound, Unavailable
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import MULTI_FACTOR_ACR, ONE_FACTOR_ACR

log = structlog.get_logger()

MAX_LOOKS = 5
"""A race makes a token only older: from the newest to a parent, to one re-used, to one of a revoked family."""
REUSE = "a refresh token was used again"
_REUSED = """\
A key to your account was used a second time, from the address {}. That happens when somebody has copied it, so we
have ended the session it belongs to, for both. Sign in again. If this was not you, change your password as well.
"""


class UnknownSession(NotFound):
    """There is no such session of this account."""


class Keys(Protocol):
    """The server's keys for deriving (`infrastructure.secrets.Secrets`)."""

    @property
    def newest(self) -> str:
        """The id of the one for what is new."""

    def mac(self, purpose: str, message: bytes, secret_id: str | None = None) -> bytes:
        """HMAC-SHA-256. Raises ValueError for a key that is no longer there."""


def proven_by(amr: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """What some methods amount to, and the methods as tokens list them (`acr` and `amr`, RFC 8176 §2)."""
    methods = tuple(dict.fromkeys(method for method in amr if method != MULTI_FACTOR))
    if len(methods) < 2:
        return ONE_FACTOR_ACR, methods
    return MULTI_FACTOR_ACR, (*methods, MULTI_FACTOR)


Deny = Callable[[Sequence[UUID]], Awaitable[None]]
"""Tells every process that the access tokens of some sessions are no longer valid, once that is committed. Raises
nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """See `ports.SessionsOpened`, and what owners do with their sessions. All of it raises Unavailable."""

    store: Store
    transaction: Transaction
    events: Events
    mails: Mails
    tokens: Issue
    keys: Keys
    deny: Deny
    rules: Rules

    async def open(self, account: Account, device: Device, *, amr: tuple[str, ...]) -> Tokens:
        """Begin a session; with two methods or more it is multi-factor."""
        session_id, first = new_uuid(), RefreshToken.first()
        acr, methods = proven_by(amr)
        async with self.transaction():
            session = await self.store.open(session_id, account, device, acr=acr, amr=methods, rules=self.rules)
            await self.store.add_token(first, session_id, 1, key_id="", parent_id=None)
            data = {"token_id": str(first.id), "generation": 1, "acr": session.acr, "amr": list(session.amr)}
            await self._tell(Happened.LOGIN, session, device, data, actor=session.subject)
        return self._with(await self._issued(session), session, first)

    async def refresh(self, token: str, device: Device) -> Tokens:
        """Exchange a refresh token for new tokens (RFC 6749 §6), by the policy of the rules.

        Not within a transaction of the caller: a refusal is an error, and what it has to leave behind (the family
        revoked, its event, the mail) would be rolled back with it.

        Raises InvalidRefreshToken.
        """
        given = RefreshToken.read(token)
        for _ in range(MAX_LOOKS):
            known = await self.store.find(given.id)
            if known is None:
                log.info("refresh token refused", reason=Refusal.UNKNOWN.value, address=device.address)
                raise InvalidRefreshToken  # no row: anybody can make up a token, and would fill the table
            if not given.matches(known.secret_hash):  # revokes nothing: whoever knows an id could log others out
                raise await self._refused(Refusal.WRONG_SECRET, known.session, device)
            match decide(self.rules.policy, known.use, leeway_s=self.rules.leeway.total_seconds()):
                case Outcome.ROTATE | Outcome.BRANCH:
                    done = await self._rotated(given, known, device)
                case Outcome.REPEAT:
                    done = await self._repeated(given, known, device)
                case Outcome.REUSED:
                    if await self._revoked_for_reuse(given, known, device):
                        raise InvalidRefreshToken
                    done = None
                case Outcome.ENDED:
                    raise await self._refused(known.use.ended or Refusal.REVOKED, known.session, device)
            if done is not None:
                return done
        raise Unavailable("too many use this refresh token at once")

    async def step_up(self, session_id: UUID, *, amr: tuple[str, ...]) -> Tokens:
        """A new access token of a session whose owner has just given a second factor.

        Args:
            amr: added to the methods of the session.

        Raises InvalidToken when the session has ended meanwhile.
        """
        async with self.transaction():
            before = await self.store.held(session_id)
            if before is None:
                raise InvalidToken(Reason.REVOKED)
            acr, methods = proven_by((*before.amr, *amr))
            auth_time = await self.store.step_up(session_id, acr=acr, amr=methods, idle=self.rules.idle)
            session = replace(before, acr=acr, amr=methods, auth_time=auth_time)
            data = {"acr": acr, "amr": list(methods)}
            await self._tell(Happened.STEPPED_UP, session, None, data, actor=session.subject)
        return await self._issued(session)

    async def list_(self, account_id: UUID) -> Sequence[SessionInfo]:
        """The sessions of an account that live, those used last first."""
        return await self.store.of_account(account_id)

    async def end(self, session_id: UUID, account_id: UUID, *, why: str, actor: str) -> None:
        """End one session of an account. Raises UnknownSession, also for one of somebody else."""
        async with self.transaction():
            if not await self.store.revoke(session_id, why, account_id=account_id):
                raise UnknownSession("there is no such session, or it has ended")
            await self._tell_revoked([session_id], account_id, why, actor)
        await self.deny([session_id])

    async def revoke_all(self, account_id: UUID, *, why: str, actor: str, keep: UUID | None = None) -> int:
        """End all sessions of an account, but for one; how many."""
        async with self.transaction():
            ended = await self.store.revoke_all(account_id, why, keep=keep)
            await self._tell_revoked(ended, account_id, why, actor)
        await self.deny(ended)
        return len(ended)

    async def _rotated(self, given: RefreshToken, known: Known, device: Device) -> Tokens | None:
        """New tokens, by a new generation; None if somebody was quicker."""
        session, policy = known.session, self.rules.policy
        issued = await self._issued(session)  # first: if it cannot be signed, nothing has been replaced
        async with self.transaction():
            # Under `grace` siblings live side by side: whichever generation is the youngest, the next one is new.
            after = None if policy is Policy.GRACE else known.use.generation
            generation = await self.store.advance(session.id, after, device, self.rules.idle)
            if generation is None:
                return None
            key_id = self.keys.newest
            child = RefreshToken(new_uuid(), self._derived(given, session.id, generation, key_id))
            await self.store.add_token(child, session.id, generation, key_id=key_id, parent_id=given.id)
            await self._tell_of(Happened.ROTATED, session, device, given, child.id, generation)
        return self._with(issued, session, child)

    async def _repeated(self, given: RefreshToken, known: Known, device: Device) -> Tokens | None:
        """The successor that was given before; None if it was used meanwhile, or its session has ended."""
        session, successor = known.session, known.successor
        assert successor is not None
        generation = known.use.newest
        try:
            child = RefreshToken(successor.id, self._derived(given, session.id, generation, successor.key_id))
        except ValueError as error:  # SHOWCASE_SECRETS lost a key within the leeway
            raise await self._refused(Refusal.KEY_GONE, session, device) from error
        if not child.matches(successor.secret_hash):
            raise await self._refused(Refusal.KEY_GONE, session, device)
        issued = await self._issued(session)
        async with self.transaction():
            if not await self.store.touch(session.id, generation, device, self.rules.idle):
                return None
            await self._tell_of(Happened.REPEATED, session, device, given, child.id, generation)
        return self._with(issued, session, child)

    async def _revoked_for_reuse(self, given: RefreshToken, known: Known, device: Device) -> bool:
        """End the family; committed when this returns. False if somebody else has ended it."""
        session = known.session
        async with self.transaction():
            if not await self.store.revoke(session.id, REUSE):
                return False
            data = {"token_id": str(given.id), "generation": known.use.generation, "newest": known.use.newest}
            data |= {"policy": self.rules.policy.value}
            await self._tell(Happened.REUSED, session, device, data, reason=REUSE)
            await self._tell(Happened.REVOKED, session, device, reason=REUSE)
            await self.mails.add(session.email, "We have ended one of your sessions", _REUSED.format(device.address))
        await self.deny([session.id])
        return True

    def _derived(self, parent: RefreshToken, family: UUID, generation: int, key_id: str) -> bytes:
        return self.keys.mac(PURPOSE, lineage(parent, family, generation), key_id)

    async def _issued(self, session: Session) -> Tokens:
        """An access token, which never outlives its session."""
        lifetime = min(self.rules.access, self._lasts(session))
        principal = session.principal
        access = await self.tokens.issue(principal, lifetime)
        return Tokens(access_token=access, expires_in=lifetime, scopes=principal.scopes, session_id=session.id)

    def _with(self, issued: Tokens, session: Session, token: RefreshToken) -> Tokens:
        return replace(issued, refresh_token=token.text, refresh_lifetime=self._lasts(session))

    def _lasts(self, session: Session) -> timedelta:
        """How long a session that is used now lives, if it is not used again."""
        return min(self.rules.idle, session.lasts)

    async def _refused(self, why: Refusal, session: Session, device: Device) -> InvalidRefreshToken:
        await self._tell(Happened.REFRESH_REFUSED, session, device, reason=why.value)
        return InvalidRefreshToken()

    async def _tell_revoked(self, ended: Sequence[UUID], account_id: UUID, why: str, actor: str) -> None:
        for one in ended:
            await self.events.add(Happened.REVOKED, actor=actor, account_id=account_id, session_id=one, reason=why)

    async def _tell_of(
        self, happened: Happened, session: Session, device: Device, used: RefreshToken, child_id: UUID, generation: int
    ) -> None:
        data = {"token_id": str(child_id), "parent_id": str(used.id), "generation": generation}
        data |= {"policy": self.rules.policy.value}
        await self._tell(happened, session, device, data, actor=session.subject)

    async def _tell(
        self,
        happened: Happened,
        session: Session | None,
        device: Device | None,
        data: Mapping[str, object] = MappingProxyType({}),
        *,
        actor: str = "",
        reason: str = "",
    ) -> None:
        account_id, session_id = (session.account_id, session.id) if session else (None, None)
        await self.events.add(
            happened, actor=actor, account_id=account_id, session_id=session_id, device=device, reason=reason, **data
        )
