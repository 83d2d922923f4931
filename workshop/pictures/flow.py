"""Events a second over time: of an experiment that is over, or of one that still runs."""

import math
from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from workshop.pictures.frames import require
from workshop.pictures.style import (
    MEANING,
    NAME_PT,
    PAPER,
    SERIES,
    SMALL_PT,
    Picture,
    apart,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    shortened,
    text_width,
)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960.0, 420.0, 70.0, 180.0, 112.0, 56.0
STEPS_S = (0.1, 0.2, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0)


def throughput(
    frame: pd.DataFrame,
    marks: Sequence[tuple[float, str]] = (),
    *,
    title: str = "Throughput",
    unit: str = "orders/s",
) -> Picture:
    """How many events a second each series had, with the moments at which something was done to the system.

    Args:
        frame: one row an event: `at_s` (seconds since the experiment's start), `series`.
        marks: moments in the same seconds, and what happened: `(4.2, "payment killed")`.

    Raises:
        ValueError: a column is missing or lacks a value, or a time is no finite number.
    """
    require("frame", frame, "at_s", "series")
    times = pd.to_numeric(frame["at_s"], errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(times).all():
        raise ValueError("frame: column 'at_s' must hold finite numbers of seconds")
    if not all(math.isfinite(at) for at, _ in marks):
        raise ValueError("marks: a moment must be a finite number of seconds")
    if frame.empty:
        return nothing(title)
    names = frame["series"].astype(str)
    events = {name: times[(names == name).to_numpy()] for name in names.unique()}
    moments = [*times, *(at for at, _ in marks)]
    start, end = min(0.0, *moments), max(moments)
    step = _step(end - start)
    edges = np.arange(math.floor(start / step), math.floor(end / step) + 2) * step
    # A time is on an edge or it is not: rounding in `edges` must not say otherwise.
    rates = {
        name: np.bincount((np.floor(at / step) - edges[0] / step).round().astype(int), minlength=len(edges) - 1) / step
        for name, at in events.items()
    }
    labels = {name: f"{name}: {len(at):,}" for name, at in events.items()}
    subtitle = f"counted over {step:g} s each; beside each line: how many in all"
    said = ", ".join(f"{name} {len(at):,}, at most {rates[name].max():,.0f} {unit}" for name, at in events.items())
    happened = "".join(f"; at {at:.1f} s {what}" for at, what in marks)
    return _drawn(title, subtitle, f"{title}. {said}{happened}.", edges, rates, labels, marks, unit)


class Throughput:
    """The last seconds of an experiment that runs, to be drawn again and again; safe to feed from any thread.

    Args:
        window_s: how far back the picture looks; what is older is forgotten, but for the sums.
    """

    def __init__(self, title: str, unit: str = "orders/s", window_s: float = 30.0) -> None:
        if not (math.isfinite(window_s) and window_s > 0):
            raise ValueError("window_s: a number of seconds above 0")
        self._title, self._unit, self._window_s = title, unit, window_s
        self._step = _step(window_s)
        self._counts: dict[str, Counter[int]] = {}
        self._totals: Counter[str] = Counter()
        self._latest_s = 0.0
        self._lock = Lock()

    def add(self, name: str, at_s: float, count: int = 1) -> None:
        """So many events of this series happened at this moment (seconds since the start).

        Raises:
            ValueError: the moment is before the start or no finite number, or the count is negative.
        """
        if not (math.isfinite(at_s) and at_s >= 0):
            raise ValueError(f"at_s: seconds since the start, not {at_s!r}")
        if count < 0:
            raise ValueError(f"count: how many happened, not {count!r}")
        with self._lock:
            self._latest_s = max(self._latest_s, at_s)
            self._totals[name] += count
            counts = self._counts.setdefault(name, Counter())
            counts[int(at_s / self._step)] += count
            if len(counts) > 2 * self._window_s / self._step:
                oldest = (self._latest_s - self._window_s) / self._step - 1
                self._counts[name] = Counter({bin_: n for bin_, n in counts.items() if bin_ >= oldest})

    def frame(self) -> Picture:
        """What it looks like now."""
        with self._lock:
            latest_s, totals = self._latest_s, dict(self._totals)
            counts = {name: dict(bins) for name, bins in self._counts.items()}
        if not totals:
            return nothing(self._title)
        # The step that is not over yet would look like a drop: it is drawn only while there is no other.
        end = max(1, int(latest_s / self._step))
        bins = range(max(0, end - round(self._window_s / self._step)), end)
        edges = np.array([*bins, end]) * self._step
        rates = {name: np.array([of.get(bin_, 0) for bin_ in bins]) / self._step for name, of in counts.items()}
        labels = {name: f"{name}: {total:,}" for name, total in totals.items()}
        said = ", ".join(f"{name} {total:,}" for name, total in totals.items())
        subtitle = f"the last {self._window_s:g} s; beside each line: how many since the start"
        return _drawn(
            self._title,
            subtitle,
            f"{self._title} after {latest_s:.1f} s: {said}.",
            edges,
            rates,
            labels,
            (),
            self._unit,
        )


def _step(span_s: float) -> float:
    """Over how many seconds events are counted together: at most some 60 times in all."""
    return next((step for step in STEPS_S if span_s / step <= 60), span_s / 60)


def _drawn(
    title: str,
    subtitle: str,
    alt: str,
    edges: NDArray[np.float64],
    rates: Mapping[str, NDArray[np.float64]],
    labels: Mapping[str, str],
    marks: Sequence[tuple[float, str]],
    unit: str,
) -> Picture:
    with sheet(WIDTH, HEIGHT, title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
        highest = max(1.0, *(float(rate.max()) for rate in rates.values()))
        axes.set(xlim=(edges[0], edges[-1]), ylim=(0, 1.08 * highest))
        axes.set_xlabel("seconds since the start", labelpad=8)
        axes.grid(axis="y", color="#E9EBEC", lw=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.text(0, 1.03, unit, transform=axes.transAxes, ha="right", color=axes.xaxis.label.get_color())
        colours = {name: SERIES[index % len(SERIES)] for index, name in enumerate(rates)}
        for index, (name, rate) in enumerate(rates.items()):  # a broader line still shows under a later one
            broad = 2.6 + 2.2 * max(0, min(len(rates), 3) - 1 - index)
            axes.stairs(rate, edges, color=colours[name], lw=broad, baseline=None, clip_on=False)
        _marks(axes, marks)
        _labels(axes, rates, labels, colours)
        return picture(figure, alt)


def _labels(
    axes: Axes, rates: Mapping[str, NDArray[np.float64]], labels: Mapping[str, str], colours: Mapping[str, str]
) -> None:
    """Each line's name at its right end, moved up or down until none covers another."""
    height, top = HEIGHT - TOP - BOTTOM, axes.get_ylim()[1]
    ends = sorted(rates, key=lambda name: (rates[name][-1], name))
    starts = apart([rates[name][-1] / top * height - 9 for name in ends], [18.0] * len(ends), -9, height)
    for name, start in zip(ends, starts, strict=True):
        text = shortened(labels[name], RIGHT - 22, NAME_PT, bold=True)
        axes.text(
            1 + 8 / (WIDTH - LEFT - RIGHT), (start + 9) / height, text, transform=axes.transAxes, fontsize=NAME_PT,
            weight="bold", va="center_baseline", color=readable(colours[name]),
        )  # fmt: skip


def _marks(axes: Axes, marks: Iterable[tuple[float, str]]) -> None:
    """A dashed line a moment, with its words above: on the row on which they fit."""
    width, (low, high) = WIDTH - LEFT - RIGHT, axes.get_xlim()
    rows = deque([-math.inf, -math.inf])
    for at_s, what in sorted(marks):
        axes.axvline(at_s, color=MEANING["failed"], lw=1.6, ls=(0, (4, 3)))
        text = shortened(what, 220, SMALL_PT, bold=True)
        size = text_width(text, SMALL_PT, bold=True)
        start = min(max((at_s - low) / (high - low) * width - size / 2, 26), width - size + RIGHT - 20)
        row = next((row for row, end in enumerate(rows) if start > end + 10), len(rows) - 1)
        rows[row] = start + size
        axes.text(
            start / width, 1 + (6 + 15 * row) / (HEIGHT - TOP - BOTTOM), text, transform=axes.transAxes,
            fontsize=SMALL_PT, weight="bold", color=MEANING["failed"], bbox={"fc": PAPER, "ec": "none", "pad": 1},
        )  # fmt: skip
