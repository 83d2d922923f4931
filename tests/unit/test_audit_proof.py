"""Verifying and proving over stores in memory: whatever is touched is found, and the first of it is named."""

import asyncio
import copy
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from showcase.audit.application.anchoring import Anchoring, BrokenAnchor
from showcase.audit.application.proving import BadProof, NoSuchRecord, NotProvable, check, prove
from showcase.audit.domain.anchors import Anchor, Head, Signed, following
from showcase.audit.domain.findings import Finding, Kind
from showcase.audit.domain.seals import climbed, leaf, path, root
from showcase.audit.infrastructure.anchors import AnchorFile, Key, Keys
from showcase.audit.infrastructure.proof import look_of, opened, runs_of
from showcase.platform.settings import Misconfigured, Settings
from tests.fakes import MemorySeals
from tests.fakes_proof import (
    ATTACKS,
    KEY,
    LAST_SEAL_ANCHORED,
    LATER,
    RECORDED_AT,
    Attack,
    Audit,
    Batch,
    MemoryAnchors,
    MemoryBooks,
    MemoryCopy,
    MemoryHeads,
    audit_of,
    edit_and_seal_again,
    edit_and_seal_all_again,
    make_the_last_seal_unreadable,
    remove_a_seal,
    remove_the_first_seal,
    reseal,
    wide,
)

pytestmark = pytest.mark.anyio


@pytest.fixture
async def audit() -> Audit:
    return await audit_of(LAST_SEAL_ANCHORED)


async def test_untouched_store_is_clean(audit: Audit) -> None:
    report = await audit.verified()

    assert (report.findings, report.notes) == ([], [])
    assert (report.records, report.anchors, report.anchored_at) == (29, 6, RECORDED_AT)
    assert [(one.topic, one.partition, one.next) for one in report.by_partition.values()] == [
        ("a", 0, 15),
        ("a", 1, 10),
        ("b", 0, 4),
    ]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_attack_is_found_and_named_first(audit: Audit, attack: Attack) -> None:
    kind, partition, offset = attack(audit)

    first = (await audit.verified()).findings[0]

    assert (first.kind, (first.topic, first.partition), first.offset) == (kind, partition, offset)


@pytest.mark.parametrize(
    "attack", [remove_the_first_seal, remove_a_seal, edit_and_seal_again, make_the_last_seal_unreadable]
)
async def test_chain_shows_by_itself_what_needs_no_anchor(audit: Audit, attack: Attack) -> None:
    kind, partition, offset = attack(audit)
    audit.anchors.clear()

    first = (await audit.verified(with_file=False)).findings[0]

    assert (first.kind, (first.topic, first.partition), first.offset) == (kind, partition, offset)


async def test_finding_names_the_record_and_what_it_is_of(audit: Audit) -> None:
    audit.record(7)["change"]["after"]["n"] = 1_000

    (finding,) = (await audit.verified()).findings

    assert (finding.record, finding.entity) == (audit.record(7)["_id"], "things/7")


async def test_what_was_made_anew_after_the_last_anchor_is_not_seen_and_the_age_of_that_anchor_is_told() -> None:
    batches = [replace(one, is_anchored=at == 0) for at, one in enumerate(LAST_SEAL_ANCHORED)]
    audit = await audit_of(batches)
    edit_and_seal_all_again(audit)

    report = await audit.verified()

    assert report.is_clean
    assert report.anchored_at == RECORDED_AT


async def test_told_twice_is_no_tampering_wherever_it_arrived_first() -> None:
    audit = await audit_of(
        [
            Batch("a", 0, [1, 2, 1, 3]),
            Batch("a", 1, [2, 9, 3]),
            Batch("a", 0, [3, 2, 4]),
            Batch("a", 0, [1, 2]),
            Batch("b", 0, [9]),
        ]
    )

    assert len(audit.records) == 5
    assert (await audit.verified()).findings == []


async def test_record_that_was_told_twice_and_removed_is_found_in_both_seals() -> None:
    audit = await audit_of([Batch("a", 0, [1, 2]), Batch("a", 1, [2, 3])])
    audit.records.remove(audit.record(1))

    findings = (await audit.verified()).findings

    assert [(one.kind, one.partition, one.offset) for one in findings] == [("removed", 0, 1), ("removed", 1, 0)]


