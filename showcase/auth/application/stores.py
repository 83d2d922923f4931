"""Where accounts, challenges and second factors are kept, and what stands before them: the ports."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from showcase.auth.domain.accounts import Account, Device


class Kind(StrEnum):
    """What is counted, each by a key of its own."""

    ADDRESS = "address"
    LOGIN = "login"
    FACTOR = "factor"
    MAIL = "mail"


class Purpose(StrEnum):
    """What an answered challenge allows."""

    REGISTER = "register"
    RESET = "reset"
    LOGIN = "login"


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """What is to be answered with a code within minutes.

    Attributes:
        code_hash: of the code that was mailed; None where an authenticator has it.
        password_hash: of the account to be made, or that the login was begun with.
    """

    id: UUID
    purpose: Purpose
    email: str
    account_id: UUID | None = None
    code_hash: bytes | None = None
    password_hash: str = ""


class Throttle(Protocol):
    """Counts attempts."""

    async def attempt(self, kind: Kind, key: str) -> None:
        """Count one, before it is made. Raises TooManyAttempts, Unavailable."""

    async def succeeded(self, kind: Kind, key: str) -> None:
        """Forget the attempts. Raises Unavailable."""


class Passwords(Protocol):
    """Hashes passwords, a few at a time."""

    async def hash(self, password: str) -> str:
        """Raises Unavailable when too many wait."""

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Whether it is the one; and a new hash if it is, and was hashed by other parameters.

        Without a hash it takes as long, and is not. Raises Unavailable when too many wait.
        """


class AccountStore(Protocol):
    """Where accounts are kept."""

    async def by_email(self, email: str) -> Account | None: ...

    async def by_id(self, account_id: UUID) -> Account | None: ...

    async def by_subject(self, subject: str) -> Account | None: ...

    async def add(self, account: Account) -> bool:
        """False if the address has one."""

    async def replace_password(self, account_id: UUID, old: str, new: str) -> bool:
        """Store another hash, if the old one is still there."""

    async def hold_password(self, account_id: UUID, hashed: str) -> bool:
        """Whether it is still there; nobody replaces it until the transaction ends."""


class Challenges(Protocol):
    """Where challenges are kept. An address has one for each purpose, but for logins."""

    async def add_mailed(self, purpose: Purpose, email: str, code: str, password_hash: str) -> UUID:
        """Add one in place of the former. Raises TooManyAttempts soon after the last."""

    async def add_login(self, account: Account, password_hash: str) -> UUID: ...

    async def find(self, challenge_id: UUID, purpose: Purpose) -> Challenge | None:
        """One that may still be answered."""

    async def spend_try(self, challenge_id: UUID, purpose: Purpose) -> Challenge | None:
        """The same, and an attempt at it is counted first: five, however many come at once."""

    def is_answer(self, challenge: Challenge, code: str) -> bool:
        """Whether a code is the one that was mailed; in constant time."""

    async def remove(self, challenge_id: UUID) -> bool:
        """False if somebody else was faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Totp:
    """What we share with an authenticator app.

    Attributes:
        sealed: the secret as it is stored, which tells one enrolment from the next.
        is_confirmed: its owner has given a code of it; it counts.
        last_step: that of the code that was accepted last.
    """

    account_id: UUID
    secret: bytes
    sealed: bytes
    is_confirmed: bool = False
    last_step: int = 0


class FactorStore(Protocol):
    """Where second factors are kept."""

    async def begin(self, account_id: UUID, secret: bytes) -> bool:
        """Keep a secret in place of one that was not confirmed; False if there is one that was."""

    async def find(self, account_id: UUID) -> Totp | None: ...

    async def confirm(self, totp: Totp, step: int) -> bool:
        """Have it count from now on; False if it is not the one any more, or counts already."""

    async def use_step(self, totp: Totp, step: int) -> bool:
        """Accept a step; False if it, or a later one, was accepted before, whoever asks at once."""

    async def remove(self, account_id: UUID) -> bool:
        """With the recovery codes; False if there was none that counts."""

    async def replace_recovery_codes(self, account_id: UUID, codes: Sequence[str]) -> None:
        """Keep these and no others."""

    async def use_recovery_code(self, account_id: UUID, code: str) -> int | None:
        """Use one up; how many are left, or None if it is none, or was used before, whoever asks at once."""


class SecondFactor(Protocol):
    """Checks second factors (`application.factors.Factors`)."""

    async def accept(self, account: Account, code: str, device: Device) -> bool:
        """Use up a code, with the transaction that is open; False if it is wrong."""
