"""What an executed notebook says: its checks, records, pictures and versions, and where it stopped."""

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from workshop.report.marks import CHECK, RECORD, VERSIONS, Check, Record, Versions

INJECTED_BY_PAPERMILL = "papermill-error-cell-tag"
PICTURES = ("image/svg+xml", "image/png", "image/jpeg")
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
NO_CHECK = "no check ran"
AFTER_A_CHECK = "`workshop doctor`; if all is well, run the lesson in `make lab`, cell by cell"


class Outcome(StrEnum):
    """How a lesson ended, the worst first: the order of the report."""

    FAILED = "failed"
    TIMED_OUT = "timed out"
    INTERRUPTED = "interrupted"
    NOT_RUN = "not run"
    PASSED = "passed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a lesson did not pass: where it was, what went wrong, what to try."""

    where: str
    what: str
    remedy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One picture, as a data URL, which an <img> shows without running what may be in it."""

    url: str
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One notebook and what came of running it.

    Attributes:
        name: of its file, without the ending.
        seconds: how long it ran.
        failure: None if and only if it passed.
        page: where the executed notebook is, from the report's own place; empty if there is none.
    """

    name: str
    title: str
    outcome: Outcome
    seconds: float = 0.0
    failure: Failure | None = None
    checks: tuple[Check, ...] = ()
    records: tuple[Record, ...] = ()
    pictures: tuple[Picture, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    page: str = ""

    @property
    def passed(self) -> bool:
        """Whether everything that it promises held."""
        return self.outcome == Outcome.PASSED

    @property
    def held(self) -> int:
        """How many of its checks held."""
        return sum(check.holds for check in self.checks)


def read_notebook(path: Path) -> NotebookNode:
    """A notebook from a file, its papermill banners left out. Raises ValueError if it is none."""
    try:
        notebook: NotebookNode = nbformat.read(path, as_version=4)
    except (OSError, UnicodeDecodeError, nbformat.reader.NotJSONError, nbformat.ValidationError) as error:
        raise ValueError(f"{path.name} cannot be read as a notebook: {str(error).splitlines()[0]}") from error
    notebook.cells = [c for c in notebook.cells if INJECTED_BY_PAPERMILL not in c.metadata.get("tags", [])]
    return notebook


def nothing() -> NotebookNode:
    """What there is of a notebook whose run ended before it was saved for the first time."""
    return NotebookNode(cells=[])


def title_of(notebook: NotebookNode, name: str) -> str:
    """The first heading of a notebook, or its name made readable."""
    return next((title for cell in notebook.cells for title in headings(cell)), name.replace("_", " "))


def headings(cell: NotebookNode) -> list[str]:
    """The headings in a Markdown cell, without their signs and emphasis."""
    if cell.cell_type != "markdown":
        return []
    text = re.sub(r"^(```|~~~).*?^\1", "", cell.source, flags=re.MULTILINE | re.DOTALL)
    return [line.replace("`", "").replace("*", "") for line in re.findall(r"^#+ +(.+?)[ #]*$", text, re.MULTILINE)]


def outputs(notebook: NotebookNode) -> Iterator[NotebookNode]:
    """Every output of every code cell, in order."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            yield from cell.outputs


def checks(notebook: NotebookNode) -> tuple[Check, ...]:
    """All checks. Raises ValueError for a mark that is malformed."""
    return tuple(Check.parse(o.data[CHECK]) for o in outputs(notebook) if CHECK in o.get("data", {}))


def records(notebook: NotebookNode) -> tuple[Record, ...]:
    """All records; of one name the last. Raises ValueError for a mark that is malformed."""
    found = [Record.parse(o.data[RECORD]) for o in outputs(notebook) if RECORD in o.get("data", {})]
    return tuple({record.name: record for record in found}.values())


def versions(notebook: NotebookNode) -> dict[str, str]:
    """The servers' versions. Raises ValueError for a mark that is malformed."""
    found: dict[str, str] = {}
    for output in outputs(notebook):
        if VERSIONS in output.get("data", {}):
            found |= Versions.parse(output.data[VERSIONS]).by_server
    return found


def pictures(notebook: NotebookNode) -> tuple[Picture, ...]:
    """All pictures; one that is shown twice (a live display is, when it was shown in two cells) once."""
    found = {}
    for output in outputs(notebook):
        data = output.get("data", {})
        if kind := next((kind for kind in PICTURES if kind in data), None):
            picture = Picture(url=data_url(kind, data[kind]), alt=data.get("text/plain", "").strip())
            found[picture.url] = picture
    return tuple(found.values())


def data_url(kind: str, content: str) -> str:
    """A picture of an output as a data URL. SVG is text there; PNG and JPEG are base64 already, in lines."""
    encoded = base64.b64encode(content.encode()).decode() if kind == "image/svg+xml" else "".join(content.split())
    return f"data:{kind};base64,{encoded}"


def failure(notebook: NotebookNode) -> Failure | None:
    """What stopped a notebook, or which promise was not kept, or that it promised nothing; None if all is well."""
    heading = ""
    unkept = None
    for cell in notebook.cells:
        heading = next(reversed(headings(cell)), heading)
        if cell.cell_type != "code":
            continue
        where = place(cell, heading)
        broken = [Check.parse(o.data[CHECK]) for o in cell.outputs if CHECK in o.get("data", {})]
        broken = [check for check in broken if not check.holds]
        error = next((o for o in cell.outputs if o.output_type == "error"), None)
        if broken:
            what = "; ".join(f"✗ {check.what}: {check.detail}".rstrip(": ") for check in broken)
            unkept = unkept or Failure(where=where, what=what, remedy=AFTER_A_CHECK)
        if error is not None:
            return unkept or Failure(where=where, what=last_line(error), remedy=remedy_for(error.ename))
    if unkept is None and not checks(notebook):
        return Failure(where="the whole notebook", what=NO_CHECK, remedy="a lesson promises something: `lab.check(…)`")
    return unkept


def stopped_at(notebook: NotebookNode) -> str:
    """Where a run that was ended from outside had got to: the last cell that was begun."""
    heading = where = ""
    for cell in notebook.cells:
        heading = next(reversed(headings(cell)), heading)
        if cell.cell_type == "code" and cell.metadata.get("papermill", {}).get("start_time"):
            where = place(cell, heading)
    return where or "before the first cell"


def place(cell: NotebookNode, heading: str) -> str:
    """Where a cell is, as a person finds it on the page of the executed notebook."""
    number = cell.execution_count or " "
    return f"In [{number}]" + (f" under “{heading}”" if heading else "")


def last_line(error: NotebookNode) -> str:
    """What Python says last of an exception, without colours; a message of several lines is cut to its first."""
    message = ANSI.sub("", error.evalue).strip().splitlines()
    return f"{error.ename}: {message[0]}" if message else str(error.ename)


def remedy_for(exception: str) -> str:
    """What to try after an exception, by its name."""
    match exception:
        case "StackError" | "ConnectionError" | "ConnectionRefusedError" | "OperationalError" | "TimeoutError":
            return "`workshop status`, then `workshop doctor`"
        case "ModuleNotFoundError" | "ImportError":
            return "`make run` installs what is missing"
    return "open the executed notebook for the traceback, or run the lesson in `make lab`"
