"""Faults under load, and what is counted afterwards.

Households send real baskets, each once, whether earlier ones were answered or not. In the middle something is broken
and, a moment later, mended. When all is quiet again, the books of shop, payment and stock are laid beside what the
households know. The counters are those of Jepsen's checker for queues (`total-queue`, jepsen.checker): what was
acknowledged must be there, what was not may be there, and what nobody has tried must not be there.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pandas as pd

from workshop.books import ORDERS, WORKERS, unfinished
from workshop.lab.checks import CheckFailed
from workshop.lab.lab import Lab
from workshop.lab.replay import Replay
from workshop.pictures.faults import Load

ACKNOWLEDGED = 201
QUIET_WITHIN = "120 s"
COUNTERS = (
    *("attempted", "acknowledged", "ok", "lost", "duplicated deliveries", "duplicated effects"),
    *("recovered", "unexpected"),
)
"""What `counters` gives.

- attempted: baskets that were sent; acknowledged: those that were answered with 201.
- ok: baskets that have come to their right end, once: packed and paid to the cent, or declined and not paid.
- lost: acknowledged, and not ok. recovered: not acknowledged, and ok all the same: the answer was lost, not the order.
- duplicated deliveries: messages that a consumer got although it had handled them.
- duplicated effects: orders or charges beyond the first of a basket. unexpected: those of baskets that nobody sent.
"""


@dataclass(slots=True)
class Fault:
    """Something that is broken in the middle of a load, and mended a while later.

    Args:
        breaks, mends: do it, and return when it is done.
        after_s: how long the load goes on before.
        lasts_s: how long nobody mends it.

    Attributes:
        broken_at, mended_at: when; None before.
    """

    name: str
    breaks: Callable[[], None]
    mends: Callable[[], None]
    after_s: float = 0.5
    lasts_s: float = 1.0
    broken_at: datetime | None = None
    mended_at: datetime | None = None
    _began_s: float | None = None

    def __call__(self, replay: Replay) -> None:
        """To be called now and then while the load goes on."""
        if self._began_s is None:
            self._began_s = time.monotonic()
        if self.broken_at is None and time.monotonic() - self._began_s >= self.after_s:
            self.broken_at = datetime.now(UTC)
            self.breaks()
        elif self.broken_at is not None and self.mended_at is None and self._lasted_s() >= self.lasts_s:
            self._mend()

    def finish(self) -> None:
        """What has not come yet when the load is over. Raises ValueError if nothing was broken."""
        if self.broken_at is None:
            raise ValueError(f"{self.name}: the load was over within {self.after_s:g} s, before anything was broken")
        if self.mended_at is None:
            time.sleep(max(0.0, self.lasts_s - self._lasted_s()))
            self._mend()

    def _mend(self) -> None:
        self.mends()
        self.mended_at = datetime.now(UTC)

    def _lasted_s(self) -> float:
        return (datetime.now(UTC) - self.broken_at).total_seconds() if self.broken_at else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Struck:
    """One load with its fault, and what came of it.

    Attributes:
        attempts: one row a basket: see `attempts`, and `sent_at`, `answered_at`.
        orders: one row an order of these baskets: see `books.ORDERS`.
    """

    fault: Fault
    attempts: pd.DataFrame
    orders: pd.DataFrame
    counters: Mapping[str, int]

    @property
    def load(self) -> Load:
        """As it is drawn: everything in seconds since the first basket was sent. Raises ValueError before the end."""
        broken_at, mended_at = self.fault.broken_at, self.fault.mended_at
        if broken_at is None or mended_at is None:
            raise ValueError(f"{self.fault.name}: it is not over")
        moments = pd.to_datetime(
            [broken_at, mended_at, back_at(self.attempts, self.orders, broken_at, mended_at)], utc=True
        )
        began_at = self.attempts.sent_at.min()
        broken_s, mended_s, back_s = ((moment - began_at).total_seconds() for moment in moments)

        def seconds(times: "pd.Series[pd.Timestamp]") -> list[float]:
            return [float(at_s) for at_s in (pd.to_datetime(times, utc=True) - began_at).dt.total_seconds()]

        return Load(
            sent=seconds(self.attempts.sent_at),
            acknowledged=seconds(self.attempts.answered_at[self.attempts.is_acknowledged]),
            done=seconds(self.orders.ended_at.dropna()),
            broken_s=broken_s,
            mended_s=mended_s,
            back_s=back_s,
        )


class Storm:
    """Loads with a fault each, one after the other.

    Args:
        shop: the client of the app processes that the baskets are sent to.
        rate: baskets a second.
        limit_cents: what payment declines is above it.

    Attributes:
        struck: what came of each, by the name of the fault.
    """

    def __init__(self, lab: Lab, shop: httpx.Client, *, rate: float, limit_cents: int) -> None:
        self._lab = lab
        self._shop = shop
        self._rate = rate
        self._limit_cents = limit_cents
        self.struck: dict[str, Struck] = {}

    def strike(self, lines: pd.DataFrame, fault: Fault) -> Mapping[str, int]:
        """Send some baskets, break something meanwhile, wait until all is quiet again, and count.

        Waits for quiet two minutes at the most. Raises whatever breaking and mending raise.
        """
        known = set(self._lab.sql("SELECT reference FROM orders").reference)
        again = deliveries_again(self._lab)
        sent = self._lab.replay(lines, self._rate, fault, to=self._shop, tries=1)
        fault.finish()
        with suppress(CheckFailed):  # what has not come to its end by then is lost, and counted so
            self._lab.until(lambda: not unfinished(self._lab), QUIET_WITHIN)
        found = self._lab.sql(ORDERS)
        orders = found[~found.reference.isin(known)].reset_index(drop=True)
        tried = attempts(lines, sent)
        counted = counters(tried, orders, self._limit_cents)
        counted["duplicated deliveries"] = deliveries_again(self._lab) - again
        self.struck[fault.name] = Struck(
            fault=fault, attempts=tried, orders=orders, counters={name: counted[name] for name in COUNTERS}
        )
        return self.struck[fault.name].counters

    def table(self) -> pd.DataFrame:
        """All counters: one row a fault."""
        return pd.DataFrame({name: one.counters for name, one in self.struck.items()}).T[list(COUNTERS)]

    def back_after_s(self) -> "pd.Series[float]":
        """How many seconds each fault was felt: until nothing of it was left; see `back_at`."""
        return pd.Series({name: load.back_s - load.broken_s for name, load in self.loads().items()})

    def loads(self) -> Mapping[str, Load]:
        """What `pictures.under_fire` draws."""
        return {name: one.load for name, one in self.struck.items()}


# -- counting


def attempts(lines: pd.DataFrame, sent: pd.DataFrame) -> pd.DataFrame:
    """What the households know: one row a basket, in the order in which they were sent.

    Args:
        lines: of the baskets, as the tills wrote them.
        sent: the answers, as `lab.replay` gives them.

    Returns basket_id, total_cents, pieces, is_acknowledged, sent_at, answered_at.
    """
    tills = lines.groupby("basket_id").agg(total_cents=("total_cents", "sum"), pieces=("quantity", "sum"))
    joined = sent.merge(tills, left_on="basket_id", right_index=True, how="left", validate="one_to_one")
    joined["is_acknowledged"] = joined.status == ACKNOWLEDGED
    return joined[["basket_id", "total_cents", "pieces", "is_acknowledged", "sent_at", "answered_at"]]


def counters(attempts: pd.DataFrame, orders: pd.DataFrame, limit_cents: int) -> dict[str, int]:
    """All `COUNTERS` but the duplicated deliveries, which are no matter of books.

    Args:
        attempts: what the households know; see above.
        orders: what the books say: one row an order, with the columns of `books.ORDERS`.
        limit_cents: a basket above it is to be declined.
    """
    books = orders.assign(basket_id=orders.reference.astype("int64"))
    whole = books.merge(attempts, on="basket_id", how="left", indicator="known")
    of_attempts = whole[whole.known == "both"]
    is_packed = (
        (of_attempts.status == "packed")
        & (of_attempts.total_cents <= limit_cents)
        & (of_attempts.charged_cents - of_attempts.refunded_cents == of_attempts.total_cents)
        & (of_attempts.picked == of_attempts.pieces)
    )
    is_declined = (
        (of_attempts.status == "refused")
        & (of_attempts.total_cents > limit_cents)
        & (of_attempts.charged_cents == of_attempts.refunded_cents)
        & (of_attempts.picked == 0)
    )
    ok = set(of_attempts.basket_id[is_packed | is_declined])
    acknowledged = set(attempts.basket_id[attempts.is_acknowledged])
    each = books.groupby("basket_id").agg(orders=("order_id", "size"), charges=("charges", "sum"))
    return {
        "attempted": len(attempts),
        "acknowledged": len(acknowledged),
        "ok": len(ok),
        "lost": len(acknowledged - ok),
        "duplicated effects": int((each.max(axis=1) - 1).clip(lower=0).sum()),
        "recovered": len(ok - acknowledged),
        "unexpected": int((whole.known == "left_only").sum()),
    }


def back_at(attempts: pd.DataFrame, orders: pd.DataFrame, broken_at: datetime, mended_at: datetime) -> datetime:
    """When nothing of a fault was left: whatever was sent before it was mended has ended, or was refused.

    Args:
        attempts: with `is_acknowledged` and `answered_at`.
        orders: with `placed_at` and `ended_at`; those that have not ended are left out.
    """
    refused = attempts.answered_at[~attempts.is_acknowledged]
    ended = orders.ended_at[orders.placed_at <= mended_at].dropna()
    moments: list[datetime] = [broken_at, *refused, *ended]
    return max(moments)


def deliveries_again(lab: Lab) -> int:
    """How many messages consumers have got, since they began, that they had handled before."""
    logs = [lab.log(name) for name in WORKERS]
    return sum(int(log.loc[log.event == "came again", "messages"].sum()) for log in logs if "messages" in log)