async def test_new_records_without_a_seal_are_counted_and_old_ones_are_told(audit: Audit) -> None:
    for offset, age in enumerate((timedelta(seconds=1), timedelta(hours=1)), start=15):
        new = {**copy.deepcopy(audit.record(7)), "_id": f"0000-00-1-0{offset}", "offset": offset}
        audit.records.append({**new, "recorded_at": LATER - age})

    report = await audit.verified()

    assert [one.unsealed for one in report.by_partition.values()] == [1, 0, 0]
    assert [(one.kind, one.offset) for one in report.findings] == [(Kind.INSERTED, 16)]


async def test_lost_messages_are_told_and_are_no_tampering(audit: Audit) -> None:
    seals = audit.chain()
    seals[0]["lost"] = 2
    reseal(audit, *seals)
    audit.anchors.clear()
    audit.lines.clear()

    report = await audit.verified()

    assert report.is_clean
    assert [(one.kind, one.offset) for one in report.findings] == [(Kind.LOST, 0)]


async def test_one_topic_alone_is_verified(audit: Audit) -> None:
    audit.record(7)["change"]["after"]["n"] = 1_000

    assert (await audit.verified(topic="b")).is_clean
    assert not (await audit.verified(topic="a")).is_clean


async def test_places_beyond_32_bits_are_places() -> None:
    audit = await audit_of([Batch("a", 0, [1, 2])])
    for record in audit.records:
        record["offset"] = wide(record["offset"])

    assert (await audit.verified()).findings == []


async def test_second_field_of_one_name_is_no_way_to_show_readers_another_content(audit: Audit) -> None:
    """BSON allows it, and each reader takes the one that it likes."""
    whole = bson.encode(audit.record(7))
    second = bson.encode({"change": {"after": {"n": 1_000}}})[4:-1]
    twice = whole[4:-1] + second + b"\0"
    document = (len(twice) + 4).to_bytes(4, "little") + twice

    (run,) = runs_of(document)

    assert run.leaves == [b""]  # type: ignore[union-attr]  # it has a place
    assert look_of(document).leaf != look_of(whole).leaf


@pytest.mark.parametrize("name", ["topic", "recorded_at", "version"])
async def test_second_field_around_the_content_is_seen_as_well(audit: Audit, name: str) -> None:
    record = audit.record(7)
    twice = bson.encode(record)[4:-1] + bson.encode({name: record[name]})[4:-1] + b"\0"

    (run,) = runs_of((len(twice) + 4).to_bytes(4, "little") + twice)

    assert run.leaves == [b""]  # type: ignore[union-attr]  # it has a place


# -- random stores, random attacks


places = st.tuples(st.sampled_from("ab"), st.integers(0, 1))
rows = st.lists(st.integers(0, 40), min_size=1, max_size=8)
histories = st.lists(
    st.builds(lambda place, some: Batch(place[0], place[1], some), places, rows), min_size=1, max_size=8
)


@given(histories)
@settings(deadline=None, max_examples=60)
def test_no_history_looks_touched_that_was_not(history: list[Batch]) -> None:
    async def findings() -> list[Finding]:
        return (await (await audit_of(history)).verified()).findings

    assert asyncio.run(findings()) == []


@dataclass(frozen=True)
class Tampering:
    """What somebody does: to which record or seal, by its place among them, and with which number."""

    kind: str
    at: int
    other: int
    number: int

    def on(self, audit: Audit) -> None:
        if self.kind.startswith("seal") and audit.seals:
            self._on_seal(audit, audit.seals[self.at % len(audit.seals)])
        elif not self.kind.startswith("seal") and audit.records:
            some = audit.records
            self._on_record(audit, some[self.at % len(some)], some[self.other % len(some)])

    def _on_seal(self, audit: Audit, seal: dict[str, Any]) -> None:
        match self.kind.split():
            case "seal", "removed":
                audit.seals.remove(seal)
            case "seal", "remade":
                reseal(audit, seal)
            case _, name:
                seal[name] = seal[name] + 1 if isinstance(seal[name], int) else "0" * 63 + "1"

    def _on_record(self, audit: Audit, record: dict[str, Any], other: dict[str, Any]) -> None:
        match self.kind:
            case "edit":
                record["change"]["after"] = {"n": 100 + self.number}
            case "rename":
                record["_id"] = f"{record['_id']}{len(audit.records)}"
            case "remove":
                audit.records.remove(record)
            case "insert":
                new = {**copy.deepcopy(record), "_id": f"{record['_id']}x{len(audit.records)}"}
                audit.records.append({**new, "offset": self.number})
            case "move":
                record["offset"] = self.number
            case _:
                record["change"], other["change"] = other["change"], record["change"]


