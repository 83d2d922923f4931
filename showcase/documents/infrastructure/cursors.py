"""Cursors of keyset paging: where a page ended, signed, and good for the same question only.

https://use-the-index-luke.com/no-offset. A page goes on after a key, so it costs the same wherever it begins, and what
comes or goes before it shifts nothing.
"""

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import bson

from showcase.documents.domain.documents import BadCursor
from showcase.documents.infrastructure.codec import OPTIONS

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
        key: list[Any] = bson.decode(payload, OPTIONS)["k"]  # ours: the signature says so
        return key


def _mac(secret: bytes, payload: bytes, question: Mapping[str, Any]) -> bytes:
    asked = hashlib.sha256(bson.encode(question, codec_options=OPTIONS)).digest()
    return hmac.digest(secret, b"showcase documents cursor" + asked + payload, "sha256")[:MAC_BYTES]


def beyond(keys: Sequence[tuple[str, int]], values: Sequence[Any]) -> dict[str, Any]:
    """The filter for what comes after these values, in the order of these keys.

    MongoDB sorts null, and what is not there, below everything, but compares them with nothing: so they are told apart.
    """
    branches: list[dict[str, Any]] = []
    for place, ((name, direction), value) in enumerate(zip(keys, values, strict=True)):
        same = {key: {"$eq": given} for (key, _), given in zip(keys[:place], values[:place], strict=True)}
        if value is None:
            rest = [{name: {"$ne": None}}] if direction > 0 else []
        elif direction > 0:
            rest = [{name: {"$gt": value}}]
        else:
            rest = [{name: {"$lt": value}}, {name: {"$eq": None}}]
        branches += [same | one for one in rest]
    return {"$or": branches} if branches else NOTHING


NOTHING: dict[str, Any] = {"_id": {"$in": []}}
"""The filter that no document passes."""
