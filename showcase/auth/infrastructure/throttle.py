"""The throttle: how many attempts an account, or an address, has in a time. Counted in Redis for all processes."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from ipaddress import IPv6Address, ip_address

from limits import RateLimitItem, parse_many
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter
from redis.asyncio import Redis

from showcase.auth.application.accounts import TooManyAttempts
from showcase.auth.application.stores import Kind
from showcase.auth.infrastructure.secrets import Secrets
from showcase.kernel.errors import Unavailable
from showcase.platform.redis import translated

NETWORK_BITS = 64
"""What one subscriber has of IPv6 addresses is no less than that (RFC 6177): one line, one count."""


class Throttle:
    """See `application.stores.Throttle`.

    Several windows for one key, as in "5 per minute; 20 per 15 minutes": the longer somebody tries, the longer the
    pause. A refused attempt does not count, so that a lock never grows by itself and always ends. The windows move
    (the last N attempts are kept, with their time): no moment lets twice as many through, and the time until the
    next is exact. The clock is that of the processes, so it is one clock as far as their machines agree.

    An attempt counts before it is made, each in one step in Redis: of guesses that come at once, no more than allowed
    are made. While Redis is away nobody signs in (fails closed): else whoever can stop Redis could guess on.

    Args:
        redis: its pool is used, and with it the deadlines of its connections.
        prefix: of all keys. They hold a keyed hash: who reads Redis learns no address.
        account_limits: for one account's logins, codes and mails.
        address_limits: for one IP address.
        timeout_s: the longest that all calls of one attempt take.
    """

    def __init__(
        self,
        redis: Redis,
        secrets: Secrets,
        *,
        prefix: str,
        account_limits: str,
        address_limits: str,
        timeout_s: float = 1.0,
    ) -> None:
        self._redis = redis
        self._prefix = f"{prefix}throttle"
        storage = RedisStorage(
            "async+redis://",
            implementation="redispy",
            key_prefix=self._prefix,
            connection_pool=redis.connection_pool,  # type: ignore[arg-type]  # documented so, typed too narrowly
        )
        self._limiter = MovingWindowRateLimiter(storage)
        self._secrets = secrets
        self._timeout_s = timeout_s
        accounts = _shortest_first(account_limits)
        self._windows: Mapping[Kind, tuple[RateLimitItem, ...]] = {
            Kind.ADDRESS: _shortest_first(address_limits),
            Kind.LOGIN: accounts,
            Kind.FACTOR: accounts,
            Kind.MAIL: accounts,
        }

    async def attempt(self, kind: Kind, key: str) -> None:
        """Count an attempt. Raises TooManyAttempts with the time until the next, Unavailable."""
        name = self._name(kind, key)
        async with self._in_time():
            for window in self._windows[kind]:
                if not await self._limiter.hit(window, name):
                    break  # the longer windows do not count what this one refuses
            else:
                return
            wait_s = max([await self._wait_s(window, name) for window in self._windows[kind]])
        raise TooManyAttempts("wait before the next attempt", retry_after_s=max(1, math.ceil(wait_s)))

    async def succeeded(self, kind: Kind, key: str) -> None:
        """Forget the attempts. Raises Unavailable."""
        name = self._name(kind, key)
        async with self._in_time():  # all windows in one call: `clear` takes one for each
            await self._redis.delete(*(f"{self._prefix}:{window.key_for(name)}" for window in self._windows[kind]))

    async def _wait_s(self, window: RateLimitItem, name: str) -> float:
        stats = await self._limiter.get_window_stats(window, name)
        return stats.reset_time - time.time() if stats.remaining <= 0 else 0.0

    def _name(self, kind: Kind, key: str) -> str:
        known = _line(key) if kind is Kind.ADDRESS else key
        return f"{kind}/{self._secrets.mac('throttle', f'{kind}:{known}'.encode()).hex()[:32]}"

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            with translated():
                async with asyncio.timeout(self._timeout_s):
                    yield
        except TimeoutError as error:
            raise Unavailable("redis does not answer in time") from error


def _shortest_first(limits: str) -> tuple[RateLimitItem, ...]:
    return tuple(sorted(parse_many(limits), key=lambda window: window.get_expiry()))


def _line(address: str) -> str:
    """The line an address belongs to: itself, or the network of an IPv6 one."""
    try:
        parsed = ip_address(address)
    except ValueError:  # behind a socket that has no addresses
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> NETWORK_BITS << NETWORK_BITS))
