"""Access tokens in pictures: one taken apart, attacks and who fell for them, and keys that change under traffic."""

import base64
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from workshop.pictures.frames import require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    QUIET,
    RULE,
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

WIDTH = 960.0

PURPOSES: Mapping[str, str] = {
    "alg": "how it is signed; compared with our key, never obeyed",
    "typ": "what it is: an access token, nothing else",
    "kid": "which of our keys has signed it",
    "iss": "who has issued it",
    "aud": "whom it is for",
    "sub": "whom it stands for",
    "client_id": "the program that asked for it",
    "iat": "when it was issued, in seconds since 1970",
    "exp": "when it ends: minutes later",
    "jti": "its own number",
    "scope": "what it allows",
    "sid": "the session it belongs to: what a logout ends",
    "acr": "how surely it is you",
    "amr": "by what you proved it: a password",
    "auth_time": "when you proved it",
}
"""What each member of a token of ours is for (RFC 7515 §4.1, RFC 9068 §2.2)."""

PARTS = (("header", "how to check it", SERIES[0]), ("claims", "what it says", SERIES[1]), ("signature", "", SERIES[2]))


def anatomy(token: str) -> Picture:
    """A token, its three parts decoded, and what each member is for.

    Only the beginning of each part is drawn: nobody can use what is in the picture.

    Raises ValueError for what is no token in three parts.
    """
    parts = token.split(".")
    if len(parts) != len(PARTS):
        raise ValueError("a token has three parts")
    header, claims = (json.loads(_decoded(part)) for part in parts[:2])
    length = len(_decoded(parts[2]))
    rows: list[tuple[int, str, str, str]] = [
        (index, name, value if isinstance(value, str) else json.dumps(value), PURPOSES.get(name, ""))
        for index, members in enumerate((header, claims))
        for name, value in members.items()
    ]
    rows.append(
        (2, f"{length} bytes", "two numbers, r and s", "only the private key makes them; the public one checks")
    )
    row, gap, top = 22.0, 16.0, 136.0
    height = top + row * len(rows) + gap * 2 + 22
    with sheet(
        WIDTH, height, "An access token, taken apart", f"{len(token)} characters: anybody can read them"
    ) as figure:
        axes = _paper(plot(figure, left=0, bottom=0, right=0, top=0), height)
        _strip(axes, parts, 88)
        y = top
        for index, (name, note, colour) in enumerate(PARTS):
            mine = [one for one in rows if one[0] == index]
            low = y + row * len(mine)
            axes.fill_between((24, WIDTH - 24), y - 4, low + 2, color=tint(colour, 0.1), lw=0)
            axes.text(36, y + row / 2, name, size=NAME_PT, weight="bold", color=readable(colour), va="center")
            axes.text(36, y + row * 1.5, note, size=SMALL_PT, color=QUIET, va="center")
            for line, (_, member, value, purpose) in enumerate(mine):
                middle = y + row * (line + 0.5)
                axes.text(160, middle, member, size=TEXT_PT, weight="bold", color=INK, va="center")
                axes.text(258, middle, shortened(value, 296, TEXT_PT), size=TEXT_PT, color=INK, va="center")
                axes.text(566, middle, shortened(purpose, 364, TEXT_PT), size=TEXT_PT, color=QUIET, va="center")
            y = low + gap
        said = "; ".join(f"{member} {value}" for _, member, value, _ in rows[:-1])
        return picture(figure, f"An access token in three parts. {said}; signature of {length} bytes.")


