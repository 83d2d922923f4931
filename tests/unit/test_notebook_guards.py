"""Each guard over committed notebooks fires on what it is there for, and on nothing else."""

from collections.abc import Callable
from copy import deepcopy
from itertools import count

import pytest
from nbformat import NotebookNode

from tests.notebooks import guards
from tests.notebooks.making import PARAMETERS, code, notebook, printed, raised, shown, text
from workshop.report.marks import Check

IGNORE = "nbval-ignore-output"
HOLDS = shown(Check(what="nothing lost", holds=True).bundle())
SVG = {"image/svg+xml": "<svg/>", "text/plain": "two lines that cross"}


def lesson(*cells: NotebookNode) -> NotebookNode:
    """A lesson with nothing to complain of, but for what is in `cells`, which have run in order."""
    begin = (text("# A title"), code(PARAMETERS, tags=["parameters"]))
    end = (text("## The end"), code("lab.check()", HOLDS))
    own = [deepcopy(cell) for cell in (*begin, *cells, *end)]
    for number, cell in enumerate(own):
        cell.id = f"cell-{number}"
    made = notebook(*own)
    for number, cell in zip(count(1), (cell for cell in made.cells if cell.cell_type == "code"), strict=False):
        cell.execution_count = number
    return made


@pytest.mark.parametrize("guard", guards.GUARDS, ids=lambda guard: guard.__name__)
def test_a_lesson_as_it_should_be_passes_every_guard(guard: guards.Guard) -> None:
    made = lesson(
        code("import showcase\nlab.source(showcase)", shown({"text/plain": "…"}), tags=[IGNORE]),
        code("print(12)", printed("12\n")),
        code("%matplotlib inline\nlab.start('relay')"),
        code("rate = await lab.replay()\nlab.record('rate', rate, 'orders/s')", printed("812"), tags=[IGNORE]),
        code("pictures.map()", shown(SVG)),
        code("def small(n):\n    return n"),
        code("lab.check('same', True)", HOLDS),
    )
    assert guard(made) == []


def fired(guard: guards.Guard, made: NotebookNode) -> str:
    return "\n".join(guard(made))


@pytest.mark.parametrize("found", [None, 7])
def test_a_cell_that_did_not_run_in_its_turn(found: int | None) -> None:
    made = lesson(code("1 + 1", printed("2")))
    made.cells[2].execution_count = found
    assert fired(guards.ran_in_order, made) == f"cell 3 has the count {found}, not 2: restart the kernel and run all"


def test_an_error_and_text_on_stderr() -> None:
    made = lesson(code("1 / 0", raised("ZeroDivisionError", "")), code("warn()", printed("careful", "stderr")))
    assert "cell 3 has an error" in fired(guards.raised_nothing, made)
    assert "cell 4 has text on stderr" in fired(guards.raised_nothing, made)


@pytest.mark.parametrize(
    "source",
    ["print(1)", "frame", "frame.head", "a == b", "x = 1\nf'{x}'", "lab.check('x', True)", "pictures.swimlane(orders)",
     "with lab.replay():\n    display(1)", "await lab.record('x', 1)", "lab.source(relay)"],
)  # fmt: skip
def test_a_stripped_output(source: str) -> None:
    assert "cell 3 shows something" in fired(guards.has_outputs, lesson(code(source)))


@pytest.mark.parametrize(
    "source",
    ["x = 1", "frame;", "lab.kill('relay')", "def f():\n    print(1)", "if rare:\n    print(1)", "import pika"],
)
def test_a_cell_that_need_not_show_anything_is_no_stripped_one(source: str) -> None:
    assert fired(guards.has_outputs, lesson(code(source), code("1 + 1", printed("2")))) == ""


def test_a_notebook_that_hardly_shows_anything() -> None:
    assert "only 1 of 4 code cells" in fired(guards.has_outputs, lesson(code("x = 1"), code("y = 1")))


@pytest.mark.parametrize("tag", ["nbval-skip", "NBVAL_SKIP", "raises-exception", "nbval-raises-exception"])
def test_a_skipped_cell(tag: str) -> None:
    assert "cell 3 is marked" in fired(guards.skips_nothing, lesson(code("1", tags=[tag])))


@pytest.mark.parametrize("comment", ["# NBVAL_SKIP", "x = 1\n  #NBVAL_SKIP", "# NBVAL_RAISES_EXCEPTION"])
def test_a_cell_skipped_by_a_comment(comment: str) -> None:
    assert "cell 3 is marked nbval-" in fired(guards.skips_nothing, lesson(code(comment)))


def test_more_than_one_in_three_ignored() -> None:
    cells = [code("f()", printed("1"), tags=[IGNORE]), code("# NBVAL_IGNORE_OUTPUT\nf()", printed("1"))]
    compared = [code("f()", printed("1")) for _ in range(3)]
    assert "2 of 3 cells" in fired(guards.ignores_little, lesson(*cells))
    assert fired(guards.ignores_little, lesson(*cells, *compared)) == ""
    source = code("lab.source(a)", printed("…"), tags=[IGNORE])
    assert fired(guards.ignores_little, lesson(*cells, *compared, source, source)) == ""


