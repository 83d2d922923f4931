"""The audit's benchmark: its messages are Debezium's, all different, and it misses no change."""

import json
from typing import Any

import pytest

from benchmarks import audit_memory
from benchmarks.audit import busy
from benchmarks.audit_latency import Latency
from benchmarks.audit_system import Envelope, Taken, varied
from showcase.audit.domain.records import Record
from showcase.kernel import changes
from showcase.kernel.changes import Change


def envelope(table: str, key: dict[str, Any], row: dict[str, Any], lsn: int, transaction: int) -> Envelope:
    """As Debezium writes it, with all that the audit reads of it."""
    source = {"schema": "public", "table": table, "lsn": lsn, "txId": transaction, "ts_ms": 1_700_000_000_000}
    value = {"op": "c", "source": source, "before": None, "after": {**key, **row}}
    return Envelope(f"t.public.{table}", key, value, [("epoch", b"0")])


HISTORY = [
    envelope("audit_context", {"context_id": 1}, {"transaction_id": 7, "actor": "households/1"}, 500, 7),
    envelope("orders", {"order_id": "o"}, {"household_id": 1, "reference": "basket-1", "status": "placed"}, 510, 7),
    envelope("order_lines", {"order_id": "o", "line": 1}, {"quantity": 2}, 520, 7),
    envelope("order_lines", {"order_id": "o", "line": 2}, {"quantity": 1}, 520, 7),
    envelope("audit_context", {"context_id": 2}, {"transaction_id": 8, "actor": "households/1"}, 600, 8),
]


def change_of(one: Envelope) -> Change:
    change = changes.read(json.dumps(one.key).encode(), json.dumps(one.value).encode())
    assert change is not None
    return change


def test_no_two_orders_have_a_record_in_common_and_a_later_one_comes_later() -> None:
    read = [change_of(one) for number in range(50) for one in varied(HISTORY, number)]

    assert len({Record.of(change).id for change in read}) == 50 * len(HISTORY)
    assert [change.position for change in read] == sorted(change.position for change in read)


def test_what_an_order_went_through_stays_together() -> None:
    contexts: list[Change] = []
    rest: list[Change] = []
    for number in range(3):
        for one in varied(HISTORY, number):
            (contexts if one.topic.endswith("audit_context") else rest).append(change_of(one))

    for context in contexts:
        assert context.after is not None
        assert str(context.after["transaction_id"]) == context.transaction
    assert len({context.transaction for context in contexts}) == len(contexts)
    assert {change.transaction for change in rest} <= {context.transaction for context in contexts}
    assert len({change.key["order_id"] for change in rest}) == 3


def test_a_varied_envelope_says_nothing_else_than_the_real_one() -> None:
    for real, other in zip(HISTORY, varied(HISTORY, 1), strict=True):
        assert (other.topic, other.headers, other.value.keys()) == (real.topic, real.headers, real.value.keys())
        assert other.value["after"].keys() == real.value["after"].keys()
        assert other.value["source"].keys() == real.value["source"].keys()
        assert other.key.items() <= other.value["after"].items()


def test_time_runs_from_the_commit_to_when_the_record_was_readable() -> None:
    latency = Latency.of({1: 10.0, 2: 10.01, 3: 10.02}, {1: 10.05, 2: 10.11, 3: 10.04, 4: 99.0})

    assert [round(seconds, 6) for seconds in latency.sorted_s] == [0.02, 0.05, 0.1]
    assert round(latency.rate) == 100


def test_a_change_without_a_record_is_no_result() -> None:
    with pytest.raises(KeyError):
        Latency.of({1: 10.0, 2: 10.01}, {1: 10.05})


@pytest.mark.parametrize(("slowest_s", "is_met"), [(0.39, True), (0.45, False)])
def test_one_change_of_fifty_that_is_slow_misses_the_target(slowest_s: float, is_met: bool) -> None:
    committed = {change: 10.0 + change / 200 for change in range(1_000)}
    readable = {change: at + (slowest_s if change % 50 == 0 else 0.05) for change, at in committed.items()}

    assert Latency.of(committed, readable).is_met == is_met


def test_processor_time_is_told_by_the_record() -> None:
    turns = [Taken(10_000, {"consumer": 0.5}), Taken(5_000, {"consumer": 0.5}), Taken(20_000, {"consumer": 1.0})]

    assert busy(turns) == "consumer 50% of a core, 50 µs a record"


def test_memory_is_read_at_each_mark_and_the_consumer_is_never_left_with_too_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(audit_memory, "MARKS", (100, 1_000))
    monkeypatch.setattr(audit_memory, "CHUNK", 10)
    monkeypatch.setattr(audit_memory, "BACKLOG", 80)
    written = there = 0
    numbers: list[int] = []

    def write(orders: range) -> int:
        nonlocal written
        numbers.extend(orders)
        written += 4 * len(orders)
        return 4 * len(orders)

    def count() -> int:
        nonlocal there
        there = min(written, there + 25)
        assert written - there <= 80 + 40
        return there

    held = audit_memory.at_marks(lambda: float(there), count, write)

    assert 100 <= held[0] < 200
    assert held[1] >= 1_000
    assert numbers == list(range(len(numbers)))
    assert written >= 1_000
