"""Who has read the audit, in PostgreSQL: a table that is itself audited."""

from sqlalchemy import text

from showcase.kernel.ids import new_uuid
from showcase.platform.database import Database

INSERT = text("""
    INSERT INTO audit.reads (read_id, actor, request_id, path, query)
    VALUES (:read_id, :actor, :request_id, :path, :query)
""")


class SqlReads:
    """Notes who reads what."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, *, actor: str, request_id: str, path: str, query: str) -> None:
        """Raises Unavailable, and then nothing is to be shown."""
        said = {"actor": actor, "request_id": request_id, "path": path, "query": query}
        async with self._database.transaction() as connection:
            await connection.execute(INSERT, {"read_id": new_uuid(), **said})
