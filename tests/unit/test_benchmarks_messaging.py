"""The benchmark's own arithmetic: whom it charges for a stall, and that it misses nobody."""

import asyncio
import time

import pytest

from benchmarks.messaging_latency import Latency, on_time


def test_an_event_is_due_when_it_is_due_however_long_those_before_it_take() -> None:
    added: list[int] = []

    async def add(thing: int) -> None:
        time.sleep(0.003)  # noqa: ASYNC251 - the stall that is to be charged to those after it
        added.append(thing)

    due = asyncio.run(on_time(add, range(5), rate=1_000))
    assert sorted(added) == list(range(5))
    assert [round(due[thing] - due[0], 6) for thing in range(5)] == [0, 0.001, 0.002, 0.003, 0.004]


def test_time_runs_from_when_an_event_was_due() -> None:
    latency = Latency.of(top=200, rate=100, due={1: 10.0, 2: 10.01}, committed={1: 10.5, 2: 10.5})
    assert [round(seconds, 6) for seconds in latency.sorted_s] == [0.49, 0.5]


def test_an_event_without_an_effect_is_no_result() -> None:
    with pytest.raises(KeyError):
        Latency.of(top=200, rate=100, due={1: 10.0, 2: 10.01}, committed={1: 10.5})
