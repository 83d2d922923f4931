"""Faults under load: each counter counts what it says, and a fault comes and goes when it should."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from workshop.chaos import Fault, Struck, attempts, back_at, counters
from workshop.lab.replay import Replay
from workshop.stack.local.folder import Folder
from workshop.stack.local.rabbitmq import queues_on_disk

LIMIT_CENTS = 1_000
START = datetime(2017, 12, 23, 9, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def lines(**totals: int) -> pd.DataFrame:
    """Baskets `b1=500`, of two lines and three pieces each."""
    rows = [
        {"basket_id": int(name[1:]), "total_cents": part, "quantity": pieces}
        for name, total in totals.items()
        for part, pieces in ((total - 1, 1), (1, 2))
    ]
    return pd.DataFrame(rows)


def tried(statuses: dict[int, int], **totals: int) -> pd.DataFrame:
    sent = pd.DataFrame(
        [
            {"basket_id": basket, "status": status, "sent_at": at(basket), "answered_at": at(basket + 0.1)}
            for basket, status in statuses.items()
        ]
    )
    return attempts(lines(**totals), sent)


def order(basket: int, status: str = "packed", charges: int = 1, **books: object) -> dict[str, object]:
    cents = 500 if charges else 0
    row = {
        "order_id": f"order-{basket}-{books.pop('copy', 1)}",
        "reference": str(basket),
        "status": status,
        "charges": charges,
        "charged_cents": cents * charges,
        "refunded_cents": 0,
        "picked": 3 if status == "packed" else 0,
        "placed_at": at(basket),
        "ended_at": at(basket + 1),
    }
    return row | books


def counted(tries: pd.DataFrame, *orders: dict[str, object]) -> dict[str, int]:
    frame = pd.DataFrame(list(orders), columns=list(order(1)))
    return {name: number for name, number in counters(tries, frame, LIMIT_CENTS).items() if number}


def test_what_the_households_know_is_of_the_tills_and_of_the_answers() -> None:
    known = tried({1: 201, 2: 503}, b1=500, b2=700)
    assert known.total_cents.tolist() == [500, 700]
    assert known.pieces.tolist() == [3, 3]
    assert known.is_acknowledged.tolist() == [True, False]


def test_a_basket_that_was_packed_and_paid_once_is_ok() -> None:
    assert counted(tried({1: 201}, b1=500), order(1)) == {"attempted": 1, "acknowledged": 1, "ok": 1}


def test_a_basket_that_is_too_dear_is_ok_when_it_was_refused_and_not_paid() -> None:
    known = tried({1: 201}, b1=1_001)
    assert counted(known, order(1, "refused", charges=0)) == {"attempted": 1, "acknowledged": 1, "ok": 1}


WRONG: dict[str, dict[str, object]] = {
    "not ended": order(1, "paid"),
    "refused for no reason": order(1, "refused", charges=0),
    "packed and not paid": order(1, charges=0),
    "a cent too much": order(1, charged_cents=501),
    "packed, and the money back": order(1, refunded_cents=500),
    "a piece is missing": order(1, picked=2),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_was_acknowledged_and_did_not_come_out_right_is_lost(what: str) -> None:
    assert counted(tried({1: 201}, b1=500), WRONG[what]) == {"attempted": 1, "acknowledged": 1, "lost": 1}


def test_what_was_acknowledged_and_is_in_no_book_is_lost() -> None:
    assert counted(tried({1: 201}, b1=500)) == {"attempted": 1, "acknowledged": 1, "lost": 1}


def test_a_dear_basket_that_was_packed_is_lost() -> None:
    dear = order(1, charged_cents=1_001)
    assert counted(tried({1: 201}, b1=1_001), dear) == {"attempted": 1, "acknowledged": 1, "lost": 1}


def test_what_was_not_acknowledged_may_have_happened_or_not() -> None:
    known = tried({1: 503, 2: 0}, b1=500, b2=500)
    assert counted(known, order(2)) == {"attempted": 2, "ok": 1, "recovered": 1}


TWICE: dict[str, tuple[dict[str, object], ...]] = {
    "two orders": (order(1), order(1, copy=2)),
    "two charges of one order, one of them paid back": (order(1, charges=2, refunded_cents=500),),
}


@pytest.mark.parametrize("what", TWICE)
def test_what_happened_twice_is_counted(what: str) -> None:
    known = tried({1: 201}, b1=500)
    assert counted(known, *TWICE[what]) == {"attempted": 1, "acknowledged": 1, "ok": 1, "duplicated effects": 1}


def test_an_order_that_nobody_has_sent_is_unexpected() -> None:
    assert counted(tried({1: 503}, b1=500), order(2)) == {"attempted": 1, "unexpected": 1}


BOOKS = pd.DataFrame([order(1), order(2, ended_at=at(9)), order(7, ended_at=at(20))])


@pytest.mark.parametrize(
    ("statuses", "seconds"),
    [({1: 201}, 9.0), ({1: 201, 11: 503}, 11.1)],
    ids=["until the last of the orders before it was mended has ended", "until nobody is refused"],
)
def test_a_fault_is_felt(statuses: dict[int, int], seconds: float) -> None:
    known = tried(statuses, **{f"b{basket}": 500 for basket in statuses})
    assert back_at(known, BOOKS, at(3), at(5)) == at(seconds)


def test_an_order_that_never_ended_is_no_time_and_is_not_drawn() -> None:
    books = pd.concat([BOOKS[:1], pd.DataFrame([order(2, "placed", ended_at=pd.NaT)])])
    one = fault([])
    one.broken_at, one.mended_at = at(3), at(5)
    load = Struck(fault=one, attempts=tried({1: 201}, b1=500), orders=books, counters={}).load
    assert (load.done, load.back_s) == ([1], 2)


def test_a_fault_that_nobody_has_felt_is_over_when_it_began() -> None:
    assert back_at(tried({1: 201}, b1=500), BOOKS[:0], at(3), at(5)) == at(3)


# -- breaking and mending


def fault(done: list[str], after_s: float = 0, lasts_s: float = 0) -> Fault:
    said: Callable[[str], Callable[[], None]] = lambda what: lambda: done.append(what)  # noqa: E731
    return Fault("killed", said("broken"), said("mended"), after_s, lasts_s)


def test_a_fault_comes_in_the_middle_and_is_mended_later_each_once() -> None:
    done: list[str] = []
    one = fault(done)
    for _ in range(4):
        one(Replay(1))
    one.finish()
    assert done == ["broken", "mended"]
    assert one.broken_at is not None
    assert one.mended_at is not None
    assert one.broken_at <= one.mended_at


def test_a_fault_waits_for_its_time_which_begins_with_the_load() -> None:
    done: list[str] = []
    one = fault(done, after_s=60)
    one(Replay(1))
    one(Replay(1))
    assert done == []


def test_what_is_broken_when_the_load_is_over_is_mended_not_before_its_time() -> None:
    done: list[str] = []
    one = fault(done, lasts_s=0.2)
    one(Replay(1))
    one(Replay(1))
    assert done == ["broken"]
    one.finish()
    assert done == ["broken", "mended"]
    assert one.broken_at is not None
    assert one.mended_at is not None
    assert one.mended_at - one.broken_at >= timedelta(seconds=0.2)


def test_a_load_that_was_over_before_anything_was_broken_is_refused() -> None:
    with pytest.raises(ValueError, match="before anything was broken"):
        fault([]).finish()


def test_a_struck_load_is_drawn_in_seconds_since_its_first_basket() -> None:
    one = fault([])
    one.broken_at, one.mended_at = at(3), at(5)
    known = tried({1: 201, 2: 201, 4: 503}, b1=500, b2=500, b4=500)
    load = Struck(fault=one, attempts=known, orders=BOOKS[:2], counters={}).load
    assert (load.sent, load.done) == ([0, 1, 3], [1, 8])
    assert load.acknowledged == pytest.approx([0.1, 1.1])
    assert (load.broken_s, load.mended_s, load.back_s) == (2, 4, 8)


# -- queues on disk


def test_a_quorum_queue_is_on_disk_when_the_list_of_them_names_it(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert not queues_on_disk(folder, ["payment"])
    place = folder.data("rabbitmq") / "mnesia" / "node" / "quorum" / "node"
    place.mkdir(parents=True)
    (place / "names.dets").write_bytes(b"\0ns_x_payment\0ns_x_stock\0")
    assert queues_on_disk(folder, ["payment", "stock"])
    assert not queues_on_disk(folder, ["payment", "shop"])
