"""The way of one message: each attempt at it, what it waited for between them, and where it ended."""

from collections.abc import Mapping, Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from workshop.pictures.frames import duration, milliseconds, require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    RULE,
    SMALL_PT,
    SYSTEM,
    TEXT_PT,
    Picture,
    apart,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    shortened,
    text_width,
    tint,
)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960.0, 330.0, 132.0, 44.0, 96.0, 52.0
LANES = ("consumer", "retry queues", "parking lot")
WHATS: Mapping[str, tuple[str, str]] = {
    "failed": ("✗", MEANING["failed"]),
    "parked": ("", MEANING["failed"]),
    "replayed": ("↻", SYSTEM["app"]),
    "handled": ("✓", readable(MEANING["ok"])),
}
"""What may happen to a message: its sign and colour."""


def message_timeline(steps: pd.DataFrame, *, title: str = "The way of one message") -> Picture:
    """One message over time: its attempts above, the waits between them, and the parking lot below.

    Args:
        steps: one row a step, in their order: `at`, and `what` of WHATS. After `failed` it waits in a retry queue, if
            it was not parked next; after `parked`, in the parking lot.

    Raises ValueError for a frame that cannot be read.
    """
    require("steps", steps, "at", "what")
    if unknown := sorted(set(steps["what"]) - set(WHATS)):
        raise ValueError(f"steps: nothing is called {', '.join(unknown)}; there are {', '.join(WHATS)}")
    if steps.empty:
        return nothing(title)
    seconds = (milliseconds("steps", "at", steps["at"]) / 1000).tolist()
    if seconds != sorted(seconds):
        raise ValueError("steps: a later step comes before an earlier one")
    whats = steps["what"].tolist()
    attempts = sum(what in ("failed", "handled") for what in whats)
    subtitle = f"{attempts} attempt{'s' * (attempts > 1)}, in seconds since the first; below: where it waited meanwhile"
    with sheet(WIDTH, HEIGHT, title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
        _lanes(axes, seconds[-1])
        _waits(axes, seconds, whats)
        _attempts(axes, seconds, whats)
        told = ", ".join(f"{what} at {at:.1f} s" for at, what in zip(seconds, whats, strict=True))
        return picture(figure, f"{title}. {subtitle.partition(';')[0]}: {told}.")


def _lanes(axes: Axes, end: float) -> None:
    axes.set(xlim=(-0.02 * max(end, 0.1), 1.04 * max(end, 0.1)), ylim=(len(LANES), 0))
    axes.set_yticks([])
    axes.set_xlabel("seconds", labelpad=6)
    axes.tick_params(length=0, pad=6)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    place = axes.get_yaxis_transform()
    for lane, name in enumerate(LANES):
        axes.axhline(lane + 0.5, color=RULE, lw=1, zorder=0)
        axes.text(
            -0.012, lane + 0.5, name, transform=place, ha="right", va="center_baseline", fontsize=NAME_PT,
            weight="bold", color=readable(SYSTEM["worker" if lane == 0 else "rabbitmq"]),
        )  # fmt: skip


def _waits(axes: Axes, seconds: Sequence[float], whats: Sequence[str]) -> None:
    """A bar for each wait, with how long it was."""
    for index, (start, what) in enumerate(zip(seconds[:-1], whats[:-1], strict=True)):
        end, then = seconds[index + 1], whats[index + 1]
        if what == "failed" and then != "parked":
            lane, colour = 1, SYSTEM["rabbitmq"]
        elif what == "parked":
            lane, colour = 2, MEANING["failed"]
        else:
            continue
        bar = Rectangle((start, lane + 0.24), end - start, 0.52, fc=tint(colour, 0.32), ec=colour, lw=1.4)
        axes.add_patch(bar)
        room = (end - start) / (axes.get_xlim()[1] - axes.get_xlim()[0]) * (WIDTH - LEFT - RIGHT) - 6
        text = duration(1000 * (end - start))
        if size := next((size for size in (TEXT_PT, SMALL_PT) if text_width(text, size) <= room), None):
            middle = (start + end) / 2
            axes.text(middle, lane + 0.5, text, ha="center", va="center_baseline", fontsize=size, color=INK)


def _attempts(axes: Axes, seconds: Sequence[float], whats: Sequence[str]) -> None:
    """A disc an attempt, with a word above it; a line down to where the message goes."""
    shown = [(at, what) for at, what in zip(seconds, whats, strict=True) if what in ("failed", "handled")]
    low, high = axes.get_xlim()
    width = WIDTH - LEFT - RIGHT
    words = [f"{number}. {what}" for number, (_, what) in enumerate(shown, 1)]
    sizes = [text_width(word, SMALL_PT, bold=True) + 12 for word in words]
    wanted = [(at - low) / (high - low) * width - size / 2 for (at, _), size in zip(shown, sizes, strict=True)]
    for word, start, (at, what) in zip(words, apart(wanted, sizes, -30, width + 34), shown, strict=True):
        sign, colour = WHATS[what]
        axes.plot([at], [0.5], "o", ms=19, mfc=colour, mec=PAPER, mew=1.5, zorder=4, clip_on=False)
        axes.text(at, 0.5, sign, ha="center", va="center", fontsize=TEXT_PT, weight="bold", color=PAPER, zorder=5)
        axes.text(
            (start + 6) / width, 1.0, shortened(word, 200, SMALL_PT, bold=True), transform=axes.transAxes,
            fontsize=SMALL_PT, weight="bold", color=readable(colour), va="bottom",
        )  # fmt: skip
    for at, what in zip(seconds, whats, strict=True):
        if what in ("parked", "replayed"):
            axes.plot([at, at], [0.5, 2.5], color=WHATS[what][1], lw=1.6, ls=(0, (4, 3)), zorder=1)
        if what == "replayed":
            axes.annotate(
                "↻ replayed", (at, 2.5), xytext=(8, 0), textcoords="offset points", va="center_baseline",
                fontsize=SMALL_PT, weight="bold", color=WHATS[what][1], annotation_clip=False,
                bbox={"fc": PAPER, "ec": "none", "pad": 1},
            )  # fmt: skip
