"""The second level as the cache sees it: behind a circuit breaker, and read only as far as it may be believed."""

import itertools
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from showcase.caching.application import entry as entries
from showcase.caching.application.counts import Counts
from showcase.caching.application.entry import GONE, Codec, Entry
from showcase.caching.application.ports import Store
from showcase.caching.domain import FLOOR, Breaker, Key
from showcase.kernel.errors import Unavailable

T = TypeVar("T")

OWED_AT_MOST = 10_000
KNOWN_CUTS = 10_000


class Far:
    """What all processes share, and what this one still owes it.

    A change that the store did not take is owed: until it has been told, this process does not believe what the
    store says of that key.

    Attributes:
        trusted_until: for so long (`clock`) news of other processes' changes comes.
    """

    def __init__(self, store: Store, codec: Codec, counts: Counts, clock: Callable[[], float] = time.monotonic) -> None:
        self.trusted_until = float("-inf")
        self.breaker = Breaker(clock)
        self._store = store
        self._codec = codec
        self._counts = counts
        self._clock = clock
        self._cuts: dict[str, float] = {}
        self._losses = 0
        self._owed: dict[str, bytes] = {}
        self._owed_cuts: dict[str, object] = {}

    @property
    def is_heard(self) -> bool:
        """Whether news of other processes' changes comes."""
        return self._clock() < self.trusted_until

    @property
    def owed(self) -> int:
        """How many changes the store has not heard of."""
        return len(self._owed) + len(self._owed_cuts)

    async def read(self, keys: Sequence[Key[Any]]) -> Mapping[Key[Any], Entry[Any]]:
        """The entries of keys that are still valid, floors as well. Raises Unavailable."""
        if self._owed:
            keys = [key for key in keys if key.name not in self._owed]
        if not keys or self._owed_cuts:
            return {}
        found: dict[Key[Any], Entry[Any]] = {}
        for key, data in zip(keys, await self._ask(lambda: self._store.read([key.name for key in keys])), strict=True):
            if data is None:
                continue
            read = self._codec.read(key.kind, key.name, data)
            if read is None:
                self._counts.broken += 1
            else:
                found[key] = read
        answers = [entry for entry in found.values() if not entry.is_floor]
        cuts = await self._cuts_of(answers) if answers else {}
        return {key: entry for key, entry in found.items() if entry.is_floor or _is_valid(entry, cuts)}

    async def lease(self, keys: Sequence[Key[Any]], holder: str, ttl_s: float) -> tuple[float, list[Key[Any]]]:
        """The store's time, and the keys that this holder may load now. Raises Unavailable."""
        at, given = await self._ask(lambda: self._store.lease([key.name for key in keys], holder, ttl_s))
        return at, [key for key, is_given in zip(keys, given, strict=True) if is_given]

    async def release(self, keys: Sequence[Key[Any]], holder: str) -> None:
        """Give leases back. Raises Unavailable."""
        await self._ask(lambda: self._store.release([key.name for key in keys], holder))

    async def write(self, name: str, entry: Entry[Any], *, ttl_s: float, holder: str | None) -> bool:
        """Store an entry; False when it is not the newest, or the lease is lost. Raises Unavailable, Uncacheable.

        Args:
            holder: of the lease under which it was loaded; None for a change, of which the others are told.
        """
        data = self._codec.write(name, entry)
        return await self._ask(lambda: self._store.write(name, data, ttl_s=ttl_s, holder=holder, tell=holder is None))

    async def remove(self, name: str, version: int, *, is_gone: bool) -> bool:
        """Remove what is older; False when the store does not answer: then it is owed."""
        floor = self._codec.write(name, entries.floor(version, is_gone=is_gone))
        try:
            await self._ask(lambda: self._store.remove(name, floor, ttl_s=FLOOR.total_seconds()))
        except BaseException as error:  # cancelled: nobody knows whether it was told
            self._owe(name, floor)
            if isinstance(error, Unavailable):
                return False
            raise
        return True

    async def expire(self, name: str) -> bool:
        """Make an entry stale; False when the store does not answer. Nothing is owed: it is no promise."""
        try:
            await self._ask(lambda: self._store.expire(name))
        except Unavailable:
            return False
        return True

    async def cut(self, tag: str) -> bool:
        """Cut a tag; False when the store does not answer: then it is owed."""
        owed = self._owed_cuts.get(tag)
        try:
            at = await self._ask(lambda: self._store.cut(tag))
        except BaseException as error:  # cancelled: nobody knows whether it was told
            self._owed_cuts[tag] = object()
            if isinstance(error, Unavailable):
                return False
            raise
        if self._owed_cuts.get(tag) is owed:  # or one more has come meanwhile
            self._owed_cuts.pop(tag, None)
        self.heard_cut(tag, at)
        return True

    async def pay_all(self) -> bool:
        """Tell the store all that is owed; whether it took all of it."""
        for tag in list(self._owed_cuts):
            if not await self.cut(tag):
                return False
        for name, floor in list(self._owed.items()):
            try:
                await self._ask(partial(self._store.remove, name, floor, ttl_s=FLOOR.total_seconds()))
            except Unavailable:
                return False
            if self._owed.get(name) is floor:  # or one more has come meanwhile
                del self._owed[name]
        return True

    def _owe(self, name: str, floor: bytes) -> None:
        """The higher floor is owed. One without a version removes anything, so it is owed before all others."""
        bits, owed = entries.head(self._owed.get(name, b""))
        _, version = entries.head(floor)
        if name not in self._owed or version == 0 or (0 < owed < version) or (owed == version and not bits & GONE):
            self._owed[name] = floor
        if len(self._owed) > OWED_AT_MOST:
            self._owed.clear()
            self._owed_cuts[""] = object()

    def heard_cut(self, tag: str, at: float) -> None:
        """A tag was cut."""
        if len(self._cuts) >= KNOWN_CUTS:
            self._cuts.clear()
        self._cuts[tag] = max(at, self._cuts.get(tag, 0.0))

    def lost(self) -> None:
        """News may have been missed."""
        self.trusted_until = float("-inf")
        self._losses += 1
        self._cuts.clear()

    async def _cuts_of(self, found: Iterable[Entry[Any]]) -> Mapping[str, float]:
        """When each tag was cut: from memory, as long as news of further cuts comes."""
        every = set(itertools.chain.from_iterable(entries.all_tags(entry.tags) for entry in found))
        was_heard, losses = self.is_heard, self._losses
        if was_heard and every <= self._cuts.keys():
            return self._cuts
        tags = sorted(every)
        asked = await self._ask(lambda: self._store.cuts(tags))
        if was_heard and self.is_heard and losses == self._losses:
            for tag, at in zip(tags, asked, strict=True):
                self.heard_cut(tag, at)
            return {tag: max(at, self._cuts.get(tag, 0.0)) for tag, at in zip(tags, asked, strict=True)}
        return dict(zip(tags, asked, strict=True))

    async def _ask(self, call: Callable[[], Awaitable[T]]) -> T:
        if not self.breaker.may_ask():
            raise Unavailable("redis has not answered of late, and is not asked now")
        try:
            answer = await call()
        except Unavailable:
            self._counts.far_failures += 1
            self.breaker.failed()
            raise
        self.breaker.succeeded()
        return answer


def _is_valid(entry: Entry[Any], cuts: Mapping[str, float]) -> bool:
    return entry.loaded_at > max(map(cuts.__getitem__, entries.all_tags(entry.tags)))
