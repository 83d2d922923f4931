"""Documents: writers who undo one another, pages that shift, questions too many, lives of a reader, plans, faults."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import groupby

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path

from workshop.pictures.frames import duration, require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    QUIET,
    SERIES,
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

WIDTH, TOP = 960.0, 84.0
MONGO, BAD, GOOD, AGAIN = SYSTEM["mongo"], MEANING["failed"], MEANING["ok"], MEANING["waiting"]
ACTORS = (SYSTEM["app"], "#7A4B8C")
STATUSES: Mapping[int, tuple[str, str, str]] = {
    200: ("answered", SERIES[0], "o"),
    503: ("refused, 503", SERIES[1], "D"),
    0: ("no answer ✗", BAD, "x"),
}
"""Of HTTP: how an answer is called and drawn. Any other one is drawn as no answer, under its number."""
STAGES: Mapping[str, str] = {
    "COLLSCAN": "read every document",
    "IXSCAN": "walk the index",
    "FETCH": "fetch documents",
    "SORT": "sort in memory",
    "LIMIT": "stop at the limit",
}
"""What MongoDB's stages do; one that is not here keeps its name."""


# -- two writers


def writers_apart(steps: pd.DataFrame, *, lost: str = "", title: str = "Two writers of one document") -> Picture:
    """Two writers, step by step: above who did what, below what MongoDB held after it. Not to scale.

    Args:
        steps: one row a step: `who`, `does`, `mongo`. What begins with `refused` is drawn as that.
        lost: what is missing from the last thing that MongoDB holds, if anything is.

    Raises ValueError for a column that is missing.
    """
    require("steps", steps, "who", "does", "mongo")
    if steps.empty:
        return nothing(title)
    rows = steps.to_dict("records")
    actors = list(dict.fromkeys(str(row["who"]) for row in rows))
    left, right, lane = 118.0, 20.0, 62.0
    column_pt = (WIDTH - left - right) / len(rows)
    subtitle = "from left to right, step by step; below: what MongoDB holds after the step"
    with sheet(WIDTH, TOP + 16 + lane * (len(actors) + 1), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=16)
        axes.set(xlim=(0, len(rows)), ylim=(len(actors) + 1, 0))
        axes.set_axis_off()
        for lane_no, actor in enumerate(actors):
            colour = ACTORS[lane_no % len(ACTORS)]
            beside(axes, lane_no + 0.5, actor, "", readable(colour), INK, right)
            at = [column for column, row in enumerate(rows) if row["who"] == actor]
            axes.plot((at[0] + 0.5, at[-1] + 0.5), (lane_no + 0.5,) * 2, color=colour, lw=1.8, ls=(0, (3, 3)), zorder=1)
            for column in at:
                does = str(rows[column]["does"])
                _box(axes, column, lane_no, does, BAD if does.startswith("refused") else colour, column_pt)
        beside(axes, len(actors) + 0.5, "MongoDB", "", readable(MONGO), INK, right)
        axes.axhspan(len(actors) + 0.04, len(actors) + 0.96, color=tint(MONGO, 0.08), lw=0, zorder=0)
        start = 0
        for held, group in groupby(str(row["mongo"]) for row in rows):
            end = start + len(list(group))
            is_lost = bool(lost) and end == len(rows)
            _held(axes, start, end, len(actors), f"✗ {held}: {lost}" if is_lost else held, column_pt, is_lost=is_lost)
            start = end
        said = "; ".join(f"{row['who']} {row['does']} (MongoDB: {row['mongo']})" for row in rows)
        return picture(figure, f"{title}. {said}.{f' In the end: {lost}.' if lost else ''}")


def _box(axes: Axes, column: int, lane: int, does: str, colour: str, column_pt: float) -> None:
    is_refused = colour == BAD
    axes.add_patch(
        FancyBboxPatch(
            (column + 0.03, lane + 0.1), 0.94, 0.8, boxstyle="round,pad=0,rounding_size=0.06", ec=colour, lw=1.8,
            fc=tint(BAD, 0.14) if is_refused else PAPER, zorder=3, mutation_aspect=column_pt / 62,
        )
    )  # fmt: skip
    lines = textwrap.wrap(f"✗ {does}" if is_refused else does, 19)
    size = min(TEXT_PT, *(TEXT_PT * (column_pt - 18) / text_width(line, TEXT_PT) for line in lines))
    for number, line in enumerate(lines):
        y = lane + 0.5 + 0.27 * (number - (len(lines) - 1) / 2)
        axes.text(column + 0.5, y, line, ha="center", va="center_baseline", fontsize=size, color=INK, zorder=4)


