"""Registering, signing in, changing and resetting passwords.

Nobody learns here whether an account exists: whatever was asked for, the answer, the work and so the time are the
same (OWASP ASVS 5 V6.3.8). A refusal is written down in a transaction of its own, so that the error that follows
does not undo it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from showcase.auth.application.ports import Events, Happened, Mails, SessionsOpened, Tokens, Transaction
from showcase.auth.application.stores import (
    AccountStore,
    Challenge,
    Challenges,
    Kind,
    Passwords,
    Purpose,
    SecondFactor,
    Throttle,
)
from showcase.auth.domain.accounts import ONE_TIME_CODE, PASSWORD, Account, Device, Role, email_of
from showcase.auth.domain.codes import new_mail_code
from showcase.auth.domain.passwords import MIN_LENGTH, MIN_LENGTH_WITH_SECOND_FACTOR, WeakPassword, accepted, readable
from showcase.kernel.errors import Invalid, NotFound, TooMany, Unauthenticated
from showcase.kernel.ids import new_uuid

METHODS = ("totp", "recovery-code")
"""The second factors that finish a login."""

Letter = tuple[str, str]
"""Subject and text."""
WELCOME = "Your code", "Your code is {code}. It makes your account; do not give it to anybody."
ALREADY_REGISTERED = (
    "You have an account",
    "Somebody wants to register with your address. If that is you: sign in, or reset your password.",
)
RESET = "Your code", "Your code is {code}. It sets a new password; do not give it to anybody."
CHANGED = "Your password was changed", "If that was not you, reset it now: all sessions will end."


class WrongCredentials(Unauthenticated):
    """Address or password is wrong."""


class SecondFactorRequired(Unauthenticated):
    """The password is right; now give a code."""


class WrongCode(Invalid):
    """This code is wrong, used or too old."""


class TooManyAttempts(TooMany):
    """Too many attempts; wait before the next one."""


class NoSuchAccount(NotFound):
    """This token belongs to no account."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounts:
    """The use cases.

    Attributes:
        new_household: makes the household of a new customer, with the transaction that is open.
    """

    transaction: Transaction
    accounts: AccountStore
    challenges: Challenges
    passwords: Passwords
    throttle: Throttle
    factors: SecondFactor
    sessions: SessionsOpened
    events: Events
    mails: Mails
    new_household: Callable[[], Awaitable[int]]

    async def of(self, subject: str) -> Account:
        """The account of a subject. Raises NoSuchAccount."""
        async with self.transaction():
            account = await self.accounts.by_subject(subject)
        if account is None:
            raise NoSuchAccount("sign in with an account; this token was issued without one")
        return account

    async def register(self, email: str, password: str, device: Device) -> UUID:
        """Ask for an account; what came by mail is for `verify`, with the id that this returns.

        The password waits beside the code that was mailed for it: nobody can lay out a password for somebody
        else's address, since its owner's code finishes only the owner's own registration.

        Raises BadEmail, WeakPassword, TooManyAttempts, Unavailable.
        """
        address = email_of(email)
        chosen = accepted(password, email=address)
        await self._count_mail(address, device)
        hashed, code = await self.passwords.hash(chosen), new_mail_code()
        async with self.transaction():
            challenge_id = await self.challenges.add_mailed(Purpose.REGISTER, address, code, hashed)
            known = await self.accounts.by_email(address)
            subject, text = ALREADY_REGISTERED if known else WELCOME
            await self.mails.add(address, subject, text.format(code=code))
        return challenge_id

    async def verify(self, challenge_id: UUID, code: str, device: Device) -> Account:
        """Make the account, whose address is proven now. Raises WrongCode, TooManyAttempts, Unavailable."""
        challenge = await self._answered(Purpose.REGISTER, challenge_id, code, device)
        async with self.transaction():
            await self._remove(challenge)
            account = Account(
                id=new_uuid(),
                email=challenge.email,
                subject=f"households/{await self.new_household()}",
                role=Role.CUSTOMER,
                password_hash=challenge.password_hash,
            )
            if not await self.accounts.add(account):
                raise _wrong_code()
            await self.events.add(Happened.REGISTERED, actor=account.subject, account_id=account.id, device=device)
        return account

    async def login(self, email: str, password: str, device: Device) -> Tokens:
        """Sign in.

        Raises WrongCredentials for any reason that lies in them, SecondFactorRequired with the `challenge_id` for
        `login_with_code`, BadEmail, TooManyAttempts, Unavailable.
        """
        address = email_of(email)
        await self.throttle.attempt(Kind.ADDRESS, device.address)
        account, hashed = await self._proven(address, password, device, "wrong password")
        if account.has_totp:
            async with self.transaction():
                challenge_id = await self.challenges.add_login(account, hashed)
            raise SecondFactorRequired(
                "give a code of your authenticator, or a recovery code",
                challenge_id=str(challenge_id),
                methods=list(METHODS),
            )
        async with self.transaction():
            if not await self.accounts.hold_password(account.id, hashed):  # changed since, and all sessions ended
                raise _wrong_credentials()
            return await self.sessions.open(account, device, amr=(PASSWORD,))

    async def login_with_code(self, challenge_id: UUID, code: str, device: Device) -> Tokens:
        """Finish a login with a second factor. Raises WrongCode, TooManyAttempts, Unavailable."""
        await self.throttle.attempt(Kind.ADDRESS, device.address)
        challenge = await self.challenges.spend_try(challenge_id, Purpose.LOGIN)
        account = await self.accounts.by_id(challenge.account_id) if challenge and challenge.account_id else None
        if challenge is None or account is None:
            raise _wrong_code()
        await self.throttle.attempt(Kind.FACTOR, str(account.id))
        async with self.transaction():
            tokens = None
            if await self.factors.accept(account, code, device):
                await self._remove(challenge)
                if not await self.accounts.hold_password(account.id, challenge.password_hash):
                    raise _wrong_code()
                tokens = await self.sessions.open(account, device, amr=(PASSWORD, ONE_TIME_CODE))
        if tokens is None:
            await self._refused(Happened.FACTOR_REFUSED, account, device, "wrong code")
            raise _wrong_code()
        await self.throttle.succeeded(Kind.FACTOR, str(account.id))
        return tokens

    async def change_password(
        self, account: Account, current: str, new: str, session_id: UUID | None, device: Device
    ) -> None:
        """Change a password; all sessions end but the one given.

        Raises WeakPassword, WrongCredentials, TooManyAttempts, Unavailable.
        """
        minimum = MIN_LENGTH_WITH_SECOND_FACTOR if account.has_totp else MIN_LENGTH
        chosen = accepted(new, email=account.email, minimum=minimum)
        account, old = await self._proven(account.email, current, device, "wrong current password")
        hashed = await self.passwords.hash(chosen)
        async with self.transaction():
            if not await self.accounts.replace_password(account.id, old, hashed):  # another change was faster
                raise _wrong_credentials()
            await self._password_is_new(account, device, Happened.PASSWORD_CHANGED, keep=session_id)

    async def ask_reset(self, email: str, device: Device) -> UUID:
        """Ask for a code by which to set a new password. Raises BadEmail, TooManyAttempts, Unavailable."""
        address, code = email_of(email), new_mail_code()
        await self._count_mail(address, device)
        async with self.transaction():
            challenge_id = await self.challenges.add_mailed(Purpose.RESET, address, code, "")
            account = await self.accounts.by_email(address)
            subject, text = RESET
            await self.mails.add(address if account else None, subject, text.format(code=code))
        return challenge_id

    async def reset(self, challenge_id: UUID, code: str, password: str, device: Device) -> None:
        """Set a new password with a mailed code; all sessions end. The next login asks for the second factor again.

        The password is one that may stand alone, second factor or not: else its length would tell of whoever's
        address was given whether there is one.

        Raises WeakPassword, WrongCode, TooManyAttempts, Unavailable.
        """
        asked = await self.challenges.find(challenge_id, Purpose.RESET)
        chosen = accepted(password, email=asked.email if asked else "")
        challenge = await self._answered(Purpose.RESET, challenge_id, code, device)
        hashed = await self.passwords.hash(chosen)
        async with self.transaction():
            await self._remove(challenge)
            account = await self.accounts.by_email(challenge.email)
            if account is None or not await self.accounts.replace_password(account.id, account.password_hash, hashed):
                raise _wrong_code()
            await self._password_is_new(account, device, Happened.PASSWORD_RESET)
        await self.throttle.succeeded(Kind.LOGIN, challenge.email)

    async def _proven(self, email: str, password: str, device: Device, reason: str) -> tuple[Account, str]:
        """The account whose password this is, and its hash. Raises WrongCredentials, TooManyAttempts."""
        await self.throttle.attempt(Kind.LOGIN, email)
        account = await self.accounts.by_email(email)
        try:
            given = readable(password)
        except WeakPassword:  # no account has such a one, so that this tells of none
            raise _wrong_credentials() from None
        is_right, better = await self.passwords.verify(given, account.password_hash if account else None)
        if account is None or not is_right:
            await self._refused(Happened.LOGIN_REFUSED, account, device, reason if account else "unknown address")
            raise _wrong_credentials()
        await self.throttle.succeeded(Kind.LOGIN, email)
        if better is None:
            return account, account.password_hash
        if await self.accounts.replace_password(account.id, account.password_hash, better):
            return account, better
        return await self._proven(email, password, device, reason)  # another login or a change was faster: look again

    async def _answered(self, purpose: Purpose, challenge_id: UUID, code: str, device: Device) -> Challenge:
        """A challenge with the code that was mailed. Raises WrongCode, TooManyAttempts."""
        await self.throttle.attempt(Kind.ADDRESS, device.address)
        challenge = await self.challenges.spend_try(challenge_id, purpose)
        if challenge and self.challenges.is_answer(challenge, code):
            return challenge
        if challenge:
            account = await self.accounts.by_email(challenge.email)
            await self._refused(Happened.FACTOR_REFUSED, account, device, f"wrong code: {purpose}")
        raise _wrong_code()

    async def _remove(self, challenge: Challenge) -> None:
        if not await self.challenges.remove(challenge.id):
            raise _wrong_code()

    async def _count_mail(self, email: str, device: Device) -> None:
        await self.throttle.attempt(Kind.ADDRESS, device.address)
        await self.throttle.attempt(Kind.MAIL, email)

    async def _password_is_new(
        self, account: Account, device: Device, happened: Happened, keep: UUID | None = None
    ) -> None:
        who = account.subject
        await self.sessions.revoke_all(account.id, why=happened, actor=who, keep=keep)
        await self.events.add(happened, actor=who, account_id=account.id, session_id=keep, device=device)
        await self.mails.add(account.email, *CHANGED)

    async def _refused(self, happened: Happened, account: Account | None, device: Device, reason: str) -> None:
        await self.events.add(happened, account_id=account.id if account else None, device=device, reason=reason)


def _wrong_credentials() -> WrongCredentials:
    return WrongCredentials("the address or the password is wrong")


def _wrong_code() -> WrongCode:
    return WrongCode("the code is wrong, used or too old; ask for a new one if it was mailed")
