"""`python -m workshop.report`: run the lessons, say how each went, write the report.

Exit codes: 0 all passed; 1 a lesson or a check failed; 2 wrong usage, or no lesson found; 130 interrupted.
"""

import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from nbformat import NotebookNode
from rich.console import Console
from rich.markup import escape

from workshop.report import reading
from workshop.report.page import commit, duration, write_index, write_lesson
from workshop.report.reading import Failure, Lesson, Outcome
from workshop.report.run import Ran, run_notebook

FAILED, USAGE, INTERRUPTED = 1, 2, 130
LESSONS = "[0-9][0-9]_*.ipynb"
PAGES = "lessons"
STOPPED = (Outcome.INTERRUPTED, Outcome.NOT_RUN)

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
screen = Console(highlight=False, soft_wrap=True)
complaints = Console(stderr=True, highlight=False, soft_wrap=True)


class Profile(StrEnum):
    """How much a lesson does: what CI waits for, or a whole day of baskets and the long faults."""

    QUICK = "quick"
    FULL = "full"


@app.command()
def main(
    names: Annotated[list[str] | None, typer.Argument(help="Lessons, as `00` or `00_start_here`; all if none.")] = None,
    profile: Annotated[Profile, typer.Option(help="How much each lesson does.")] = Profile.QUICK,
    output: Annotated[Path, typer.Option(help="The folder for the report.", file_okay=False)] = Path("build/report"),
    timeout_s: Annotated[float, typer.Option(min=1, help="The longest that one lesson may take, in seconds.")] = 900,
    notebooks: Annotated[Path, typer.Option(help="The folder of the lessons.")] = Path("notebooks"),
) -> None:
    """Run lessons, each in a process of its own, and write a report of what held."""
    # Also in the background of a shell, which ignores SIGINT there; and whoever ends this wants its report.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    sources = chosen(notebooks, names or [])
    index = output / "index.html"
    try:
        lessons = run_all(sources, output / PAGES, profile=profile, timeout_s=timeout_s)
        write_index(index, lessons, profile=profile, commit=commit(notebooks))
    except OSError as error:
        complaints.print(f"[bold red]error:[/] {escape(str(error))}")
        complaints.print("  [bold]try:[/] another folder with --output; `workshop doctor` checks disk and memory")
        raise typer.Exit(FAILED) from None
    passed = sum(lesson.passed for lesson in lessons)
    style = "green" if passed == len(lessons) else "bold red"
    screen.print(f"[{style}]{passed} of {len(lessons)} lessons passed[/]; the report is {escape(str(index))}")
    if any(lesson.outcome in STOPPED for lesson in lessons):
        raise typer.Exit(INTERRUPTED)
    if passed < len(lessons):
        raise typer.Exit(FAILED)


def chosen(folder: Path, names: Sequence[str]) -> list[Path]:
    """The notebooks to run, in order. Exits with code 2 and one line of help when there is none."""
    found = sorted(folder.glob(LESSONS))
    if not found:
        complaints.print(f"[bold red]error:[/] no lesson ({escape(LESSONS)}) is in {escape(str(folder))}")
        complaints.print("  [bold]try:[/] from the folder of the checkout, or name the folder with --notebooks")
        raise typer.Exit(USAGE)
    picked = {}
    for name in names:
        stem = Path(name).name.removesuffix(".ipynb")
        if (path := next((path for path in found if stem in (path.stem, path.stem[:2])), None)) is None:
            complaints.print(f"[bold red]error:[/] there is no lesson {escape(name)}")
            complaints.print(f"  [bold]try:[/] one of {escape(', '.join(path.stem for path in found))}")
            raise typer.Exit(USAGE)
        picked[path] = True
    return sorted(picked) or found


def run_all(sources: Sequence[Path], pages: Path, *, profile: str, timeout_s: float) -> list[Lesson]:
    """Run one lesson after the other and tell of each; after an interrupt, the rest is not run."""
    pages.mkdir(parents=True, exist_ok=True)
    for stale in [*pages.glob(LESSONS), *pages.glob(LESSONS.replace(".ipynb", ".html"))]:
        stale.unlink()
    lessons: list[Lesson] = []
    for source in sources:
        try:
            stopped = bool(lessons) and lessons[-1].outcome in STOPPED
            lesson = not_run(source) if stopped else run_one(source, pages, profile=profile, timeout_s=timeout_s)
        except KeyboardInterrupt:  # while no kernel was running
            lesson = not_run(source)
        lessons.append(lesson)
        tell(lesson)
    return lessons


