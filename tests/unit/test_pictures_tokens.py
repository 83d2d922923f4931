"""Pictures of tokens: the same to the byte for the same data, with words, and no use to whoever copies them."""

import base64
import html
import json
import re
from xml.etree import ElementTree

import pandas as pd
import pytest

from workshop.pictures import Picture, anatomy, attack_matrix, key_changes

SIGNATURE = bytes(range(64))
HEADER = {"alg": "ES256", "typ": "at+jwt", "kid": "k" * 43}
CLAIMS = {"iss": "https://shop.example", "sub": "households/7", "scope": "orders:read " * 20, "amr": ["pwd"], "new": 1}
VERIFIERS = ["naive", "ours"]


def part(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


TOKEN = f"{part(json.dumps(HEADER).encode())}.{part(json.dumps(CLAIMS).encode())}.{part(SIGNATURE)}"


def verdicts(attacks: int) -> pd.DataFrame:
    rows = [(f"family {n // 9}", f"attack {n}", n % 3 == 0, False) for n in range(attacks)]
    return pd.DataFrame(rows, columns=["family", "attack", *VERIFIERS])


def requests(count: int, refused: int = 0, lost: int = 0) -> pd.DataFrame:
    rows = [(n / 10, f"households/{n % 8}", f"kid {n * 4 // count}", 200) for n in range(count)]
    frame = pd.DataFrame(rows, columns=["at_s", "customer", "kid", "status"])
    frame.loc[: refused - 1, "status"] = 401
    frame.loc[refused : refused + lost - 1, "status"] = 0
    return frame


DRAWINGS = {
    "anatomy": lambda: anatomy(TOKEN),
    "matrix": lambda: attack_matrix(verdicts(61), VERIFIERS),
    "keys": lambda: key_changes(requests(1_000, refused=8, lost=20), [(1.0, "rotated"), (1.2, "killed"), (99, "over")]),
}


def words(picture: Picture) -> str:
    """What is written in it: text is drawn as paths, and stands beside them as comments."""
    return html.unescape("\n".join(re.findall("<!--(.*?)-->", picture.svg)))


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_small_stands_alone_and_is_the_same_to_the_byte(name: str) -> None:
    picture = DRAWINGS[name]()
    assert picture == DRAWINGS[name]()
    assert len(picture.svg.encode()) < 150_000
    root = ElementTree.fromstring(picture.svg)  # noqa: S314  # ours
    assert root.get("aria-label") == picture.alt
    assert len(picture.alt) > 20


def test_the_anatomy_shows_every_member_with_its_purpose() -> None:
    picture = anatomy(TOKEN)
    for name in (*HEADER, *CLAIMS):
        assert f" {name} " in picture.alt
        assert name in words(picture)
    assert "whom it stands for" in words(picture)
    assert "64 bytes" in words(picture)


def test_nobody_can_use_a_token_from_its_picture() -> None:
    picture = anatomy(TOKEN)
    assert TOKEN.split(".")[2] not in picture.svg + picture.alt
    assert TOKEN.split(".")[2][:20] not in words(picture)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "!.!.!", f"{part(b'no json')}.e30."])
def test_what_is_no_token_is_not_drawn(text: str) -> None:
    with pytest.raises(ValueError):
        anatomy(text)


def test_the_matrix_counts_what_each_verifier_fell_for() -> None:
    picture = attack_matrix(verdicts(61), VERIFIERS)
    assert "Of 61 attacks accepted: naive 21, ours 0" in picture.alt
    assert "fell for 21" in words(picture)
    assert "for none" in words(picture)
    assert {f"attack {n}" for n in range(61)} <= {line.strip() for line in words(picture).splitlines()}


def test_the_matrix_has_a_stroke_more_for_each_token_that_was_accepted() -> None:
    one, none = verdicts(3), verdicts(3).assign(naive=False)
    assert attack_matrix(one, VERIFIERS).svg.count("#c23b00") > attack_matrix(none, VERIFIERS).svg.count("#c23b00")


def test_a_matrix_of_one_family_or_of_nothing_is_drawn() -> None:
    assert "Of 3 attacks" in attack_matrix(verdicts(3), VERIFIERS).alt
    assert "nothing to draw" in attack_matrix(verdicts(0), VERIFIERS).alt


def test_the_matrix_takes_only_yes_and_no() -> None:
    with pytest.raises(ValueError, match="no yes or no"):
        attack_matrix(verdicts(3).assign(ours=7), VERIFIERS)
    with pytest.raises(ValueError, match="'theirs'"):
        attack_matrix(verdicts(3), ["theirs"])


def test_the_keys_are_numbered_as_they_came_and_refusals_are_counted() -> None:
    picture = key_changes(requests(100, refused=3, lost=5), [(2.0, "rotated")])
    assert "100 requests of 8 customers; 3 refused (401); 5 without an answer" in picture.alt
    assert "tokens of 4 keys; at 2.0 s rotated" in picture.alt
    assert {"key 1", "key 4", "rotated", "households/0"} <= {line.strip() for line in words(picture).splitlines()}
    assert "none refused" in key_changes(requests(100), []).alt


def test_rows_may_come_in_any_order() -> None:
    frame = requests(200, refused=3)
    assert key_changes(frame.sample(frac=1, random_state=1), []) == key_changes(frame, [])


def test_times_are_numbers_and_columns_are_there() -> None:
    with pytest.raises(ValueError, match="finite"):
        key_changes(requests(10).assign(at_s=float("inf")), [])
    with pytest.raises(ValueError, match="finite"):
        key_changes(requests(10), [(float("nan"), "when?")])
    with pytest.raises(ValueError, match="'kid'"):
        key_changes(requests(10).drop(columns="kid"), [])
    assert "nothing to draw" in key_changes(requests(10).head(0), []).alt
