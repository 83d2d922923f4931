"""Sessions and their refresh tokens in PostgreSQL. Its clock counts: those of the processes may differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import RowMapping, text

from showcase.auth.application.session_store import Known, Rules, Session, SessionInfo, Successor
from showcase.auth.domain.accounts import Account, Device, Role
from showcase.auth.domain.refresh import RefreshToken, Refusal, Use
from showcase.platform.database import Database

MAX_LISTED = 100
MAX_DEVICE = 200
"""Characters of what a client calls itself that are kept."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """A session that was revoked, and how long ago."""

    session_id: UUID
    ago: timedelta


class SqlSessions:
    """See `application.sessions.Store`; and what the denylist and the pruning need."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(
        self, session_id: UUID, account: Account, device: Device, *, acr: str, amr: tuple[str, ...], rules: Rules
    ) -> Session:
        row = {
            "session_id": session_id,
            "account_id": account.id,
            "acr": acr,
            "amr": list(amr),
            "address": device.address,
            "device": device.name[:MAX_DEVICE],
            "in_browser": device.in_browser,
            "idle": rules.idle,
            "lasts": rules.session,
        }
        async with self._database.transaction() as db:
            auth_time = (await db.execute(_OPEN, row)).scalar_one()
        return Session(
            id=session_id,
            account_id=account.id,
            email=account.email,
            subject=account.subject,
            role=account.role,
            acr=acr,
            amr=amr,
            auth_time=auth_time,
            lasts=rules.session,
        )

    async def add_token(
        self, token: RefreshToken, session_id: UUID, generation: int, *, key_id: str, parent_id: UUID | None
    ) -> None:
        row = {
            "token_id": token.id,
            "session_id": session_id,
            "generation": generation,
            "secret_hash": token.secret_hash,
            "key_id": key_id,
            "parent_id": parent_id,
        }
        async with self._database.transaction() as db:
            await db.execute(_ADD_TOKEN, row)

    async def find(self, token_id: UUID) -> Known | None:
        async with self._database.transaction() as db:
            row = (await db.execute(_FIND, {"token_id": token_id})).mappings().one_or_none()
        return None if row is None else _known(row)

    async def advance(self, session_id: UUID, after: int | None, device: Device, idle: timedelta) -> int | None:
        row = {"session_id": session_id, "after": after, "idle": idle} | _seen_at(device)
        async with self._database.transaction() as db:
            generation: int | None = (await db.execute(_ADVANCE, row)).scalar_one_or_none()
            return generation

    async def touch(self, session_id: UUID, generation: int, device: Device, idle: timedelta) -> bool:
        row = {"session_id": session_id, "generation": generation, "idle": idle} | _seen_at(device)
        async with self._database.transaction() as db:
            return (await db.execute(_TOUCH, row)).one_or_none() is not None

    async def held(self, session_id: UUID) -> Session | None:
        async with self._database.transaction() as db:
            row = (await db.execute(_HOLD, {"session_id": session_id})).mappings().one_or_none()
        return None if row is None else _session(row)

    async def step_up(self, session_id: UUID, *, acr: str, amr: tuple[str, ...], idle: timedelta) -> datetime:
        row = {"session_id": session_id, "acr": acr, "amr": list(amr), "idle": idle}
        async with self._database.transaction() as db:
            auth_time: datetime = (await db.execute(_STEP_UP, row)).scalar_one()
            return auth_time

    async def revoke(self, session_id: UUID, why: str, *, account_id: UUID | None = None) -> bool:
        names = {"session_id": session_id, "account_id": account_id, "why": why}
        async with self._database.transaction() as db:
            return (await db.execute(_REVOKE, names)).one_or_none() is not None

    async def revoke_all(self, account_id: UUID, why: str, *, keep: UUID | None = None) -> Sequence[UUID]:
        async with self._database.transaction() as db:
            names = {"account_id": account_id, "keep": keep, "why": why}
            return (await db.execute(_REVOKE_ALL, names)).scalars().all()

    async def of_account(self, account_id: UUID) -> Sequence[SessionInfo]:
        async with self._database.transaction() as db:
            rows = (await db.execute(_OF_ACCOUNT, {"account_id": account_id, "limit": MAX_LISTED})).mappings()
            return [SessionInfo(**dict(row) | {"amr": tuple(row["amr"])}) for row in rows]

    async def is_live(self, session_id: UUID) -> bool:
        """Whether a session is neither revoked nor idle nor expired. Raises Unavailable."""
        async with self._database.transaction() as db:
            return (await db.execute(_IS_LIVE, {"session_id": session_id})).one_or_none() is not None

    async def revoked_within(self, within: timedelta) -> Sequence[Revoked]:
        """The sessions that were revoked not longer ago than this. Raises Unavailable."""
        async with self._database.transaction() as db:
            rows = (await db.execute(_REVOKED_WITHIN, {"within": within})).all()
        return [Revoked(row.session_id, row.ago) for row in rows]

    async def prune(self, kept: timedelta) -> int:
        """Remove sessions that ended longer ago than `kept`, with their tokens; how many.

        Of a session that lives every token stays, however old: its use again is what reveals a theft.
        """
        async with self._database.transaction() as db:
            return (await db.execute(_PRUNE_SESSIONS, {"kept": kept})).rowcount


