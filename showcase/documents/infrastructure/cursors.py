"""Cursors of keyset paging: where a page ended, signed, and good for the same question only.

https://use-the-index-luke.com/no-offset. A page goes on after a key, so it costs the same wherever it begins, and what
comes or goes before it shifts nothing.
"""

import base64
import binascii
import hashlib
import hmac
import math
from collections.abc import Mapping, Sequence
from typing import Any

import bson

from showcase.documents.domain.documents import BadCursor
from showcase.documents.domain.filters import Fields
from showcase.documents.infrastructure.codec import LENIENT, OPTIONS

MAC_BYTES = 16
_WRONG = "this is no cursor of this question: begin with the first page"


class Cursors:
    """Makes cursors, and reads those that it, or another process with the same secrets, has made.

    Args:
        secrets: the first signs; without one there is no paging.
    """

    def __init__(self, secrets: Sequence[bytes]) -> None:
        self._secrets = tuple(secrets)

    def sealed(self, key: Sequence[Any], question: Mapping[str, Any]) -> str:
        """The cursor for what comes after a key. Raises ValueError without a secret."""
        if not self._secrets:
            raise ValueError("pages need a secret to sign their cursors with")
        payload = bson.encode({"k": list(key)}, codec_options=OPTIONS)
        return base64.urlsafe_b64encode(_mac(self._secrets[0], payload, question) + payload).decode().rstrip("=")

    def opened(self, cursor: str, question: Mapping[str, Any]) -> list[Any]:
        """The key in a cursor. Raises BadCursor for one that is forged, damaged, or of another question."""
        try:
            given = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError) as error:
            raise BadCursor(_WRONG) from error
        mac, payload = given[:MAC_BYTES], given[MAC_BYTES:]
        if not any(hmac.compare_digest(mac, _mac(secret, payload, question)) for secret in self._secrets):
            raise BadCursor(_WRONG)
        key: list[Any] = bson.decode(payload, LENIENT)["k"]  # ours: the signature says so
        return key


def _mac(secret: bytes, payload: bytes, question: Mapping[str, Any]) -> bytes:
    asked = hashlib.sha256(bson.encode(question, codec_options=OPTIONS)).digest()
    return hmac.digest(secret, b"showcase documents cursor" + asked + payload, "sha256")[:MAC_BYTES]


def keys_of(sort: Sequence[str], fields: Fields) -> list[tuple[str, int]]:
    """Names and directions; the id comes last, in the direction of what is before it. Raises BadQuery.

    What comes after the id, or a second time, decides nothing; and MongoDB would take the later direction.
    """
    keys: dict[str, int] = {}
    for one in sort:
        name, direction = fields.sortable(one.removeprefix("-")), -1 if one.startswith("-") else 1
        if "_id" not in keys:
            keys.setdefault("_id" if name == "id" else name, direction)
    return [*keys.items()] if not keys or "_id" in keys else [*keys.items(), ("_id", [*keys.values()][-1])]


def beyond(keys: Sequence[tuple[str, int]], values: Sequence[Any]) -> dict[str, Any]:
    """The filter for what comes after these values, in the order of these keys.

    MongoDB sorts values of all types, but compares those of one type only: without the others, one document that
    somebody has written otherwise would hide all that come after it. Lists, each sorted by one of its elements, are
    left out: they have no one place.
    """
    branches: list[dict[str, Any]] = []
    for place, ((name, direction), value) in enumerate(zip(keys, values, strict=False)):  # no values: from the start
        same = {key: {"$eq": given} for (key, _), given in zip(keys[:place], values[:place], strict=True)}
        nothing = [] if name == "_id" else [None]  # to ask for an id that is not there costs the order of the index
        branches += [same | {name: one} for one in _further(value, direction, nothing)]
    after = {"$or": branches} if branches else NOTHING
    return {"$and": [after if values else {}, *({name: {"$not": {"$type": "array"}}} for name, _ in keys)]}


def entered(keys: Sequence[tuple[str, int]], values: Sequence[Any]) -> dict[str, Any]:
    """What `beyond` says as well, in fewer words: from so many branches MongoDB does not see where to enter an index.

    Without it, a page far back is found by walking there from the first one.
    """
    if not values or values[0] is None:  # as null is the least, that is where MongoDB enters anyway
        return {}
    name, direction = keys[0]
    return {name: {"$not": {"$lt" if direction > 0 else "$gt": values[0]}}}


_BRACKETS = ((1, 16, 18, 19), (2, 14), (3,), (5,), (7,), (8,), (9,), (17,), (11,), (13,), (127,))
"""BSON's types, by their numbers, as MongoDB sorts them; null and what is not there come first, lists are left out."""
_NO_NUMBER = float("nan")


def _further(value: Any, direction: int, nothing: list[None]) -> list[dict[str, Any]]:
    """What comes after a value: conditions, of which one holds."""
    if value is None:
        return [{"$ne": None}] if direction > 0 else []
    type_ = bson.encode({"": value}, codec_options=OPTIONS)[4]
    place = next((place for place, types in enumerate(_BRACKETS) if type_ in types), len(_BRACKETS))
    others = sum(_BRACKETS[place + 1 :] if direction > 0 else _BRACKETS[:place], ())
    of_type = [{"$type": list(others)}] if others else []
    if direction > 0:
        # No number is the least of numbers, and neither more nor less than any other when it is compared.
        return [{"$gt": value} if value == value else {"$gte": -math.inf}, *of_type]
    least = [*nothing, _NO_NUMBER] if place == 0 and value == value else nothing
    return [{"$lt": value}, *of_type, *([{"$in": least}] if least else [])]


NOTHING: dict[str, Any] = {"_id": {"$in": []}}
"""The filter that no document passes."""
