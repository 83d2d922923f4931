"""The cache's store in Redis."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from redis.asyncio import Redis
from redis.exceptions import ResponseError

from showcase.kernel.errors import Unavailable
from showcase.platform.redis import translated


class RedisStore:
    """Text under a prefix of keys.

    Args:
        timeout_s: the longest that one call may take, connecting included. A client's own timeouts count each
            step of it anew: connection, greeting, command.
    """

    def __init__(self, redis: Redis, *, prefix: str, timeout_s: float) -> None:
        self._redis = redis
        self._prefix = prefix
        self._timeout_s = timeout_s

    async def get(self, key: str) -> str | None:
        async with self._bounded():
            try:
                text = await self._redis.get(self._prefix + key)
            except UnicodeDecodeError:
                return None
            except ResponseError as error:
                if str(error).startswith("WRONGTYPE"):
                    return None
                raise
            return text if isinstance(text, str) else None

    async def set(self, key: str, value: str, *, ttl: timedelta) -> None:
        async with self._bounded():
            await self._redis.set(self._prefix + key, value, px=ttl)

    async def delete(self, key: str) -> None:
        async with self._bounded():
            await self._redis.unlink(self._prefix + key)

    @asynccontextmanager
    async def _bounded(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                with translated():
                    yield
        except TimeoutError as error:
            raise Unavailable("redis does not answer in time") from error
