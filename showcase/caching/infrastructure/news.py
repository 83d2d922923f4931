"""What processes tell one another: MessagePack arrays of a kind, the process that tells, and what has changed."""

from typing import Annotated

import msgspec

Version = Annotated[int, msgspec.Meta(ge=0)]


class Removed(msgspec.Struct, array_like=True, frozen=True, tag="removed"):
    """What is older than the version is no longer valid; `is_gone`: nor what is of that version."""

    origin: str
    name: str
    version: Version
    is_gone: bool


class Expired(msgspec.Struct, array_like=True, frozen=True, tag="expired"):
    """It is stale now."""

    origin: str
    name: str


class Cut(msgspec.Struct, array_like=True, frozen=True, tag="cut"):
    """What has the tag, and was loaded before that time of the store's clock (µs), is no longer valid.

    The script writes this one itself: only it knows the time.
    """

    origin: str
    tag: str
    at_us: int


News = Removed | Expired | Cut

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.Decoder[News](News).decode
"""Raises msgspec.MsgspecError (UnicodeDecodeError for text that is no text)."""
