"""Every picture is the same to the byte for the same data, says what it shows, and refuses what it cannot draw."""

import asyncio
import html
import re
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import matplotlib
import pandas as pd
import pytest
from matplotlib.font_manager import findfont

from workshop.pictures import Picture, Throughput, journeys, live, system_map, throughput, where_orders_have_been
from workshop.pictures.style import LANES, MEANING, PAPER, SERIES, SYSTEM, apart, contrast, readable, tint
from workshop.stack import SERVERS

START = datetime(2017, 12, 23, 9, tzinfo=UTC)
VERSIONS = dict.fromkeys(SERVERS, "1.2.3")
STEPS = (
    ("http", "placed", 0),
    ("postgres", "stored", 4),
    ("rabbitmq", "published", 30),
    ("payment", "taken", 90),
    ("postgres", "paid", 110),
    ("kafka", "captured", 150),
    ("mongo", "audited", 180),
    ("websocket", "seen", 190),
)


def steps(orders: int) -> pd.DataFrame:
    rows = [
        (
            f"order-{order}",
            system,
            START + timedelta(milliseconds=20 * order + late * (1 + (order * 7 % 5) ** 2 / 20)),
            what,
        )
        for order in range(orders)
        for system, what, late in STEPS
    ]
    return pd.DataFrame(rows, columns=["order", "system", "at", "what"])


def reached(orders: int, lost: int = 0) -> pd.DataFrame:
    systems = dict.fromkeys(system for system, _, _ in STEPS)
    return pd.DataFrame({s: [s != "mongo" or order >= lost for order in range(orders)] for s in systems})


def events(orders: int) -> pd.DataFrame:
    rows = [
        (order * 0.05 + late, series) for series, late in (("placed", 0.0), ("paid", 0.2)) for order in range(orders)
    ]
    return pd.DataFrame(rows, columns=["at_s", "series"])


def metered(orders: int) -> Picture:
    meter = Throughput("Orders")
    for row in events(orders).itertuples():
        meter.add(str(row.series), float(str(row.at_s)))
    return meter.frame()


