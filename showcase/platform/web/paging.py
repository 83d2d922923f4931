"""Keyset paging: a page begins after a key, not at an offset, so rows that come or go shift nothing.

The cursor is opaque to callers: base64url of a JSON list of the last row's key.
"""

import base64
import binascii
import json
from typing import Annotated, Generic, TypeVar
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from showcase.kernel.errors import Invalid

T = TypeVar("T")
MAX_CURSOR = 500

Limit = Annotated[int, Query(ge=1, le=200, description="how many there are on a page, at the most")]
Cursor = Annotated[str | None, Query(max_length=MAX_CURSOR, description="`next` of the page before")]


class BadCursor(Invalid):
    """The cursor is none that a page ended with."""


class Page(BaseModel, Generic[T]):
    """Some of many, and where to go on."""

    items: list[T]
    next: str | None = Field(default=None, description="the cursor of the next page; null on the last")


def cursor_of(*key: str | int) -> str:
    """The cursor for what comes after a row with this key."""
    return base64.urlsafe_b64encode(json.dumps(key).encode()).decode().rstrip("=")


def key_of(cursor: str, *kinds: type) -> list[str | int]:
    """The key in a cursor.

    Args:
        kinds: the types of its parts.

    Raises BadCursor.
    """
    try:
        key = json.loads(base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError) as error:
        raise BadCursor("begin with the first page again") from error
    if not isinstance(key, list) or [type(part) for part in key] != list(kinds):
        raise BadCursor("begin with the first page again")
    return key


def uuid_of(cursor: str) -> UUID:
    """The key in a cursor, where that is one UUID. Raises BadCursor."""
    try:
        return UUID(str(key_of(cursor, str)[0]))
    except ValueError as error:
        raise BadCursor("begin with the first page again") from error
