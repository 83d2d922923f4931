"""Removing old rows a piece at a time: a year of them in one statement would never end within the deadline."""

from datetime import timedelta

from sqlalchemy import TextClause, text

from showcase.platform.database import Database

PIECE = 5_000
_BEFORE = text("SELECT now() - CAST(:kept AS interval)")


async def prune(database: Database, delete: TextClause, kept: timedelta) -> int:
    """Run a DELETE with the parameters `before` (a time) and `limit` (rows) until it finds no more; how many it found.

    Args:
        kept: rows of this age or less stay, by the database's clock.

    Raises Unavailable: what was removed until then is gone.
    """
    async with database.transaction() as db:
        before = (await db.execute(_BEFORE, {"kept": kept})).scalar_one()
    removed = 0
    while True:
        async with database.transaction() as db:
            found = (await db.execute(delete, {"before": before, "limit": PIECE})).rowcount
        removed += found
        if found < PIECE:
            return removed
