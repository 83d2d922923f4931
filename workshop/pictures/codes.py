"""One-time codes: how six digits come out of a hash, which of them count now, and what guessing them comes to."""

import math
import re
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle

from workshop.pictures.frames import require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    QUIET,
    RULE,
    SERIES,
    SMALL_PT,
    Picture,
    beside,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    tint,
)

WIDTH = 960.0
STEP_S = 30
"""How long a code of an authenticator is the present one (RFC 6238 §4.1)."""
MINUS = "\N{MINUS SIGN}"
MINUTE, DAY, YEAR = 60.0, 86_400.0, 31_557_600.0
LONGEST_S = 100 * YEAR
TICKS = {
    MINUTE: "1 minute", 60 * MINUTE: "1 hour", DAY: "1 day", 30 * DAY: "1 month", YEAR: "1 year", 10 * YEAR: "10 years",
    LONGEST_S: "100 years",
}  # fmt: skip
ANSWERS: Mapping[int, tuple[str, str]] = {
    401: ("401 give a code", "app"),
    422: ("422 wrong", "failed"),
    429: ("429 wait", "waiting"),
    503: ("503 away", "failed"),
    200: ("200 signed in", "ok"),
}
"""What a login is answered with: title and colour of each lane, in the order in which they are drawn."""


def qr_code(svg: str, says: str) -> Picture:
    """A QR code on paper, light enough around it for a camera (ISO/IEC 18004: four modules).

    Args:
        svg: an `<svg>` element with its size, as segno makes it.
        says: what is in it, in words.

    Raises ValueError for what has no size.
    """
    found = re.match(r'<svg[^>]*?\bwidth="(\d+)"[^>]*?\bheight="(\d+)"', svg)
    if found is None:
        raise ValueError("svg: an <svg> element with width and height in pixels")
    width, height = int(found[1]) + 24, int(found[2]) + 24
    inner = svg.replace("<svg", '<svg x="12" y="12"', 1)
    alt = f"QR code: {says}"
    label = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return Picture(
        f'<svg xmlns="http://www.w3.org/2000/svg" version="1.1" role="img" aria-label="{label}" width="{1.5 * width:g}"'
        f' height="{1.5 * height:g}" viewBox="0 0 {width} {height}" style="max-width:100%;height:auto">\n'
        f'<rect width="{width}" height="{height}" rx="12" fill="#FFFFFF"/>{inner}\n</svg>\n',
        alt,
    )


def truncation(digest: bytes, digits: int = 6) -> Picture:
    """How a code is cut out of an HMAC-SHA-1 (RFC 4226 §5.3): the last half byte says where, four bytes are taken.

    Raises ValueError for what is no digest of 20 bytes.
    """
    if len(digest) != 20:
        raise ValueError(f"digest: 20 bytes of HMAC-SHA-1, not {len(digest)}")
    offset = digest[-1] & 0x0F
    number = int.from_bytes(digest[offset : offset + 4]) & 0x7FFF_FFFF
    code = f"{number % 10**digits:0{digits}}"
    spaced = " ".join(code[at : at + 3] for at in range(0, digits, 3))
    where, taken = readable(SERIES[1]), readable(SERIES[0])
    title = f"{digits} digits of 20 bytes"
    with sheet(WIDTH, 300, title, "HMAC-SHA-1 of the number of the time step, with the secret as its key") as figure:
        axes = plot(figure, left=24, right=24, top=84, bottom=12)
        axes.set(xlim=(0, WIDTH - 48), ylim=(204, 0))
        axes.set_axis_off()
        side = (WIDTH - 48) / 20
        for index, byte in enumerate(digest):
            is_taken, is_last = offset <= index < offset + 4, index == 19
            fill = tint(SERIES[0], 0.25) if is_taken else tint(SERIES[1], 0.3) if is_last else tint(RULE, 0.5)
            axes.add_patch(Rectangle((index * side + 2, 22), side - 4, 40, fc=fill, ec="none"))
            shade = taken if is_taken else where if is_last else QUIET
            weight = "bold" if is_taken or is_last else "normal"
            middle = (index + 0.5) * side
            axes.text(middle, 42, f"{byte:02x}", ha="center", va="center_baseline", size=15, weight=weight, color=shade)
            axes.text(middle, 12, str(index), ha="center", va="center_baseline", size=SMALL_PT, color=QUIET)
        left, right, last = offset * side + 2, (offset + 4) * side - 2, 19.5 * side
        axes.plot((left, left, right, right), (68, 76, 76, 68), color=taken, lw=2)
        axes.plot((last, last, left + 6), (66, 94, 94), color=where, lw=2)
        axes.plot((left + 6, left + 6), (94, 82), color=where, lw=2)
        axes.plot((left + 1, left + 6, left + 11), (88, 80, 88), color=where, lw=2)
        words = f"the last half byte, {digest[-1] & 15:x}, is {offset}: begin at byte {offset}"
        axes.text(last, 110, words, ha="right", va="center_baseline", size=NAME_PT, weight="bold", color=where)
        four = digest[offset : offset + 4].hex()
        for y, text, shade, size in (
            (142, f"0x{four} without its first bit is {number:,}", taken, NAME_PT),
            (178, f"its last {digits} digits: {spaced}", INK, 22),
        ):
            axes.text(0, y, text, va="center_baseline", size=size, weight="bold", color=shade)
        return picture(figure, f"{title}: {words}; 0x{four} without its first bit is {number:,}; the code is {spaced}.")


