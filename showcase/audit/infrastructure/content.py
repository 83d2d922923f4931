"""The bytes of a record: BSON, which is what MongoDB keeps, so that what is hashed is what is stored.

Dictionaries keep their order on the way through MongoDB, and so the bytes of an embedded document come back as they
were written: whoever verifies hashes what is there, and takes nothing apart.
"""

from collections.abc import Mapping
from typing import Any

import bson
from bson.codec_options import CodecOptions
from bson.errors import BSONError

from showcase.audit.domain.records import Record
from showcase.kernel.changes import Operation

MAX_BYTES = 15_000_000
"""With what is around it it is a document that MongoDB takes."""
OPTIONS: Any = CodecOptions(tz_aware=True)


def content_of(record: Record) -> bytes:
    """The bytes of a record, all but its id, which is made of them.

    Raises ValueError for what BSON has no way to write, such as a whole number of more than 64 bits.
    """
    try:
        content = bson.encode(
            {
                "source": record.source,
                "epoch": record.epoch,
                "entity_type": record.entity_type,
                "entity_id": record.entity_id,
                "operation": record.operation.value,
                "key": record.key,
                "before": record.before,
                "after": record.after,
                "committed_at": record.committed_at,
                "position": record.position,
                "transaction": record.transaction,
            }
        )
    except (BSONError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"it cannot be kept: {str(error).encode(errors='backslashreplace').decode():.500}") from error
    if len(content) > MAX_BYTES:
        raise ValueError(f"it cannot be kept: as BSON it has {len(content):,} bytes, more than {MAX_BYTES:,}")
    return content


def record_of(id_: str, content: bytes | Mapping[str, Any]) -> Record:
    """The record that some bytes, or what they decode to, are of."""
    fields = bson.decode(content, OPTIONS) if isinstance(content, bytes) else content
    return Record(**{**fields, "operation": Operation(fields["operation"])}, id=id_)
