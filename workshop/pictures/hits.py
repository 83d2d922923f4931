"""What a cache of some size could win: how skewed the reads are, and how many of them each policy would answer."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workshop.pictures.frames import require
from workshop.pictures.style import (
    INK,
    NAME_PT,
    QUIET,
    SERIES,
    SYSTEM,
    TEXT_PT,
    Picture,
    apart,
    nothing,
    picture,
    plot,
    readable,
    sheet,
    tint,
)

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 960.0, 440.0, 76.0, 204.0, 84.0, 58.0
POINTS = 300
COLOURS: Mapping[str, str] = {
    "Belády's optimum": INK,
    "W-TinyLFU": SERIES[2],
    "LFU": SERIES[3],
    "LRU": SERIES[0],
    "our near cache": SYSTEM["redis"],
}
"""Each policy's line; the last one is drawn as rings, since it is to lie on another."""


def best_sellers(product_ids: Sequence[int], marks: Sequence[int] = (10, 100, 1_000)) -> Picture:
    """Which share of all reads the most read products have, the most read first.

    Args:
        product_ids: of each read.
        marks: ranks whose share is told.
    """
    title = "A few products have many of the reads, many have few"
    counts = pd.Series(product_ids).value_counts().to_numpy()
    if not len(counts):
        return nothing(title)
    shares = np.cumsum(counts) / counts.sum()
    once = int((counts == 1).sum())
    subtitle = f"{counts.sum():,} reads of {len(counts):,} products; {once:,} of them were read once only"
    with sheet(WIDTH, HEIGHT, title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=60, top=TOP, bottom=BOTTOM)
        _shares(axes, 1, len(counts), "of the most read products, so many (logarithmic)")
        drawn = np.unique(np.geomspace(1, len(counts), POINTS).round().astype(int))  # a screen has no room for more
        axes.fill_between(drawn, shares[drawn - 1], color=tint(SERIES[0], 0.2), lw=0)
        axes.plot(drawn, shares[drawn - 1], color=SERIES[0], lw=3.2, clip_on=False)
        said = []
        for rank in (*(mark for mark in marks if mark < len(counts)), len(counts)):
            share = float(shares[rank - 1])
            words = f"the first {rank:,}: {share:.0%}" if rank < len(counts) else f"all {rank:,}"
            axes.plot([rank], [share], "o", color=SERIES[0], ms=10, clip_on=False, zorder=4)
            axes.annotate(
                words, (rank, share), (-12, 8), textcoords="offset points", ha="right", va="bottom", size=NAME_PT,
                weight="bold", color=readable(SERIES[0]), annotation_clip=False,
            )  # fmt: skip
            said.append(words)
        return picture(figure, f"{title}. {subtitle}. Share of the reads: {', '.join(said)}.")


def hit_ratios(ratios: pd.DataFrame, ceiling: float, *, title: str = "Hit ratio by room and policy") -> Picture:
    """A line a policy over the number of entries that there is room for.

    Args:
        ratios: the columns policy (of COLOURS), size, ratio.
        ceiling: what no cache can pass, since somebody reads each product first.

    Raises ValueError for a policy that has no colour.
    """
    require("ratios", ratios, "policy", "size", "ratio")
    if unknown := sorted(set(ratios["policy"]) - set(COLOURS)):
        raise ValueError(f"ratios: no policy is called {', '.join(unknown)}; there are {', '.join(COLOURS)}")
    if ratios.empty:
        return nothing(title)
    present = [policy for policy in COLOURS if (ratios["policy"] == policy).any()]
    low, high = int(ratios["size"].min()), int(ratios["size"].max())
    with sheet(WIDTH, HEIGHT, title, "which share of the reads is answered, from an empty cache on") as figure:
        axes = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
        _shares(axes, low, high, "room for so many entries (logarithmic)")
        axes.set(xlim=(0.85 * low, high), ylim=(0, 1.12 * ceiling), xticks=sorted(set(ratios["size"])))
        axes.xaxis.set_major_formatter(lambda size, _: f"{size:,.0f}")
        axes.minorticks_off()
        axes.axhline(ceiling, color=QUIET, lw=1.4, ls=(0, (4, 3)))
        axes.annotate(
            f"{ceiling:.1%}: the first read of a product is a miss", (low, ceiling), (4, 6), size=TEXT_PT, color=QUIET,
            textcoords="offset points",
        )  # fmt: skip
        for policy in present:
            of_policy = ratios[ratios["policy"] == policy].sort_values("size")
            rings = {"ls": "", "marker": "o", "ms": 13, "mfc": "none", "mew": 2.4, "zorder": 4}
            style = rings if policy == list(COLOURS)[-1] else {"lw": 3.0}
            axes.plot(of_policy["size"], of_policy["ratio"], color=COLOURS[policy], clip_on=False, **style)
        _names(axes, ratios, present)
        said = "; ".join(_told(policy, ratios[ratios["policy"] == policy]) for policy in present)
        return picture(figure, f"{title}, of at most {ceiling:.1%}. {said}.")


def _shares(axes: Axes, low: float, high: float, label: str) -> None:
    axes.set(xscale="log", xlim=(low, high), ylim=(0, 1.06))
    axes.yaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.xaxis.set_major_formatter(lambda rank, _: f"{rank:,.0f}")
    axes.set_xlabel(label, labelpad=6)
    axes.tick_params(which="both", length=0, pad=7)
    axes.grid(color="#E9EBEC", lw=1)
    axes.set_axisbelow(True)
    axes.spines["left"].set_visible(False)


def _names(axes: Axes, ratios: pd.DataFrame, present: Sequence[str]) -> None:
    """Each line's name in the colour of the line, in the room to the right, in the order of a column in the middle."""
    sizes = sorted(set(ratios["size"]))
    at = sizes[len(sizes) // 2]
    heights = {
        policy: float(ratios.loc[(ratios["policy"] == policy) & (ratios["size"] == at), "ratio"].iloc[0])
        for policy in present
    }
    room = HEIGHT - TOP - BOTTOM
    order = sorted(present, key=lambda policy: (heights[policy], -present.index(policy)))
    top = axes.get_ylim()[1]
    wanted = [heights[policy] / top * room for policy in order]
    for policy, start in zip(order, apart(wanted, [26.0] * len(order), 0, room), strict=True):
        axes.annotate(
            f"{policy} {heights[policy]:.0%}", (1, (start + 13) / room), (14, 0), xycoords="axes fraction",
            textcoords="offset points", va="center_baseline", size=NAME_PT, weight="bold",
            color=readable(COLOURS[policy]), annotation_clip=False,
        )  # fmt: skip
    axes.axvline(at, color=QUIET, lw=1.0, zorder=0)
    axes.annotate(
        f"figures at the right: with {at:,} entries", (at, 0), (6, 8), size=TEXT_PT, color=QUIET,
        textcoords="offset points",
    )  # fmt: skip


def _told(policy: str, of_policy: pd.DataFrame) -> str:
    points = zip(of_policy["size"], of_policy["ratio"], strict=True)
    return f"{policy}: {', '.join(f'{ratio:.1%} with {size:,}' for size, ratio in points)}"