def code_windows(answers: pd.DataFrame, *, title: str = "Which codes open the door now") -> Picture:
    """A time line of 30-second steps, and what became of the code of each when it was sent.

    Args:
        answers: one row a code: `step` (0 is the present one, -1 the one before it), `sent` (what the row of the
            picture is called, such as "first" and "again"), `status` (200, or that of a refusal).

    Raises ValueError: a column is missing or lacks a value.
    """
    require("answers", answers, "step", "sent", "status")
    if answers.empty:
        return nothing(title)
    rows = list(dict.fromkeys(answers["sent"].astype(str)))
    first, last = min(int(answers["step"].min()), 0), max(int(answers["step"].max()), 0)
    lane = 62.0
    said = []
    with sheet(WIDTH, 180 + lane * len(rows), title, "each box is the code of one step of 30 seconds") as figure:
        axes = plot(figure, left=118, right=24, top=112, bottom=68)
        axes.set(xlim=(first, last + 1), ylim=(len(rows), 0), yticks=[], xticks=range(first, last + 2))
        axes.spines[["left", "bottom"]].set_visible(False)
        axes.tick_params(length=0, pad=8)
        axes.xaxis.set_major_formatter(lambda step, _: f"{step * STEP_S:+.0f} s".replace("-", MINUS) if step else "0 s")
        axes.set_xlabel("since the present step began", labelpad=6)
        for step in range(first, last + 1):
            weight = "bold" if step == 0 else "normal"
            axes.text(
                step + 0.5, -0.16, _step_name(step), ha="center", size=NAME_PT, weight=weight,
                color=INK if step == 0 else QUIET,
            )  # fmt: skip
        axes.axvspan(0, 1, ymin=-0.03, ymax=1.03, color=tint(INK, 0.1), lw=0, clip_on=False, zorder=0)
        for index, row in enumerate(rows):
            axes.text(-0.015, 1 - (index + 0.5) / len(rows), row, transform=axes.transAxes, ha="right",
                      va="center_baseline", size=NAME_PT, weight="bold", color=INK)  # fmt: skip
            of_row = answers[answers["sent"].astype(str) == row].sort_values("step")
            for step, status in zip(of_row["step"].astype(int), of_row["status"].astype(int), strict=True):
                _box(axes, step, index, is_in=status == 200)
            opened = [_step_name(int(step)) for step in of_row.loc[of_row["status"] == 200, "step"]]
            said.append(f"{row}: accepted {', '.join(opened) or 'none'} of {len(of_row)}")
        return picture(figure, f"{title}. {'; '.join(said)}; all others refused.")


def answers_over_time(answers: pd.DataFrame, *, title: str = "What a guesser hears", subtitle: str = "") -> Picture:
    """One lane a kind of answer, one thin line a request.

    Args:
        answers: one row a request: `at_s` (seconds since the first), `status` (of those in ANSWERS).

    Raises ValueError: a column is missing, lacks a value or has a status that nobody expects.
    """
    require("answers", answers, "at_s", "status")
    if strange := sorted(set(answers["status"]).difference(ANSWERS)):
        raise ValueError(f"answers: nobody expects the status {', '.join(map(str, strange))}")
    if answers.empty:
        return nothing(title)
    lanes = [status for status in ANSWERS if (answers["status"] == status).any()]
    said = []
    with sheet(WIDTH, 150 + 62 * len(lanes), title, subtitle or "one thin line a request") as figure:
        axes = plot(figure, left=168, right=92, top=80, bottom=60)
        axes.set(xlim=(0, 1.01 * float(answers["at_s"].max()) + 0.01), ylim=(len(lanes), 0), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0, pad=7)
        axes.set_xlabel("seconds since the first guess", labelpad=6)
        for index, status in enumerate(lanes):
            name, kind = ANSWERS[status]
            colour = MEANING.get(kind, INK)
            times = answers.loc[answers["status"] == status, "at_s"].to_numpy(dtype=float)
            axes.axhspan(index + 0.06, index + 0.94, color=tint(colour), lw=0, zorder=0)
            axes.vlines(times, index + 0.14, index + 0.86, color=colour, lw=2.0 if len(times) < 100 else 1.0)
            beside(axes, index + 0.5, name, f"{len(times):,}", readable(colour), readable(colour), 92)
            said.append(f"{name}: {len(times):,}")
        return picture(figure, f"{title}. {', '.join(said)}.")


