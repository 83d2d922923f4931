"""Hashes: of passwords, slow and in threads; of codes, fast and with a key."""

import hmac
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread
from argon2 import Type
from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from showcase.auth.infrastructure.secrets import Secrets, Unreadable
from showcase.kernel.errors import Unavailable

MEMORY_KIB = 19_456
ITERATIONS = 2
LANES = 1
"""OWASP's Password Storage Cheat Sheet: 19 MiB, two iterations, one lane."""

T = TypeVar("T")


class Hashing:
    """Passwords by Argon2id (RFC 9106). See `application.stores.Passwords`.

    Each one takes a core for tens of milliseconds, and 19 MiB. So a few are hashed at once, in threads, and a few
    may wait; whoever comes then is sent away at once, and the event loop is free for everybody else.

    Args:
        at_once: how many are hashed at the same time.
        waiting: how many more may wait for that.
    """

    def __init__(self, *, at_once: int, waiting: int) -> None:
        self._limiter = CapacityLimiter(at_once)
        self._most = at_once + waiting
        self._inside = 0
        self._hasher = PasswordHash((Argon2Hasher(ITERATIONS, MEMORY_KIB, LANES, type=Type.ID),))
        self._dummy = self._hasher.hash("nobody's")

    async def hash(self, password: str) -> str:
        """A password's hash, with its parameters in it. Raises Unavailable when too many wait."""
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        """Whether it is the password; and a new hash, if it is and was hashed by other parameters.

        Args:
            hashed: None where there is no account: it takes as long all the same.

        Raises Unavailable when too many wait.
        """
        is_right, better = await self._in_thread(
            lambda: self._hasher.verify_and_update(password, hashed or self._dummy)
        )
        return (is_right, better) if hashed else (False, None)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        # Counted here: the limiter knows of a caller only once that has begun to wait, a turn of the loop later.
        if self._inside >= self._most:
            raise Unavailable("too many sign in at this moment", retry_after_s=1)
        self._inside += 1
        try:
            return await to_thread.run_sync(work, limiter=self._limiter)
        finally:
            self._inside -= 1


class CodeHashes:
    """Hashes of codes, which are too short for a hash without a key: whoever reads the table learns none of them.

    Args:
        purpose: what the codes are for; those of one are no use for another.
    """

    def __init__(self, secrets: Secrets, purpose: str) -> None:
        self._secrets = secrets
        self._purpose = purpose

    def hash(self, code: str, context: str) -> bytes:
        """Of a code, by the newest secret.

        Args:
            context: what it belongs to, such as a row's key: right there, it is wrong elsewhere.
        """
        newest = self._secrets.newest
        return newest.encode() + b":" + self._mac(code, context, newest)

    def is_of(self, hashed: bytes, code: str, context: str) -> bool:
        """Whether this is the hash of a code; in constant time. False when the secret that made it is gone."""
        secret_id, _, mac = hashed.partition(b":")
        try:
            return hmac.compare_digest(mac, self._mac(code, context, secret_id.decode()))
        except Unreadable:
            return False

    def _mac(self, code: str, context: str, secret_id: str) -> bytes:
        message = f"{len(context)}:{context}{code}".encode("utf-8", "surrogatepass")
        return self._secrets.mac(self._purpose, message, secret_id)
