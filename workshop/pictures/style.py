"""Palette, type and paper of every picture, and the one place that turns a figure into SVG.

Colours are Okabe and Ito's (Color Universal Design, 2008), which people with any colour vision tell apart;
what we wrote ourselves is slate, so that it never looks like a server. Lengths are in points, from the
sheet's lower left corner.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any
from xml.sax.saxutils import quoteattr

from matplotlib.axes import Axes
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.style import context as style_context
from matplotlib.textpath import TextToPath

PAPER, INK, QUIET, RULE = "#FCFBF8", "#1F2A36", "#586572", "#D8DCDF"

SYSTEM: Mapping[str, str] = {
    "app": "#2F3E4E",
    "worker": "#5F7183",
    "postgres": "#0072B2",
    "rabbitmq": "#E69F00",
    "kafka": "#CC79A7",
    "connect": "#CC79A7",
    "mongo": "#009E73",
    "redis": "#D55E00",
    "websocket": "#56B4E9",
    "mail": "#8A8F3C",
}
"""The colour of each system, the same in every picture."""

MEANING: Mapping[str, str] = {"ok": "#009E73", "failed": "#C23B00", "waiting": "#E69F00"}
"""The colour of an outcome; always beside a word or a sign, never alone."""

SERIES = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#2F3E4E")
"""Colours of lines that stand for no system, in the order in which they are told apart best."""

TITLE_PT, NAME_PT, TEXT_PT, SMALL_PT = 17.0, 13.0, 12.0, 10.5

LANES: Mapping[str, tuple[str, str]] = {
    "http": ("HTTP", "app"),
    "postgres": ("PostgreSQL", "postgres"),
    "connect": ("Debezium", "connect"),
    "kafka": ("Kafka", "kafka"),
    "mongo": ("MongoDB", "mongo"),
    "rabbitmq": ("RabbitMQ", "rabbitmq"),
    "payment": ("payment", "worker"),
    "stock": ("stock", "worker"),
    "notice": ("notice", "worker"),
    "mail": ("mail", "mail"),
    "redis": ("Redis", "redis"),
    "websocket": ("WebSocket", "websocket"),
}
"""What an order passes, in the story's order: title and colour of each lane."""

_RC: dict[str, Any] = {
    "svg.fonttype": "path",  # the same on a machine without the font
    "svg.hashsalt": "showcase",
    "svg.id": None,
    "font.family": "DejaVu Sans",  # comes with matplotlib
    "font.size": TEXT_PT,
    "text.color": INK,
    "text.parse_math": False,  # a label with two dollars in it is no formula
    "axes.edgecolor": RULE,
    "axes.labelcolor": QUIET,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.formatter.useoffset": False,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": QUIET,
    "ytick.labelcolor": QUIET,
    "path.simplify": False,  # what a line looks like must not depend on how many points it has
}
# matplotlib's settings belong to the process: one picture at a time has them, and puts them back.
_SETTINGS = RLock()


@dataclass(frozen=True, slots=True)
class Picture:
    """A finished picture; the last expression of a notebook's cell shows it.

    Attributes:
        svg: the whole picture, with nothing outside it needed to draw it.
        alt: what it shows, for whoever does not see it.
    """

    svg: str
    alt: str

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"image/svg+xml": self.svg, "text/plain": self.alt}

    def save(self, path: Path | str) -> None:
        """Write the SVG to a file. Raises OSError."""
        Path(path).write_text(self.svg, encoding="utf-8", newline="\n")


@contextmanager
def sheet(width: float, height: float, title: str, subtitle: str = "") -> Iterator[Figure]:
    """A sheet of paper with a title, in the workshop's style whatever the process's own settings are."""
    with _SETTINGS, style_context(_RC, after_reset=True):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72)
        figure.patch.set_visible(False)
        left = 24 / width
        title = shortened(title, width - 48, TITLE_PT, bold=True)
        figure.text(left, 1 - 22 / height, title, fontsize=TITLE_PT, weight="bold", va="top")
        figure.text(left, 1 - 47 / height, subtitle, fontsize=TEXT_PT, color=QUIET, va="top")
        yield figure