def attack_matrix(
    frame: pd.DataFrame, verifiers: Sequence[str], *, title: str = "Who falls for which token"
) -> Picture:
    """One line an attack, one dot a verifier: red with a cross where it was accepted.

    Args:
        frame: family, attack, and a column for each verifier (True: it accepted the token).
        verifiers: columns, from left to right.

    Raises ValueError: a column is missing or lacks a value, or one of a verifier is no yes or no.
    """
    require("frame", frame, "family", "attack", *verifiers)
    for name in verifiers:
        if not frame[name].isin([True, False]).all():
            raise ValueError(f"frame: column {name!r} has a value that is no yes or no")
    if frame.empty:
        return nothing(title)
    row, top = 20.0, 132.0
    lines: list[tuple[str, pd.Series[bool] | None]] = []
    for family, members in frame.groupby("family", sort=False):
        lines.append((str(family), None))
        lines += [(str(one["attack"]), one[list(verifiers)]) for _, one in members.iterrows()]
    half = _split([of is None for _, of in lines])
    columns = (lines[:half], lines[half:])
    height = top + row * max(map(len, columns)) + 28
    accepted = {name: int(frame[name].sum()) for name in verifiers}
    with sheet(WIDTH, height, title, f"{len(frame)} attacks; ✗ a verifier accepted the token, · it refused") as figure:
        axes = _paper(plot(figure, left=0, bottom=0, right=0, top=0), height)
        dots: list[tuple[float, float, bool]] = []
        for column, mine in enumerate(columns):
            left = 24 + column * (WIDTH - 24) / 2
            middles = [left + 222 + 92 * index for index in range(len(verifiers))]
            for middle, name in zip(middles, verifiers, strict=True):
                shade = MEANING["failed"] if accepted[name] else readable(MEANING["ok"])
                axes.text(middle, 86, name, size=TEXT_PT, weight="bold", ha="center", va="center")
                said = f"fell for {accepted[name]}" if accepted[name] else "for none"
                axes.text(middle, 104, said, size=SMALL_PT, weight="bold", color=shade, ha="center", va="center")
            for line, (name, of) in enumerate(mine):
                y = top + row * (line + 0.5)
                if of is None:
                    axes.text(left, y + 2, name, size=TEXT_PT, weight="bold", color=INK, va="center")
                    axes.plot((left, left + 430), (y + 11, y + 11), color=RULE, lw=1)
                else:
                    axes.text(left + 10, y, shortened(name, 170, TEXT_PT), size=TEXT_PT, color=INK, va="center")
                    dots += [(x, y, bool(fell)) for x, fell in zip(middles, of, strict=True)]
        _dots(axes, dots)
        fallen = ", ".join(f"{name} {number}" for name, number in accepted.items())
        return picture(figure, f"{title}. Of {len(frame)} attacks accepted: {fallen}.")


