"""One client a process: its settings, its deadlines, and the transaction that a task has open."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
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
from showcase.documents.infrastructure.codec import RAW
from showcase.documents.infrastructure.errors import translated
from showcase.documents.infrastructure.watch import Watch
from showcase.kernel import trace
from showcase.kernel.errors import Unavailable

R = TypeVar("R")
MAX_TIME_EXPIRED = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a client behaves. TLS and the replica set are in the URL: `?tls=true&tlsCAFile=…&replicaSet=rs0`.

    Attributes:
        timeout_s: the longest that one call may take, its retries and the wait for a connection included; a
            transaction as well. A paused server keeps no timeout of its own.
        select_s: how long a server is looked for.
        queue_s: how long a free connection is waited for.
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
    def calling(self, what: str) -> Iterator[Mapping[str, Any]]:
        """Around each call, whose errors become those of the domain.

        Yields what every call is told: the session of the transaction that this task has open, and the trace.

        Raises RuntimeError in a task that another one has started within its transaction: MongoDB takes one call of a
        transaction at a time.
        """
        open_ = self._open.get()
        if open_ is not None and open_.task is not asyncio.current_task():
            raise RuntimeError(f"{what}: the transaction that is open belongs to another task")
        with translated(what):
            yield {"session": open_ and open_.session, "comment": trace.current()}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """See `application.Transactions`. Raises Unavailable, NestedTransaction."""
        async with self._unit() as session:
            await session.start_transaction()
            yield
            while True:
                try:
                    await session.commit_transaction()
                    return
                except PyMongoError as error:  # committed or not: to ask again is safe, and tells
                    expired = isinstance(error, OperationFailure) and error.code == MAX_TIME_EXPIRED
                    if expired or error.timeout or not error.has_error_label("UnknownTransactionCommitResult"):
                        raise

    async def in_transaction(self, work: Callable[[], Awaitable[R]]) -> R:
        """See `application.Transactions`. Raises Unavailable, NestedTransaction, and what `work` raises."""

        async def driven(session: AsyncClientSession) -> R:
            try:
                return await work()
            except Unavailable as error:
                raise error.__cause__ or error from None  # the driver knows by its own errors what to run again

        async with self._unit() as session:
            return await session.with_transaction(driven)

    @asynccontextmanager
    async def _unit(self) -> AsyncIterator[AsyncClientSession]:
        """A session that every call of this task takes, and one deadline for all of them."""
        if self._open.get() is not None:
            raise NestedTransaction("there is a transaction already: call what both need, not one in the other")
        with translated("a transaction"), pymongo.timeout(self.options.timeout_s):
            async with self.client.start_session() as session:
                token = self._open.set(_Open(session, asyncio.current_task()))
                try:
                    yield session
                finally:
                    self._open.reset(token)

    async def ping(self) -> None:
        """Raises Unavailable when the server does not answer."""
        with translated("a ping"):
            await self.client[self.database].command("ping")

    async def close(self) -> None:
        """End all connections."""
        await self.client.close()


def _ms(seconds: float) -> int:
    return round(seconds * 1_000)


def path_of(keys: Sequence[str]) -> list[tuple[str, int]]:
    """`-placed_at` as the driver has it, `("placed_at", -1)`."""
    return [(key.removeprefix("-"), -1 if key.startswith("-") else 1) for key in keys]
