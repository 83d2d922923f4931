"""The stream of events in Redis (Redis Streams, https://redis.io/docs/latest/develop/data-types/streams/)."""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from redis.asyncio import Redis

from showcase.kernel.events import BrokenEvent, Event
from showcase.platform.redis import translated
from showcase.realtime.application.ports import Lost, Stored
from showcase.realtime.domain import Place

log = structlog.get_logger()

TOLD_FOR = timedelta(days=1)
"""For so long an event that is published again is recognised."""
LONGEST_BLOCK_MS = 500
AT_ONCE = 500

# KEYS: the stream, its epoch. ARGV 1: a new epoch. An entry with nothing but its epoch marks the beginning: so every
# place is that of an entry, and whether it is still there can be looked up.
_BEGIN = """
local function begin(epoch)
    redis.call('SET', KEYS[2], epoch)
    redis.call('XADD', KEYS[1], '*', 'epoch', epoch)
    return epoch
end
local epoch = redis.call('GET', KEYS[2])
if not epoch or redis.call('EXISTS', KEYS[1]) == 0 then
    epoch = begin(ARGV[1])
end
local function end_()
    return {epoch, redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1][1]}
end
"""
_END = _BEGIN + "return end_()"
# KEYS 3: whether this event was told. ARGV 2: how many are kept, 3 and 4: the event, 5: for how long it is recognised.
# Added first and noted second: if adding fails the script ends there, and the event is not taken for told.
_PUBLISH = (
    _BEGIN
    + """
if redis.call('EXISTS', KEYS[3]) == 1 then
    return false
end
local id = redis.call(
    'XADD', KEYS[1], 'MAXLEN', '~', ARGV[2], '*', 'epoch', epoch, 'attributes', ARGV[3], 'body', ARGV[4])
redis.call('SET', KEYS[3], id, 'EX', ARGV[5])
return id
"""
)
# ARGV 2 and 3: the epoch and the id of a place that is not there. If older entries are, it was not too old: the stream
# has lost its end.
_RECOVER = (
    _BEGIN
    + """
local oldest = redis.call('XRANGE', KEYS[1], '-', ARGV[3], 'COUNT', 1)[1]
local newest = end_()[2]
local there = redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3])[1]
local function before(one, other)
    local ms, n = string.match(one, '(%d+)-(%d+)')
    local other_ms, other_n = string.match(other, '(%d+)-(%d+)')
    return tonumber(ms) < tonumber(other_ms) or (ms == other_ms and tonumber(n) < tonumber(other_n))
end
if epoch == ARGV[2] and not there and (oldest or before(newest, ARGV[3])) then
    epoch = begin(ARGV[1])
end
return end_()
"""
)
_SINCE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] or not redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1] then
    return false
end
return redis.call('XRANGE', KEYS[1], '(' .. ARGV[2], '+', 'COUNT', ARGV[3])
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
        self._keys = [f"{prefix}events", f"{prefix}events:epoch"]
        self._told = f"{prefix}told:"
        self._length = length
        self._block_ms = max(1, min(LONGEST_BLOCK_MS, round(timeout_s * 1000 / 2)))
        self._end, self._publish, self._recover, self._since = map(
            redis.register_script, (_END, _PUBLISH, _RECOVER, _SINCE)
        )

    async def publish(self, event: Event) -> bool:
        attributes, told_s = json.dumps(event.attributes(), ensure_ascii=False), round(TOLD_FOR.total_seconds())
        with translated():
            id_ = await self._publish(
                keys=[*self._keys, self._told + event.id],
                args=[_new_epoch(), self._length, attributes, event.body().decode(), told_s],
            )
        return id_ is not None

    async def end(self) -> Place:
        with translated():
            epoch, id_ = await self._end(keys=self._keys, args=[_new_epoch()])
        return _place(epoch, id_)

    async def read(self, after: Place) -> Sequence[Stored]:
        stream, epoch = self._keys
        id_ = _id(after)
        with translated():
            # The first two are asked at the moment in which waiting begins. While it waits nothing is missed: what is
            # added then ends the waiting.
            async with self._redis.pipeline(transaction=False) as asked:
                asked.get(epoch)
                asked.xrange(stream, id_, id_)
                asked.xread({stream: id_}, count=AT_ONCE, block=self._block_ms)
                now, there, answer = await asked.execute()
        found = [_stored(entry, fields, now or "") for _, entries in _streams(answer) for entry, fields in entries]
        if now != after.epoch or not there or any(one.place.epoch != after.epoch for one in found):
            raise Lost
        return found

    async def since(self, after: Place, count: int) -> Sequence[Stored]:
        with translated():
            entries = await self._since(keys=self._keys, args=[after.epoch, _id(after), count])
        if entries is None:
            raise Lost
        return [_stored(id_, dict(zip(fields[::2], fields[1::2], strict=True)), after.epoch) for id_, fields in entries]

    async def recover(self, lost: Place) -> Place:
        with translated():
            epoch, id_ = await self._recover(keys=self._keys, args=[_new_epoch(), lost.epoch, _id(lost)])
        return _place(epoch, id_)


def _new_epoch() -> str:
    return secrets.token_hex(4)


def _id(place: Place) -> str:
    return f"{place.number[0]}-{place.number[1]}"


def _place(epoch: str, id_: str) -> Place:
    ms, _, counter = id_.partition("-")
    return Place(epoch, (int(ms), int(counter)))


def _streams(answer: Any) -> Any:
    """What XREAD answers, in either version of the protocol; None if there was nothing."""
    return answer.items() if isinstance(answer, dict) else answer or ()


def _stored(id_: str, fields: Mapping[str, str], epoch: str) -> Stored:
    place = _place(fields.get("epoch", epoch), id_)
    if fields.keys() == {"epoch"}:
        return Stored(place=place, event=None)
    try:
        event = Event.read(json.loads(fields["attributes"]), fields["body"].encode())
    except (BrokenEvent, ValueError, KeyError, TypeError) as error:
        log.error("not an event", stream_id=id_, why=f"{type(error).__name__}: {error}")
        return Stored(place=place, event=None)
    return Stored(place=place, event=event, size=sum(map(len, fields.values())))