KINDS = (
    *("edit", "rename", "remove", "insert", "move", "swap", "seal removed", "seal remade"),
    *("seal first", "seal next", "seal lost", "seal previous", "seal hash", "seal root", "seal partition"),
)
tamperings = st.builds(Tampering, st.sampled_from(KINDS), st.integers(0, 100), st.integers(0, 100), st.integers(-3, 40))


@given(histories, st.lists(tamperings, min_size=1, max_size=3))
@settings(deadline=None, max_examples=200)
def test_whatever_is_touched_in_whatever_history_is_found(history: list[Batch], done: list[Tampering]) -> None:
    async def is_seen() -> bool:
        audit = await audit_of(history)
        before = audit.copy()
        for one in done:
            one.on(audit)
        is_same = (order(audit.records), order(audit.seals)) == (order(before.records), order(before.seals))
        return is_same or moved_only(audit, before) or not (await audit.verified()).is_clean

    assert asyncio.run(is_seen())


def order(documents: list[dict[str, Any]]) -> list[bytes]:
    return sorted(bson.encode(one) for one in documents)


def moved_only(audit: Audit, before: Audit) -> bool:
    """Whether all that changed is which of the places where it was told a record stands at: that proves the same."""
    if order(audit.seals) != order(before.seals) or len(audit.records) != len(before.records):
        return False
    contents = [{one["_id"]: (one["change"], one.get("extra")) for one in some.records} for some in (audit, before)]
    told = {(one["topic"], one["partition"], at) for one in before.seals for at in range(one["first"], one["next"])}
    return (
        contents[0] == contents[1]
        and all((one["topic"], one["partition"], one["offset"]) in told for one in audit.records)
        and in_the_order_of_seals(audit)
    )


def in_the_order_of_seals(audit: Audit) -> bool:
    for seal in audit.seals:
        here = [
            one
            for one in audit.records
            if (one["topic"], one["partition"]) == (seal["topic"], seal["partition"])
            and seal["first"] <= one["offset"] < seal["next"]
        ]
        here.sort(key=lambda one: int(one["offset"]))
        ids = [one["_id"] for one in here]
        if [one for one in dict.fromkeys(seal["ids"]) if one in ids] != ids:
            return False
    return True


# -- anchors


async def anchored(audit: Audit, *heads: Head, key: Key = KEY) -> Anchor | None:
    """One more anchor, as its process makes it."""

    class Heads:
        async def newest(self) -> list[Head]:
            return list(heads)

    anchoring = Anchoring(
        Heads(), MemoryAnchors(audit.anchors), MemoryCopy(audit.lines), key.sign, Keys(key.public).check
    )
    return await anchoring.anchor()


HEAD = Head(topic="a", partition=0, first=0, next=5, hash="1" * 64)


async def test_anchor_is_made_only_of_something_new() -> None:
    audit = Audit()

    assert await anchored(audit) is None
    assert await anchored(audit, HEAD) is not None
    assert await anchored(audit, HEAD) is None
    assert await anchored(audit, replace(HEAD, first=5, next=9)) is not None
    assert [Anchor.of(one.statement).number for one in audit.anchors] == [1, 2]
    assert audit.lines == audit.anchors


async def test_seal_that_is_gone_stays_anchored() -> None:
    audit = Audit()
    other = replace(HEAD, partition=1)
    await anchored(audit, HEAD, other)

    await anchored(audit, replace(HEAD, next=3), replace(other, first=5, next=9))

    heads = Anchor.of(audit.anchors[-1].statement).heads
    assert heads == (HEAD, replace(other, first=5, next=9))


async def test_nobody_goes_on_from_an_anchor_that_is_not_ours() -> None:
    audit = Audit()
    await anchored(audit, HEAD, key=Key(b"x" * 32))

    with pytest.raises(BrokenAnchor, match="key of ours"):
        await anchored(audit, replace(HEAD, next=9))


async def test_copy_gets_what_a_crash_kept_from_it() -> None:
    audit = Audit()
    await anchored(audit, HEAD)
    audit.lines.clear()

    assert await anchored(audit, HEAD) is None

    assert audit.lines == audit.anchors


def test_statement_is_read_only_as_it_is_written() -> None:
    anchor, _ = following(None, RECORDED_AT, [HEAD])

    assert Anchor.of(anchor.statement) == anchor
    for other in ("", "{}", "[]", anchor.statement + " ", anchor.statement.replace("audit anchor", "audit letter")):
        with pytest.raises(ValueError, match="no statement"):
            Anchor.of(other)


