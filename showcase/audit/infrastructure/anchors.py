"""Anchors in PostgreSQL and in a file, and the key that signs them (Ed25519, RFC 8032)."""

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import text

from showcase.audit.domain.anchors import Anchor, Signed
from showcase.platform.database import Database

LOCK = 0x0A9C_4025
"""Any number: one lock of the database, held by whoever adds an anchor."""
PAGE = 1_000
TAIL_BYTES = 1 << 22
"""More than a line has."""

_LAST = text("SELECT anchor_id, statement, signature, key_id FROM audit.anchors ORDER BY anchor_id DESC LIMIT 1")
_ADD = text("INSERT INTO audit.anchors (statement, signature, key_id) VALUES (:statement, :signature, :key_id)")
_AFTER = text("""
    SELECT anchor_id, statement, signature, key_id FROM audit.anchors WHERE anchor_id > :after
    ORDER BY anchor_id LIMIT :page
""")
_NAMING = text("""
    SELECT anchor_id, statement, signature, key_id FROM audit.anchors
    WHERE statement IS JSON OBJECT AND EXISTS (
        SELECT FROM jsonb_to_recordset(statement::jsonb -> 'heads') AS head (topic text, partition bigint, next bigint)
        WHERE head.topic = :topic AND head.partition = :partition AND head.next >= :next
    )
    ORDER BY anchor_id LIMIT 1
""")


class Key:
    """Signs statements.

    Args:
        seed: 32 bytes.
    """

    def __init__(self, seed: bytes) -> None:
        self._private = Ed25519PrivateKey.from_private_bytes(seed)
        self.public = self._private.public_key().public_bytes_raw()

    def sign(self, statement: str) -> Signed:
        return Signed(statement=statement, signature=self._private.sign(statement.encode()), key_id=key_id(self.public))


def key_id(public: bytes) -> str:
    """By which a key is named: the beginning of its hash."""
    return hashlib.sha256(public).hexdigest()[:16]


class Keys:
    """Public keys: `check` tells whether a signature is by one of them. Raises ValueError for one that is none."""

    def __init__(self, *public: bytes) -> None:
        self._keys = {key_id(one): Ed25519PublicKey.from_public_bytes(one) for one in public}

    def check(self, signed: Signed) -> bool:
        if signed.key_id not in self._keys:
            return False
        try:
            self._keys[signed.key_id].verify(signed.signature, signed.statement.encode())
        except (InvalidSignature, UnicodeEncodeError):
            return False
        return True


class SqlAnchors:
    """See `application.anchoring.Anchors`. The table refuses every change of what is in it (migration 0007)."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        async with self._database.transaction() as connection:
            await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            yield

    async def last(self) -> Signed | None:
        async with self._database.transaction() as connection:
            row = (await connection.execute(_LAST)).one_or_none()
        return None if row is None else _signed(row)

    async def add(self, signed: Signed) -> None:
        async with self._database.transaction() as connection:
            row = {"statement": signed.statement, "signature": signed.signature, "key_id": signed.key_id}
            await connection.execute(_ADD, row)

    async def after(self, number: int = 0) -> AsyncIterator[Signed]:
        """A row's own number is never below its statement's: some are lost to inserts that were rolled back."""
        at = number
        while True:
            async with self._database.transaction() as connection:
                rows = (await connection.execute(_AFTER, {"after": at, "page": PAGE})).all()
            for row in rows:
                at = row.anchor_id
                signed = _signed(row)
                if (_number(signed) or number + 1) > number:
                    yield signed
            if len(rows) < PAGE:
                return

    async def naming(self, topic: str, partition: int, next_: int) -> Signed | None:
        """The first one that names a seal of a partition which ends at an offset, or later."""
        async with self._database.transaction() as connection:
            wanted = {"topic": topic, "partition": partition, "next": next_}
            row = (await connection.execute(_NAMING, wanted)).one_or_none()
        return None if row is None else _signed(row)


def _signed(row: Any) -> Signed:
    return Signed(statement=row.statement, signature=bytes(row.signature), key_id=row.key_id)


def _number(signed: Signed) -> int:
    """0 of a statement that is none."""
    try:
        return Anchor.of(signed.statement).number
    except ValueError:
        return 0


class AnchorFile:
    """Anchors in a file, one a line; see `application.anchoring.Copy`.

    A crash may leave its last line cut: it is told, and replaced when the next one is appended. Processes on one
    machine may share it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def end(self) -> int:
        return await asyncio.to_thread(self._end)

    async def append(self, some: Sequence[Signed]) -> None:
        await asyncio.to_thread(self._append, some)

    def _end(self) -> int:
        try:
            with self._path.open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().split(b"\n")[:-1]
        except FileNotFoundError:
            return 0
        signed = _line(lines[-1]) if lines else None
        return _number(signed) if signed else 0

    def _append(self, some: Sequence[Signed]) -> None:
        """Those that nobody else has appended meanwhile."""
        is_new = not self._path.exists()
        with self._path.open("ab+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.truncate(self._whole(file))
            end = self._end()
            file.write(b"".join(_text(signed) for signed in some if not 0 < _number(signed) <= end))
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            folder = os.open(self._path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def _whole(self, file: Any) -> int:
        """How many bytes of it are whole lines."""
        size: int = file.seek(0, os.SEEK_END)
        start = max(0, size - TAIL_BYTES)
        file.seek(start)
        tail: bytes = file.read()
        return start + tail.rfind(b"\n") + 1 if tail and not tail.endswith(b"\n") else size

    def lines(self) -> Iterator[Signed | str]:
        """What is in it; what is to be known of it besides, as text. A line that is none has an empty statement."""
        try:
            with self._path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        yield "the last line of the file is cut off: a crash does that, and the next anchor mends it"
                        return
                    yield _line(line) or Signed(statement="", signature=b"", key_id="")
        except FileNotFoundError:
            yield f"there is no file {self._path}"


def _text(signed: Signed) -> bytes:
    said = {"statement": signed.statement, "signature": signed.signature.hex(), "key_id": signed.key_id}
    return json.dumps(said, separators=(",", ":")).encode() + b"\n"


def _line(line: bytes) -> Signed | None:
    try:
        said = json.loads(line)
        return Signed(
            statement=str(said["statement"]), signature=bytes.fromhex(said["signature"]), key_id=str(said["key_id"])
        )
    except (ValueError, TypeError, KeyError):
        return None
