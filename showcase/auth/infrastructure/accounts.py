"""Accounts and challenges in PostgreSQL, by its clock."""

import math
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import RowMapping, TextClause, text

from showcase.auth.application.accounts import TooManyAttempts
from showcase.auth.application.stores import Challenge, Purpose
from showcase.auth.domain.accounts import Account, Role
from showcase.auth.domain.codes import MAIL_TRIES, typed
from showcase.auth.infrastructure.hashing import CodeHashes
from showcase.auth.infrastructure.secrets import Secrets
from showcase.kernel.ids import new_uuid
from showcase.platform.database import Database


class SqlAccounts:
    """See `application.stores.AccountStore`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def by_email(self, email: str) -> Account | None:
        """The account of an address."""
        return await self._find(_BY_EMAIL, email)

    async def by_id(self, account_id: UUID) -> Account | None:
        """The account with an id."""
        return await self._find(_BY_ID, account_id)

    async def by_subject(self, subject: str) -> Account | None:
        """The account of a subject, as tokens name it."""
        return await self._find(_BY_SUBJECT, subject)

    async def add(self, account: Account) -> bool:
        """Add one; False if its address has one."""
        row = {
            "account_id": account.id,
            "email": account.email,
            "subject": account.subject,
            "role": account.role.value,
            "password_hash": account.password_hash,
        }
        return await _found(self._database, _ADD_ACCOUNT, **row)

    async def replace_password(self, account_id: UUID, old: str, new: str) -> bool:
        """Store another hash, if the old one is still there."""
        return await _found(self._database, _REPLACE_PASSWORD, account_id=account_id, old=old, new=new)

    async def hold_password(self, account_id: UUID, hashed: str) -> bool:
        """Whether it is still there; whoever wants to replace it waits until the transaction ends."""
        return await _found(self._database, _HOLD_PASSWORD, account_id=account_id, hashed=hashed)

    async def _find(self, query: TextClause, key: str | UUID) -> Account | None:
        async with self._database.transaction() as db:
            row = (await db.execute(query, {"key": key})).mappings().one_or_none()
        return None if row is None else _account(row)


class SqlChallenges:
    """See `application.stores.Challenges`.

    Args:
        lifetime: of a challenge.
        resend: from one mail to the next, for the same purpose to one address.
    """

    def __init__(self, database: Database, secrets: Secrets, *, lifetime: timedelta, resend: timedelta) -> None:
        self._database = database
        self._codes = CodeHashes(secrets, "mail code")
        self._lifetime = lifetime
        self._resend = resend

    async def add_mailed(self, purpose: Purpose, email: str, code: str, password_hash: str) -> UUID:
        """Add one in place of the former: an address has one live code for a purpose.

        Raises TooManyAttempts soon after the last.
        """
        names = {"purpose": purpose.value, "email": email}
        async with self._database.transaction() as db:
            # Two at once would both find none, and both add one.
            await db.execute(_ONE_BY_ONE, {"name": f"challenge {purpose} {email}"})
            times = {"lifetime": self._lifetime, "resend": self._resend}
            wait_s = (await db.execute(_WAIT_S, names | times)).scalar_one()
            if wait_s > 0:
                raise TooManyAttempts("a mail was sent just now: look for it", retry_after_s=math.ceil(wait_s))
            await db.execute(_REMOVE_FORMER, names)
            challenge_id = new_uuid()
            hashed = self._codes.hash(code, str(challenge_id))
            await self._add(purpose, challenge_id, email, code_hash=hashed, password_hash=password_hash)
        return challenge_id

    async def add_login(self, account: Account, password_hash: str) -> UUID:
        """Add one for the second half of a login."""
        challenge_id = new_uuid()
        await self._add(Purpose.LOGIN, challenge_id, account.email, account_id=account.id, password_hash=password_hash)
        return challenge_id

    async def find(self, challenge_id: UUID, purpose: Purpose) -> Challenge | None:
        """One that may still be answered."""
        return await self._one(_FIND, challenge_id, purpose)

    async def spend_try(self, challenge_id: UUID, purpose: Purpose) -> Challenge | None:
        """The same, and a try is taken from it first, in one step: guesses that come at once have five in all."""
        return await self._one(_SPEND_TRY, challenge_id, purpose)

    def is_answer(self, challenge: Challenge, code: str) -> bool:
        """Whether a code is the one that was mailed; in constant time."""
        hashed = challenge.code_hash
        return hashed is not None and self._codes.is_of(hashed, typed(code), str(challenge.id))

    async def remove(self, challenge_id: UUID) -> bool:
        """False if somebody else was faster."""
        return await _found(self._database, _REMOVE, challenge_id=challenge_id)

    async def prune(self) -> int:
        """Remove those that are too old to be answered; how many."""
        async with self._database.transaction() as db:
            return (await db.execute(_PRUNE)).rowcount

    async def _add(self, purpose: Purpose, challenge_id: UUID, email: str, **more: object) -> None:
        row: dict[str, Any] = {"account_id": None, "code_hash": None, **more}
        row |= {"challenge_id": challenge_id, "purpose": purpose.value, "email": email}
        async with self._database.transaction() as db:
            await db.execute(_ADD, row | {"tries": MAIL_TRIES, "lifetime": self._lifetime})

    async def _one(self, query: TextClause, challenge_id: UUID, purpose: Purpose) -> Challenge | None:
        async with self._database.transaction() as db:
            names = {"challenge_id": challenge_id, "purpose": purpose.value}
            row = (await db.execute(query, names)).mappings().one_or_none()
        return None if row is None else Challenge(id=challenge_id, purpose=purpose, **row)


async def _found(database: Database, statement: TextClause, **names: object) -> bool:
    """Whether a statement that returns what it has touched has touched anything."""
    async with database.transaction() as db:
        return (await db.execute(statement, names)).one_or_none() is not None


def _account(row: RowMapping) -> Account:
    return Account(
        id=row["account_id"],
        email=row["email"],
        subject=row["subject"],
        role=Role(row["role"]),
        password_hash=row["password_hash"],
        has_totp=row["has_totp"],
    )


_ACCOUNT = """
    SELECT account_id, email, subject, role, password_hash, EXISTS (
        SELECT FROM auth.totp WHERE totp.account_id = accounts.account_id AND confirmed_at IS NOT NULL
    ) AS has_totp
    FROM auth.accounts
