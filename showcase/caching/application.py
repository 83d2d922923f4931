"""Cache-aside: read through the cache, and let nothing that goes wrong with it reach the caller.

Not yet here: a reader that was slow may store what a writer has just removed (the stale set of Facebook's
NSDI'13 paper), so an answer can be stale until its duration ends.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from showcase.kernel.errors import Unavailable

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What is cached under one name, and how it is written: as JSON, which runs no code when it is read.

    Args:
        codec: of the answers, `TypeAdapter(Product)`.
    """

    name: str
    codec: TypeAdapter[T]

    def key(self, identifier: object) -> "Key[T]":
        """The key of one of them."""
        return Key(self, f"{self.name}:{identifier}")


@dataclass(frozen=True, slots=True)
class Key(Generic[T]):
    """Where one answer is."""

    kind: Kind[T]
    name: str


class Store(Protocol):
    """Keeps text for a while. Each call ends within its deadline; raises Unavailable."""

    async def get(self, key: str) -> str | None:
        """What is there; None also for something that is no text."""

    async def set(self, key: str, value: str, *, ttl: timedelta) -> None:
        """Keep `value` for `ttl`, in place of what was there."""

    async def delete(self, key: str) -> None:
        """Forget what is there."""


@dataclass(slots=True)
class Counts:
    """What happened so far in this process."""

    hits: int = 0
    misses: int = 0
    unavailable: int = 0
    """Calls that the store did not answer."""


class Cache:
    """Answers that are kept for a while in a store that may be lost."""

    def __init__(self, store: Store) -> None:
        self.counts = Counts()
        self._store = store

    async def get_or_set(self, key: Key[T], factory: Callable[[], Awaitable[T]], *, duration: timedelta) -> T:
        """The cached answer, or the factory's, which is then cached.

        A store that is away, and a value that cannot be read, are as good as nothing there. None is never
        cached: what is not there now may be a moment later.

        Raises what `factory` raises, and nothing of its own.
        """
        codec = key.kind.codec
        try:
            text = await self._store.get(key.name)
        except Unavailable:
            self.counts.unavailable += 1
            return await factory()  # not stored: a store that is away would only cost its deadline once more
        if text is not None:
            try:
                value = codec.validate_json(text)
            except ValidationError:
                pass  # of another version of the program, or damaged: overwritten below
            else:
                self.counts.hits += 1
                return value
        self.counts.misses += 1
        value = await factory()
        if value is not None:
            try:
                await self._store.set(key.name, codec.dump_json(value).decode(), ttl=duration)
            except Unavailable:
                self.counts.unavailable += 1
        return value

    async def remove(self, key: Key[T]) -> bool:
        """Forget an answer. False when the store did not answer: then others may get it until its duration ends."""
        try:
            await self._store.delete(key.name)
        except Unavailable:
            self.counts.unavailable += 1
            return False
        return True
