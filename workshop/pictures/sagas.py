"""An order's saga: where the order stood, who told what, and what each of it came of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from workshop.pictures.frames import require
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
    plot,
    readable,
    sheet,
    shortened,
    text_width,
    tint,
)

WIDTH, LEFT, RIGHT, TOP, BOTTOM, LANE = 960.0, 110.0, 20.0, 78.0, 16.0, 74.0
LEAST = 7
"""Columns of the longest story that ends well: in a shorter one nothing is broader."""
ORDER, ALARM = "order", "shop.deadline.passed.v1"
LANES: Mapping[str, str] = {ORDER: INK, "payment": SERIES[0], "stock": SERIES[3], "clock": QUIET}
WORDS: Mapping[str, str] = {
    "payment.order.settled.v1": "paid back",
    "stock.order.short.v1": "out of stock",
    ALARM: "time is up",
}
"""What an event says; others say the last word of their type but the version."""
SHADES: Mapping[str, str] = {
    "packed": MEANING["ok"],
    "cancelling": MEANING["failed"],
    "refused": MEANING["failed"],
}
"""Of where an order stands; elsewhere it waits for somebody."""
SHOP = "shop.order."


@dataclass(frozen=True, slots=True)
class _Told:
    """An event, and its place in the picture.

    Attributes:
        column: counted from the left; earlier is further left.
        has_effect: whether something came of it.
    """

    id: str
    lane: str
    words: str
    cause: str
    column: int
    has_effect: bool


def saga(steps: pd.DataFrame, events: pd.DataFrame, *, title: str = "The saga of an order") -> Picture:
    """One order: its states as a bar, and below it who told what, with an arrow from each cause to its effect.

    Columns are the order in which things were told, and no time scale: the same story is the same picture. An alarm
    stands where it went off; one that found nothing to do is left out.

    Args:
        steps: one row a step: `status`, `reason`, `cause` (the id of an event, or empty), the first step first.
        events: one row an event of the order: `id`, `type`, `cause`, the earliest first.

    Raises ValueError for a column that is missing, and for a step that no event tells.
    """
    require("steps", steps, "status", "reason", "cause")
    require("events", events, "id", "type", "cause")
    if steps.empty:
        return nothing(title)
    told = _placed(events)
    states = _states(steps, told)
    lanes = [lane for lane in LANES if lane == ORDER or any(one.lane == lane for one in told)]
    columns = max(one.column for one in told) + 1
    shown = max(columns, LEAST)
    subtitle = "above: where the order stands; below: what it heard; from left to right, not to scale"
    with sheet(WIDTH, TOP + BOTTOM + LANE * len(lanes), title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
        axes.set(xlim=(0, shown), ylim=(len(lanes), 0))
        axes.set_axis_off()
        for index, lane in enumerate(lanes):
            _lane(axes, index, lane)
        for one in told:
            _arrow(axes, one, {other.id: other for other in told}, lanes)
        for index, (status, reason, column) in enumerate(states):
            until = states[index + 1][2] if index + 1 < len(states) else columns
            _state(axes, status, reason, column, until, (WIDTH - LEFT - RIGHT) / shown)
        for one in told:
            if one.lane != ORDER:
                _pill(axes, one, lanes.index(one.lane), (WIDTH - LEFT - RIGHT) / shown)
        return picture(figure, f"{title}. {_said(states, told)}")


def _placed(events: pd.DataFrame) -> list[_Told]:
    """The events in the order in which they count: an alarm when it goes off, which is when something comes of it."""
    rows = events.to_dict("records")
    causes = {str(row["cause"]) for row in rows}
    alarms = {str(row["id"]): row for row in rows if row["type"] == ALARM}
    in_order = []
    for row in rows:
        if row["type"] == ALARM:
            continue
        if str(row["cause"]) in alarms:
            in_order.append(alarms.pop(str(row["cause"])))
        in_order.append(row)
    told = []
    for column, row in enumerate(in_order):
        type_, is_last = str(row["type"]), column == len(in_order) - 1
        lane = "clock" if type_ == ALARM else ORDER if type_.startswith(SHOP) else type_.partition(".")[0]
        if lane not in LANES:
            raise ValueError(f"events: {type_!r} is none of {', '.join(LANES)}")
        words = WORDS.get(type_, type_.split(".")[-2])
        has_effect = str(row["id"]) in causes or (lane == ORDER and is_last)
        told.append(_Told(str(row["id"]), lane, words, str(row["cause"]), column, has_effect))
    return told


def _states(steps: pd.DataFrame, told: Sequence[_Told]) -> list[tuple[str, str, int]]:
    """Status, reason and column of each step: where the shop told it. Raises ValueError when it did not."""
    columns = {one.cause: one.column for one in told if one.lane == ORDER}
    found = []
    for row in steps.to_dict("records"):
        if row["cause"] not in columns:
            raise ValueError(f"events: nobody told that the order is {row['status']}")
        found.append((str(row["status"]), str(row["reason"]), columns[row["cause"]]))
    return found


def _said(states: Sequence[tuple[str, str, int]], told: Sequence[_Told]) -> str:
    statuses = {
        column: f"the order is {status}" + (f" ({reason})" if reason else "") for status, reason, column in states
    }
    words = [
        statuses.get(one.column, f"{one.lane}: {one.words}{'' if one.has_effect else ', which changes nothing'}")
        for one in told
    ]
    return "; ".join(words) + "."


def _lane(axes: Axes, index: int, lane: str) -> None:
    axes.axhspan(index + 0.04, index + 0.96, color=tint(LANES[lane], 0.07), lw=0, zorder=0)
    axes.text(
        -0.015, index + 0.5, lane, transform=axes.get_yaxis_transform(), ha="right", va="center_baseline",
        fontsize=NAME_PT, weight="bold", color=readable(LANES[lane]),
    )  # fmt: skip


def _state(axes: Axes, status: str, reason: str, column: int, until: int, column_pt: float) -> None:
    shade = SHADES.get(status, MEANING["waiting"])
    is_end = status in ("packed", "refused")
    axes.add_patch(
        FancyBboxPatch(
            (column + 0.03, 0.22), until - column - 0.06, 0.56, boxstyle="round,pad=0,rounding_size=0.08",
            fc=tint(shade, 0.85 if is_end else 0.3), ec=shade, lw=1.8, zorder=3,
        )
    )  # fmt: skip
    room = (until - column) * column_pt - 14
    sign = {"packed": "✓ ", "refused": "✗ "}.get(status, "")
    colour = PAPER if is_end else INK
    for text, y, size, weight in (
        (f"{sign}{status}", 0.4 if reason else 0.51, NAME_PT, "bold"),
        (reason, 0.64, SMALL_PT, "normal"),
    ):
        axes.text(
            (column + until) / 2, y, text, ha="center", va="center_baseline", weight=weight, color=colour, zorder=4,
            fontsize=size * min(1.0, room / max(1.0, text_width(text, size, bold=weight == "bold"))),
        )  # fmt: skip


def _pill(axes: Axes, one: _Told, index: int, column_pt: float) -> None:
    colour = LANES[one.lane]
    axes.add_patch(
        FancyBboxPatch(
            (one.column + 0.04, index + 0.27), 0.92, 0.46, boxstyle="round,pad=0,rounding_size=0.2",
            fc=PAPER, ec=colour, lw=2, ls="-" if one.has_effect else (0, (3, 2)), zorder=3,
        )
    )  # fmt: skip
    lines = [one.words] if one.has_effect else [one.words, "too late"]
    for text, y in zip(lines, (0.51,) if len(lines) == 1 else (0.43, 0.6), strict=True):
        size = min(NAME_PT if len(lines) == 1 else SMALL_PT, 30)
        axes.text(
            one.column + 0.5, index + y, shortened(text, column_pt - 12, size, bold=True), ha="center",
            va="center_baseline", fontsize=size, weight="bold", color=readable(colour), zorder=4,
        )  # fmt: skip


def _arrow(axes: Axes, one: _Told, others: Mapping[str, _Told], lanes: Sequence[str]) -> None:
    """From what it came of. From the order downwards; from a service upwards to where the order went."""
    cause = others.get(one.cause)
    if cause is None:
        return
    from_order, to_order = cause.lane == ORDER, one.lane == ORDER
    start = (cause.column + 0.5, 0.78 if from_order else lanes.index(cause.lane) + 0.27)
    end = (one.column + (0.3 if to_order else 0.5), 0.78 if to_order else lanes.index(one.lane) + 0.27)
    colour = LANES[cause.lane if to_order else one.lane]
    style = "-|>,head_length=7,head_width=3.5"
    arrow = FancyArrowPatch(start, end, arrowstyle=style, mutation_scale=1, lw=1.8, color=colour, shrinkA=1, shrinkB=1)
    axes.add_patch(arrow)
    arrow.set_zorder(2)
