"""Identifiers that sort by the time they were made."""

import secrets
import time
from typing import NewType
from uuid import UUID

EventId = NewType("EventId", str)


def new_uuid() -> UUID:
    """A version 7 UUID (RFC 9562 §5.7): 48 bits of Unix milliseconds, then 74 random bits.

    Neighbours in time are neighbours in an index, which keeps inserts cheap.
    """
    random = secrets.randbits(74)
    value = (time.time_ns() // 1_000_000) << 80 | 0x7 << 76 | (random >> 62) << 64 | 0b10 << 62 | random & (1 << 62) - 1
    return UUID(int=value)
