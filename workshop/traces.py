"""How many reads of a trace a cache of some size would have answered: other policies than ours, and the best there is.

Nothing is measured here, all is counted: one list of reads goes in, one yes or no a read comes out. So a lesson can
tell what its cache could win by being larger, or cleverer, before anybody builds that.
"""

import heapq
import math
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence

import pandas as pd

from showcase.caching.application.near import Held, Near

Policy = Callable[[Sequence[int], int], list[bool]]
"""For a trace and how many entries there is room for: of each read, whether it was a hit. It begins empty."""

WINDOW, PROTECTED, AGE_AFTER = 0.01, 0.8, 10
"""W-TinyLFU as Caffeine begins: 1 % window, 80 % of the rest protected, counts halved every ten times the size."""


def lru(trace: Sequence[int], size: int) -> list[bool]:
    """The least recently used makes room."""
    held: OrderedDict[int, None] = OrderedDict()
    return [_read(held, item, size) for item in trace]


def lfu(trace: Sequence[int], size: int) -> list[bool]:
    """The least often read makes room, and of several the one that was not read for longest; counts are never lost."""
    counts: Counter[int] = Counter()
    held: dict[int, tuple[int, int]] = {}
    ranked: list[tuple[int, int, int]] = []  # count, when read last, item; of each item the newest row counts
    hits = []
    for now, item in enumerate(trace):
        hits.append(item in held)
        counts[item] += 1
        while item not in held and len(held) >= size:
            count, read_at, rarest = heapq.heappop(ranked)
            if held.get(rarest) == (count, read_at):
                del held[rarest]
        held[item] = (counts[item], now)
        heapq.heappush(ranked, (counts[item], now, item))
    return hits


def w_tinylfu(trace: Sequence[int], size: int) -> list[bool]:
    """A small LRU for what is new; whoever leaves it stays only if it is read more often than who would have to go.

    Source: TinyLFU: A Highly Efficient Cache Admission Policy (ACM Transactions on Storage, 2017). Counts are exact
    here, where the paper's need a few bits each.
    """
    window_size = max(1, round(size * WINDOW))
    main_size = size - window_size
    protected_size = int(main_size * PROTECTED)
    window: OrderedDict[int, None] = OrderedDict()
    probation: OrderedDict[int, None] = OrderedDict()
    protected: OrderedDict[int, None] = OrderedDict()
    counts: Counter[int] = Counter()
    hits = []
    for number, item in enumerate(trace, 1):
        counts[item] += 1
        if number % (AGE_AFTER * size) == 0:
            counts = Counter({one: count // 2 for one, count in counts.items() if count > 1})
        hits.append(item in window or item in probation or item in protected)
        if item in protected:
            protected.move_to_end(item)
        elif item in probation:  # read twice: worth to be kept
            del probation[item]
            protected[item] = None
            if len(protected) > protected_size:
                probation[protected.popitem(last=False)[0]] = None
        else:
            _read(window, item, size)
            if len(window) > window_size:
                candidate, _ = window.popitem(last=False)
                _admit(candidate, probation, counts, has_room=len(probation) + len(protected) < main_size)
    return hits


def belady(trace: Sequence[int], size: int) -> list[bool]:
    """Whatever is read again last makes room, the newcomer itself as well: nothing can do better, and nothing can know.

    Source: A Study of Replacement Algorithms for a Virtual-Storage Computer (IBM Systems Journal, 1966).
    """
    following: list[float] = [math.inf] * len(trace)
    later: dict[int, int] = {}
    for at in reversed(range(len(trace))):
        following[at] = later.get(trace[at], math.inf)
        later[trace[at]] = at
    held: dict[int, float] = {}
    ranked: list[tuple[float, int]] = []  # the latest first; of each item the newest row counts
    hits = []
    for item, next_at in zip(trace, following, strict=True):
        hits.append(item in held)
        held[item] = next_at
        heapq.heappush(ranked, (-next_at, item))
        while len(held) > size:
            last_at, latest = heapq.heappop(ranked)
            if held.get(latest) == -last_at:
                del held[latest]
    return hits


def near(trace: Sequence[int], size: int) -> list[bool]:
    """Our own first level, the class itself: not simulated."""
    cache = Near(entries=size, size_bytes=1 << 40)
    hits = []
    for item in trace:
        is_hit = cache.get(str(item)) is not None
        hits.append(is_hit)
        if is_hit:
            cache.touch(str(item))
        else:
            cache.put(str(item), _ANSWER)
    return hits


POLICIES: Mapping[str, Policy] = {"LRU": lru, "LFU": lfu, "W-TinyLFU": w_tinylfu, "Belády's optimum": belady}


def hit_ratios(trace: Sequence[int], sizes: Sequence[int], policies: Mapping[str, Policy] = POLICIES) -> pd.DataFrame:
    """Each policy with each size, from an empty cache on: the columns policy, size, hits, ratio.

    Raises ValueError for a trace without a read, and a size below 1.
    """
    if not trace or min(sizes, default=1) < 1:
        raise ValueError("a trace has reads, and a cache has room for one entry at least")
    rows = []
    for name, policy in policies.items():
        for size in sizes:
            hits = sum(policy(trace, size))
            rows.append((name, size, hits, hits / len(trace)))
    return pd.DataFrame(rows, columns=["policy", "size", "hits", "ratio"])


def _read(held: OrderedDict[int, None], item: int, size: int) -> bool:
    """A read of an LRU cache: whether it was a hit."""
    is_hit = item in held
    held[item] = None
    held.move_to_end(item)
    if len(held) > size:
        held.popitem(last=False)
    return is_hit


def _admit(candidate: int, probation: OrderedDict[int, None], counts: Counter[int], *, has_room: bool) -> None:
    """Keep who leaves the window, if there is room or it is read more often than who would go in its place."""
    if not has_room:
        if not probation:
            return
        victim = next(iter(probation))
        if counts[candidate] <= counts[victim]:
            return
        del probation[victim]
    probation[candidate] = None


_ANSWER: Held[str] = Held(
    value="",
    payload=b"",
    is_shared=True,
    is_absent=False,
    version=0,
    tags=(),
    fresh_until=math.inf,
    expires=math.inf,
    stale_until=math.inf,
    early_from=math.inf,
    loaded_at=0.0,
    load_s=0.0,
)
