"""How an answer is written in the store: a head that scripts can read, and its value as MessagePack.

Reading runs no code, and what cannot be read is as good as nothing there.

    0   1   2            10               18      22                                    …
    | F | B | version: 8 | fresh_until: 8 | crc: 4 | loaded_at, stale_until: 8+8, load_s: 4, tags | value |

F is the format, B the bits below. All numbers are big-endian. The checksum is of the key as well, and of all but
`fresh_until`, which `expire` overwrites in place.
"""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar

import msgspec

from showcase.caching.domain import NEWEST_VERSION, Kind, Uncacheable

T = TypeVar("T")

FORMAT: Final = 0xC1
"""The one byte that MessagePack never uses, and UTF-8 neither."""
COMPRESSED: Final = 1
ABSENT: Final = 2
"""There is nothing: the source was asked."""
FLOOR: Final = 4
"""No answer: what is older than the version may not be stored."""
GONE: Final = 8
"""Of a floor: nor may what is of that version."""

_HEAD = struct.Struct(">BBqd")
_CRC = struct.Struct(">I")
_BODY = struct.Struct(">ddfH")
_FIXED = _HEAD.size + _CRC.size + _BODY.size
_UNCOMPRESSED_UP_TO = 2_048
"""Bytes. A smaller one saves less of the way than it costs to unpack."""
_LARGEST = 64 * 1024 * 1024
"""Bytes, unpacked: no small entry may fill the memory."""

encode = msgspec.msgpack.encode


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """An answer, as it was read.

    Attributes:
        value: None for one that is absent, and for a floor.
        fresh_until, stale_until: Unix time, seconds.
        loaded_at: by the store's clock, before its load began.
        load_s: how long that took.
        payload: the value's bytes.
    """

    value: T | None
    version: int
    bits: int
    fresh_until: float
    stale_until: float
    loaded_at: float
    load_s: float
    tags: tuple[str, ...]
    payload: bytes

    @property
    def is_floor(self) -> bool:
        """Whether this is no answer."""
        return bool(self.bits & FLOOR)


class Codec:
    """Writes and reads entries; keeps a decoder for each kind."""

    def __init__(self) -> None:
        self._decoders: dict[type[Any], msgspec.msgpack.Decoder[Any]] = {}

    def payload(self, kind: Kind[T], value: T) -> bytes:
        """A value as bytes. Raises Uncacheable for what cannot be written, or would not be read again."""
        try:
            payload = encode(value)
            self.value(kind, payload)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise Uncacheable(f"no {kind.name}: {error}") from error
        return payload

    def value(self, kind: Kind[T], payload: bytes) -> T:
        """A value from its bytes. Raises msgspec.MsgspecError (ValueError for text that is no text)."""
        decoder = self._decoders.get(kind.type_)
        if decoder is None:
            decoder = self._decoders[kind.type_] = msgspec.msgpack.Decoder(kind.type_)
        value: T = decoder.decode(payload)
        return value

    def write(self, name: str, entry: Entry[Any]) -> bytes:
        """An entry as bytes. Raises Uncacheable for a version that cannot be compared, or too many tags."""
        if not 0 <= entry.version <= NEWEST_VERSION:
            raise Uncacheable(f"{name}: a version is between 0 and {NEWEST_VERSION}")
        if not all(tag and tag.isprintable() for tag in entry.tags):
            raise Uncacheable(f"{name}: tags are not empty, and have no control characters")
        tags = "\n".join(entry.tags).encode()
        if len(tags) > 0xFFFF:
            raise Uncacheable(f"{name}: tags have up to 65,535 bytes together")
        bits, payload = entry.bits, entry.payload
        if len(payload) > _UNCOMPRESSED_UP_TO:
            smaller = zlib.compress(payload, 1)
            if len(smaller) < 0.9 * len(payload):
                bits, payload = bits | COMPRESSED, smaller
        head = _HEAD.pack(FORMAT, bits, entry.version, entry.fresh_until)
        body = _BODY.pack(entry.loaded_at, entry.stale_until, entry.load_s, len(tags)) + tags + payload
        return head + _CRC.pack(_checksum(name, head, body)) + body

    def read(self, kind: Kind[T], name: str, data: bytes) -> Entry[T] | None:
        """An entry from bytes; None for bytes that are not one of this key's."""
        if len(data) < _FIXED or data[0] != FORMAT:
            return None
        head, body = data[: _HEAD.size], data[_HEAD.size + _CRC.size :]
        # The store itself writes a floor's version, and cannot write its checksum: at worst it is one more miss.
        if not data[1] & FLOOR and _checksum(name, head, body) != _CRC.unpack_from(data, _HEAD.size)[0]:
            return None
        _, bits, version, fresh_until = _HEAD.unpack(head)
        loaded_at, stale_until, load_s, length = _BODY.unpack_from(body)
        try:
            tags = tuple(str(body[_BODY.size : _BODY.size + length], "utf-8").split("\n")) if length else ()
            payload = body[_BODY.size + length :]
            if bits & COMPRESSED:
                payload = _unpacked(payload)
            value = None if bits & (ABSENT | FLOOR) else self.value(kind, payload)
        except (ValueError, RecursionError, zlib.error):  # msgspec's errors are ValueErrors
            return None
        return Entry(value, version, bits & ~COMPRESSED, fresh_until, stale_until, loaded_at, load_s, tags, payload)


