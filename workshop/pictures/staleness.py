"""Old answers: how they come about, step by step, who gave them out, and for how long."""

import textwrap
from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from workshop.pictures.frames import duration, require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    QUIET,
    RULE,
    SERIES,
    SMALL_PT,
    SYSTEM,
    TEXT_PT,
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

WIDTH, LEFT, TOP = 960.0, 128.0, 84.0
OLD, NEW = MEANING["failed"], MEANING["ok"]
VERSIONS: Mapping[str, str] = {"version 1": SERIES[0], "version 2": NEW, "version 3": SERIES[3]}
STORES: Mapping[str, tuple[str, str]] = {"redis": ("Redis", "redis"), "postgres": ("PostgreSQL", "postgres")}
ACTORS = (SYSTEM["app"], "#7A4B8C", SYSTEM["worker"])
LEAST_MS = 1.0
"""What was shorter is drawn as long: nobody measures less over HTTP."""


def versions_apart(steps: pd.DataFrame, *, title: str = "Who did what, and what was in Redis then") -> Picture:
    """A race, step by step: above who did what, below what Redis and PostgreSQL held after it. Not to scale.

    Args:
        steps: one row a step: `who`, `does`, `redis`, `postgres`; the last two are `version 1`, `nothing` or the like.

    Raises ValueError for a column that is missing.
    """
    require("steps", steps, "who", "does", *STORES)
    if steps.empty:
        return nothing(title)
    rows = steps.to_dict("records")
    actors = list(dict.fromkeys(str(row["who"]) for row in rows))
    lane, right = 58.0, 20.0
    subtitle = "from left to right, step by step; below: what each server holds after the step"
    with sheet(WIDTH, TOP + 16 + lane * (len(actors) + len(STORES)), title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=right, top=TOP, bottom=16)
        axes.set(xlim=(0, len(rows)), ylim=(len(actors) + len(STORES), 0))
        axes.set_axis_off()
        column_pt = (WIDTH - LEFT - right) / len(rows)
        for index, actor in enumerate(actors):
            colour = ACTORS[index % len(ACTORS)]
            beside(axes, index + 0.5, actor, "", readable(colour), INK, right)
            at = [column for column, row in enumerate(rows) if row["who"] == actor]
            axes.plot((at[0] + 0.5, at[-1] + 0.5), (index + 0.5,) * 2, color=colour, lw=1.8, ls=(0, (3, 3)), zorder=1)
            for column in at:
                _step(axes, column, index, str(rows[column]["does"]), colour, column_pt)
        for index, (store, (name, system)) in enumerate(STORES.items(), len(actors)):
            beside(axes, index + 0.5, name, "", readable(SYSTEM[system]), INK, right)
            axes.axhspan(index + 0.04, index + 0.96, color=tint(SYSTEM[system], 0.08), lw=0, zorder=0)
            for start, end, held, is_old in _held(rows, store):
                _store(axes, start, end, index, held, is_old=is_old, room=(end - start) * column_pt - 14)
        said = "; ".join(
            f"{row['who']} {row['does']} (Redis: {row['redis']}, PostgreSQL: {row['postgres']})" for row in rows
        )
        return picture(figure, f"{title}. {said}.")


def _held(rows: Sequence[Mapping[Hashable, Any]], store: str) -> Iterator[tuple[int, int, str, bool]]:
    """What a server held from one step to another, and whether PostgreSQL had something newer."""
    held = [(str(row[store]), _is_old(str(row[store]), str(row["postgres"]))) for row in rows]
    start = 0
    for (what, is_old), group in groupby(held):
        end = start + len(list(group))
        yield start, end, what, is_old
        start = end


def _is_old(held: str, there: str) -> bool:
    return held.startswith("version") and held != there


def _step(axes: Axes, column: int, lane: int, does: str, colour: str, column_pt: float) -> None:
    axes.add_patch(
        FancyBboxPatch(
            (column + 0.03, lane + 0.1), 0.94, 0.8, boxstyle="round,pad=0,rounding_size=0.06", fc=PAPER, ec=colour,
            lw=1.8, zorder=3, mutation_aspect=column_pt / 58,
        )
    )  # fmt: skip
    lines = textwrap.wrap(does, 20)
    size = min(TEXT_PT, *(TEXT_PT * (column_pt - 18) / text_width(line, TEXT_PT) for line in lines))
    for number, line in enumerate(lines):
        y = lane + 0.5 + 0.28 * (number - (len(lines) - 1) / 2)
        axes.text(column + 0.5, y, line, ha="center", va="center_baseline", fontsize=size, color=INK, zorder=4)


