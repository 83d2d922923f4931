"""What policies and ways of revoking lead to: children of one token, how soon an end is felt, what a check costs."""

from collections.abc import Mapping
from datetime import timedelta

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workshop.pictures.frames import duration, require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    QUIET,
    SERIES,
    SMALL_PT,
    TEXT_PT,
    Picture,
    apart,
    beside,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    tint,
)

WIDTH, LEFT, TOP = 960.0, 170.0, 84.0
FAILED, LIVE = MEANING["failed"], MEANING["ok"]
IN_A_ROW = 25
LABEL = 210.0
"""Room for what stands beside a point, in points."""


def live_children(races: pd.DataFrame, *, title: str = "One refresh token, sent many times at once") -> Picture:
    """The children that one token got under each policy, and what their owner noticed.

    Args:
        races: one row a policy: `policy`, `requests`, `children` (how many it got), `live` (how many of those still
            work), `owner` (what the owner's own client made of it, in a few words).

    Raises ValueError for a column that is missing.
    """
    require("races", races, "policy", "requests", "children", "live", "owner")
    if races.empty:
        return nothing(title)
    rows = races.to_dict("records")
    subtitle = f"{max(int(row['requests']) for row in rows)} requests at once to two app processes; a disc: a child"
    right, lane = 300.0, 96.0
    with sheet(WIDTH, TOP + 24 + lane * len(rows), title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=right, top=TOP, bottom=24)
        axes.set(xlim=(-0.7, IN_A_ROW), ylim=(len(rows), 0))
        axes.set_axis_off()
        for index, row in enumerate(rows):
            live, children = int(row["live"]), int(row["children"])
            shade = readable(LIVE) if live == 1 else FAILED
            axes.axhspan(index + 0.04, index + 0.96, color=tint(QUIET, 0.08), lw=0, zorder=0)
            _discs(axes, index, children, live)
            beside(axes, index + 0.5, str(row["policy"]), "", INK, QUIET, right)
            place = axes.get_yaxis_transform()
            note = f"{'✓' if live == 1 else '✗'} {live} live of {children}"
            axes.text(1.02, index + 0.4, note, transform=place, fontsize=NAME_PT, weight="bold", color=shade)
            axes.text(1.02, index + 0.72, str(row["owner"]), transform=place, fontsize=TEXT_PT, color=INK)
        said = "; ".join(
            f"{row['policy']}: children {row['children']}, live {row['live']}, {row['owner']}" for row in rows
        )
        return picture(figure, f"{title}. {subtitle}. {said}.")


def how_soon(
    ends: pd.DataFrame, *, promised_ms: float, title: str = "How soon the end of a session is felt"
) -> Picture:
    """How long each of some things took, one dot a try, on a logarithmic scale.

    Args:
        ends: one row a measurement: `what`, `ms`.
        promised_ms: no measurement may be beyond this.

    Raises ValueError for a column that is missing, and for a time that is not above 0.
    """
    require("ends", ends, "what", "ms")
    if ends.empty:
        return nothing(title)
    if not (ends["ms"] > 0).all():
        raise ValueError("ends: column 'ms' must be above 0")
    groups = {str(what): np.sort(group["ms"].to_numpy(dtype=float)) for what, group in ends.groupby("what", sort=False)}
    tries = max(len(times) for times in groups.values())
    lane, bottom = 104.0, 60.0
    subtitle = f"{tries} tries, one dot each; the bar is the median"
    with sheet(WIDTH, TOP + 18 + bottom + lane * len(groups), title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=150, top=TOP + 18, bottom=bottom)
        low = min(1.0, *(float(times[0]) for times in groups.values()))
        high = max(promised_ms, *(float(times[-1]) for times in groups.values()))
        axes.set(xscale="log", xlim=(low * 0.8, high * 1.25), ylim=(len(groups), 0), yticks=[])
        axes.minorticks_off()
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("milliseconds after the logout was sent", labelpad=8)
        axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:,g}")
        for index, (what, times) in enumerate(groups.items()):
            colour = SERIES[index % len(SERIES)]
            axes.axhspan(index + 0.04, index + 0.96, color=tint(colour, 0.08), lw=0, zorder=0)
            spread = 0.62 + 0.2 * np.sin(np.arange(len(times)) * 2.4)  # so that dots at one moment are seen
            axes.plot(times, index + spread, "o", ms=8, color=colour, alpha=0.75, mec=PAPER, mew=0.8, zorder=3)
            middle = float(np.median(times))
            axes.plot((middle, middle), (index + 0.36, index + 0.9), color=INK, lw=3, zorder=4)
            axes.text(
                middle, index + 0.22, f"median {duration(middle)}", ha="center", va="center_baseline", weight="bold",
                fontsize=TEXT_PT,
            )  # fmt: skip
            beside(axes, index + 0.5, what, f"all by {duration(float(times[-1]))}", readable(colour), INK, 150)
        axes.axvline(promised_ms, color=FAILED, lw=1.8, ls=(0, (4, 3)))
        axes.text(
            promised_ms, 1.03, f"promised: {duration(promised_ms)}", transform=axes.get_xaxis_transform(), ha="center",
            fontsize=SMALL_PT, weight="bold", color=FAILED,
        )  # fmt: skip
        said = "; ".join(
            f"{what}: median {duration(float(np.median(times)))}, all by {duration(float(times[-1]))}"
            for what, times in groups.items()
        )
        return picture(figure, f"{title}. {subtitle}. {said}. Promised: {duration(promised_ms)}.")


