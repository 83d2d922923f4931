"""Which lines of the tills can be ordered: pandas, a plain rule written from docs/data.md, and the domain agree."""

from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal

import pandas as pd
import pytest

from showcase.shop import catalogue
from showcase.shop.domain import MAX_LINES, BadQuantity, BadTotal, Line, ProductId
from workshop import baskets
from workshop.baskets import BAD_TOTAL, KEPT, TOO_FEW, TOO_MANY, UNKNOWN

SAMPLE = 100_000


@pytest.fixture(scope="module")
def year() -> pd.DataFrame:
    """All lines there are."""
    return baskets.read(datetime(2017, 1, 1), datetime(2018, 1, 2))


@pytest.fixture(scope="module")
def tills() -> pd.DataFrame:
    """The same as they lie in the package, read without the code under test; they are by time and basket already."""
    return pd.read_parquet(catalogue.data_file("transactions"))


@pytest.fixture(scope="module")
def known() -> set[int]:
    return set(pd.read_parquet(catalogue.data_file("products")).product_id.tolist())


def plain_rule(product_id: int, quantity: int, dollars: float, known: set[int]) -> str:
    """The rules of docs/data.md for one line, word by word."""
    if quantity < 1:
        return TOO_FEW
    if quantity > 1_000:
        return TOO_MANY
    if product_id not in known:
        return UNKNOWN
    if not Decimal(0) <= plain_cents(dollars) <= Decimal(1_000_000):
        return BAD_TOTAL
    return KEPT


def plain_cents(dollars: float) -> Decimal:
    return (Decimal(str(dollars)) * 100).quantize(Decimal(1), ROUND_HALF_UP)


def domain_accepts(product_id: int, quantity: int, total_cents: int) -> bool:
    try:
        Line(product_id=ProductId(product_id), quantity=quantity, total_cents=total_cents)
    except (BadQuantity, BadTotal):
        return False
    return True


def test_every_line_of_the_year_is_read_as_it_is(year: pd.DataFrame, tills: pd.DataFrame) -> None:
    assert len(year) == 1_469_307
    for column in ("household_id", "basket_id", "product_id", "quantity"):
        assert (year[column] == tills[column]).all()
    assert (year["at"].dt.tz_localize(None) == tills.transaction_timestamp).all()
    assert str(year["at"].dt.tz) == "UTC"
    assert {str(kind) for kind in year.drop(columns="at").dtypes} == {"int64"}


def test_totals_are_the_tills_own_digits_in_whole_cents(year: pd.DataFrame, tills: pd.DataFrame) -> None:
    prices = {dollars: int(plain_cents(dollars)) for dollars in set(tills.sales_value.tolist())}
    assert (year.total_cents == tills.sales_value.map(prices)).all()


@pytest.mark.parametrize(("dollars", "cents"), [(1.005, 101), (2.675, 268), (0.125, 13), (4.35, 435), (8.9e-16, 0)])
def test_half_a_cent_is_rounded_up_as_the_digits_say_and_not_the_float(dollars: float, cents: int) -> None:
    assert baskets.cents(dollars) == cents


def test_the_rule_for_frames_the_plain_rule_and_the_domain_agree(
    year: pd.DataFrame, tills: pd.DataFrame, known: set[int]
) -> None:
    broken = pd.Series(baskets.broken_rules(year))
    odd = (tills.quantity < 1) | (tills.quantity > 100) | ~tills.product_id.isin(known) | (tills.sales_value <= 0)
    chosen = tills[odd].index.union(tills.sample(SAMPLE, random_state=1).index).union(broken[broken != KEPT].index)
    some = tills.loc[chosen]
    each = zip(some.product_id.tolist(), some.quantity.tolist(), some.sales_value.tolist(), strict=True)
    assert [plain_rule(*line, known) for line in each] == broken[chosen].tolist()

    cents = year.total_cents[chosen].tolist()
    each = zip(some.product_id.tolist(), some.quantity.tolist(), cents, strict=True)
    by_itself = {KEPT, UNKNOWN}  # a line does not know the catalogue
    assert [domain_accepts(*line) for line in each] == [rule in by_itself for rule in broken[chosen]]


