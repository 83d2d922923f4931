"""Who has read the audit, in PostgreSQL: a table that is itself audited."""

from datetime import timedelta

from sqlalchemy import text

from showcase.kernel.ids import new_uuid
from showcase.platform.database import Database

INSERT = text("""
    INSERT INTO audit.reads (read_id, actor, request_id, path, query)
    VALUES (:read_id, :actor, :request_id, :path, :query)
""")
OLD_CONTEXTS = text("DELETE FROM audit_context WHERE at < now() - :kept")
OLD_READS = text("DELETE FROM audit.reads WHERE at < now() - :kept")


class SqlReads:
    """Notes who reads what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, *, actor: str, request_id: str, path: str, query: str) -> None:
        """Raises Unavailable, and then nothing is to be shown."""
        said = {"actor": actor, "request_id": request_id, "path": path, "query": query}
        async with self._database.transaction() as connection:
            await connection.execute(INSERT, {"read_id": new_uuid(), **said})

    async def prune(self, *, contexts: timedelta, reads: timedelta) -> dict[str, int]:
        """Remove what has long been recorded: who acted, and who read. The records of it stay. Raises Unavailable."""
        removed: dict[str, int] = {}
        for what, statement, kept in (("audit_context", OLD_CONTEXTS, contexts), ("audit.reads", OLD_READS, reads)):
            async with self._database.transaction() as connection:
                removed[what] = (await connection.execute(statement, {"kept": kept})).rowcount
        return removed