def plot(figure: Figure, *, left: float, bottom: float, right: float, top: float) -> Axes:
    """Axes with these margins to the sheet's edges."""
    width, height = figure.get_size_inches() * 72
    return figure.add_axes(
        (left / width, bottom / height, (width - left - right) / width, (height - bottom - top) / height)
    )


def beside(axes: Axes, y: float, name: str, note: str, colour: str, note_colour: str, room: float) -> None:
    """A lane's name to the left of the axes, and what is to be said of it in the room to the right."""
    place = axes.get_yaxis_transform()
    narrow = NAME_PT * min(1.0, (room - 26) / max(1.0, text_width(note, NAME_PT, bold=True)))
    for x, text, ha, size, shade in (
        (-0.015, name, "right", NAME_PT, colour),
        (1.015, note, "left", narrow, note_colour),
    ):
        axes.text(x, y, text, transform=place, ha=ha, va="center_baseline", fontsize=size, weight="bold", color=shade)


def picture(figure: Figure, alt: str) -> Picture:
    """The sheet as a picture. To be called inside `sheet`."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    width, height = (f"{side * 72:g}" for side in figure.get_size_inches())
    body = drawn.getvalue().split(">", 3)[3]  # after the prolog's two tags and matplotlib's <svg …>
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the page around the picture
    body = re.sub(r"<defs>\s*</defs>\s*", "", body)
    body = re.sub(r'<g id="[^"]*"', "<g", body)  # a page with two pictures has each id once
    body = re.sub(r' d="[^"]*"', lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), body)
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" version="1.1"'
        f' role="img" aria-label={quoteattr(alt)} width="{width}pt" height="{height}pt"'
        f' viewBox="0 0 {width} {height}" style="max-width:100%;height:auto"'
        f' stroke-linejoin="round" stroke-linecap="butt">\n'
        f'<rect width="{width}" height="{height}" rx="12" fill="{PAPER}"/>{body.rstrip()}\n',
        alt,
    )


def nothing(title: str) -> Picture:
    """What is shown where there is nothing to show yet."""
    with sheet(640, 120, title, "nothing to draw") as figure:
        return picture(figure, f"{title}: nothing to draw")


def tint(colour: str, share: float = 0.12) -> str:
    """A light background of this colour."""
    (red, green, blue), paper = to_rgb(colour), to_rgb(PAPER)
    rest = 1 - share
    return to_hex((share * red + rest * paper[0], share * green + rest * paper[1], share * blue + rest * paper[2]))


@lru_cache
def readable(colour: str) -> str:
    """This colour, as dark as text on our paper must be (WCAG 2.2, 1.4.3: contrast 4.5 to 1)."""
    rgb = to_rgb(colour)
    while contrast(to_hex(rgb), PAPER) < 4.5:
        rgb = (rgb[0] * 0.97, rgb[1] * 0.97, rgb[2] * 0.97)
    return to_hex(rgb)


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, 1 to 21 (WCAG 2.2, relative luminance)."""

    def luminance(colour: str) -> float:
        red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour))
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@lru_cache(maxsize=4096)
def text_width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a text will be."""
    font = FontProperties(family="DejaVu Sans", size=size, weight="bold" if bold else "normal")
    return float(TextToPath().get_text_width_height_descent(text, font, ismath=False)[0])


def shortened(text: str, width: float, size: float, *, bold: bool = False) -> str:
    """The text, or as much of its beginning as fits."""
    text = " ".join(text.split())
    if text_width(text, size, bold=bold) <= width:
        return text
    while text and text_width(text + "…", size, bold=bold) > width:
        text = text[:-1]
    return text.rstrip() + "…"


def apart(wanted: Sequence[float], sizes: Sequence[float], low: float, high: float) -> list[float]:
    """Where labels start so that none covers another: near where each is wanted, between low and high.

    `wanted` is ascending. Where there is not room for all, the last ones stand beyond `low`.
    """
    starts: list[float] = []
    for start in wanted:
        free = starts[-1] + sizes[len(starts) - 1] if starts else low
        starts.append(max(start, free))
    for index in reversed(range(len(starts))):
        starts[index] = min(starts[index], high - sizes[index])
        high = starts[index]
    return starts