def test_what_the_rules_leave_out_of_the_year(year: pd.DataFrame) -> None:
    cleaned = baskets.clean(year)
    assert cleaned.dropped == {TOO_FEW: 8_869, TOO_MANY: 13_494, UNKNOWN: 32, BAD_TOTAL: 0}
    assert cleaned.baskets_dropped == 13_356
    assert len(cleaned.lines) == len(year) - sum(cleaned.dropped.values()) == 1_446_912
    assert cleaned.lines.basket_id.nunique() == 142_492
    assert cleaned.lines.total_cents.sum() == 423_178_084


def test_what_the_rules_leave_out_of_the_standard_day() -> None:
    raw, cleaned = baskets.lines(), baskets.load()
    assert (len(raw), raw.basket_id.nunique()) == (7_110, 606)
    assert cleaned.dropped == {TOO_FEW: 45, TOO_MANY: 48, UNKNOWN: 1, BAD_TOTAL: 0}
    assert cleaned.baskets_dropped == 48
    assert (len(cleaned.lines), cleaned.lines.basket_id.nunique()) == (7_016, 558)
    assert cleaned.lines.total_cents.sum() == 2_366_817


def test_no_basket_has_more_lines_than_an_order_may(year: pd.DataFrame) -> None:
    assert year.groupby("basket_id").size().max() <= MAX_LINES


def test_a_line_that_breaks_several_rules_counts_under_the_first(known: set[int]) -> None:
    product, stranger = min(known), -1
    lines = [  # product, quantity, cents
        (product, 0, -1),
        (stranger, 0, 100),
        (stranger, 1_001, -1),
        (stranger, 1, -1),
        (product, 1, -1),
        (product, 1, 1_000_001),
        (product, 1, 0),
        (product, 1_000, 1_000_000),
    ]
    raw = pd.DataFrame(lines, columns=["product_id", "quantity", "total_cents"]).assign(
        basket_id=[1, 1, 1, 1, 2, 2, 2, 3]
    )
    cleaned = baskets.clean(raw)
    assert cleaned.dropped == {TOO_FEW: 2, TOO_MANY: 1, UNKNOWN: 1, BAD_TOTAL: 2}
    assert cleaned.lines.values.tolist() == [[product, 1, 0, 2], [product, 1_000, 1_000_000, 3]]
    assert cleaned.baskets_dropped == 1


@pytest.mark.parametrize("limit", [0, 1, 2, 7, 100, 557])
def test_a_limit_counts_the_baskets_that_remain(limit: int) -> None:
    whole, some = baskets.load(), baskets.load(limit=limit)
    first = whole.lines.basket_id.unique()[:limit]
    assert some.lines.equals(whole.lines[whole.lines.basket_id.isin(first)])
    day, raw = baskets.lines(), baskets.lines(limit=limit)
    assert raw.equals(day[: len(raw)])
    assert set(raw.basket_id).isdisjoint(day.basket_id[len(raw) :])  # none is cut


@pytest.mark.parametrize("limit", [None, 558, 10_000])
def test_a_limit_beyond_the_day_is_the_whole_day(limit: int | None) -> None:
    assert len(baskets.lines(limit=limit)) == 7_110


def test_lines_are_in_the_order_in_which_they_were_paid() -> None:
    raw = baskets.lines()
    assert raw.equals(raw.sort_values(["at", "basket_id"], kind="stable"))
    assert (raw["at"].min().date(), raw["at"].max().date()) == (datetime(2017, 12, 23).date(),) * 2


@pytest.mark.parametrize("day", ["2016-12-31", "2018-01-02", "tomorrow"])
def test_a_day_without_baskets_is_refused(day: str) -> None:
    with pytest.raises(ValueError):
        baskets.lines(day)


def test_a_limit_below_none_is_refused() -> None:
    with pytest.raises(ValueError, match="less than none"):
        baskets.lines(limit=-1)
