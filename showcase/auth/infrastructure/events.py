"""The log of security events in PostgreSQL."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from showcase.auth.application.ports import Happened
from showcase.auth.domain.accounts import Device
from showcase.kernel.ids import new_uuid
from showcase.platform.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class SecurityEvent:
    """One event as it is read again."""

    event_id: UUID
    at: datetime
    type: str
    actor: str
    session_id: UUID | None
    address: str
    reason: str
    data: Mapping[str, Any]


class SqlEvents:
    """See `application.ports.Events`."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        row = {
            "event_id": new_uuid(),
            "type": happened.value,
            "actor": actor,
            "account_id": account_id,
            "session_id": session_id,
            "address": device.address if device else "",
            "reason": reason,
            "data": data | ({"device": device.name} if device else {}),
        }
        async with self._database.transaction() as db:
            await db.execute(_ADD, row)

    async def of_account(self, account_id: UUID, before: UUID | None, limit: int) -> Sequence[SecurityEvent]:
        """The newest first; only those older than `before`, if it is given."""
        async with self._database.transaction() as db:
            names = {"account_id": account_id, "before": before, "limit": limit}
            return [SecurityEvent(**row) for row in (await db.execute(_OF_ACCOUNT, names)).mappings()]

    async def prune(self, kept: timedelta) -> int:
        """Remove events older than `kept`; how many."""
        async with self._database.transaction() as db:
            return (await db.execute(_PRUNE, {"kept": kept})).rowcount


_ADD = text("""
    INSERT INTO auth.events (event_id, type, actor, account_id, session_id, address, reason, data)
    VALUES (:event_id, :type, :actor, :account_id, :session_id, :address, :reason, :data)
""").bindparams(bindparam("data", type_=JSONB))
_OF_ACCOUNT = text("""
    SELECT event_id, at, type, actor, session_id, address, reason, data FROM auth.events
    WHERE account_id = :account_id AND (CAST(:before AS uuid) IS NULL OR event_id < :before)
    ORDER BY event_id DESC LIMIT :limit
""")
_PRUNE = text("DELETE FROM auth.events WHERE at < now() - CAST(:kept AS interval)")