def floor(version: int, *, is_gone: bool) -> Entry[Any]:
    """What is left in place of an answer that is no longer valid.

    Args:
        version: what is older may not be stored; 0 where there are no versions.
        is_gone: nor what is of that version: it was deleted.
    """
    return Entry(None, version, FLOOR | (GONE if is_gone else 0), 0, 0, 0, 0, (), b"")


def beats(new: tuple[int, int], old: tuple[int, int]) -> bool:
    """Whether an entry may be stored over another: it is not older. Each is its bits and its version.

    Of one version, a deletion stays, unless the source has said since that there is nothing. The script of the store
    says the same in Lua.
    """
    (new_bits, new_version), (old_bits, old_version) = new, old
    if new_version != old_version or old_version == 0:
        return new_version >= old_version
    return not old_bits & (GONE | ABSENT) or bool(new_bits & (GONE | ABSENT))


def merged(new: tuple[int, int], old: tuple[int, int]) -> tuple[int, int] | None:
    """What stands after a floor was put where something is; None where that stays as it is.

    A floor without a version removes whatever is there, and remembers its version. The script of the store says the
    same in Lua.
    """
    (new_bits, new_version), (old_bits, old_version) = new, old
    if new_version == 0:
        return (old_bits if old_bits & FLOOR else new_bits), old_version
    if old_version > new_version or (old_version == new_version and not new_bits & GONE):
        return None
    return new


def head(data: bytes) -> tuple[int, int]:
    """The bits and the version of an entry; 0 and 0 for what is none."""
    if len(data) < _HEAD.size or data[0] != FORMAT:
        return 0, 0
    _, bits, version, _ = _HEAD.unpack_from(data)
    return (bits, version) if 0 <= version <= NEWEST_VERSION else (0, 0)


def expired(data: bytes) -> bytes:
    """The same entry, stale."""
    return data[:10] + struct.pack(">d", 0.0) + data[18:]


def _checksum(name: str, head: bytes, body: bytes) -> int:
    return zlib.crc32(body, zlib.crc32(head[:10], zlib.crc32(name.encode())))


def _unpacked(payload: bytes) -> bytes:
    unpacking = zlib.decompressobj()
    whole = unpacking.decompress(payload, _LARGEST)
    if not unpacking.eof or unpacking.unused_data:
        raise ValueError("cut off, or too large")
    return whole


def all_tags(tags: Sequence[str]) -> tuple[str, ...]:
    """With the tag that every entry has: `clear` cuts it."""
    return ("", *tags)
