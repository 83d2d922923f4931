"""The lessons as tests: each one runs as it was committed, and every output that is compared is the same."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from html import unescape
from pathlib import Path

import pytest

from tests.notebooks import strictly
from tests.notebooks.guards import GUARDS, Guard
from workshop.report import reading

NOTEBOOKS = strictly.CHECKOUT / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))
START = NOTEBOOKS / "00_start_here.ipynb"
SHORT = NOTEBOOKS / "01_tokens.ipynb"

RUNS_AGAIN = "test_a_lesson_runs_again_with_the_same_outputs"

every_lesson = pytest.mark.parametrize("lesson", LESSONS, ids=[path.stem for path in LESSONS])


def test_there_is_a_lesson_to_start_with() -> None:
    assert START in LESSONS


def test_every_notebook_is_a_numbered_lesson() -> None:
    found = {path for path in NOTEBOOKS.rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts}
    assert found == set(LESSONS)


@every_lesson
@pytest.mark.parametrize("guard", GUARDS, ids=[guard.__name__ for guard in GUARDS])
def test_a_lesson_is_committed_as_it_should_be(lesson: Path, guard: Guard) -> None:
    complaints = guard(reading.read_notebook(lesson))
    if complaints:
        pytest.fail("\n".join([f"{guard.__doc__}", *complaints]), pytrace=False)


Runs = Mapping[Path, "Future[subprocess.CompletedProcess[str]]"]


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runs]:
    """All lessons that are asked for, two at a time: they wait more than they compute, and are to stand each other."""
    asked = [item.callspec.params["lesson"] for item in request.session.items if RUNS_AGAIN in item.name]  # type: ignore[attr-defined]  # of a parametrized test
    pool, env = ThreadPoolExecutor(2), dict(os.environ)
    yield {lesson: pool.submit(strictly.run, lesson, tmp_path_factory.mktemp("lesson"), env=env) for lesson in asked}
    pool.shutdown(cancel_futures=True)


@every_lesson
@pytest.mark.timeout(660)
def test_a_lesson_runs_again_with_the_same_outputs(lesson: Path, runs: Runs) -> None:
    ended = runs[lesson].result()
    if ended.returncode != 0:
        pytest.fail(f"{lesson.name} does not run as it was committed:\n{ended.stdout}", pytrace=False)


@pytest.mark.timeout(660)
def test_a_lesson_passes_in_the_report(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "workshop.report", SHORT.stem, "--profile", "quick", "--output", str(tmp_path)],
        check=False,
        cwd=strictly.CHECKOUT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    checks = reading.checks(reading.read_notebook(tmp_path / "lessons" / SHORT.name))
    page = unescape((tmp_path / "index.html").read_text())
    assert checks
    assert all(check.what in page for check in checks)
