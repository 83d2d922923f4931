"""Keys of subjects in PostgreSQL, and what they seal.

AES-256-GCM (NIST SP 800-38D) with a synthetic nonce: a MAC over the value and its place, the idea of SIV (RFC 5297).
"""

import base64
import hmac
import json
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

import bson
from bson.errors import BSONError
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, TEXT

from showcase.audit.application.protecting import Erased
from showcase.audit.domain.personal import Place, adopted
from showcase.audit.infrastructure.content import OPTIONS
from showcase.kernel import acting
from showcase.kernel.ids import new_uuid
from showcase.platform.database import Database

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16


class SubjectLock:
    """See `application.protecting.Lock`.

    The hash of a record has to come out the same whenever and wherever its change is told again, so the nonce is no
    random one (§8.2.2) but HMAC-SHA256 over place and value, cut to 96 bits. It comes again for another value by an
    accident of the MAC only: with a chance below 2^-32, as §8 demands, for the 2^32 values that §8.3 allows a key. Two
    keys are made of the subject's one, so that none serves two purposes.

    Who has no key learns how long a value is, and whether two values of one column of one subject are equal, no more:
    without the key no guess can be tried.
    """

    def __init__(self, key: bytes) -> None:
        self._mac_key = hmac.digest(key, b"showcase audit personal 1: nonce", "sha256")
        self._aead = AESGCM(hmac.digest(key, b"showcase audit personal 1: seal", "sha256"))

    def seal(self, place: Place, plain: bytes) -> str:
        """Base64 of nonce, ciphertext and tag."""
        where = json.dumps(place).encode()
        nonce = hmac.digest(self._mac_key, len(where).to_bytes(4) + where + plain, "sha256")[:NONCE_BYTES]
        return base64.b64encode(nonce + self._aead.encrypt(nonce, plain, where)).decode()

    def open(self, place: Place, text: str) -> bytes | None:
        try:
            packed = base64.b64decode(text, validate=True)
            if len(packed) < NONCE_BYTES + TAG_BYTES:
                return None
            return self._aead.decrypt(packed[:NONCE_BYTES], packed[NONCE_BYTES:], json.dumps(place).encode())
        except (ValueError, InvalidTag):
            return None


def alike(stored: bytes, told: bytes) -> bool:
    """Whether two contents of one record differ only in that a value is sealed in one and erased in the other."""
    try:
        ours, theirs = bson.decode(told, OPTIONS), bson.decode(stored, OPTIONS)
        rows = {name: adopted(ours[name], theirs[name]) for name in ("before", "after")}
        # Of bytes, not of what they decode to: a name that comes twice hides what is under the first of them.
        return bson.encode({**ours, **rows}) == stored
    except (BSONError, KeyError, AttributeError, TypeError, ValueError, RecursionError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """One that has, or had, a key."""

    subject: str
    created_at: datetime
    erased_at: datetime | None


class SqlSubjectKeys:
    """See `application.protecting.SubjectKeys`. Keys are in no publication: no connector tells of them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def made(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        found = dict(await self.found(subjects))
        if missing := sorted(set(subjects) - found.keys()):
            async with self._database.transaction() as db:
                keys = [secrets.token_bytes(KEY_BYTES) for _ in missing]
                # Waits for whoever makes the same key at this moment; the next statement sees his.
                await db.execute(_MAKE, {"subjects": missing, "keys": keys})
                found |= {row.subject: row.key for row in await db.execute(_FIND, {"subjects": missing})}
        return found

    async def found(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
        async with self._database.transaction() as db:
            return {row.subject: row.key for row in await db.execute(_FIND, {"subjects": list(subjects)})}

    async def erase(self, subjects: Sequence[str], reason: str) -> list[Erased]:
        """Destroy the keys of some subjects, all or none, and write down that it was done; those that were erased
        before stay as they are. One that never had a key gets none from now on.

        Raises Unavailable.
        """
        who = acting.current()
        ordered = sorted(set(subjects))
        async with self._database.transaction() as db:
            new = {row.subject for row in await db.execute(_ERASE, {"subjects": ordered})}
            for subject in (one for one in ordered if one in new):
                row = {"id": new_uuid(), "subject": subject, "actor": who.actor if who else "", "reason": reason}
                await db.execute(_TELL, row)
            found = await db.execute(_ERASED, {"subjects": ordered})
            return [Erased(subject=row.subject, at=row.erased_at, is_new=row.subject in new) for row in found]

    async def count(self) -> tuple[int, int]:
        """How many subjects have a key, and how many were erased. Raises Unavailable."""
        async with self._database.transaction() as db:
            row = (await db.execute(_COUNT)).one()
            return row.live, row.erased

    async def all(self, after: str, limit: int) -> list[Subject]:
        """By their names, those after one. Raises Unavailable."""
        async with self._database.transaction() as db:
            found = await db.execute(_ALL, {"after": after, "limit": limit})
            return [Subject(**row) for row in found.mappings()]


_SUBJECTS = bindparam("subjects", type_=ARRAY(TEXT))
_FIND = text("SELECT subject, key FROM audit.subject_keys WHERE subject = ANY (:subjects)").bindparams(_SUBJECTS)
# In one order, or two that make several keys at once would wait for each other.
_MAKE = text("""
    INSERT INTO audit.subject_keys (subject, key)
    SELECT subject, key FROM unnest(CAST(:subjects AS text[]), CAST(:keys AS bytea[])) AS new (subject, key)
    ORDER BY subject
    ON CONFLICT (subject) DO NOTHING
""").bindparams(_SUBJECTS, bindparam("keys", type_=ARRAY(BYTEA)))
_ERASE = text("""
    INSERT INTO audit.subject_keys AS known (subject, key, erased_at)
    SELECT subject, NULL, now() FROM unnest(CAST(:subjects AS text[])) AS new (subject)
    ORDER BY subject
    ON CONFLICT (subject) DO UPDATE SET key = NULL, erased_at = now() WHERE known.key IS NOT NULL
    RETURNING subject
""").bindparams(_SUBJECTS)
_TELL = text("""
    INSERT INTO audit.erasures (erasure_id, subject, actor, reason) VALUES (:id, :subject, :actor, :reason)
""")
_ERASED = text(
    "SELECT subject, erased_at FROM audit.subject_keys WHERE subject = ANY (:subjects) ORDER BY subject"
).bindparams(_SUBJECTS)
_COUNT = text("SELECT count(key) AS live, count(erased_at) AS erased FROM audit.subject_keys")
_ALL = text("""
    SELECT subject, created_at, erased_at FROM audit.subject_keys
    WHERE subject > :after ORDER BY subject LIMIT :limit
""")
