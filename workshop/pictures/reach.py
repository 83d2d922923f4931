"""A raster: which order reached which system."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from numpy.typing import NDArray

from workshop.pictures.frames import known_lanes, require
from workshop.pictures.style import (
    LANES,
    MEANING,
    QUIET,
    RULE,
    SYSTEM,
    TEXT_PT,
    Picture,
    beside,
    nothing,
    picture,
    plot,
    readable,
    sheet,
)

WIDTH, LEFT, RIGHT, TOP, BOTTOM, LANE = 960.0, 130.0, 150.0, 76.0, 52.0, 42.0
COLUMNS = 120
"""More orders than these share columns; a column is then filled as far as its orders got there."""


def where_orders_have_been(matrix: pd.DataFrame, *, title: str = "Where the orders have been") -> Picture:
    """One lane a system, one column an order: coloured where the order reached the system.

    Args:
        matrix: index: the orders, in the order in which they are drawn; columns: systems (names in LANES);
            values: whether the order reached the system.

    Raises:
        ValueError: a system is unknown or named twice, an order is listed twice, or a value is no yes or no.
    """
    lanes = known_lanes("matrix", matrix.columns)
    if len(lanes) < len(matrix.columns):
        raise ValueError("matrix: a column is named twice")
    if matrix.index.has_duplicates:
        raise ValueError(f"matrix: order {matrix.index[matrix.index.duplicated()][0]} is listed twice")
    require("matrix", matrix, *lanes)
    for lane in lanes:
        if not matrix[lane].isin([True, False]).all():
            raise ValueError(f"matrix: column {lane!r} has a value that is no yes or no")
    if matrix.empty:
        return nothing(title)
    orders = len(matrix)
    shared = -(-orders // COLUMNS)
    subtitle = f"{orders:,} order{'s' * (orders > 1)}, " + (
        "one column each" if shared == 1 else f"{shared} to a column, filled as far as they got there"
    )
    said = []
    with sheet(WIDTH, TOP + BOTTOM + LANE * len(lanes), title, subtitle) as figure:
        axes = plot(figure, left=LEFT, right=RIGHT, top=TOP, bottom=BOTTOM)
        columns = -(-orders // shared)
        axes.set(xlim=(0, columns), ylim=(len(lanes), 0))
        axes.set_axis_off()
        for index, lane in enumerate(lanes):
            name, colour = LANES[lane][0], SYSTEM[LANES[lane][1]]
            reached = matrix[lane].to_numpy(dtype=bool)
            counts = np.add.reduceat(reached, np.arange(0, orders, shared), dtype=int)
            sizes = np.add.reduceat(np.ones(orders, dtype=int), np.arange(0, orders, shared))
            _bars(axes, index, np.where(counts < sizes, 1.0, 0.0), RULE)
            _bars(axes, index, counts / sizes, colour)
            total = int(reached.sum())
            missing = total < orders
            text = f"{'✗' if missing else '✓'} {total:,} of {orders:,}"
            shade = MEANING["failed"] if missing else readable(MEANING["ok"])
            beside(axes, index + 0.5, name, text, readable(colour), shade, RIGHT)
            said.append(f"{name} {total:,} of {orders:,}")
        axes.text(0, len(lanes) + 0.25, "first order →", va="top", fontsize=TEXT_PT, color=QUIET)
        return picture(figure, f"{title}. {subtitle}. Reached: {', '.join(said)}.")


def _bars(axes: Axes, lane: int, shares: NDArray[np.float64], colour: str) -> None:
    """In each column of a lane, a bar of this share of the lane's height; one path for all of them."""
    low = lane + 0.88
    corners = [
        [(x + 0.08, low), (x + 0.92, low), (x + 0.92, low - 0.76 * share), (x + 0.08, low - 0.76 * share), (x, low)]
        for x, share in enumerate(shares)
        if share > 0
    ]
    if corners:
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(corners)
        axes.add_patch(PathPatch(Path(np.concatenate(corners), codes), fc=colour, lw=0, clip_on=False))
