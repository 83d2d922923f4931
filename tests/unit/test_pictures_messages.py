"""Pictures of messages and queues: the same to the byte, right in what they say, and refusing what they cannot draw."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.pictures import Picture, message_timeline, queue_drained

START = datetime(2017, 12, 23, 9, tzinfo=UTC)
WAY = ((0, "failed"), (0.5, "failed"), (1.6, "failed"), (1.9, "parked"), (4, "replayed"), (4.1, "handled"))
WORKERS = [(0.0, 1), (3.0, 2), (6.0, 4)]


def steps(*way: tuple[float, str]) -> pd.DataFrame:
    return pd.DataFrame([(START + timedelta(seconds=at), what) for at, what in way], columns=["at", "what"])


def looks(seconds: float = 9.0, rate: int = 10) -> pd.DataFrame:
    """A worker does `rate` a second, two do twice as much, and so on."""
    rows, done = [], 0.0
    for tenth in range(int(10 * seconds)):
        at_s = tenth / 10
        rows.append((at_s, round(done), max(0, 200 - round(done))))
        done += rate / 10 * [count for since, count in WORKERS if since <= at_s][-1]
    return pd.DataFrame(rows, columns=["at_s", "done", "waiting"])


DRAWINGS: dict[str, Callable[[], Picture]] = {
    "a message's way": lambda: message_timeline(steps(*WAY)),
    "handled at once": lambda: message_timeline(steps((0, "handled"))),
    "a queue": lambda: queue_drained(looks(), WORKERS),
    "a queue a moment after the start": lambda: queue_drained(looks(0.2), WORKERS),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    assert_stands_alone(DRAWINGS[name])


def test_a_message_s_picture_numbers_its_attempts_and_says_how_long_it_waited_for_each() -> None:
    shown = words(message_timeline(steps(*WAY)))
    assert [word for word in shown if re.match(r"\d\. ", word)] == ["1. failed", "2. failed", "3. failed", "4. handled"]
    assert [word for word in shown if word.endswith("ms")] == ["500 ms", "1,100 ms", "2,100 ms"]
    assert "parked at 1.9 s, replayed at 4.0 s" in message_timeline(steps(*WAY)).alt


def test_a_queue_s_picture_says_how_fast_it_is_emptied_and_what_is_left() -> None:
    shown = words(queue_drained(looks(5.05), WORKERS))
    assert "1 worker" in shown
    assert "2 workers" in shown
    assert "4 workers" not in shown  # their time has not come
    assert "20 charges/s" in shown  # of the last second
    assert "132 waiting" in shown


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda: message_timeline(steps((0, "lost"))), "nothing is called lost"),
        (lambda: message_timeline(steps((1, "failed"), (0, "handled"))), "later step"),
        (lambda: message_timeline(pd.DataFrame({"at": []})), "no column 'what'"),
        (lambda: queue_drained(looks()[::-1], WORKERS), "later look"),
        (lambda: queue_drained(looks(), WORKERS[::-1]), "later change"),
        (lambda: queue_drained(looks().drop(columns="done"), WORKERS), "no column 'done'"),
    ],
)
def test_a_picture_refuses_what_it_cannot_draw(draw: Callable[[], Picture], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        draw()


def test_before_the_second_look_there_is_nothing_to_draw() -> None:
    assert "nothing to draw" in queue_drained(looks(0.1), WORKERS).alt
    assert "nothing to draw" in message_timeline(steps()).alt
