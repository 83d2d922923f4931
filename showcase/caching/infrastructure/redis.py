"""The cache's second level in Redis.

What compares and then changes is one script, which nothing comes between; it publishes the news of the change as well.
"""

import asyncio
from collections.abc import Awaitable, Sequence
from importlib.resources import files
from typing import Any

from redis.asyncio import Redis
from redis.commands.core import AsyncScript
from redis.exceptions import RedisError, ResponseError

from showcase.caching.application import entry as entries
from showcase.caching.infrastructure.news import Expired, Removed, encode
from showcase.kernel.errors import Unavailable
from showcase.platform.redis import translated

REMEMBERED_CUTS = 50_000
"""Tags, of about 150 bytes each. If more are cut, what was loaded before the oldest of these cuts is not valid."""
_US = 1_000_000


def channel_of(prefix: str) -> str:
    """Where the news is told of what lies under a prefix."""
    return f"{prefix}cache-news"


class RedisStore:
    """Entries, leases and cuts under a prefix of keys (`application.ports.Store`).

    Args:
        redis: a client that gives bytes.
        timeout_s: the longest that one call may take, connecting included. A client's own timeouts count each
            step of it anew: connection, greeting, command.
        origin: of the news; this process hears no news with its own.
    """

    def __init__(self, redis: Redis, *, prefix: str, timeout_s: float, origin: str) -> None:
        self._redis = redis
        self._timeout_s = timeout_s
        self._origin = origin
        self._entry, self._lease = f"{prefix}cache:", f"{prefix}lease:"
        self._cuts = f"{prefix}cuts"
        self._channel = channel_of(prefix)
        self._lease_script = _script(redis, "tags", "lease")
        self._release_script = _script(redis, "release")
        self._write_script = _script(redis, "head", "write")
        self._remove_script = _script(redis, "head", "remove")
        self._expire_script = _script(redis, "expire")
        self._cut_script = _script(redis, "tags", "cut")
        self._cuts_script = _script(redis, "tags", "cuts")

    async def read(self, names: Sequence[str]) -> Sequence[bytes | None]:
        """As the port says. MGET takes a key of another type for one that is not there; GET is refused."""
        if not names:
            return []
        if len(names) == 1:
            return [await self._in_time(self._get(self._entry + names[0]))]
        found: list[bytes | None] = await self._in_time(self._redis.mget([self._entry + name for name in names]))
        return found

    async def _get(self, key: str) -> Any:
        """One is asked for most often, and GET costs a client less than MGET does."""
        try:
            return await self._redis.get(key)
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                return None
            raise

    async def lease(self, names: Sequence[str], holder: str, ttl_s: float) -> tuple[float, Sequence[bool]]:
        """As the port says."""
        keys = [self._cuts, *(self._lease + name for name in names)]
        at_us, *given = await self._run(self._lease_script, keys, holder, _ms(ttl_s))
        return at_us / _US, [one == 1 for one in given]

    async def release(self, names: Sequence[str], holder: str) -> None:
        """As the port says."""
        await self._run(self._release_script, [self._lease + name for name in names], holder)

    async def write(self, name: str, entry: bytes, *, ttl_s: float, holder: str | None = None, tell: bool) -> bool:
        """As the port says."""
        news = self._removed(name, entry) if tell else b""
        stored = await self._run(
            self._write_script, self._both(name), entry, _ms(ttl_s), holder or "", self._channel, news
        )
        return bool(stored)

    async def remove(self, name: str, entry: bytes, *, ttl_s: float) -> None:
        """As the port says."""
        news = self._removed(name, entry)
        await self._run(self._remove_script, self._both(name), entry, _ms(ttl_s), self._channel, news)

    async def expire(self, name: str) -> None:
        """As the port says."""
        news = encode(Expired(self._origin, name))
        await self._run(self._expire_script, self._both(name), self._channel, news)

    async def cut(self, tag: str) -> float:
        """As the port says."""
        at_us = await self._run(self._cut_script, [self._cuts], tag, self._origin, self._channel, REMEMBERED_CUTS)
        return float(at_us / _US)

    async def cuts(self, tags: Sequence[str]) -> Sequence[float]:
        """As the port says. A tag that is not known has not been cut since the set of all cuts began.

        Redis loses the whole set or nothing of it. So one set, and not a key for each tag: a cut that is lost shows,
        and a tag that was never cut costs nothing.
        """
        return [at_us / _US for at_us in await self._run(self._cuts_script, [self._cuts], *tags)]

    def _both(self, name: str) -> list[str]:
        return [self._entry + name, self._lease + name]

    def _removed(self, name: str, entry: bytes) -> bytes:
        bits, version = entries.head(entry)
        return encode(Removed(self._origin, name, version, bool(bits & (entries.GONE | entries.ABSENT))))

    async def _run(self, script: AsyncScript, keys: Sequence[str], *arguments: str | bytes | int) -> Any:
        return await self._in_time(script(keys, arguments))

    async def _in_time(self, call: Awaitable[Any]) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await call
        except TimeoutError as error:
            raise Unavailable("redis does not answer in time") from error
        except RedisError:
            with translated():
                raise


def _script(redis: Redis, *names: str) -> AsyncScript:
    """A script that is put together from files beside this one; loaded when first used, and when Redis forgot it."""
    texts = [(files(__package__) / f"{name}.lua").read_text("utf-8") for name in names]
    return redis.register_script("\n".join(texts))


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
