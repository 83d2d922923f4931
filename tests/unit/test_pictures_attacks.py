"""Pictures of the audit under attack: the same to the byte, right in what they say, and refusing what they cannot
draw."""

from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.pictures import Picture, merkle_path, seal_chains, under_attack, verdicts

SPANS = {"consumer killed": (1.0, 2.0, 2.5), "Kafka killed": (4.0, 6.0, 7.25)}


def delays(*rows: tuple[float, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["committed_s", "recorded_s"])


def many() -> pd.DataFrame:
    return delays(*[(at / 500, at / 500 + 0.05) for at in range(4_000)], (5.0, 8.0))


def seals(*rows: tuple[int, int, int, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["partition", "first", "next", "when"])


def attacks(*rows: tuple[str, str, str, bool]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["attack", "first", "by", "names_it"])


def proof(steps: int, links: int) -> dict[str, Any]:
    return {
        "leaf": "ab" * 32,
        "path": [["left" if n % 2 else "right", f"{n:02x}" * 32] for n in range(steps)],
        "chain": [
            {"first": n * 100, "next": n * 100 + 100, "count": 100, "root": f"{n:02x}" * 32, "previous": "cd" * 32}
            for n in range(links)
        ],
        "anchor": {"key_id": "0123456789abcdef"},
    }


TWO = seals((0, 0, 50, "before"), (0, 50, 90, "while paused"), (1, 0, 40, "before"))
SAID = attacks(("edits a record", "edited", "its own hash", True), ("does nothing", "", "nothing", False))
EVERY: dict[str, Callable[[], Picture]] = {
    "under attack": lambda: under_attack(many(), SPANS),
    "chains": lambda: seal_chains(TWO),
    "path": lambda: merkle_path(proof(7, 3)),
    "long path": lambda: merkle_path(proof(11, 30)),
    "a record alone": lambda: merkle_path(proof(0, 1)),
    "verdicts": lambda: verdicts(SAID),
}


@pytest.mark.parametrize("draw", EVERY.values(), ids=EVERY)
def test_a_picture_stands_alone(draw: Callable[[], Picture]) -> None:
    assert_stands_alone(draw)


def test_a_fault_says_how_long_it_was_felt_and_changes_how_long_they_waited() -> None:
    drawn = under_attack(many(), SPANS)
    assert {"back after 1,500 ms", "back after 3,250 ms", "3,000 ms at most", "50 ms as a rule"} <= set(words(drawn))
    assert "Kafka killed from 4.0 s to 6.0 s, records again at 7.2 s" in drawn.alt


def test_a_chain_says_how_many_seals_it_has_and_up_to_where() -> None:
    assert {"partition 0", "2 seals, to 90", "1 seal, to 40", "■ while paused"} <= set(words(seal_chains(TWO)))


def test_a_second_chain_shows() -> None:
    from workshop.pictures.attacks import BAD

    fork = seals((0, 0, 50, "before"), (0, 30, 60, "before"))
    assert BAD.lower() in seal_chains(fork).svg.lower()
    assert BAD.lower() not in seal_chains(TWO).svg.lower()


def test_a_proof_shows_the_hashes_that_it_gives_and_the_seals_on_the_way() -> None:
    drawn = words(merkle_path(proof(7, 3)))
    assert {"ababab", "the record", "000000", "060606", "the root", "seal 0 to 100", "anchor"} <= set(drawn)
    assert "28 more" not in drawn
    assert "27 more" in words(merkle_path(proof(11, 30)))


def test_a_verdict_says_what_was_found_and_whether_it_is_the_very_record() -> None:
    assert {"✓ edited, by its id", "✗ nothing"} <= set(words(verdicts(SAID)))
    assert "does nothing: nothing is found" in verdicts(SAID).alt


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda: under_attack(many().drop(columns="recorded_s"), SPANS), "no column 'recorded_s'"),
        (lambda: seal_chains(TWO.drop(columns="when")), "no column 'when'"),
        (lambda: verdicts(SAID.drop(columns="by")), "no column 'by'"),
    ],
)
def test_a_picture_refuses_what_it_cannot_draw(draw: Callable[[], Picture], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        draw()


@pytest.mark.parametrize(
    "draw", [lambda: under_attack(delays(), SPANS), lambda: seal_chains(seals()), lambda: verdicts(attacks())]
)
def test_of_nothing_there_is_nothing_to_draw(draw: Callable[[], Picture]) -> None:
    assert "nothing to draw" in draw().alt