def _held(axes: Axes, start: int, end: int, lane: int, text: str, column_pt: float, *, is_lost: bool) -> None:
    fill = tint(BAD, 0.85) if is_lost else tint(MONGO, 0.3)
    axes.add_patch(
        Rectangle((start + 0.02, lane + 0.16), end - start - 0.04, 0.68, fc=fill, ec=BAD if is_lost else MONGO, lw=1.8)
    )
    lines = textwrap.wrap(text, max(12, round((end - start) * column_pt / 8)))
    size = min(
        NAME_PT, *(NAME_PT * ((end - start) * column_pt - 16) / text_width(x, NAME_PT, bold=True) for x in lines)
    )
    for number, line in enumerate(lines):
        y = lane + 0.51 + 0.3 * (number - (len(lines) - 1) / 2)
        axes.text(
            (start + end) / 2, y, line, ha="center", va="center_baseline", fontsize=size, weight="bold", zorder=4,
            color=PAPER if is_lost else INK,
        )  # fmt: skip


# -- pages


def pages_walked(panels: Mapping[str, pd.DataFrame], *, title: str = "All pages, while others write") -> Picture:
    """Each document as a square, where it was when the walk began: read once, twice, or never.

    Args:
        panels: under the name of a way one row a document, in order: `page`, `times`, `is_gone` (it was removed).

    Raises ValueError for a column that is missing.
    """
    for name, frame in panels.items():
        require(name, frame, "page", "times", "is_gone")
    panels = {name: frame for name, frame in panels.items() if len(frame)}
    if not panels:
        return nothing(title)
    size = max(int(frame.groupby("page").size().max()) for frame in panels.values())
    pages = max(int(frame["page"].max()) for frame in panels.values())
    left, right, gap, bottom, panel = 178.0, 176.0, 22.0, 46.0, size * 14.0
    subtitle = "one square a document; a column is the page that it was on when the walk began"
    said = []
    with sheet(WIDTH, TOP + bottom + len(panels) * panel + (len(panels) - 1) * gap, title, subtitle) as figure:
        height = figure.get_size_inches()[1] * 72
        for index, (name, frame) in enumerate(panels.items()):
            below = bottom + (len(panels) - 1 - index) * (panel + gap)
            axes = plot(figure, left=left, right=right, bottom=below, top=height - below - panel)
            axes.set(xlim=(0.5, pages + 0.5), ylim=(size, 0), yticks=[])
            axes.set_xticks([1, *range(5, pages + 1, 5)])
            axes.tick_params(length=0, pad=5, labelbottom=index == len(panels) - 1)
            axes.spines[:].set_visible(False)
            notes = _squares(axes, frame)
            _stacked(axes, -14 / (WIDTH - left - right), _folded(name, left - 40), panel, INK, ha="right")
            for line, (words, colour) in enumerate(notes):
                y = 0.5 + (len(notes) - 1) * 10 / panel - line * 20 / panel
                axes.text(1.02, y, words, transform=axes.transAxes, va="center_baseline", fontsize=NAME_PT,
                          weight="bold", color=readable(colour))  # fmt: skip
            said.append(f"{name}: {', '.join(words for words, _ in notes)}")
        axes.set_xlabel("page", labelpad=4)
        return picture(figure, f"{title}. {subtitle}. {'; '.join(said)}.")


def _squares(axes: Axes, frame: pd.DataFrame) -> list[tuple[str, str]]:
    """Draw them, a path for all of a kind; what there is of each, and its colour."""
    column = frame["page"].to_numpy()
    row = frame.groupby("page").cumcount().to_numpy()
    times, is_gone = frame["times"].to_numpy(), frame["is_gone"].to_numpy(dtype=bool)
    kinds: tuple[tuple[str, np.ndarray, str, str], ...] = (
        ("read once", (times == 1) & ~is_gone, tint(SERIES[0], 0.45), ""),
        ("read twice", (times > 1) & ~is_gone, AGAIN, "2"),
        ("never read ✗", (times == 0) & ~is_gone, BAD, "✗"),
        ("taken back", is_gone, tint(QUIET, 0.25), ""),
    )
    found = []
    for words, chosen, colour, sign in kinds:
        if not chosen.any():
            continue
        codes = [Path.MOVETO, *[Path.LINETO] * 3, Path.CLOSEPOLY]
        corners = np.array([(-0.44, 0.08), (0.44, 0.08), (0.44, 0.92), (-0.44, 0.92), (-0.44, 0.08)])
        places = np.column_stack([column[chosen], row[chosen]])
        path = Path((places[:, None, :] + corners).reshape(-1, 2), codes * len(places))
        axes.add_patch(PathPatch(path, fc=colour, lw=0))
        for x, y in places if sign else ():
            axes.text(x, y + 0.52, sign, ha="center", va="center_baseline", fontsize=9.5, weight="bold",
                      color=PAPER if sign == "✗" else INK)  # fmt: skip
        found.append((f"{chosen.sum():,} {words}", SERIES[0] if words == "read once" else colour if sign else QUIET))
    return found