DRAWINGS: dict[str, Callable[[int], Picture]] = {
    "system map": lambda _: system_map(VERSIONS),
    "journeys": lambda orders: journeys(steps(orders)),
    "journeys since the first": lambda orders: journeys(steps(orders), relative_to="first"),
    "raster": lambda orders: where_orders_have_been(reached(orders, lost=orders // 3)),
    "throughput": lambda orders: throughput(events(orders), [(1.0, "killed"), (1.5, "started again")]),
    "meter": metered,
}


def words(picture: Picture) -> str:
    """What is written in the picture: text is drawn as paths, and stands beside them as comments."""
    return html.unescape("\n".join(re.findall("<!--(.*?)-->", picture.svg)))


@pytest.mark.parametrize("name", DRAWINGS)
@pytest.mark.parametrize("orders", [1, 100, 1000])
def test_a_picture_is_quick_small_and_the_same_to_the_byte(name: str, orders: int) -> None:
    first = DRAWINGS[name](orders)  # the process's first picture also finds the fonts
    began = time.process_time()
    again = DRAWINGS[name](orders)
    took = time.process_time() - began
    assert again == first
    assert took < 1
    assert len(first.svg.encode()) < 150_000


@pytest.mark.parametrize("name", DRAWINGS)
def test_a_picture_stands_alone_and_says_what_it_shows(name: str) -> None:
    picture = DRAWINGS[name](100)
    root = ElementTree.fromstring(picture.svg)  # noqa: S314  # ours
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert root.get("role") == "img"
    assert root.get("aria-label") == picture.alt
    assert "http://" not in picture.svg.replace("http://www.w3.org/", "")
    assert "<style" not in picture.svg  # it would apply to the page around it
    paper = root.find("{http://www.w3.org/2000/svg}rect")
    assert paper is not None
    assert paper.get("fill") == PAPER
    assert len(picture.alt) > 20


@pytest.mark.parametrize("name", DRAWINGS)
def test_the_process_s_own_matplotlib_settings_neither_show_nor_change(name: str) -> None:
    usual = DRAWINGS[name](3)
    with matplotlib.rc_context({"axes.grid": True, "font.size": 30, "svg.fonttype": "none", "text.color": "red"}):
        before = dict(matplotlib.rcParams)
        assert DRAWINGS[name](3) == usual
        assert dict(matplotlib.rcParams) == before


def test_the_font_is_the_one_that_comes_with_matplotlib() -> None:
    for weight in ("normal", "bold"):
        font = findfont(matplotlib.font_manager.FontProperties(family="DejaVu Sans", weight=weight))
        assert Path(font).is_relative_to(matplotlib.get_data_path())


def test_pictures_drawn_in_threads_at_once_are_those_drawn_alone() -> None:
    alone = [draw(3) for draw in DRAWINGS.values()]

    async def at_once() -> list[Picture]:
        return await asyncio.gather(*(asyncio.to_thread(draw, 3) for draw in DRAWINGS.values()))

    assert asyncio.run(at_once()) == alone


def test_a_notebook_shows_the_svg_and_keeps_the_words(tmp_path: Path) -> None:
    picture = Picture('<svg xmlns="http://www.w3.org/2000/svg"/>', "a picture of nothing")
    assert picture._repr_mimebundle_() == {"image/svg+xml": picture.svg, "text/plain": picture.alt}
    picture.save(tmp_path / "it.svg")
    assert (tmp_path / "it.svg").read_bytes() == picture.svg.encode()


def test_words_from_outside_are_drawn_as_they_are() -> None:
    drawn = throughput(events(2), [(0.1, '$x$ <b>&" killed')], title='a "title" & <more> $1 $2')
    assert drawn.svg.count('xlink:href="#DejaVuSans-Bold-7"') == 4  # each dollar is a letter, none begins a formula
    assert "killed" in words(drawn)
    root = ElementTree.fromstring(drawn.svg)  # noqa: S314  # ours
    assert 'a "title" & <more> $1 $2' in (root.get("aria-label") or "")


def test_the_map_knows_every_server_and_shows_which_does_not_run() -> None:
    everything = words(system_map(VERSIONS))
    assert everything.count("1.2.3") == len(SERVERS)
    assert "not running" not in everything
    some = system_map({"postgres": "18.4", "kafka": ""})
    assert "18.4" in words(some)
    assert words(some).count("not running") == len(SERVERS) - 1
    assert "PostgreSQL 18.4" in some.alt
    assert "Kafka not running" in some.alt


def test_the_map_refuses_a_server_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="oracle"):
        system_map({"oracle": "23"})


def test_each_step_of_a_single_order_is_labelled_with_its_time() -> None:
    said = words(journeys(steps(1)))
    for label in ("placed 0 ms", "stored 4.0 ms", "published 30 ms", "paid 110 ms", "seen 190 ms"):
        assert label in said


def test_the_median_of_many_orders_is_taken_over_all_of_them() -> None:
    frame = steps(1000)
    first = frame.groupby("order")["at"].transform("min")
    paid = frame["what"] == "paid"
    median = (frame["at"] - first)[paid].dt.total_seconds().median() * 1000
    picture = journeys(frame)
    assert f"paid {median:,.0f} ms" in words(picture)
    assert "120 of them drawn" in words(picture)


def test_seen_from_the_first_order_the_last_one_counts() -> None:
    assert "placed by 1,980 ms" in words(journeys(steps(100), relative_to="first"))


def test_a_step_that_was_repeated_counts_once_for_its_order() -> None:
    once = steps(3)
    late = once[once["what"] == "taken"].assign(at=lambda rows: rows["at"] + timedelta(milliseconds=50))
    assert "payment taken 108 ms" in journeys(once).alt
    assert "payment taken 108 ms" in journeys(pd.concat([once, late])).alt


def test_orders_that_never_arrived_are_counted_beside_the_lane() -> None:
    frame = steps(100)
    lost = (frame["system"] == "mongo") & frame["order"].isin(["order-3", "order-4"])
    assert "98 of 100" in words(journeys(frame[~lost]))
    assert "97 of 100" in words(where_orders_have_been(reached(100, lost=3)))


def test_the_order_of_the_rows_does_not_show() -> None:
    assert journeys(steps(20).iloc[::-1]) == journeys(steps(20))


def test_lanes_stand_in_the_story_s_order() -> None:
    matrix = reached(4)
    assert where_orders_have_been(matrix[matrix.columns[::-1]]) == where_orders_have_been(matrix)


@pytest.mark.parametrize("column", ["order", "system", "at", "what"])
def test_journeys_name_the_column_that_is_missing_or_has_a_gap(column: str) -> None:
    with pytest.raises(ValueError, match=f"steps.*'{column}'"):
        journeys(steps(2).drop(columns=column))
    gap = steps(2).astype({column: object})
    gap.loc[3, column] = None
    with pytest.raises(ValueError, match=f"steps.*'{column}'"):
        journeys(gap)


def test_journeys_refuse_times_without_a_zone_and_systems_nobody_knows() -> None:
    with pytest.raises(ValueError, match=r"'at'.*time zone"):
        journeys(steps(2).assign(at=lambda rows: rows["at"].dt.tz_localize(None)))
    with pytest.raises(ValueError, match="oracle"):
        journeys(steps(2).assign(system="oracle"))


@pytest.mark.parametrize(
    ("matrix", "what"),
    [
        (reached(2).rename(columns={"http": "ftp"}), "ftp"),
        (reached(2).rename(columns={"http": "mongo"}), "named twice"),
        (reached(2).set_axis([7, 7]), "7 is listed twice"),
        (reached(2).astype(object).assign(kafka=[True, float("nan")]), "'kafka'"),
        (reached(2).astype(object).assign(kafka=[True, "no"]), "'kafka'"),
    ],
)
def test_the_raster_refuses_what_is_no_yes_or_no(matrix: pd.DataFrame, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        where_orders_have_been(matrix)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "soon"])
def test_throughput_refuses_a_time_that_is_none(bad: object) -> None:
    with pytest.raises(ValueError, match="'at_s'"):
        throughput(pd.DataFrame({"at_s": [1.0, bad], "series": ["a", "a"]}))


