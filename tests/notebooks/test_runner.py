"""`python -m workshop.report` on small, real notebooks: what it tells, and what it leaves behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from html import unescape
from pathlib import Path

import psutil
import pytest

from tests.notebooks import making
from tests.notebooks.making import PARAMETERS
from workshop.report.page import write_whole
from workshop.report.run import MARK, kill

WITHIN_S = 60.0
SHOW = """
from IPython.display import display
from workshop.report.marks import Check, Record, Versions

def check(what, holds, detail=""):
    display(Check(what=what, holds=holds, detail=detail).bundle(), raw=True)
"""
HOLDS = 'check("nothing lost", True, "expected 100, saw 100")'
DOES_NOT_HOLD = 'check("paid once", False, "expected 100, saw 101; try `workshop doctor`")'
RAISES = "raise AssertionError('paid once')"
ENDLESS = """
import subprocess, time
from pathlib import Path

child = subprocess.Popen(["sleep", "600"])
try:
    Path("running").touch()
    while True:
        time.sleep(0.02)
finally:
    Path("cleaned").touch()
"""


def write(folder: Path, name: str, *cells: str) -> None:
    """A lesson: Markdown for strings that begin with #, code for all others; its kernel is on no machine."""
    made = [making.text(cell) if cell.startswith("# ") else making.code(cell) for cell in cells]
    begin = [making.code(PARAMETERS, tags=["parameters"]), making.code(SHOW)]
    making.save(making.notebook(*begin, *made, kernel="nowhere"), folder / f"{name}.ipynb")


@pytest.fixture
def lessons(tmp_path: Path) -> Path:
    folder = tmp_path / "notebooks"
    folder.mkdir()
    return folder


def command(folder: Path, *arguments: str) -> list[str]:
    output = folder.parent / "report"
    return [
        *(sys.executable, "-m", "workshop.report", "--notebooks", str(folder), "--output", str(output)),
        *arguments,
    ]


def report(folder: Path, *arguments: str, env: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, **(env or {})}
    return subprocess.run(
        command(folder, *arguments), check=False, capture_output=True, text=True, timeout=120, env=environment
    )