def page_times(times: pd.DataFrame, *, title: str = "How long a page takes, the further back it is") -> Picture:
    """Milliseconds by the number of the page, both on a logarithmic scale; one line a way.

    Args:
        times: one row a page and way: `way`, `page`, `ms`.

    Raises ValueError for a column that is missing.
    """
    require("times", times, "way", "page", "ms")
    if times.empty:
        return nothing(title)
    left, right, bottom, height = 84.0, 236.0, 60.0, 400.0
    with sheet(WIDTH, height, title, "one dot a page; the best of five times") as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=bottom)
        pages, low, high = sorted(times["page"].unique()), float(times["ms"].min()), float(times["ms"].max())
        axes.set(xscale="log", yscale="log", xlim=(pages[0] * 0.9, pages[-1] * 1.1), ylim=(low * 0.6, high * 1.6))
        axes.minorticks_off()
        axes.set_xticks(pages)
        axes.xaxis.set_major_formatter(lambda page, _: f"{page:,.0f}")
        axes.set_yticks([tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low * 0.6 <= tick <= high * 1.6])
        axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms")
        axes.tick_params(length=0, pad=7, labelsize=TEXT_PT)
        axes.grid(axis="y", color="#E9EBEC", lw=1)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("page", labelpad=6)
        said, ends = [], []
        for number, (way, group) in enumerate(times.groupby("way", sort=False)):
            colour = SERIES[number % len(SERIES)]
            group = group.sort_values("page")
            axes.plot(group["page"], group["ms"], "o-", color=colour, lw=3, ms=8, mec=PAPER, clip_on=False, zorder=3)
            first, last = float(group["ms"].iloc[0]), float(group["ms"].iloc[-1])
            ends.append((last, str(way), colour))
            said.append(f"{way}: {duration(first)} for page {pages[0]:,}, {duration(last)} for page {pages[-1]:,}")
        panel = height - TOP - bottom
        ends.sort()
        wanted = [float(axes.transAxes.inverted().transform(axes.transData.transform((1, y)))[1]) for y, _, _ in ends]
        starts = apart([y * panel - 18 for y in wanted], [40.0] * len(ends), -10, panel + 16)
        for (last, way, colour), start in zip(ends, starts, strict=True):
            for y, text, weight in ((start + 26, way, "bold"), (start + 8, duration(last), "normal")):
                axes.text(1.03, y / panel, shortened(text, right - 40, NAME_PT, bold=True), transform=axes.transAxes,
                          va="center_baseline", fontsize=NAME_PT, weight=weight, color=readable(colour))  # fmt: skip
        return picture(figure, f"{title}. {'; '.join(said)}.")


# -- questions


def questions_asked(ways: pd.DataFrame, *, title: str = "The same bills, asked for in other ways") -> Picture:
    """One bar a way: how long it took; beside it how many questions were asked.

    Args:
        ways: one row a way: `way`, `queries`, `docs` (that were sent), `ms`.

    Raises ValueError for a column that is missing.
    """
    require("ways", ways, "way", "queries", "docs", "ms")
    if ways.empty:
        return nothing(title)
    lane, bottom, right = 58.0, 48.0, 262.0
    left = 24 + max(text_width(str(way), NAME_PT, bold=True) for way in ways["way"]) + 18
    said = []
    with sheet(
        WIDTH, TOP + bottom + lane * len(ways), title, "how long it takes; MongoDB itself has counted the questions"
    ) as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=bottom)
        axes.set(xlim=(0, float(ways["ms"].max()) * 1.02), ylim=(len(ways), 0), yticks=[])
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_color(INK)
        axes.set_xlabel("milliseconds", labelpad=6)
        for index, row in enumerate(ways.to_dict("records")):
            colour = BAD if row["queries"] > 10 else SERIES[0]
            axes.add_patch(Rectangle((0, index + 0.2), float(row["ms"]), 0.6, fc=tint(colour, 0.75), lw=0))
            asked = f"{row['queries']:,} question{'s' * (row['queries'] != 1)}"
            beside(axes, index + 0.5, str(row["way"]), f"{asked}, {duration(row['ms'])}", INK, readable(colour), right)
            said.append(f"{row['way']}: {asked}, {row['docs']:,} documents, {duration(row['ms'])}")
        return picture(figure, f"{title}. {'; '.join(said)}.")


