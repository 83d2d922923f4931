"""Real time: asking against being told, a client that moves, slow clients, a crowd, and faults under all of it."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

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
    text_width,
    tint,
)

WIDTH, TOP = 960.0, 84.0
BAD, LATE = MEANING["failed"], MEANING["waiting"]
SOCKET = SYSTEM["websocket"]
Numbers = NDArray[np.float64]


# -- asking, or being told


def asked_and_told(
    known: pd.DataFrame,
    notes: Mapping[str, Sequence[str]],
    *,
    title: str = "When a household knows of a step of its order",
) -> Picture:
    """How long each step took to be known, one dot a step; hollow: only known by a later one.

    Args:
        known: one row a step and way: `way`, `ms`, `is_shown` (whether that very step was seen).
        notes: what each way took, in two lines at the most; the first one is the loudest.

    Raises ValueError for a column that is missing, and for a way without notes.
    """
    require("known", known, "way", "ms", "is_shown")
    if known.empty:
        return nothing(title)
    ways = [str(way) for way in known["way"].unique()]
    if unknown := set(ways).difference(notes):
        raise ValueError(f"notes: none for {', '.join(sorted(unknown))}")
    lane, bottom, left, right = 112.0, 58.0, 214.0, 214.0
    steps = len(known) // len(ways)
    subtitle = f"{steps:,} steps, one dot each; hollow: never shown, the household only saw a later one"
    said = []
    with sheet(WIDTH, TOP + 18 + bottom + lane * len(ways), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP + 18, bottom=bottom)
        at_least = known["ms"].clip(lower=1.0)
        axes.set(xscale="log", xlim=(at_least.min() * 0.75, at_least.max() * 1.35), ylim=(len(ways), 0), yticks=[])
        _plain_scale(axes, "milliseconds after the step was committed, logarithmic")
        for index, way in enumerate(ways):
            group = known[known["way"] == way]
            colour = SERIES[1 - index % 2]
            axes.axhspan(index + 0.04, index + 0.96, color=tint(colour, 0.08), lw=0, zorder=0)
            times = group["ms"].clip(lower=1.0).to_numpy(dtype=float)
            shown = group["is_shown"].to_numpy(dtype=bool)
            heights = index + 0.66 + 0.2 * np.sin(np.arange(len(times)) * 2.4)  # so that dots at one moment are seen
            axes.plot(times[shown], heights[shown], "o", ms=6, color=colour, alpha=0.75, mec=PAPER, mew=0.6, zorder=3)
            axes.plot(times[~shown], heights[~shown], "o", ms=5.5, mfc=PAPER, mec=colour, mew=1.4, zorder=3)
            middle = float(np.median(times))
            axes.plot((middle, middle), (index + 0.38, index + 0.92), color=INK, lw=3, zorder=4)
            axes.text(middle, index + 0.22, f"median {duration(middle)}", ha="center", va="center_baseline",
                      weight="bold")  # fmt: skip
            beside(axes, index + 0.5, way, "", readable(colour), INK, right)
            unseen = int((~shown).sum())
            lines = [*notes[way], f"{unseen:,} steps never shown"]
            for line, note in enumerate(lines):
                axes.text(1.02, index + 0.28 + 0.24 * line, note, transform=axes.get_yaxis_transform(),
                          va="center_baseline", fontsize=NAME_PT, weight="normal" if line else "bold",
                          color=BAD if unseen and note is lines[-1] else INK)  # fmt: skip
            said.append(f"{way}: median {duration(middle)}, {', '.join(lines)}")
        return picture(figure, f"{title}. {'; '.join(said)}.")


# -- one client, several processes


def moved(
    deliveries: pd.DataFrame,
    moments: Mapping[str, float],
    *,
    title: str = "One client, moved from process to process",
) -> Picture:
    """A raster: a lane for each process, a stroke for each event that the client got from it.

    Args:
        deliveries: one row an event: `process`, `at_s`, `is_missed` (it happened while there was no connection).
        moments: what was done to processes, and when, in the same seconds.

    Raises ValueError for a column that is missing.
    """
    require("deliveries", deliveries, "process", "at_s", "is_missed")
    if deliveries.empty:
        return nothing(title)
    processes = sorted(deliveries["process"].unique())
    lane, bottom, left, right = 74.0, 52.0, 118.0, 196.0
    end_s = max(float(deliveries["at_s"].max()), *moments.values(), 0.1)
    subtitle = "one stroke an event; amber and longer: it had been missed, and was told first"
    said = []
    with sheet(WIDTH, TOP + 26 + bottom + lane * len(processes), title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP + 26, bottom=bottom)
        axes.set(xlim=(0, end_s * 1.01), ylim=(len(processes), 0), yticks=[])
        _plain_scale(axes, "seconds")
        for index, process in enumerate(processes):
            group = deliveries[deliveries["process"] == process]
            missed = group["is_missed"].to_numpy(dtype=bool)
            axes.axhspan(index + 0.06, index + 0.94, color=tint(SOCKET, 0.1), lw=0, zorder=0)
            times = group["at_s"].to_numpy(dtype=float)
            _strokes(axes, times[~missed], index, 0.26, SERIES[0], 1.0)
            _strokes(axes, times[missed], index, 0.38, LATE, 1.8)
            beside(axes, index + 0.5, f"process {process}", f"{len(group):,} events", INK, INK, right)
            if missed.any():
                axes.text(1.015, index + 0.78, f"{missed.sum():,} of them missed before",
                          transform=axes.get_yaxis_transform(), va="center_baseline", fontsize=SMALL_PT,
                          color=readable(LATE))  # fmt: skip
            said.append(f"process {process}: {len(group):,} events, {missed.sum():,} of them had been missed")
        _moments(axes, moments, WIDTH - left - right)
        wrong = "".join(f" {what} at {at:.1f} s." for what, at in moments.items())
        return picture(figure, f"{title}. {'; '.join(said)}.{wrong}")


# -- slow clients


def slow_clients(
    panels: Mapping[str, tuple[pd.DataFrame, pd.DataFrame]],
    notes: Mapping[str, Sequence[str]],
    *,
    title: str = "Three slow clients, three policies",
) -> Picture:
    """What happened, and what a client took of it, one panel a policy.

    Args:
        panels: for each policy, what happened and what was taken: `at_s` and `number` of the event in both.
        notes: what became of each, in a few lines; the first one is the loudest.

    Raises ValueError for a column that is missing.
    """
    if not panels:
        return nothing(title)
    for name, (happened, taken) in panels.items():
        require(f"{name}, happened", happened, "at_s", "number")
        require(f"{name}, taken", taken, "at_s", "number")
    left, between, right, top, bottom, height = 68.0, 34.0, 30.0, 186.0, 56.0, 446.0
    width = (WIDTH - left - right - between * (len(panels) - 1)) / len(panels)
    end_s = max(float(frame["at_s"].max()) for pair in panels.values() for frame in pair if len(frame))
    high = max(float(happened["number"].max()) for happened, _ in panels.values())
    subtitle = "each dot an event that the client took; the line: when it happened"
    said = []
    with sheet(WIDTH, height, title, subtitle) as figure:
        for index, (name, (happened, taken)) in enumerate(panels.items()):
            begin = left + index * (width + between)
            axes = plot(figure, left=begin, right=WIDTH - begin - width, top=top, bottom=bottom)
            colour = SERIES[(0, 2, 3)[index % 3]]
            axes.set(xlim=(0, end_s * 1.02), ylim=(0, high * 1.04))
            axes.set_facecolor(tint(colour, 0.06))
            axes.grid(color="#E9EBEC", lw=1)
            _plain_scale(axes, "seconds")
            axes.tick_params(labelleft=not index)
            if not index:
                axes.text(-0.02, 1.04, "number", transform=axes.transAxes, ha="right", fontsize=SMALL_PT, color=QUIET)
            axes.yaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
            axes.plot(happened["at_s"], happened["number"], color=QUIET, lw=2, zorder=2)
            _dots(axes, taken["at_s"].to_numpy(dtype=float), taken["number"].to_numpy(dtype=float), colour)
            place = axes.transAxes
            room = height - top - bottom
            axes.text(0, 1 + 84 / room, name, transform=place, fontsize=NAME_PT + 1, weight="bold",
                      color=readable(colour))  # fmt: skip
            for line, note in enumerate(notes.get(name, ())):
                axes.text(0, 1 + (62 - 18 * line) / room, note, transform=place, fontsize=TEXT_PT,
                          weight="normal" if line else "bold", color=INK)  # fmt: skip
            said.append(f"{name}: {', '.join((f'{len(taken):,} of {len(happened):,} taken', *notes.get(name, ())))}")
        return picture(figure, f"{title}. {'; '.join(said)}.")


def memory_over_time(
    looks: pd.DataFrame,
    *,
    title: str = "What waits for clients that take nothing",
    subtitle: str = "",
) -> Picture:
    """The memory of processes over time, as far as it is more than it was at first.

    Args:
        looks: one row a look: `who`, `at_s`, `mib`.

    Raises ValueError for a column that is missing.
    """
    require("looks", looks, "who", "at_s", "mib")
    if looks.empty:
        return nothing(title)
    left, right, top, bottom, height = 74.0, 250.0, 96.0, 58.0, 380.0
    lines = {
        str(who): group.assign(more=group["mib"] - group["mib"].iloc[0])
        for who, group in looks.groupby("who", sort=False)
    }
    end_s = float(looks["at_s"].max())
    high = max(1.0, *(float(line["more"].max()) for line in lines.values()))
    low = min(0.0, *(float(line["more"].min()) for line in lines.values()))
    said = []
    with sheet(WIDTH, height, title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=top, bottom=bottom)
        axes.set(xlim=(0, end_s), ylim=(low, high * 1.08))
        axes.grid(color="#E9EBEC", lw=1)
        _plain_scale(axes, "seconds")
        axes.text(0, 1.04, "MiB more than at first", transform=axes.transAxes, color=QUIET)
        room = height - top - bottom
        order = sorted(lines, key=lambda who: float(lines[who]["more"].iloc[-1]))
        wanted = [(float(lines[who]["more"].iloc[-1]) - low) / (high * 1.08 - low) * room - 17 for who in order]
        starts = dict(zip(order, apart(wanted, [40.0] * len(order), 0, room), strict=True))
        for index, (who, line) in enumerate(lines.items()):
            colour, last = (BAD, SERIES[0])[index % 2], float(line["more"].iloc[-1])
            axes.plot(line["at_s"], line["more"], color=colour, lw=2.6, zorder=3)
            axes.plot(line["at_s"].iloc[-1], last, "o", ms=7, color=colour, mec=PAPER, mew=1.2, zorder=4, clip_on=False)
            for offset, text, size, weight, shade in (
                (24, who, NAME_PT, "bold", readable(colour)),
                (7, f"{last:,.0f} MiB more", TEXT_PT, "normal", INK),
            ):
                axes.text(1.03, (starts[who] + offset) / room, text, transform=axes.transAxes, va="center_baseline",
                          fontsize=size, weight=weight, color=shade)  # fmt: skip
            said.append(f"{who}: {last:,.0f} MiB more at the end, {line['more'].max():,.0f} at most")
        return picture(figure, f"{title}. {subtitle}. {'; '.join(said)}.")


# -- a crowd


def crowd_latencies(heard: pd.DataFrame, *, title: str = "One event, told to everybody", bins: int = 60) -> Picture:
    """How long sockets waited for what was told to all of them.

    Args:
        heard: one row an event and socket: `number` (of the event), `socket`, `ms`.

    Raises ValueError for a column that is missing.
    """
    require("heard", heard, "number", "socket", "ms")
    if heard.empty:
        return nothing(title)
    times = heard["ms"].to_numpy(dtype=float)
    sockets, events = heard["socket"].nunique(), heard["number"].nunique()
    marks = {"half": 50.0, "99 in 100": 99.0, "all": 100.0}
    at = {name: float(np.percentile(times, share)) for name, share in marks.items()}
    last = heard.groupby("number")["ms"].max()
    subtitle = f"{events:,} events, {sockets:,} sockets each: {len(times):,} deliveries"
    left, right, top, bottom, height = 74.0, 40.0, 128.0, 58.0, 380.0
    with sheet(WIDTH, height, title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=top, bottom=bottom)
        counts, _, _ = axes.hist(times, bins=bins, range=(0, at["all"]), color=SOCKET, ec=PAPER, lw=0.6, zorder=2)
        high = float(np.max(counts))
        axes.set(xlim=(0, at["all"] * 1.03), ylim=(0, high * 1.05))
        axes.grid(axis="y", color="#E9EBEC", lw=1)
        axes.set_axisbelow(True)
        _plain_scale(axes, "milliseconds from the moment in which the event was told")
        axes.yaxis.set_major_formatter(lambda number, _: f"{number:,.0f}")
        axes.text(0, 1.04, "deliveries", transform=axes.transAxes, color=QUIET)
        room = WIDTH - left - right
        words = {name: f"{name}: {duration(ms)}" for name, ms in at.items()}
        widths = [text_width(word, NAME_PT, bold=True) + 14 for word in words.values()]
        wanted = [ms / (at["all"] * 1.03) * room - width / 2 for ms, width in zip(at.values(), widths, strict=True)]
        for (name, ms), begin in zip(at.items(), apart(wanted, widths, 90, room), strict=True):
            axes.axvline(ms, color=INK, lw=1.6, ls=(0, (4, 3)), zorder=3)
            axes.text(begin / room, 1.1, words[name], transform=axes.transAxes, fontsize=NAME_PT, weight="bold")
        said = ", ".join(words.values())
        return picture(
            figure,
            f"{title}. {subtitle}. {said}. On the median event the last socket had it after"
            f" {duration(float(last.median()))}.",
        )


# -- faults


def told_through(
    deliveries: pd.DataFrame,
    spans: Mapping[str, tuple[float, float]],
    *,
    title: str = "What a client is told while redis-state is away",
) -> Picture:
    """Each event by when it happened and how late it was told; what was away, shaded.

    Args:
        deliveries: one row an event: `told_s` (when it happened), `late_ms` (how much later the client had it).
        spans: from when to when something was away, in the same seconds.

    Raises ValueError for a column that is missing.
    """
    require("deliveries", deliveries, "told_s", "late_ms")
    if deliveries.empty:
        return nothing(title)
    left, right, top, bottom, height = 84.0, 40.0, 112.0, 58.0, 400.0
    late = deliveries["late_ms"].clip(lower=1.0)
    end_s = max(float(deliveries["told_s"].max()), *(end for _, end in spans.values()), 0.1)
    held = np.zeros(len(deliveries), dtype=bool)
    came_s = deliveries["told_s"] + deliveries["late_ms"] / 1000
    for began, ended in spans.values():
        held |= ((came_s > began) & (deliveries["told_s"] < ended)).to_numpy()
    subtitle = "one dot an event, at the moment in which it happened; the higher, the later it was told"
    with sheet(WIDTH, height, title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=top, bottom=bottom)
        axes.set(
            yscale="log", xlim=(0, end_s * 1.02), ylim=(min(5.0, float(late.min())) * 0.8, float(late.max()) * 1.6)
        )
        axes.grid(axis="y", color="#E9EBEC", lw=1)
        axes.set_axisbelow(True)
        _plain_scale(axes, "seconds")
        axes.yaxis.set_major_formatter(lambda ms, _: duration(ms))
        axes.text(0, 1.12, "told so much later", transform=axes.transAxes, color=QUIET)
        for name, (began, ended) in spans.items():
            axes.axvspan(began, ended, color=tint(BAD, 0.16), lw=0, zorder=0)
            axes.text(began, 1.03, name, transform=axes.get_xaxis_transform(), weight="bold", color=BAD)
        for chosen, colour in ((~held, SERIES[0]), (held, LATE)):
            axes.plot(deliveries["told_s"][chosen], late[chosen], "o", ms=5.5, color=colour, alpha=0.8, mec=PAPER,
                      mew=0.5, zorder=3)  # fmt: skip
        said = "".join(f" {name} from {began:.1f} s to {ended:.1f} s." for name, (began, ended) in spans.items())
        return picture(
            figure,
            f"{title}. {len(deliveries):,} events, {held.sum():,} of them waited for it; the latest was told"
            f" {duration(float(late.max()))} after it happened.{said}",
        )


# -- parts


def _plain_scale(axes: Axes, label: str) -> None:
    axes.minorticks_off()
    axes.tick_params(length=0, pad=7)
    axes.spines["left"].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.set_xlabel(label, labelpad=6)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")


def _strokes(axes: Axes, times: Numbers, lane: int, reach: float, colour: str,
             width: float) -> None:  # fmt: skip
    xs = np.column_stack([times, times, np.full(len(times), np.nan)]).ravel()
    ys = np.tile([lane + 0.5 - reach, lane + 0.5 + reach, np.nan], len(times))
    axes.plot(xs, ys, color=colour, lw=width, solid_capstyle="butt", zorder=3)


def _dots(axes: Axes, xs: Numbers, ys: Numbers, colour: str) -> None:
    """Thousands of them as one path: a marker each would make the picture ten times as large."""
    gaps = np.full(len(xs), np.nan)
    axes.plot(np.column_stack([xs, xs, gaps]).ravel(), np.column_stack([ys, ys, gaps]).ravel(), color=colour, lw=3.2,
              solid_capstyle="round", zorder=3)  # fmt: skip


def _moments(axes: Axes, moments: Mapping[str, float], room: float) -> None:
    """What happened when, above the axes; none of the words covers another."""
    if not moments:
        return
    high = axes.get_xlim()[1]
    order = sorted(moments, key=lambda what: moments[what])
    widths = [text_width(f"✗ {what}", TEXT_PT, bold=True) + 14 for what in order]
    wanted = [moments[what] / high * room - 4 for what in order]
    for what, begin in zip(order, apart(wanted, widths, 0, room), strict=True):
        axes.axvline(moments[what], color=BAD, lw=1.8, ls=(0, (4, 3)), zorder=4)
        axes.text(begin / room, 1.03, f"✗ {what}", transform=axes.transAxes, weight="bold", color=BAD)
