"""The time line of a session, drawn from its rows in the log of security events."""

import math
from collections.abc import Mapping
from datetime import timedelta

import pandas as pd
from matplotlib.axes import Axes

from workshop.pictures.family import REFUSED, REPEATED, REUSED, ROTATED, SIGNED_IN, Family, Use
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
    nothing,
    picture,
    plot,
    readable,
    sheet,
    shortened,
    text_width,
    tint,
)

WIDTH, LEFT, RIGHT, TOP, BOTTOM, LANE = 960.0, 150.0, 44.0, 104.0, 62.0, 112.0
MOST_WORDS, ROOM_FOR_DENIED = 9, 60.0
FAILED = MEANING["failed"]
WORDS: Mapping[str, str] = {
    SIGNED_IN: "signs in",
    ROTATED: "refreshes",
    REPEATED: "refreshes,\nsame answer",
    REUSED: "used again:\nall revoked",
    REFUSED: "refused",
}


def session_timeline(
    events: pd.DataFrame, lifetime: timedelta | None = None, *, title: str = "The life of a session"
) -> Picture:
    """Who held which tokens when: access tokens as bars, refresh tokens as discs with their generation.

    Args:
        events: see `Family.read`.
        lifetime: of an access token; time runs from left to right then. Without it the events stand one after the
            other at equal distances, and access tokens last until the session ends.

    Raises ValueError for a frame that cannot be read.
    """
    if events.empty:
        return nothing(title)
    family = Family.read(events)
    place = {use.step: use.at_s if lifetime else float(use.step) for use in family.uses}
    end = None if family.ended is None else family.ended[0] if lifetime else float(family.ended[1])
    lasts = {use.step: _until(family, use, lifetime) for use in family.uses if use.child}
    right = max([*place.values(), *(until for until in lasts.values() if math.isfinite(until)), end or 0.0])
    devices = family.devices
    subtitle = "bars: access tokens; discs: refresh tokens, by generation"
    with sheet(WIDTH, TOP + BOTTOM + LANE * len(devices), title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
        low = 0.0 if lifetime else 1.0
        axes.set(xlim=(low - 0.05 * (right - low), right + 0.06 * (right - low) + 0.01), ylim=(len(devices), 0))
        axes.set(yticks=[])
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        for index, device in enumerate(devices):
            _lane(axes, index, device)
        for use in family.uses:
            lane = devices.index(use.device)
            _held(axes, family, use, lane, place, lasts, end)
        if lifetime:
            axes.set_xlabel("seconds since the login", labelpad=8)
        else:
            steps = {use.step: WORDS[use.what] for use in family.uses}
            words = list(steps.values()) if len(steps) <= MOST_WORDS else [str(step) for step in steps]
            axes.set_xticks(list(steps), words, linespacing=1.25)
        if family.ended is not None and end is not None:
            _end(axes, end, family.ended[2])
        return picture(figure, f"{title}. {family.told()}")


def _until(family: Family, use: Use, lifetime: timedelta | None) -> float:
    """When the access token that came with a refresh token expires, in seconds since the login.

    In a token that is a whole second, rounded up (`exp`, RFC 7519 §2).
    """
    if lifetime is None:
        return math.inf
    return math.ceil(family.began + use.at_s + lifetime.total_seconds()) - family.began


def _lane(axes: Axes, index: int, device: str) -> None:
    colour = SERIES[index % len(SERIES)]
    axes.axhspan(index + 0.04, index + 0.96, color=tint(colour, 0.08), lw=0, zorder=0)
    place = axes.get_yaxis_transform()
    for y, text, size, weight, shade in (
        (0.5, shortened(device, LEFT - 30, NAME_PT, bold=True), NAME_PT, "bold", readable(colour)),
        (0.24, "access tokens", SMALL_PT, "normal", QUIET),
        (0.76, "refresh tokens", SMALL_PT, "normal", QUIET),
    ):
        axes.text(
            -0.015, index + y, text, transform=place, ha="right", va="center_baseline", fontsize=size, weight=weight,
            color=shade,
        )  # fmt: skip


def _held(
    axes: Axes,
    family: Family,
    use: Use,
    lane: int,
    place: Mapping[int, float],
    lasts: Mapping[int, float],
    end: float | None,
) -> None:
    """What a device got by one use of a token, and for how long it was worth something."""
    x, colour = place[use.step], SERIES[lane % len(SERIES)]
    if use.what in (REUSED, REFUSED):
        axes.plot(x, lane + 0.76, marker="X", ms=15, color=FAILED, mec=PAPER, zorder=5)
        return
    last = axes.get_xlim()[1]
    valid = min(lasts[use.step], last if end is None else end)
    if lasts[use.step] > valid and end is not None:  # it has not expired, and is denied all the same
        denied = min(lasts[use.step], last)
        axes.barh(lane + 0.26, denied - valid, left=valid, height=0.24, fc=PAPER, ec=FAILED, ls="--", lw=1.2, zorder=2)
        if (denied - valid) / (last - axes.get_xlim()[0]) * (WIDTH - LEFT - RIGHT) > ROOM_FOR_DENIED:
            axes.text(
                (valid + denied) / 2, lane + 0.265, "denied", ha="center", va="center_baseline", fontsize=SMALL_PT,
                color=FAILED, zorder=3,
            )  # fmt: skip
    axes.barh(lane + 0.26, valid - x, left=x, height=0.24, fc=tint(colour, 0.55), ec=colour, lw=1.6, zorder=3)
    later = [place[other.step] for other in family.uses if other.token == use.child and other.device == use.device]
    until = min(later) if later else last if end is None else end
    axes.plot((x, until), (lane + 0.76, lane + 0.76), color=colour, lw=3, zorder=2)
    axes.plot(x, lane + 0.76, marker="o", ms=23, color=colour, mec=PAPER, mew=2, zorder=4)
    number = str(family.generations[use.child])
    axes.text(
        x, lane + 0.765, number, ha="center", va="center_baseline", fontsize=TEXT_PT, weight="bold",
        color=PAPER if colour == SERIES[0] else INK, zorder=6,
    )  # fmt: skip


def _end(axes: Axes, at: float, why: str) -> None:
    axes.axvline(at, color=FAILED, lw=1.8, ls=(0, (4, 3)), zorder=1)
    text = shortened(f"the session ends: {why}", 420, SMALL_PT, bold=True)
    low, high = axes.get_xlim()
    room = (at - low) / (high - low) * (WIDTH - LEFT - RIGHT)
    size = text_width(text, SMALL_PT, bold=True)
    start = min(max(room - size / 2, 0.0), WIDTH - LEFT - RIGHT + RIGHT - 20 - size)
    place = axes.get_xaxis_transform()
    axes.text(
        low + start / (WIDTH - LEFT - RIGHT) * (high - low), 1.03, text, transform=place, fontsize=SMALL_PT,
        weight="bold", color=FAILED,
    )  # fmt: skip
