"""The pictures of sessions say what the log of security events says, and are the same to the byte for the same rows."""

import html
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree

import pandas as pd
import pytest

from workshop.pictures import (
    Picture,
    how_soon,
    live_children,
    price_of_revoking,
    session_timeline,
    token_family,
)
from workshop.pictures.family import Family
from workshop.pictures.generations import MOST_ROWS

START = datetime(2017, 12, 23, 9, 0, 0, 250_000, tzinfo=UTC)
REUSE = "a refresh token was used again"


def log(*rows: tuple[str, str, int, int]) -> pd.DataFrame:
    """Events a second apart: type, device, the generation that was sent, and the one that came back."""
    made = []
    for second, (what, device, sent, got) in enumerate(rows):
        data: dict[str, object] = {"device": device} if device else {}
        if what in ("login", "refresh.rotated", "refresh.repeated"):
            data |= {"token_id": f"t{got}", "generation": got} | ({"parent_id": f"t{sent}"} if sent else {})
        if what == "refresh.reused":
            data |= {"token_id": f"t{sent}", "generation": sent}
        reason = {"session.revoked": REUSE if device else "logout", "refresh.reused": REUSE}.get(what, "")
        made.append({"at": START + timedelta(seconds=second), "type": what, "reason": reason, "data": data})
    return pd.DataFrame(made, columns=["at", "type", "reason", "data"])


LOGOUT = log(
    ("login", "phone", 0, 1), ("refresh.rotated", "phone", 1, 2), ("session.revoked", "", 0, 0),
    ("refresh.refused", "phone", 0, 0),
)  # fmt: skip
THEFT = log(
    ("login", "owner", 0, 1), ("refresh.rotated", "thief", 1, 2), ("refresh.rotated", "thief", 2, 3),
    ("refresh.reused", "owner", 1, 0), ("session.revoked", "owner", 0, 0), ("refresh.refused", "thief", 0, 0),
)  # fmt: skip
LEEWAY = log(
    ("login", "owner", 0, 1), ("refresh.rotated", "owner", 1, 2), ("refresh.repeated", "thief", 1, 2),
    ("refresh.repeated", "thief", 1, 2),
)  # fmt: skip
BRANCHES = log(
    ("login", "owner", 0, 1), ("refresh.rotated", "owner", 1, 2), ("refresh.rotated", "thief", 1, 3),
    ("refresh.rotated", "owner", 2, 4), ("refresh.rotated", "thief", 3, 5),
)  # fmt: skip
MANY = log(("login", "tab", 0, 1), *(("refresh.rotated", "tab", 1, 2 + child) for child in range(50)))

RACES = pd.DataFrame(
    [("strict", 50, 1, 0, "logged out"), ("grace", 50, 50, 50, "signed in"), ("same", 50, 1, 1, "signed in")],
    columns=["policy", "requests", "children", "live", "owner"],
)
ENDS = pd.DataFrame({"what": ["denied"] * 3 + ["closed"] * 3, "ms": [4.0, 6.0, 90.0, 5.0, 7.0, 8.0]})
LATENCIES = pd.DataFrame({"app": ["none", "looked-up"] * 3, "ms": [1.0, 2.0, 1.1, 2.2, 0.9, 1.8]})
WORKS = {"none": timedelta(seconds=2), "looked-up": timedelta(milliseconds=5)}

DRAWINGS: dict[str, Callable[[], Picture]] = {
    "time line": lambda: session_timeline(LOGOUT, timedelta(seconds=2)),
    "steps": lambda: session_timeline(THEFT),
    "steps of many": lambda: session_timeline(MANY),
    "family": lambda: token_family(THEFT),
    "the same again": lambda: token_family(LEEWAY),
    "branches": lambda: token_family(BRANCHES),
    "many branches": lambda: token_family(MANY),
    "races": lambda: live_children(RACES),
    "ends": lambda: how_soon(ENDS, promised_ms=1000),
    "prices": lambda: price_of_revoking(LATENCIES, WORKS),
}


