"""The stream of events in Redis (Redis Streams, https://redis.io/docs/latest/develop/data-types/streams/)."""

import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from redis.asyncio import Redis

from showcase.kernel.events import BrokenEvent, Event
from showcase.platform.redis import translated
from showcase.realtime.application import Stored

log = structlog.get_logger()

TOLD_FOR = timedelta(days=1)
"""For so long an event that is published again is recognised."""
LONGEST_BLOCK_MS = 500
AT_ONCE = 500

# Added first and noted second: if adding fails the script ends there, and the event is not taken for told.
_PUBLISH = """
if redis.call('EXISTS', KEYS[2]) == 1 then
    return false
end
local id = redis.call('XADD', KEYS[1], 'MAXLEN', '~', ARGV[1], '*', 'attributes', ARGV[2], 'body', ARGV[3])
redis.call('SET', KEYS[2], id, 'EX', ARGV[4])
return id
"""


class RedisStream:
    """One stream for all processes.

    Args:
        redis: whose answers are text.
        prefix: of every key.
        length: how many events are kept, about.
        timeout_s: that the client gives each call; a read that waits must end well within it.
    """

    def __init__(self, redis: Redis, *, prefix: str, length: int, timeout_s: float) -> None:
        self._redis = redis
        self._key = f"{prefix}events"
        self._told = f"{prefix}told:"
        self._length = length
        self._block_ms = max(1, min(LONGEST_BLOCK_MS, round(timeout_s * 1000 / 2)))
        self._publish = redis.register_script(_PUBLISH)

    async def publish(self, event: Event) -> bool:
        attributes = json.dumps(event.attributes(), ensure_ascii=False)
        with translated():
            id_ = await self._publish(
                keys=[self._key, self._told + event.id],
                args=[self._length, attributes, event.body().decode(), round(TOLD_FOR.total_seconds())],
            )
        return id_ is not None

    async def end(self) -> str:
        with translated():
            last: Any = await self._redis.xrevrange(self._key, count=1)
        return str(last[0][0]) if last else "0-0"

    async def read(self, after: str) -> Sequence[Stored]:
        with translated():
            answer: Any = await self._redis.xread({self._key: after}, count=AT_ONCE, block=self._block_ms)
        return [_stored(id_, fields) for _, entries in answer or [] for id_, fields in entries]


def _stored(id_: str, fields: Mapping[str, str]) -> Stored:
    try:
        return Stored(id=id_, event=Event.read(json.loads(fields["attributes"]), fields["body"].encode()))
    except (BrokenEvent, ValueError, KeyError, TypeError) as error:
        log.error("not an event", stream_id=id_, why=f"{type(error).__name__}: {error}")
        return Stored(id=id_, event=None)