def _store(axes: Axes, start: int, end: int, lane: int, held: str, *, is_old: bool, room: float) -> None:
    is_version = held.startswith("version")
    colour = OLD if is_old else VERSIONS.get(held, SERIES[4]) if is_version else QUIET
    style: dict[str, Any] = (
        {"fc": tint(colour, 0.85 if is_old else 0.3)} if is_version else {"fc": PAPER, "ls": (0, (3, 2))}
    )
    axes.add_patch(
        Rectangle((start + 0.02, lane + 0.18), end - start - 0.04, 0.64, ec=colour, lw=1.8, zorder=3, **style)
    )
    text = f"✗ {held}: old" if is_old else held
    size = min(NAME_PT, NAME_PT * room / text_width(text, NAME_PT, bold=True))
    axes.text(
        (start + end) / 2, lane + 0.52, text, ha="center", va="center_baseline", fontsize=size, zorder=4,
        weight="bold" if is_version else "normal", color=PAPER if is_old else INK,
    )  # fmt: skip


def who_gave_what(
    answers: pd.DataFrame, moments: Mapping[str, float] | None = None, *, title: str = "Who gave out what"
) -> Picture:
    """Some readers over time: for how long each went on to give out what was no longer true.

    Args:
        answers: one row an answer, the earlier ones first: `who`, `at_ms` (since the change was committed), `is_old`.
        moments: what happened when, ms.

    Raises ValueError for a column that is missing.
    """
    require("answers", answers, "who", "at_ms", "is_old")
    if answers.empty:
        return nothing(title)
    moments = moments or {}
    right, lane, bottom = 190.0, 70.0, 58.0
    left = 24 + max(text_width(str(who), NAME_PT, bold=True) for who in answers.who.unique()) + 20
    subtitle = f"{len(answers):,} answers"
    groups = list(answers.groupby("who", sort=False))
    with sheet(WIDTH, TOP + 30 + bottom + lane * len(groups), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP + 30, bottom=bottom)
        low = min(float(answers.at_ms.min()), *moments.values(), 0.0)
        high = max(float(answers.at_ms.max()), low + 1)
        axes.set(xlim=(low, high), ylim=(len(groups), 0), yticks=[])
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("milliseconds since the change was committed", labelpad=8)
        axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:,.0f}")
        said = []
        for index, (who, group) in enumerate(groups):
            last = _last_old(group)
            first = group.at_ms[~group.is_old & (group.at_ms > last)]
            end = float(first.iloc[0]) if len(first) else high
            for start, stop, colour, words in ((low, end, OLD, "the old answer"), (end, high, NEW, "the new one")):
                _given(axes, index, start, stop, colour, words, (WIDTH - left - right) / (high - low))
            note = f"old for {duration(max(last, 0))}"
            beside(axes, index + 0.5, str(who), note, INK, OLD if last > 0 else readable(NEW), right)
            said.append(f"{who}: {note}")
        _moments(axes, {"the change": 0.0, **moments}, WIDTH - left - right)
        return picture(figure, f"{title}. {'; '.join(said)}.")


def _given(axes: Axes, lane: int, start: float, end: float, colour: str, words: str, pt_a_ms: float) -> None:
    is_old = colour == OLD
    axes.add_patch(Rectangle((start, lane + 0.2), end - start, 0.6, fc=tint(colour, 0.85 if is_old else 0.35), lw=0))
    if text_width(words, TEXT_PT, bold=True) < (end - start) * pt_a_ms - 12:
        axes.text(
            (start + end) / 2, lane + 0.51, words, ha="center", va="center_baseline", fontsize=TEXT_PT, weight="bold",
            color=PAPER if is_old else INK, zorder=5,
        )  # fmt: skip


def _last_old(group: pd.DataFrame) -> float:
    old = group.at_ms[group.is_old]
    return float(old.iloc[-1]) if len(old) else 0.0


