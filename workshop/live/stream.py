"""The stream behind the WebSockets, as Redis has it: looked at, and damaged."""

import json
from typing import Any

import redis


def told(state: "redis.Redis", prefix: str) -> list[str]:
    """The ids of all events in the stream, in its order, with nobody's reader in between.

    Args:
        state: redis-state.
        prefix: of the lesson's keys.
    """
    return [json.loads(fields["attributes"])["id"] for _, fields in _entries(state, prefix) if "attributes" in fields]


def lose_end(state: "redis.Redis", prefix: str, events: int) -> None:
    """Have the stream end earlier: so a replica has it that was promoted before the newest entries came.

    Args:
        events: how many are lost, those that were added last.
    """
    kept = _entries(state, prefix)[:-events]
    with state.pipeline(transaction=True) as lost:
        lost.unlink(f"{prefix}events")
        for id_, fields in kept:
            lost.xadd(f"{prefix}events", fields, id=id_)
        lost.execute()


def _entries(state: "redis.Redis", prefix: str) -> list[tuple[str, dict[Any, Any]]]:
    entries: Any = state.xrange(f"{prefix}events")
    return list(entries)
