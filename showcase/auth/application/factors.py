"""Second factors: an authenticator app (TOTP, RFC 6238), and recovery codes for when that is lost.

Guesses are throttled for each account, however many challenges or sessions they are spread over.
"""

from collections.abc import Callable
from dataclasses import dataclass
from uuid import UUID

from showcase.auth.application.accounts import WrongCode
from showcase.auth.application.ports import Events, Happened, Mails, SessionsOpened, Tokens, Transaction
from showcase.auth.application.stores import FactorStore, Kind, Throttle
from showcase.auth.domain.accounts import ONE_TIME_CODE, Account, Device
from showcase.auth.domain.codes import (
    base32,
    matching_step,
    new_recovery_codes,
    new_totp_secret,
    provisioning_uri,
    recovery_code,
)
from showcase.kernel.clock import Clock
from showcase.kernel.errors import Conflict, Forbidden

ADDED = "A second factor was added", "From now on, signing in asks for a code of your authenticator."
REMOVED = "Your second factor was removed", "If that was not you, reset your password now: all sessions will end."
RECOVERY_USED = "A recovery code was used", "{left} are left. If that was not you, reset your password now."
RENEWED = "You have new recovery codes", "The old ones are void. If that was not you, reset your password now."


class AlreadyEnrolled(Conflict):
    """This account has a second factor."""


class NotEnrolled(Conflict):
    """This account has no second factor."""


class NoSession(Forbidden):
    """This token belongs to no session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolment:
    """What an authenticator app is to be told, in three ways: typed, opened or scanned."""

    secret: str
    uri: str
    qr_svg: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """The use cases.

    Attributes:
        issuer: as authenticator apps show us.
        draw: makes a QR code of a text, as SVG.
    """

    transaction: Transaction
    factors: FactorStore
    throttle: Throttle
    sessions: SessionsOpened
    events: Events
    mails: Mails
    clock: Clock
    issuer: str
    draw: Callable[[str], str]

    async def enrol(self, account: Account) -> Enrolment:
        """Begin. It counts once `confirm` has seen a code of it; until then another one takes its place.

        Raises AlreadyEnrolled.
        """
        secret = new_totp_secret()
        if not await self.factors.begin(account.id, secret):
            raise AlreadyEnrolled("remove the second factor that there is before you add another")
        uri = provisioning_uri(secret, account.email, self.issuer)
        return Enrolment(secret=base32(secret), uri=uri, qr_svg=self.draw(uri))

    async def confirm(self, account: Account, code: str, device: Device) -> tuple[str, ...]:
        """Have the second factor count; the recovery codes, which nobody can read again.

        Raises NotEnrolled, AlreadyEnrolled, WrongCode, TooManyAttempts, Unavailable.
        """
        await self.throttle.attempt(Kind.FACTOR, str(account.id))
        totp = await self.factors.find(account.id)
        if totp is None:
            raise NotEnrolled("enrol first")
        if totp.is_confirmed:
            raise AlreadyEnrolled("this second factor counts already")
        step = matching_step(totp.secret, code, self.clock(), totp.last_step)
        if step is None:
            await self._refused(account, device)
            raise _wrong_code()
        codes = new_recovery_codes()
        async with self.transaction():
            if not await self.factors.confirm(totp, step):
                raise _wrong_code()
            await self._keep_codes(account, codes)
            await self._tell(account, device, Happened.FACTOR_ADDED, *ADDED)
        await self.throttle.succeeded(Kind.FACTOR, str(account.id))
        return codes

    async def disable(self, account: Account, device: Device) -> None:
        """Do without. Its route demands a second factor given just now. Raises NotEnrolled."""
        async with self.transaction():
            if not await self.factors.remove(account.id):
                raise NotEnrolled("there is nothing to remove")
            await self._tell(account, device, Happened.FACTOR_REMOVED, *REMOVED)

    async def new_recovery_codes(self, account: Account, device: Device) -> tuple[str, ...]:
        """Ten new ones; the old ones are void. Its route demands a second factor given just now.

        Raises NotEnrolled.
        """
        codes = new_recovery_codes()
        async with self.transaction():
            totp = await self.factors.find(account.id)
            if totp is None or not totp.is_confirmed:
                raise NotEnrolled("recovery codes stand in for a second factor: add one first")
            await self._keep_codes(account, codes)
            await self._tell(account, device, Happened.FACTOR_ADDED, *RENEWED)
        return codes

    async def accept(self, account: Account, code: str, device: Device) -> bool:
        """Use up a code of the authenticator, or a recovery code, with the transaction that is open.

        Whoever calls this has counted the attempt before. False if the code is wrong or was used.
        """
        totp = await self.factors.find(account.id)
        if totp is None:
            return False
        if (typed := recovery_code(code)) is not None:
            left = await self.factors.use_recovery_code(account.id, typed)
            if left is not None:
                subject, text = RECOVERY_USED
                await self._tell(account, device, Happened.RECOVERY_USED, subject, text.format(left=left))
            return left is not None
        step = matching_step(totp.secret, code, self.clock(), totp.last_step)
        return step is not None and await self.factors.use_step(totp, step)

    async def step_up(self, account: Account, session_id: UUID | None, code: str, device: Device) -> Tokens:
        """A new access token that says that a second factor was given just now (RFC 9470).

        Raises NoSession, NotEnrolled, WrongCode, TooManyAttempts, Unavailable, and what `SessionsOpened.step_up`
        does for a session that has ended.
        """
        if session_id is None:
            raise NoSession("an operator issued it: sign in, to step up")
        if not account.has_totp:
            raise NotEnrolled("add a second factor first")
        await self.throttle.attempt(Kind.FACTOR, str(account.id))
        async with self.transaction():
            tokens = None
            if await self.accept(account, code, device):
                tokens = await self.sessions.step_up(session_id, amr=(ONE_TIME_CODE,))
        if tokens is None:
            await self._refused(account, device, session_id)
            raise _wrong_code()
        await self.throttle.succeeded(Kind.FACTOR, str(account.id))
        return tokens

    async def _keep_codes(self, account: Account, codes: tuple[str, ...]) -> None:
        await self.factors.replace_recovery_codes(account.id, [code.replace("-", "") for code in codes])

    async def _tell(self, account: Account, device: Device, happened: Happened, subject: str, text: str) -> None:
        """Write it down, and tell the owner by mail: who does not know of it is not the one who did it."""
        await self.events.add(happened, actor=account.subject, account_id=account.id, device=device)
        await self.mails.add(account.email, subject, text)

    async def _refused(self, account: Account, device: Device, session_id: UUID | None = None) -> None:
        await self.events.add(
            Happened.FACTOR_REFUSED, account_id=account.id, session_id=session_id, device=device, reason="wrong code"
        )


def _wrong_code() -> WrongCode:
    return WrongCode("the code is wrong or was used: wait for the next one of your authenticator")
