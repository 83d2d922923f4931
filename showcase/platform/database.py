"""PostgreSQL: transactions with a deadline that holds even against a server that has stopped answering.

SQLAlchemy gives the pool and the transactions, psycopg 3 the wire. Server-side timeouts are set as well, but a
server that is paused keeps none of them. Cancelling is no way out either: psycopg would ask the server to
cancel, and wait for it. So the deadline cuts the line.

Who acts (`kernel.acting`) is told to the database as a setting of the transaction, `audit.context`, which its triggers
write down beside what they see changed (migration 0007).
"""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from psycopg.sql import Literal
from sqlalchemy import event, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, DisconnectionError, InterfaceError, OperationalError, PendingRollbackError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from showcase.kernel import acting
from showcase.kernel.acting import Acting
from showcase.kernel.errors import Unavailable

Wait = Callable[[float], Awaitable[bool]]
Afterwards = Callable[[], Awaitable[object]]

OVERTAKEN = ("40P01", "40001", "55P03")
"""A deadlock, a serialization failure, a lock that was not to be had: the same transaction may succeed later."""
STATEMENT_TIMEOUT = "57014"


class Database:
    """One database, as one role.

    Args:
        url: `postgresql://user:password@host:port/database`.
        timeout_s: the longest that a transaction may take, its commit and the wait for a connection included.
        connections: how many there may be at once; whoever finds none waits.
    """

    def __init__(self, url: str, *, timeout_s: float = 5.0, connections: int = 10) -> None:
        self.timeout_s = timeout_s
        self._url = url
        self._open: dict[asyncio.Task[Any] | None, _Open] = {}
        limit_ms = round(timeout_s * 1000)
        self._engine = create_async_engine(
            make_url(url).set(drivername="postgresql+psycopg"),
            pool_size=connections,
            max_overflow=0,
            pool_timeout=timeout_s,
            connect_args={
                "application_name": "showcase",
                "options": f"-c statement_timeout={limit_ms} -c idle_in_transaction_session_timeout={2 * limit_ms}",
            },
        )
        event.listen(self._engine.sync_engine, "checkout", _refuse_dead)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncConnection]:
        """A transaction: commits at the end of the block, rolls back on any error.

        Inside another one of the same task it is the same transaction, so that an order, its event and the
        stored answer of its request become true together. Whoever acts when it begins has acted in all of it, but for
        savepoints that another has begun.

        Raises Unavailable when the database does not answer in time or is away.
        """
        task = asyncio.current_task()
        if task in self._open:
            yield self._open[task].connection
            return
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        with _translated():
            async with AsyncExitStack() as stack:
                # Cancelling is a way out here: no query runs yet that psycopg would ask the server to cancel.
                async with asyncio.timeout_at(deadline):
                    connection = await stack.enter_async_context(self._engine.connect())
                    driver = (await connection.get_raw_connection()).driver_connection
                assert isinstance(driver, psycopg.AsyncConnection)
                with _cut_at(deadline, driver):
                    async with connection.begin():
                        self._open[task] = here = _Open(connection, driver, acting.current())
                        try:
                            if here.actor is not None:
                                await _run(driver, _say(here.actor))
                            yield connection
                        finally:
                            del self._open[task]
        for call in here.afterwards:
            await call()

    @asynccontextmanager
    async def savepoint(self) -> AsyncIterator[AsyncConnection]:
        """A part of the transaction that this task has open: an error undoes what the block did, and no more.

        If another acts now than in the rest of the transaction, he has acted in this part of it.

        Raises what the block raises: then the transaction can go on. A deadlock and a lock that was not to be had are
        Unavailable. So is a connection that was lost, but then whatever the transaction does next is Unavailable too.
        Raises RuntimeError where no transaction is open.
        """
        here = self._open.get(asyncio.current_task())
        if here is None:
            raise RuntimeError("a savepoint is part of a transaction, and none is open")
        registered = len(here.afterwards)
        outer, inner = here.actor, acting.current()
        is_another = inner != outer
        with _translated():
            # Past SQLAlchemy, whose own savepoints cost three times as much; one name, since they lie in one another.
            await _run(here.driver, "SAVEPOINT part" + ("; " + _say(inner) if is_another else ""))
        here.actor = inner
        try:
            yield here.connection
            await _run(here.driver, "RELEASE part" + ("; " + _say(outer) if is_another else ""))
        except BaseException as error:
            del here.afterwards[registered:]
            with _translated():
                await _run(here.driver, "ROLLBACK TO part; RELEASE part")  # who acted before acts again, by that
                if isinstance(error, DBAPIError | psycopg.Error):
                    raise
            raise
        finally:
            here.actor = outer

    async def after_commit(self, call: Afterwards) -> None:
        """Do something once the transaction that is open has committed; at once if none is, never if it fails."""
        here = self._open.get(asyncio.current_task())
        if here is None:
            await call()
        else:
            here.afterwards.append(call)

    @asynccontextmanager
    async def listening(self, channel: str) -> AsyncIterator[Wait]:
        """Listen to a channel (LISTEN/NOTIFY) on a connection of its own.

        Yields a function that waits for a notification, so many seconds at the most, and tells whether one came.
        Raises Unavailable when the connection is lost.
        """
        deadline = asyncio.get_running_loop().time() + self.timeout_s
        with _translated():
            async with asyncio.timeout_at(deadline):
                connection = await psycopg.AsyncConnection.connect(self._url, autocommit=True)
            try:
                with _cut_at(deadline, connection):
                    await connection.execute(f'LISTEN "{channel}"')

                async def wait(within_s: float) -> bool:
                    with _translated():
                        return [note async for note in connection.notifies(timeout=within_s, stop_after=1)] != []

                yield wait
            finally:
                connection.pgconn.finish()  # `close` would wait for nobody either, but this cannot fail

    async def ping(self) -> None:
        """Raises Unavailable when the database does not answer."""
        async with self.transaction() as connection:
            await connection.execute(text("SELECT 1"))

    async def close(self) -> None:
        """End all connections."""
        await self._engine.dispose()


