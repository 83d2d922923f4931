"""The database's schema as a chain of alembic migrations, run from code: there is no alembic.ini."""

from pathlib import Path

import psycopg

FOLDER = Path(__file__).resolve().parent

__all__ = ["FOLDER", "upgrade", "upgrade_through"]


def upgrade(url: str) -> None:
    """Bring a database to the newest migration, all in one transaction; harmless when it is there.

    Args:
        url: of the database, `postgresql://user:password@host:port/database`.

    Raises psycopg.Error, and then nothing has changed.
    """
    with psycopg.connect(url, connect_timeout=10) as connection:
        upgrade_through(connection)


def upgrade_through(connection: psycopg.Connection) -> None:
    """The same through an open connection, for a caller who bounds how long it lives. Closes it."""
    # Imported here: most processes only ask which migrations there are, and alembic takes a while to load.
    from alembic import command
    from alembic.config import Config
    from sqlalchemy import create_engine
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.pool import NullPool

    config = Config()
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    engine = create_engine("postgresql+psycopg://", creator=lambda: connection, poolclass=NullPool)
    try:
        with engine.begin() as transaction:
            config.attributes["connection"] = transaction
            command.upgrade(config, "head")
    except DBAPIError as error:
        raise error.orig or error from error