def words(picture: Picture) -> str:
    """What is written in the picture: text is drawn as paths, and stands beside them as comments."""
    return html.unescape("\n".join(re.findall("<!--(.*?)-->", picture.svg)))


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_quick_small_and_the_same_to_the_byte(name: str) -> None:
    first = DRAWINGS[name]()
    began = time.process_time()
    assert DRAWINGS[name]() == first
    assert time.process_time() - began < 1
    assert len(first.svg.encode()) < 150_000


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_stands_alone_and_says_what_it_shows(name: str) -> None:
    picture = DRAWINGS[name]()
    root = ElementTree.fromstring(picture.svg)  # noqa: S314  # ours
    assert root.get("aria-label") == picture.alt
    assert len(picture.alt) > 60
    assert "<style" not in picture.svg


@pytest.mark.parametrize(
    ("events", "states"),
    [
        (LOGOUT, ["used", "revoked"]),
        (THEFT, ["used again", "used", "revoked"]),
        (LEEWAY, ["used", "live"]),
        (BRANCHES, ["used", "used", "used", "live", "live"]),
        (MANY, ["used", *["live"] * 50]),
    ],
)
def test_what_became_of_each_token_follows_from_the_events(events: pd.DataFrame, states: list[str]) -> None:
    assert Family.read(events).states() == states


def test_a_second_use_and_the_end_that_it_brings_are_one_step() -> None:
    family = Family.read(THEFT)
    assert [use.step for use in family.uses] == [1, 2, 3, 4, 5]
    assert family.ended == (4.0, 4, REUSE)


def test_of_two_ends_the_first_counts() -> None:
    twice = pd.concat([LOGOUT, LOGOUT.iloc[[2]].assign(reason="later")])
    ended = Family.read(twice).ended
    assert ended is not None
    assert ended[2] == "logout"


def test_the_family_names_whoever_sent_a_token_and_whoever_sent_it_again() -> None:
    said = words(token_family(THEFT))
    assert said.count("thief") == 2
    assert "by owner" in said
    assert "used again" in said
    assert "thief, 2 times" in words(token_family(LEEWAY))


def test_siblings_stand_below_one_another_and_those_that_do_not_fit_are_counted() -> None:
    assert words(token_family(BRANCHES)).count("✓ live") == 2
    assert f"{50 - MOST_ROWS} more are not drawn" in words(token_family(MANY))
    assert words(token_family(MANY)).count("✓ live") == MOST_ROWS


def test_an_access_token_that_outlives_its_session_is_shown_as_denied() -> None:
    assert "denied" in words(session_timeline(LOGOUT, timedelta(seconds=5)))
    assert "denied" not in words(session_timeline(LEEWAY, timedelta(seconds=5)))


def test_time_runs_in_seconds_or_in_steps() -> None:
    assert "seconds since the login" in words(session_timeline(LOGOUT, timedelta(seconds=2)))
    in_steps = words(session_timeline(THEFT))
    assert "seconds" not in in_steps
    assert in_steps.count("refreshes") == 2
    assert "refreshes" not in words(session_timeline(MANY))  # no room for words


@pytest.mark.parametrize("draw", [session_timeline, token_family])
def test_events_that_are_no_session_are_refused(draw: Callable[[pd.DataFrame], Picture]) -> None:
    with pytest.raises(ValueError, match="not the login"):
        draw(THEFT.iloc[1:])
    with pytest.raises(ValueError, match="no column 'data'"):
        draw(THEFT.drop(columns="data"))
    assert "nothing to draw" in draw(THEFT.iloc[:0]).alt


def test_a_race_is_good_when_one_child_lives() -> None:
    said = words(live_children(RACES))
    assert [line for line in said.splitlines() if "live of" in line] == [
        " ✗ 0 live of 1 ",
        " ✗ 50 live of 50 ",
        " ✓ 1 live of 1 ",
    ]


def test_ends_are_told_by_their_median_and_the_slowest() -> None:
    said = words(how_soon(ENDS, promised_ms=1000))
    for text in ("median 6.0 ms", "all by 90 ms", "median 7.0 ms", "all by 8.0 ms", "promised: 1,000 ms"):
        assert text in said
    with pytest.raises(ValueError, match="above 0"):
        how_soon(ENDS.assign(ms=0.0), promised_ms=1000)


def test_the_price_has_both_numbers_of_each_way() -> None:
    said = words(price_of_revoking(LATENCIES, WORKS))
    assert "1.00 ms; still works for 2,000 ms" in said
    assert "2.00 ms; still works for 5.0 ms" in said
    with pytest.raises(ValueError, match="one for each of"):
        price_of_revoking(LATENCIES, {"none": timedelta(seconds=2)})
