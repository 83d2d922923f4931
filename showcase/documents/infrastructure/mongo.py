"""One client a process: its settings, its deadlines, and the transaction that a task has open."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, TypeVar

import pymongo
from bson.raw_bson import RawBSONDocument
from pymongo import AsyncMongoClient, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from showcase.documents.application import NestedTransaction
from showcase.documents.infrastructure.codec import RAW, named
from showcase.documents.infrastructure.errors import translated
from showcase.documents.infrastructure.watch import Watch
from showcase.kernel import trace
from showcase.kernel.errors import Unavailable

R = TypeVar("R")
MAX_TIME_EXPIRED = 50
FIRST_PAUSE_S = 0.005
LONGEST_PAUSE_S = 0.5
ABORT_S = 0.5
"""So much later than its deadline a transaction ends at the most, if it is to be undone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client behaves. TLS and the replica set are in the URL: `?tls=true&tlsCAFile=…&replicaSet=rs0`.

    Attributes:
        timeout_s: the longest that one call may take, its retries and the wait for a connection included; a
            transaction as well. A paused server keeps no timeout of its own.
        select_s: how long a server is looked for.
        queue_s: the longest that a call may take which finds every connection in use, the wait for one included.
        connections: how many there may be at once.
        kept_connections: how many are opened beforehand.
        idle_s: a connection that nobody has used for so long is closed.
        compressors: by preference, `("zlib",)`. On one machine they cost more than they save.
        slow_s: a command that takes longer is logged.
        secrets: sign cursors. The first is for new ones, the others for what they have signed before.
    """

    timeout_s: float = 5.0
    select_s: float = 5.0
    queue_s: float = 2.0
    connections: int = 50
    kept_connections: int = 0
    idle_s: float = 300.0
    compressors: tuple[str, ...] = ()
    app_name: str = "showcase"
    slow_s: float = 0.5
    secrets: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True)
class _Open:
    """A transaction, and the task that has it open."""

    session: AsyncClientSession
    task: "asyncio.Task[Any] | None"


class Mongo:
    """A client and its default database; see `application.Transactions`.

    No global: two of them live in one process, and know nothing of each other.

    Args:
        url: `mongodb://user:password@host:port/database?replicaSet=rs0`.

    Raises ValueError for a URL that is none, or names no database.
    """

    def __init__(self, url: str, options: Options) -> None:
        self.options = options
        self.watch = Watch(options.slow_s)
        self._open: ContextVar[_Open | None] = ContextVar("transaction", default=None)
        try:
            self.client: AsyncMongoClient[RawBSONDocument] = AsyncMongoClient(
                url,
                timeoutMS=_ms(options.timeout_s),
                serverSelectionTimeoutMS=_ms(min(options.select_s, options.timeout_s)),
                connectTimeoutMS=_ms(options.timeout_s),
                waitQueueTimeoutMS=_ms(options.queue_s),
                maxPoolSize=options.connections,
                minPoolSize=options.kept_connections,
                maxIdleTimeMS=_ms(options.idle_s),
                compressors=list(options.compressors),
                appname=options.app_name,
                retryWrites=True,
                retryReads=True,
                uuidRepresentation="standard",
                tz_aware=True,
                event_listeners=self.watch.listeners,
            )
            self.database = self.client.get_default_database().name
        except (ConfigurationError, ValueError, TypeError) as error:  # never with the URL: it holds a password
            raise ValueError(f"no URL of a database in MongoDB: {type(error).__name__}") from None

    def collection(self, name: str, database: str | None = None) -> AsyncCollection[RawBSONDocument]:
        """A collection of the default database, or of another one. What is read from it survives a failover."""
        return self.client[database or self.database].get_collection(
            name, codec_options=RAW, read_concern=ReadConcern("majority"), write_concern=WriteConcern("majority")
        )

    @property
    def is_in_transaction(self) -> bool:
        """Whether this task has a transaction open."""
        return self._open.get() is not None

    @contextmanager
    def calling(self, *what: object) -> Iterator[Mapping[str, Any]]:
        """Around each call, whose errors become those of the domain.

        Args:
            what: is done with what, in words, for messages.

        Yields what every call is told: the session of the transaction that this task has open, and the trace.

        Raises RuntimeError in a task that another one has started within its transaction: MongoDB takes one call of a
        transaction at a time.
        """
        open_ = self._open.get()
        if open_ is not None and open_.task is not asyncio.current_task():
            raise RuntimeError(f"{named(what)}: the transaction that is open belongs to another task")
        try:
            with self._patience():
                yield {"session": open_ and open_.session, "comment": trace.current()}
        except Exception:
            with translated(named(what)):  # not around all of it: that costs every call what only one that fails needs
                raise

    def _patience(self) -> AbstractContextManager[object]:
        """A shorter deadline where calls pile up. The driver has none for its queue, once a call has one for itself."""
        options = self.options
        is_full = self.watch.connections_in_use >= options.connections
        return pymongo.timeout(min(options.queue_s, options.timeout_s)) if is_full else nullcontext()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """See `application.Transactions`. Raises Unavailable, NestedTransaction."""
        async with self._transaction(self.options.timeout_s):
            yield

    async def in_transaction(self, work: Callable[[], Awaitable[R]]) -> R:
        """See `application.Transactions`. Raises Unavailable, NestedTransaction, and what `work` raises."""
        clock = asyncio.get_running_loop().time
        ends_at = clock() + self.options.timeout_s
        for tries in itertools.count():
            try:
                async with self._transaction(max(ends_at - clock(), 0.001)):
                    return await work()
            except Unavailable as error:
                pause_s = random.uniform(0, min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 1.5 ** min(tries, 20)))  # noqa: S311 - jitter, no secret
                if not _was_in_the_way(error) or clock() + pause_s >= ends_at:
                    raise
            await asyncio.sleep(pause_s)
        raise AssertionError("it counts without end")

    @asynccontextmanager
    async def _transaction(self, within_s: float) -> AsyncIterator[None]:
        """A transaction that every call of this task is part of, and one deadline for all of them."""
        if self._open.get() is not None:
            raise NestedTransaction("there is a transaction already: call what both need, not one in the other")
        ends_at = asyncio.get_running_loop().time() + within_s
        with translated("a transaction"):
            async with self.client.start_session() as session:
                token = self._open.set(_Open(session, asyncio.current_task()))
                try:
                    with pymongo.timeout(within_s):
                        await session.start_transaction()
                        yield
                        await _commit(session, ends_at)
                finally:
                    self._open.reset(token)
                    if session.in_transaction:  # also when time is up: until it is undone it locks what it has changed
                        with pymongo.timeout(ABORT_S):
                            await session.abort_transaction()

    async def ping(self) -> None:
        """Raises Unavailable when the server does not answer."""
        with translated("a ping"):
            await self.client[self.database].command("ping")

    async def close(self) -> None:
        """End all connections. The driver waits for its own tasks without a limit: those that do not end are left."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self.client.close(), self.options.timeout_s)


async def _commit(session: AsyncClientSession, ends_at: float) -> None:
    """Ask for it until the answer is known, or time is up, by the event loop's clock."""
    while True:
        try:
            await session.commit_transaction()
            return
        except PyMongoError as error:  # committed or not: to ask again is safe, and tells
            expired = isinstance(error, OperationFailure) and error.code == MAX_TIME_EXPIRED
            is_known = not error.has_error_label("UnknownTransactionCommitResult")
            if expired or is_known or asyncio.get_running_loop().time() + FIRST_PAUSE_S >= ends_at:
                raise
        await asyncio.sleep(FIRST_PAUSE_S)


def _was_in_the_way(error: Unavailable) -> bool:
    """Whether nothing is done because of another transaction, or of a server that changed: so it can be done again."""
    cause = error.__cause__
    return isinstance(cause, PyMongoError) and cause.has_error_label("TransientTransactionError")


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)


def path_of(keys: Sequence[str]) -> list[tuple[str, int]]:
    """`-placed_at` as the driver has it, `("placed_at", -1)`."""
    return [(key.removeprefix("-"), -1 if key.startswith("-") else 1) for key in keys]