def page(folder: Path, name: str = "index.html") -> str:
    """What is on a page of the report, tags left out."""
    return unescape(re.sub(r"<[^>]*>", "", (folder.parent / "report" / name).read_text()))


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def runs_below(folder: Path) -> list[str]:
    """Every process that is in a folder, or was started by a run that works there."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and folder in (Path(process.cwd()), *Path(process.cwd()).parents):
                found.append(f"{process.pid} {process.cmdline()}")
        except psutil.Error:
            continue
    return found


def test_one_failed_lesson_does_not_stop_the_others(lessons: Path) -> None:
    write(lessons, "00_check", "# Broken promise", HOLDS, f"{DOES_NOT_HOLD}\n{RAISES}", "print('never')")
    write(lessons, "01_error", HOLDS, "1 / 0")
    write(lessons, "02_nothing", "1 + 1")
    (lessons / "03_broken.ipynb").write_text("{")
    write(lessons, "04_well", "# All is well", HOLDS, 'display(Versions({"postgres": "18.4"}).bundle(), raw=True)')
    stale = lessons.parent / "report/lessons/09_gone.html"
    write_whole(stale, "of an earlier run")
    ended = report(lessons)
    assert ended.returncode == 1, ended.stderr
    assert not stale.exists()
    assert re.search(r"✗ 00_check +1/2 checks", ended.stdout)
    assert "In [5] under “Broken promise”: ✗ paid once: expected 100, saw 101; try `workshop doctor`" in ended.stdout
    assert "In [5]: ZeroDivisionError: division by zero" in ended.stdout
    assert "no check ran" in ended.stdout
    assert re.search(r"✓ 04_well +1/1 checks", ended.stdout)
    assert "1 of 5 lessons passed" in ended.stdout
    text = page(lessons)
    assert "4 of 5 lessons did not pass" in text
    assert "18.4" in text
    assert "never" not in text
    assert "nothing lost" in page(lessons, "lessons/04_well.html")


def test_the_profile_reaches_a_lesson_and_the_kernel_is_this_python(lessons: Path, tmp_path: Path) -> None:
    impostor = tmp_path / "jupyter/kernels/python3/kernel.json"
    impostor.parent.mkdir(parents=True)
    impostor.write_text(json.dumps({"argv": ["/bin/false"], "display_name": "x", "language": "python"}))
    same = "import sys\ncheck(f'{profile} here', profile == 'full' and sys.executable == " + repr(sys.executable) + ")"
    write(lessons, "00_a", same)
    write(lessons, "01_b", RAISES)
    ended = report(lessons, "00", "--profile", "full", env={"JUPYTER_PATH": str(tmp_path / "jupyter")})
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "full here" in page(lessons)
    assert "01_b" not in page(lessons)


def test_a_lesson_that_does_not_end_is_ended_its_clean_up_runs_and_the_next_one_starts(lessons: Path) -> None:
    write(lessons, "00_endless", HOLDS, "# Waiting", ENDLESS)
    write(lessons, "01_well", HOLDS)
    ended = report(lessons, "--timeout-s", "20")
    assert ended.returncode == 1
    assert re.search(r"✗ 00_endless +1/1 checks .*timed out", ended.stdout)
    assert "In [5] under “Waiting”: it was not done after 20 s" in ended.stdout
    assert "✓ 01_well" in ended.stdout
    assert (lessons / "cleaned").exists()
    assert runs_below(lessons) == []


def test_a_deadline_that_comes_before_the_first_cell_is_told_as_one(lessons: Path) -> None:
    write(lessons, "00_a", "# Title", HOLDS)
    ended = report(lessons, "--timeout-s", "1")
    assert ended.returncode == 1
    assert "before the first cell: it was not done after 1.0 s" in ended.stdout
    assert "timed out: Title" in page(lessons)


@pytest.fixture
def endless(lessons: Path) -> Iterator["subprocess.Popen[str]"]:
    """A run of two lessons that has come to the middle of the first, in a process group of its own."""
    write(lessons, "00_endless", HOLDS, ENDLESS)
    write(lessons, "01_well", HOLDS)
    process = subprocess.Popen(
        command(lessons), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        until((lessons / "running").exists)
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_the_kernel_and_all_it_started_and_the_report_is_written(
    lessons: Path, endless: "subprocess.Popen[str]", number: signal.Signals
) -> None:
    assert any("ipykernel" in process for process in runs_below(lessons))
    os.killpg(endless.pid, number)
    output, _ = endless.communicate(timeout=WITHIN_S)
    assert endless.returncode == 130
    assert runs_below(lessons) == []
    assert (lessons / "cleaned").exists()
    text = page(lessons)
    assert "interrupted" in text
    assert "not run" in text
    assert "nothing lost" in text
    assert "0 of 2 lessons passed" in output


def test_a_runner_that_is_killed_leaves_no_kernel(lessons: Path, endless: "subprocess.Popen[str]") -> None:
    endless.kill()
    until(lambda: not any("ipykernel" in process or "report" in process for process in runs_below(lessons)))
    assert (lessons / "cleaned").exists()


def test_a_process_that_a_lesson_set_free_is_found_by_its_mark_and_killed() -> None:
    deaf = ["sh", "-c", 'trap "" TERM INT HUP; echo ready; while :; do sleep 0.1; done']
    one, other = (
        subprocess.Popen(deaf, env={**os.environ, MARK: mark}, stdout=subprocess.PIPE, start_new_session=True)
        for mark in ("mine", "another run's")
    )
    try:
        for process in (one, other):
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        kill(None, "mine")
        one.wait(WITHIN_S)
        assert other.poll() is None
    finally:
        for process in (one, other):
            process.kill()
            process.communicate()


def test_a_kernel_that_dies_is_told(lessons: Path) -> None:
    write(lessons, "00_dies", HOLDS, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    ended = report(lessons)
    assert ended.returncode == 1
    assert "Kernel died" in ended.stdout
    assert "✗ 00_dies" in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["07"], "there is no lesson 07"), (["--profile", "slow"], "profile"), (["--timeout-s", "0"], "timeout-s")],
)
def test_wrong_usage_is_told_and_nothing_runs(lessons: Path, arguments: list[str], said: str) -> None:
    write(lessons, "00_a", HOLDS)
    ended = report(lessons, *arguments)
    assert ended.returncode == 2
    assert said in ended.stderr
    assert not (lessons.parent / "report").exists()


def test_no_notebook_is_wrong_usage_told_in_one_line_and_what_to_try(tmp_path: Path) -> None:
    ended = report(tmp_path / "nowhere")
    assert ended.returncode == 2
    assert "no lesson" in ended.stderr
    assert "try:" in ended.stderr
