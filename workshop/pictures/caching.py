"""Reads through a cache: who answered and how soon, over time, as a crowd, and as a distribution."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workshop.pictures.frames import duration, require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    QUIET,
    RULE,
    SERIES,
    SMALL_PT,
    SYSTEM,
    TEXT_PT,
    Picture,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    shortened,
    text_width,
    tint,
)

WIDTH, LEFT, RIGHT, TOP, BOTTOM, GAP = 960.0, 196.0, 150.0, 84.0, 56.0, 26.0
LAYERS: Mapping[str, tuple[str, str]] = {
    "near": ("near", SYSTEM["app"]),
    "far": ("far", SYSTEM["redis"]),
    "loaded": ("loaded", SYSTEM["postgres"]),
    "stale": ("stale", SERIES[3]),
    "database": ("database", SYSTEM["postgres"]),
    "failed": ("failed ✗", MEANING["failed"]),
}
"""Who answered: its name and colour. An app has either a cache or the bare database, so two may share a colour."""
Spans = Mapping[str, tuple[float, float]]
"""What was wrong from when to when, in seconds."""


def reads_over_time(
    panels: Mapping[str, pd.DataFrame], spans: Spans | None = None, *, title: str, subtitle: str = ""
) -> Picture:
    """One dot a read: when it was due, and after how many milliseconds it was answered; coloured by who answered.

    Args:
        panels: under each name one row a read: due_s, took_ms, layer (of LAYERS).
        spans: drawn behind all panels.

    Raises ValueError for a frame that cannot be read.
    """
    for name, frame in panels.items():
        _require_layers(name, frame, "due_s", "took_ms")
    panels = {name: frame for name, frame in panels.items() if len(frame)}
    if not panels:
        return nothing(title)
    panel = 220.0 if len(panels) == 1 else 150.0
    height = TOP + BOTTOM + len(panels) * panel + (len(panels) - 1) * GAP + (18 if spans else 0)
    end_s = max(float(frame["due_s"].max()) for frame in panels.values())
    took = pd.concat([frame["took_ms"] for frame in panels.values()])
    bounds = (10 ** np.floor(np.log10(max(float(took.quantile(0.01)), 0.01))), 2.5 * max(float(took.max()), 1.0))
    said = []
    with sheet(WIDTH, height, title, subtitle or "one dot a read, by when it was due; how long it took") as figure:
        for index, (name, frame) in enumerate(panels.items()):
            below = BOTTOM + (len(panels) - 1 - index) * (panel + GAP)
            axes = plot(figure, left=LEFT, right=RIGHT, bottom=below, top=height - below - panel)
            _scale(axes, end_s, bounds)
            _spans(axes, spans or {}, end_s, is_named=index == 0)
            said.append(f"{name}: {_dots(axes, frame, panel)}")
            _name(axes, name, panel, frame)
            if index < len(panels) - 1:
                axes.tick_params(labelbottom=False)
            else:
                axes.set_xlabel("seconds since the first read", labelpad=6)
        wrong = "".join(f" {what} from {a:.1f} s to {b:.1f} s." for what, (a, b) in (spans or {}).items())
        return picture(figure, f"{title}. {'; '.join(said)}.{wrong}")


def crowds(panels: Mapping[str, pd.DataFrame], *, title: str = "All ask at once", subtitle: str = "") -> Picture:
    """One thin line a reader, from when it asked until it was answered; coloured by who answered.

    Args:
        panels: under each name one row a reader: sent_s, answered_s, layer (of LAYERS); when the database was free
            again, if it was not, in `frame.attrs["free_s"]`, and how many loads there were in `frame.attrs["loads"]`.

    Raises ValueError for a frame that cannot be read.
    """
    for name, frame in panels.items():
        _require_layers(name, frame, "sent_s", "answered_s")
    panels = {name: frame for name, frame in panels.items() if len(frame)}
    if not panels:
        return nothing(title)
    panel = 128.0
    height = TOP + 18 + BOTTOM + len(panels) * panel + (len(panels) - 1) * GAP
    end_s = max(float(frame["answered_s"].max()) for frame in panels.values())
    end_s = max(end_s, *(float(frame.attrs.get("free_s", 0.0)) for frame in panels.values()))
    said = []
    with sheet(WIDTH, height, title, subtitle or "one thin line a reader, until its answer") as figure:
        for index, (name, frame) in enumerate(panels.items()):
            below = BOTTOM + (len(panels) - 1 - index) * (panel + GAP)
            axes = plot(figure, left=LEFT, right=RIGHT, bottom=below, top=height - below - panel)
            axes.set(xlim=(0, 1.02 * end_s), ylim=(len(frame) + 1, -1), yticks=[])
            axes.spines["left"].set_visible(False)
            axes.tick_params(length=0, pad=7, labelbottom=index == len(panels) - 1)
            if "free_s" in frame.attrs:
                busy = {"the database is slow": (0.0, float(frame.attrs["free_s"]))}
                _spans(axes, busy, end_s, is_named=index == 0)
            _lines(axes, frame.sort_values(["layer", "answered_s"], ignore_index=True))
            loads = int(frame.attrs.get("loads", 0))
            note = f"{loads:,} load{'s' * (loads != 1)}"
            said.append(f"{name}: {len(frame):,} readers, {note}, {_counted(frame)}")
            _name(axes, name, panel, None, note)
            _keys(axes, frame, panel)
            if index == len(panels) - 1:
                axes.set_xlabel("seconds since all asked", labelpad=6)
        return picture(figure, f"{title}. {'; '.join(said)}.")


def latencies(panels: Mapping[str, pd.DataFrame], *, title: str = "How soon an answer comes") -> Picture:
    """A histogram each, over milliseconds on a logarithmic scale, its bars divided by who answered.

    Args:
        panels: under each name one row a read: took_ms, layer (of LAYERS).

    Raises ValueError for a frame that cannot be read.
    """
    for name, frame in panels.items():
        _require_layers(name, frame, "took_ms")
    panels = {name: frame for name, frame in panels.items() if len(frame)}
    if not panels:
        return nothing(title)
    panel = 104.0
    height = TOP + BOTTOM + len(panels) * panel + (len(panels) - 1) * GAP
    took = pd.concat([frame["took_ms"] for frame in panels.values()])
    low, high = max(0.01, float(took.quantile(0.001)) * 0.8), float(took.quantile(0.995)) * 1.3
    edges = np.geomspace(low, high, 70)
    said = []
    with sheet(WIDTH, height, title, "reads by how long they took; line: the median") as figure:
        for index, (name, frame) in enumerate(panels.items()):
            below = BOTTOM + (len(panels) - 1 - index) * (panel + GAP)
            axes = plot(figure, left=LEFT, right=RIGHT, bottom=below, top=height - below - panel)
            most = _bars(axes, frame, edges)
            axes.set(xscale="log", xlim=(low, high), ylim=(0, 1.05 * most), yticks=[])
            axes.minorticks_off()
            axes.set_xticks([tick for tick in (0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000) if low <= tick <= high])
            axes.xaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms")
            axes.tick_params(length=0, pad=7, labelbottom=index == len(panels) - 1)
            axes.spines["left"].set_visible(False)
            median = float(frame["took_ms"].median())
            axes.axvline(median, color=INK, lw=2)
            _name(axes, name, panel, frame)
            _keys(axes, frame, panel)
            said.append(f"{name}: median {duration(median)}, {_counted(frame)}")
        return picture(figure, f"{title}. {'; '.join(said)}.")


def _require_layers(name: str, frame: pd.DataFrame, *columns: str) -> None:
    require(name, frame, *columns, "layer")
    if unknown := sorted(set(frame["layer"]) - set(LAYERS)):
        raise ValueError(f"{name}: no layer is called {', '.join(unknown)}; there are {', '.join(LAYERS)}")


def _present(frame: pd.DataFrame) -> Sequence[str]:
    return [layer for layer in LAYERS if (frame["layer"] == layer).any()]


def _counted(frame: pd.DataFrame) -> str:
    counts = frame["layer"].value_counts()
    return ", ".join(f"{counts[layer]:,} {LAYERS[layer][0]}" for layer in _present(frame))


def _scale(axes: Axes, end_s: float, bounds: tuple[float, float]) -> None:
    axes.set(xlim=(0, 1.01 * end_s + 0.01), yscale="log", ylim=bounds)
    axes.yaxis.set_major_formatter(lambda ms, _: f"{ms:g} ms" if ms < 1_000 else f"{ms / 1_000:g} s")
    axes.minorticks_off()
    axes.tick_params(length=0, pad=6)
    axes.tick_params(axis="x", pad=12)  # below the lowest label of the other axis, which stands in the same corner
    axes.grid(axis="y", color="#E9EBEC", lw=1)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def _spans(axes: Axes, spans: Spans, end_s: float, *, is_named: bool) -> None:
    """What was wrong, as a red band; its name above the first panel, if there is room for it."""
    width = WIDTH - LEFT - RIGHT
    for what, (began_s, ended_s) in spans.items():
        axes.axvspan(began_s, ended_s, color=tint(MEANING["failed"], 0.14), lw=0, zorder=0)
        if is_named:
            free = (1.02 * end_s - began_s) / (1.02 * end_s) * width
            axes.annotate(
                shortened(what, free, TEXT_PT, bold=True), (began_s, 1), (0, 5), xycoords=axes.get_xaxis_transform(),
                textcoords="offset points", size=TEXT_PT, weight="bold", color=MEANING["failed"],
            )  # fmt: skip


def _dots(axes: Axes, frame: pd.DataFrame, panel: float) -> str:
    for layer in _present(frame):
        of_layer = frame[frame["layer"] == layer]
        if layer == "failed":
            axes.plot(of_layer["due_s"], of_layer["took_ms"], "x", ms=7, mew=1.6, color=LAYERS[layer][1], zorder=4)
        else:
            shown = of_layer["took_ms"].clip(lower=axes.get_ylim()[0])
            _strokes(axes, of_layer["due_s"], of_layer["due_s"], shown, LAYERS[layer][1], 3.6)
    _keys(axes, frame, panel)
    return _counted(frame)


def _lines(axes: Axes, frame: pd.DataFrame) -> None:
    for layer in _present(frame):
        of_layer = frame[frame["layer"] == layer]
        rows, colour = of_layer.index.to_series(), LAYERS[layer][1]
        _strokes(axes, of_layer["sent_s"], of_layer["answered_s"], rows, tint(colour, 0.55), 0.7)
        _strokes(axes, of_layer["answered_s"], of_layer["answered_s"], rows, colour, 2.8)


def _strokes(
    axes: Axes, began: "pd.Series[float]", ended: "pd.Series[float]", y: "pd.Series[float]", colour: str, width: float
) -> None:
    """A level stroke each, all of them one path: a mark each would be ten times as large a picture."""
    gaps = np.full(len(y), np.nan)
    xs = np.column_stack([began, ended, gaps]).ravel()
    ys = np.column_stack([y, y, gaps]).ravel()
    axes.plot(xs, ys, color=colour, lw=width, solid_capstyle="round", zorder=3, clip_on=False)


def _bars(axes: Axes, frame: pd.DataFrame, edges: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> float:
    """Stacked bars; how high the highest is."""
    below = np.zeros(len(edges) - 1)
    for layer in _present(frame):
        counts, _ = np.histogram(np.clip(frame.loc[frame["layer"] == layer, "took_ms"], edges[0], edges[-1]), edges)
        axes.bar(edges[:-1], counts, np.diff(edges), below, align="edge", color=LAYERS[layer][1], lw=0)
        below += counts
    axes.axhline(0, color=RULE, lw=1)
    return float(below.max())


def _name(axes: Axes, name: str, panel: float, frame: pd.DataFrame | None, note: str = "") -> None:
    """The panel's name to its left, and below it the median and the 99th percentile, or a note."""
    notes = [note] if note else []
    if frame is not None:
        took = frame["took_ms"]
        notes = [f"median {duration(float(took.median()))}", f"99 % in {duration(float(took.quantile(0.99)))}"]
    place = -64 / (WIDTH - LEFT - RIGHT) if axes.get_yscale() == "log" else -16 / (WIDTH - LEFT - RIGHT)
    room = LEFT - 24 - (64 if axes.get_yscale() == "log" else 16)
    words = _folded(name, room)
    top = 0.5 + (len(words) + len(notes) - 1) * 9 / panel
    for line, text in enumerate([*words, *notes]):
        is_name = line < len(words)
        axes.text(
            place, top - line * 18 / panel, text, transform=axes.transAxes, ha="right", va="center_baseline",
            size=NAME_PT if is_name or note else SMALL_PT, weight="bold" if is_name else "normal",
            color=INK if is_name else QUIET,
        )  # fmt: skip


def _keys(axes: Axes, frame: pd.DataFrame, panel: float) -> None:
    """To the right: each layer's name and count, in its colour."""
    counts = frame["layer"].value_counts()
    present = _present(frame)
    for line, layer in enumerate(present):
        name, colour = LAYERS[layer]
        y = 0.5 + (len(present) - 1) * 10 / panel - line * 20 / panel
        axes.text(
            1.03, y, f"{counts[layer]:,} {name}", transform=axes.transAxes, va="center_baseline", size=NAME_PT,
            weight="bold", color=readable(colour),
        )  # fmt: skip


def _folded(text: str, width: float) -> list[str]:
    """On as many lines as it takes."""
    lines: list[str] = []
    for word in text.split():
        if lines and text_width(f"{lines[-1]} {word}", NAME_PT, bold=True) <= width:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