def test_throughput_refuses_a_frame_without_its_columns_and_marks_at_no_time() -> None:
    with pytest.raises(ValueError, match="'series'"):
        throughput(events(2).drop(columns="series"))
    with pytest.raises(ValueError, match="marks"):
        throughput(events(2), [(float("nan"), "killed")])


def test_throughput_counts_each_event_once_in_the_step_it_falls_into() -> None:
    frame = pd.DataFrame({"at_s": [0.3, 0.6, 0.7, 5.9], "series": "paid"})
    assert "paid 4, at most 10 orders/s" in throughput(frame).alt  # steps of 0.1 s


@pytest.mark.parametrize(
    "picture",
    [
        journeys(steps(0)),
        where_orders_have_been(reached(0)),
        throughput(events(0)),
        Throughput("Orders").frame(),
    ],
)
def test_of_nothing_there_is_a_picture_that_says_so(picture: Picture) -> None:
    assert "nothing to draw" in picture.alt
    assert "nothing to draw" in words(picture)


def test_a_meter_forgets_what_left_its_window_but_for_the_sums() -> None:
    meter = Throughput("Orders", window_s=10)
    for tenth in range(10_000):
        meter.add("placed", tenth / 10, count=2)
    assert len(meter._counts["placed"]) <= 120
    assert "placed: 20,000" in words(meter.frame())


