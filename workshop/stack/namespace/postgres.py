"""PostgreSQL: a database, copied from a template that has been migrated and has the catalogue and accounts in it.

Making the template takes seconds and copying it a twentieth of one. The template's name holds a hash of all that
it is made from, so that a changed migration makes a new one.

The services' database roles are made by the migrations and belong to the whole cluster, as the stack's own user
does: they get the password of that user, and stay when a namespace goes. What they may do in its database goes
with it.
"""

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

import psycopg
from psycopg import errors
from psycopg.sql import SQL, Identifier, Literal

from showcase import migrations
from showcase.shop import catalogue
from workshop import accounts
from workshop.stack.model import StackError, Urls, credentials, url_of
from workshop.stack.namespace.part import Trace, first_line, found, in_server, owner, speaking_to, taken, wait_until

VARIABLE = "SHOWCASE_POSTGRES_URL"
TEMPLATES = "showcase_template_"
MAKING = f"{TEMPLATES}making"
LOCK = 0x5340CA5E  # any number: one lock of the cluster, held by whoever makes or removes a template
ATTEMPTS = 5
SHOWCASE = migrations.FOLDER.parent
SERVICES = ("payment", "stock", "notice", "anchor")
"""Each has a role of its own, `showcase_payment` and so on, which the migrations make. `anchor` is the part of the
audit that keeps signatures out of reach of the rest."""


class LockedOut(StackError):
    """A service's role cannot log in."""


