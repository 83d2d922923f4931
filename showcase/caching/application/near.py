"""The first level: answers in the memory of this process, as many as fit."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")

OVERHEAD_BYTES = 900
"""What an entry takes besides its value: measured, see `benchmarks caching`."""


@dataclass(slots=True)
class Held(Generic[T]):
    """An answer in memory. Times are of `time.monotonic`, seconds.

    Attributes:
        value: shared by all who ask.
        payload: of one that they could change: each decodes it anew.
        size_bytes: of the payload, kept or not.
        fresh_until: for so long it is given out without asking anybody, by this process.
        expires: when its duration ends.
        stale_until: for so long it may be given out in need.
        early_from: from when on a reader has to look closer.
        loaded_at: by the store's clock; 0 for one that was loaded without it.
        is_brief: it was loaded while no news came, so it is held for a moment only, and counts without news.
        is_doubted: news was missed since, so it is for the greatest need only.
    """

    value: T | None
    payload: bytes
    is_shared: bool
    is_absent: bool
    version: int
    tags: tuple[str, ...]
    fresh_until: float
    expires: float
    stale_until: float
    early_from: float
    loaded_at: float
    load_s: float
    size_bytes: int = 0
    is_brief: bool = False
    is_doubted: bool = False

    def is_older(self, version: int, *, is_gone: bool) -> bool:
        """Whether a removal up to `version` is of this answer as well; one without a version, 0, is of any."""
        return version == 0 or self.version < version or (is_gone and self.version == version)

    def age(self, now: float) -> None:
        """From now on it is stale."""
        self.fresh_until = min(self.fresh_until, now)
        self.expires = min(self.expires, now)
        self.early_from = self.fresh_until


class Near:
    """Answers by the names of their keys; the least recently used make room.

    Args:
        entries: how many there may be.
        size_bytes: how many bytes they may take, about.
    """

    def __init__(self, *, entries: int, size_bytes: int) -> None:
        self._entries = entries
        self._limit_bytes = size_bytes
        self._lru: OrderedDict[str, Held[Any]] = OrderedDict()
        self.get = self._lru.get
        """The answer with a name, or None. Whoever gives it out says so: `touch`."""
        self.touch = self._lru.move_to_end
        """It was used. Both are bound here, since each further call would be a tenth of a hit."""
        self.size_bytes = 0

    def __len__(self) -> int:
        return len(self._lru)

    def put(self, name: str, held: Held[Any]) -> None:
        """Hold an answer, in place of an older one. One that is larger than all the room there is is not held."""
        self.drop(name)
        if _cost(held) > self._limit_bytes:
            return
        self._lru[name] = held
        self.size_bytes += _cost(held)
        while len(self._lru) > self._entries or self.size_bytes > self._limit_bytes:
            _, oldest = self._lru.popitem(last=False)
            self.size_bytes -= _cost(oldest)

    def drop(self, name: str) -> None:
        """Forget an answer."""
        held = self._lru.pop(name, None)
        if held is not None:
            self.size_bytes -= _cost(held)

    def cut(self, tag: str, at: float) -> None:
        """Forget all that has a tag and was loaded before; "" is everything's."""
        cut = [name for name, held in self._lru.items() if held.loaded_at <= at and (not tag or tag in held.tags)]
        for name in cut:
            self.drop(name)

    def doubt(self, now: float) -> None:
        """From now on all of it is stale, and for the greatest need only."""
        for held in self._lru.values():
            held.age(now)
            held.is_doubted = True


def _cost(held: Held[Any]) -> int:
    return held.size_bytes + OVERHEAD_BYTES