def chances(rates: Mapping[str, float], valid: int = 2, of: int = 10**6) -> Picture:
    """The chance that a guesser has hit at least once, over time, for guessers who are let through at other rates.

    Args:
        rates: guesses a day, under what lets so many through.
        valid: how many codes are right at any time, of so many that there are.

    Raises ValueError for a rate that is not above 0.
    """
    if any(rate <= 0 for rate in rates.values()):
        raise ValueError("rates: guesses a day, above 0")
    title = f"Guessing one account's code: {valid} of {of:,} are right"
    if not rates:
        return nothing(title)
    miss = math.log1p(-valid / of)
    seconds = np.geomspace(MINUTE, LONGEST_S, 400)
    said = []
    with sheet(WIDTH, 430, title, "chance of a hit so far; marked: when it is one in two") as figure:
        axes = plot(figure, left=78, right=150, top=92, bottom=52)
        axes.set(xscale="log", xlim=(MINUTE, LONGEST_S), ylim=(0, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])
        axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
        axes.set_xticks(list(TICKS), list(TICKS.values()))
        axes.minorticks_off()
        axes.tick_params(length=0, pad=8)
        axes.grid(color="#E9EBEC", lw=1)
        axes.set_axisbelow(True)
        axes.spines["left"].set_visible(False)
        for index, (name, rate) in enumerate(rates.items()):
            colour = SERIES[index % len(SERIES)]
            axes.plot(seconds, -np.expm1(miss * rate * seconds / DAY), color=colour, lw=3.2, clip_on=False)
            half_s = math.log(0.5) / miss / rate * DAY
            end_s = min(half_s, LONGEST_S)
            share = -math.expm1(miss * rate * end_s / DAY)
            if half_s <= LONGEST_S:
                axes.plot([half_s], [share], "o", color=colour, ms=10, clip_on=False)
            axes.annotate(
                f"{name}\n{_long(half_s)}", (end_s, share), (14, 0), textcoords="offset points", va="center",
                size=NAME_PT, weight="bold", color=readable(colour), linespacing=1.35, annotation_clip=False,
            )  # fmt: skip
            said.append(f"{' '.join(name.split())}: one in two after {_long(half_s)}")
        return picture(figure, f"{title}. {'; '.join(said)}.")


def _box(axes: Axes, step: int, row: int, *, is_in: bool) -> None:
    colour = MEANING["ok" if is_in else "failed"]
    shape = FancyBboxPatch(
        (step + 0.06, row + 0.14), 0.88, 0.72, boxstyle="round,pad=0,rounding_size=0.06",
        fc=tint(colour, 0.3 if is_in else 0.1), ec=colour, lw=2.0 if is_in else 1.0,
    )  # fmt: skip
    axes.add_patch(shape)
    axes.text(
        step + 0.5, row + 0.5, "✓ accepted" if is_in else "✗ refused", ha="center", va="center_baseline", size=NAME_PT,
        weight="bold" if is_in else "normal", color=readable(colour),
    )  # fmt: skip


def _step_name(step: int) -> str:
    if step == 0:
        return "this step"
    return f"{abs(step)} {'ahead' if step > 0 else 'back'}"


def _long(seconds: float) -> str:
    """A long time as people say it: 58 minutes, 48 days, 9.5 years."""
    for unit, size in (("years", YEAR), ("days", DAY), ("hours", 60 * MINUTE), ("minutes", MINUTE)):
        if seconds >= 1.5 * size:
            count = seconds / size
            return f"{count:.1f} {unit}" if count < 9.95 else f"{count:,.0f} {unit}"
    return f"{seconds:.0f} seconds"
