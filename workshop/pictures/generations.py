"""The family of a session's refresh tokens, drawn from its rows in the log of security events."""

from collections.abc import Iterator, Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Circle, FancyArrowPatch

from workshop.pictures.family import REPEATED, REUSED, ROTATED, SIGNED_IN, Family
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    QUIET,
    SERIES,
    SMALL_PT,
    Picture,
    nothing,
    picture,
    readable,
    sheet,
    shortened,
    tint,
)

WIDTH, ROW, STUB, MARGIN, RADIUS = 960.0, 112.0, 116.0, 64.0, 21.0
LONGEST_STEP, MOST_ROWS = 150.0, 8
FAILED = MEANING["failed"]
STATES: Mapping[str, tuple[str, str, str]] = {
    "used": (tint(QUIET, 0.25), QUIET, INK),
    "live": (readable(MEANING["ok"]), readable(MEANING["ok"]), PAPER),
    "used again": (FAILED, FAILED, PAPER),
    "revoked": (PAPER, FAILED, FAILED),
}
"""Of each state of a token: the colours of its disc, its rim and its number."""


def token_family(events: pd.DataFrame, *, title: str = "The token family") -> Picture:
    """Every refresh token of a session, the first at the left, each beside those that replaced it, and who did that.

    Args:
        events: see `Family.read`.

    Raises ValueError for a frame that cannot be read.
    """
    if events.empty:
        return nothing(title)
    family = Family.read(events)
    rows = dict(_rows(family))
    left_out = sum(row >= MOST_ROWS for row in rows.values())
    shown = {token: row for token, row in rows.items() if row < MOST_ROWS}
    columns = 1 + max(family.depth(token) for token in shown)
    step = max(112.0, min(LONGEST_STEP, (WIDTH - 2 * MARGIN - STUB) / columns))
    width = max(WIDTH, 2 * MARGIN + STUB + step * columns)
    repeats = _repeats(family)
    top = 92.0 + 26.0 * bool(repeats)  # room for the bows
    height = top + ROW * (1 + max(shown.values()))
    subtitle = "each token beside the one that replaced it; on the arrows, who sent it"
    with sheet(width, height, title, subtitle + (f"; {left_out} more are not drawn" if left_out else "")) as figure:
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, width), ylim=(0, height))
        axes.set_axis_off()
        at = {
            token: (MARGIN + STUB + step * family.depth(token), height - top - 20 - ROW * row)
            for token, row in shown.items()
        }
        for use in family.uses:
            if use.what in (SIGNED_IN, ROTATED) and use.child in at:
                x, y = at[use.child]
                _arrow(axes, at.get(use.token, (MARGIN - 30, y)), (x, y), use.device, _colour(family, use.device))
        for (token, child), names in repeats.items():
            if child in at:
                _again(axes, at[token], at[child], names, _colour(family, names[0]))
        for token, (x, y) in at.items():
            _disc(axes, x, y, family, token)
        return picture(figure, f"{title}. {family.told()}")


def _rows(family: Family) -> Iterator[tuple[str, int]]:
    """In which row each token stands: a first child beside its parent, its siblings below."""
    free = 0
    waiting = [(token, -1) for token in family.generations if token not in family.parents]
    while waiting:
        token, row = waiting.pop()
        if row < 0:
            row, free = free, free + 1
        yield token, row
        first, *others = family.children(token) or [""]
        waiting += [(child, -1) for child in reversed(others)]
        if first:
            waiting.append((first, row))


def _repeats(family: Family) -> dict[tuple[str, str], list[str]]:
    """Whom the same successor was given again: for each pair of parent and child, once a time."""
    found: dict[tuple[str, str], list[str]] = {}
    for use in family.uses:
        if use.what == REPEATED:
            found.setdefault((use.token, use.child), []).append(use.device)
    return found


def _colour(family: Family, device: str) -> str:
    return SERIES[family.devices.index(device) % len(SERIES)]


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], device: str, colour: str) -> None:
    style = "-|>,head_length=8,head_width=4"
    axes.add_patch(
        FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=1, lw=2.8, color=colour, shrinkA=24, shrinkB=24)
    )
    level = start[1] == end[1]
    x = (start[0] + end[0]) / 2 if level else end[0] - RADIUS - 12
    name = shortened(device, end[0] - start[0] - 2 * RADIUS - 12 if level else 80, SMALL_PT, bold=True)
    axes.text(
        x, end[1] + 9, name, ha="center" if level else "right", va="bottom", fontsize=SMALL_PT, weight="bold",
        color=readable(colour), bbox={"fc": PAPER, "ec": "none", "pad": 1},
    )  # fmt: skip


def _again(axes: Axes, start: tuple[float, float], end: tuple[float, float], names: list[str], colour: str) -> None:
    """A bow above the arrow: the same child, given once more."""
    style = "-|>,head_length=8,head_width=4"
    bow = FancyArrowPatch(
        start, end, connectionstyle="arc3,rad=-0.42", arrowstyle=style, mutation_scale=1, lw=2.2, ls=(0, (3, 2)),
        color=colour, shrinkA=24, shrinkB=24,
    )  # fmt: skip
    axes.add_patch(bow)
    who = ", ".join(dict.fromkeys(names)) + (f", {len(names)} times" if len(names) > 1 else "")
    x, y = (start[0] + end[0]) / 2, end[1] + 0.21 * (end[0] - start[0]) + 6
    axes.text(
        x, y, shortened(who, 140, SMALL_PT, bold=True), ha="center", va="bottom", fontsize=SMALL_PT, weight="bold",
        color=readable(colour),
    )  # fmt: skip


def _disc(axes: Axes, x: float, y: float, family: Family, token: str) -> None:
    state = family.state(token)
    face, rim, ink = STATES[state]
    dashed = (0, (3, 2)) if state == "revoked" else "-"
    axes.add_patch(Circle((x, y), RADIUS, fc=face, ec=rim, lw=2.2, ls=dashed, zorder=3))
    number = str(family.generations[token])
    axes.text(x, y, number, ha="center", va="center_baseline", fontsize=NAME_PT, weight="bold", color=ink, zorder=4)
    sign = {"live": "✓ live", "revoked": "✗ revoked", "used again": "✗ used again"}.get(state, state)
    shade = QUIET if state == "used" else readable(rim)
    weight = "normal" if state == "used" else "bold"
    axes.text(x, y - RADIUS - 17, sign, ha="center", fontsize=SMALL_PT, weight=weight, color=shade)
    again = [use.device for use in family.uses if use.token == token and use.what == REUSED]
    if again:
        axes.text(x, y - RADIUS - 32, f"by {again[0]}", ha="center", fontsize=SMALL_PT, weight="bold", color=FAILED)
