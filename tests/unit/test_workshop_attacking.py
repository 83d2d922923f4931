"""Lesson 10 without servers: what is counted, what the intruder writes, and that verifying finds each of it."""

import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from showcase.audit.domain.findings import Kind
from showcase.kernel.changes import Operation
from tests.fakes_proof import KEY, Audit, Batch, MemoryAnchors, MemoryBooks, audit_of
from tests.fakes_proof import Document as Stored
from workshop.attacking import counting, intruding, load, proving, storm, suppliers
from workshop.attacking.intruding import Intruder, edited, forged, leaves_of, remade

pytestmark = pytest.mark.anyio

NOON = datetime(2017, 12, 23, 12, tzinfo=UTC)


# -- what is counted


def test_each_kind_of_difference_has_its_counter() -> None:
    told, there = [("a", 1), ("a", 2), ("b", 1), ("z", 1)], {("a", 1), ("a", 2), ("b", 1)}
    kept = [("a", 1), ("a", 1), ("b", 1), ("c", 1)]
    assert counting.counters(told, there, kept) == {
        "committed": 3,
        "recorded": 4,
        "missing": 1,
        "duplicated": 1,
        "unexpected": 1,
        "forgotten": 1,
    }


def test_nothing_differs_where_all_is_recorded_once() -> None:
    all_ = [("a", 1), ("a", 2)]
    counted = counting.counters(all_[:1], all_, all_)
    assert {name: counted[name] for name in ("missing", "duplicated", "unexpected", "forgotten")} == {
        "missing": 0,
        "duplicated": 0,
        "unexpected": 0,
        "forgotten": 0,
    }


def test_delays_are_seconds_since_the_beginning() -> None:
    moments = [NOON, NOON + pd.Timedelta(milliseconds=250)]
    frame = pd.DataFrame({"committed_at": moments[:1], "recorded_at": moments[1:]})
    (delay,) = counting.delays(frame, NOON.timestamp() - 2).to_dict("records")
    assert delay == pytest.approx({"committed_s": 2.0, "recorded_s": 2.25})


def chain(*rows: tuple[int, int, int, str, str]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["partition", "first", "next", "previous", "hash"])


@pytest.mark.parametrize(
    ("seals", "is_one"),
    [
        (((0, 0, 5, "", "a"), (0, 5, 9, "a", "b"), (1, 0, 3, "", "c")), True),
        (((0, 0, 5, "", "a"), (0, 6, 9, "a", "b")), False),
        (((0, 0, 5, "", "a"), (0, 5, 9, "x", "b")), False),
        (((0, 2, 5, "", "a"),), False),
    ],
)
def test_a_chain_has_no_gap_and_each_seal_names_the_one_before(
    seals: Sequence[tuple[int, int, int, str, str]], is_one: bool
) -> None:
    assert counting.is_one_chain(chain(*seals)) is is_one


def test_orders_have_the_same_ids_in_every_run() -> None:
    assert load.order_id(7) == load.order_id(7) != load.order_id(8)


