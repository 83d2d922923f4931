"""What lesson 04 brings along: who is killed, what is told by hand, and what is measured."""

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from showcase.messaging.application.handlers import Handlers, Unhandleable
from showcase.services.payment import PlacedOrder
from workshop import telling
from workshop.naive.killing import worked_under_kills
from workshop.watching import rates

ORDER = {"order_id": "0199a5c0-0000-7000-8000-000000000001", "total_cents": 12}


def begin_and_end(book: Path, pieces: int) -> None:
    """Work that has two writes, and is slow between them."""
    done = len(book.read_text().splitlines()) if book.exists() else 0
    for _ in range(pieces - done // 2):
        for word in ("begun", "ended"):
            with book.open("a") as page:
                page.write(f"{word} {os.getpid()}\n")
            time.sleep(0.02)


def fail(book: Path) -> None:
    raise SystemExit(3)


def lines(book: Path) -> list[str]:
    return book.read_text().splitlines() if book.exists() else []


def test_work_is_killed_in_the_middle_as_often_as_is_said_and_comes_to_its_end(tmp_path: Path) -> None:
    book = tmp_path / "book"
    worked_under_kills(begin_and_end, book, 12, progress=lambda: len(lines(book)), kills=3, until=24)
    assert len({line.partition(" ")[2] for line in lines(book)}) == 4
    assert len(lines(book)) >= 23


def test_work_that_fails_by_itself_is_told(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="exit code 3"):
        worked_under_kills(fail, tmp_path, progress=lambda: 0, kills=0, until=1)


async def nothing(*_: object) -> None: ...


@pytest.mark.parametrize("fault", ["no JSON", "no id", "a version from the future", "a total in words"])
def test_what_is_spoiled_nobody_can_handle_though_the_event_was_good(fault: str) -> None:
    handlers = Handlers()
    handlers.on("shop.order.placed.v1", PlacedOrder, nothing)
    event = telling.event_of("shop.order.placed.v1", ORDER)
    assert handlers.read(event.attributes(), event.body()).event.subject == f"orders/{ORDER['order_id']}"
    with pytest.raises(Unhandleable):
        handlers.read(*telling.spoiled(event)[fault])


def test_the_steps_of_a_parked_message_are_read_from_its_headers() -> None:
    began = datetime(2017, 12, 23, 9, tzinfo=UTC)
    at = [(began + timedelta(seconds=s)).isoformat(timespec="milliseconds") for s in (0, 0.5, 2)]
    headers = {"x-attempt": 3, "x-parked-at": at[2]}
    headers |= {f"x-reason-{number}": f"{moment} no answer" for number, moment in enumerate(at, 1)}
    steps = telling.steps_of(headers, began + timedelta(seconds=9), began + timedelta(seconds=10))
    assert steps.what.tolist() == ["failed", "failed", "failed", "parked", "replayed", "handled"]
    assert (steps["at"] - began).dt.total_seconds().tolist() == [0, 0.5, 2, 2, 9, 10]
    assert telling.waits(steps) == [timedelta(seconds=0.5), timedelta(seconds=1.5)]


def test_a_rate_is_of_its_phase_and_of_the_time_in_which_there_was_work() -> None:
    rows = [(at, 10 * at, 100) for at in range(5)] + [
        (at, 40 + 30 * (at - 4), 130 - 30 * (at - 4)) for at in range(5, 9)
    ]
    rows += [(9, 170, 0), (10, 170, 0)]
    looks = pd.DataFrame(rows, columns=["at_s", "done", "waiting"])
    assert rates(looks, [(0, 4, 1), (5, 10, 3)]) == {1: 10, 3: 30}
    with pytest.raises(ValueError, match="no work for 4 workers"):
        rates(looks, [(9, 10, 4)])
