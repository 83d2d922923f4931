"""Pictures of reads and of what caches could win: the same to the byte, right in what they say, and strict."""

from collections.abc import Callable
from xml.etree import ElementTree

import pandas as pd
import pytest

from tests.drawings import assert_stands_alone, words
from workshop.pictures import Picture, best_sellers, crowds, hit_ratios, latencies, reads_over_time

READS = [1] * 50 + [2] * 30 + list(range(3, 23))
PAUSED = {"paused": (0.4, 0.6)}


def reads(*layers: str, ms: float = 2.0, number: int = 100) -> pd.DataFrame:
    rows = [(at / 100, ms * (1 + at % 7), layers[at % len(layers)]) for at in range(number)]
    return pd.DataFrame(rows, columns=["due_s", "took_ms", "layer"])


def crowd(layer: str, loads: int, free_s: float | None = 0.5) -> pd.DataFrame:
    rows = [(reader / 1000, 0.6 + reader / 1000, layer) for reader in range(200)]
    frame = pd.DataFrame(rows, columns=["sent_s", "answered_s", "layer"])
    frame.attrs = {"loads": loads} | ({} if free_s is None else {"free_s": free_s})
    return frame


def ratios(policies: tuple[str, ...] = ("LRU", "our near cache", "Belády's optimum")) -> pd.DataFrame:
    rows = [(name, size, size / 1_000 / (1 + at)) for at, name in enumerate(policies) for size in (10, 100, 1_000)]
    return pd.DataFrame(rows, columns=["policy", "size", "ratio"])


DRAWINGS: dict[str, Callable[[], Picture]] = {
    "reads": lambda: reads_over_time({"two levels": reads("near", "far", "stale")}, PAUSED, title="Redis is paused"),
    "two apps": lambda: reads_over_time({"a": reads("near"), "b": reads("database", "failed", ms=900)}, title="Two"),
    "one read": lambda: reads_over_time({"a": reads("near", number=1)}, title="One read, and no more"),
    "crowds": lambda: crowds({"aside": crowd("loaded", 200), "a lease": crowd("far", 1, None)}),
    "latencies": lambda: latencies({"no cache": reads("database"), "both": reads("near", "loaded", ms=1)}),
    "best sellers": lambda: best_sellers(READS, marks=(1, 10)),
    "ratios": lambda: hit_ratios(ratios(), 1.0),
}


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_is_the_same_to_the_byte_stands_alone_and_says_what_it_shows(name: str) -> None:
    assert_stands_alone(DRAWINGS[name])


def test_reads_are_counted_by_who_answered_and_it_is_said_what_was_wrong_when() -> None:
    picture = DRAWINGS["reads"]()
    shown = words(picture)
    assert {"34 near", "33 far", "33 stale", "paused"} <= set(shown)
    assert "paused from 0.4 s to 0.6 s" in picture.alt
    assert "median 8.0 ms" in shown


def test_each_read_is_a_dot_and_errors_are_crosses() -> None:
    near = ElementTree.fromstring(reads_over_time({"a": reads("near")}, title="One").svg)  # noqa: S314  # ours
    strokes = [path.get("d", "") for path in near.iter("{http://www.w3.org/2000/svg}path")]
    assert max(path.count("L") for path in strokes) == 100
    assert "50 failed ✗" in words(DRAWINGS["two apps"]())


def test_a_crowd_s_picture_says_how_many_loads_it_took() -> None:
    shown = words(DRAWINGS["crowds"]())
    assert {"200 loads", "1 load", "200 loaded", "200 far"} <= set(shown)
    assert "200 readers, 1 load, 200 far" in DRAWINGS["crowds"]().alt


def test_latencies_say_the_median_and_the_slowest_of_99_in_100() -> None:
    shown = words(latencies({"both": reads("near", "loaded")}))
    assert {"median 8.0 ms", "99 % in 14 ms"} <= set(shown)


def test_best_sellers_say_their_share_of_all_reads() -> None:
    shown = words(DRAWINGS["best sellers"]())
    assert {"the first 1: 50%", "the first 10: 88%", "all 22"} <= set(shown)
    assert any("100 reads of 22 products; 20 of them were read once only" in word for word in shown)


def test_ratios_name_each_policy_with_its_figure_for_the_size_in_the_middle() -> None:
    shown = words(hit_ratios(ratios(), 1.0))
    assert {"LRU 10%", "our near cache 5%", "Belády's optimum 3%"} <= set(shown)
    assert "figures at the right: with 100 entries" in shown
    assert any(word.startswith("100.0%") for word in shown)


@pytest.mark.parametrize(
    ("draw", "why"),
    [
        (lambda: reads_over_time({"a": reads("nobody")}, title="x"), "no layer is called nobody"),
        (lambda: crowds({"a": reads("near")}), "no column 'sent_s'"),
        (lambda: latencies({"a": pd.DataFrame({"layer": []})}), "no column 'took_ms'"),
        (lambda: hit_ratios(ratios(("FIFO",)), 0.5), "no policy is called FIFO"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Callable[[], Picture], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        draw()


def test_where_there_is_nothing_nothing_is_drawn() -> None:
    assert "nothing to draw" in best_sellers([]).alt
    assert "nothing to draw" in crowds({}).alt
    assert "nothing to draw" in latencies({"a": reads("near", number=0)}).alt