def _seen_at(device: Device) -> dict[str, str]:
    return {"address": device.address, "device": device.name[:MAX_DEVICE]}


def _session(row: RowMapping) -> Session:
    return Session(
        id=row["session_id"],
        account_id=row["account_id"],
        email=row["email"],
        subject=row["subject"],
        role=Role(row["role"]),
        acr=row["acr"],
        amr=tuple(row["amr"]),
        auth_time=row["auth_time"],
        lasts=row["lasts"],
    )


def _known(row: RowMapping) -> Known:
    use = Use(
        generation=row["generation"],
        newest=row["newest"],
        used_s=None if row["used_s"] is None else float(row["used_s"]),
        successor_used=bool(row["successor_used"]),
        ended=Refusal(row["ended"]) if row["ended"] else None,
    )
    successor = None
    if row["successor_id"]:
        successor = Successor(id=row["successor_id"], secret_hash=row["successor_hash"], key_id=row["successor_key_id"])
    return Known(session=_session(row), secret_hash=row["secret_hash"], use=use, successor=successor)


_LIVES = "s.revoked_at IS NULL AND s.idle_until > clock_timestamp() AND s.expires_at > clock_timestamp()"
_SESSION = """
    s.session_id, s.account_id, a.email, a.subject, a.role, s.acr, s.amr, s.auth_time,
    s.expires_at - clock_timestamp() AS lasts
"""

