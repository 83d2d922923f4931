"""Writes the report: one self-contained page over all lessons, and a page for each executed notebook.

Nothing in them is loaded from the network, and each file appears whole or not at all.
"""

import os
import platform
import re
import subprocess
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import psutil
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from nbconvert.exporters import HTMLExporter
from nbformat import NotebookNode

from workshop.report.reading import Lesson, Outcome, Picture

HERE = Path(__file__).parent
GIT_WITHIN_S = 10.0
SCREENSHOTS = "screenshots"
"""Beside the report: where the tests in a browser leave what they saw; there is none where they did not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What a run depends on besides the servers; nothing that names a person, a host or a folder."""

    cores: int
    memory_gib: float
    system: str
    python: str

    @classmethod
    def this(cls) -> Self:
        """The machine that this runs on."""
        try:
            system = platform.freedesktop_os_release()["PRETTY_NAME"]
        except OSError:
            system = platform.system()
        return cls(
            cores=os.cpu_count() or 1,
            memory_gib=psutil.virtual_memory().total / 2**30,
            system=f"{system}, {platform.machine()}",
            python=platform.python_version(),
        )


def commit(checkout: Path) -> str:
    """The short id of the commit that is checked out, and whether files differ from it; empty outside of git."""
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--dirty=, with changes", "--exclude=*"],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=GIT_WITHIN_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.strip()


def write_index(
    path: Path, lessons: Sequence[Lesson], *, profile: str, commit: str, at: datetime | None = None
) -> None:
    """Write the page over all lessons, which need no order: failures come first there."""
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"code": code, "duration": duration}
    by_server: dict[str, set[str]] = {}
    for lesson in lessons:
        for server, version in lesson.versions.items():
            by_server.setdefault(server, set()).add(version)
    page = environment.get_template("index.html.j2").render(
        lessons=sorted(lessons, key=lambda lesson: lesson.name),
        unwell=sorted(
            (lesson for lesson in lessons if lesson.failure),
            key=lambda one: (list(Outcome).index(one.outcome), one.name),
        ),
        passed=sum(lesson.passed for lesson in lessons),
        held=sum(lesson.held for lesson in lessons),
        checks=sum(len(lesson.checks) for lesson in lessons),
        seconds=sum(lesson.seconds for lesson in lessons),
        servers={server: ", ".join(sorted(found)) for server, found in sorted(by_server.items())},
        screenshots=screenshots(path.parent / SCREENSHOTS),
        machine=Machine.this(),
        profile=profile,
        commit=commit,
        at=at or datetime.now(UTC),
    )
    write_whole(path, page)


def screenshots(folder: Path) -> list[Picture]:
    """The PNGs in a folder, `my-orders-dark.png` under the name `my orders dark`; none if there is no folder."""
    return [
        Picture(url=f"data:image/png;base64,{b64encode(file.read_bytes()).decode()}", alt=file.stem.replace("-", " "))
        for file in sorted(folder.glob("*.png"))
    ]


def write_lesson(path: Path, notebook: NotebookNode, *, name: str, folder: Path) -> None:
    """Write an executed notebook as a page.

    Args:
        folder: where its Markdown finds its pictures, which go into the page.
    """
    exporter = HTMLExporter(template_name="lesson", extra_template_basedirs=[str(HERE)], embed_images=True)
    page, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": name, "path": str(folder)}})
    write_whole(path, page)


def write_whole(path: Path, text: str) -> None:
    """Write a file in one step: whoever looks sees the old one or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=path.suffix)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(fresh).chmod(0o644)
        Path(fresh).replace(path)
    except BaseException:
        Path(fresh).unlink(missing_ok=True)
        raise


def code(text: str) -> Markup:
    """Text in which `this` is shown as code, everything else as it is."""
    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704  # escaped before


def duration(seconds: float) -> str:
    """How long, as a person says it: `0.8 s`, `42 s`, `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