def plans(explained: pd.DataFrame, *, title: str = "What MongoDB looks at, index by index") -> Picture:
    """One row an index: what is done, one stage after the other, and how much is looked at for what is given back.

    Args:
        explained: `index`, `keys` and `documents` (looked at), `returned`, `stages` (the first one in front).

    Raises ValueError for a column that is missing.
    """
    require("explained", explained, "index", "keys", "documents", "returned", "stages")
    if explained.empty:
        return nothing(title)
    lane, bottom, right = 96.0, 44.0, 190.0
    left = 24 + max(text_width(str(one), NAME_PT, bold=True) for one in explained["index"]) + 20
    subtitle = "index keys and documents looked at, and documents given back; a logarithmic scale"
    said = []
    with sheet(WIDTH, TOP + bottom + lane * len(explained), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=bottom)
        most = float(explained[["keys", "documents"]].max().max())
        axes.set(xscale="log", xlim=(0.8, most * 1.1), ylim=(len(explained), 0), yticks=[])
        axes.minorticks_off()
        axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        for index, row in enumerate(explained.to_dict("records")):
            is_sorted = "SORT" in row["stages"]
            axes.axhspan(index + 0.03, index + 0.97, color=tint(QUIET, 0.07), lw=0, zorder=0)
            beside(axes, index + 0.55, str(row["index"]), "", INK, INK, right)
            chain = " → ".join(STAGES.get(stage, stage) for stage in row["stages"])
            axes.text(0.01, index + 0.17, shortened(chain, WIDTH - left - right - 16, TEXT_PT, bold=True),
                      transform=axes.get_yaxis_transform(), va="center_baseline", fontsize=TEXT_PT, weight="bold",
                      color=BAD if is_sorted else readable(GOOD))  # fmt: skip
            bars = (
                ("keys", row["keys"], SERIES[3]),
                ("documents", row["documents"], MONGO),
                ("given back", row["returned"], INK),
            )
            for number, (what, count, colour) in enumerate(bars):
                y = index + 0.34 + number * 0.2
                if count:
                    axes.add_patch(Rectangle((0.8, y), count - 0.8, 0.15, fc=colour, lw=0))
                axes.text(1.015, y + 0.08, f"{count:,} {what}", transform=axes.get_yaxis_transform(),
                          va="center_baseline", fontsize=TEXT_PT, weight="bold", color=readable(colour))  # fmt: skip
            looked = f"{row['keys']:,} keys, {row['documents']:,} documents, {row['returned']:,} given back"
            said.append(f"{row['index']}: {chain.replace(' → ', ', then ')}: {looked}")
        return picture(figure, f"{title}. {'; '.join(said)}.")


# -- over time


