"""The pictures of one-time codes: right to the digit, the same to the byte, and they refuse what they cannot draw."""

import hmac
import html
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pandas as pd
import pytest
import segno

from workshop.pictures import Picture, answers_over_time, chances, code_windows, qr_code, truncation

RFC_4226_SECRET = b"12345678901234567890"
RFC_4226_CODES = ["755224", "287082", "359152", "969429", "338314", "254676", "287922", "162583", "399871", "520489"]
"""Appendix D, for the counters 0 to 9."""


def tried(accepted: set[int]) -> pd.DataFrame:
    rows = [(sent, step, 200 if sent == "first" and step in accepted else 422) for sent in ("first", "again")
            for step in range(-3, 3)]  # fmt: skip
    return pd.DataFrame(rows, columns=["sent", "step", "status"])


def heard(requests: int) -> pd.DataFrame:
    rows = [(n / 50, 401 if n % 6 == 0 else 422 if n < 7 else 429) for n in range(requests)]
    return pd.DataFrame(rows, columns=["at_s", "status"])


DRAWINGS: dict[str, Callable[[], Picture]] = {
    "truncation": lambda: truncation(hmac.digest(RFC_4226_SECRET, bytes(8), "sha1")),
    "windows": lambda: code_windows(tried({-1, 0})),
    "answers": lambda: answers_over_time(heard(300)),
    "chances": lambda: chances({"no throttle,\n100 a second": 8.64e6, "ours": 100.0}),
    "qr code": lambda: qr_code(segno.make("otpauth://totp/x").svg_inline(scale=4), 'a "link" & more'),
}


def words(picture: Picture) -> str:
    """What is written in the picture: text is drawn as paths, and stands beside them as comments."""
    return html.unescape("\n".join(re.findall("<!--(.*?)-->", picture.svg)))


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    picture = DRAWINGS[name]()
    assert DRAWINGS[name]() == picture
    root = ElementTree.fromstring(picture.svg)  # noqa: S314  # ours
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == picture.alt
    assert "http://" not in picture.svg.replace("http://www.w3.org/", "")
    assert "<style" not in picture.svg
    assert len(picture.alt) > 20
    assert "\n" not in picture.alt
    assert len(picture.svg.encode()) < 150_000


@pytest.mark.parametrize(("counter", "code"), list(enumerate(RFC_4226_CODES)))
def test_the_truncation_ends_at_the_codes_of_the_standard(counter: int, code: str) -> None:
    drawn = truncation(hmac.digest(RFC_4226_SECRET, counter.to_bytes(8, "big"), "sha1"))
    assert drawn.alt.endswith(f"the code is {code[:3]} {code[3:]}.")
    assert f"its last 6 digits: {code[:3]} {code[3:]}" in words(drawn)


def test_the_truncation_marks_where_the_last_half_byte_points() -> None:
    example = truncation(bytes.fromhex("1f8698690e02ca16618550ef7f19da8e945b555a"))  # RFC 4226 §5.4
    assert "the last half byte, a, is 10: begin at byte 10" in words(example)
    assert "0x50ef7f19 without its first bit is 1,357,872,921" in words(example)


def test_the_truncation_of_another_hash_is_refused() -> None:
    with pytest.raises(ValueError, match="32"):
        truncation(bytes(32))


@pytest.mark.parametrize("accepted", [set(), {0}, {-1, 0}, {2}])
def test_each_code_is_shown_as_it_was_answered(accepted: set[int]) -> None:
    drawn = code_windows(tried(accepted))
    assert words(drawn).count("✓ accepted") == len(accepted)
    assert words(drawn).count("✗ refused") == 12 - len(accepted)
    assert "again: accepted none of 6" in drawn.alt


def test_a_code_that_was_accepted_is_named_by_its_step() -> None:
    assert "first: accepted 1 back, this step of 6" in code_windows(tried({-1, 0})).alt
    assert "first: accepted 2 ahead of 6" in code_windows(tried({2})).alt


def test_the_order_of_the_steps_does_not_show() -> None:
    rows = tried({-1, 0})
    backwards = pd.concat([rows[rows["sent"] == sent].iloc[::-1] for sent in ("first", "again")])
    assert code_windows(backwards) == code_windows(rows)


def test_each_kind_of_answer_is_counted_beside_its_lane() -> None:
    drawn = answers_over_time(heard(300))
    assert drawn.alt == "What a guesser hears. 401 give a code: 50, 422 wrong: 5, 429 wait: 245."
    for said in ("401 give a code", "422 wrong", "429 wait", "50", "5", "245"):
        assert f" {said} " in words(drawn).splitlines()


def test_only_answers_that_came_have_a_lane() -> None:
    assert "429" not in answers_over_time(heard(7)).alt


def test_an_answer_that_nobody_expects_is_not_left_out() -> None:
    with pytest.raises(ValueError, match="500"):
        answers_over_time(pd.DataFrame({"at_s": [0.1], "status": [500]}))


@pytest.mark.parametrize(
    ("rate", "long"),
    [
        (346_574.0, "24 hours"),  # ln 2 / (2 · 10⁻⁶) guesses: even odds after just a day
        (8_640_000.0, "58 minutes"),
        (7_200.0, "48 days"),
        (100.0, "9.5 years"),
        (3.5e9, "9 seconds"),
    ],
)
def test_even_odds_are_marked_where_the_formula_has_them(rate: float, long: str) -> None:
    assert f"a thief: one in two after {long}." in chances({"a thief": rate}).alt


def test_longer_codes_take_longer_than_the_picture_is_wide() -> None:
    drawn = chances({"a thief": 100.0}, of=10**8)
    assert drawn.alt.endswith("a thief: one in two after 949 years.")
    assert re.findall(r'<use xlink:href="#m[^"]*" x="(\d+)', drawn.svg) == []  # a mark off the paper


def test_a_guesser_who_is_never_let_through_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        chances({"nobody": 0.0})


def test_a_qr_code_keeps_its_modules_and_gets_its_quiet_zone() -> None:
    svg = segno.make("otpauth://totp/x").svg_inline(scale=4)
    drawn = qr_code(svg, "a link")
    path = re.search(r' d="[^"]*"', svg)
    assert path is not None
    assert path[0] in drawn.svg
    with pytest.raises(ValueError, match="width"):
        qr_code("<svg/>", "nothing")


@pytest.mark.parametrize("column", ["step", "sent", "status"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(ValueError, match=f"answers.*'{column}'"):
        code_windows(tried({0}).drop(columns=column))


@pytest.mark.parametrize(
    "picture",
    [code_windows(tried({0}).iloc[:0]), answers_over_time(heard(0)), chances({})],
    ids=["windows", "answers", "chances"],
)
def test_of_nothing_there_is_a_picture_that_says_so(picture: Picture) -> None:
    assert "nothing to draw" in words(picture)
