"""Real baskets as pandas frames: the lines of a day as the tills wrote them, and those that an order can have.

The rules are those of `showcase.shop.domain`; docs/data.md tells why, and counts what they leave out. Here they are
applied to whole frames at once, so that a lesson can compare what the servers hold with a sum in pandas.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import numpy as np
import pandas as pd
from pyarrow import parquet

from showcase.shop import catalogue
from showcase.shop.domain import MAX_QUANTITY, MAX_TOTAL_CENTS, MIN_QUANTITY

DAY = "2017-12-23"
"""The standard load: 606 baskets of 7,110 lines, of which 558 baskets of 7,016 lines can be ordered."""

TOO_FEW = f"quantity below {MIN_QUANTITY:,}"
TOO_MANY = f"quantity above {MAX_QUANTITY:,}"
UNKNOWN = "product not in the catalogue"
BAD_TOTAL = f"total not in 0 to {MAX_TOTAL_CENTS:,} cents"
KEPT = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """Lines that orders can have, and what was left out.

    Attributes:
        lines: as from `lines`, fewer of them.
        dropped: how many lines each rule left out, every line under the first rule that it breaks.
        baskets_dropped: baskets of which no line remains.
    """

    lines: pd.DataFrame
    dropped: Mapping[str, int]
    baskets_dropped: int


def load(day: str = DAY, limit: int | None = None) -> Cleaned:
    """The baskets of a day that can be ordered, in the order in which they were paid.

    Args:
        day: of UTC, such as `2017-12-23`.
        limit: how many baskets; all by default, and all when there are fewer.

    Raises ValueError for a day that is none, or that the data has nothing of.
    """
    return clean(lines(day, limit))


def lines(day: str = DAY, limit: int | None = None) -> pd.DataFrame:
    """The lines of a day as the tills wrote them, by time and then basket.

    Args:
        day: of UTC.
        limit: stop when so many baskets are there *that remain after cleaning*; those between them are here as well.

    Returns the columns household_id, basket_id, product_id, quantity, total_cents (all int64) and at (UTC).
    Raises ValueError for a day that is none, or that the data has nothing of, and for a limit below 0.
    """
    start = datetime.combine(date.fromisoformat(day), datetime.min.time())
    raw = read(start, start + timedelta(days=1))
    if raw.empty:
        raise ValueError(f"no baskets on {day}: the data is of 2017-01-01 to 2018-01-01")
    if limit is None:
        return raw
    if limit < 0:
        raise ValueError(f"{limit} baskets are less than none")
    remain = raw.basket_id[broken_rules(raw) == KEPT].unique()
    if limit >= len(remain):
        return raw
    return raw[: int((raw.basket_id == remain[limit]).argmax())]  # up to the first one too many


def clean(raw: pd.DataFrame) -> Cleaned:
    """Leave out the lines that no order can have, and count them."""
    broken = broken_rules(raw)
    kept = raw[broken == KEPT].reset_index(drop=True)
    return Cleaned(
        lines=kept,
        dropped={rule: int((broken == rule).sum()) for rule in (TOO_FEW, TOO_MANY, UNKNOWN, BAD_TOTAL)},
        baskets_dropped=raw.basket_id.nunique() - kept.basket_id.nunique(),
    )


def broken_rules(raw: pd.DataFrame) -> np.ndarray:
    """The first rule that each line breaks, KEPT if none."""
    rules = {
        TOO_FEW: raw.quantity < MIN_QUANTITY,
        TOO_MANY: raw.quantity > MAX_QUANTITY,
        UNKNOWN: ~raw.product_id.isin(catalogue.products()["product_id"].to_numpy()),
        BAD_TOTAL: (raw.total_cents < 0) | (raw.total_cents > MAX_TOTAL_CENTS),
    }
    return np.select(list(rules.values()), list(rules), default=KEPT)


def read(start: datetime, end: datetime) -> pd.DataFrame:
    """The lines from one time to another, as from `lines`; times without a zone are UTC, as they are in the data."""
    names = ["household_id", "basket_id", "product_id", "quantity", "sales_value", "transaction_timestamp"]
    wanted = [("transaction_timestamp", ">=", start), ("transaction_timestamp", "<", end)]
    raw: pd.DataFrame = parquet.read_table(
        catalogue.data_file("transactions"), columns=names, filters=wanted
    ).to_pandas()
    raw = raw.sort_values(["transaction_timestamp", "basket_id"], kind="stable", ignore_index=True)
    places, values = pd.factorize(raw.pop("sales_value"))  # a day has far fewer prices than lines
    raw["total_cents"] = np.array([cents(value) for value in values.tolist()], dtype=np.int64)[places]
    raw["at"] = raw.pop("transaction_timestamp").dt.tz_localize("UTC")
    return raw


def cents(dollars: float) -> int:
    """What a till wrote, in whole cents, half a cent rounded up: exact, as the digits say and not the float."""
    return int((Decimal(str(dollars)) * 100).quantize(Decimal(1), ROUND_HALF_UP))