def run_one(source: Path, pages: Path, *, profile: str, timeout_s: float) -> Lesson:
    """Run one lesson, read what it says and write its page."""
    executed = pages / source.name
    page = executed.with_suffix(".html")
    with screen.status(f"{escape(source.stem)} …"):  # on a terminal only
        ran = run_notebook(source, executed, profile=profile, timeout_s=timeout_s)
    try:
        notebook = reading.read_notebook(executed) if executed.exists() else reading.nothing()
        outcome, failure = how_it_ended(notebook, ran, timeout_s)
        lesson = Lesson(
            name=source.stem,
            title=title_of(source),
            outcome=outcome,
            seconds=ran.seconds,
            failure=failure,
            checks=reading.checks(notebook),
            records=reading.records(notebook),
            pictures=reading.pictures(notebook),
            versions=reading.versions(notebook),
        )
    except ValueError as error:  # a mark that is none
        trouble = Failure(where="the whole notebook", what=str(error), remedy="open it in `make lab`")
        lesson = Lesson(
            name=source.stem, title=title_of(source), outcome=Outcome.FAILED, seconds=ran.seconds, failure=trouble
        )
    if not executed.exists():
        return lesson
    write_lesson(page, reading.read_notebook(executed), name=source.stem, folder=source.parent)
    return replace(lesson, page=f"{pages.name}/{page.name}")


def how_it_ended(notebook: NotebookNode, ran: Ran, timeout_s: float) -> tuple[Outcome, Failure | None]:
    """What came of a run, by how its process ended and by what the notebook says."""
    where = reading.stopped_at(notebook)
    if ran.interrupted:
        return Outcome.INTERRUPTED, Failure(where=where, what="interrupted", remedy="run it again")
    if ran.timed_out:
        what = f"it was not done after {duration(timeout_s)}"
        remedy = f"`workshop doctor`; or allow more with --timeout-s (it was {timeout_s:g})"
        return Outcome.TIMED_OUT, Failure(where=where, what=what, remedy=remedy)
    failure = reading.failure(notebook)
    if ran.code != 0 and (failure is None or failure.what == reading.NO_CHECK):  # no cell raised: the kernel died
        what = ran.said or f"papermill ended with exit code {ran.code}"
        remedy = "`workshop doctor` checks memory and disk" if notebook.cells else "open it in `make lab`"
        failure = Failure(where=where, what=what, remedy=remedy)
    return Outcome.FAILED if failure else Outcome.PASSED, failure


def not_run(source: Path) -> Lesson:
    """A lesson that came after an interrupt."""
    failure = Failure(where="the whole notebook", what="the run was interrupted before it", remedy="run it again")
    return Lesson(name=source.stem, title=title_of(source), outcome=Outcome.NOT_RUN, failure=failure)


def title_of(source: Path) -> str:
    """The title of a lesson; its name if it cannot be read."""
    try:
        return reading.title_of(reading.read_notebook(source), source.stem)
    except ValueError:
        return source.stem


def tell(lesson: Lesson) -> None:
    """One line for a lesson that passed; for any other also why, and what to try."""
    mark = {Outcome.PASSED: "[green]✓[/]", Outcome.NOT_RUN: "[yellow]-[/]", Outcome.INTERRUPTED: "[yellow]■[/]"}
    sign = mark.get(lesson.outcome, "[bold red]✗[/]")
    screen.print(
        f"{sign} {lesson.name:<28} {lesson.held}/{len(lesson.checks)} checks  {duration(lesson.seconds)}"
        + ("" if lesson.passed else f"  {lesson.outcome}")
    )
    if lesson.failure and lesson.outcome != Outcome.NOT_RUN:
        screen.print(f"    {escape(lesson.failure.where)}: {escape(lesson.failure.what)}")
        screen.print(f"    [bold]try:[/] {escape(lesson.failure.remedy)}")


if __name__ == "__main__":
    sys.exit(app())
