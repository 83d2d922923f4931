"""A queue that workers empty: how fast, and how much is left, while their number changes."""

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from workshop.pictures.frames import require
from workshop.pictures.style import (
    INK,
    NAME_PT,
    QUIET,
    RULE,
    SMALL_PT,
    SYSTEM,
    Picture,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    shortened,
    tint,
)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, GAP, BOTTOM = 960.0, 470.0, 76.0, 168.0, 104.0, 26.0, 52.0
UPPER, LOWER = 172.0, 116.0
OVER_S = 1.0
"""A rate is that of the second before."""


def queue_drained(
    samples: pd.DataFrame,
    workers: Sequence[tuple[float, int]],
    *,
    title: str = "A queue and its workers",
    unit: str = "charges/s",
    what: str = "waiting",
) -> Picture:
    """Above: how much was done a second. Below: how many messages waited. Behind both: how many workers there were.

    Args:
        samples: a look each, in their order: `at_s`, `done` (how many in all), `waiting`.
        workers: from which second on there were how many, in their order.

    Raises ValueError for a frame that cannot be read.
    """
    require("samples", samples, "at_s", "done", "waiting")
    if not samples["at_s"].is_monotonic_increasing:
        raise ValueError("samples: a later look comes before an earlier one")
    if [at for at, _ in workers] != sorted(at for at, _ in workers):
        raise ValueError("workers: a later change comes before an earlier one")
    if len(samples) < 2:
        return nothing(title)
    times = samples["at_s"].tolist()
    rates = _rates(samples)
    end = times[-1]
    subtitle = f"how much was done in the {OVER_S:g} s before; below: how many messages wait in the queue"
    with sheet(WIDTH, HEIGHT, title, subtitle) as figure:
        upper = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=HEIGHT - TOP - UPPER)
        lower = plot(figure, left=LEFT, right=RIGHT, top=TOP + UPPER + GAP, bottom=BOTTOM)
        _curve(upper, times, rates, end, unit, SYSTEM["worker"])
        _curve(lower, times, samples["waiting"].tolist(), end, what, SYSTEM["rabbitmq"])
        lower.set_xlabel("seconds since the start", labelpad=6)
        upper.set_xticklabels([])
        _phases(figure, (upper, lower), workers, end)
        _ends(upper, rates[-1], f"{rates[-1]:,.0f} {unit}", SYSTEM["worker"])
        left = int(samples["waiting"].iloc[-1])
        _ends(lower, left, f"{left:,} {what}", SYSTEM["rabbitmq"])
        counted = ", ".join(f"{count} from {at:.1f} s" for at, count in workers if at <= end)
        done = int(samples["done"].iloc[-1] - samples["done"].iloc[0])
        said = f"after {end:.1f} s: {done:,} done, {left:,} {what}, {rates[-1]:,.0f} {unit}; workers: {counted}"
        return picture(figure, f"{title}, {said}.")


def _rates(samples: pd.DataFrame) -> list[float]:
    """At each look, how much was done a second, since the look that was OVER_S before, or the first."""
    times, done = samples["at_s"].tolist(), samples["done"].tolist()
    rates, first = [], 0
    for index, at in enumerate(times):
        while times[first + 1 if first + 1 < index else first] <= at - OVER_S and first + 1 < index:
            first += 1
        span = at - times[first]
        rates.append((done[index] - done[first]) / span if span > 0 else 0.0)
    return rates


def _curve(axes: Axes, times: list[float], values: list[float], end: float, name: str, colour: str) -> None:
    axes.set(xlim=(0, max(end, 0.1)), ylim=(0, 1.12 * max(1.0, *values)))
    axes.fill_between(times, values, color=tint(colour, 0.3), lw=0)
    axes.plot(times, values, color=colour, lw=2.6, clip_on=False)
    axes.grid(axis="y", color="#E9EBEC", lw=1)
    axes.set_axisbelow(True)
    axes.locator_params(axis="y", nbins=4, integer=True)
    axes.tick_params(length=0, pad=6)
    axes.spines["left"].set_visible(False)
    axes.text(0, 1.04, name, transform=axes.transAxes, ha="right", fontsize=SMALL_PT, color=QUIET)


def _phases(figure: Figure, both: tuple[Axes, Axes], workers: Sequence[tuple[float, int]], end: float) -> None:
    """A line through both where the number of workers changes, and the number above."""
    width = WIDTH - LEFT - RIGHT
    ends = [*(at for at, _ in workers[1:]), math.inf]
    for (at, count), then in zip(workers, ends, strict=True):
        if at > end:
            continue
        for axes in both:
            if at > 0:
                axes.axvline(at, color=INK, lw=1.4, ls=(0, (4, 3)))
        room = (min(then, end) - at) / max(end, 0.1) * width
        text = shortened(f"{count} worker{'s' * (count > 1)}", max(room - 6, 0), NAME_PT, bold=True)
        if len(text) > 1:
            both[0].text(
                at / max(end, 0.1) + 6 / width, 1.05, text, transform=both[0].transAxes, fontsize=NAME_PT,
                weight="bold", color=readable(SYSTEM["worker"]),
            )  # fmt: skip
    both[0].axhline(0, color=RULE, lw=1)


def _ends(axes: Axes, value: float, text: str, colour: str) -> None:
    axes.annotate(
        shortened(text, RIGHT - 20, NAME_PT, bold=True), (1, value), xycoords=axes.get_yaxis_transform(),
        xytext=(9, 0), textcoords="offset points", va="center_baseline", fontsize=NAME_PT, weight="bold",
        color=readable(colour), annotation_clip=False,
    )  # fmt: skip
