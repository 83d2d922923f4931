"""Loads with a fault in their middle: what was sent, acknowledged and done over time, and what the counters say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    QUIET,
    SERIES,
    SMALL_PT,
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

WIDTH, LEFT, RIGHT, TOP, BOTTOM, PANEL, GAP = 960.0, 190.0, 170.0, 84.0, 56.0, 108.0, 22.0
ROW, HEAD = 44.0, 58.0
MOMENTS = 160
"""At which it is counted how many baskets were sent, acknowledged and done: a panel has no more room."""
FAILED, OK = MEANING["failed"], MEANING["ok"]
COLOURS: Mapping[str, str] = {"sent": QUIET, "acknowledged": SERIES[0], "done": OK}
MUST_BE_0 = ("lost", "duplicated effects", "unexpected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One load with its fault; all in seconds since its first basket was sent.

    Attributes:
        sent, acknowledged, done: when that happened to each basket to which it did.
        back_s: when nothing of the fault was left.
    """

    sent: Sequence[float]
    acknowledged: Sequence[float]
    done: Sequence[float]
    broken_s: float
    mended_s: float
    back_s: float

    @property
    def end_s(self) -> float:
        return max([*self.sent, *self.acknowledged, *self.done, self.mended_s, self.back_s])


def under_fire(loads: Mapping[str, Load], *, title: str = "Under fire") -> Picture:
    """One panel a fault: how many baskets were sent, acknowledged and done until each moment.

    What lies between acknowledged and done is waiting in an outbox or a queue. Where the lines meet, nothing is.
    """
    if not loads:
        return nothing(title)
    height = TOP + BOTTOM + len(loads) * PANEL + (len(loads) - 1) * GAP
    subtitle = "baskets until each moment; red: while it was broken; amber: what waits in outbox and queues"
    last_s = max(load.end_s for load in loads.values())
    with sheet(WIDTH, height, title, subtitle) as figure:
        for index, (name, load) in enumerate(loads.items()):
            below = BOTTOM + (len(loads) - 1 - index) * (PANEL + GAP)
            axes = plot(figure, left=LEFT, right=RIGHT, bottom=below, top=height - below - PANEL)
            _panel(axes, name, load, last_s)
            if index == len(loads) - 1:
                axes.set_xlabel("seconds since the first basket was sent", labelpad=8)
            else:
                axes.tick_params(labelbottom=False)
        said = "; ".join(
            f"{name} at {load.broken_s:.1f} s, mended at {load.mended_s:.1f} s,"
            f" nothing of it left at {load.back_s:.1f} s: {len(load.sent)} sent,"
            f" {len(load.acknowledged)} acknowledged, {len(load.done)} done"
            for name, load in loads.items()
        )
        return picture(figure, f"{title}. {said}.")


def _panel(axes: Axes, name: str, load: Load, last_s: float) -> None:
    most = max(1, len(load.sent))
    axes.set(xlim=(0, last_s * 1.01), ylim=(0, most * 1.08), yticks=[0, most])
    axes.tick_params(length=0, pad=6)
    axes.spines["left"].set_visible(False)
    axes.axvspan(load.broken_s, load.mended_s, color=tint(FAILED, 0.16), lw=0, zorder=0)
    axes.axvline(load.back_s, color=INK, lw=1.4, ls=(0, (2, 2)), zorder=1)
    moments = np.linspace(0.0, last_s * 1.01, MOMENTS)
    counts = {
        what: np.searchsorted(np.sort(np.asarray(times, dtype=float)), moments, side="right")
        for what, times in (("sent", load.sent), ("acknowledged", load.acknowledged), ("done", load.done))
    }
    axes.fill_between(
        moments, counts["done"], np.maximum(counts["done"], counts["acknowledged"]),
        color=tint(MEANING["waiting"], 0.5), lw=0, zorder=1,
    )  # fmt: skip
    for what, width in (("sent", 4.4), ("acknowledged", 2.8), ("done", 2.2)):
        colour = tint(QUIET, 0.35) if what == "sent" else COLOURS[what]
        axes.plot(moments, counts[what], color=colour, lw=width, zorder=3, clip_on=False)
    ends = sorted(COLOURS, key=lambda what: (counts[what][-1], list(COLOURS)[::-1].index(what)))
    starts = apart([counts[what][-1] / most / 1.08 * PANEL - 8 for what in ends], [18.0] * len(ends), 0, PANEL + 8)
    for what, start in zip(ends, starts, strict=True):
        axes.text(
            1.012, (start + 8) / PANEL, f"{counts[what][-1]} {what}", transform=axes.transAxes, fontsize=TEXT_PT,
            weight="bold", va="center_baseline", color=readable(COLOURS[what]),
        )  # fmt: skip
    back = f"back after {load.back_s - load.broken_s:.1f} s"
    for text, y, size, weight, shade in (
        (shortened(name, LEFT - 52, NAME_PT, bold=True), 0.62, NAME_PT, "bold", FAILED),
        (back, 0.4, TEXT_PT, "normal", INK),
    ):
        axes.text(
            -34 / (WIDTH - LEFT - RIGHT), y, text, transform=axes.transAxes, ha="right", va="center_baseline",
            fontsize=size, weight=weight, color=shade,
        )  # fmt: skip


