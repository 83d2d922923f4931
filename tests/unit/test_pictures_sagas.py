"""The pictures of sagas and faults: right to the number, the same to the byte, and they refuse what cannot be drawn."""

from collections.abc import Callable
from dataclasses import replace

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.pictures import Load, Picture, counter_table, saga, under_fire

TYPES = {
    "placed": "shop.order.placed.v1",
    "alarm": "shop.deadline.passed.v1",
    "charged": "payment.order.charged.v1",
    "paid": "shop.order.paid.v1",
    "short": "stock.order.short.v1",
    "kept": "stock.order.reserved.v1",
    "cancelled": "shop.order.cancelled.v1",
    "settled": "payment.order.settled.v1",
    "refused": "shop.order.refused.v2",
}


def story(*told: tuple[str, str]) -> pd.DataFrame:
    """Events, each with its cause; both by the names above."""
    return pd.DataFrame([(name, TYPES[name], cause) for name, cause in told], columns=["id", "type", "cause"])


def steps(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["status", "reason", "cause"])


SHORT = story(
    ("placed", ""), ("alarm", "placed"), ("charged", "placed"), ("paid", "charged"), ("short", "paid"),
    ("cancelled", "short"), ("settled", "cancelled"), ("refused", "settled"),
)  # fmt: skip
SHORT_STEPS = steps(
    ("placed", "", ""), ("paid", "", "charged"), ("cancelling", "out of stock", "short"),
    ("refused", "out of stock", "settled"),
)  # fmt: skip
OVERDUE = story(
    ("placed", ""), ("alarm", "placed"), ("charged", "placed"), ("paid", "charged"), ("cancelled", "alarm"),
    ("settled", "cancelled"), ("refused", "settled"), ("kept", "paid"),
)  # fmt: skip
OVERDUE_STEPS = steps(
    ("placed", "", ""), ("paid", "", "charged"), ("cancelling", "overdue", "alarm"), ("refused", "overdue", "settled")
)
LOAD = Load(sent=[0, 1, 2], acknowledged=[0.1, 2.1], done=[0.5, 4], broken_s=0.8, mended_s=1.9, back_s=4)
COUNTERS = pd.DataFrame(
    {"attempted": [3, 3], "lost": [0, 1], "duplicated deliveries": [7, 0], "duplicated effects": [0, 0]},
    index=["relay killed", "stock killed"],
)
FELT = pd.Series({"relay killed": 3.2, "stock killed": 0.04})

DRAWINGS: dict[str, Callable[[], Picture]] = {
    "short": lambda: saga(SHORT_STEPS, SHORT),
    "overdue": lambda: saga(OVERDUE_STEPS, OVERDUE),
    "no story": lambda: saga(SHORT_STEPS[:0], SHORT),
    "under fire": lambda: under_fire({"relay killed": LOAD, "stock killed": LOAD}),
    "no fire": lambda: under_fire({}),
    "table": lambda: counter_table(COUNTERS, FELT),
    "empty table": lambda: counter_table(COUNTERS[:0], FELT),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    assert_stands_alone(DRAWINGS[name])


def test_a_saga_says_who_told_what_in_the_order_in_which_it_counted() -> None:
    assert saga(SHORT_STEPS, SHORT).alt.partition(". ")[2] == (
        "the order is placed; payment: charged; the order is paid; stock: out of stock;"
        " the order is cancelling (out of stock); payment: paid back; the order is refused (out of stock)."
    )


def test_an_alarm_stands_where_it_went_off_and_not_where_it_was_set() -> None:
    assert "the order is paid; clock: time is up; the order is cancelling (overdue)" in saga(OVERDUE_STEPS, OVERDUE).alt


def test_an_alarm_that_found_nothing_to_do_is_left_out() -> None:
    assert "time is up" not in words(saga(SHORT_STEPS, SHORT))
    assert "clock" not in words(saga(SHORT_STEPS, SHORT))


def test_what_came_too_late_says_so() -> None:
    assert saga(OVERDUE_STEPS, OVERDUE).alt.endswith("stock: reserved, which changes nothing.")
    assert "too late" in words(saga(OVERDUE_STEPS, OVERDUE))
    assert "too late" not in words(saga(SHORT_STEPS, SHORT))


def test_the_same_story_under_other_ids_is_the_same_picture() -> None:
    renamed, renamed_steps = SHORT.replace("short", "0199"), SHORT_STEPS.replace("short", "0199")
    assert saga(renamed_steps, renamed) == saga(SHORT_STEPS, SHORT)


def test_a_step_that_nobody_told_is_refused() -> None:
    with pytest.raises(ValueError, match="nobody told that the order is refused"):
        saga(SHORT_STEPS, SHORT[SHORT.id != "refused"])


def test_an_event_of_a_service_that_has_no_lane_is_refused() -> None:
    with pytest.raises(ValueError, match="none of order, payment"):
        saga(SHORT_STEPS, SHORT.replace(TYPES["short"], "lorry.order.short.v1"))


@pytest.mark.parametrize("column", ["id", "type", "cause"])
def test_a_story_without_a_column_is_refused(column: str) -> None:
    with pytest.raises(ValueError, match=column):
        saga(SHORT_STEPS, SHORT.drop(columns=column))


def test_a_load_says_how_many_were_sent_acknowledged_and_done() -> None:
    drawn = under_fire({"relay killed": LOAD})
    assert {"3 sent", "2 acknowledged", "2 done", "back after 3.2 s"} <= set(words(drawn))
    assert drawn.alt == (
        "Under fire. relay killed at 0.8 s, mended at 1.9 s, nothing of it left at 4.0 s:"
        " 3 sent, 2 acknowledged, 2 done."
    )


def test_another_load_is_another_picture() -> None:
    other = replace(LOAD, done=[0.5, 3])
    assert under_fire({"relay killed": other}).svg != under_fire({"relay killed": LOAD}).svg


def test_a_counter_that_must_be_0_says_whether_it_is() -> None:
    drawn = words(counter_table(COUNTERS, FELT))
    assert drawn.count("0 ✓") == 3
    assert drawn.count("1 ✗") == 1
    assert "7" in drawn
    assert {"3.2 s", "0.0 s"} <= set(drawn)
