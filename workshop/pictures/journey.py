"""Swimlanes: when each order was in which system."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.patches import PathPatch
from matplotlib.path import Path

from workshop.pictures.frames import duration, known_lanes, milliseconds, require
from workshop.pictures.style import (
    INK,
    LANES,
    MEANING,
    QUIET,
    SMALL_PT,
    SYSTEM,
    Picture,
    apart,
    beside,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    shortened,
    text_width,
    tint,
)

WIDTH, LEFT, RIGHT, TOP, BOTTOM, LANE = 960.0, 130.0, 116.0, 76.0, 58.0, 58.0
DRAWN = 120
"""More orders than these are drawn by a sample of this size; what is said in numbers is said of all."""


def journeys(
    steps: pd.DataFrame, *, relative_to: Literal["order", "first"] = "order", title: str = "Where each order has been"
) -> Picture:
    """One lane a system, one thin line an order through the moments at which it got there.

    Args:
        steps: one row a step: `order`, `system` (a name in LANES), `at` (aware datetime), `what` ("placed", "paid").
        relative_to: time since each order's own first step, with the median of each step marked; or since the
            first step of the first order, with the moment at which the last order had made each step.

    Raises:
        ValueError: a column is missing, lacks a value, names an unknown system or holds times without a zone.
    """
    require("steps", steps, "order", "system", "at", "what")
    lanes = known_lanes("steps", steps["system"])
    if relative_to not in ("order", "first"):
        raise ValueError(f"relative_to: 'order' or 'first', not {relative_to!r}")
    if steps.empty:
        return nothing(title)
    frame = pd.DataFrame(
        {
            "order": steps["order"].astype(str).to_numpy(),
            "lane": [lanes.index(system) for system in steps["system"]],
            "what": steps["what"].astype(str).to_numpy(),
            "ms": milliseconds("steps", "at", steps["at"]).to_numpy(),
        }
    ).sort_values(["ms", "lane", "order", "what"], ignore_index=True)
    orders = list(frame["order"].unique())  # by their first step
    if relative_to == "order":
        frame["ms"] -= frame.groupby("order")["ms"].transform("min")
    since = "the order's own first step" if relative_to == "order" else "the first order's first step"
    count = len(orders)
    drawn = orders if count <= DRAWN else [orders[round(i * (count - 1) / (DRAWN - 1))] for i in range(DRAWN)]
    subtitle = f"{count:,} order{'s' * (count > 1)}, one thin line each" + (
        f" ({DRAWN} of them drawn)" if count > DRAWN else ""
    )
    if count > 1:
        subtitle += (
            "; marked and joined: the medians" if relative_to == "order" else "; marked: when the last one got there"
        )
    marks = [_marks(frame[frame["lane"] == index], count, relative_to) for index in range(len(lanes))]
    with sheet(WIDTH, TOP + BOTTOM + LANE * len(lanes), title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
        latest = max(float(frame["ms"].max()), 1.0)
        in_seconds = latest >= 10_000
        axes.set(xlim=(-0.015 * latest, 1.03 * latest), ylim=(len(lanes), 0), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{'seconds' if in_seconds else 'milliseconds'} since {since}", labelpad=8)
        axes.xaxis.set_major_formatter(lambda ms, _: f"{ms / 1000:,g}" if in_seconds else f"{ms:,g}")
        _lines(axes, frame, drawn, lanes)
        if count > 1 and relative_to == "order":
            typical = sorted((ms, index + 0.67) for index, of in enumerate(marks) for ms, _ in of)
            axes.plot(*zip(*typical, strict=True), color=INK, lw=2.4, zorder=3)
        for index, lane in enumerate(lanes):
            name, colour = LANES[lane][0], SYSTEM[LANES[lane][1]]
            axes.axhspan(index + 0.04, index + 0.96, color=tint(colour), lw=0, zorder=0)
            reached = frame.loc[frame["lane"] == index, "order"].nunique()
            missing = reached < count
            text = f"{reached:,} of {count:,}" if missing else "✓ all" if count > 1 else ""
            shade = MEANING["failed"] if missing else QUIET
            beside(axes, index + 0.5, name, text, readable(colour), shade, RIGHT)
            _mark(axes, index, colour, marks[index])
        said = "; ".join(f"{LANES[lane][0]} {label}" for lane, of in zip(lanes, marks, strict=True) for _, label in of)
        return picture(figure, f"{title}. {subtitle}. Time since {since}: {said}.")


def _marks(steps: pd.DataFrame, orders: int, relative_to: str) -> list[tuple[float, str]]:
    """For each kind of step in a lane, earliest first: the moment that is marked, and its label."""
    firsts = steps.groupby(["what", "order"])["ms"].min()  # a step that was repeated counts once
    kinds = firsts.groupby(level="what")
    marked = kinds.median() if relative_to == "order" else kinds.max()
    by = "" if relative_to == "order" or orders == 1 else "by "
    return sorted((float(ms), f"{what} {by}{duration(float(ms))}") for what, ms in marked.items())


def _lines(axes: Axes, frame: pd.DataFrame, drawn: Sequence[str], lanes: Sequence[str]) -> None:
    """A line an order, then its points; each order keeps its height within every lane."""
    height = {order: 0.44 + 0.46 * (index + 0.5) / len(drawn) for index, order in enumerate(drawn)}
    shown = frame[frame["order"].isin(height)].copy()
    shown["y"] = shown["lane"] + shown["order"].map(height)
    ways = [group[["ms", "y"]].to_numpy() for _, group in shown.groupby("order", sort=False)]
    strength = min(1.0, max(0.16, 6 / len(drawn)))
    axes.add_collection(LineCollection(ways, colors=INK, lw=0.9, alpha=strength, zorder=1), autolim=False)
    size = 9.0 if len(drawn) <= 3 else 6.0 if len(drawn) <= 30 else 3.6
    for index, lane in enumerate(lanes):
        points = shown.loc[shown["lane"] == index, ["ms", "y"]].to_numpy()
        # A way of no length with round ends is a dot, in a tenth of the bytes of a marker.
        path = Path(np.repeat(points, 2, axis=0), np.tile([Path.MOVETO, Path.LINETO], len(points)))
        colour = SYSTEM[LANES[lane][1]]
        axes.add_patch(PathPatch(path, fill=False, ec=colour, lw=size, capstyle="round", clip_on=False, zorder=2))


def _mark(axes: Axes, lane: int, colour: str, marks: Sequence[tuple[float, str]]) -> None:
    width, shade = WIDTH - LEFT - RIGHT, readable(colour)
    low, high = axes.get_xlim()
    labels = [label for _, label in marks]
    if sum(text_width(label, SMALL_PT, bold=True) + 14 for label in labels) > width:
        labels = [shortened(label, width / len(labels) - 14, SMALL_PT, bold=True) for label in labels]
    sizes = [text_width(label, SMALL_PT, bold=True) + 14 for label in labels]
    wanted = [(ms - low) / (high - low) * width - 2 for ms, _ in marks]
    for label, start, (ms, _) in zip(labels, apart(wanted, sizes, 0, width), marks, strict=True):
        axes.plot((ms, ms), (lane + 0.42, lane + 0.92), color=shade, lw=3, solid_capstyle="round", zorder=4)
        x = low + start / width * (high - low)
        ground = {"fc": tint(colour), "ec": "none", "pad": 1}
        axes.text(x, lane + 0.31, label, fontsize=SMALL_PT, weight="bold", color=shade, zorder=5, bbox=ground)