def lives(handled: pd.DataFrame, *, title: str = "One reader, killed and started again") -> Picture:
    """A raster: from left to right the changes in their order, from top to bottom the lives of the reader.

    Args:
        handled: one row a change that was handled: `life`, `number` (of the change, from 1), `is_again`.

    Raises ValueError for a column that is missing.
    """
    require("handled", handled, "life", "number", "is_again")
    if handled.empty:
        return nothing(title)
    names = sorted(handled["life"].unique())
    left, right, lane, bottom = 108.0, 206.0, 66.0, 50.0
    last = int(handled["number"].max())
    said = []
    subtitle = "one stroke a change that was handled; amber and longer: once more"
    with sheet(WIDTH, TOP + bottom + lane * len(names), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=bottom)
        axes.set(xlim=(0, last + 1), ylim=(len(names), 0), yticks=[])
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("number of the change", labelpad=6)
        for index, life in enumerate(names):
            group = handled[handled["life"] == life]
            again = group["is_again"].to_numpy(dtype=bool)
            numbers = group["number"].to_numpy()
            axes.axhspan(index + 0.06, index + 0.94, color=tint(MONGO, 0.07), lw=0, zorder=0)
            for chosen, colour, reach, width in ((~again, SERIES[0], 0.24, 1.6), (again, AGAIN, 0.38, 2.4)):
                xs = np.column_stack([numbers[chosen], numbers[chosen], np.full(chosen.sum(), np.nan)]).ravel()
                ys = np.tile([index + 0.5 - reach, index + 0.5 + reach, np.nan], chosen.sum())
                axes.plot(xs, ys, color=colour, lw=width, solid_capstyle="butt", zorder=3)
            if life != names[-1]:
                axes.text(numbers.max() + 0.012 * last, index + 0.5, "✗ SIGKILL", va="center_baseline",
                          fontsize=TEXT_PT, weight="bold", color=BAD)  # fmt: skip
            note = f"{len(group):,} handled" + (f", {again.sum():,} again" if again.any() else "")
            beside(axes, index + 0.5, f"life {life}", note, INK, readable(AGAIN) if again.any() else INK, right)
            said.append(f"life {life}: {note}")
        return picture(figure, f"{title}. {'; '.join(said)}.")


def counts_over_time(
    counts: pd.DataFrame, moments: Mapping[str, float], *, title: str, axis: str = "seconds"
) -> Picture:
    """Some counts, each a line of steps with its name at its end.

    Args:
        counts: `at_s`, and a column for each count.
        moments: what happened when, in seconds.

    Raises ValueError for a column that is missing.
    """
    require("counts", counts, *counts.columns, "at_s")
    if counts.empty:
        return nothing(title)
    left, right, bottom, height = 76.0, 230.0, 56.0, 380.0
    names = [name for name in counts.columns if name != "at_s"]
    with sheet(WIDTH, height, title, f"how many there are, over time: {', '.join(names)}") as figure:
        axes = plot(figure, left=left, right=right, top=TOP + 26, bottom=bottom)
        most = float(counts[names].max().max())
        axes.set(xlim=(0, float(counts["at_s"].max())), ylim=(0, most * 1.06))
        axes.tick_params(length=0, pad=7)
        axes.grid(axis="y", color="#E9EBEC", lw=1)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(axis, labelpad=6)
        panel = height - TOP - 26 - bottom
        for number, name in enumerate(names):
            axes.step(counts["at_s"], counts[name], where="post", color=SERIES[number], lw=(5.0, 2.6)[number > 0],
                      alpha=(0.45, 1.0)[number > 0], zorder=3, clip_on=False)  # fmt: skip
        ends = sorted((float(counts[name].iloc[-1]), -number, name) for number, name in enumerate(names))
        starts = apart([y / (most * 1.06) * panel - 9 for y, _, _ in ends], [20.0] * len(ends), -10, panel)
        for (end, number, name), start in zip(ends, starts, strict=True):
            colour = readable(SERIES[-number])
            axes.text(1.02, (start + 9) / panel, f"{end:,.0f} {name}", transform=axes.transAxes,
                      va="center_baseline", fontsize=NAME_PT, weight="bold", color=colour)  # fmt: skip
        _moments(axes, moments, WIDTH - left - right)
        said = "; ".join(
            f"{name}: {counts[name].iloc[0]:,.0f} at first, {counts[name].iloc[-1]:,.0f} at the end" for name in names
        )
        when = "".join(f" {what} at {at_s:.1f} s." for what, at_s in moments.items())
        return picture(figure, f"{title}. {said}.{when}")


def _moments(axes: Axes, moments: Mapping[str, float], width: float) -> None:
    """A line for each, with its words above."""
    end = axes.get_xlim()[1]
    ordered = sorted(moments.items(), key=lambda moment: moment[1])
    sizes = [text_width(words, TEXT_PT, bold=True) + 12 for words, _ in ordered]
    wanted = [at / end * width - 4 for _, at in ordered]
    for (words, at), start in zip(ordered, apart(wanted, sizes, -40, width + 200), strict=True):
        axes.axvline(at, color=INK, lw=1.6, ls=(0, (4, 3)), zorder=4)
        axes.text(start / width, 1.04, words, transform=axes.transAxes, fontsize=TEXT_PT, weight="bold", color=INK)


