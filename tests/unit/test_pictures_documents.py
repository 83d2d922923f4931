"""Pictures of documents: the same to the byte, right in what they say, and refusing what they cannot draw."""

from collections.abc import Callable

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.pictures import (
    Picture,
    counted_through,
    counts_over_time,
    lives,
    page_times,
    pages_walked,
    plans,
    questions_asked,
    writers_apart,
)

UNDONE = (
    ("slow till", "reads 100 points", "100 points"),
    ("fast till", "reads 100 points", "100 points"),
    ("fast till", "writes 130 points", "130 points"),
    ("slow till", "writes 150 points", "150 points"),
)
REFUSED = (*UNDONE[:3], ("slow till", "refused: it is version 2, not 1", "130 points"))


def steps(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["who", "does", "mongo"])


def walk(times: list[int], gone: tuple[int, ...] = ()) -> pd.DataFrame:
    rows = [(place // 2 + 1, count, place in gone) for place, count in enumerate(times)]
    return pd.DataFrame(rows, columns=["page", "times", "is_gone"])


def page_frame(**ms: float) -> pd.DataFrame:
    rows = [(way, page, one) for way, one in ms.items() for page in (1, 1_000)]
    return pd.DataFrame(rows, columns=["way", "page", "ms"])


def asked(*rows: tuple[str, int, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["way", "queries", "docs", "ms"])


def explained(*rows: tuple[str, int, int, int, list[str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["index", "keys", "documents", "returned", "stages"])


def handled(*rows: tuple[int, int, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["life", "number", "is_again"])


def counts() -> pd.DataFrame:
    return pd.DataFrame({"at_s": [0.0, 1.0, 2.0], "orders": [1, 2, 3], "views": [1, 0, 3]})


def increments(*at_s: float) -> pd.DataFrame:
    return pd.DataFrame({"writer": [f"writer {n % 2 + 1}" for n in range(len(at_s))], "at_s": at_s})


def reads(*rows: tuple[float, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["due_s", "took_ms", "status"])


DRAWINGS: dict[str, Callable[[], Picture]] = {
    "a lost update": lambda: writers_apart(steps(*UNDONE), lost="30 are lost"),
    "a refusal": lambda: writers_apart(steps(*REFUSED)),
    "its first step": lambda: writers_apart(steps(UNDONE[0])),
    "two walks": lambda: pages_walked({"by number": walk([1, 2, 0, 1, 1], (4,)), "after a key": walk([1] * 5)}),
    "pages": lambda: page_times(page_frame(skip=30.0, key=1.5)),
    "one page time": lambda: page_times(page_frame(key=1.5).head(1)),
    "questions": lambda: questions_asked(asked(("a question a line", 301, 331, 147.0), ("one", 1, 31, 2.0))),
    "plans": lambda: plans(
        explained(("none", 0, 100_000, 10, ["COLLSCAN", "SORT"]), ("some", 33, 10, 10, ["IXSCAN", "FETCH", "LIMIT"]))
    ),
    "three lives": lambda: lives(handled((1, 1, False), (1, 2, False), (2, 2, True), (2, 3, False), (3, 4, False))),
    "counts": lambda: counts_over_time(counts(), {"emptied": 0.9, "done": 1.0}, title="The read model"),
    "through faults": lambda: counted_through(
        increments(0.1, 0.2, 3.0),
        reads((0.0, 5.0, 200), (1.0, 1_000.0, 503), (2.0, 15_000.0, 0)),
        {"killed": (0.5, 2.5)},
        title="Counted",
    ),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    assert_stands_alone(DRAWINGS[name])


def test_what_mongodb_holds_is_one_bar_for_as_long_as_it_is_the_same() -> None:
    shown = words(writers_apart(steps(*REFUSED)))
    assert shown.count("100 points") == 1
    assert shown.count("130 points") == 1
    assert any(word.startswith("✗ refused") for word in shown)


def test_only_the_last_thing_held_lacks_what_is_lost() -> None:
    picture = writers_apart(steps(*UNDONE), lost="30 are lost")
    assert [word for word in words(picture) if "✗" in word] == ["✗ 150 points: 30 are lost"]
    assert picture.alt.endswith("In the end: 30 are lost.")
    assert "✗" not in " ".join(words(writers_apart(steps(*UNDONE))))


def test_a_walk_tells_once_twice_never_and_what_was_taken_back_apart() -> None:
    picture = pages_walked({"by number": walk([1, 1, 2, 0, 1, 3, 0], gone=(4, 6))})
    assert "2 read once, 2 read twice, 1 never read ✗, 2 taken back" in picture.alt
    assert words(picture).count("2") == 2
    assert words(picture).count("✗") == 1


def test_pages_say_their_first_and_their_last_time() -> None:
    assert (
        "skip: 0.9 ms for page 1, 30 ms for page 1,000"
        in page_times(pd.DataFrame({"way": "skip", "page": [1_000, 1], "ms": [30.0, 0.9]})).alt
    )


def test_one_question_is_not_called_questions() -> None:
    shown = words(questions_asked(asked(("loop", 301, 331, 147.0), ("kept together", 1, 31, 2.0))))
    assert "301 questions, 147 ms" in shown
    assert "1 question, 2.0 ms" in shown


def test_a_plan_says_its_stages_in_words_and_keeps_the_name_of_an_unknown_one() -> None:
    shown = words(plans(explained(("odd", 5, 4, 3, ["IXSCAN", "SKIP"]))))
    assert "walk the index → SKIP" in shown
    assert [word for word in shown if word.startswith(("5 ", "4 ", "3 "))] == ["5 keys", "4 documents", "3 given back"]


def test_all_lives_but_the_last_were_killed() -> None:
    picture = lives(handled((1, 1, False), (1, 2, False), (2, 2, True), (2, 3, False)))
    assert words(picture).count("✗ SIGKILL") == 1
    assert "life 1: 2 handled; life 2: 2 handled, 1 again" in picture.alt


def test_counts_say_what_happened_when() -> None:
    picture = counts_over_time(counts(), {"emptied": 0.9}, title="The read model")
    assert "orders: 1 at first, 3 at the end; views: 1 at first, 3 at the end. emptied at 0.9 s." in picture.alt


def test_a_status_that_nobody_expects_is_drawn_as_no_answer() -> None:
    picture = counted_through(increments(0.1), reads((0.0, 5.0, 200), (1.0, 5.0, 500)), {}, title="Counted")
    assert "1 no answer ✗" in words(picture)
    assert "1 answered" in words(picture)


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda: writers_apart(steps(*UNDONE).drop(columns="mongo")), "no column 'mongo'"),
        (lambda: pages_walked({"by number": walk([1]).drop(columns="times")}), "no column 'times'"),
        (lambda: page_times(page_frame(skip=1.0).drop(columns="ms")), "no column 'ms'"),
        (lambda: questions_asked(asked().drop(columns="docs")), "no column 'docs'"),
        (lambda: plans(explained().drop(columns="stages")), "no column 'stages'"),
        (lambda: lives(handled().drop(columns="life")), "no column 'life'"),
        (lambda: counts_over_time(counts().drop(columns="at_s"), {}, title="none"), "no column 'at_s'"),
        (lambda: counted_through(increments(), reads().drop(columns="status"), {}, title="none"), "'status'"),
    ],
)
def test_a_picture_refuses_what_it_cannot_draw(draw: Callable[[], Picture], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: writers_apart(steps()),
        lambda: pages_walked({"by number": walk([])}),
        lambda: page_times(page_frame()),
        lambda: questions_asked(asked()),
        lambda: plans(explained()),
        lambda: lives(handled()),
        lambda: counts_over_time(counts().head(0), {}, title="none"),
        lambda: counted_through(increments(), reads(), {}, title="none"),
    ],
)
def test_of_nothing_there_is_nothing_to_draw(draw: Callable[[], Picture]) -> None:
    assert "nothing to draw" in draw().alt
