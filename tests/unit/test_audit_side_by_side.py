"""The recorder keeps two cores busy: what it has read is on its way into the store while it reads on."""

import asyncio
from collections.abc import Sequence

import pytest

from showcase.audit.application.ports import Added, Entry
from showcase.audit.application.recorder import PART, Recorder, Rules
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import FIRST, Seal
from showcase.audit.infrastructure.content import content_of
from showcase.kernel.errors import Unavailable
from tests.fakes import MemoryAuditStore, MemoryDeadLetters, MemorySeals
from tests.unit.test_audit import envelope, message, of_lsn

pytestmark = pytest.mark.anyio
TWO_PARTS = range(PART + 3)


class Audit:
    """A recorder, and in which order things happen in it."""

    def __init__(self, store: "Store | None" = None, seals: MemorySeals | None = None) -> None:
        self.steps: list[str] = []
        self.store = store or Store()
        self.store.steps = self.steps
        self.seals = seals or MemorySeals()
        self.dead = MemoryDeadLetters()
        self.recorder = Recorder(self.store, self.seals, self.dead, self._encode, rules=Rules(seal_records=1))

    def _encode(self, record: Record) -> bytes:
        self.steps.append("read")
        return content_of(record)


class Store(MemoryAuditStore):
    """A store that takes its time, refuses some, or is away from some offset on."""

    def __init__(self, refused: Sequence[int] = (), away_from: int | None = None) -> None:
        super().__init__()
        self.steps: list[str] = []
        self.away_from = away_from
        self._refused = refused

    async def add(self, entries: Sequence[Entry]) -> Added:
        self.steps.append("sent")
        await asyncio.sleep(0)
        if self.away_from is not None and entries[0].message.offset >= self.away_from:
            raise Unavailable("mongo does not answer")
        refused = {at: "too large" for at, one in enumerate(entries) if one.message.offset in self._refused}
        added = await super().add([one for at, one in enumerate(entries) if at not in refused])
        return Added(added.new, refused, added.other)


async def test_what_was_read_is_sent_before_more_is_read() -> None:
    audit = Audit()

    assert await audit.recorder.record(of_lsn(*TWO_PARTS)) == len(TWO_PARTS)

    assert audit.steps == ["read"] * PART + ["sent"] + ["read"] * 3 + ["sent"]


async def test_all_parts_are_in_one_seal_in_their_order_but_for_what_the_store_refused() -> None:
    audit = Audit(Store(refused=[1, PART + 1]))

    await audit.recorder.record(of_lsn(*TWO_PARTS))
    assert await audit.recorder.seal() == {("t", 0): len(TWO_PARTS)}

    (seal,) = audit.seals.seals.values()
    offsets = [audit.store.entries[id_].message.offset for id_ in seal.ids]
    assert offsets == [at for at in TWO_PARTS if at not in (1, PART + 1)]
    assert list(audit.dead.letters) == [("t", 0, 1), ("t", 0, PART + 1)]


async def test_a_store_that_fails_in_one_part_is_unavailable_and_nothing_is_to_be_sealed() -> None:
    audit = Audit(Store(away_from=PART))

    with pytest.raises(Unavailable, match="does not answer"):
        await audit.recorder.record(of_lsn(*TWO_PARTS))
    assert await audit.recorder.seal([("t", 0)]) == {}

    audit.store.away_from = None
    assert await audit.recorder.record(of_lsn(*TWO_PARTS)) == 3


class SlowSeals(MemorySeals):
    """Seals that are kept when those of three partitions are under way; that of one is not, the first time."""

    def __init__(self, broken: int | None = None) -> None:
        super().__init__()
        self._under_way: set[int] = set()
        self._all = asyncio.Event()
        self._broken = broken

    async def add(self, seal: Seal) -> None:
        self._under_way.add(seal.partition)
        if len(self._under_way) == 3:
            self._all.set()
        await asyncio.wait_for(self._all.wait(), 5)
        if seal.partition == self._broken:
            self._broken = None
            while len(self.seals) < 2:  # noqa: ASYNC110 - a fake without a condition
                await asyncio.sleep(0)
            raise Unavailable("mongo does not answer")
        await super().add(seal)


async def test_partitions_are_sealed_side_by_side_and_wait_for_the_disk_once() -> None:
    audit = Audit(seals=SlowSeals())
    await audit.recorder.record([message(envelope(lsn=at), partition=at) for at in range(3)])

    assert await audit.recorder.seal() == {("t", at): 1 for at in range(3)}
    assert [seal.previous for seal in audit.seals.seals.values()] == [FIRST] * 3


async def test_a_seal_that_is_not_kept_spoils_none_of_the_others() -> None:
    audit = Audit(seals=SlowSeals(broken=1))
    await audit.recorder.record([message(envelope(lsn=at), partition=at) for at in range(3)])

    with pytest.raises(Unavailable, match="does not answer"):
        await audit.recorder.seal()
    assert await audit.recorder.seal() == {("t", 1): 1}