def counted_through(
    increments: pd.DataFrame, reads: pd.DataFrame, spans: Mapping[str, tuple[float, float]], *, title: str
) -> Picture:
    """Above: how many increments each writer has made. Below: how long each read took, and what came of it.

    Args:
        increments: one row each: `writer`, `at_s`.
        reads: one row each: `due_s`, `took_ms`, `status`; see STATUSES.
        spans: what was wrong, from when to when, in seconds.

    Raises ValueError for a column that is missing.
    """
    require("increments", increments, "writer", "at_s")
    require("reads", reads, "due_s", "took_ms", "status")
    if increments.empty or reads.empty:
        return nothing(title)
    left, right, bottom, panel, gap = 110.0, 186.0, 56.0, 150.0, 30.0
    end_s = max(float(increments["at_s"].max()), float(reads["due_s"].max()))
    said = []
    subtitle = "above: increments so far; below: one mark a read, and how long it took; red: while it was broken"
    with sheet(WIDTH, TOP + 22 + 2 * panel + gap + bottom, title, subtitle) as figure:
        upper = plot(figure, left=left, right=right, top=TOP + 22, bottom=bottom + panel + gap)
        lower = plot(figure, left=left, right=right, top=TOP + 22 + panel + gap, bottom=bottom)
        writers = list(increments.groupby("writer"))
        most = max(len(group) for _, group in writers)
        upper.set(ylim=(0, most * 1.08), yticks=[0, most])
        for number, (writer, group) in enumerate(writers):
            at = np.sort(group["at_s"].to_numpy())
            upper.step(at, np.arange(1, len(at) + 1), where="post", color=SERIES[(0, 3)[number % 2]], lw=3)
            upper.text(1.02, 0.86 - 0.16 * number, f"{len(at):,} by {writer}", transform=upper.transAxes,
                       va="center_baseline", fontsize=NAME_PT, weight="bold",
                       color=readable(SERIES[(0, 3)[number % 2]]))  # fmt: skip
            said.append(f"{writer}: {len(at):,} increments")
        known = reads["status"].where(reads["status"].isin(list(STATUSES)), 0)
        low, high = float(reads["took_ms"].min()), float(reads["took_ms"].max())
        lower.set(yscale="log", ylim=(low * 0.7, high * 2))
        lower.yaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms" if ms < 1_000 else f"{ms / 1_000:g} s")
        lower.minorticks_off()
        for number, (status, (words, colour, mark)) in enumerate(
            (s, v) for s, v in STATUSES.items() if (known == s).any()
        ):
            of_status = reads[known == status]
            lower.plot(of_status["due_s"], of_status["took_ms"], mark, ms=6, mew=1.4, color=colour, clip_on=False)
            lower.text(1.02, 0.86 - 0.16 * number, f"{len(of_status):,} {words}", transform=lower.transAxes,
                       va="center_baseline", fontsize=NAME_PT, weight="bold", color=readable(colour))  # fmt: skip
            said.append(f"{len(of_status):,} reads {words}")
        for axes, name in ((upper, "increments"), (lower, "reads")):
            axes.set_xlim(0, end_s * 1.01)
            axes.tick_params(length=0, pad=7, labelbottom=axes is lower)
            axes.spines["left"].set_visible(False)
            axes.set_ylabel(name, fontsize=NAME_PT, weight="bold", color=INK, labelpad=8)
            for what, (began_s, ended_s) in spans.items():
                axes.axvspan(began_s, ended_s, color=tint(BAD, 0.16), lw=0, zorder=0)
                if axes is upper:
                    axes.text(began_s, 1.04, what, transform=axes.get_xaxis_transform(), fontsize=TEXT_PT,
                              weight="bold", color=BAD)  # fmt: skip
        lower.set_xlabel("seconds", labelpad=6)
        wrong = "".join(f" {what} from {a:.1f} s to {b:.1f} s." for what, (a, b) in spans.items())
        return picture(figure, f"{title}. {'; '.join(said)}.{wrong}")


# -- words


def _stacked(axes: Axes, x: float, lines: Sequence[str], panel: float, colour: str, *, ha: str) -> None:
    for number, line in enumerate(lines):
        y = 0.5 + (len(lines) - 1) * 9 / panel - number * 18 / panel
        axes.text(x, y, line, transform=axes.transAxes, ha=ha, va="center_baseline", fontsize=NAME_PT, weight="bold",
                  color=colour)  # fmt: skip


def _folded(text: str, width: float) -> list[str]:
    """On as many lines as it takes."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", NAME_PT, bold=True) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
