"""Models to BSON and back.

Documents are encoded once, here, so that what cannot be stored is known before anything is sent; and decoded a few at a
time, straight into models, so that one that does not fit spoils no other.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Context, Decimal, DecimalException
from enum import Enum
from struct import unpack
from typing import Any, Generic, TypeVar

import bson
from bson.binary import UuidRepresentation
from bson.codec_options import CodecOptions, DatetimeConversion, TypeCodec, TypeRegistry
from bson.decimal128 import Decimal128
from bson.errors import BSONError
from bson.raw_bson import RawBSONDocument
from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python

from showcase.documents.domain.documents import MAX_BYTES, DocumentTooLarge, Misfit, Unstorable

M = TypeVar("M", bound=BaseModel)

AT_ONCE = 20
"""So many documents are decoded together: few enough that all of it stays in the processor's caches."""
_DECIMAL = Context(prec=34, Emin=-6143, Emax=6144)
_SPECIAL = 0x6000_0000_0000_0000


class _Decimals(TypeCodec):
    """Decimal as Decimal128 (IEEE 754-2008, 34 digits)."""

    python_type = Decimal
    bson_type = Decimal128

    def transform_python(self, value: Any) -> Decimal128:
        return Decimal128(value)

    def transform_bson(self, value: Any) -> Decimal:
        # Decimal128.to_decimal takes ten times as long: it puts the number together digit by digit.
        low, high = unpack("<QQ", value.bid)
        if high & _SPECIAL == _SPECIAL:  # infinite, or no number
            return Decimal(value.to_decimal())
        digits = Decimal((high & 0x1_FFFF_FFFF_FFFF) << 64 | low)
        number = digits.scaleb((high >> 49 & 0x3FFF) - 6176, _DECIMAL)
        return number.copy_negate() if high >> 63 else number


def _plain(value: object) -> object:
    """What BSON has no type for, as JSON has it. Raises TypeError, OverflowError."""
    if isinstance(value, Enum | date | time | timedelta | set | frozenset):
        return to_jsonable_python(value)
    if isinstance(value, int):
        raise OverflowError("an integer has 64 bits")
    raise TypeError(f"BSON has no {type(value).__name__}")


_TYPES = TypeRegistry([_Decimals()], fallback_encoder=_plain)
OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True, uuid_representation=UuidRepresentation.STANDARD, type_registry=_TYPES
)
RAW: CodecOptions[RawBSONDocument] = OPTIONS.with_options(document_class=RawBSONDocument)
"""Documents are left as they came: `Codec.decode` reads them."""
LENIENT = OPTIONS.with_options(
    unicode_decode_error_handler="replace", datetime_conversion=DatetimeConversion.DATETIME_AUTO
)


def encoded(value: Mapping[str, Any], what: str) -> RawBSONDocument:
    """A mapping as BSON. Raises Unstorable, DocumentTooLarge."""
    try:
        raw = RawBSONDocument(bson.encode(value, codec_options=OPTIONS))
    except (BSONError, OverflowError, ValueError, TypeError, RecursionError, DecimalException) as error:
        raise Unstorable(f"{what} cannot be stored: {str(error) or type(error).__name__}") from error
    if len(raw.raw) > MAX_BYTES:
        raise DocumentTooLarge(f"{what} has {len(raw.raw):,} bytes, and MongoDB takes {MAX_BYTES:,}")
    return raw


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
            model: M = self._one(bson.decode(raw, OPTIONS))
        except (ValidationError, BSONError, ValueError, OverflowError) as error:
            raise Misfit(self._collection, _id_of(raw), _why(error)) from error
        return model

    def decode_many(self, raws: Sequence[bytes]) -> Iterator[M | Misfit]:
        """Each as a model, or why it is none."""
        for start in range(0, len(raws), AT_ONCE):
            some = raws[start : start + AT_ONCE]
            try:
                yield from self._many(bson.decode_all(b"".join(some), OPTIONS))
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