def test_a_step_that_is_not_over_is_not_drawn_as_a_drop(monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[list[float]] = []
    monkeypatch.setattr("workshop.pictures.flow._drawn", lambda *drawn: rates.append(list(drawn[4]["placed"])))
    meter = Throughput("Orders", window_s=30)  # steps of 0.5 s
    for at_s, count in ((0.1, 10), (0.6, 10), (1.1, 1)):
        meter.add("placed", at_s, count)
        meter.frame()
    assert rates == [[20], [20], [20, 20]]


@pytest.mark.parametrize(("at_s", "count"), [(float("nan"), 1), (-1.0, 1), (1.0, -1)])
def test_a_meter_refuses_what_cannot_have_happened(at_s: float, count: int) -> None:
    with pytest.raises(ValueError):
        Throughput("Orders").add("placed", at_s, count)
    with pytest.raises(ValueError, match="window_s"):
        Throughput("Orders", window_s=0)


class Page:
    """A notebook's output area: what was shown, under which id, and from which thread's point of view."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shown: list[tuple[Picture, str, bool]] = []
        self.thrice = asyncio.Event()
        monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
        monkeypatch.setattr("IPython.display.display", self._display)

    def _display(self, picture: Picture, *, display_id: str, update: bool) -> None:
        asyncio.get_running_loop()  # shown from the event loop, never from the thread that draws
        self.shown.append((picture, display_id, update))
        if len(self.shown) == 3:
            self.thrice.set()


class Count:
    """A picture of how often it was drawn."""

    def __init__(self) -> None:
        self.drawn = 0
        self.threads: set[int] = set()

    def __call__(self) -> Picture:
        self.drawn += 1
        self.threads.add(threading.get_ident())
        return Picture("<svg/>", str(self.drawn))


def test_a_live_picture_is_redrawn_in_its_place_and_stays_as_it_was_last(monkeypatch: pytest.MonkeyPatch) -> None:
    page, picture_of = Page(monkeypatch), Count()

    async def experiment() -> None:
        async with live(picture_of):
            await page.thrice.wait()

    asyncio.run(asyncio.wait_for(experiment(), 10))
    pictures, ids, updates = zip(*page.shown, strict=True)
    assert updates == (False, *[True] * (len(updates) - 1))
    assert len(set(ids)) == 1
    assert pictures[-1].alt == str(picture_of.drawn)
    assert picture_of.threads - {threading.get_ident()}  # drawn beside the event loop, which has work to do


def test_a_live_picture_is_not_redrawn_more_than_four_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch)
    now = [0.0]
    monkeypatch.setattr("workshop.pictures.redraw.time.monotonic", lambda: now[0])

    async def experiment() -> None:
        picture = live(Count())
        for tick in range(100):
            now[0] = tick / 100
            picture.update()

    asyncio.run(experiment())
    assert len(page.shown) == 4


def test_what_ends_an_experiment_is_seen_and_the_last_picture_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    page, picture_of = Page(monkeypatch), Count()

    async def experiment() -> None:
        async with live(picture_of):
            raise RuntimeError("the experiment's own")

    with pytest.raises(RuntimeError, match="the experiment's own"):
        asyncio.run(experiment())
    assert page.shown[-1][0].alt == str(picture_of.drawn)


def test_a_picture_that_cannot_be_drawn_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(monkeypatch)

    def picture_of() -> Picture:
        if page.shown:
            raise ValueError("no such column")
        return Picture("<svg/>", "the first")

    async def experiment() -> None:
        async with live(picture_of):
            await asyncio.sleep(0)

    with pytest.raises(ValueError, match="no such column"):
        asyncio.run(experiment())


def test_outside_a_notebook_nothing_is_drawn_or_printed(capsys: pytest.CaptureFixture[str]) -> None:
    picture_of = Count()

    async def experiment() -> None:
        async with live(picture_of) as picture:
            picture.update()

    asyncio.run(experiment())
    assert picture_of.drawn == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("colour", sorted({*SYSTEM.values(), *MEANING.values(), *SERIES}))
def test_words_in_any_colour_can_be_read_on_paper(colour: str) -> None:
    assert contrast(readable(colour), PAPER) >= 4.5
    assert contrast(readable(colour), tint(colour)) >= 3  # bold, on its own lane


def test_every_lane_has_a_colour() -> None:
    assert {colour for _, colour in LANES.values()} <= set(SYSTEM)


def test_labels_are_moved_apart_and_stay_within() -> None:
    starts = apart([0, 1, 95, 99], [20, 20, 20, 20], 0, 100)
    assert all(later >= earlier + 20 for earlier, later in pairwise(starts))
    assert starts[0] >= 0
    assert starts[-1] + 20 <= 100
