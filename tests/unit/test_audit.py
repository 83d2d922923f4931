"""Audit records and the recorder over stores in memory: nothing twice, nothing lost, nothing held up."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from showcase.audit.application.ports import Added, Entry, Message, SealedAlready
from showcase.audit.application.recorder import Recorder, Rules, StartedAnew
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import FIRST, climbed, leaf, path, root
from showcase.audit.infrastructure.content import MAX_BYTES, content_of, record_of
from showcase.kernel import changes
from showcase.kernel.changes import BrokenChange, Operation
from tests.fakes import MemoryAuditStore, MemoryDeadLetters, MemorySeals

pytestmark = pytest.mark.anyio

COMMITTED_MS = 1_700_000_000_000


def envelope(op: str = "u", *, lsn: int = 100, table: Any = "orders", schema: str = "public", **rows: Any) -> bytes:
    """What Debezium writes of a change."""
    source = {"schema": schema, "table": table, "lsn": lsn, "txId": 7, "ts_ms": COMMITTED_MS}
    now: dict[str, object] | None = None if op in ("d", "t") else {}
    return json.dumps({"op": op, "source": source, "before": None, "after": now, **rows}).encode()


def message(
    value: bytes | None, key: dict[str, object] | None = None, *, offset: int = 0, partition: int = 0, **more: Any
) -> Message:
    """A record of a topic."""
    encoded = json.dumps({"order_id": "a"} if key is None else key).encode()
    return Message(topic="t", partition=partition, offset=offset, key=encoded, value=value, **more)


def record_of_change(value: bytes, key: dict[str, object] | None = None) -> Record:
    change = changes.read(message(value, key).key, value)
    assert change is not None
    return Record.of(change)


class Audit:
    """A recorder and where it puts things."""

    def __init__(self, other: "Audit | None" = None, **rules: Any) -> None:
        self.store: MemoryAuditStore = other.store if other else MemoryAuditStore()
        self.seals: MemorySeals = other.seals if other else MemorySeals()
        self.dead: MemoryDeadLetters = other.dead if other else MemoryDeadLetters()
        self.recorder = Recorder(self.store, self.seals, self.dead, content_of, rules=Rules(**rules))

    async def record(self, *messages: Message) -> int:
        return await self.recorder.record(messages)


def test_record_says_what_changed_of_what() -> None:
    record = record_of_change(
        envelope("u", before={"line": 2, "quantity": 1, "note": None}, after={"line": 2, "quantity": 3, "note": None}),
        {"order_id": "a", "line": 2},
    )

    assert (record.entity_type, record.entity_id, record.operation) == ("orders", "a/2", "update")
    assert record.changed == ["quantity"]
    assert (int(record.position, 16), record.transaction) == (100, "7")


def test_id_is_the_same_for_the_same_change_and_another_for_every_other_one() -> None:
    same = [record_of_change(envelope("u")).id, record_of_change(envelope("u", after={"b": 1})).id]
    others = [
        record_of_change(envelope("u", lsn=101)).id,
        record_of_change(envelope("u", table="order_lines")).id,
        record_of_change(envelope("u", schema="payment")).id,
        record_of_change(envelope("d")).id,
        record_of_change(envelope("u"), {"order_id": "b"}).id,
    ]

    assert len(set(same)) == 1
    assert len({*same, *others}) == 6


@pytest.mark.parametrize("table", [None, 7, ["orders"], {"a": 1}])
def test_a_change_of_a_table_whose_name_is_no_text_is_broken(table: Any) -> None:
    with pytest.raises(BrokenChange, match="no text"):
        record_of_change(envelope(table=table))


@pytest.mark.parametrize("key", [{}, [], 3, ["a"]])
def test_row_without_a_key_is_refused_since_two_of_them_could_be_taken_for_one(key: Any) -> None:
    with pytest.raises(BrokenChange, match="primary key"):
        record_of_change(envelope(), key)


def of_lsn(*lsns: int, op: str = "u") -> list[Message]:
    """Changes of one row, each at the offset that is its place in the log."""
    return [message(envelope(op, lsn=lsn), offset=lsn) for lsn in lsns]


def lsns(audit: Audit) -> list[int]:
    return [int(record.position, 16) for record in audit.store.records]


async def test_same_messages_again_are_recorded_once() -> None:
    audit = Audit()

    assert await audit.record(*of_lsn(0, 1, 2, 3, 4)) == 5
    assert await audit.record(*of_lsn(3, 4, 5)) == 1
    assert await Audit(audit).record(*of_lsn(0, 1, 2, 3, 4, 5, 6)) == 1


async def test_truncation_is_a_record_of_the_whole_table() -> None:
    audit = Audit()

    assert await audit.record(Message(topic="t", partition=0, offset=0, key=None, value=envelope("t"))) == 1

    (record,) = audit.store.records
    assert (record.entity_type, record.entity_id, record.operation) == ("orders", "", Operation.TRUNCATE)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b'{"status": "BEGIN", "id": "571:53195829", "ts_ms": 1486500577125, "event_count": null}',
        b'{"status": "END", "id": "571:53195832", "ts_ms": 1486500577691, "event_count": 2, "data_collections": []}',
        b'{"op": "m", "ts_ms": 1486500577125, "source": {}, "message": {"prefix": "p", "content": "YQ=="}}',
        b'{"source": {}, "ts_ms": 1, "databaseName": "p", "ddl": "CREATE", "tableChanges": []}',
        b'{"ts_ms": 1486500577125}',
    ],
    ids=["tombstone", "begin", "end", "message", "news of the schema", "heartbeat"],
)
async def test_what_is_of_no_table_is_no_record_and_no_dead_letter(value: bytes | None) -> None:
    audit = Audit()

    assert await audit.record(message(value)) == 0
    assert audit.dead.letters == {}


async def dead(value: bytes, headers: Sequence[tuple[str, bytes | None]] = (), **rules: Any) -> str:
    """The reason for which a message between two good ones is put away."""
    audit = Audit(**rules)
    first, last = of_lsn(1, 3)

    assert await audit.record(first, message(value, offset=2, headers=headers, arrived_ms=COMMITTED_MS), last) == 2

    (letter,) = audit.dead.letters.values()
    assert (letter.message.offset, letter.message.value) == (2, value)
    return letter.reason


BROKEN = [b"", b"{", b"\xff", b"[]", b"3", b'{"op": "u"}', b'{"op": "x", "source": {}}', envelope("?"), b"[" * 100_000]


@pytest.mark.parametrize("value", BROKEN, ids=lambda value: repr(value[:30]))
async def test_broken_message_is_put_away_with_the_reason_and_the_others_are_recorded(value: bytes) -> None:
    assert "envelope" in await dead(value)


async def test_row_that_is_no_set_of_columns_is_put_away() -> None:
    assert "no set of columns" in await dead(envelope("u", after="text", before=[1]))


async def test_change_of_a_table_that_is_not_audited_is_put_away() -> None:
    assert "secrets is not audited" in await dead(envelope(table="secrets"), tables=frozenset({"orders"}))


async def test_message_that_is_too_large_is_put_away() -> None:
    assert "5,000" in await dead(envelope(after={"text": "x" * 5_000}), max_bytes=5_000)


async def test_change_that_does_not_say_what_the_row_is_now_is_put_away() -> None:
    assert "what it is now" in await dead(envelope("u", after=None))


@pytest.mark.parametrize("ms", [COMMITTED_MS + 2 * 86_400_000, 10**14, 10**18, -(10**15)])
async def test_change_of_a_far_time_is_put_away(ms: int) -> None:
    value = json.loads(envelope())
    value["source"]["ts_ms"] = ms

    assert await dead(json.dumps(value).encode())


@pytest.mark.parametrize("epoch", [b"x", b"-1", b"10000", None])
async def test_epoch_that_is_no_small_number_is_put_away(epoch: bytes | None) -> None:
    assert "epoch" in await dead(envelope(), [("epoch", epoch)])


@pytest.mark.parametrize("row", [{"n": 2**70}, {"a\x00b": 1}, {"text": "\ud800"}, {"text": "x" * MAX_BYTES}])
async def test_row_that_no_document_can_hold_is_put_away(row: dict[str, object]) -> None:
    reason = await dead(envelope(after=row), max_bytes=20_000_000)

    assert "cannot be kept" in reason
    assert len(reason) < 1_000
    reason.encode()


async def test_record_that_the_store_refuses_is_put_away_and_is_in_no_seal() -> None:
    class Picky(MemoryAuditStore):
        async def add(self, entries: Sequence[Entry]) -> Added:
            added = await super().add([one for one in entries if one.message.offset != 3])
            return Added(added.new, {at: "three" for at, one in enumerate(entries) if one.message.offset == 3}, {})

    audit = Audit()
    audit.store = Picky()
    audit.recorder = Recorder(audit.store, audit.seals, audit.dead, content_of)

    assert await audit.record(*of_lsn(0, 1, 2, 3, 4, 5)) == 5
    await audit.recorder.seal([("t", 0)])

    assert sorted(lsns(audit)) == [0, 1, 2, 4, 5]
    (letter,) = audit.dead.letters.values()
    assert (letter.message.offset, letter.reason) == (3, "three")
    (seal,) = audit.seals.seals.values()
    assert (len(seal.ids), seal.next) == (5, 6)


async def test_another_life_of_the_database_has_other_records_which_come_later() -> None:
    audit = Audit()
    again = message(envelope(lsn=1), offset=9, headers=[("epoch", b"1")])

    assert await audit.record(*of_lsn(1, 2), again) == 3
    ids = [record.id for record in audit.store.records]
    assert ids == sorted(ids)


# -- seals


def test_a_leaf_is_proven_by_its_neighbours_in_a_tree_of_any_size() -> None:
    for size in range(1, 70):
        leaves = [leaf(bytes([number])) for number in range(size)]
        assert all(climbed(leaves[at], path(leaves, at)) == root(leaves) for at in range(size))


def test_roots_of_other_leaves_or_in_another_order_are_others() -> None:
    leaves = [leaf(bytes([number])) for number in range(9)]

    assert len({root(leaves[:size]) for size in range(10)}) == 10
    assert root([leaves[1], leaves[0], *leaves[2:]]) != root(leaves)


async def test_seals_are_a_chain_without_gaps_over_all_messages_also_those_that_are_no_records() -> None:
    audit = Audit()
    for batch in (of_lsn(0, 1), [message(b"{", offset=2)], of_lsn(5, 9)):
        await audit.record(*batch)
        assert await audit.recorder.seal([("t", 0)]) == {("t", 0): batch[-1].offset + 1}

    first, second, third = audit.seals.seals.values()
    assert [(one.first, one.next, len(one.ids)) for one in (first, second, third)] == [(0, 2, 2), (2, 3, 0), (3, 10, 2)]
    assert [first.previous, second.previous, third.previous] == [FIRST, first.hash, second.hash]


async def test_what_was_recorded_and_comes_again_before_its_seal_is_sealed_once() -> None:
    audit = Audit()
    await audit.record(*of_lsn(0, 1))
    await audit.record(*of_lsn(0, 1, 2))
    await audit.recorder.seal([("t", 0)])

    (seal,) = audit.seals.seals.values()
    assert len(seal.ids) == len(set(seal.ids)) == 3


async def test_seal_is_due_after_some_time_or_some_records_and_not_before() -> None:
    audit = Audit(seal_after_s=0.05, seal_records=3)
    await audit.record(*of_lsn(0, 1))

    assert await audit.recorder.seal() == {}
    await audit.record(*of_lsn(2))
    assert await audit.recorder.seal() == {("t", 0): 3}
    await audit.record(*of_lsn(3))
    assert await audit.recorder.seal() == {}
    await asyncio.sleep(0.06)  # the time itself is the condition
    assert await audit.recorder.seal() == {("t", 0): 4}
    assert await audit.recorder.seal([("t", 0)]) == {}


async def test_who_takes_over_begins_where_the_last_seal_ended() -> None:
    audit = Audit()
    await audit.record(*of_lsn(0, 1))
    await audit.recorder.seal([("t", 0)])
    await audit.record(*of_lsn(2, 3))

    other = Audit(audit)

    assert await other.recorder.begin("t", 0) == 2
    assert await other.record(*of_lsn(2, 3, 4)) == 1
    await other.recorder.seal([("t", 0)])
    assert [seal.next for seal in audit.seals.seals.values()] == [2, 5]


async def test_consumer_that_was_paused_loses_to_the_one_that_took_over_and_reads_again() -> None:
    audit = Audit()
    await audit.record(*of_lsn(0, 1))
    other = Audit(audit)
    await other.record(*of_lsn(0, 1, 2))
    await other.recorder.seal([("t", 0)])

    with pytest.raises(SealedAlready):
        await audit.recorder.seal([("t", 0)])

    assert await audit.recorder.begin("t", 0) == 3
    assert len(audit.seals.seals) == 1


async def test_messages_that_were_removed_before_they_were_read_are_counted_in_the_seal() -> None:
    audit = Audit()
    await audit.record(*of_lsn(0, 1))
    await audit.recorder.seal([("t", 0)])

    assert await audit.recorder.begin("t", 0, oldest=7, end=10) == 7
    await audit.record(*of_lsn(7))
    await audit.recorder.seal([("t", 0)])

    assert [(seal.first, seal.next, seal.lost) for seal in audit.seals.seals.values()] == [(0, 2, 0), (2, 8, 5)]


async def test_topic_that_began_anew_is_refused_since_its_messages_would_be_taken_for_old_ones() -> None:
    audit = Audit()
    await audit.record(*of_lsn(0, 1))
    await audit.recorder.seal([("t", 0)])

    with pytest.raises(StartedAnew, match="sealed up to 2"):
        await audit.recorder.begin("t", 0, oldest=0, end=1)


async def test_record_that_somebody_put_there_before_is_sealed_as_it_should_be() -> None:
    audit = Audit()
    (entry, _), _ = await audit.recorder._read(of_lsn(0, 1))
    forged = content_of(record_of_change(envelope("u", lsn=0, after={"total": 1})))
    audit.store.entries[entry.id] = Entry(entry.message, entry.id, forged, leaf(forged))

    await audit.record(*of_lsn(0, 1))
    await audit.recorder.seal([("t", 0)])

    (seal,) = audit.seals.seals.values()
    assert seal.leaves[0] == entry.leaf != leaf(audit.store.entries[entry.id].content)


def test_content_is_the_record_and_nothing_else() -> None:
    record = record_of_change(envelope("u", before={"n": None}, after={"n": 2**60, "tags": [{"y": 1}, "✓"]}))

    assert record_of(record.id, content_of(record)) == record
    assert content_of(record) == content_of(record_of(record.id, content_of(record)))
