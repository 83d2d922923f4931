"""Consumers that take partitions over from one another, stop, fail and hear everything twice: one store, one chain.

Each rule is one thing that happens in a group of consumers; whatever their order, what is stored is what was told,
once, and the seals hold.
"""

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from showcase.audit.application.ports import Added, Entry, Message, SealedAlready
from showcase.audit.application.recorder import Recorder, Rules
from showcase.audit.domain.seals import FIRST, Seal, leaf
from showcase.audit.infrastructure.content import content_of
from showcase.kernel.errors import Unavailable
from tests.fakes import MemoryAuditStore, MemoryDeadLetters, MemorySeals
from tests.unit.test_audit import envelope, record_of_change

PARTITIONS = (0, 1)
BROKEN = b"{"


class Breaking(MemoryAuditStore):
    """A store whose answer is lost once after it has kept a part."""

    breaks_after: int | None = None

    async def add(self, entries: Sequence[Entry]) -> Added:
        if self.breaks_after is None:
            return await super().add(entries)
        kept, self.breaks_after = self.breaks_after, None
        await super().add(entries[:kept])
        raise Unavailable("the answer was lost")


class BreakingSeals(MemorySeals):
    """Seals of which one is kept, and nobody is told."""

    breaks: bool = False

    async def add(self, seal: Seal) -> None:
        await super().add(seal)
        if self.breaks:
            self.breaks = False
            raise Unavailable("the answer was lost")


class Consumers(RuleBasedStateMachine):
    """Two consumers, of which each believes that some partitions are its own."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store, self.seals, self.dead = Breaking(), BreakingSeals(), MemoryDeadLetters()
        self.topic: dict[int, list[Message]] = defaultdict(list)
        self.consumers = [self.joined(), self.joined()]
        self.read: dict[tuple[int, int], int] = {}
        self.lsn = 0
        for partition in (*PARTITIONS, *PARTITIONS):
            self.told(partition, "a", "new")
            self.takes_over(partition, partition)

    def teardown(self) -> None:
        self.loop.close()

    def joined(self) -> Recorder:
        return Recorder(self.store, self.seals, self.dead, content_of, rules=Rules(seal_after_s=0, seal_records=3))

    @rule(
        partition=st.sampled_from(PARTITIONS),
        row=st.sampled_from("ab"),
        kind=st.sampled_from(["new", "new", "new", "again", "broken"]),
    )
    def told(self, partition: int, row: str, kind: str) -> None:
        """The source tells a change, or one that it told before, or what is none."""
        here, every = self.topic[partition], [one for some in self.topic.values() for one in some]
        if kind == "again" and every:
            value, key = every[self.lsn % len(every)].value, every[self.lsn % len(every)].key
        else:
            self.lsn += 1
            value = BROKEN if kind == "broken" else envelope(lsn=self.lsn // 2, after={"n": self.lsn // 2})
            key = json.dumps({"id": row + str(self.lsn % 2)}).encode()
        here.append(Message(topic="t", partition=partition, offset=len(here), key=key, value=value))

    @rule(who=st.sampled_from((0, 1)), partition=st.sampled_from(PARTITIONS))
    def takes_over(self, who: int, partition: int) -> None:
        """Also while the other one does not know that it has lost the partition."""
        self.read[who, partition] = self.loop.run_until_complete(self.consumers[who].begin("t", partition))

    @rule(
        who=st.sampled_from((0, 1)),
        partition=st.sampled_from(PARTITIONS),
        many=st.integers(1, 4),
        breaks=st.none() | st.integers(0, 2),
        repeats=st.booleans(),
    )
    def records(self, who: int, partition: int, many: int, breaks: int | None, repeats: bool) -> None:
        at = self.read.get((who, partition))
        if at is None:
            return
        self.store.breaks_after = breaks
        try:
            self.loop.run_until_complete(self.consumers[who].record(self.topic[partition][at : at + many]))
            if not repeats:
                self.read[who, partition] = min(at + many, len(self.topic[partition]))
        except Unavailable:
            pass  # the same messages come again
        finally:
            self.store.breaks_after = None

    @rule(who=st.sampled_from((0, 1)), breaks=st.booleans(), all_=st.booleans())
    def seals_what_it_has(self, who: int, breaks: bool, all_: bool) -> None:
        self.seals.breaks = breaks
        mine = [("t", partition) for partition in PARTITIONS if (who, partition) in self.read]
        try:
            self.loop.run_until_complete(self.consumers[who].seal(mine if all_ else None))
        except (SealedAlready, Unavailable):
            self.dies(who)  # it joins the group anew
        finally:
            self.seals.breaks = False

    @rule(who=st.sampled_from((0, 1)))
    def dies(self, who: int) -> None:
        self.consumers[who] = self.joined()
        for partition in PARTITIONS:
            self.read.pop((who, partition), None)

    @precondition(lambda self: any(self.topic.values()))
    @rule()
    def all_is_read(self) -> None:
        """One consumer is left, and reads to the end."""
        for who in (0, 1):
            self.dies(who)
        for partition in PARTITIONS:
            self.takes_over(0, partition)
            self.records(0, partition, len(self.topic[partition]) + 1, None, False)
        self.seals_what_it_has(0, False, True)

        every = [one for some in self.topic.values() for one in some]
        assert self.store.entries.keys() == {id_of(one) for one in every if one.value != BROKEN}
        for partition in PARTITIONS:
            newest = self.loop.run_until_complete(self.seals.newest("t", partition))
            assert (newest.next if newest else 0) == len(self.topic[partition])
        broken = {(one.partition, one.offset) for one in every if one.value == BROKEN}
        assert {(partition, offset) for _, partition, offset in self.dead.letters} == broken

    @invariant()
    def seals_hold(self) -> None:
        for partition in PARTITIONS:
            chain = sorted((one for one in self.seals.seals.values() if one.partition == partition), key=_first)
            previous, next_ = FIRST, 0
            for seal in chain:
                assert (seal.first, seal.previous) == (next_, previous)
                for id_, sealed in zip(seal.ids, seal.leaves, strict=True):
                    assert leaf(self.store.entries[id_].content) == sealed
                told = self.topic[partition][seal.first : seal.next]
                assert seal.ids == tuple(id_of(one) for one in told if one.value != BROKEN)
                previous, next_ = seal.hash, seal.next


def id_of(told: Message) -> str:
    return record_of_change(told.value or b"", json.loads(told.key or b"{}")).id


def _first(seal: Seal) -> int:
    return seal.first


TestConsumers = Consumers.TestCase
TestConsumers.settings = settings(
    max_examples=150, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
