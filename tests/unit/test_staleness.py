"""How long an old answer was given out: reckoned from answers and from the database's log."""

from collections.abc import Mapping
from threading import Event

import httpx
import pandas as pd
import pytest

from workshop import invalidation
from workshop.invalidation import Look, brand_for, brands_in, dies_after_commit, legs, slowest, windows

MILK, BREAD = "new milk", "new bread"
BRANDS = {1: MILK, 2: BREAD}


def looks(process: str, *answers: tuple[float, str, str]) -> list[Look]:
    return [(process, at, {1: milk, 2: bread}) for at, milk, bread in answers]


def record(brand: str | None, *, committed_s: float, read_s: float = 0.0) -> Mapping[str, object]:
    source = {"ts_us": round(committed_s * 1e6)}
    after = {"product_id": 1, "brand": brand} if brand else None
    return {"after": after, "source": source, "ts_us": round(read_s * 1e6)}


def test_the_old_answer_is_over_when_it_is_given_no_more_not_when_the_new_one_is_first_given() -> None:
    seen = looks("here", (10.0, "old", "old"), (10.1, "new milk", "old"), (10.2, "old", "old"), (10.3, MILK, BREAD))
    found = windows(seen, BRANDS, {1: 10.05, 2: 10.25}).set_index("product_id")
    assert found.new_from.to_dict() == {1: 10.3, 2: 10.3}
    assert found.was_old_after.to_dict() == {1: True, 2: False}


def test_a_process_that_never_gave_the_old_answer_is_new_from_its_first_one() -> None:
    found = windows(looks("here", (9.0, MILK, BREAD)), BRANDS, {1: 10.0, 2: 10.0})
    assert found.new_from.tolist() == [9.0, 9.0]
    assert not found.was_old_after.any()


def test_each_process_has_a_window_of_its_own_and_the_last_one_counts() -> None:
    seen = [*looks("here", (10.0, "old", "old"), (10.1, MILK, BREAD)), *looks("there", (10.0, "old", "old"))]
    seen += looks("there", (10.4, MILK, BREAD))
    found = windows(seen, BRANDS, {1: 10.0, 2: 10.0})
    topic = pd.DataFrame({"value": [record(brand, committed_s=9.9) for brand in BRANDS.values()]})
    assert found.groupby("process").new_from.max().to_dict() == {"here": 10.1, "there": 10.4}
    last = slowest({"CDC": found}, topic)
    assert last.what.tolist() == ["CDC", "CDC"]
    assert last.ms.tolist() == pytest.approx([500.0, 500.0])


def test_a_window_never_ends_before_the_commit() -> None:
    found = windows(looks("here", (9.0, MILK, BREAD)), BRANDS, {1: 10.0, 2: 10.0})
    topic = pd.DataFrame({"value": [record(brand, committed_s=9.5) for brand in BRANDS.values()]})
    assert slowest({"delete": found}, topic).ms.tolist() == [0.0, 0.0]


def test_the_way_of_a_change_is_told_by_its_own_record() -> None:
    topic = pd.DataFrame(
        {"value": [record("new milk", committed_s=10.0, read_s=10.004), record(None, committed_s=11.0)]}
    )
    frame = pd.DataFrame({"what": ["CDC"], "brand": ["new milk"], "ms": [20.0]})
    shown = legs(frame, topic)
    assert dict(zip(shown.what, shown.ms, strict=True)) == {
        "Debezium has read it": pytest.approx(4.0),
        "the last process knows": 20.0,
    }


def test_the_last_record_of_a_product_is_what_the_log_says() -> None:
    topic = pd.DataFrame({"value": [record(brand, committed_s=1) for brand in ("one", "two", None)]})
    assert brands_in(topic).to_dict() == {1: "two"}


def test_no_brand_is_ever_given_twice() -> None:
    assert len({brand_for(1) for _ in range(100)}) == 100


def test_a_writer_is_killed_after_its_commit_and_not_before() -> None:
    committed, killed = Event(), Event()
    killed_after_commit = []

    def hangs() -> None:
        committed.set()
        assert killed.wait(5)
        raise httpx.ReadError("the process is dead")

    def kill() -> None:
        killed_after_commit.append(committed.is_set())
        killed.set()

    dies_after_commit(hangs, committed.is_set, kill)
    assert killed_after_commit == [True]


def test_a_writer_that_commits_nothing_is_no_experiment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invalidation, "WITHIN_S", 0.05)
    with pytest.raises(TimeoutError):
        dies_after_commit(lambda: None, lambda: False, lambda: pytest.fail("killed"))
