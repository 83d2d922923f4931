"""The database's schema as a chain of alembic migrations, run from code: there is no alembic.ini."""

from collections.abc import Callable
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine
from sqlalchemy.pool import NullPool

FOLDER = Path(__file__).resolve().parent

__all__ = ["FOLDER", "upgrade"]


def upgrade(url: str, connect: Callable[[str], psycopg.Connection] = psycopg.connect) -> None:
    """Bring a database to the newest migration, all in one transaction; harmless when it is there.

    Args:
        url: of the database, `postgresql://user:password@host:port/database`.
        connect: opens the connection; for a caller who bounds how long it may live.

    Raises psycopg.Error or sqlalchemy.exc.DBAPIError, and then nothing has changed.
    """
    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    engine = create_engine("postgresql+psycopg://", creator=lambda: connect(url), poolclass=NullPool)
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
