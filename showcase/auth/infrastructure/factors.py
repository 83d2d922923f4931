"""Second factors in PostgreSQL, and the QR code by which an authenticator learns its secret."""

from collections.abc import Sequence
from uuid import UUID

import segno
from sqlalchemy import TextClause, text

from showcase.auth.application.stores import Totp
from showcase.auth.infrastructure.hashing import CodeHashes
from showcase.auth.infrastructure.secrets import Secrets
from showcase.platform.database import Database

PURPOSE = "totp secret"


class SqlFactors:
    """See `application.stores.FactorStore`.

    A TOTP secret is needed again and so is sealed, for its account alone; of a recovery code there is a keyed hash.
    """

    def __init__(self, database: Database, secrets: Secrets) -> None:
        self._database = database
        self._secrets = secrets
        self._codes = CodeHashes(secrets, "recovery code")

    async def begin(self, account_id: UUID, secret: bytes) -> bool:
        """Keep a secret in place of one that was not confirmed; False if there is one that was."""
        sealed = self._secrets.seal(PURPOSE, secret, str(account_id))
        return await self._found(_BEGIN, account_id=account_id, secret=sealed)

    async def find(self, account_id: UUID) -> Totp | None:
        """An account's; also one that is not confirmed. Raises Unreadable when its key is gone."""
        async with self._database.transaction() as db:
            row = (await db.execute(_FIND, {"account_id": account_id})).one_or_none()
        if row is None:
            return None
        secret = self._secrets.open(PURPOSE, row.secret, str(account_id))
        return Totp(
            account_id=account_id,
            secret=secret,
            sealed=row.secret,
            is_confirmed=row.is_confirmed,
            last_step=row.last_step,
        )

    async def confirm(self, totp: Totp, step: int) -> bool:
        """Have it count from now on; False if it is not the one any more, or counts already."""
        return await self._found(_CONFIRM, account_id=totp.account_id, sealed=totp.sealed, step=step)

    async def use_step(self, totp: Totp, step: int) -> bool:
        """Accept a step, in one statement: of many who come at once with one code, one is let in."""
        return await self._found(_USE_STEP, account_id=totp.account_id, sealed=totp.sealed, step=step)

    async def remove(self, account_id: UUID) -> bool:
        """With the recovery codes; False if there was none that counts."""
        async with self._database.transaction() as db:
            if not await self._found(_REMOVE, account_id=account_id):
                return False
            await db.execute(_REMOVE_CODES, {"account_id": account_id})
        return True

    async def replace_recovery_codes(self, account_id: UUID, codes: Sequence[str]) -> None:
        """Keep these and no others."""
        context = str(account_id)
        rows = [{"account_id": account_id, "code_hash": self._codes.hash(code, context)} for code in codes]
        async with self._database.transaction() as db:
            await db.execute(_REMOVE_CODES, {"account_id": account_id})
            await db.execute(_ADD_CODE, rows)

    async def use_recovery_code(self, account_id: UUID, code: str) -> int | None:
        """Use one up; how many are left, or None if it is none, or was used before, whoever asks at once."""
        names = {"account_id": account_id}
        async with self._database.transaction() as db:
            unused = (await db.execute(_UNUSED_CODES, names)).scalars().all()
            # All are compared, by the secret that each was made with: it may not be the newest one any more.
            found = [hashed for hashed in unused if self._codes.is_of(hashed, code, str(account_id))]
            if not found or not await self._found(_USE_CODE, code_hash=found[0], **names):
                return None
            return len(unused) - 1

    async def _found(self, statement: TextClause, **names: object) -> bool:
        async with self._database.transaction() as db:
            return (await db.execute(statement, names)).one_or_none() is not None


def qr_svg(content: str) -> str:
    """A QR code, as an SVG element for a page."""
    svg: str = segno.make(content, error="m", micro=False).svg_inline(scale=4)
    return svg


_BEGIN = text("""
    INSERT INTO auth.totp (account_id, secret) VALUES (:account_id, :secret)
    ON CONFLICT (account_id) DO UPDATE SET secret = excluded.secret, last_step = 0 WHERE totp.confirmed_at IS NULL
    RETURNING account_id
""")
_FIND = text("""
    SELECT secret, confirmed_at IS NOT NULL AS is_confirmed, last_step FROM auth.totp WHERE account_id = :account_id
""")
_CONFIRM = text("""
    UPDATE auth.totp SET confirmed_at = clock_timestamp(), last_step = :step
    WHERE account_id = :account_id AND secret = :sealed AND confirmed_at IS NULL RETURNING account_id
""")
_USE_STEP = text("""
    UPDATE auth.totp SET last_step = :step
    WHERE account_id = :account_id AND secret = :sealed AND confirmed_at IS NOT NULL AND last_step < :step
    RETURNING account_id
""")
_REMOVE = text("""
    DELETE FROM auth.totp WHERE account_id = :account_id AND confirmed_at IS NOT NULL RETURNING account_id
""")
_REMOVE_CODES = text("DELETE FROM auth.recovery_codes WHERE account_id = :account_id")
_ADD_CODE = text("INSERT INTO auth.recovery_codes (account_id, code_hash) VALUES (:account_id, :code_hash)")
_UNUSED_CODES = text("""
    SELECT code_hash FROM auth.recovery_codes WHERE account_id = :account_id AND used_at IS NULL
""")
_USE_CODE = text("""
    UPDATE auth.recovery_codes SET used_at = clock_timestamp()
    WHERE account_id = :account_id AND code_hash = :code_hash AND used_at IS NULL RETURNING account_id
""")