@dataclass(slots=True)
class _Open:
    """A transaction that a task has open; `actor` is who acts in it, as the database knows."""

    connection: AsyncConnection
    driver: psycopg.AsyncConnection[Any]
    actor: Acting | None
    afterwards: list[Afterwards] = field(default_factory=list)


async def _run(driver: psycopg.AsyncConnection[Any], statements: str) -> None:
    """Have the server run statements in one round trip."""
    # A client-side cursor prepares none: those that tell who acts hardly ever come twice.
    await psycopg.AsyncClientCursor(driver).execute(statements.encode())


def _say(who: Acting | None) -> str:
    """The statement that tells the database who acts from here on; a savepoint that is rolled back takes it back."""
    # No SELECT set_config(…): a query has to be planned, which takes longer than all else together.
    return f"SET LOCAL audit.context = {Literal(who.as_json() if who else '').as_string()}"


def _refuse_dead(connection: Any, record: object, proxy: object) -> None:
    """Have the pool replace a connection whose server has gone: an idle one has nothing to read but its end."""
    poll = select.poll()
    poll.register(connection.driver_connection.fileno(), select.POLLIN)
    if poll.poll(0):
        raise DisconnectionError


@contextmanager
def _cut_at(deadline: float, connection: psycopg.AsyncConnection[Any]) -> Iterator[None]:
    """Cut the line to the server if the block is not over by a time of the event loop."""
    line = socket.socket(fileno=os.dup(connection.fileno()))  # a duplicate: psycopg may close its own before we cut

    def cut() -> None:
        with suppress(OSError):
            line.shutdown(socket.SHUT_RDWR)

    timer = asyncio.get_running_loop().call_at(deadline, cut)
    try:
        yield
    finally:
        timer.cancel()
        line.close()


@contextmanager
def _translated() -> Iterator[None]:
    """Turn what drivers say of a database that is away into one error of the domain."""
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, psycopg.OperationalError, TimeoutError) as error:
        if _sqlstate(error) in OVERTAKEN:
            raise Unavailable("another transaction was in the way: try again") from error
        if _sqlstate(error) == STATEMENT_TIMEOUT:  # the server's limit came before ours: it does answer
            raise Unavailable("the transaction took too long") from error
        raise Unavailable("the database does not answer in time") from error
    except PendingRollbackError as error:  # what SQLAlchemy says to the next statement, also after a cut
        raise Unavailable("the transaction took too long, or its connection was lost") from error
    except DBAPIError as error:
        if error.connection_invalidated:
            raise Unavailable("the connection to the database was lost") from error
        raise


def _sqlstate(error: Exception) -> str | None:
    return getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