def _moments(axes: Axes, moments: Mapping[str, float], width: float) -> None:
    """A line for each, with its words above."""
    low, high = axes.get_xlim()
    ordered = sorted(moments.items(), key=lambda moment: moment[1])
    sizes = [text_width(words, SMALL_PT, bold=True) + 10 for words, _ in ordered]
    places = [(at - low) / (high - low) * width for _, at in ordered]
    wanted = [place - size / 2 for place, size in zip(places, sizes, strict=True)]
    for (words, at), start in zip(ordered, apart(wanted, sizes, -40, width + 60), strict=True):
        axes.axvline(at, color=INK, lw=1.6, ls=(0, (4, 3)), zorder=4)
        axes.text(start / width, 1.05, words, transform=axes.transAxes, fontsize=SMALL_PT, weight="bold", color=INK)


def staleness(
    windows: pd.DataFrame,
    *,
    limit_ms: float | None = None,
    limit: str = "",
    title: str = "For how long an old answer is given out",
    axis: str = "milliseconds after the commit, until no process gives out the old answer any more",
) -> Picture:
    """For how long the old answer was given out, a dot a change, on a logarithmic scale.

    Args:
        windows: one row a change: `what` (the strategy), `ms`.
        limit_ms: a line to compare with, and what it is.

    Raises ValueError for a column that is missing, and for a time below 0.
    """
    require("windows", windows, "what", "ms")
    if windows.empty:
        return nothing(title)
    if (windows["ms"] < 0).any():
        raise ValueError("windows: column 'ms' must not be below 0")
    groups = {str(what): np.sort(one["ms"].to_numpy(dtype=float)) for what, one in windows.groupby("what", sort=False)}
    right, lane, bottom = 190.0, 78.0, 60.0
    left = 24 + max(text_width(what, NAME_PT, bold=True) for what in groups) + 20
    subtitle = f"one dot a change, {LEAST_MS:g} ms or less at the left edge; the bar is the median"
    with sheet(WIDTH, TOP + 22 + bottom + lane * len(groups), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP + 22, bottom=bottom)
        high = max(10.0, limit_ms or 0.0, *(float(times[-1]) for times in groups.values()))
        axes.set(xscale="log", xlim=(LEAST_MS * 0.85, high * 1.25), ylim=(len(groups), 0), yticks=[])
        axes.minorticks_off()
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis, labelpad=8)
        axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:,g}")
        said = []
        for index, (what, times) in enumerate(groups.items()):
            colour = SERIES[index % len(SERIES)]
            axes.axhspan(index + 0.04, index + 0.96, color=tint(colour, 0.08), lw=0, zorder=0)
            axes.axhline(index + 0.62, color=RULE, lw=1, zorder=1)
            spread = 0.62 + 0.17 * np.sin(np.arange(len(times)) * 2.4)  # so that dots at one moment are seen
            shown = np.maximum(times, LEAST_MS)
            axes.plot(
                shown, index + spread, "o", ms=8, color=colour, alpha=0.7, mec=PAPER, mew=0.8, zorder=3, clip_on=False
            )
            middle, most = float(np.median(times)), float(np.quantile(times, 0.95))
            axes.plot((max(middle, LEAST_MS),) * 2, (index + 0.34, index + 0.9), color=INK, lw=3, zorder=4)
            place = axes.get_yaxis_transform()
            axes.text(-0.02, index + 0.5, what, transform=place, ha="right", va="center_baseline", fontsize=NAME_PT,
                      weight="bold", color=readable(colour))  # fmt: skip
            for y, text, size, weight in (
                (0.36, f"median {duration(middle)}", NAME_PT, "bold"),
                (0.7, f"p95 {duration(most)}, worst {duration(float(times[-1]))}", SMALL_PT, "normal"),
            ):
                axes.text(1.02, index + y, shortened(text, right - 24, size, bold=weight == "bold"), transform=place,
                          va="center_baseline", fontsize=size, weight=weight, color=INK)  # fmt: skip
            said.append(f"{what}: median {duration(middle)}, p95 {duration(most)}, worst {duration(float(times[-1]))}")
        if limit_ms is not None:
            axes.axvline(limit_ms, color=OLD, lw=1.8, ls=(0, (4, 3)))
            axes.text(limit_ms, 1.03, f"{limit}: {duration(limit_ms)}", transform=axes.get_xaxis_transform(),
                      ha="right", fontsize=SMALL_PT, weight="bold", color=OLD)  # fmt: skip
        return picture(figure, f"{title}. {subtitle}. {'; '.join(said)}.")
