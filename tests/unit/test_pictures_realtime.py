"""Pictures of real time: the same to the byte, right in what they say, and refusing what they cannot draw."""

from collections.abc import Callable

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.pictures import (
    Picture,
    asked_and_told,
    crowd_latencies,
    memory_over_time,
    moved,
    slow_clients,
    told_through,
)

NOTES = {"asking": ["40 requests", "3 brought news"], "told": ["2 requests", "3 messages"]}


def known(*rows: tuple[str, float, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["way", "ms", "is_shown"])


def both_ways() -> pd.DataFrame:
    asked = [("asking", ms, ms > 100) for ms in (90.0, 300.0, 500.0)]
    return known(*asked, *(("told", ms, True) for ms in (0.0, 20.0, 40.0)))


def deliveries(*rows: tuple[int, float, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["process", "at_s", "is_missed"])


def numbered(*rows: tuple[float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["at_s", "number"])


def looks(**mib: tuple[float, ...]) -> pd.DataFrame:
    rows = [(who, at / 10, one) for who, those in mib.items() for at, one in enumerate(those)]
    return pd.DataFrame(rows, columns=["who", "at_s", "mib"])


def heard() -> pd.DataFrame:
    rows = [(number, socket, 1.0 + number + socket) for number in (1, 2) for socket in range(5)]
    return pd.DataFrame(rows, columns=["number", "socket", "ms"])


def late(*rows: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["told_s", "late_ms"])


MOVED = deliveries((1, 0.5, False), (1, 1.0, False), (2, 1.5, True), (2, 1.6, False))
EVENTS = numbered((0.1, 1), (0.2, 2), (0.3, 3))

DRAWINGS: dict[str, Callable[[], Picture]] = {
    "asked and told": lambda: asked_and_told(both_ways(), NOTES),
    "nobody asked": lambda: asked_and_told(known(), {}),
    "moved": lambda: moved(MOVED, {"SIGKILL to 1": 1.2}),
    "never moved": lambda: moved(MOVED.head(2), {}),
    "not told": lambda: moved(deliveries(), {}),
    "slow": lambda: slow_clients(
        {"close it": (EVENTS, EVENTS), "keep": (EVENTS, EVENTS.tail(1))}, {"keep": ["newest"]}
    ),
    "nobody is slow": lambda: slow_clients({}, {}),
    "memory": lambda: memory_over_time(looks(naive=(40, 60, 90), ours=(90, 91, 89)), subtitle="12 clients"),
    "memory that shrinks": lambda: memory_over_time(looks(ours=(90, 80))),
    "a crowd": lambda: crowd_latencies(heard()),
    "faults": lambda: told_through(late((0.1, 20.0), (1.0, 900.0), (3.0, 0.0)), {"killed": (0.9, 1.8)}),
    "no faults": lambda: told_through(late((0.1, 20.0)), {}),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    assert_stands_alone(DRAWINGS[name])


def test_steps_that_were_never_shown_are_counted_for_each_way() -> None:
    shown = words(asked_and_told(both_ways(), NOTES))
    assert "1 steps never shown" in shown
    assert "0 steps never shown" in shown


def test_a_way_is_told_with_its_median_and_notes() -> None:
    assert "asking: median 300 ms, 40 requests, 3 brought news" in asked_and_told(both_ways(), NOTES).alt


def test_what_was_missed_is_counted_where_it_was_told() -> None:
    picture = moved(MOVED, {"SIGKILL to 1": 1.2})
    assert (
        "process 1: 2 events, 0 of them had been missed; process 2: 2 events, 1 of them had been missed" in picture.alt
    )
    assert [word for word in words(picture) if "missed before" in word] == ["1 of them missed before"]
    assert "✗ SIGKILL to 1" in words(picture)


def test_a_slow_client_is_told_with_what_it_has_taken() -> None:
    picture = slow_clients({"keep": (EVENTS, EVENTS.tail(1))}, {"keep": ["newest"]})
    assert "keep: 1 of 3 taken, newest" in picture.alt


def test_thousands_of_dots_do_not_make_a_large_picture() -> None:
    many = numbered(*((number / 1_000, number) for number in range(3_000)))
    assert len(slow_clients({"all": (many, many)}, {}).svg) < 200_000


def test_memory_is_told_as_what_came_on_top() -> None:
    assert "naive: 50 MiB more at the end" in memory_over_time(looks(naive=(40, 60, 90), ours=(90, 95, 91))).alt
    assert "ours: 1 MiB more at the end, 5 at most" in memory_over_time(looks(ours=(90, 95, 91))).alt


def test_a_crowd_is_told_with_its_last_one() -> None:
    picture = crowd_latencies(heard())
    assert "all: 7.0 ms" in picture.alt
    assert "the last socket had it after 6.5 ms" in picture.alt
    assert "2 events, 5 sockets each: 10 deliveries" in words(picture)


def test_events_wait_for_a_fault_if_they_came_after_it_began_and_happened_before_it_ended() -> None:
    on_the_way, inside, after = (0.8, 500.0), (1.0, 900.0), (3.0, 5.0)
    picture = told_through(late((0.1, 20.0), on_the_way, inside, after), {"killed": (0.9, 1.8)})
    assert "4 events, 2 of them waited for it; the latest was told 900 ms after it happened" in picture.alt


@pytest.mark.parametrize(
    "draw",
    [
        lambda: asked_and_told(both_ways().drop(columns="ms"), NOTES),
        lambda: asked_and_told(both_ways(), {"told": []}),
        lambda: moved(MOVED.drop(columns="process"), {}),
        lambda: slow_clients({"close it": (EVENTS, EVENTS.drop(columns="number"))}, {}),
        lambda: memory_over_time(looks(ours=(1, 2)).drop(columns="mib")),
        lambda: crowd_latencies(heard().drop(columns="socket")),
        lambda: told_through(late((0.1, 1.0)).drop(columns="late_ms"), {}),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Callable[[], Picture]) -> None:
    with pytest.raises(ValueError, match=r"column|notes"):
        draw()
