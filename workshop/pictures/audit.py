"""The audit: what was done to a row, three books side by side, a change's way, how the audit keeps up, columns."""

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, PathPatch, Rectangle
from matplotlib.path import Path

from workshop.pictures.frames import duration, require
from workshop.pictures.style import (
    INK,
    LANES,
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
BAD, GOOD = MEANING["failed"], MEANING["ok"]
BY_HAND = "by hand"
DEEDS: Mapping[str, tuple[str, str]] = {
    "create": ("+", GOOD),
    "update": ("~", SYSTEM["postgres"]),
    "delete": ("-", BAD),
    "read": ("·", QUIET),
    "truncate": ("-", BAD),
    "transaction": ("T", SYSTEM["postgres"]),
}
"""Sign and colour of what was done. What is done by hand is drawn in the colour of failures, whatever it is."""
BOOKS: Mapping[str, str] = {
    "postgres": "what has happened",
    "log": "the application's log",
    "audit": "our audit",
}
HOPS: Mapping[str, str] = {
    "postgres": SYSTEM["postgres"],
    "connect": SYSTEM["connect"],
    "kafka": SYSTEM["kafka"],
    "mongo": SYSTEM["mongo"],
    "reader": SYSTEM["app"],
}
DOTS = 200
"""Of more changes than these about so many are drawn; what is said in numbers is said of all."""
MOST_CHANGES = 4
"""Of one step so many are named; of more it is said how many."""


# -- what was done


def audit_timeline(steps: pd.DataFrame, *, title: str = "The life of an order") -> Picture:
    """Who did what, from top to bottom in the order in which it became true. Not to scale.

    Args:
        steps: one row a step: `who`, `why`, `does` (an operation, or `transaction`), `changes` (a list of texts).

    Raises ValueError for a column that is missing.
    """
    require("steps", steps, "who", "why", "does", "changes")
    if steps.empty:
        return nothing(title)
    rows = steps.to_dict("records")
    named = [_named(row["changes"]) for row in rows]
    heights = [max(2, len(lines)) * 21.0 + 24 for lines in named]
    rail, left, middle = 52.0, 84.0, 440.0
    subtitle = "the oldest first; who did it and why, and what it was before and after"
    with sheet(WIDTH, TOP + sum(heights) + 14, title, subtitle) as figure:
        axes = plot(figure, left=0, right=0, top=TOP, bottom=14)
        axes.set(xlim=(0, WIDTH), ylim=(sum(heights), 0))
        axes.set_axis_off()
        axes.plot((rail, rail), (heights[0] / 2, sum(heights) - heights[-1] / 2), color=QUIET, lw=2, zorder=1)
        top = 0.0
        for row, lines, height in zip(rows, named, heights, strict=True):
            sign, colour = DEEDS[row["does"]]
            is_by_hand = str(row["who"]).startswith(BY_HAND)
            colour = BAD if is_by_hand else colour
            y = top + height / 2
            axes.add_patch(
                FancyBboxPatch(
                    (left - 8, top + 5), WIDTH - left - 12, height - 10, boxstyle="round,pad=0,rounding_size=7",
                    fc=tint(colour, 0.14 if is_by_hand else 0.07), ec=colour if is_by_hand else "none", lw=1.6,
                )
            )  # fmt: skip
            axes.plot(rail, y, "o", ms=25, mfc=colour, mec=PAPER, mew=2.5, zorder=3)
            axes.text(rail, y, sign, ha="center", va="center_baseline", fontsize=NAME_PT, weight="bold", color=PAPER,
                      zorder=4)  # fmt: skip
            room = middle - left - 18
            why = f"{row['does']}: {row['why']}" if row["why"] else str(row["does"])
            _lines(axes, left + 6, y, [(str(row["who"]), True, readable(colour)), (why, False, QUIET)], room)
            _lines(axes, middle, y, [(line, True, INK) for line in lines], WIDTH - middle - 34)
            top += height
        said = "; ".join(
            f"{row['who']}, {row['does']}{_because(row['why'])}: {', '.join(lines)}"
            for row, lines in zip(rows, named, strict=True)
        )
        return picture(figure, f"{title}. {said}.")


def _because(why: object) -> str:
    return f" ({why})" if why else ""


def _named(changes: Sequence[str]) -> list[str]:
    """The changes, those that are too many counted."""
    if len(changes) <= MOST_CHANGES:
        return list(changes) or ["nothing is another value"]
    return [*changes[: MOST_CHANGES - 1], f"and {len(changes) - MOST_CHANGES + 1} more"]


def _lines(axes: Axes, x: float, y: float, lines: Sequence[tuple[str, bool, str]], room: float) -> None:
    """Lines of text, one below the other, their middle at a height; each shrinks a little, or is cut, to fit."""
    for number, (text, is_bold, colour) in enumerate(lines):
        size = NAME_PT if is_bold else TEXT_PT
        size = max(TEXT_PT - 1, min(size, size * room / max(1.0, text_width(text, size, bold=is_bold))))
        axes.text(
            x, y + (number - (len(lines) - 1) / 2) * 21, shortened(text, room, size, bold=is_bold), fontsize=size,
            weight="bold" if is_bold else "normal", va="center_baseline", color=colour, zorder=4,
        )  # fmt: skip


def books_compared(deeds: pd.DataFrame, *, title: str = "Three deeds, and what the books say of them") -> Picture:
    """A table: one row a deed, one column a book; what a book has wrong is marked.

    Args:
        deeds: `deed`, `postgres`, `log`, `log_is_right`, `audit`, `audit_is_right`.

    Raises ValueError for a column that is missing.
    """
    require("deeds", deeds, "deed", "postgres", "log", "log_is_right", "audit", "audit_is_right")
    if deeds.empty:
        return nothing(title)
    row_pt, head, left, gap = 76.0, 34.0, 226.0, 8.0
    column = (WIDTH - left - 24) / len(BOOKS)
    said = []
    with sheet(WIDTH, TOP + head + row_pt * len(deeds) + 8, title, "✗ where a book is wrong") as figure:
        axes = plot(figure, left=0, right=0, top=TOP, bottom=8)
        axes.set(xlim=(0, WIDTH), ylim=(head + row_pt * len(deeds), 0))
        axes.set_axis_off()
        for number, name in enumerate(BOOKS.values()):
            text = shortened(name, column - 16, NAME_PT, bold=True)
            axes.text(left + number * column + 10, head / 2, text, va="center_baseline", fontsize=NAME_PT,
                      weight="bold", color=QUIET)  # fmt: skip
        for index, row in enumerate(deeds.to_dict("records")):
            y = head + row_pt * index
            _wrapped(axes, 24, y + row_pt / 2, str(row["deed"]), left - 34, INK)
            for number, book in enumerate(BOOKS):
                is_right = book == "postgres" or bool(row[f"{book}_is_right"])
                colour = QUIET if book == "postgres" else GOOD if is_right else BAD
                axes.add_patch(
                    FancyBboxPatch(
                        (left + number * column, y + 4), column - gap, row_pt - 8, ec=colour, lw=1.6,
                        boxstyle="round,pad=0,rounding_size=6", fc=tint(colour, 0.1),
                    )
                )  # fmt: skip
                sign = "" if book == "postgres" else "✓ " if is_right else "✗ "
                _wrapped(axes, left + number * column + 10, y + row_pt / 2, f"{sign}{row[book]}", column - gap - 18,
                         INK if book == "postgres" else readable(colour))  # fmt: skip
            verdicts = (
                f"{BOOKS[book]} says {row[book]}, {_verdict(row[f'{book}_is_right'])}"
                for book in BOOKS
                if book != "postgres"
            )
            said.append(f"{row['deed']}: {row['postgres']}; {'; '.join(verdicts)}")
        return picture(figure, f"{title}. {'. '.join(said)}.")


def _verdict(is_right: object) -> str:
    return "right" if is_right else "wrong"


def _wrapped(axes: Axes, x: float, y: float, text: str, room: float, colour: str) -> None:
    width = max(8, int(room / text_width("n", TEXT_PT, bold=True)))
    lines = textwrap.wrap(text, width)
    size = min(TEXT_PT, *(TEXT_PT * room / text_width(line, TEXT_PT, bold=True) for line in lines))
    for number, line in enumerate(lines):
        axes.text(x, y + (number - (len(lines) - 1) / 2) * 17, line, fontsize=size, weight="bold",
                  va="center_baseline", color=colour)  # fmt: skip


# -- how long it takes


def audit_hops(
    hops: pd.DataFrame, names: Mapping[str, str], *, title: str = "From the commit to the reader"
) -> Picture:
    """One lane a hop, one dot a change: how long after the commit it was there; the median is marked and joined.

    Args:
        hops: one row a change and hop: `hop`, `ms` since the commit.
        names: the hops in their order, and what has happened there.

    Raises ValueError for a column that is missing.
    """
    require("hops", hops, "hop", "ms")
    lanes = [hop for hop in names if hop in set(hops["hop"])]
    if not lanes:
        return nothing(title)
    left, right, lane, bottom = 222.0, 182.0, 66.0, 54.0
    count = int(hops.groupby("hop").size().max())
    subtitle = f"{count:,} changes, one dot each; all clocks are one machine's"
    with sheet(WIDTH, TOP + bottom + lane * len(lanes), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=bottom)
        most = max(1.0, float(hops["ms"].quantile(0.995)) * 1.08)
        axes.set(xlim=(-0.02 * most, most), ylim=(len(lanes), 0), yticks=[])
        axes.tick_params(length=0, pad=7)
        axes.grid(axis="x", color="#E9EBEC", lw=1)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("milliseconds since the commit", labelpad=6)
        medians, said = [], []
        for index, hop in enumerate(lanes):
            colour = HOPS.get(hop, SERIES[0])
            ms = hops.loc[hops["hop"] == hop, "ms"].sort_values().to_numpy(dtype=float)
            median, p99 = float(np.median(ms)), float(np.quantile(ms, 0.99))
            axes.axhspan(index + 0.05, index + 0.95, color=tint(colour, 0.09), lw=0, zorder=0)
            spread = index + 0.5 + 0.28 * (np.arange(len(ms)) * 0.618 % 1 - 0.5)  # spread evenly, and always the same
            # A way of no length with round ends is a dot, in a tenth of the bytes of a marker.
            dots = np.repeat(np.column_stack([np.clip(ms, None, most), spread])[:: max(1, len(ms) // DOTS)], 2, axis=0)
            way = Path(dots, np.tile([Path.MOVETO, Path.LINETO], len(dots) // 2))
            axes.add_patch(PathPatch(way, fill=False, ec=colour, lw=5, capstyle="round", alpha=0.45, zorder=2))
            axes.plot((median, median), (index + 0.14, index + 0.86), color=readable(colour), lw=4, zorder=5,
                      solid_capstyle="round")  # fmt: skip
            system = "a reader" if hop == "reader" else LANES[hop][0]
            note = "0 ms" if index == 0 else f"{duration(max(0.0, median))}"
            _hop_name(axes, index, system, names[hop], note, "" if index == 0 else f"p99 {duration(p99)}", colour)
            medians.append((median, index + 0.5))
            said.append(f"{system}, {names[hop]}: median {duration(max(0.0, median))}, 99 % within {duration(p99)}")
        axes.plot(*zip(*medians, strict=True), color=INK, lw=2, zorder=4)
        return picture(figure, f"{title}. {subtitle}. {'; '.join(said)}.")


def _hop_name(axes: Axes, index: int, system: str, what: str, note: str, more: str, colour: str) -> None:
    """To the left of a lane the system and what has happened there, to the right how soon."""
    for x, ha, first, second in ((-0.02, "right", system, what), (1.02, "left", note, more)):
        for y, text, size, weight, shade in (
            (0.34 if second else 0.5, first, NAME_PT, "bold", readable(colour)),
            (0.68, second, TEXT_PT, "normal", QUIET),
        ):
            axes.text(x, index + y, text, transform=axes.get_yaxis_transform(), ha=ha, va="center_baseline",
                      fontsize=size, weight=weight, color=shade)  # fmt: skip


def audit_progress(
    looks: pd.DataFrame, marks: Sequence[tuple[float, str]] = (), *, title: str = "Committed, and recorded"
) -> Picture:
    """Changes committed and records stored over time, and below how many changes are not recorded yet.

    Args:
        looks: `at_s`, `orders`, `changes`, `records`, each counted from the beginning.
        marks: moments in the same seconds, and what happened then.

    Raises ValueError for a column that is missing.
    """
    require("looks", looks, "at_s", "orders", "changes", "records")
    if looks.empty:
        return nothing(title)
    left, right, upper, between, lower, bottom = 84.0, 232.0, 230.0, 34.0, 110.0, 56.0
    last = looks.iloc[-1]
    lag = (looks["changes"] - looks["records"]).to_numpy()
    end, most, worst = max(0.1, float(last["at_s"])), max(1.0, float(looks["changes"].max())), float(lag.max())
    height = TOP + 26 + upper + between + lower + bottom
    with sheet(WIDTH, height, title, "counted in PostgreSQL and in MongoDB, each by itself") as figure:
        above = plot(figure, left=left, right=right, top=TOP + 26, bottom=bottom + lower + between)
        below = plot(figure, left=left, right=right, top=TOP + 26 + upper + between, bottom=bottom)
        for axes, top in ((above, most * 1.06), (below, max(1.0, worst) * 1.15)):
            axes.set(xlim=(0, end), ylim=(0, top))
            axes.tick_params(length=0, pad=7)
            axes.grid(axis="y", color="#E9EBEC", lw=1)
            axes.spines["left"].set_visible(False)
            axes.yaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
            for at_s, _ in marks:
                axes.axvline(at_s, color=BAD, lw=1.6, ls=(0, (4, 3)), zorder=4)
        above.tick_params(labelbottom=False)
        below.set_yticks([0.0, worst] if worst else [0.0])
        below.set_xlabel("seconds since the start", labelpad=6)
        at = looks["at_s"].to_numpy()
        above.plot(at, looks["changes"], color=SYSTEM["postgres"], lw=5, alpha=0.45, zorder=2, clip_on=False)
        above.plot(at, looks["records"], color=SYSTEM["mongo"], lw=2.6, zorder=3, clip_on=False)
        below.fill_between(at, 0, lag, color=tint(BAD, 0.35), lw=0)
        below.plot(at, lag, color=BAD, lw=2, clip_on=False)
        ends = sorted(
            (
                (float(last["changes"]), f"{last['changes']:,.0f} committed", SYSTEM["postgres"]),
                (float(last["records"]), f"{last['records']:,.0f} recorded", SYSTEM["mongo"]),
            )
        )
        starts = apart([y / (most * 1.06) * upper - 10 for y, _, _ in ends], [21.0, 21.0], 22, upper)
        for (_, text, colour), start in zip(ends, starts, strict=True):
            above.text(1.02, (start + 10) / upper, text, transform=above.transAxes, va="center_baseline",
                       fontsize=NAME_PT, weight="bold", color=readable(colour))  # fmt: skip
        above.text(1.02, 0.05, f"by {last['orders']:,.0f} new orders", transform=above.transAxes, fontsize=TEXT_PT,
                   va="center_baseline", color=QUIET)  # fmt: skip
        for line, (text, colour) in enumerate(
            ((f"{lag[-1]:,.0f} behind", readable(BAD)), (f"at most {worst:,.0f}", QUIET))
        ):
            below.text(1.02, 0.62 - 0.22 * line, text, transform=below.transAxes, va="center_baseline",
                       fontsize=NAME_PT, weight="bold", color=colour)  # fmt: skip
        _marked(above, marks, end, WIDTH - left - right)
        happened = "".join(f" At {at_s:.1f} s: {what}." for at_s, what in marks)
        return picture(
            figure,
            f"{title}. After {end:.1f} s: {last['changes']:,.0f} changes committed by {last['orders']:,.0f} new "
            f"orders, {last['records']:,.0f} recorded, {lag[-1]:,.0f} behind, at most {worst:,.0f}.{happened}",
        )


def _marked(axes: Axes, marks: Sequence[tuple[float, str]], end: float, width: float) -> None:
    ordered = sorted(marks)
    sizes = [text_width(words, TEXT_PT, bold=True) + 12 for _, words in ordered]
    wanted = [at_s / end * width - 4 for at_s, _ in ordered]
    for (_, words), start in zip(ordered, apart(wanted, sizes, -30, width + 200), strict=True):
        axes.text(start / width, 1.05, words, transform=axes.transAxes, fontsize=TEXT_PT, weight="bold", color=BAD)


# -- columns


def columns_through(
    rows: pd.DataFrame, altered: Mapping[int, str], *, title: str = "A column comes, gets another name, and goes"
) -> Picture:
    """What some columns held after each record of a row; where there is no bar, there was no such column.

    Args:
        rows: one row a record, one column a column: a text, or None.
        altered: what was done to the table, by the number of the record before which that was, from 0.

    """
    if rows.empty or not len(rows.columns):
        return nothing(title)
    left, right, lane, head, bottom = 150.0, 28.0, 50.0, 30.0, 46.0
    step = (WIDTH - left - right) / len(rows)
    subtitle = "one column of the picture a record; an empty place: the row had no such column"
    said = []
    with sheet(WIDTH, TOP + head + bottom + lane * len(rows.columns), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP + head, bottom=bottom)
        axes.set(xlim=(0, len(rows)), ylim=(len(rows.columns), 0), yticks=[])
        axes.set_xticks(np.arange(len(rows)) + 0.5, [str(number) for number in range(1, len(rows) + 1)])
        axes.tick_params(length=0, pad=6)
        axes.spines[:].set_visible(False)
        axes.set_xlabel("number of the record", labelpad=2)
        for index, name in enumerate(map(str, rows.columns)):
            axes.axhspan(index + 0.06, index + 0.94, color=tint(QUIET, 0.07), lw=0, zorder=0)
            beside(axes, index + 0.5, name, "", INK, INK, right)
            held = rows[name].tolist()
            for number, value in enumerate(held):
                if value is None or pd.isna(value):
                    continue
                colour = SYSTEM["mongo"] if number == 0 or held[number - 1] != value else QUIET
                axes.add_patch(
                    Rectangle((number + 0.02, index + 0.14), 0.96, 0.72, fc=tint(colour, 0.3), ec=colour, lw=1.4)
                )
                text = shortened(str(value), step - 18, TEXT_PT, bold=True)
                axes.text(number + 0.5, index + 0.52, text, ha="center", va="center_baseline", fontsize=TEXT_PT,
                          weight="bold", color=INK)  # fmt: skip
            there = [f"{number + 1} {value}" for number, value in enumerate(held) if not pd.isna(value)]
            said.append(f"{name}: {', '.join(there) or 'never there'}")
        for number, what in altered.items():
            axes.axvline(number, color=BAD, lw=1.8, ls=(0, (4, 3)), zorder=4)
            axes.text(number, -0.18, what, ha="center", va="bottom", fontsize=TEXT_PT, weight="bold", color=BAD)
        done = "".join(f" Before record {number + 1}: {what}." for number, what in altered.items())
        return picture(figure, f"{title}. {'; '.join(said)}.{done}")