"""
_BY_EMAIL = text(_ACCOUNT + "WHERE email = :key")
_BY_ID = text(_ACCOUNT + "WHERE account_id = :key")
_BY_SUBJECT = text(_ACCOUNT + "WHERE subject = :key")
_ADD_ACCOUNT = text("""
    INSERT INTO auth.accounts (account_id, email, subject, role, password_hash)
    VALUES (:account_id, :email, :subject, :role, :password_hash)
    ON CONFLICT (email) DO NOTHING RETURNING account_id
""")
_REPLACE_PASSWORD = text("""
    UPDATE auth.accounts SET password_hash = :new
    WHERE account_id = :account_id AND password_hash = :old RETURNING account_id
""")
_HOLD_PASSWORD = text("""
    SELECT account_id FROM auth.accounts WHERE account_id = :account_id AND password_hash = :hashed FOR SHARE
""")

_ONE_BY_ONE = text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))")
_WAIT_S = text("""
    SELECT coalesce(extract(epoch FROM max(expires_at) - clock_timestamp()
        - CAST(:lifetime AS interval) + CAST(:resend AS interval)), 0)
    FROM auth.challenges WHERE email = :email AND purpose = :purpose
""")
_REMOVE_FORMER = text("DELETE FROM auth.challenges WHERE email = :email AND purpose = :purpose")
_ADD = text("""
    INSERT INTO auth.challenges
        (challenge_id, purpose, email, account_id, code_hash, password_hash, tries_left, expires_at)
    VALUES (:challenge_id, :purpose, :email, :account_id, :code_hash, :password_hash, :tries,
        clock_timestamp() + CAST(:lifetime AS interval))
""")
_LIVE = """
    challenge_id = :challenge_id AND purpose = :purpose AND tries_left > 0 AND expires_at > clock_timestamp()
"""
_FIND = text(f"SELECT email, account_id, code_hash, password_hash FROM auth.challenges WHERE {_LIVE}")  # noqa: S608 - of constants
_SPEND_TRY = text(f"""
    UPDATE auth.challenges SET tries_left = tries_left - 1 WHERE {_LIVE}
    RETURNING email, account_id, code_hash, password_hash
""")  # noqa: S608 - of constants
_REMOVE = text("DELETE FROM auth.challenges WHERE challenge_id = :challenge_id RETURNING challenge_id")
_PRUNE = text("DELETE FROM auth.challenges WHERE expires_at <= clock_timestamp()")
