"""Signing keys: made, sealed in PostgreSQL, rotated, and known to every process.

A key is *next* first: everybody can read it in the JWKS before anything is signed with it. Then it is *current* and
signs. Then it is *retiring*: it signs no more, but what it has signed is valid to its end. So a rotation refuses
nobody.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

import structlog
from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from showcase.auth.application.ports import Events, Happened
from showcase.auth.infrastructure.jwk import Algorithm, BadKey, SigningKey, VerifyingKey
from showcase.auth.infrastructure.secrets import Secrets
from showcase.kernel.errors import NotFound, Unavailable
from showcase.platform.database import Database

log = structlog.get_logger()

PURPOSE = "signing key"

CURRENT_FOR_S = 5.0
"""A process that signs looks so often which key is current."""
SIGN_ALONE_S = 60.0
"""So long a process signs on without having reached the database. Meanwhile others may have rotated: what it signs
must still end before the key it has signed with is gone, hence the margin below is longer."""
RETIRING_MARGIN = timedelta(seconds=90)
"""How much longer than an access token a key retires: for SIGN_ALONE_S, for tokens that are rounded up to a second,
and for clocks that differ."""
LOOK_AGAIN_S = 1.0
"""Keys are looked up so often at the most, however many tokens name keys that nobody knows."""
MAX_WAITING = 1_000
"""So many may wait for such a look-up; to any more the answer is 503, not a queue."""


class NoSuchKey(NotFound):
    """There is no signing key of this name."""


class State(StrEnum):
    """What a key is there for, see above."""

    NEXT = "next"
    CURRENT = "current"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True)
class StoredKey:
    """A key as it is stored: anybody may verify with it; to sign, it has to be opened."""

    public: VerifyingKey
    state: State
    sealed: bytes


class Keys(Protocol):
    """Where keys are stored, as a `KeyRing` needs it."""

    async def ensure(self) -> None:
        """Make the keys that are missing. Raises Unavailable."""

    async def load(self) -> Sequence[StoredKey]:
        """All that tokens may be signed with. Raises Unavailable."""

    def open(self, key: StoredKey) -> SigningKey:
        """Its private key. Raises Unreadable."""


class SqlKeys:
    """Keys in PostgreSQL, private ones sealed. Any number of processes may call any of this at once.

    A secret may leave the settings once every key that it has sealed is gone: `rotate` twice, then wait.

    Args:
        algorithm: of the keys that are made from now on; those that exist stay what they are.
    """

    def __init__(self, database: Database, secrets: Secrets, events: Events, algorithm: Algorithm) -> None:
        self._database = database
        self._secrets = secrets
        self._events = events
        self._algorithm: Algorithm = algorithm

    async def ensure(self) -> None:
        async with self._database.transaction() as db:
            await self._complete(db)

    async def load(self) -> Sequence[StoredKey]:
        async with self._database.transaction() as db:
            found = (await db.execute(_LOAD)).all()
        try:
            return [StoredKey(VerifyingKey.read(jwk), State(state), sealed) for jwk, state, sealed in found]
        except BadKey as error:  # somebody has changed the table: whoever has the keys from before goes on with them
            log.error("a stored signing key is refused", why=str(error))
            raise Unavailable("the signing keys cannot be read") from error

    def open(self, key: StoredKey) -> SigningKey:
        return SigningKey.read(self._secrets.open(PURPOSE, key.sealed, key.public.kid))

    async def rotate(self, access_lifetime: timedelta, *, actor: str = "") -> str:
        """Sign with the next key from now on, and make a new next one; the `kid` of the one that signs now.

        Args:
            access_lifetime: how long a token lives that the present key has just signed.
            actor: who wants it, for the log of events.

        Raises Unavailable.
        """
        async with self._database.transaction() as db:
            await self._complete(db)
            retired = await db.scalar(_RETIRE, {"kept": access_lifetime + RETIRING_MARGIN})
            kid: str = (await db.execute(_PROMOTE)).scalar_one()
            await self._complete(db)
            await self._events.add(Happened.KEY_ROTATED, actor=actor, kid=kid, retired=retired)
        return kid

    async def revoke(self, kid: str, *, actor: str = "") -> None:
        """Throw away a key that somebody else may have: every token it has signed is refused.

        A process learns of it when it next loads the keys (`keys_reload_s`). If it was the current one, the next
        one takes over.

        Raises NoSuchKey, Unavailable.
        """
        async with self._database.transaction() as db:
            await db.execute(_LOCK)
            state = await db.scalar(_REVOKE, {"kid": kid})
            if state is None:
                raise NoSuchKey("no signing key has this kid; the JWKS lists all that there are")
            if state == State.CURRENT:
                await db.execute(_PROMOTE)
            await self._complete(db)
            await self._events.add(Happened.KEY_ROTATED, actor=actor, reason="revoked", kid=kid)

    async def prune(self) -> int:
        """Remove keys that have retired; how many. Raises Unavailable."""
        async with self._database.transaction() as db:
            return len((await db.scalars(_PRUNE)).all())

    async def _complete(self, db: AsyncConnection) -> None:
        """Make the keys that are missing; from here on nobody else changes keys until the transaction ends."""
        await db.execute(_LOCK)
        there = set(await db.scalars(_STATES))
        for state in (State.CURRENT, State.NEXT):
            if state not in there:
                await db.execute(_ADD, self._new(state))

    def _new(self, state: State) -> dict[str, Any]:
        key = SigningKey.new(self._algorithm)
        return {
            "kid": key.public.kid,
            "algorithm": key.public.algorithm,
            "state": state.value,
            "public_jwk": key.public.jwk,
            "private_sealed": self._secrets.seal(PURPOSE, key.der(), key.public.kid),
        }


class KeyRing:
    """The keys that this process knows.

    While the database is away, tokens are checked with the keys that were loaded last, and signed for a while.

    Attributes:
        version: changes when a key is gone or new: then forget whatever an earlier one has verified.

    Args:
        monotonic: seconds that never go back.
        sleep: waits for so many of them.
    """

    def __init__(
        self,
        keys: Keys,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self.version = 0
        self._keys = keys
        self._monotonic = monotonic
        self._sleep = sleep
        self._known: dict[str, StoredKey] = {}
        self._signing: SigningKey | None = None
        self._lock = asyncio.Lock()
        self._waiting = 0
        self._loaded_s = self._begun_s = self._ended_s = -float("inf")
        """When the loads began: the last that succeeded, the last, and the last that is over."""

    async def current(self) -> SigningKey:
        """The key to sign with, as it was at most CURRENT_FOR_S ago. Raises Unavailable."""
        now_s = self._monotonic()
        if now_s - self._loaded_s > CURRENT_FOR_S:
            try:
                await self._load_since(now_s - LOOK_AGAIN_S)
            except Unavailable:
                if self._monotonic() - self._loaded_s > SIGN_ALONE_S:
                    raise
        return self._current()

    async def find(self, kid: str) -> VerifyingKey | None:
        """The key of this name; None if there is none.

        For a name that this process does not know the keys are loaded again, once a second for all who ask
        together: nobody can flood the database with names he has made up, and a key that is new is still found.

        Raises Unavailable when that cannot be told now.
        """
        if kid not in self._known:
            await self._load_since(self._monotonic())
        known = self._known.get(kid)
        return known.public if known else None

    def jwks(self) -> dict[str, Any]:
        """The public keys (RFC 7517 §5), as they were loaded last. Raises Unavailable when they never were."""
        if not self._known:
            raise Unavailable("the signing keys could not be loaded yet")
        return {"keys": [key.public.jwk for key in self._known.values()]}

    async def reload(self) -> None:
        """Load the keys now. Wiring does it every `keys_reload_s`: so a revoked key goes. Raises Unavailable."""
        async with self._lock:
            await self._load()

    async def _load_since(self, moment_s: float) -> None:
        """See to it that the keys were loaded, by a load that began after a moment.

        One caller loads, the others wait for it at the lock and share its outcome.
        """
        if self._waiting >= MAX_WAITING:
            raise Unavailable("too many wait for a signing key that nobody knows")
        self._waiting += 1
        try:
            async with self._lock:
                if self._ended_s < moment_s:
                    await self._sleep(max(0.0, self._begun_s + LOOK_AGAIN_S - self._monotonic()))
                    await self._load()
                elif self._loaded_s < moment_s:
                    raise Unavailable("the signing keys could not be loaded")
        finally:
            self._waiting -= 1

    async def _load(self) -> None:
        began_s = self._begun_s = self._monotonic()
        try:
            found = await self._keys.load()
            if not {State.CURRENT, State.NEXT} <= {key.state for key in found}:
                await self._keys.ensure()
                found = await self._keys.load()
        except Unavailable:
            self._ended_s = began_s
            log.warning("signing keys could not be loaded", known=len(self._known))
            raise
        self._loaded_s = self._ended_s = began_s
        if changed := {key.public.kid for key in found} ^ self._known.keys():
            self.version += 1
            if self._known:
                log.info("signing keys changed", kids=sorted(changed))
        self._known = {key.public.kid: key for key in found}

    def _current(self) -> SigningKey:
        stored = next(key for key in self._known.values() if key.state == State.CURRENT)
        if self._signing is None or self._signing.public.kid != stored.public.kid:
            self._signing = self._keys.open(stored)
        return self._signing


_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('auth.keys', 0))")
_STATES = text("SELECT state FROM auth.keys")
_LOAD = text("""
    SELECT public_jwk, state, private_sealed FROM auth.keys
    WHERE retires_at IS NULL OR retires_at > clock_timestamp() ORDER BY created_at, kid
""")
_ADD = text("""
    INSERT INTO auth.keys (kid, algorithm, state, public_jwk, private_sealed)
    VALUES (:kid, :algorithm, :state, :public_jwk, :private_sealed)
""").bindparams(bindparam("public_jwk", type_=JSONB))
_RETIRE = text("""
    UPDATE auth.keys SET state = 'retiring', retires_at = clock_timestamp() + CAST(:kept AS interval)
    WHERE state = 'current' RETURNING kid
""")
_PROMOTE = text("UPDATE auth.keys SET state = 'current' WHERE state = 'next' RETURNING kid")
_REVOKE = text("DELETE FROM auth.keys WHERE kid = :kid RETURNING state")
_PRUNE = text("DELETE FROM auth.keys WHERE state = 'retiring' AND retires_at <= clock_timestamp() RETURNING kid")
