"""The report: what a lesson says in its outputs, and the pages that are made of it."""

import json
import os
import re
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pytest
from nbformat import NotebookNode

from tests.notebooks import making
from tests.notebooks.making import shown
from workshop.report import reading
from workshop.report.marks import CHECK, RECORD, Check, Record, Versions
from workshop.report.page import code, duration, write_index, write_lesson, write_whole
from workshop.report.reading import Failure, Lesson, Outcome, Picture


def notebook(*cells: str | NotebookNode) -> NotebookNode:
    """A lesson: Markdown for strings that begin with #, code for all others; nothing of it has run."""
    made = [
        cell if not isinstance(cell, str) else making.text(cell) if cell.startswith("# ") else making.code(cell)
        for cell in cells
    ]
    return making.notebook(*made)


def text_of(html: str) -> str:
    """What a person reads of a page, white space evened out."""
    parser = Text()
    parser.feed(html)
    return " ".join("".join(parser.parts).split())


class Text(HTMLParser):
    """Collects text and what a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[str] = []
        self.loaded: list[str] = []

    def handle_data(self, data: str) -> None:
        self.parts.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("src", "srcset", "data", "poster") or (name == "href" and tag == "link"):
                self.loaded.append(value or "")


def loaded_by(html: str) -> list[str]:
    """Every address that a browser may fetch for a page: of elements, styles and scripts, not what is inside of it."""
    parser = Text()
    parser.feed(html)
    scripts = re.findall(r"<script(?![^>]*\btype=\"application/)[^>]*>(.*?)</script>", html, re.DOTALL)
    found = [
        *parser.loaded,
        *re.findall(r"url\(['\"]?([^)'\"]+)", html),
        *re.findall(r"@import\s+['\"]([^'\"]+)", html),
        *(address for script in scripts for address in re.findall(r"https?://[^\s'\"]+", script)),
    ]
    return [address for address in found if address and not address.startswith(("data:", "#"))]


# -- marks


def test_a_check_is_a_mark_a_box_and_a_line_of_text() -> None:
    check = Check(what="nothing <lost>", holds=False, detail="saw 3 & expected 0")
    bundle = check.bundle()
    assert Check.parse(json.loads(json.dumps(bundle[CHECK]))) == check
    assert bundle["text/plain"] == "✗ nothing <lost> does not hold: saw 3 & expected 0"
    assert "nothing &lt;lost&gt;" in bundle["text/html"]
    assert "saw 3 &amp; expected 0" in bundle["text/html"]
    assert text_of(bundle["text/html"]) == "✗ nothing <lost> does not holdsaw 3 & expected 0"
    assert "✓ nothing lost holds" in Check(what="nothing lost", holds=True).bundle()["text/plain"]


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [(812.4567, "orders/s", "812 orders/s"), (0.01234, "s", "0.0123 s"), (1469307, "", "1,469,307"),
     (12.34, "ms", "12.3 ms"), (0.0, "s", "0.00 s"), (-2.5, "%", "-2.50 %")],
)  # fmt: skip
def test_a_measured_number_is_shown_with_three_digits_and_its_unit(value: float, unit: str, shown: str) -> None:
    record = Record(name="rate", value=value, unit=unit)
    assert record.shown == shown
    assert record.bundle()["text/plain"] == f"measured: rate = {shown}"
    assert Record.parse(json.loads(json.dumps(record.bundle()[RECORD]))) == record


def test_a_number_that_json_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="rate is nan"):
        Record(name="rate", value=float("nan"))


@pytest.mark.parametrize("data", [None, {"what": "x"}, {"what": "x", "holds": 1, "detail": ""}, ["x"]])
def test_what_is_no_check_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match="no mark"):
        Check.parse(data)


@pytest.mark.parametrize(
    "data", [None, {"name": "x", "value": True, "unit": ""}, {"name": "x", "value": "1", "unit": ""}]
)
def test_what_is_no_record_is_refused(data: object) -> None:
    with pytest.raises(ValueError, match=r"no mark|no number"):
        Record.parse(data)


def test_versions_come_back_as_they_went_in() -> None:
    bundle = Versions({"postgres": "18.4", "mongo": "6.0.5"}).bundle()
    assert bundle["text/plain"] == "servers: postgres 18.4, mongo 6.0.5"
    assert Versions.parse(bundle["application/vnd.showcase.versions+json"]).by_server["postgres"] == "18.4"
    with pytest.raises(ValueError, match="no mark"):
        Versions.parse({"postgres": 18})


# -- reading an executed notebook


def executed(source: str, *outputs: NotebookNode) -> NotebookNode:
    return making.code(source, *outputs, count=7)


def test_a_check_that_does_not_hold_is_the_failure_even_if_nothing_was_raised() -> None:
    unkept = Check(what="paid once", holds=False, detail="saw 101")
    found = reading.failure(notebook("# Break *it*", executed("lab.check()", shown(unkept.bundle())), "1 + 1"))
    assert found is not None
    assert (found.where, found.what) == ("In [7] under “Break it”", "✗ paid once: saw 101")


def test_a_notebook_without_a_check_fails() -> None:
    found = reading.failure(notebook("1 + 1"))
    assert found is not None
    assert found.what == "no check ran"


def test_the_last_record_of_a_name_counts() -> None:
    cells = [executed("", shown(Record(name="rate", value=value).bundle())) for value in (1, 2)]
    assert reading.records(notebook(*cells)) == (Record(name="rate", value=2),)


def test_a_picture_is_taken_once_with_its_alt_text() -> None:
    svg = {"image/svg+xml": "<svg><script>alert(1)</script></svg>", "text/plain": "two lines that cross"}
    png = {"image/png": "iVBO\nRw0K\n", "text/plain": "a map"}
    found = reading.pictures(notebook(executed("", shown(svg), shown(png)), executed("", shown(svg))))
    assert [picture.alt for picture in found] == ["two lines that cross", "a map"]
    assert found[0].url.startswith("data:image/svg+xml;base64,")
    assert found[1].url == "data:image/png;base64,iVBORw0K"


def test_the_title_is_the_first_heading_outside_of_code() -> None:
    assert (
        reading.title_of(notebook("# \n```sh\n# no heading\n```\n# The `way` of an order"), "x")
        == "The way of an order"
    )
    assert reading.title_of(notebook("1"), "00_start_here") == "00 start here"


# -- the pages


def lesson(name: str, outcome: Outcome = Outcome.PASSED, **more: object) -> Lesson:
    failure = None if outcome == Outcome.PASSED else Failure(where="In [1]", what=f"{name} broke", remedy="`make lab`")
    return Lesson(name=name, title=f"Title of {name}", outcome=outcome, failure=failure, **more)  # type: ignore[arg-type]  # any field


def index(path: Path, *lessons: Lesson) -> str:
    write_index(
        path / "index.html", lessons, profile="quick", commit="abc1234", at=datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    )
    return (path / "index.html").read_text()


def test_page_shows_what_the_tests_in_a_browser_saw_if_they_ran(tmp_path: Path) -> None:
    assert "What a browser showed" not in index(tmp_path, lesson("00_a"))
    (tmp_path / "screenshots").mkdir()
    (tmp_path / "screenshots" / "my-orders-dark.png").write_bytes(b"PNG")

    html = index(tmp_path, lesson("00_a"))

    assert '<img src="data:image/png;base64,UE5H" alt="my orders dark"' in html
    assert loaded_by(html) == []


def test_failures_come_first_and_the_worst_of_them_before_the_others(tmp_path: Path) -> None:
    text = text_of(index(tmp_path, lesson("00_a"), lesson("01_b", Outcome.TIMED_OUT), lesson("02_c", Outcome.FAILED)))
    places = [text.index(part) for part in ("02_c broke", "01_b broke", "Lessons", "Title of 00_a")]
    assert places == sorted(places)
    assert "1 of 3 lessons passed" in text


def test_the_page_shows_all_that_a_lesson_says(tmp_path: Path) -> None:
    html = index(
        tmp_path,
        lesson(
            "00_a",
            seconds=65.2,
            checks=(Check(what="nothing <lost>", holds=True, detail="saw `0`"),),
            records=(Record(name="p99", value=12.3, unit="ms"),),
            pictures=(Picture(url="data:image/png;base64,AAAA", alt='a "map"'),),
            versions={"postgres": "18.4"},
            page="lessons/00_a.html",
        ),
        lesson("01_b", versions={"postgres": "17.1"}),
    )
    text = text_of(html)
    for part in ("nothing <lost>", "12.3 ms", "1/1", "1 min 05 s", "17.1, 18.4", "abc1234", "2026-01-02 03:04 UTC"):
        assert part in text
    assert '<img src="data:image/png;base64,AAAA" alt="a &#34;map&#34;"' in html
    assert 'href="lessons/00_a.html"' in html
    assert "saw <code>0</code>" in html


def test_no_page_names_the_machine_the_person_or_a_folder(tmp_path: Path) -> None:
    html = index(tmp_path, lesson("00_a"))
    for secret in (os.uname().nodename, str(Path.home()), str(Path.cwd()), str(tmp_path)):
        assert len(secret) < 4 or secret not in html


def test_no_page_loads_anything_from_anywhere(tmp_path: Path) -> None:
    (tmp_path / "map.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    figure = shown({"image/svg+xml": "<svg xmlns='http://www.w3.org/2000/svg'/>", "text/plain": "a line"})
    markdown = "# A title\n\n$a^2$\n\n![the map](map.svg)\n\n```mermaid\ngraph LR\n```"
    made = notebook(markdown, executed("1", figure, shown(Check(what="all", holds=True).bundle())))
    made.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {"state": {}}}
    write_lesson(tmp_path / "lesson.html", made, name="00_a", folder=tmp_path)
    html = (tmp_path / "lesson.html").read_text()
    assert loaded_by(html) == []
    assert "data:image/svg+xml;base64," in html
    pictures = (Picture(url="data:image/png;base64,AAAA", alt="a map"),)
    assert loaded_by(index(tmp_path, lesson("00_a", pictures=pictures, page="lessons/00_a.html"))) == []
    assert loaded_by("<script src='https://x.test/a.js'></script><style>a{background:url(b.png)}</style>") != []


def test_what_comes_from_a_lesson_is_text_never_markup() -> None:
    assert code("`<b>` & <i>") == "<code>&lt;b&gt;</code> &amp; &lt;i&gt;"


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    write_whole(path, "old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.84, "0.8 s"), (42.4, "42 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")]
)
def test_a_duration_is_said_as_a_person_says_it(seconds: float, said: str) -> None:
    assert duration(seconds) == said
