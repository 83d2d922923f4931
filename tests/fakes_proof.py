"""A store of the audit as documents, which anybody may change: what is verified, and how it is attacked.

The documents are those of MongoDB. `MemoryBooks` reads them as `MongoBooks` does, with the same functions.
"""

import copy
import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import bson
from bson.int64 import Int64

from showcase.audit.application.anchoring import Anchoring
from showcase.audit.application.books import Kept, Look, Partition, Report, Run, Stray
from showcase.audit.application.ports import Message
from showcase.audit.application.recorder import Recorder, Rules
from showcase.audit.application.verifying import Verification
from showcase.audit.application.verifying_anchors import AnchorVerification
from showcase.audit.domain.anchors import Anchor, Head, Signed
from showcase.audit.domain.seals import Seal
from showcase.audit.infrastructure.anchors import Key, Keys
from showcase.audit.infrastructure.content import OPTIONS, content_of
from showcase.audit.infrastructure.proof import content_in, kept_of, look_of, runs_of
from tests.fakes import MemoryAuditStore, MemoryDeadLetters, MemorySeals

RECORDED_AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = RECORDED_AT + timedelta(hours=1)
KEY = Key(b"k" * 32)

Document = dict[str, Any]


def message(topic: str, partition: int, offset: int, number: int) -> Message:
    """A change of the row `number`; one and the same, whenever it is told."""
    source = {"schema": "public", "table": "things", "lsn": number, "txId": number, "ts_ms": 1_700_000_000_000}
    value = {"op": "c", "source": source, "before": None, "after": {"n": number, "text": "x" * (number % 7)}}
    key = json.dumps({"n": number}).encode()
    return Message(topic=topic, partition=partition, offset=offset, key=key, value=json.dumps(value).encode())


@dataclass
class Audit:
    """What is stored, in the order in which it came."""

    records: list[Document] = field(default_factory=list)
    seals: list[Document] = field(default_factory=list)
    anchors: list[Signed] = field(default_factory=list)
    lines: list[Signed | str] = field(default_factory=list)

    def copy(self) -> "Audit":
        return copy.deepcopy(self)

    def record(self, offset: int, partition: int = 0, topic: str = "a") -> Document:
        """The record that stands at a place."""
        (found,) = [
            one for one in self.records if (one["topic"], one["partition"], one["offset"]) == (topic, partition, offset)
        ]
        return found

    def chain(self, partition: int = 0, topic: str = "a") -> list[Document]:
        """The seals of a partition."""
        some = [one for one in self.seals if (one["topic"], one["partition"]) == (topic, partition)]
        return sorted(some, key=lambda seal: seal["first"])

    async def verified(
        self,
        *,
        topic: str | None = None,
        with_file: bool = True,
        clock: Callable[[], datetime] = lambda: LATER,
        keys: Keys | None = None,
    ) -> Report:
        books, report = MemoryBooks(self), Report()
        await Verification(books, report, topic=topic, clock=clock).verify()
        check = (keys or Keys(KEY.public)).check
        lines = self.lines if with_file else None
        anchors = MemoryAnchors(self.anchors)
        await AnchorVerification(books, report, anchors, check, copy=lines, topic=topic, clock=clock).verify()
        report.sort()
        return report


@dataclass
class Batch:
    """What came in together of one partition, and was sealed: the rows, of which some were told before."""

    topic: str
    partition: int
    rows: Sequence[int]
    is_anchored: bool = True


async def audit_of(batches: Sequence[Batch]) -> Audit:
    """A store that the recorder has filled, and the anchors that were made meanwhile."""
    store, seals, audit = MemoryAuditStore(), MemorySeals(), Audit()
    recorder = Recorder(store, seals, MemoryDeadLetters(), content_of, rules=Rules())
    copied = MemoryCopy(audit.lines)
    anchoring = Anchoring(
        MemoryHeads(seals),
        MemoryAnchors(audit.anchors),
        copied,
        KEY.sign,
        Keys(KEY.public).check,
        lambda: RECORDED_AT,
    )
    offsets: dict[Partition, int] = {}
    for batch in batches:
        here = batch.topic, batch.partition
        first = offsets.get(here, 0)
        offsets[here] = first + len(batch.rows)
        await recorder.record([message(*here, first + at, row) for at, row in enumerate(batch.rows)])
        await recorder.seal([here])
        if batch.is_anchored:
            await anchoring.anchor()
    audit.records = [
        {
            "_id": entry.id,
            "change": bson.decode(entry.content, OPTIONS),
            "topic": entry.message.topic,
            "partition": entry.message.partition,
            "offset": entry.message.offset,
            "recorded_at": RECORDED_AT,
            "version": 1,
        }
        for entry in store.entries.values()
    ]
    audit.seals = [seal_document(seal) for seal in seals.seals.values()]
    return audit


