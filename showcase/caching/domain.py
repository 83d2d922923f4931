"""What is cached, for how long, and when a newer answer beats an older one; no input or output."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Generic, TypeVar

from showcase.kernel.errors import Invalid, Unavailable

T = TypeVar("T")

LONGEST_NAME = 512
"""Of a key, in characters."""
LONGEST_LOAD = timedelta(seconds=30)
FLOOR = 2 * LONGEST_LOAD
"""How long it is remembered that a key was removed, and up to which version: longer than any load that may have read
what was there before."""
NEWEST_VERSION = 2**53 - 1
"""Redis compares versions in Lua, whose numbers are exact up to here."""


class BadKey(Invalid):
    """No such key can be."""


class Uncacheable(TypeError):
    """What a factory returned is not what its kind says. A mistake in the program, so it is not hidden."""


class TooSlow(Unavailable):
    """The source of an answer took longer than the reader would wait."""


@dataclass(frozen=True, slots=True)
class Options:
    """How one answer is kept; all of it can differ from call to call.

    Attributes:
        duration: for how long it is fresh.
        jitter: up to so much is taken off each duration, by chance, so that what was stored together does not expire
            together.
        near: for how long it is fresh in the memory of one process; news of changes reaches that sooner.
        absent: for how long it is known that there is nothing; not at all by default.
        early: the β of early refresh: each reader may refresh an answer before it expires, with P = exp(-t/(β·δ)),
            t left to live, δ the time that its load took. 0 is never, 1 is the paper's
            (Optimal Probabilistic Cache Stampede Prevention, VLDB'15).
        stale: for so long after it has expired, an answer is given at once and refreshed in the background.
        fail_safe: for so long after it has expired, an answer is given when its source fails or is slow.
        soft: how long a reader waits for the source while there is such an old answer. The load goes on.
        hard: how long it waits at all.
        pause: after a source has failed, for how long the old answer is given without asking it again.
    """

    duration: timedelta = timedelta(minutes=5)
    jitter: timedelta = timedelta()
    near: timedelta = timedelta(seconds=30)
    absent: timedelta = timedelta()
    early: float = 0.0
    stale: timedelta = timedelta()
    fail_safe: timedelta = timedelta()
    soft: timedelta | None = None
    hard: timedelta = timedelta(seconds=5)
    pause: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        zero = timedelta()
        given = (self.jitter, self.absent, self.stale, self.fail_safe, self.pause)
        if self.duration <= zero or self.near <= zero or any(one < zero for one in given) or not 0 <= self.early <= 100:
            raise ValueError("durations are positive, and early is between 0 and 100")
        if self.jitter >= self.duration:
            raise ValueError("jitter is less than the duration it is taken from")
        if not zero < self.hard <= LONGEST_LOAD:
            raise ValueError(
                f"hard is up to {LONGEST_LOAD.total_seconds():g} s: a removal is not remembered for longer"
            )
        if self.soft is not None and not zero < self.soft <= self.hard:
            raise ValueError("soft is not longer than hard")


DEFAULT = Options()


def _no_version(value: object) -> int:
    return 0


def _no_tags(value: object) -> Sequence[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What is cached under one name.

    Args:
        type_: of the answers, as msgspec reads it: `Product`, `list[int]`. What is not of it is never given out.
        schema: raise it when the type changes: answers of the old one are no longer found.
        version: of an answer; it grows with every change of its source. Without versions, a slow reader is kept from
            storing an old answer by its lease alone.
        tags: by which many answers can be removed at once.
    """

    name: str
    type_: type[T]
    schema: int = 1
    version: Callable[[T], int] = field(default=_no_version)
    tags: Callable[[T], Sequence[str]] = field(default=_no_tags)

    def key(self, identifier: object) -> "Key[T]":
        """The key of one of them. Raises BadKey for what is too long, or cannot be printed."""
        name = f"{self.name}.{self.schema}:{identifier}"
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise BadKey(f"a key has up to {LONGEST_NAME} characters, and no control characters")
        return Key(self, name)


class Key(Generic[T]):
    """Where one answer is. Written out, since each read makes one: a frozen dataclass takes as long as a hit."""

    __slots__ = ("kind", "name")

    def __init__(self, kind: Kind[T], name: str) -> None:
        self.kind = kind
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self.name == other.name

    def __hash__(self) -> int:
        return hash(self.name)


@dataclass(frozen=True, slots=True)
class Answer(Generic[T]):
    """What a reader gets, and how it came about.

    Attributes:
        value: None where there is nothing.
        source: `near` (this process's memory), `far` (Redis), `loaded`.
        is_stale: it has expired, and nothing newer was to be had in time.
        ttl_s: for how long it is fresh; negative: for how long it no longer is.
    """

    value: T | None
    source: str
    is_stale: bool
    ttl_s: float


def early_by(beta: float, load_s: float, draw: float) -> float:
    """How many seconds before it expires a reader refreshes an answer (XFetch, VLDB'15, algorithm 2).

    Args:
        draw: by chance, above 0 and up to 1, anew for each reader.
    """
    return -beta * load_s * math.log(draw)


def earliest(beta: float, load_s: float) -> float:
    """From how many seconds before it expires a refresh is likelier than once in a million reads."""
    return early_by(beta, load_s, 1e-6)


class Breaker:
    """Keeps from asking a server that has just failed to answer (Release It!, Nygard, 2018, ch. 5).

    Args:
        failures: in a row; then it is open.
        open_s: for so long nobody asks; then one may try.
    """

    def __init__(self, clock: Callable[[], float], *, failures: int = 3, open_s: float = 1.0) -> None:
        self._clock = clock
        self._limit = failures
        self._open_s = open_s
        self._failures = 0
        self._next_try = -math.inf

    @property
    def is_open(self) -> bool:
        """Whether the last calls failed."""
        return self._failures >= self._limit

    def may_ask(self) -> bool:
        """Whether to ask now. While open, True for one caller at a time."""
        if not self.is_open:
            return True
        now = self._clock()
        if now < self._next_try:
            return False
        self._next_try = now + self._open_s
        return True

    def failed(self) -> None:
        """The server did not answer."""
        self._failures += 1
        self._next_try = self._clock() + self._open_s

    def succeeded(self) -> None:
        """The server has answered."""
        self._failures = 0