def price_of_revoking(
    latencies: pd.DataFrame, works: Mapping[str, timedelta], *, title: str = "What each way of revoking costs, and buys"
) -> Picture:
    """Each way of revoking by two numbers: how long a request takes, and how long a revoked token still works.

    Args:
        latencies: one row a request: `app` (the way), `ms`.
        works: for how long a token still worked after its session had ended, for each way.

    Raises ValueError for a column that is missing, and for ways that are not the same in both.
    """
    require("latencies", latencies, "app", "ms")
    if latencies.empty:
        return nothing(title)
    grouped = latencies.groupby("app", sort=False)["ms"]
    if set(grouped.groups) != set(works):
        raise ValueError(f"works: one for each of {', '.join(map(str, grouped.groups))}, not {', '.join(works)}")
    ways = [str(way) for way in grouped.groups]
    quartiles = {way: grouped.get_group(way).quantile([0.25, 0.5, 0.75]).tolist() for way in ways}
    seconds = {way: works[way].total_seconds() for way in ways}
    subtitle = f"{len(latencies) // len(ways):,} requests to each, in turns; dot: median, line: the middle half"
    left, right, top, bottom, height = 78.0, 60.0, 100.0, 62.0, 440.0
    with sheet(WIDTH, height, title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=top, bottom=bottom)
        highest = 1.15 * max(values[2] for values in quartiles.values())
        spent = sorted(seconds.values())
        axes.set(xscale="log", xlim=(0.08 * spent[0], 6 * spent[-1]), ylim=(0, highest))
        axes.minorticks_off()
        axes.grid(color="#E9EBEC", lw=1)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, pad=7)
        axes.set_xlabel("seconds for which a revoked token still works", labelpad=8)
        axes.xaxis.set_major_formatter(lambda s, _: f"{s:g}")
        axes.text(0, 1.03, "ms a request", transform=axes.transAxes, ha="left", color=QUIET)
        room = height - top - bottom
        order = sorted(ways, key=lambda way: quartiles[way][1])
        wanted = [quartiles[way][1] / highest * room - 17 for way in order]
        starts = dict(zip(order, apart(wanted, [38.0] * len(order), 0, room), strict=True))
        for index, way in enumerate(ways):
            colour, (lower, middle, upper) = SERIES[index % len(SERIES)], quartiles[way]
            to_the_left = _has_no_room_to_the_right(axes, seconds, way)
            axes.plot((seconds[way],) * 2, (lower, upper), color=colour, lw=4, solid_capstyle="round", zorder=3)
            axes.plot(seconds[way], middle, "o", ms=15, color=colour, mec=PAPER, mew=2, zorder=4)
            for offset, text, size, weight, shade in (
                (24, way, NAME_PT, "bold", readable(colour)),
                (8, f"{middle:.2f} ms; still works for {duration(seconds[way] * 1000)}", SMALL_PT, "normal", INK),
            ):
                axes.annotate(
                    text, (seconds[way], (starts[way] + offset) / room * highest), (-14 if to_the_left else 14, 0),
                    textcoords="offset points", ha="right" if to_the_left else "left", va="center_baseline",
                    fontsize=size, weight=weight, color=shade, annotation_clip=False, zorder=5,
                    bbox={"fc": PAPER, "ec": "none", "pad": 1.5},
                )  # fmt: skip
        said = "; ".join(
            f"{way}: {quartiles[way][1]:.2f} ms a request, a revoked token works for {duration(seconds[way] * 1000)}"
            for way in ways
        )
        return picture(figure, f"{title}. {subtitle}. {said}.")


def _discs(axes: Axes, lane: int, children: int, live: int) -> None:
    """A disc a child, the live ones first."""
    rows = -(-children // IN_A_ROW)
    for child in range(children):
        x, y = child % IN_A_ROW, lane + 0.5 + 0.3 * (child // IN_A_ROW - (rows - 1) / 2)
        works = child < live
        style = {"color": LIVE} if works else {"mfc": PAPER, "mec": FAILED, "mew": 2.0}
        axes.plot(x, y, "o", ms=14, zorder=3, **style)
        if not works:
            axes.plot(x, y, "x", ms=7, color=FAILED, mew=2.2, zorder=4)


def _has_no_room_to_the_right(axes: Axes, seconds: Mapping[str, float], way: str) -> bool:
    """Whether the label of a way would cross the line of another one, or leave the sheet."""
    places = {name: float(axes.transData.transform((at, 0))[0]) for name, at in seconds.items()}
    ends = places[way] + LABEL
    return ends > axes.bbox.x1 or any(places[way] < other < ends for name, other in places.items() if name != way)