class PostgresPart:
    """A namespace's database; replication slots belong to a database and go with it.

    Args:
        within_s: the longest that a call may take; making the template may take four times as long.
    """

    server = "postgres"

    def __init__(self, urls: Urls, within_s: float) -> None:
        self.urls = urls
        self.within_s = within_s

    def create(self, name: str) -> None:
        database = in_server(name)
        with speaking_to(self.server, psycopg.Error):
            for _ in range(ATTEMPTS):
                try:
                    with session(self.urls[VARIABLE], self.within_s) as db:
                        check_services_once(self.urls[VARIABLE], db.info.dbname, self.within_s)
                        db.execute(
                            SQL("CREATE DATABASE {} TEMPLATE {}").format(Identifier(database), Identifier(template()))
                        )
                    return
                # No template yet, or somebody's reset took it away, or it was made when the password was another.
                except (errors.InvalidCatalogName, LockedOut):
                    self.make_template()
                except (errors.DuplicateDatabase, errors.UniqueViolation) as error:  # the latter: made this moment
                    raise taken(name, f"postgres database {database}") from error
        raise StackError(f"postgres: {template()} does not stay", "is another checkout resetting this stack?")

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, psycopg.Error), session(self.urls[VARIABLE], self.within_s) as db:
            databases = db.execute("SELECT datname FROM pg_database").fetchall()
            slots = db.execute(
                "SELECT slot_name, database FROM pg_replication_slots WHERE database IS NOT NULL"
            ).fetchall()
        owners = [(owner(database), slot) for slot, database in slots]
        return [
            *found("postgres database", (row[0] for row in databases), name),
            *(Trace(one, "postgres slot", slot) for one, slot in owners if one and name in (None, one)),
        ]

    def drop(self, name: str) -> None:
        database = in_server(name)
        with speaking_to(self.server, psycopg.Error), session(self.urls[VARIABLE], self.within_s) as db:
            wait_until(
                lambda: drop_database(db, database),
                self.within_s,
                lambda: f"postgres: {database} is not gone: its slot is being read",
            )

    def tables(self, name: str) -> set[str]:
        """The tables of a namespace, such as `public.orders`. Raises StackError."""
        query = "SELECT schemaname || '.' || tablename FROM pg_tables WHERE schemaname !~ '^(pg_|information_schema)'"
        url = database_url(self.urls, in_server(name))
        with speaking_to(self.server, psycopg.Error), session(url, self.within_s) as db:
            return {table for (table,) in db.execute(query).fetchall()}

    def is_streaming(self, name: str) -> bool:
        """Whether somebody reads the log through the namespace's slot, any first copying of tables being done."""
        query = """
            SELECT FROM pg_replication_slots JOIN pg_stat_replication ON pid = active_pid
            WHERE slot_name = %s AND state = 'streaming'
        """
        with speaking_to(self.server, psycopg.Error), session(self.urls[VARIABLE], self.within_s) as db:
            return db.execute(query, [in_server(name)]).fetchone() is not None

    def make_template(self) -> None:
        """Make this checkout's template, if nobody else has, and let the services log in.

        Killed half-way, it leaves nothing that looks done. Raises StackError, and psycopg.Error.
        """
        with self.templates_locked() as db:
            try:
                if not exists(db, template()):
                    self.fill_template(db)
                self.let_services_in(db)
            except errors.InsufficientPrivilege as error:
                user, _ = credentials(url_of(self.urls, VARIABLE))
                raise StackError(
                    f"postgres: {user} may not make what a namespace needs: {first_line(error)}",
                    f"as a superuser: ALTER ROLE {user} CREATEDB CREATEROLE REPLICATION; the roles"
                    f" {', '.join(map(role, SERVICES))}, if somebody else made them, need LOGIN and {user}'s password",
                ) from error

    def fill_template(self, db: psycopg.Connection) -> None:
        """Make the template under another name, which it loses when it is whole."""
        drop_database(db, MAKING)  # left by somebody who was killed: we hold the lock
        db.execute(SQL("CREATE DATABASE {} TEMPLATE template0").format(Identifier(MAKING)))
        url = database_url(self.urls, MAKING)
        try:
            with session(url, 4 * self.within_s, autocommit=False) as empty:
                migrations.upgrade_through(empty)
            with session(url, 4 * self.within_s) as migrated:
                with migrated.transaction():
                    catalogue.seed(migrated)
                    accounts.seed(migrated)
                migrated.execute("VACUUM (FREEZE)")  # or every copy would write each of its pages when it is first read
        except errors.InsufficientPrivilege:
            raise
        except psycopg.Error as error:
            raise StackError(
                f"postgres: the template cannot be made: {first_line(error)}",
                "see showcase/migrations and showcase/shop/catalogue.py",
            ) from error
        with db.transaction():
            db.execute(SQL("ALTER DATABASE {} IS_TEMPLATE true ALLOW_CONNECTIONS false").format(Identifier(MAKING)))
            db.execute(SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(MAKING), Identifier(template())))

    def let_services_in(self, db: psycopg.Connection) -> None:
        """Give the services' roles the password of the URL, unless they have it. Raises LockedOut, psycopg.Error."""
        try:
            log_in_as_services(self.urls[VARIABLE], db.info.dbname, self.within_s)
        except LockedOut:
            self.give_password(db)
            log_in_as_services(self.urls[VARIABLE], db.info.dbname, self.within_s)

    def give_password(self, db: psycopg.Connection) -> None:
        """Give the services' roles the password of the URL. At most one process at a time may do this."""
        _, password = credentials(url_of(self.urls, VARIABLE))
        with db.transaction():
            for service in SERVICES:
                # The server would log the statement with the password in it: it gets what it stores of one instead.
                secret = db.pgconn.encrypt_password(password.encode(), role(service).encode(), b"scram-sha-256")
                alter = SQL("ALTER ROLE {} LOGIN PASSWORD {}")
                db.execute(alter.format(Identifier(role(service)), Literal(secret.decode())))

    def remove_old_templates(self) -> None:
        """Remove the templates of other migrations than today's. Raises StackError."""
        with speaking_to(self.server, psycopg.Error), self.templates_locked() as db:
            query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s) AND datname <> %s"
            for (old,) in db.execute(query, [TEMPLATES, template()]).fetchall():
                db.execute(SQL("ALTER DATABASE {} IS_TEMPLATE false").format(Identifier(old)))
                drop_database(db, old)

    @contextmanager
    def templates_locked(self) -> Iterator[psycopg.Connection]:
        """A connection that alone, in all processes, makes or removes templates."""
        with session(self.urls[VARIABLE], 4 * self.within_s) as db:
            db.execute("SELECT pg_advisory_lock(%s)", [LOCK])  # given back when the connection ends, however it does
            yield db


