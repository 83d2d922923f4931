"""Models to BSON and back.

Documents are encoded once, here, so that what cannot be stored is known before anything is sent; and decoded a few at a
time, straight into models, so that one that does not fit spoils no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from decimal import Context, Decimal, DecimalException
from enum import Enum
from struct import unpack
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

import bson
from bson.binary import UUID_SUBTYPE, Binary, UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion, TypeDecoder, TypeRegistry
from bson.dbref import DBRef
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from showcase.documents.domain.documents import MAX_BYTES, DocumentTooLarge, Misfit, Unstorable

M = TypeVar("M", bound=BaseModel)

MAX_LEVELS = 100
"""So many does MongoDB promise to take."""
AT_ONCE = 20
"""So many documents are decoded together: few enough that all of it stays in the processor's caches."""
_DECIMAL = Context(prec=34, Emin=-6143, Emax=6144)
_LARGEST = 10**34 - 1
_SPECIAL = 0x6000_0000_0000_0000


class _Decimals(TypeDecoder):
    """Decimal128 (IEEE 754-2008, 34 digits) as Decimal."""

    bson_type = Decimal128

    def transform_bson(self, value: Any) -> Decimal:
        # Decimal128.to_decimal takes ten times as long: it puts the number together digit by digit.
        low, high = unpack("<QQ", value.bid)
        digits = (high & 0x1_FFFF_FFFF_FFFF) << 64 | low
        if high & _SPECIAL == _SPECIAL or digits > _LARGEST:  # infinite, no number, or none of 34 digits
            return Decimal(value.to_decimal())
        number = Decimal(digits).scaleb((high >> 49 & 0x3FFF) - 6176, _DECIMAL)
        return number.copy_negate() if high >> 63 else number


class _References(TypeDecoder):
    """A mapping with the names `$ref` and `$id` as what it is: the driver makes a DBRef of it, which fits no model."""

    bson_type = DBRef

    def transform_bson(self, value: Any) -> dict[str, Any]:
        return dict(value.as_doc())


class _Times(TypeDecoder):
    """A time as one in UTC, which it is: the driver takes a step more."""

    bson_type = datetime

    def transform_bson(self, value: Any) -> datetime:
        return cast("datetime", value.replace(tzinfo=UTC))


class _Uuids(TypeDecoder):
    """A UUID at once: the driver asks each in which of four ways it was written."""

    bson_type = Binary

    def transform_bson(self, value: Any) -> UUID | Binary:
        return UUID(bytes=value) if value.subtype == UUID_SUBTYPE else value


def _plain(value: object) -> object:
    """What BSON has no type for, as JSON has it; a Decimal as Decimal128. Raises TypeError, OverflowError."""
    if isinstance(value, Decimal):
        return Decimal128(value)
    if isinstance(value, Enum | date | time | timedelta | set | frozenset):
        return to_jsonable_python(value)
    if isinstance(value, int):
        raise OverflowError("an integer has 64 bits")
    raise TypeError(f"BSON has no {type(value).__name__}")


_TYPES = TypeRegistry([_Decimals(), _References()], fallback_encoder=_plain)
OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, tzinfo=UTC, uuid_representation=UuidRepresentation.STANDARD, type_registry=_TYPES
)
RAW: CodecOptions[RawBSONDocument] = OPTIONS.with_options(
    document_class=RawBSONDocument, type_registry=TypeRegistry(fallback_encoder=_plain)
)
"""Documents are left as they came: `Codec.decode` reads them. Given a decoder of types here, the driver would go
through each answer step by step in Python, and find nothing to call it for."""
_READ = OPTIONS.with_options(
    tz_aware=False,
    tzinfo=None,
    uuid_representation=UuidRepresentation.UNSPECIFIED,
    type_registry=TypeRegistry([_Decimals(), _References(), _Times(), _Uuids()]),
)
"""The same for documents, of which there are many: a tenth faster."""
LENIENT = OPTIONS.with_options(
    unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


def encoded(value: Mapping[str, Any], *what: object) -> RawBSONDocument:
    """A mapping as BSON. Raises Unstorable, DocumentTooLarge.

    Args:
        what: this is, in words: put together where something is wrong with it, for an id takes its time to be written.
    """
    try:
        raw = bson.encode(value, codec_options=OPTIONS)
        # One that is too deep would fail a whole bulk. Each level has its byte, so most need no closer look.
        if raw.count(b"\x03") + raw.count(b"\x04") > MAX_LEVELS and _is_too_deep(value):
            raise ValueError(f"it is nested in more than {MAX_LEVELS} levels")
    except (BSONError, OverflowError, ValueError, TypeError, RecursionError, DecimalException) as error:
        raise Unstorable(f"{named(what)} cannot be stored: {str(error) or type(error).__name__}") from error
    if len(raw) > MAX_BYTES:
        raise DocumentTooLarge(f"{named(what)} has {len(raw):,} bytes, and MongoDB takes {MAX_BYTES:,}")
    return RawBSONDocument(raw)


def named(what: Sequence[object]) -> str:
    """Words in a row."""
    return " ".join(map(str, what))


def _is_too_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_LEVELS):
        parts = (part for one in level for part in (one.values() if isinstance(one, dict) else one))
        level = [part for part in parts if isinstance(part, _NESTED)]
        if not level:
            return False
    return True


_NESTED = (dict, list, tuple)


def split(batch: Any) -> Iterator[bytes]:
    """The documents of a batch of bytes; each begins with its length (https://bsonspec.org)."""
    at = 0
    while at < len(batch):
        end = at + int.from_bytes(batch[at : at + 4], "little")
        yield batch[at:end]
        at = end


class Codec(Generic[M]):
    """Of one collection, for one model."""

    def __init__(self, collection: str, model: type[M]) -> None:
        self._collection = collection
        self._one = TypeAdapter(model).validator.validate_python
        self._many = TypeAdapter(list[model]).validator.validate_python  # type: ignore[valid-type]  # a type, at run time

    def decode(self, raw: bytes | memoryview) -> M:
        """Raises Misfit."""
        try:
            model: M = self._one(bson.decode(raw, _READ))
        except (ValidationError, BSONError, ValueError, OverflowError) as error:
            raise Misfit(self._collection, _id_of(raw), _why(error)) from error
        return model

    def decode_many(self, raws: Sequence[bytes]) -> Iterator[M | Misfit]:
        """Each as a model, or why it is none."""
        for start in range(0, len(raws), AT_ONCE):
            some = raws[start : start + AT_ONCE]
            try:
                yield from self._many(bson.decode_all(b"".join(some), _READ))
            except (ValidationError, BSONError, ValueError, OverflowError):
                yield from (self._fit_or_misfit(raw) for raw in some)

    def _fit_or_misfit(self, raw: bytes) -> M | Misfit:
        try:
            return self.decode(raw)
        except Misfit as misfit:
            return misfit


def _id_of(raw: bytes | memoryview) -> object:
    """The id in a document that cannot be read as a whole."""
    try:
        return bson.decode(raw, LENIENT)["_id"]
    except (BSONError, KeyError, ValueError, OverflowError):
        return "of an unreadable id"


def _why(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return str(error)
