"""A message as bytes: AMQP 0-9-1 frames, and CloudEvents in AMQP's binary mode.

pika encodes a message in about 60 µs, most of it for the table of headers. Of ours nearly all is the same each
time, so what comes before a value is encoded once.

Sources: AMQP 0-9-1 §4.2 (frames, tables), CloudEvents AMQP Protocol Binding 1.0 §3.1 (binary mode).
"""

import struct
from functools import lru_cache
from typing import Any

from pika import BasicProperties, data, frame, spec
from pika.exceptions import UnsupportedAMQPFieldException

from showcase.messaging.domain import ATTRIBUTE, MAX_ATTRIBUTES_BYTES, Message, Route

ATTRIBUTES = (ATTRIBUTE, "cloudEvents_")
"""What the headers of attributes begin with. The second is for JMS, which knows no colon; we only read it."""
OWN_PROPERTIES = {"datacontenttype": "content_type", "contentencoding": "content_encoding"}
"""Attributes for which AMQP has a property of its own, rather than a header."""

_CONTENT_TYPE, _CONTENT_ENCODING, _HEADERS, _DELIVERY_MODE, _CORRELATION_ID, _MESSAGE_ID = (
    BasicProperties.FLAG_CONTENT_TYPE,
    BasicProperties.FLAG_CONTENT_ENCODING,
    BasicProperties.FLAG_HEADERS,
    BasicProperties.FLAG_DELIVERY_MODE,
    BasicProperties.FLAG_CORRELATION_ID,
    BasicProperties.FLAG_MESSAGE_ID,
)
_FRAME = struct.Struct(">BHI")
_HEADER = struct.Struct(">BHIHHQH")
_LENGTH = struct.Struct(">I")
_END = bytes([spec.FRAME_END])
_PERSISTENT = b"\x02"
_MANDATORY = b"\x01"
_SHORT = 255
_HEADER_FIXED = 14
"""Bytes of a content header before its properties: class, weight, size of the body, flags."""
FRAMING = 8
"""Bytes around what is in a frame."""
UNREADABLE = "x-unreadable"


class TooLarge(Exception):
    """AMQP has no room for it."""


def frames(message: Message, channel: int, tag: int, frame_max: int) -> bytes:
    """All frames of publishing a message: persistent and `mandatory`.

    Args:
        tag: put into the property `correlation-id`, so that a message which comes back tells which one it was: the
            same event may be on its way twice.
        frame_max: the largest frame that the broker takes, in bytes.

    Raises TooLarge.
    """
    body = message.body
    flags, properties = _properties(message, tag)
    if _HEADER_FIXED + len(properties) + FRAMING > frame_max:
        raise TooLarge
    size = len(body)
    header = _HEADER.pack(spec.FRAME_HEADER, channel, _HEADER_FIXED + len(properties), 60, 0, size, flags)
    parts = [_publish(channel, message.route), header, properties, _END]
    room = frame_max - FRAMING
    for start in range(0, size, room):
        part = body[start : start + room]
        parts += (_FRAME.pack(spec.FRAME_BODY, channel, len(part)), part, _END)
    return b"".join(parts)


def read(properties: BasicProperties) -> tuple[dict[str, object], dict[str, object]]:
    """The attributes and the other headers of a message that has come, whoever sent it."""
    attributes: dict[str, object] = {}
    headers: dict[str, object] = {}
    for name, value in (properties.headers or {}).items():
        if not isinstance(name, str):  # pika leaves bytes as they are if they are no UTF-8
            headers[repr(name)[:80]] = value
        elif name.startswith(ATTRIBUTES):
            attributes[name[len(ATTRIBUTE) :]] = value
        else:
            headers[name] = value
    for name, of_amqp in OWN_PROPERTIES.items():
        if (value := getattr(properties, of_amqp)) is not None:
            attributes[name] = value
    return attributes, headers


def decode(received: bytes) -> tuple[int, Any]:
    """pika's `decode_frame`, but no stranger's headers end the connection, again and again, because pika cannot read
    them (a time beyond the year 9999, a table in a table in a table …): they come as bytes in one header.
    """
    try:
        found: tuple[int, Any] = frame.decode_frame(received)
        return found
    except (ValueError, OverflowError, OSError, RecursionError):
        kind, channel, size = _FRAME.unpack_from(received)
        if kind != spec.FRAME_HEADER:
            raise
        header = received[_FRAME.size : _FRAME.size + size]
        (body_size,) = struct.unpack_from(">4xQ", header)
        return size + FRAMING, frame.Header(channel, body_size, BasicProperties(headers={UNREADABLE: header}))


def _properties(message: Message, tag: int) -> tuple[int, bytes]:
    """Which properties a message has, and those in the order of AMQP."""
    attributes = message.attributes
    flags = _HEADERS | _DELIVERY_MODE | _CORRELATION_ID
    table: list[bytes] = []
    for name, value in attributes.items():
        if name not in OWN_PROPERTIES:
            _put(table, ATTRIBUTE + name, value)
    for name, said in message.headers.items():
        _put(table, name, said)
    encoded = b"".join(table)
    if len(encoded) > MAX_ATTRIBUTES_BYTES:
        raise TooLarge
    parts = []
    if kind := attributes.get("datacontenttype"):
        flags |= _CONTENT_TYPE
        parts.append(_short(kind))
    if encoding := attributes.get("contentencoding"):
        flags |= _CONTENT_ENCODING
        parts.append(_short(encoding))
    parts += (_LENGTH.pack(len(encoded)), encoded, _PERSISTENT, _short(str(tag)))
    if isinstance(id_ := attributes.get("id"), str) and 0 < len(id_) < _SHORT / 4:  # it is in a header as well
        flags |= _MESSAGE_ID
        parts.append(_short(id_))
    return flags, b"".join(parts)


def _put(table: list[bytes], name: str, value: object) -> None:
    """Add an entry to a table. What AMQP has no type for goes as text: no message is lost for a header."""
    if not isinstance(value, str):
        try:
            pieces = [_name(name)[:-1]]
            data.encode_value(pieces, value)
        except (UnsupportedAMQPFieldException, struct.error, ValueError):
            value = str(value)
        else:
            table += pieces
            return
    encoded = value.encode("utf-8", "replace")
    table += (_name(name), len(encoded).to_bytes(4, "big"), encoded)


@lru_cache(1_000)
def _name(name: str) -> bytes:
    """What comes before a text of this name: the name, and that it is a text."""
    return _short(name) + b"S"


@lru_cache(1_000)
def _publish(channel: int, route: Route) -> bytes:
    """The frame of the method Basic.Publish."""
    arguments = (
        _LENGTH.pack(spec.Basic.Publish.INDEX) + b"\0\0" + _short(route.exchange) + _short(route.key) + _MANDATORY
    )
    return _FRAME.pack(spec.FRAME_METHOD, channel, len(arguments)) + arguments + _END


def _short(text: object) -> bytes:
    encoded = str(text).encode("utf-8", "replace")
    if len(encoded) > _SHORT:
        raise TooLarge
    return bytes((len(encoded),)) + encoded