def database_url(urls: Urls, database: str) -> str:
    """The URL of another database on the same server."""
    return url_of(urls, VARIABLE)._replace(path=f"/{database}").geturl()


def service_urls(urls: Urls, database: str) -> dict[str, str]:
    """Each service's variable, with the URL by which it logs in to a database: the stack's password, its own user."""
    url = url_of(urls, VARIABLE)._replace(path=f"/{database}")
    login, _, place = url.netloc.rpartition("@")
    _, colon, password = login.partition(":")
    return {
        f"SHOWCASE_{service.upper()}_POSTGRES_URL": url._replace(
            netloc=f"{role(service)}{colon}{password}@{place}"
        ).geturl()
        for service in SERVICES
    }


def role(service: str) -> str:
    """The database role of a service."""
    return f"showcase_{service}"


def log_in_as_services(url: str, database: str, within_s: float) -> None:
    """Log in as each service to a database of the server that the URL names. Raises LockedOut, ConnectionTimeout."""
    for service in service_urls({VARIABLE: url}, database).values():
        try:
            psycopg.connect(service, connect_timeout=max(2, round(within_s))).close()
        except errors.ConnectionTimeout:  # a server that is slow, or paused, refuses nobody
            raise
        except psycopg.OperationalError as error:
            raise LockedOut(
                f"postgres: a service cannot log in: {first_line(error)}",
                "the services' roles log in as the user of SHOWCASE_POSTGRES_URL does, with its password: see pg_hba",
            ) from error


@cache  # once a process, and again only while it fails: it takes as long as making a namespace
def check_services_once(url: str, database: str, within_s: float) -> None:
    """The same, where it has not worked before in this process."""
    log_in_as_services(url, database, within_s)


@cache
def template() -> str:
    """The template's name: it tells from which migrations and which data it was made."""
    digest = hashlib.sha256(catalogue.data_version().encode() + b"\0")
    for path in (*sorted(migrations.FOLDER.rglob("*.py")), Path(catalogue.__file__), Path(accounts.__file__)):
        digest.update(path.relative_to(SHOWCASE.parent).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return TEMPLATES + digest.hexdigest()[:16]


def exists(db: psycopg.Connection, database: str) -> bool:
    """Whether there is a database of that name."""
    return db.execute("SELECT FROM pg_database WHERE datname = %s", [database]).fetchone() is not None


def drop_database(db: psycopg.Connection, database: str) -> bool:
    """Drop a database with its slots, ending all its sessions; whether it is gone, and not just read again."""
    # FORCE ends all sessions but those that read through a slot. Slots that nobody reads go with the database.
    db.execute(
        "SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE database = %s", [database]
    )
    try:
        db.execute(SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(Identifier(database)))
    except errors.ObjectInUse:
        return False
    return True


@contextmanager
def session(url: str, within_s: float, *, autocommit: bool = True) -> Iterator[psycopg.Connection]:
    """A connection that is cut after some seconds, because a paused server keeps no timeout of its own.

    Raises StackError when that happens, and psycopg.Error.
    """
    with psycopg.connect(url, autocommit=autocommit, connect_timeout=max(2, round(within_s))) as db:
        line = socket.socket(fileno=os.dup(db.fileno()))  # a duplicate: psycopg may close its own while we cut
        cut = threading.Event()

        def cut_line() -> None:
            cut.set()
            with suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(within_s, cut_line)
        timer.start()
        try:
            yield db
        except psycopg.OperationalError as error:
            if cut.is_set():
                raise StackError(
                    f"postgres: no answer within {within_s:g} s", "is it paused? see `workshop status`"
                ) from error
            raise
        finally:
            timer.cancel()
            line.close()
