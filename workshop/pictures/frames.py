"""What a picture asks of the frame it draws: said at once and by column, instead of somewhere inside a plot."""

from collections.abc import Iterable

import pandas as pd

from workshop.pictures.style import LANES


def require(what: str, frame: pd.DataFrame, *columns: str) -> None:
    """Raises ValueError for a column that is missing, or in which a value is."""
    if missing := [column for column in columns if column not in frame.columns]:
        raise ValueError(f"{what}: no column {missing[0]!r}; columns: {', '.join(map(str, frame.columns))}")
    for column in columns:
        if frame[column].isna().any():
            raise ValueError(f"{what}: column {column!r} has a row without a value")


def known_lanes(what: str, systems: Iterable[object]) -> list[str]:
    """The systems among these, in the story's order. Raises ValueError for one that is not in LANES."""
    seen = set(systems)
    if unknown := sorted(str(system) for system in seen.difference(LANES)):
        raise ValueError(f"{what}: no system is called {', '.join(unknown)}; systems: {', '.join(LANES)}")
    return [lane for lane in LANES if lane in seen]


def milliseconds(what: str, column: str, at: "pd.Series[pd.Timestamp]") -> "pd.Series[float]":
    """Milliseconds since the earliest of these moments. Raises ValueError for one without a time zone."""
    if not isinstance(at.dtype, pd.DatetimeTZDtype) and any(getattr(moment, "tzinfo", None) is None for moment in at):
        raise ValueError(f"{what}: column {column!r} must hold datetimes with a time zone")
    moments = pd.to_datetime(at, utc=True)
    return (moments - moments.min()) / pd.Timedelta(milliseconds=1)


def duration(milliseconds: float) -> str:
    """A duration as people say it: 0 ms, 3.2 ms, 182 ms, 1,234 ms, 12.3 s."""
    if milliseconds >= 10_000:
        return f"{milliseconds / 1000:,.1f} s"
    return f"{milliseconds:.1f} ms" if 0 < milliseconds < 9.95 else f"{milliseconds:,.0f} ms"