def counter_table(
    counters: pd.DataFrame, back_after_s: "pd.Series[float]", *, title: str = "What the counters say"
) -> Picture:
    """All counters of all faults; those that must be 0 stand out.

    Args:
        counters: one row a fault, one column a counter.
        back_after_s: how long each fault was felt, under the same names.
    """
    if counters.empty:
        return nothing(title)
    columns = [*counters.columns, "back after"]
    left, width = 200.0, (WIDTH - 200.0 - 20.0) / len(columns)
    height = 62 + HEAD + ROW * len(counters) + 16
    with sheet(WIDTH, height, title, "green: must be 0, and is") as figure:
        axes = plot(figure, left=left, right=20, top=62, bottom=16)
        axes.set(xlim=(0, len(columns)), ylim=(HEAD + ROW * len(counters), 0))
        axes.set_axis_off()
        for place, name in enumerate(columns):
            colour = INK if name in MUST_BE_0 else QUIET
            axes.text(
                place + 0.5, HEAD - 14, _folded(name, width - 4), ha="center", va="bottom", fontsize=SMALL_PT,
                color=colour, weight="bold" if name in MUST_BE_0 else "normal", linespacing=1.2,
            )  # fmt: skip
        for row, name in enumerate(counters.index):
            _row(axes, HEAD + row * ROW, str(name), counters.loc[name].to_dict(), float(back_after_s[name]), left)
        said = "; ".join(
            f"{name}: {', '.join(f'{what} {number}' for what, number in counters.loc[name].items())}"
            f", back after {back_after_s[name]:.1f} s"
            for name in counters.index
        )
        return picture(figure, f"{title}. {said}.")


def _row(axes: Axes, y: float, name: str, numbers: Mapping[str, int], back_s: float, left: float) -> None:
    middle = y + ROW / 2
    axes.axhline(y, color="#E9EBEC", lw=1)
    axes.text(
        -0.02, middle, shortened(name, left - 36, NAME_PT, bold=True), transform=axes.get_yaxis_transform(), ha="right",
        va="center_baseline", fontsize=NAME_PT, weight="bold", color=FAILED,
    )  # fmt: skip
    for place, (what, number) in enumerate(numbers.items()):
        text, colour = f"{number:,}", INK
        if what in MUST_BE_0:
            shade = FAILED if number else OK
            axes.fill_between((place + 0.06, place + 0.94), y + 5, y + ROW - 5, color=tint(shade, 0.22), lw=0)
            text, colour = f"{text} {'✗' if number else '✓'}", readable(shade)
        axes.text(
            place + 0.5,
            middle,
            text,
            ha="center",
            va="center_baseline",
            fontsize=NAME_PT + 1,
            weight="bold",
            color=colour,
        )
    axes.text(
        len(numbers) + 0.5, middle, f"{back_s:.1f} s", ha="center", va="center_baseline", fontsize=NAME_PT, color=INK
    )


def _folded(text: str, width: float) -> str:
    """On two lines, if it does not fit on one."""
    first, _, rest = text.partition(" ")
    return f"{first}\n{rest}" if rest and text_width(text, SMALL_PT, bold=True) > width else text
