"""Policies that are computed: each throws out what it says, none has more room than it was given, one is the best."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workshop import traces
from workshop.traces import POLICIES, belady, hit_ratios, lfu, lru, near, w_tinylfu

TRACES = st.lists(st.integers(0, 9), min_size=1, max_size=60)
SIZES = st.integers(1, 11)


def hit(policy: traces.Policy, trace: str, size: int) -> str:
    """The reads that were hits; a trace is a word, each of its letters a read."""
    hits = policy([ord(letter) for letter in trace], size)
    return "".join(letter if is_hit else "." for letter, is_hit in zip(trace, hits, strict=True))


def test_lru_throws_out_what_was_not_read_for_longest() -> None:
    assert hit(lru, "abacab", 2) == "..a.a."


def test_lfu_throws_out_what_was_read_least_often() -> None:
    assert hit(lfu, "aabcba", 2) == ".a...a"  # b goes for c, c for b: each was read once, a twice
    assert hit(lfu, "abbcdbb", 2) == "..b..bb"


def test_lfu_remembers_how_often_it_was_that_something_was_read() -> None:
    assert hit(lfu, "bbaaacccdbeb", 2) == ".b.aa.cc...b"  # as the third b, it is worth more than d, and no less than c


def test_belady_throws_out_what_is_read_again_last_the_newcomer_as_well() -> None:
    assert hit(belady, "abcab", 2) == "...ab"  # c is never read again, so it does not come in
    assert hit(belady, "abcdabcd", 3) == "....abc."


def test_one_read_of_each_of_many_does_not_push_out_of_w_tinylfu_what_is_read_often() -> None:
    best = list(range(50))
    trace = best * 4 + list(range(1_000, 1_400)) + best
    assert sum(lru(trace, 100)[-50:]) == 0
    assert sum(w_tinylfu(trace, 100)[-50:]) == 50


def test_w_tinylfu_lets_go_of_what_was_read_often_long_ago() -> None:
    old, new = list(range(10)) * 100, list(range(100, 110)) * 60
    assert all(w_tinylfu(old + new, 10)[-9:])


@given(TRACES, SIZES)
def test_our_near_cache_is_an_lru(trace: list[int], size: int) -> None:
    assert near(trace, size) == lru(trace, size)


@given(TRACES, SIZES)
def test_nothing_beats_the_optimum(trace: list[int], size: int) -> None:
    best = sum(belady(trace, size))
    assert all(sum(policy(trace, size)) <= best for policy in POLICIES.values())


@given(st.lists(st.integers(0, 4), min_size=1, max_size=9), st.integers(1, 3))
def test_the_optimum_is_what_trying_everything_finds(trace: list[int], size: int) -> None:
    assert sum(belady(trace, size)) == most_hits(tuple(trace), frozenset(), size)


@given(TRACES)
def test_with_room_for_all_everybody_hits_all_but_the_first_read_of_each(trace: list[int]) -> None:
    again = len(trace) - len(set(trace))
    assert {name: sum(policy(trace, 1_000)) for name, policy in POLICIES.items()} == dict.fromkeys(POLICIES, again)


@given(TRACES)
def test_more_room_is_never_worse_for_lru(trace: list[int]) -> None:
    hits = [sum(lru(trace, size)) for size in range(1, 12)]
    assert all(less <= more for less, more in pairwise(hits))


def test_ratios_are_shares_of_all_reads() -> None:
    frame = hit_ratios([1, 2, 1, 1], [1, 2], {"LRU": lru})
    assert frame.to_dict("list") == {
        "policy": ["LRU", "LRU"],
        "size": [1, 2],
        "hits": [1, 2],
        "ratio": [0.25, 0.5],
    }


@pytest.mark.parametrize(("trace", "sizes"), [([], [1]), ([1], [0])])
def test_no_reads_and_no_room_are_refused(trace: list[int], sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="has reads"):
        hit_ratios(trace, sizes)


def most_hits(trace: Sequence[int], held: frozenset[int], size: int) -> int:
    """The most hits that any choice of what to throw out leads to; also of whom not to let in."""
    if not trace:
        return 0
    item, rest = trace[0], trace[1:]
    with_it = held | {item}
    choices = [with_it] if len(with_it) <= size else [with_it - {out} for out in with_it]
    return (item in held) + max(most_hits(rest, choice, size) for choice in choices)