_OPEN = text("""
    INSERT INTO auth.sessions (session_id, account_id, generation, acr, amr, address, device, in_browser,
                               auth_time, created_at, used_at, idle_until, expires_at)
    SELECT :session_id, :account_id, 1, :acr, CAST(:amr AS text[]), :address, :device, :in_browser,
           now, now, now, now + CAST(:idle AS interval), now + CAST(:lasts AS interval)
    FROM clock_timestamp() AS now
    RETURNING auth_time
""")
_ADD_TOKEN = text("""
    WITH parent AS (
        UPDATE auth.refresh_tokens SET used_at = coalesce(used_at, clock_timestamp()) WHERE token_id = :parent_id
    )
    INSERT INTO auth.refresh_tokens (token_id, session_id, generation, parent_id, secret_hash, secret_key_id, issued_at)
    VALUES (:token_id, :session_id, :generation, :parent_id, :secret_hash, :key_id, clock_timestamp())
""")
_FIND = text(f"""
    SELECT {_SESSION}, t.secret_hash, t.generation, s.generation AS newest,
           extract(epoch FROM clock_timestamp() - t.used_at) AS used_s,
           CASE WHEN s.revoked_at IS NOT NULL THEN '{Refusal.REVOKED}'
                WHEN s.expires_at <= clock_timestamp() THEN '{Refusal.EXPIRED}'
                WHEN s.idle_until <= clock_timestamp() THEN '{Refusal.IDLE}' END AS ended,
           child.token_id AS successor_id, child.secret_hash AS successor_hash,
           child.secret_key_id AS successor_key_id, child.used_at IS NOT NULL AS successor_used
    FROM auth.refresh_tokens t
    JOIN auth.sessions s ON s.session_id = t.session_id
    JOIN auth.accounts a ON a.account_id = s.account_id
    LEFT JOIN auth.refresh_tokens child ON child.session_id = t.session_id
        AND child.generation = t.generation + 1 AND child.parent_id = t.token_id
    WHERE t.token_id = :token_id
""")  # noqa: S608 - made of constants
# Under READ COMMITTED an UPDATE waits for whoever changes the row, then looks at its conditions again (PostgreSQL
# manual §13.2.1): of two who compare with one generation only the first finds it.
_ADVANCE = text(f"""
    UPDATE auth.sessions s
    SET generation = s.generation + 1, used_at = clock_timestamp(),
        idle_until = clock_timestamp() + CAST(:idle AS interval), address = :address, device = :device
    WHERE s.session_id = :session_id AND (CAST(:after AS int) IS NULL OR s.generation = :after) AND {_LIVES}
    RETURNING s.generation
""")  # noqa: S608 - made of constants
_TOUCH = text(f"""
    UPDATE auth.sessions s
    SET used_at = clock_timestamp(), idle_until = clock_timestamp() + CAST(:idle AS interval),
        address = :address, device = :device
    WHERE s.session_id = :session_id AND s.generation = :generation AND {_LIVES}
    RETURNING s.session_id
""")  # noqa: S608 - made of constants
_HOLD = text(f"""
    SELECT {_SESSION} FROM auth.sessions s JOIN auth.accounts a ON a.account_id = s.account_id
    WHERE s.session_id = :session_id AND {_LIVES}
    FOR NO KEY UPDATE OF s
""")  # noqa: S608 - made of constants
_STEP_UP = text("""
    UPDATE auth.sessions
    SET acr = :acr, amr = CAST(:amr AS text[]), auth_time = clock_timestamp(), used_at = clock_timestamp(),
        idle_until = clock_timestamp() + CAST(:idle AS interval)
    WHERE session_id = :session_id RETURNING auth_time
""")
_REVOKE = text("""
    UPDATE auth.sessions SET revoked_at = clock_timestamp(), revoked_why = :why
    WHERE session_id = :session_id AND revoked_at IS NULL
        AND (CAST(:account_id AS uuid) IS NULL OR account_id = :account_id)
    RETURNING session_id
""")
# Locked in one order: two who end all sessions of an account at once would wait for each other otherwise.
_REVOKE_ALL = text("""
    UPDATE auth.sessions SET revoked_at = clock_timestamp(), revoked_why = :why
    WHERE session_id IN (
        SELECT session_id FROM auth.sessions
        WHERE account_id = :account_id AND session_id IS DISTINCT FROM CAST(:keep AS uuid) AND revoked_at IS NULL
        ORDER BY session_id FOR NO KEY UPDATE
    )
    RETURNING session_id
""")
_OF_ACCOUNT = text(f"""
    SELECT s.session_id, s.device, s.address, s.in_browser, s.amr, s.created_at, s.used_at, s.expires_at
    FROM auth.sessions s WHERE s.account_id = :account_id AND {_LIVES}
    ORDER BY s.used_at DESC, s.session_id DESC LIMIT :limit
""")  # noqa: S608 - made of constants
_IS_LIVE = text(f"SELECT FROM auth.sessions s WHERE s.session_id = :session_id AND {_LIVES}")
_REVOKED_WITHIN = text("""
    SELECT session_id, clock_timestamp() - revoked_at AS ago FROM auth.sessions
    WHERE revoked_at > clock_timestamp() - CAST(:within AS interval)
""")
_PRUNE_SESSIONS = text("""
    DELETE FROM auth.sessions
    WHERE least(revoked_at, idle_until, expires_at) < clock_timestamp() - CAST(:kept AS interval)
""")
