"""How a lesson talks to the report: marks in the outputs of its cells, seen by a person as text or a small box.

A mark is one more MIME type in an ordinary output, so it is kept in the notebook, and nothing lies beside it.
The lab shows one with `display(mark.bundle(), raw=True)`. This module needs the standard library only.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

CHECK = "application/vnd.showcase.check+json"
RECORD = "application/vnd.showcase.record+json"
VERSIONS = "application/vnd.showcase.versions+json"

Bundle = dict[str, Any]
"""MIME type → data, as Jupyter's display takes it."""

# Text keeps the colour of the page it is on, light or dark; these two are for the frame and a tint.
GREEN, RED = "46, 160, 67", "218, 54, 51"
BOX = "border-left: 4px solid rgb({rgb}); background: rgba({rgb}, 0.14); padding: 0.4em 0.8em; margin: 0.2em 0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that a lesson promises.

    Attributes:
        what: the promise, in a few words; the same in every run.
        holds: whether it was kept.
        detail: what was expected and what was seen and, when it does not hold, what to try.
    """

    what: str
    holds: bool
    detail: str = ""

    @classmethod
    def parse(cls, data: Any) -> "Check":
        """The check in a mark. Raises ValueError if there is none in it."""
        match data:
            case {"what": str(what), "holds": bool(holds), "detail": str(detail)}:
                return cls(what=what, holds=holds, detail=detail)
        raise ValueError(f"no mark of a check: {data!r}")

    def bundle(self) -> Bundle:
        """A green or red box that says it in words as well, a line of text, and the mark."""
        sign, word, rgb = ("✓", "holds", GREEN) if self.holds else ("✗", "does not hold", RED)
        detail = f'<div style="white-space: pre-wrap; opacity: 0.85">{escape(self.detail)}</div>' if self.detail else ""
        return {
            CHECK: asdict(self),
            "text/html": (
                f'<div role="note" style="{BOX.format(rgb=rgb)}">'
                f"<strong>{sign} {escape(self.what)}</strong> {word}{detail}</div>"
            ),
            "text/plain": f"{sign} {self.what} {word}" + (f": {self.detail}" if self.detail else ""),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One measured number, for the report; it differs from run to run, and no test compares it.

    Attributes:
        unit: as a person writes it behind the number: `orders/s`, `ms`, `MiB`; empty for a bare count.

    Raises ValueError for a number that is not finite, which JSON cannot hold.
    """

    name: str
    value: float
    unit: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.value):
            raise ValueError(f"{self.name} is {self.value}: only a finite number can be recorded")

    @classmethod
    def parse(cls, data: Any) -> "Record":
        """The record in a mark. Raises ValueError if there is none in it."""
        match data:
            case {"name": str(name), "value": bool()}:
                raise ValueError(f"{name} is no number")
            case {"name": str(name), "value": int() | float() as value, "unit": str(unit)}:
                return cls(name=name, value=value, unit=unit)
        raise ValueError(f"no mark of a record: {data!r}")

    @property
    def shown(self) -> str:
        """The number as a person reads it: `1,469,307`, `12.3 ms`, `0.00042 s`."""
        number = f"{self.value:,}" if isinstance(self.value, int) else f"{self.value:,.{self._decimals()}f}"
        return f"{number} {self.unit}".rstrip()

    def bundle(self) -> Bundle:
        """A line of text, in a form that nbval's sanitizer knows, and the mark."""
        return {RECORD: asdict(self), "text/plain": f"measured: {self.name} = {self.shown}"}

    def _decimals(self) -> int:
        """Enough for three significant digits, and no more."""
        magnitude = math.floor(math.log10(abs(self.value))) if self.value else 0
        return max(0, 2 - magnitude)


@dataclass(frozen=True, slots=True)
class Versions:
    """The servers that a lesson ran on, by name: `{"postgres": "18.4", …}`."""

    by_server: Mapping[str, str]

    @classmethod
    def parse(cls, data: Any) -> "Versions":
        """The versions in a mark. Raises ValueError if there are none in it."""
        if isinstance(data, dict) and all(isinstance(part, str) for pair in data.items() for part in pair):
            return cls(data)
        raise ValueError(f"no mark of versions: {data!r}")

    def bundle(self) -> Bundle:
        """A line of text, in a form that nbval's sanitizer knows, and the mark."""
        text = ", ".join(f"{name} {version}" for name, version in self.by_server.items())
        return {VERSIONS: dict(self.by_server), "text/plain": f"servers: {text}"}