def forged(audit: Audit, at: int) -> Signed:
    """An anchor with the tail left out, signed by somebody else."""
    anchor = Anchor.of(audit.anchors[at].statement)
    return Key(b"x" * 32).sign(replace(anchor, heads=anchor.heads[:1]).statement)


@pytest.mark.parametrize(
    ("in_table", "in_file"),
    [
        (lambda some: some.pop(2), lambda some: None),
        (lambda some: some.clear(), lambda some: None),
        (lambda some: some.pop(), lambda some: None),
        (lambda some: None, lambda some: some.pop(2)),
        (lambda some: None, lambda some: some.pop(0)),
        (lambda some: None, lambda some: some.clear()),
        (lambda some: None, lambda some: some.pop()),
        (lambda some: some.pop(2), lambda some: some.pop(2)),
        (lambda some: some.pop(0), lambda some: some.pop(0)),
        (lambda some: some.reverse(), lambda some: None),
        (lambda some: None, lambda some: some.insert(2, Signed(statement="", signature=b"", key_id=""))),
    ],
    ids=[
        *("one cut from the table", "table emptied", "table's last cut", "one cut from the file", "file's first cut"),
        *(
            "file emptied",
            "file's last cut, long ago",
            "one cut from both",
            "first cut from both",
            "table turned round",
        ),
        "junk in the file",
    ],
)
async def test_anchors_that_were_touched_are_found(audit: Audit, in_table: Any, in_file: Any) -> None:
    in_table(audit.anchors)
    in_file(audit.lines)

    report = await audit.verified()

    assert report.findings[0].kind == Kind.BROKEN_ANCHOR


async def test_forged_anchor_is_found_in_both_copies(audit: Audit) -> None:
    audit.anchors[-1] = audit.lines[-1] = forged(audit, -1)

    assert [one.kind for one in (await audit.verified()).findings] == [Kind.BROKEN_ANCHOR]


async def test_signature_of_one_statement_is_none_of_another(audit: Audit) -> None:
    audit.anchors[-1] = audit.lines[-1] = replace(audit.anchors[-1], signature=audit.anchors[-2].signature)

    assert [one.kind for one in (await audit.verified()).findings] == [Kind.BROKEN_ANCHOR]


async def test_anchor_that_leaves_a_partition_out_is_found(audit: Audit) -> None:
    anchor = Anchor.of(audit.anchors[-1].statement)
    audit.anchors[-1] = audit.lines[-1] = KEY.sign(replace(anchor, heads=anchor.heads[:1]).statement)

    assert [one.kind for one in (await audit.verified()).findings] == [Kind.BROKEN_ANCHOR]


async def test_anchor_that_is_not_yet_in_the_file_is_told_and_no_tampering(audit: Audit) -> None:
    audit.lines.pop()

    report = await audit.verified(clock=lambda: RECORDED_AT + timedelta(seconds=5))

    assert (report.findings, report.notes) == ([], ["anchor 6 is not in the file yet"])


async def test_without_anchors_a_store_is_clean_and_nothing_is_anchored(audit: Audit) -> None:
    audit.anchors.clear()

    report = await audit.verified(with_file=False)

    assert report.is_clean
    assert report.anchored_at is None


# -- the file


@pytest.fixture
def file(tmp_path: Path) -> AnchorFile:
    return AnchorFile(tmp_path / "anchors")


async def test_file_gives_back_what_was_appended(audit: Audit, file: AnchorFile) -> None:
    assert await file.end() == 0

    await file.append(audit.anchors[:2])
    await file.append(audit.anchors)  # what somebody else has appended meanwhile is not there twice

    assert await file.end() == 6
    assert list(file.lines()) == audit.anchors


async def test_last_line_that_a_crash_cut_is_told_and_mended_by_the_next(
    audit: Audit, file: AnchorFile, tmp_path: Path
) -> None:
    await file.append(audit.anchors[:3])
    whole = (tmp_path / "anchors").read_bytes()
    (tmp_path / "anchors").write_bytes(whole[:-20])

    *lines, note = file.lines()
    assert lines == audit.anchors[:2]
    assert "cut off" in str(note)
    assert await file.end() == 2

    await file.append(audit.anchors[2:])
    assert list(file.lines()) == audit.anchors


async def test_file_that_is_not_there_is_told(file: AnchorFile) -> None:
    (note,) = file.lines()

    assert "no file" in str(note)


