"""nbval, as lessons are run with it: what differs fails, but for what is measured."""

from pathlib import Path

import pytest
from nbformat import NotebookNode

from tests.notebooks import strictly
from tests.notebooks.making import PARAMETERS, code, notebook, printed, save, shown
from workshop.report.marks import Check, Record

IGNORE = "nbval-ignore-output"
HOLDS = shown(Check(what="nothing lost", holds=True).bundle())


def run(made: NotebookNode, folder: Path) -> tuple[int, str]:
    save(made, folder / "00_a.ipynb")
    ended = strictly.run(folder / "00_a.ipynb", folder)
    return ended.returncode, ended.stdout


MARKS = "from IPython.display import display\nfrom workshop.report.marks import Check, Record, Versions"


def test_measured_numbers_may_differ_and_checks_may_not(tmp_path: Path) -> None:
    made = notebook(
        code(MARKS),
        code("display(Record(name='rate', value=2, unit='/s').bundle(), raw=True)",
             shown(Record(name="rate", value=1, unit="/s").bundle())),
        code("display(Versions({'mongo': '6'}).bundle(), raw=True)",
             shown({"text/plain": "servers: mongo 8", "application/vnd.showcase.versions+json": {"mongo": "8"}})),
        code("import time\ntime.time()", printed("1"), tags=[IGNORE]),
    )  # fmt: skip
    for number, cell in enumerate(made.cells, start=1):
        cell.execution_count = number
    ended, said = run(made, tmp_path)
    assert ended == 0, said
    made.cells.append(
        code("display(Check(what='nothing lost', holds=True, detail='saw 99').bundle(), raw=True)", HOLDS)
    )
    made.cells[-1].execution_count = 9
    ended, said = run(made, tmp_path)
    assert ended == 1
    assert "Cell outputs differ" in said
    assert "saw 99" in said


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        (code("print(2)", printed("1\n"), count=2), "Cell outputs differ"),
        (code("print(2)", count=2), "Unexpected output fields"),
        (code("x = 1", printed("1\n"), count=2), "Missing output fields"),
        (code("1 / 0", tags=[IGNORE], count=2), "ZeroDivisionError"),
    ],
    ids=["another output", "an output that was stripped", "an output that is gone", "an error that is ignored"],
)
def test_a_lesson_that_is_not_as_it_was_committed_fails_and_shows_the_cell(
    cell: NotebookNode, said: str, tmp_path: Path
) -> None:
    ended, output = run(notebook(code(PARAMETERS, count=1), cell), tmp_path)
    assert ended == 1
    assert said in output
    assert cell.source in output
