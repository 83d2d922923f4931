"""What PostgreSQL knows of its capture (`application.capture.Captured`)."""

from collections.abc import Mapping, Sequence

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, TEXT

from showcase.audit.application.capture import Slot
from showcase.platform.database import Database

_SLOT = text("""
    SELECT slot.active, coalesce(slot.wal_status, 'reserved') AS wal_status,
        greatest(pg_current_wal_lsn() - coalesce(slot.confirmed_flush_lsn, slot.restart_lsn), 0)::bigint AS lag_bytes,
        greatest(pg_current_wal_lsn() - slot.restart_lsn, 0)::bigint AS kept_bytes,
        extract(epoch FROM CASE WHEN slot.active THEN reader.flush_lag ELSE now() - slot.inactive_since END) AS lag_s
    FROM pg_replication_slots AS slot LEFT JOIN pg_stat_replication AS reader ON reader.pid = slot.active_pid
    WHERE slot.slot_name = :name
""")
_IDENTITIES = text("""
    SELECT schema.nspname || '.' || class.relname AS name, class.relreplident = 'f' AS is_full
    FROM pg_class AS class JOIN pg_namespace AS schema ON schema.oid = class.relnamespace
    WHERE class.relkind IN ('r', 'p') AND schema.nspname || '.' || class.relname = ANY (:tables)
    ORDER BY 1
""").bindparams(bindparam("tables", type_=ARRAY(TEXT)))


class SqlCaptured:
    """A PostgreSQL database that is captured. `inactive_since` needs PostgreSQL 17."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def identities(self, tables: Sequence[str]) -> Mapping[str, bool]:
        async with self._database.transaction() as connection:
            return {row.name: row.is_full for row in await connection.execute(_IDENTITIES, {"tables": list(tables)})}

    async def slot(self, name: str) -> Slot | None:
        async with self._database.transaction() as connection:
            row = (await connection.execute(_SLOT, {"name": name})).one_or_none()
        if row is None:
            return None
        return Slot(
            name=name,
            active=row.active,
            wal_status=row.wal_status,
            lag_bytes=row.lag_bytes or 0,
            lag_s=float(row.lag_s or 0),
            kept_bytes=row.kept_bytes or 0,
        )
