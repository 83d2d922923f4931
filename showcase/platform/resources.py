"""The servers that one process uses: connected to when first asked for, pinged for readiness, closed together."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar

from showcase.platform.database import Database
from showcase.platform.settings import Settings

if TYPE_CHECKING:  # a process loads the drivers of the servers that it uses, when it uses them
    from redis.asyncio import Redis

Ping = Callable[[], Awaitable[object]]


class Server(Protocol):
    """What can be asked whether it is there, and is left in the end."""

    async def ping(self) -> None: ...

    async def close(self) -> None: ...


S = TypeVar("S", bound=Server)


class Resources:
    """Connections made from settings. Each property raises ValueError when its URL is not set.

    No globals: two apps in one process have two of these.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.pings: dict[str, Ping] = {}
        self.spare: set[str] = set()
        """Resources without which the process still does all of its work, only slower."""
        self._closing = AsyncExitStack()
        self._databases: dict[str, Database] = {}
        self._shared: dict[str, Any] = {}

    @property
    def database(self) -> Database:
        """The shop's own database."""
        return self.database_of("")

    def database_of(self, service: str) -> Database:
        """The database as the role of a service."""
        if service not in self._databases:
            database = Database(
                self.settings.url(f"{service}_postgres_url" if service else "postgres_url"),
                timeout_s=self.settings.database_timeout_s,
                connections=self.settings.database_connections,
            )
            self._databases[service] = database
            self._register("postgres", database.ping, database.close)
        return self._databases[service]

    @cached_property
    def redis_cache(self) -> "Redis":
        """What may be lost: answers that are kept to spare the database. It gives bytes."""
        from showcase.platform import redis

        url = self.settings.url("redis_cache_url")
        client = redis.connect(url, timeout_s=self.settings.cache_timeout_s, text=False)
        self._register("redis-cache", client.ping, client.aclose)
        self.spare.add("redis-cache")
        return client

    @cached_property
    def redis_state(self) -> "Redis":
        """What may not be lost: streams behind WebSockets, revocations, throttles."""
        from showcase.platform import redis

        client = redis.connect(self.settings.url("redis_state_url"), timeout_s=self.settings.redis_timeout_s)
        self._register("redis-state", client.ping, client.aclose)
        return client

    def shared(self, name: str, make: Callable[[], S]) -> S:
        """A server that a slice knows how to speak to: connected to once, whoever asks for it.

        Args:
            name: by which readiness tells of it.
        """
        if name not in self._shared:
            made = make()
            self._shared[name] = made
            self._register(name, made.ping, made.close)
        shared: S = self._shared[name]
        return shared

    def _register(self, name: str, ping: Ping, close: Callable[[], Awaitable[object]]) -> None:
        self.pings[name] = ping
        self._closing.push_async_callback(close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._closing.aclose()
