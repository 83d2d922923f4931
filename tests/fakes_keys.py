"""Signing keys in memory, behind the port that a key ring loads them by."""

from collections.abc import Sequence
from datetime import timedelta

from showcase.auth.infrastructure.jwk import Algorithm, SigningKey
from showcase.auth.infrastructure.keys import NoSuchKey, State, StoredKey
from showcase.kernel.errors import Unavailable


class MemoryKeys:
    """Keys that any number of rings load. `away` makes every call fail.

    Attributes:
        loads: how often they were loaded or should have been.
    """

    def __init__(self, algorithm: Algorithm = "ES256", stored: Sequence[StoredKey] = ()) -> None:
        self.algorithm: Algorithm = algorithm
        self.away = False
        self.loads = 0
        self._stored = list(stored)

    async def ensure(self) -> None:
        for state in (State.CURRENT, State.NEXT):
            if not self._of(state):
                key = SigningKey.new(self.algorithm)
                self._stored.append(StoredKey(key.public, state, key.der()))

    async def load(self) -> Sequence[StoredKey]:
        self.loads += 1
        if self.away:
            raise Unavailable("away")
        return list(self._stored)

    def open(self, key: StoredKey) -> SigningKey:
        return SigningKey.read(key.sealed)

    async def rotate(self, access_lifetime: timedelta) -> str:
        await self.ensure()
        self._move(State.CURRENT, State.RETIRING)
        self._move(State.NEXT, State.CURRENT)
        await self.ensure()
        return self._of(State.CURRENT)[0].public.kid

    async def revoke(self, kid: str) -> None:
        gone = [key for key in self._stored if key.public.kid == kid]
        if not gone:
            raise NoSuchKey("no signing key has this kid; the JWKS lists all that there are")
        self._stored.remove(gone[0])
        if gone[0].state is State.CURRENT:
            self._move(State.NEXT, State.CURRENT)
        await self.ensure()

    def _of(self, state: State) -> list[StoredKey]:
        return [key for key in self._stored if key.state is state]

    def _move(self, old: State, new: State) -> None:
        self._stored = [StoredKey(key.public, new, key.sealed) if key.state is old else key for key in self._stored]
