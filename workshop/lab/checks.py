"""Checkpoints: a green or red box for a person, an assertion for a test, a row for the report."""

import inspect
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from IPython.display import Markdown, display

from workshop.report.marks import Check, Record
from workshop.stack.local.folder import CHECKOUT

T = TypeVar("T")

POLL_S = 0.05


class CheckFailed(AssertionError):
    """A lesson's promise was not kept."""

    def _render_traceback_(self) -> list[str]:
        """For IPython: the words are enough, and the box above them has them as well."""
        return [f"CheckFailed: {self}"]


def check(what: str, holds: bool, detail: str = "") -> None:
    """Show whether something holds.

    Args:
        what: the promise, in words that are the same in every run.
        detail: what was expected and what was seen.

    Raises CheckFailed if it does not hold.
    """
    holds = bool(holds)
    shown = detail if holds else f"{detail}\ntry: `workshop doctor`, and the logs of a process: lab.logs(name)".strip()
    display(Check(what=what, holds=holds, detail=shown).bundle(), raw=True)
    if not holds:
        raise CheckFailed(f"{what}. {shown}")


def agree(what: str, **sources: object) -> None:
    """Check that sources that know nothing of each other say the same.

    Args:
        sources: two or more, each under the name of who says it: `postgres=100, pandas=100`.

    Raises CheckFailed if they do not, ValueError for less than two.
    """
    if len(sources) < 2:
        raise ValueError("one source agrees with itself, whatever it says: name a second one")
    plain = {name: _plain(value) for name, value in sources.items()}
    first = next(iter(plain.values()))
    same = all(value == first for value in plain.values())
    seen = ", ".join(f"{name} {_shown(value)}" for name, value in plain.items())
    check(what, same, f"{' and '.join(plain)} say {_shown(first)}" if same else f"they differ: {seen}")


def until(condition: Callable[[], T], within: str = "30 s", what: str = "") -> T:
    """Wait for a condition to become true, and return what it returned.

    Args:
        within: how long, at the most: `500 ms`, `5 s`, `2 min`.
        what: what is waited for, for the message when it does not come.

    Raises CheckFailed when it does not.
    """
    deadline = time.monotonic() + pd.Timedelta(within).total_seconds()
    while not (result := condition()):
        if time.monotonic() > deadline:
            name = what or inspect.getdoc(condition) or "what this cell waits for"
            raise CheckFailed(f"not within {within}: {name}. Seen last: {result!r}\ntry: `workshop doctor`")
        time.sleep(POLL_S)
    return result


def record(name: str, value: float, unit: str = "") -> None:
    """Show a measured number and keep it for the report. It differs from run to run: tag its cell so."""
    display(Record(name=name, value=value, unit=unit).bundle(), raw=True)


def source(thing: Any, *more: Any) -> None:
    """Show the source of functions, methods or classes, with file and line."""
    for one in (thing, *more):
        lines, first = inspect.getsourcelines(one)
        place = Path(inspect.getsourcefile(one) or "").relative_to(CHECKOUT)
        code = inspect.cleandoc("\n" + "".join(lines)) if lines[0].startswith(" ") else "".join(lines).rstrip()
        display(Markdown(f"`{place}`, from line {first}\n\n```python\n{code}\n```"))


def _plain(value: Any) -> Any:
    """Numbers of numpy as Python's own."""
    return value.item() if hasattr(value, "item") else value


def _shown(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else repr(value)
    return text if len(text) < 300 else f"{text[:300]} …"
