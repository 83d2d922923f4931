"""The audit under attack: faults over time, seals that stay one chain, a proof by steps, what verifying says."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch, Rectangle
from matplotlib.ticker import MaxNLocator

from showcase.audit.domain.seals import climbed
from workshop.pictures.frames import duration, require
from workshop.pictures.style import (
    INK,
    MEANING,
    NAME_PT,
    PAPER,
    QUIET,
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
    shortened,
    text_width,
    tint,
)

WIDTH, TOP = 960.0, 84.0
BAD, GOOD, WAITING = MEANING["failed"], MEANING["ok"], MEANING["waiting"]
POSTGRES, MONGO, ANCHOR = SYSTEM["postgres"], SYSTEM["mongo"], SYSTEM["mail"]
STROKES = 600
"""So many strokes has a raster at the most: a picture has no more room, and a file should not need it."""
MOMENTS = 240
SHOWN = 6
"""Digits of a hash."""
SEALS_SHOWN = 4

Span = tuple[float, float, float]


# -- over time


def under_attack(
    delays: pd.DataFrame, spans: Mapping[str, Span], *, title: str = "Everything broken in turn"
) -> Picture:
    """A lane for each fault, rasters of what was committed and recorded, and below for how long changes waited.

    Args:
        delays: one row a change: `committed_s`, `recorded_s`.
        spans: under the name of each fault when it began, when it was mended, and when records came again, in seconds.

    Raises ValueError for a column that is missing.
    """
    require("delays", delays, "committed_s", "recorded_s")
    if delays.empty:
        return nothing(title)
    left, right, lane, lag, gap, bottom = 178.0, 176.0, 34.0, 132.0, 26.0, 52.0
    names = [*spans, "committed", "recorded"]
    height = TOP + lane * len(names) + gap + lag + bottom
    last_s = max(float(delays.max().max()), *(back for _, _, back in spans.values()), 0.1)
    waited = (delays["recorded_s"] - delays["committed_s"]).clip(lower=0)
    subtitle = "red: broken; amber: mended, and no record yet; one stroke a change or some of them"
    with sheet(WIDTH, height, title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=height - TOP - lane * len(names))
        axes.set(xlim=(0, last_s * 1.01), ylim=(len(names), 0), yticks=[])
        axes.tick_params(length=0, labelbottom=False)
        axes.spines[:].set_visible(False)
        for index, (name, (broken, mended, back)) in enumerate(spans.items()):
            _fault(axes, index, broken, mended, back)
            beside(axes, index + 0.5, shortened(name, left - 40, NAME_PT, bold=True),
                   f"back after {duration(1_000 * (back - broken))}", INK, readable(BAD), right)  # fmt: skip
        for index, (column, colour) in enumerate((("committed_s", POSTGRES), ("recorded_s", MONGO)), len(spans)):
            _raster(axes, index, delays[column].to_numpy(), colour)
            beside(axes, index + 0.5, names[index], f"{len(delays):,}", readable(colour), readable(colour), right)
        below = plot(figure, left=left, right=right, top=height - bottom - lag, bottom=bottom)
        most = max(float(waited.max()), 0.1)
        below.set(xlim=(0, last_s * 1.01), ylim=(0, most * 1.1))
        below.tick_params(length=0, pad=6)
        below.grid(axis="y", color="#E9EBEC", lw=1)
        below.spines["left"].set_visible(False)
        below.set_xlabel("seconds since the beginning", labelpad=6)
        for broken, mended, _ in spans.values():
            below.axvspan(broken, mended, color=tint(BAD, 0.16), lw=0, zorder=0)
        moments, worst = _worst(delays["committed_s"].to_numpy(), waited.to_numpy(), last_s)
        below.fill_between(moments, 0, worst, step="mid", color=tint(WAITING, 0.6), lw=0, zorder=2)
        below.step(moments, worst, where="mid", color=readable(WAITING), lw=1.6, zorder=3)
        usual = float(waited.median())
        for y, name, note, colour in (
            (0.66, "each waited", f"{duration(1_000 * most)} at most", readable(WAITING)),
            (0.36, "for its record", f"{duration(1_000 * usual)} as a rule", QUIET),
        ):
            for x, text, ha in ((-30 / (WIDTH - left - right), name, "right"), (1.015, note, "left")):
                below.text(
                    x, y, text, transform=below.transAxes, ha=ha, va="center_baseline", fontsize=TEXT_PT,
                    weight="bold", color=colour,
                )  # fmt: skip
        below.yaxis.set_major_locator(MaxNLocator(4))
        below.yaxis.set_major_formatter(lambda seconds, _: f"{seconds:g} s")
        said = "; ".join(
            f"{name} from {broken:.1f} s to {mended:.1f} s, records again at {back:.1f} s"
            for name, (broken, mended, back) in spans.items()
        )
        return picture(
            figure,
            f"{title}. {said}. {len(delays):,} changes; each waited for its record {duration(1_000 * most)} at most, "
            f"and {duration(1_000 * usual)} as a rule.",
        )


def _fault(axes: Axes, index: int, broken: float, mended: float, back: float) -> None:
    axes.axhspan(index + 0.08, index + 0.92, color=tint(QUIET, 0.07), lw=0, zorder=0)
    axes.add_patch(Rectangle((mended, index + 0.2), back - mended, 0.6, fc=tint(WAITING, 0.6), lw=0, zorder=2))
    axes.add_patch(Rectangle((broken, index + 0.14), mended - broken, 0.72, fc=BAD, lw=0, zorder=3))
    if broken > 0.04 * axes.get_xlim()[1]:  # else it would stand on the name
        axes.text(
            broken, index + 0.51, "✗ ", ha="right", va="center_baseline", fontsize=TEXT_PT, color=BAD, weight="bold"
        )


def _raster(axes: Axes, index: int, at_s: "np.ndarray[Any, Any]", colour: str) -> None:
    """Strokes, as many as can be told apart."""
    places = np.sort(at_s)
    chosen = places[:: max(1, -(-len(places) // STROKES))]
    xs = np.column_stack([chosen, chosen, np.full(len(chosen), np.nan)]).ravel()
    axes.plot(xs, np.tile([index + 0.16, index + 0.84, np.nan], len(chosen)), color=colour, lw=0.9, zorder=3)


def _worst(
    at_s: "np.ndarray[Any, Any]", waited: "np.ndarray[Any, Any]", last_s: float
) -> "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]":
    """The longest wait among the changes of each moment; 0 where there is none."""
    edges = np.linspace(0, last_s * 1.01, MOMENTS + 1)
    worst = np.zeros(MOMENTS)
    np.maximum.at(worst, np.clip(np.searchsorted(edges, at_s, side="right") - 1, 0, MOMENTS - 1), waited)
    return (edges[:-1] + edges[1:]) / 2, worst


# -- seals


def seal_chains(seals: pd.DataFrame, *, title: str = "Two consumers, and one chain a partition") -> Picture:
    """Each seal as a block over the offsets that it covers; a gap or a second chain would show.

    Args:
        seals: one row a seal: `partition`, `first`, `next`, `when`: one of a few words, in the order in which it comes.

    Raises ValueError for a column that is missing.
    """
    require("seals", seals, "partition", "first", "next", "when")
    if seals.empty:
        return nothing(title)
    partitions = sorted(seals["partition"].unique())
    words = list(dict.fromkeys(seals["when"]))
    colours = {word: SERIES[number % len(SERIES)] for number, word in enumerate(words)}
    left, right, lane, key, bottom = 140.0, 190.0, 52.0, 26.0, 48.0
    end = int(seals["next"].max())
    said = []
    subtitle = "one block a seal, from its first offset to the next one's; colour: when it was made"
    with sheet(WIDTH, TOP + key + lane * len(partitions) + bottom, title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP + key, bottom=bottom)
        axes.set(xlim=(0, end * 1.005), ylim=(len(partitions), 0), yticks=[])
        axes.tick_params(length=0, pad=7)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("offset in the topic's partition", labelpad=6)
        for index, partition in enumerate(partitions):
            chain = seals[seals["partition"] == partition].sort_values("first")
            reached = 0
            for row in chain.to_dict("records"):
                is_fork = row["first"] != reached
                reached = max(reached, row["next"])
                axes.add_patch(
                    Rectangle(
                        (row["first"], index + 0.16), row["next"] - row["first"], 0.68, lw=1.2, zorder=3,
                        fc=BAD if is_fork else tint(colours[row["when"]], 0.55), ec=PAPER,
                    )
                )  # fmt: skip
            note = f"{len(chain):,} seal{'s' * (len(chain) != 1)}"
            beside(axes, index + 0.5, f"partition {partition}", f"{note}, to {reached:,}", INK, INK, right)
            said.append(f"partition {partition}: {note}, up to offset {reached:,}")
        sizes = [text_width(word, TEXT_PT, bold=True) + 34 for word in words]
        for word, at in zip(words, apart([0.0] * len(words), sizes, 0, WIDTH - left - 24), strict=True):
            x = at / (WIDTH - left - right)
            axes.text(x, 1.05, f"■ {word}", transform=axes.transAxes, fontsize=TEXT_PT, weight="bold",
                      color=readable(colours[word]))  # fmt: skip
        return picture(figure, f"{title}. {'; '.join(said)}; seals made {', '.join(words)}.")


# -- a proof


def merkle_path(proof: Mapping[str, Any], *, title: str = "A proof, step by step") -> Picture:
    """From a record's hash to the root of its seal, from seal to seal to the one that an anchor names.

    Args:
        proof: as `showcase audit prove` prints it.
    """
    steps, chain = proof["path"], proof["chain"]
    neighbours = [(side, bytes.fromhex(neighbour)) for side, neighbour in steps]
    left, right, row, bottom = 24.0, 24.0, 62.0, 104.0
    columns = len(steps) + 1
    column = (WIDTH - left - right) / columns
    subtitle = (
        f"blue: computed from the record; grey: given, {len(steps)} hashes for one of {chain[0]['count']:,} records"
    )
    with sheet(WIDTH, TOP + 3 * row + 40 + bottom, title, subtitle) as figure:
        axes = plot(figure, left=left, right=right, top=TOP, bottom=bottom + 40)
        axes.set(xlim=(0, columns), ylim=(3, 0))
        axes.set_axis_off()
        for number, (side, neighbour) in enumerate(steps):
            y = 0.5 if side == "left" else 2.5
            axes.plot((number + 0.5, number + 1.5), (1.5, 1.5), color=POSTGRES, lw=2.4, zorder=1)
            axes.plot((number + 0.5, number + 1.5), (y, 1.5), color=QUIET, lw=1.6, zorder=1)
            _hash(axes, number + 0.5, y, str(neighbour), QUIET, column, row)
        _hash(axes, 0.5, 1.5, str(proof["leaf"]), POSTGRES, column, row, "the record")
        for number in range(1, columns - 1):
            digits = climbed(bytes.fromhex(proof["leaf"]), neighbours[:number]).hex()
            _hash(axes, number + 0.5, 1.5, digits, POSTGRES, column, row)
        if steps:
            _hash(axes, columns - 0.5, 1.5, str(chain[0]["root"]), GOOD, column, row, "the root")
        _chain(plot(figure, left=left, right=right, top=TOP + 3 * row + 40, bottom=16), proof)
        return picture(
            figure,
            f"{title}. {len(steps)} hashes lead from the record's own to the root of its seal, which has "
            f"{chain[0]['count']:,} records; {len(chain)} seals lead to the one that the signed anchor names.",
        )


def _hash(axes: Axes, x: float, y: float, digits: str, colour: str, column: float, row: float, name: str = "") -> None:
    width = min(0.86, 86 / column)
    axes.add_patch(
        FancyBboxPatch(
            (x - width / 2, y - 0.26), width, 0.52, boxstyle="round,pad=0,rounding_size=0.07", ec=colour, lw=2.0,
            fc=tint(colour, 0.16), zorder=3, mutation_aspect=column / row,
        )
    )  # fmt: skip
    shown = digits[:SHOWN]
    size = min(TEXT_PT, TEXT_PT * (width * column - 10) / max(1.0, text_width("0" * SHOWN, TEXT_PT)))
    axes.text(x, y + 0.02, shown, ha="center", va="center_baseline", fontsize=size, weight="bold", color=INK, zorder=4)
    if name:
        axes.text(x, y - 0.5, name, ha="center", va="center_baseline", fontsize=TEXT_PT, weight="bold",
                  color=readable(colour), bbox={"fc": PAPER, "ec": "none", "pad": 2}, zorder=5)  # fmt: skip


def _chain(axes: Axes, proof: Mapping[str, Any]) -> None:
    """The seals, as many as there is room for, and the anchor."""
    chain = proof["chain"]
    seals: Sequence[Mapping[str, Any] | None] = chain
    if len(chain) > SEALS_SHOWN:
        seals = [*chain[: SEALS_SHOWN - 2], None, chain[-1]]
    boxes: list[tuple[str, str, str]] = []
    for seal in seals:
        if seal is None:
            boxes.append(("…", f"{len(chain) - SEALS_SHOWN + 1:,} more", QUIET))
        else:
            root = f"root {seal['root'][:SHOWN]}" if not boxes else f"after {seal['previous'][:SHOWN]}"
            boxes.append((f"seal {seal['first']:,} to {seal['next']:,}", root, GOOD if not boxes else MONGO))
    boxes.append(("anchor", f"signed, key {proof['anchor']['key_id'][:SHOWN]}", ANCHOR))
    axes.set(xlim=(0, len(boxes)), ylim=(1, 0))
    axes.set_axis_off()
    column = (WIDTH - 48) / len(boxes)
    for index, (name, note, colour) in enumerate(boxes):
        if index:
            axes.plot((index - 0.06, index + 0.06), (0.5, 0.5), color=INK, lw=2.4, zorder=2)
        axes.add_patch(
            FancyBboxPatch(
                (index + 0.06, 0.1), 0.88, 0.8, boxstyle="round,pad=0,rounding_size=0.05", ec=colour, lw=2.0,
                fc=tint(colour, 0.16), zorder=3, mutation_aspect=column / 88,
            )
        )  # fmt: skip
        room = column * 0.88 - 14
        for text, y, size, weight in ((name, 0.36, NAME_PT, "bold"), (note, 0.66, TEXT_PT, "normal")):
            fits = min(size, size * room / max(1.0, text_width(text, size, bold=weight == "bold")))
            axes.text(index + 0.5, y, text, ha="center", va="center_baseline", fontsize=fits, weight=weight,
                      color=INK, zorder=4)  # fmt: skip


# -- what verifying says


def verdicts(attacks: pd.DataFrame, *, title: str = "What the intruder did, and what verifying says first") -> Picture:
    """One row an attack: by what it is caught, and under which name.

    Args:
        attacks: one row an attack: `attack`, `first` (the kind of the first finding; empty if nothing was found),
            `by` (what gave it away), `names_it` (whether the very record is named).

    Raises ValueError for a column that is missing.
    """
    require("attacks", attacks, "attack", "first", "by", "names_it")
    if attacks.empty:
        return nothing(title)
    row, head = 46.0, 40.0
    columns = ((0.0, "root on MongoDB …"), (0.44, "given away by"), (0.68, "what is said first"))
    said = []
    subtitle = "each attack by itself, on the real store; the first finding of showcase audit verify"
    with sheet(WIDTH, TOP + head + row * len(attacks) + 16, title, subtitle) as figure:
        axes = plot(figure, left=24, right=24, top=TOP, bottom=16)
        axes.set(xlim=(0, 1), ylim=(head + row * len(attacks), 0))
        axes.set_axis_off()
        for x, name in columns:
            axes.text(x + 0.012, head - 14, name, va="bottom", fontsize=SMALL_PT + 1, color=QUIET, weight="bold")
        for index, one in enumerate(attacks.to_dict("records")):
            y = head + index * row
            found = str(one["first"])
            colour = GOOD if found else BAD
            text = f"✓ {found}" + (", by its id" if one["names_it"] else "") if found else "✗ nothing"
            axes.axhline(y, color="#E9EBEC", lw=1)
            axes.fill_between((columns[2][0], 1), y + 5, y + row - 5, color=tint(colour, 0.2), lw=0)
            for (x, _), words, shade, room in zip(
                columns, (str(one["attack"]), str(one["by"]), text), (INK, INK, readable(colour)),
                (0.43, 0.23, 0.31), strict=True,
            ):  # fmt: skip
                weight = "normal" if x == columns[1][0] else "bold"
                axes.text(x + 0.012, y + row / 2, shortened(words, room * (WIDTH - 48), NAME_PT, bold=weight == "bold"),
                          va="center_baseline", fontsize=NAME_PT, weight=weight, color=shade)  # fmt: skip
            said.append(f"{one['attack']}: {found or 'nothing is found'}, by {one['by']}")
        return picture(figure, f"{title}. {'; '.join(said)}.")