@pytest.mark.parametrize("more", ["run()", "x = run()", "for x in run(): pass"])
def test_a_cell_does_not_hide_its_ignored_output_behind_source(more: str) -> None:
    hidden = code(f"lab.source(a)\n{more}", printed("1"), tags=[IGNORE])
    assert "2 of 3 cells" in fired(guards.ignores_little, lesson(hidden, hidden))
    assert "cell 3 is not compared" in fired(guards.checks_what_it_ignores, lesson(hidden))


def test_an_ignored_cell_without_a_check_before_the_next_heading() -> None:
    ignored = code("f()", printed("1"), tags=[IGNORE])
    check = code("lab.check('x', True)", HOLDS)
    assert "cell 3 is not compared" in fired(guards.checks_what_it_ignores, lesson(ignored))
    assert "cell 4 is not compared" in fired(guards.checks_what_it_ignores, lesson(check, ignored))
    assert "cell 3" in fired(guards.checks_what_it_ignores, lesson(ignored, text("## Next"), check))
    unchecked = code("lab.record('x', 1)", printed("1"))
    assert "cell 3" in fired(guards.checks_what_it_ignores, lesson(ignored, unchecked))
    also_ignored = code("lab.check('x', True)", HOLDS, tags=[IGNORE])
    assert "cell 3" in fired(guards.checks_what_it_ignores, lesson(ignored, also_ignored))
    assert fired(guards.checks_what_it_ignores, lesson(ignored, text("So:"), ignored, check)) == ""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda made: made.cells.pop(1), "0 cells are tagged"),
        (lambda made: made.cells[1].update(source="profile = 'full'"), "no cell tagged `parameters` says"),
        (lambda made: made.cells[2].metadata.update(tags=["injected-parameters"]), "papermill's output"),
    ],
)
def test_no_profile_to_choose(change: Callable[[NotebookNode], None], complaint: str) -> None:
    made = lesson(code("1"))
    change(made)
    assert complaint in fired(guards.takes_a_profile, made)


def test_a_long_cell_an_empty_one_and_a_class() -> None:
    made = lesson(code("x = 1\n" * 16), code(" \n"), code("if x:\n    class A: pass"), code("x = 1\n" * 15))
    assert fired(guards.is_short, made).splitlines() == [
        "cell 3 has 16 lines: 15 at most",
        "cell 4 is empty",
        "cell 5 defines a class: it belongs in a package",
    ]


def test_a_broken_promise_and_none_at_all() -> None:
    unkept = shown(Check(what="paid once", holds=False).bundle())
    assert "“paid once” does not hold" in fired(guards.keeps_its_promises, lesson(code("f()", unkept)))
    assert "no check" in fired(guards.keeps_its_promises, notebook(code("print(1)", printed("1"))))


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("in /home/ada/x.py", "names a folder of this machine: /home/ada/x.py"),
        ("'/tmp'", "names a folder"),
        ("see /work/course", "names a folder"),
        ("at 127.0.0.1:20431", "names a port: 127.0.0.1:20431"),
        ("http://localhost:8000/orders", "names a port"),
        ("2026-11-23 13:58", "shows a time of its run: 2026-11-23 13:58"),
    ],
)
def test_the_machine_and_the_moment_in_an_output(said: str, complaint: str) -> None:
    assert complaint in fired(guards.names_no_machine, lesson(code("f()", printed(said))))
    assert complaint in fired(guards.names_no_machine, lesson(code("f()", shown({"application/json": {"a": [said]}}))))


@pytest.mark.parametrize(
    "said", ["2017-12-23T09:15", "GET /orders/7", "https://x.test/home/a", "12:30", "a/tmp/b", "./var/x"]
)
def test_what_only_looks_like_the_machine(said: str) -> None:
    assert fired(guards.names_no_machine, lesson(code("f()", printed(said)))) == ""


def test_a_folder_in_the_source_and_a_time_that_is_not_compared() -> None:
    assert "names a folder" in fired(guards.names_no_machine, lesson(code("open('/tmp/x')")))
    ignored = code("f()", printed("2026-11-23 13:58"), tags=[IGNORE])
    assert fired(guards.names_no_machine, lesson(ignored)) == ""


@pytest.mark.parametrize("alt", [None, "", "<Figure size 640x480 with 1 Axes>", "<IPython.core.display.SVG object>"])
def test_a_picture_without_words(alt: str | None) -> None:
    data = {"image/svg+xml": "<svg/>"} | ({} if alt is None else {"text/plain": alt})
    assert "cell 3 shows a picture without" in fired(guards.describes_its_pictures, lesson(code("f()", shown(data))))


def test_a_picture_in_the_text_without_words_or_from_the_network() -> None:
    assert "without" in fired(guards.describes_its_pictures, lesson(text("![](map.svg)")))
    assert "without" in fired(guards.describes_its_pictures, lesson(text('<img src="map.svg">')))
    assert "network" in fired(guards.describes_its_pictures, lesson(text("![map](https://x.test/map.svg)")))
    assert fired(guards.describes_its_pictures, lesson(text("![the map](map.svg)"))) == ""
