"""The benchmark's own arithmetic: what it calls met, and that all readers read what there is, each thing once."""

import asyncio
from collections.abc import Sequence

import pytest

from benchmarks.caching_far import side_by_side
from benchmarks.caching_memory import ENTRIES, Held
from benchmarks.caching_stampede import Stampede
from benchmarks.caching_system import in_chunks


@pytest.mark.parametrize("readers", [1, 3, 50])
def test_readers_side_by_side_read_each_thing_once(readers: int) -> None:
    read: list[int] = []
    reading = most = 0

    async def one(thing: int) -> None:
        nonlocal reading, most
        reading += 1
        most = max(most, reading)
        await asyncio.sleep(0)
        reading -= 1
        read.append(thing)

    asyncio.run(side_by_side(one, range(10), readers))
    assert sorted(read) == list(range(10))
    assert most == min(readers, 10), "so many at once"


def test_chunks_leave_nothing_out() -> None:
    assert [list(chunk) for chunk in in_chunks(range(5), 2)] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(
    ("name", "loads", "is_met"),
    [
        ("ours", ([1, 1], [1, 1]), True),
        ("ours", ([1, 1], [1, 2]), False),
        ("ours", ([1, 2], [1, 1]), False),
        ("another", ([9, 9], [9, 9]), True),
    ],
)
def test_one_load_too_many_of_ours_is_a_target_missed(
    name: str, loads: tuple[Sequence[int], Sequence[int]], is_met: bool
) -> None:
    stampede = Stampede(name, (list(loads[0]), list(loads[1])), ([0.05, 0.05], [0.05, 0.05]))
    assert stampede.is_met == is_met


@pytest.mark.parametrize(("believed", "is_met"), [(100, True), (124, True), (76, True), (126, False), (74, False)])
def test_our_cache_knows_what_it_takes_within_a_quarter(believed: int, is_met: bool) -> None:
    assert Held("ours", 100 * ENTRIES, 0, believed * ENTRIES).is_met == is_met
    assert Held("another", 100 * ENTRIES, 0, 0).is_met