# -- proofs of single records


@pytest.mark.parametrize("size", range(1, 71))
def test_path_of_every_record_leads_to_the_root_and_that_of_another_one_does_not(size: int) -> None:
    leaves = [leaf(bytes([at])) for at in range(size)]

    for at, one in enumerate(leaves):
        assert climbed(one, path(leaves, at)) == root(leaves)
        assert climbed(leaf(b"another"), path(leaves, at)) != root(leaves)


async def proof_of(audit: Audit, id_: str) -> dict[str, Any]:
    proof = await prove(id_, MemoryBooks(audit), MemoryAnchors(audit.anchors), opened, KEY.public)
    return json.loads(json.dumps(proof))  # type: ignore[no-any-return]  # as a file has it


OURS = Keys(KEY.public).check


async def test_every_record_can_be_proven_with_nothing_but_the_proof_and_the_key(audit: Audit) -> None:
    for record in audit.records:
        proven = check(await proof_of(audit, record["_id"]), OURS, opened)
        assert (proven.record, proven.entity) == (record["_id"], f"things/{record['change']['entity_id']}")


async def test_proof_leads_over_several_seals_to_the_anchored_one() -> None:
    audit = await audit_of([replace(one, is_anchored=at == 5) for at, one in enumerate(LAST_SEAL_ANCHORED)])

    proof = await proof_of(audit, audit.record(1)["_id"])

    assert len(proof["chain"]) == 3
    assert check(proof, OURS, opened).anchor == 1


def changed_everywhere(value: Any) -> list[Any]:
    """All values that differ from one in a single place."""
    if isinstance(value, dict):
        return [{**value, name: one} for name in value for one in changed_everywhere(value[name])]
    if isinstance(value, list):
        return [
            [*value[:at], one, *value[at + 1 :]] for at in range(len(value)) for one in changed_everywhere(value[at])
        ]
    if isinstance(value, str):
        return [value[:-1] + ("1" if value[-1:] == "0" else "0")]
    return [value + 1 if isinstance(value, int) else 1]


async def test_proof_of_which_anything_was_changed_does_not_hold() -> None:
    audit = await audit_of([replace(one, is_anchored=at == 5) for at, one in enumerate(LAST_SEAL_ANCHORED)])
    proof = await proof_of(audit, audit.record(1)["_id"])
    del proof["anchor"]["public_key"]  # only for information: whoever checks has his own

    others = changed_everywhere(proof)

    assert len(others) > 30
    for other in others:
        with pytest.raises(BadProof):
            check(other, OURS, opened)
    with pytest.raises(BadProof, match="our key"):
        check(proof, Keys(Key(b"x" * 32).public).check, opened)


@pytest.mark.parametrize("junk", [{}, [], 7, None, {"bytes": 1}, {"bytes": "00", "anchor": {}}])
def test_junk_is_no_proof(junk: Any) -> None:
    with pytest.raises(BadProof, match="no proof"):
        check(junk, OURS, opened)


async def test_what_cannot_be_proven_says_why(audit: Audit) -> None:
    with pytest.raises(NoSuchRecord):
        await proof_of(audit, "nobody")
    audit.records.append({**copy.deepcopy(audit.record(7)), "_id": "0000-00-1-00"})
    with pytest.raises(NotProvable, match="in no seal"):
        await proof_of(audit, "0000-00-1-00")
    audit.record(8)["change"]["after"]["n"] = 1_000
    with pytest.raises(NotProvable, match="edited"):
        await proof_of(audit, audit.record(8)["_id"])
    audit.anchors.clear()
    with pytest.raises(NotProvable, match="no anchor yet"):
        await proof_of(audit, audit.record(9)["_id"])


# -- settings


def test_key_of_the_workshop_is_refused_elsewhere() -> None:
    assert len(Settings(environment="workshop").anchor_seed()) == 32
    own = {"secrets": "p1:" + "s" * 32}
    with pytest.raises(Misconfigured, match="is the default"):
        Settings.model_validate(own).anchor_seed()
    with pytest.raises(Misconfigured, match="64 hexadecimal"):
        Settings.model_validate({**own, "audit_anchor_key": "77"}).anchor_seed()
    assert Settings.model_validate({**own, "audit_anchor_key": "78" * 32}).anchor_seed() == b"\x78" * 32


async def test_heads_are_the_newest_seals() -> None:
    assert await MemoryHeads(MemorySeals()).newest() == []