def key_changes(
    frame: pd.DataFrame, marks: Sequence[tuple[float, str]], *, title: str = "Keys change, customers stay"
) -> Picture:
    """One lane a customer, one tick a request in the colour of its token's key; a red cross where it was refused.

    A hollow ring: no answer came.

    Args:
        frame: one row a request: `at_s` (since the start), `customer`, `kid`, `status` (401: refused; 0: no answer).
        marks: what was done, and when: `(4.2, "rotated")`.

    Raises ValueError: a column is missing or lacks a value, or a time is no finite number.
    """
    require("frame", frame, "at_s", "customer", "kid", "status")
    frame = frame.sort_values(["at_s", "customer"])
    times = pd.to_numeric(frame["at_s"], errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(times).all() or not all(math.isfinite(at) for at, _ in marks):
        raise ValueError("at_s and marks: finite numbers of seconds")
    if frame.empty:
        return nothing(title)
    customers = list(dict.fromkeys(sorted(frame["customer"].astype(str))))
    kids = list(dict.fromkeys(frame["kid"]))
    refused, lost = int((frame["status"] == 401).sum()), int((frame["status"] == 0).sum())
    lane, top, bottom = 30.0, 128.0, 52.0
    subtitle = f"{len(frame):,} requests of {len(customers)} customers; {refused or 'none'} refused (401)" + (
        f"; {lost} without an answer, sent again" if lost else ""
    )
    with sheet(WIDTH, top + bottom + lane * len(customers), title, subtitle) as figure:
        axes = plot(figure, left=126, bottom=bottom, right=24, top=top)
        end = max([*times, *(at for at, _ in marks)])
        axes.set(xlim=(-0.01 * end, 1.01 * end), ylim=(len(customers), 0), yticks=[])
        axes.spines["left"].set_visible(False)
        axes.tick_params(length=0, pad=7)
        axes.set_xlabel("seconds since the start", labelpad=6)
        place = frame["customer"].astype(str).map(customers.index).to_numpy()
        for index, name in enumerate(customers):
            axes.axhspan(index + 0.06, index + 0.94, color=tint(QUIET, 0.06), lw=0)
            axes.text(
                -0.012, index + 0.5, name, transform=axes.get_yaxis_transform(), ha="right", va="center", size=SMALL_PT
            )
        for index, kid in enumerate(kids):
            mine = (frame["kid"] == kid).to_numpy()
            colour = SERIES[index % len(SERIES)]
            _ticks(axes, times[mine], place[mine], colour)
            first, last = times[mine].min(), times[mine].max()
            axes.text(
                (first + last) / 2, -0.2, f"key {index + 1}", ha="center", va="bottom", size=NAME_PT, weight="bold",
                color=readable(colour),
            )  # fmt: skip
        for status, sign, size, inside, edge in (
            (0, "o", 8, PAPER, QUIET),
            (401, "X", 11, MEANING["failed"], PAPER),
        ):
            hit = (frame["status"] == status).to_numpy()
            axes.plot(
                times[hit], place[hit] + 0.5, sign, ls="", ms=size, mfc=inside, mec=edge, mew=1.4, clip_on=False,
                zorder=5,
            )  # fmt: skip
        _moments(axes, marks, end)
        done = "".join(f"; at {at:.1f} s {what}" for at, what in marks)
        return picture(figure, f"{title}. {subtitle}; tokens of {len(kids)} keys{done}.")


def _decoded(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _paper(axes: Axes, height: float) -> Axes:
    """Axes in points, from the upper left corner."""
    axes.set(xlim=(0, WIDTH), ylim=(height, 0))
    axes.set_axis_off()
    return axes


def _strip(axes: Axes, parts: Sequence[str], y: float) -> None:
    """The token itself, a little of each part."""
    x = 24.0
    for index, (part, (_, _, colour), keep) in enumerate(zip(parts, PARTS, (30, 34, 16), strict=True)):
        text = f"{part[:keep]}…"
        axes.text(x, y, text, size=NAME_PT, weight="bold", color=readable(colour), va="center")
        x += text_width(text, NAME_PT, bold=True) + 3
        if index < len(parts) - 1:
            axes.text(x, y, ".", size=TEXT_PT * 2, weight="bold", color=INK, va="baseline")
            x += 12
    axes.text(24, y + 22, "base64url, which hides nothing", size=SMALL_PT, color=QUIET, va="center")


def _split(is_head: Sequence[bool]) -> int:
    """Where the second of two columns begins: at the head that makes them most alike in length."""
    heads = [index for index, head in enumerate(is_head) if head and index]
    return min(heads, key=lambda index: abs(len(is_head) - 2 * index), default=len(is_head))


def _dots(axes: Axes, places: Sequence[tuple[float, float, bool]]) -> None:
    """All dots at once: a way of no length with round ends, in a tenth of the bytes of a marker."""
    held = [[(x, y), (x, y)] for x, y, accepted in places if not accepted]
    fell = [[(x, y), (x, y)] for x, y, accepted in places if accepted]
    strokes = [
        [(x - 3, y - 3 * slope), (x + 3, y + 3 * slope)] for x, y, accepted in places if accepted for slope in (1, -1)
    ]
    _strokes(axes, held, tint(MEANING["ok"], 0.7), 5)
    _strokes(axes, fell, MEANING["failed"], 14)
    _strokes(axes, strokes, PAPER, 2)


def _strokes(axes: Axes, ways: Sequence[Sequence[tuple[float, float]]], colour: str, width: float) -> None:
    if ways:
        path = Path(np.concatenate(ways), np.tile([Path.MOVETO, Path.LINETO], len(ways)))
        axes.add_patch(PathPatch(path, fill=False, ec=colour, lw=width, capstyle="round", clip_on=False))


def _ticks(axes: Axes, times: NDArray[np.float64], lanes: NDArray[np.int64], colour: str) -> None:
    """A short upright line a request; one path for all of a colour."""
    points = np.empty((2 * len(times), 2))
    points[0::2] = np.column_stack((times, lanes + 0.2))
    points[1::2] = np.column_stack((times, lanes + 0.8))
    path = Path(points, np.tile([Path.MOVETO, Path.LINETO], len(times)))
    axes.add_patch(PathPatch(path, fill=False, ec=colour, lw=2.2, clip_on=False, zorder=2))


def _moments(axes: Axes, marks: Sequence[tuple[float, str]], end: float) -> None:
    """A dashed line a moment, its words above the keys' names, on the row on which they fit."""
    rows = [-math.inf, -math.inf]
    for at_s, what in sorted(marks):
        axes.axvline(at_s, color=INK, lw=1.4, ls=(0, (4, 3)), zorder=1)
        size = text_width(what, SMALL_PT, bold=True)
        start = min(at_s / end * 810 + 4, 800 - size)  # points from the left edge of the lanes
        row = next((row for row, taken in enumerate(rows) if start > taken), len(rows) - 1)
        rows[row] = start + size + 10
        axes.annotate(
            what, (start / 810, 1), (0, 30 + 14 * row), xycoords="axes fraction", textcoords="offset points",
            va="bottom", fontsize=SMALL_PT, weight="bold", color=INK,
        )  # fmt: skip
