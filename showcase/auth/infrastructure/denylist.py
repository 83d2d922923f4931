"""The denylist: sessions that ended so recently that an access token of theirs could still be used.

PostgreSQL knows which they are. Redis tells every process of a new one within milliseconds, so that a check of an
access token asks nobody: it looks into the memory of its own process. That is sound only while the process can be
sure to hear of everything. So it sends pings down the line that the news comes along, and trusts its memory
(`in_sync`) only while the last ping that was answered is young: news and answers arrive in order.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub

from showcase.auth.infrastructure.sessions import SqlSessions
from showcase.kernel.errors import Unavailable
from showcase.platform.redis import translated
from showcase.platform.worker import wait

log = structlog.get_logger()

PING_EVERY_S = 0.2
LOST_AFTER_S = 0.6
"""Without an answer to a ping for so long, news could be missing."""
RECONNECT_AFTER_S = 0.5
MARGIN = timedelta(seconds=60)
"""For clocks that differ, and for a token that was about to be signed when its session was revoked."""
POLL_LOOKS_BACK = timedelta(seconds=180)
"""Longer than any transaction takes between the time it writes down and its commit."""

_NEVER = float("-inf")


class Denylist:
    """What this process knows of sessions that are denied.

    Args:
        sessions: where the truth is.
        prefix: of the channel, and of a key for each session.
        access_lifetime: of an access token: for so long, and the margin, a session is denied.
        poll_s: every so often PostgreSQL is asked, for news that Redis never brought.
    """

    def __init__(
        self,
        redis: Redis,
        sessions: SqlSessions,
        *,
        prefix: str,
        access_lifetime: timedelta,
        margin: timedelta = MARGIN,
        poll_s: float = 5.0,
    ) -> None:
        self._redis = redis
        self._sessions = sessions
        self._channel = f"{prefix}auth:denied"
        self._denied_for = access_lifetime + margin
        self._poll_s = poll_s
        self._until: dict[UUID, float] = {}
        self._listeners: list[Callable[[UUID], None]] = []
        self._answered = _NEVER  # when the last ping that was answered had been sent
        self._is_followed = False  # until PostgreSQL has been read

    @property
    def in_sync(self) -> bool:
        """Whether this process has heard of every denial of more than `LOST_AFTER_S` ago."""
        return time.monotonic() - self._answered < LOST_AFTER_S

    def is_denied(self, session_id: UUID) -> bool:
        """Whether this process knows that a session is denied."""
        return self._until.get(session_id, _NEVER) > time.monotonic()

    def on_denied(self, listener: Callable[[UUID], None]) -> None:
        """Have a function called for every session that is denied from now on, in every process; it must not raise."""
        self._listeners.append(listener)

    async def deny(self, session_ids: Sequence[UUID]) -> None:
        """Deny sessions whose revocation is stored: here at once, and then in every process.

        Redis away is no error: the others find it in PostgreSQL.
        """
        if not session_ids:
            return
        ends = dict.fromkeys(session_ids, self._denied_for.total_seconds())
        self._remember(ends)
        try:
            await self._push(ends, tell=True)
        except Unavailable as error:
            log.warning("denials not pushed", sessions=len(ends), why=error.detail)

    async def looked_up(self, session_id: UUID) -> bool:
        """Whether Redis knows that a session is denied. Raises Unavailable."""
        with translated():
            return bool(await self._redis.exists(self._key(session_id)))

    async def ping(self) -> None:
        """Raises Unavailable until this process knows every session that was denied before it started.

        From then on it can always answer, from memory or from PostgreSQL. Whether Redis is there now, the ping of
        redis-state tells.
        """
        if not self._is_followed:
            raise Unavailable("the denylist has not been read yet, or nobody reads it any more")

    async def follow(self, stop: asyncio.Event) -> None:
        """Keep in sync until told to stop. A server that is away is tried again, about once a second."""
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._subscribe(stop))
                both.create_task(self._poll(stop))
        finally:
            self._is_followed = False

    async def _subscribe(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            try:
                async with self._redis.pubsub() as subscription:
                    with translated():
                        await self._listen(subscription, stop)
            except Unavailable as error:
                log.warning("the denylist is out of sync", why=error.detail)
            finally:
                self._answered = _NEVER
            await wait(stop, RECONNECT_AFTER_S * random.uniform(0.5, 1.5))  # noqa: S311 - jitter, no secret

    async def _listen(self, subscription: PubSub, stop: asyncio.Event) -> None:
        """Read news for as long as pings are answered. Raises Unavailable, RedisError."""
        await subscription.subscribe(self._channel)
        if await _next(subscription, LOST_AFTER_S) != ("subscribe", self._channel):
            raise Unavailable("redis does not confirm the subscription")
        # From here on all news waits on the line. So what is revoked while PostgreSQL is read is missed by neither.
        denied = await self._revoked_within(self._denied_for)
        self._remember(denied)
        await self._push(denied, tell=False)  # all of it: Redis may have lost some when it fell
        self._is_followed = True
        answered = time.monotonic()
        ping_at = answered
        while not stop.is_set():
            now = time.monotonic()
            if now - answered > LOST_AFTER_S:
                raise Unavailable("redis answers no ping on the subscription")
            if now >= ping_at:
                await subscription.ping(repr(now))
                ping_at = now + PING_EVERY_S
            kind, data = await _next(subscription, ping_at - now)
            if kind == "pong":
                self._answered = answered = float(data)
            elif kind == "message":
                self._heard(data)
            elif kind:  # the driver has connected anew, and asked nobody
                raise Unavailable("the subscription was interrupted")

    async def _poll(self, stop: asyncio.Event) -> None:
        """Ask PostgreSQL now and then, whether Redis is there or not."""
        while not await wait(stop, self._poll_s):
            now = time.monotonic()
            self._until = {session_id: until for session_id, until in self._until.items() if until > now}
            try:
                recent = await self._revoked_within(min(POLL_LOOKS_BACK, self._denied_for))
                missed = {session_id: left for session_id, left in recent.items() if not self.is_denied(session_id)}
                self._remember(missed)
                await self._push(missed, tell=False)
            except Unavailable as error:
                log.warning("the denylist was not compared", why=error.detail)

    async def _revoked_within(self, within: timedelta) -> dict[UUID, float]:
        """For how many seconds more the sessions are denied that were revoked of late. Raises Unavailable."""
        revoked = await self._sessions.revoked_within(within)
        return {one.session_id: (self._denied_for - one.ago).total_seconds() for one in revoked}

    def _heard(self, text: str) -> None:
        try:
            self._remember({UUID(text): self._denied_for.total_seconds()})
        except ValueError:
            log.error("not a session", text=text[:100])

    def _remember(self, ends: Mapping[UUID, float]) -> None:
        """Deny sessions for some seconds each, and tell the listeners of those that are new here."""
        now = time.monotonic()
        for session_id, seconds in ends.items():
            is_new = not self.is_denied(session_id)
            self._until[session_id] = max(now + seconds, self._until.get(session_id, _NEVER))
            if is_new:
                for listener in self._listeners:
                    listener(session_id)

    async def _push(self, ends: Mapping[UUID, float], *, tell: bool) -> None:
        """Write denials down in Redis, and tell every process. Raises Unavailable."""
        if not ends:
            return
        with translated():
            async with self._redis.pipeline(transaction=True) as both:
                for session_id, seconds in ends.items():
                    both.set(self._key(session_id), 1, ex=max(1, round(seconds)))
                    if tell:
                        both.publish(self._channel, str(session_id))
                await both.execute()

    def _key(self, session_id: UUID) -> str:
        return f"{self._channel}:{session_id}"


async def _next(subscription: PubSub, within_s: float) -> tuple[str, str]:
    """The next message on a subscription, its kind and its content; two times "" if there is none in time."""
    # Not `get_message`: with RESP3 and answers as text it takes the answer to a ping apart letter by letter.
    answer: Any = await subscription.parse_response(block=False, timeout=max(within_s, 0.001))
    if answer is None:
        return "", ""
    if isinstance(answer, str):
        return "pong", answer
    kind, *_, data = answer
    return str(kind), str(answer[1] if kind == "subscribe" else data)
