"""The backplane: what other processes have changed, heard within milliseconds (Redis pub/sub).

Pub/sub forgets what nobody hears. So this sends pings down the line that the news comes along: news and answers arrive
in order, and once a ping is answered, all news from before it was sent has been heard. Until a little later the memory
of this process can be trusted. When an answer is missing, or the line was made anew, news may be missing too.
"""

import asyncio
import random
import time
from typing import Any

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from showcase.caching.application.ports import Listener
from showcase.caching.infrastructure.news import Cut, Expired, Removed, decode
from showcase.kernel.errors import Unavailable
from showcase.platform.redis import translated
from showcase.platform.worker import wait

log = structlog.get_logger()

PING_EVERY_S = 0.2
LOST_AFTER_S = 0.6
"""How long a ping that was answered counts, from when it was sent."""
RECONNECT_AFTER_S = 0.5


class Backplane:
    """Listens on a channel for one process.

    Args:
        redis: a client that gives bytes.
        origin: of this process: its own news is not for it.
        listener: is told of everything, in this event loop.
    """

    def __init__(self, redis: Redis, *, channel: str, origin: str, listener: Listener) -> None:
        self._redis = redis
        self._channel = channel
        self._origin = origin
        self._listener = listener

    async def follow(self, stop: asyncio.Event) -> None:
        """Listen until told to stop. A server that is away is tried again, about twice a second."""
        while not stop.is_set():
            try:
                async with self._redis.pubsub() as subscription:
                    with translated():
                        await self._subscribe(subscription)
                        await self._listen(subscription, stop)
            except Unavailable as error:
                log.warning("the backplane is interrupted", why=error.detail)
            await wait(stop, RECONNECT_AFTER_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret

    async def _subscribe(self, subscription: PubSub) -> None:
        """Raises Unavailable, RedisError."""
        await subscription.subscribe(self._channel)
        kind, _ = await _next(subscription, LOST_AFTER_S)
        if kind != b"subscribe":
            raise Unavailable("redis does not confirm the subscription")

    async def _listen(self, subscription: PubSub, stop: asyncio.Event) -> None:
        """Hear news for as long as pings are answered. Raises Unavailable, RedisError."""
        self._listener.lost()  # what was told before anybody listened
        try:
            while not stop.is_set():
                sent = time.monotonic()
                await subscription.ping(repr(sent))
                await self._hear(subscription, until=sent + LOST_AFTER_S - PING_EVERY_S, pong=repr(sent).encode())
                self._listener.trusted(sent + LOST_AFTER_S)
                await self._hear(subscription, until=sent + PING_EVERY_S)
        finally:
            self._listener.lost()

    async def _hear(self, subscription: PubSub, *, until: float, pong: bytes | None = None) -> None:
        """Hear news until an answer comes, or, where none is awaited, until a time. Raises Unavailable, RedisError."""
        while True:
            # Also when the time is over: after a pause of this process, the answer may have been here for long.
            left_s = until - time.monotonic()
            kind, data = await _next(subscription, max(left_s, 0.001))
            if kind == b"message":
                self._heard(data)
            elif kind == b"pong":
                if data == pong:
                    return
            elif kind:  # the driver has connected anew, and asked nobody
                raise Unavailable("the subscription was interrupted")
            elif left_s <= 0 and pong:
                raise Unavailable("redis answers no ping on the subscription")
            if left_s <= 0 and not pong:
                return

    def _heard(self, data: bytes) -> None:
        try:
            news = decode(data)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            log.error("no news of ours", why=str(error), data=data[:100])
            self._listener.lost()
            return
        if news.origin == self._origin:
            return
        match news:
            case Removed():
                self._listener.heard_removed(news.name, news.version, news.is_gone)
            case Expired():
                self._listener.heard_expired(news.name)
            case Cut():
                self._listener.heard_cut(news.tag, news.at_us / 1_000_000)


async def _next(subscription: PubSub, within_s: float) -> tuple[bytes, bytes]:
    """The next message on a subscription, its kind and its content; two times b"" if there is none in time."""
    # Not `get_message`: with RESP3 it takes the answer to a ping, which is no list, apart letter by letter.
    answer: Any = await subscription.parse_response(block=False, timeout=within_s)
    if answer is None:
        return b"", b""
    if isinstance(answer, bytes):
        return b"pong", answer
    kind, *_, data = answer
    return kind, data
