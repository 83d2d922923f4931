"""Pictures of old answers: the same to the byte, right in what they say, and refusing what they cannot draw."""

from collections.abc import Callable

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.pictures import Picture, staleness, versions_apart, who_gave_what

RACE = (
    ("slow reader", "reads version 1, and stops", "nothing", "version 1"),
    ("writer", "commits version 2", "nothing", "version 2"),
    ("writer", "removes it from Redis", "nothing", "version 2"),
    ("slow reader", "goes on, with version 1", "version 1", "version 2"),
    ("next reader", "gets version 1", "version 1", "version 2"),
)


def race(*rows: tuple[str, str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["who", "does", "redis", "postgres"])


def answers(**old_until_ms: float) -> pd.DataFrame:
    rows = [(who, float(at), at < until) for at in range(0, 1000, 50) for who, until in old_until_ms.items()]
    return pd.DataFrame(rows, columns=["who", "at_ms", "is_old"])


def changes(**ms: list[float]) -> pd.DataFrame:
    return pd.DataFrame([(what, one) for what, all_ in ms.items() for one in all_], columns=["what", "ms"])


DRAWINGS: dict[str, Callable[[], Picture]] = {
    "a race": lambda: versions_apart(race(*RACE)),
    "its first step": lambda: versions_apart(race(RACE[0])),
    "two readers": lambda: who_gave_what(answers(theirs=900, ours=300), {"the line goes dead": -40.0}),
    "a reader who is never wrong": lambda: who_gave_what(answers(ours=0)),
    "windows": lambda: staleness(changes(ttl=[900.0, 1500.0], cdc=[0.0, 20.0, 40.0]), limit_ms=2000, limit="TTL"),
    "one window": lambda: staleness(changes(cdc=[0.0])),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    assert_stands_alone(DRAWINGS[name])


def test_a_race_shows_from_when_to_when_redis_has_something_older_than_the_database() -> None:
    shown = words(versions_apart(race(*RACE)))
    assert shown.count("✗ version 1: old") == 1  # one bar over both steps
    assert shown.count("nothing") == 1
    assert shown.count("version 2") == 1
    fine = words(versions_apart(race(*RACE[:3], ("next reader", "gets version 2", "version 2", "version 2"))))
    assert not [word for word in fine if "✗" in word]


def test_a_floor_is_no_old_version() -> None:
    shown = words(versions_apart(race(("writer", "removes it", "nothing below 2", "version 2"))))
    assert "nothing below 2" in shown


def test_a_reader_is_wrong_until_its_last_old_answer() -> None:
    flapping = answers(ours=300)
    flapping.loc[flapping.at_ms == 600, "is_old"] = True
    assert "ours: old for 600 ms" in who_gave_what(flapping).alt
    assert "ours: old for 0 ms" in who_gave_what(answers(ours=0)).alt


def test_windows_say_their_median_and_their_worst() -> None:
    shown = words(staleness(changes(cdc=[10.0, 20.0, 60.0])))
    assert "median 20 ms" in shown
    assert "p95 56 ms, worst 60 ms" in shown


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda: versions_apart(race(*RACE).drop(columns="redis")), "no column 'redis'"),
        (lambda: who_gave_what(pd.DataFrame({"who": []})), "no column 'at_ms'"),
        (lambda: staleness(pd.DataFrame({"what": ["cdc"], "ms": [-1.0]})), "below 0"),
        (lambda: staleness(pd.DataFrame({"what": []})), "no column 'ms'"),
    ],
)
def test_a_picture_refuses_what_it_cannot_draw(draw: Callable[[], Picture], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        draw()


def test_before_the_first_step_there_is_nothing_to_draw() -> None:
    assert "nothing to draw" in versions_apart(race()).alt
    assert "nothing to draw" in who_gave_what(answers()).alt
    assert "nothing to draw" in staleness(changes()).alt
