"""Pictures of the audit: the same to the byte, right in what they say, and refusing what they cannot draw."""

from collections.abc import Callable

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.auditing.hops import HOPS
from workshop.pictures import (
    Picture,
    audit_hops,
    audit_progress,
    audit_timeline,
    books_compared,
    columns_through,
)

PLACED = ("households/7", "POST /orders", "create", ["status: placed", "total_cents: 250"])
PAID = ("services/shop", "payment.order.charged.v1", "update", ["status: placed → paid"])
BY_HAND = ("by hand, as ada from psql", "", "update", ["total_cents: 250 → 1"])
LIES = ("the bank says no", "nothing has changed", "2.50 → 1.50, staff/ada", False, "nothing", True)


def steps(*rows: tuple[str, str, str, list[str]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["who", "why", "does", "changes"])


def books(*rows: tuple[str, str, str, bool, str, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["deed", "postgres", "log", "log_is_right", "audit", "audit_is_right"])


def way(changes: int, *hops: str) -> pd.DataFrame:
    rows = [(hop, 10.0 * place + change / 10) for change in range(changes) for place, hop in enumerate(hops)]
    return pd.DataFrame(rows, columns=["hop", "ms"])


def looks(*rows: tuple[float, int, int, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["at_s", "orders", "changes", "records"])


KILLED = looks((0.0, 0, 0, 0), (1.0, 2, 30, 28), (2.0, 4, 60, 28), (3.0, 4, 60, 60))
GIFT = pd.DataFrame({"gift": [None, "wrapped", None], "present": [None, None, "a ribbon"]})

DRAWINGS: dict[str, Callable[[], Picture]] = {
    "a life": lambda: audit_timeline(steps(PLACED, PAID, BY_HAND)),
    "its first step": lambda: audit_timeline(steps(PLACED)),
    "books": lambda: books_compared(books(LIES)),
    "a way": lambda: audit_hops(way(600, *HOPS), HOPS),
    "one hop": lambda: audit_hops(way(1, "postgres"), HOPS),
    "keeping up": lambda: audit_progress(KILLED, [(1.0, "killed"), (2.0, "another one")]),
    "its first look": lambda: audit_progress(KILLED.head(1)),
    "columns": lambda: columns_through(GIFT, {1: "ADD gift", 2: "RENAME"}),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    assert_stands_alone(DRAWINGS[name])


def test_a_life_says_who_why_and_what_it_was_before_and_after() -> None:
    picture = audit_timeline(steps(PLACED, PAID, BY_HAND))
    assert {"households/7", "create: POST /orders", "status: placed → paid", "by hand, as ada from psql"} <= set(
        words(picture)
    )
    assert "by hand, as ada from psql, update: total_cents: 250 → 1." in picture.alt


def test_what_is_done_by_hand_is_framed() -> None:
    by_hand, by_the_shop = (audit_timeline(steps(one)).svg.count("stroke: #c23b00") for one in (BY_HAND, PAID))
    assert by_hand > by_the_shop


def test_of_many_changes_some_are_named_and_the_others_counted() -> None:
    changes = [f"column {number}: 1 → 2" for number in range(9)]
    shown = words(audit_timeline(steps(("staff/ada", "", "update", changes))))
    assert "column 2: 1 → 2" in shown
    assert "column 3: 1 → 2" not in shown
    assert "and 6 more" in shown


def test_a_book_that_is_wrong_is_marked_and_one_that_is_right_too() -> None:
    picture = books_compared(books(LIES))
    shown = " ".join(words(picture))
    assert "✗ 2.50 → 1.50, staff/ada" in shown
    assert "✓ nothing" in shown
    assert "the application's log says 2.50 → 1.50, staff/ada, wrong; our audit says nothing, right" in picture.alt


def test_hops_are_in_the_order_of_their_names_whatever_comes_first() -> None:
    alt = audit_hops(way(5, "reader", "postgres"), HOPS).alt
    assert alt.index("PostgreSQL, committed") < alt.index("a reader, seen by a reader")


def test_a_way_says_medians_and_where_all_but_one_in_a_hundred_were() -> None:
    alt = audit_hops(pd.DataFrame({"hop": "mongo", "ms": [*[20.0] * 99, 400.0]}), HOPS).alt
    assert "MongoDB, stored as a record: median 20 ms, 99 % within 24 ms" in alt


def test_keeping_up_says_how_far_behind_it_is_now_and_was_at_most() -> None:
    picture = audit_progress(KILLED, [(1.0, "recorder killed")])
    assert "60 changes committed by 4 new orders, 60 recorded, 0 behind, at most 32. At 1.0 s: recorder killed." in (
        picture.alt
    )
    assert {"60 committed", "60 recorded", "0 behind", "at most 32", "recorder killed"} <= set(words(picture))


def test_a_column_is_there_only_where_it_held_something() -> None:
    picture = columns_through(GIFT, {1: "ADD gift"})
    assert "gift: 2 wrapped; present: 3 a ribbon. Before record 2: ADD gift." in picture.alt
    assert words(picture).count("wrapped") == 1


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda: audit_timeline(steps(PLACED).drop(columns="why")), "no column 'why'"),
        (lambda: books_compared(books(LIES).drop(columns="log")), "no column 'log'"),
        (lambda: audit_hops(way(1, "mongo").drop(columns="ms"), HOPS), "no column 'ms'"),
        (lambda: audit_progress(KILLED.drop(columns="records")), "no column 'records'"),
    ],
)
def test_a_picture_refuses_what_it_cannot_draw(draw: Callable[[], Picture], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        draw()


@pytest.mark.parametrize(
    "draw",
    [
        lambda: audit_timeline(steps()),
        lambda: books_compared(books()),
        lambda: audit_hops(way(0), HOPS),
        lambda: audit_progress(looks()),
        lambda: columns_through(pd.DataFrame(), {}),
    ],
)
def test_of_nothing_there_is_nothing_to_draw(draw: Callable[[], Picture]) -> None:
    assert "nothing to draw" in draw().alt