class Clock:
    """Time, as a lab sees it that finds a new record at each look."""

    def __init__(self) -> None:
        self.at, self.broken = 100.0, False
        self.events: list[str] = []

    def time(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds

    def until(self, condition: Any, within: str, what: str) -> None:
        while not condition():
            self.at += 1
        self.events.append("records come")


def test_a_fault_is_felt_until_something_is_recorded_that_came_after_it(monkeypatch: pytest.MonkeyPatch) -> None:
    clock: Any = Clock()
    monkeypatch.setattr(storm, "time", clock)
    struck = storm.Storm(clock)
    monkeypatch.setattr(storm.Storm, "_newest", lambda _self: clock.at - 3)  # records are three seconds behind
    struck.strike(
        "it", breaks=lambda: clock.events.append("broken"), mends=lambda: clock.events.append("mended"), lasts_s=2
    )
    assert clock.events == ["records come", "broken", "mended", "records come"]
    broken, mended, back = struck.spans["it"]
    assert (mended - broken, back - mended) == (2, 4)


# -- the intruder


class Collection:
    """As much of one of PyMongo's as the intruder needs."""

    def __init__(self, documents: list[Stored]) -> None:
        self.documents = documents

    def find_one(self, wanted: Mapping[str, Any]) -> Stored | None:
        return next(iter(self.find(wanted)), None)

    def find(self, wanted: Mapping[str, Any], sort: Sequence[tuple[str, int]] = ()) -> list[Stored]:
        found = [copy.deepcopy(one) for one in self.documents if all(_is(one, *part) for part in wanted.items())]
        return sorted(found, key=lambda one: [one[name] for name, _ in sort]) if sort else found

    def replace_one(self, wanted: Mapping[str, Any], document: Stored, upsert: bool) -> None:
        assert upsert
        self.delete_many(wanted)
        self.documents.append(copy.deepcopy(document))

    def delete_many(self, wanted: Mapping[str, Any]) -> None:
        self.documents[:] = [one for one in self.documents if not all(_is(one, *part) for part in wanted.items())]

    def insert_many(self, documents: Sequence[Stored]) -> None:
        self.documents += copy.deepcopy(list(documents))


def _is(document: Stored, name: str, wanted: Any) -> bool:
    value = document[name]
    if not isinstance(wanted, dict):
        return bool(value == wanted)
    tests: dict[str, Callable[[Any], bool]] = {
        "$in": lambda w: value in w,
        "$gt": lambda w: bool(value > w),
        "$gte": lambda w: bool(value >= w),
    }
    return all(tests[operator](w) for operator, w in wanted.items())


@pytest.fixture
async def audit() -> Audit:
    """Four seals of one partition, the last two after the only anchor of the first ones."""
    return await audit_of(
        [
            Batch("a", 0, list(range(at, at + 4)), is_anchored=is_anchored)
            for at, is_anchored in ((0, False), (4, True), (8, True), (12, True))
        ]
    )


def intruder_in(audit: Audit) -> Intruder:
    database: Any = {"audit_records": Collection(audit.records), "audit_seals": Collection(audit.seals)}
    return Intruder(database)


@contextmanager
def untouched_afterwards(audit: Audit) -> Iterator[None]:
    def all_of(some: list[Stored]) -> list[Stored]:
        return sorted(copy.deepcopy(some), key=lambda one: str(one["_id"]))

    before = all_of(audit.records), all_of(audit.seals)
    yield
    assert (all_of(audit.records), all_of(audit.seals)) == before


ATTACKS = {
    "edits": (Kind.EDITED, {"n": 99}),
    "removes": (Kind.REMOVED, {}),
    "inserts": (Kind.INSERTED, {"n": 99}),
    "edits_and_seals": (Kind.BROKEN_CHAIN, {"n": 99}),
    "edits_and_seals_all": (Kind.BROKEN_CHAIN, {"n": 99}),
    "cuts_off": (Kind.MISSING_TAIL, {}),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_each_attack_is_found_while_it_lasts_and_taken_back_after_it(audit: Audit, attack: str) -> None:
    kind, values = ATTACKS[attack]
    victim = audit.record(5)["_id"]
    assert (await audit.verified()).is_clean
    with untouched_afterwards(audit):
        with getattr(intruder_in(audit), attack)(victim, **values) as concerned:
            found = await audit.verified()
        assert found.findings[0].kind is kind
        if kind in (Kind.EDITED, Kind.REMOVED, Kind.INSERTED):
            assert found.findings[0].record == concerned
    assert (await audit.verified()).is_clean


async def test_only_an_anchor_gives_a_chain_away_that_was_made_anew(audit: Audit) -> None:
    anchors, lines = list(audit.anchors), list(audit.lines)
    with intruder_in(audit).edits_and_seals_all(audit.record(5)["_id"], n=99):
        audit.anchors.clear()
        audit.lines.clear()
        assert (await audit.verified()).is_clean
        audit.anchors += anchors
        audit.lines += lines
        assert not (await audit.verified()).is_clean


async def test_an_attack_is_taken_back_also_when_something_goes_wrong(audit: Audit) -> None:
    with untouched_afterwards(audit), pytest.raises(RuntimeError), intruder_in(audit).removes(audit.record(5)["_id"]):
        raise RuntimeError("verifying did not answer")


async def test_what_is_not_there_cannot_be_attacked(audit: Audit) -> None:
    intruder = intruder_in(audit)
    with pytest.raises(LookupError, match="no record nobody"), intruder.edits("nobody", n=1):
        pass
    with pytest.raises(KeyError, match="no column price"):
        edited(audit.record(5), {"price": 1})
    audit.seals.clear()
    with pytest.raises(LookupError, match="in no seal"), intruder.cuts_off(audit.record(5)["_id"]):
        pass


async def test_a_forged_record_stands_under_the_id_that_its_content_should_have(audit: Audit) -> None:
    victim = audit.record(5)
    document = forged(victim, {"n": 99})
    assert document["change"]["operation"] == Operation.DELETE
    assert document["_id"] != victim["_id"]
    (look,) = (await MemoryBooks(Audit(records=[document])).look([document["_id"]])).values()
    assert look.own == document["_id"]


async def test_seals_that_are_made_of_the_same_are_the_same(audit: Audit) -> None:
    seals = audit.chain()
    assert remade(seals, {}, seals[0]["previous"]) == seals
    other = remade(seals, leaves_of([edited(audit.record(5), {"n": 99})]), seals[0]["previous"])
    assert [made["hash"] == was["hash"] for made, was in zip(other, seals, strict=True)] == [True, False, False, False]


# -- what is said of it


async def test_a_verdict_is_the_first_finding_that_is_tampering(audit: Audit) -> None:
    finding = {"kind": "edited", "record": "r1", "entity": "orders/1"}
    report = {"found": 2, "findings": [{"kind": "lost messages", "record": "", "entity": ""}, finding, finding]}
    said = proving.verdict(1, report, "r1")
    assert (said.first, said.record, said.found, said.names_it) == ("edited", "r1", 2, True)
    assert not proving.verdict(1, report, "r2").names_it
    clean = proving.verdict(0, {"found": 0, "findings": []}, "r1")
    assert (clean.first, clean.names_it) == ("", False)


async def test_a_proof_with_one_bit_turned_does_not_hold(audit: Audit) -> None:
    from showcase.audit.application import proving as ours
    from showcase.audit.infrastructure.anchors import Keys
    from showcase.audit.infrastructure.proof import opened

    id_ = audit.record(5)["_id"]
    proof = await ours.prove(id_, MemoryBooks(audit), MemoryAnchors(audit.anchors), opened, KEY.public)
    proof = json.loads(json.dumps(proof))
    check = Keys(KEY.public).check
    assert ours.check(proof, check, opened).record == id_
    with pytest.raises(ours.BadProof):
        ours.check(proving.with_other_content(proof), check, opened)


def test_the_documented_envelope_of_sql_server_is_a_change() -> None:
    change = suppliers.change()
    assert (change.table, change.operation, change.changed()) == ("dbo.price_list", Operation.UPDATE, ["price"])
    assert change.committed_at.date() == NOON.date()


def test_the_leaves_of_records_are_those_of_their_seal() -> None:
    assert intruding.leaves_of([]) == {}
