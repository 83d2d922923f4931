"""Audit records and the recorder over stores in memory: nothing twice, nothing lost, nothing held up."""

import json
from collections.abc import Sequence
from typing import Any

import pytest

from showcase.audit.application import Added, Message, NoSuchEntity, Recorder, timeline
from showcase.audit.domain import Record
from showcase.kernel import changes
from showcase.kernel.changes import BrokenChange
from tests.fakes import MemoryAuditStore, MemoryDeadLetters

pytestmark = pytest.mark.anyio


def envelope(op: str = "u", *, lsn: int = 100, table: str = "orders", schema: str = "public", **rows: Any) -> bytes:
    """What Debezium writes of a change."""
    source = {"schema": schema, "table": table, "lsn": lsn, "txId": 7, "ts_ms": 1_700_000_000_000}
    return json.dumps({"op": op, "source": source, "before": None, "after": None, **rows}).encode()


def message(value: bytes | None, key: dict[str, object] | None = None, *, offset: int = 0) -> Message:
    """A record of a topic."""
    encoded = json.dumps({"order_id": "a"} if key is None else key).encode()
    return Message(topic="t", partition=0, offset=offset, key=encoded, value=value)


def record_of(value: bytes, key: dict[str, object] | None = None) -> Record:
    change = changes.read(message(value, key).key, value)
    assert change is not None
    return Record.of(change)


class Audit:
    """A recorder and where it puts things."""

    def __init__(self) -> None:
        self.store = MemoryAuditStore()
        self.dead = MemoryDeadLetters()
        self.recorder = Recorder(self.store, self.dead)

    async def record(self, *messages: Message) -> int:
        return await self.recorder.record(messages)


def test_record_says_what_changed_of_what() -> None:
    record = record_of(
        envelope("u", before={"line": 2, "quantity": 1, "note": None}, after={"line": 2, "quantity": 3, "note": None}),
        {"order_id": "a", "line": 2},
    )

    assert (record.entity_type, record.entity_id, record.operation) == ("orders", "a/2", "update")
    assert record.changed == ("quantity",)
    assert (record.lsn, record.transaction) == (100, "7")


def test_id_is_the_same_for_the_same_change_and_another_for_every_other_one() -> None:
    same = [record_of(envelope("u")).id, record_of(envelope("u", after={"b": 1})).id]
    others = [
        record_of(envelope("u", lsn=101)).id,
        record_of(envelope("u", table="order_lines")).id,
        record_of(envelope("u", schema="payment")).id,
        record_of(envelope("d")).id,
        record_of(envelope("u"), {"order_id": "b"}).id,
    ]

    assert len(set(same)) == 1
    assert len({*same, *others}) == 6


@pytest.mark.parametrize("table", [None, 7, ["orders"], {"a": 1}])
def test_a_change_of_a_table_whose_name_is_no_text_is_broken(table: Any) -> None:
    with pytest.raises(BrokenChange, match="no text"):
        record_of(envelope(table=table))


@pytest.mark.parametrize("key", [{}, [], 3, ["a"]])
def test_row_without_a_key_is_refused_since_two_of_them_could_be_taken_for_one(key: Any) -> None:
    with pytest.raises(BrokenChange, match="primary key"):
        record_of(envelope(), key)


async def test_same_messages_again_are_recorded_once() -> None:
    audit = Audit()
    messages = [message(envelope(lsn=lsn), offset=lsn) for lsn in range(5)]

    assert await audit.record(*messages) == 5
    assert await audit.record(*messages[3:], message(envelope(lsn=5), offset=5)) == 1


async def test_heartbeats_tombstones_and_truncations_are_no_records_and_no_dead_letters() -> None:
    audit = Audit()

    assert await audit.record(message(envelope(table="heartbeat")), message(None), message(envelope("t"))) == 0
    assert audit.dead.letters == {}


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"\xff", b"[]", b"3", b'{"op": "u"}', b'{"op": "x", "source": {}}', envelope("?"), b"[" * 100_000],
)
async def test_broken_message_is_put_away_with_the_reason_and_the_others_are_recorded(value: bytes) -> None:
    audit = Audit()

    new = await audit.record(message(envelope(lsn=1)), message(value, offset=1), message(envelope(lsn=2), offset=2))

    assert new == 2
    (letter,) = audit.dead.letters.values()
    assert (letter.message.offset, letter.message.value) == (1, value)
    assert "envelope" in letter.reason


async def test_row_that_is_no_set_of_columns_is_put_away() -> None:
    audit = Audit()

    assert await audit.record(message(envelope("u", after="text", before=[1]))) == 0
    assert len(audit.dead.letters) == 1


async def test_record_that_cannot_be_stored_is_put_away_and_the_others_are_stored() -> None:
    class Picky(MemoryAuditStore):
        async def add(self, records: Sequence[Record]) -> Added:
            added = await super().add([record for record in records if record.lsn != 3])
            return Added(added.new, {at: "three" for at, record in enumerate(records) if record.lsn == 3})

    store, dead = Picky(), MemoryDeadLetters()
    messages = [message(envelope(lsn=lsn), offset=lsn) for lsn in range(6)]

    new = await Recorder(store, dead).record([message(b"{", offset=9), message(None, offset=8), *messages])

    assert (new, sorted(record.lsn for record in store.records.values())) == (5, [0, 1, 2, 4, 5])
    broken, refused = dead.letters.values()
    assert broken.message.offset == 9
    assert (refused.message, refused.reason) == (messages[3], "three")


async def test_timeline_is_in_the_order_of_the_log_a_snapshot_first_and_comes_in_pages() -> None:
    audit = Audit()
    await audit.record(
        *(message(envelope(op, lsn=lsn)) for op, lsn in [("d", 9), ("u", 4), ("u", 3), ("r", 3)]),
        message(envelope("u", lsn=5), {"order_id": "another"}),
    )

    first, following = await timeline(audit.store, "orders", "a", None, 3)
    second, end = await timeline(audit.store, "orders", "a", following, 3)

    assert [(record.lsn, record.operation) for record in first] == [(3, "read"), (3, "update"), (4, "update")]
    assert [(record.lsn, record.operation) for record in second] == [(9, "delete")]
    assert end is None


async def test_page_that_ends_with_the_last_record_is_the_last() -> None:
    audit = Audit()
    await audit.record(message(envelope(lsn=1)), message(envelope(lsn=2)))

    assert (await timeline(audit.store, "orders", "a", None, 2))[1] is None


async def test_nothing_recorded_is_no_such_entity() -> None:
    with pytest.raises(NoSuchEntity):
        await timeline(Audit().store, "orders", "a", None, 10)