def seal_document(seal: Seal) -> Document:
    return {
        "_id": seal.id,
        "topic": seal.topic,
        "partition": seal.partition,
        "first": seal.first,
        "next": seal.next,
        "ids": list(seal.ids),
        "leaves": b"".join(seal.leaves),
        "root": seal.root.hex(),
        "lost": seal.lost,
        "previous": seal.previous,
        "hash": seal.hash,
        "sealed_at": RECORDED_AT,
        "version": 1,
    }


class MemoryBooks:
    """See `application.books.Books` and `application.proving.Shelf`."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def records(self, topic: str | None) -> AsyncIterator[Run | Stray]:
        some = sorted((one for one in self._audit.records if topic in (None, one.get("topic"))), key=_place)
        for at in range(0, len(some), 7):  # batches end anywhere
            for run in runs_of(b"".join(map(bson.encode, some[at : at + 7]))):
                yield run

    async def seals(self, topic: str | None) -> AsyncIterator[Kept]:
        some = [one for one in self._audit.seals if topic in (None, one.get("topic"))]
        for document in sorted(
            some, key=lambda one: [_rank(one.get(name)) for name in ("topic", "partition", "first")]
        ):
            yield kept_of(document)

    async def look(self, ids: Sequence[str]) -> Mapping[str, Look]:
        return {one["_id"]: look_of(bson.encode(one)) for one in self._audit.records if one["_id"] in ids}

    async def content(self, id_: str) -> tuple[Look, bytes] | None:
        for one in self._audit.records:
            if one["_id"] == id_:
                return look_of(bson.encode(one)), content_in(bson.encode(one))
        return None

    async def covering(self, partition: Partition, offset: int) -> Seal | None:
        some = [seal for seal in self._seals(partition) if seal.first <= offset < seal.next]
        return max(some, key=lambda seal: seal.first, default=None)

    async def chain(self, partition: Partition, first: int, last: int, limit: int) -> Sequence[Seal]:
        return sorted(
            (seal for seal in self._seals(partition) if first <= seal.first <= last), key=lambda seal: seal.first
        )[:limit]

    async def heads(self, ids: Sequence[str]) -> Mapping[str, tuple[int, str]]:
        return {one["_id"]: (one["next"], one["hash"]) for one in self._audit.seals if one["_id"] in ids}

    def _seals(self, partition: Partition) -> Iterator[Seal]:
        for document in self._audit.seals:
            kept = kept_of(document)
            if kept.seal is not None and kept.partition == partition:
                yield kept.seal


def _place(record: Document) -> list[Any]:
    return [_rank(record.get(name)) for name in ("topic", "partition", "offset")]


def _rank(value: object) -> tuple[int, Any]:
    """As MongoDB sorts: nothing, numbers, text, the rest."""
    if value is None:
        return 0, 0
    if isinstance(value, int | float) and not isinstance(value, bool):
        return 1, value
    return (2, value) if isinstance(value, str) else (3, repr(value))


class MemoryHeads:
    """See `application.anchoring.Heads`."""

    def __init__(self, seals: MemorySeals) -> None:
        self._seals = seals

    async def newest(self) -> Sequence[Head]:
        newest: dict[Partition, Head] = {}
        for seal in self._seals.seals.values():
            here = seal.topic, seal.partition
            if here not in newest or newest[here].first < seal.first:
                newest[here] = Head(topic=here[0], partition=here[1], first=seal.first, next=seal.next, hash=seal.hash)
        return sorted(newest.values())


class MemoryAnchors:
    """See `application.anchoring.Anchors` and `application.proving.Naming`."""

    def __init__(self, signed: list[Signed]) -> None:
        self.signed = signed

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        yield

    async def last(self) -> Signed | None:
        return self.signed[-1] if self.signed else None

    async def add(self, signed: Signed) -> None:
        self.signed.append(signed)

    async def after(self, number: int = 0) -> AsyncIterator[Signed]:
        for signed in list(self.signed)[number:]:
            yield signed

    async def naming(self, topic: str, partition: int, next_: int) -> Signed | None:
        for signed in self.signed:
            for head in Anchor.of(signed.statement).heads:
                if (head.topic, head.partition) == (topic, partition) and head.next >= next_:
                    return signed
        return None


class MemoryCopy:
    """See `application.anchoring.Copy`."""

    def __init__(self, lines: list[Signed | str]) -> None:
        self.lines = lines

    async def end(self) -> int:
        return len(self.lines)

    async def append(self, some: Sequence[Signed]) -> None:
        self.lines += some


# -- attacks, by somebody who may do anything in MongoDB; each gives the kind and the place that are to be found first

Attack = Callable[[Audit], tuple[str, Partition, int]]


def edit_a_value(audit: Audit) -> tuple[str, Partition, int]:
    audit.record(7)["change"]["after"]["n"] = 1_000
    return "edited", ("a", 0), 7


def edit_what_it_is_of(audit: Audit) -> tuple[str, Partition, int]:
    audit.record(7)["change"]["entity_id"] = "1000"
    return "edited", ("a", 0), 7


def edit_an_id(audit: Audit) -> tuple[str, Partition, int]:
    audit.record(7)["_id"] = "0000-00-1-00"
    return "removed", ("a", 0), 7


def edit_an_id_in_record_and_seal(audit: Audit) -> tuple[str, Partition, int]:
    record = audit.record(7)
    for seal in audit.seals:
        seal["ids"] = [f"{one}x" if one == record["_id"] else one for one in seal["ids"]]
    record["_id"] += "x"
    return "broken chain", ("a", 0), 5


def remove_a_record(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.remove(audit.record(8))
    return "removed", ("a", 0), 8


def remove_the_last_record_of_a_seal(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.remove(audit.record(9))
    return "removed", ("a", 0), 9


def insert_into_a_sealed_range(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.append({**copy.deepcopy(audit.record(7)), "_id": "0000-00-1-00"})
    return "inserted", ("a", 0), 7


def insert_before_everything(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.append({**copy.deepcopy(audit.record(7)), "_id": "0000-00-1-00", "offset": -5})
    return "inserted", ("a", 0), -5


def insert_after_the_last_seal(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.append({**copy.deepcopy(audit.record(7)), "_id": "0000-00-1-00", "offset": 999})
    return "inserted", ("a", 0), 999


def insert_as_if_recorded_in_the_future(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.append(
        {
            **copy.deepcopy(audit.record(7)),
            "_id": "0000-00-1-00",
            "offset": 999,
            "recorded_at": datetime(9000, 1, 1, tzinfo=UTC),
        }
    )
    return "inserted", ("a", 0), 999


def insert_into_an_unknown_topic(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.append({**copy.deepcopy(audit.record(7)), "_id": "0000-00-1-00", "topic": "0"})
    return "inserted", ("0", 0), 7


def insert_without_a_place(audit: Audit) -> tuple[str, Partition, int]:
    audit.records.append({"_id": "0000-00-1-00", "change": audit.record(7)["change"]})
    return "inserted", ("", -1), -1


def append_a_second_content(audit: Audit) -> tuple[str, Partition, int]:
    """Readers would take another one of the two than whoever verifies: documents like this exist, dicts do not."""
    audit.record(7)["extra"] = {"after": {"n": 1_000}}
    return "edited", ("a", 0), 7


def swap_contents(audit: Audit) -> tuple[str, Partition, int]:
    one, other = audit.record(6), audit.record(8)
    one["change"], other["change"] = other["change"], one["change"]
    return "reordered", ("a", 0), 6


def swap_contents_of_two_seals(audit: Audit) -> tuple[str, Partition, int]:
    one, other = audit.record(6), audit.record(12)
    one["change"], other["change"] = other["change"], one["change"]
    return "reordered", ("a", 0), 6


def swap_offsets(audit: Audit) -> tuple[str, Partition, int]:
    one, other = audit.record(6), audit.record(8)
    one["offset"], other["offset"] = 8, 6
    return "reordered", ("a", 0), 6


def swap_offsets_of_two_seals(audit: Audit) -> tuple[str, Partition, int]:
    one, other = audit.record(6), audit.record(12)
    one["offset"], other["offset"] = 12, 6
    return "reordered", ("a", 0), 6


def move_to_another_partition(audit: Audit) -> tuple[str, Partition, int]:
    audit.record(6)["partition"] = 1
    return "reordered", ("a", 0), 6


def edit_a_seal(audit: Audit) -> tuple[str, Partition, int]:
    audit.chain()[1]["lost"] = 1
    return "broken chain", ("a", 0), 5


def edit_the_leaves_of_a_seal(audit: Audit) -> tuple[str, Partition, int]:
    audit.chain()[1]["leaves"] = bytes(32) + audit.chain()[1]["leaves"][32:]
    return "broken chain", ("a", 0), 5


def make_a_seal_unreadable(audit: Audit) -> tuple[str, Partition, int]:
    audit.chain()[1]["ids"] = 7
    return "broken chain", ("a", 0), 5


def make_the_last_seal_unreadable(audit: Audit) -> tuple[str, Partition, int]:
    audit.chain()[-1]["ids"] = 7
    return "broken chain", ("a", 0), 10


def remove_the_first_seal(audit: Audit) -> tuple[str, Partition, int]:
    audit.seals.remove(audit.chain()[0])
    return "broken chain", ("a", 0), 0


def remove_a_seal(audit: Audit) -> tuple[str, Partition, int]:
    audit.seals.remove(audit.chain()[1])
    return "broken chain", ("a", 0), 5


def remove_a_seal_and_its_records(audit: Audit) -> tuple[str, Partition, int]:
    audit.seals.remove(audit.chain()[1])
    audit.records = [one for one in audit.records if one["offset"] not in range(5, 10) or one["topic"] != "a"]
    return "broken chain", ("a", 0), 5


def edit_and_seal_again(audit: Audit) -> tuple[str, Partition, int]:
    edit_a_value(audit)
    reseal(audit, audit.chain()[1])
    return "broken chain", ("a", 0), 5


def edit_and_seal_all_again(audit: Audit) -> tuple[str, Partition, int]:
    """Nothing in the store shows it."""
    edit_a_value(audit)
    reseal(audit, *audit.chain()[1:])
    return "broken chain", ("a", 0), 5


def cut_the_tail(audit: Audit) -> tuple[str, Partition, int]:
    """Nothing in the store shows it."""
    audit.seals.remove(audit.chain()[-1])
    audit.records = [one for one in audit.records if one["offset"] < 10 or one["topic"] != "a"]
    return "missing tail", ("a", 0), 10


def remove_a_partition(audit: Audit) -> tuple[str, Partition, int]:
    """Nothing in the store shows it."""
    audit.seals = [one for one in audit.seals if (one["topic"], one["partition"]) != ("a", 1)]
    audit.records = [one for one in audit.records if (one["topic"], one["partition"]) != ("a", 1)]
    return "missing tail", ("a", 1), 0


def restore_older_seals(audit: Audit) -> tuple[str, Partition, int]:
    audit.seals = audit.chain()[:1] + audit.chain(1) + audit.chain(0, "b")
    return "missing tail", ("a", 0), 5


def cut_store_and_table(audit: Audit) -> tuple[str, Partition, int]:
    found = cut_the_tail(audit)
    del audit.anchors[3:]
    return found


ATTACKS: tuple[Attack, ...] = (
    edit_a_value,
    edit_what_it_is_of,
    edit_an_id,
    edit_an_id_in_record_and_seal,
    remove_a_record,
    remove_the_last_record_of_a_seal,
    insert_into_a_sealed_range,
    insert_before_everything,
    insert_after_the_last_seal,
    insert_as_if_recorded_in_the_future,
    insert_into_an_unknown_topic,
    insert_without_a_place,
    append_a_second_content,
    swap_contents,
    swap_contents_of_two_seals,
    swap_offsets,
    swap_offsets_of_two_seals,
    move_to_another_partition,
    edit_a_seal,
    edit_the_leaves_of_a_seal,
    make_a_seal_unreadable,
    make_the_last_seal_unreadable,
    remove_the_first_seal,
    remove_a_seal,
    remove_a_seal_and_its_records,
    edit_and_seal_again,
    edit_and_seal_all_again,
    cut_the_tail,
    remove_a_partition,
    restore_older_seals,
    cut_store_and_table,
)
LAST_SEAL_ANCHORED = (
    *(Batch("a", 0, range(5)), Batch("a", 1, range(100, 103)), Batch("a", 0, range(5, 10))),
    *(Batch("b", 0, range(200, 204)), Batch("a", 0, range(10, 15)), Batch("a", 1, range(103, 110))),
)
"""Each is anchored. In `a:0` the rows are the offsets."""


def reseal(audit: Audit, *seals: Document) -> None:
    """Make seals anew from the records that are there, each after the one before it."""
    previous = seals[0]["previous"]
    for document in seals:
        here = document["topic"], document["partition"]
        some = [
            one
            for one in audit.records
            if (one["topic"], one["partition"]) == here and document["first"] <= one["offset"] < document["next"]
        ]
        some.sort(key=lambda one: int(one["offset"]))
        seal = Seal(
            topic=here[0],
            partition=here[1],
            first=document["first"],
            next=document["next"],
            ids=tuple(one["_id"] for one in some),
            leaves=tuple(look_of(bson.encode(one)).leaf for one in some),
            lost=document["lost"],
            previous=previous,
        )
        previous = seal.hash
        document.update(seal_document(seal))


def wide(offset: int) -> Int64:
    """An offset as MongoDB has those beyond 32 bits."""
    return Int64(offset)
