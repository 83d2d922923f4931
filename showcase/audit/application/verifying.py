"""Verifying: that what was sealed is all there, unchanged and in its order, and nothing else.

All records are read once, in the order of their places, beside the seals of these places, so that memory holds what
one seal has and no more. What is not where it should be is then looked for by its id.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice

from showcase.audit.application.books import (
    Books,
    Checked,
    Kept,
    Look,
    Notebook,
    Partition,
    Records,
    Report,
    Run,
    Stray,
)
from showcase.audit.domain.findings import Kind
from showcase.audit.domain.seals import FIRST, Seal
from showcase.kernel.clock import Clock, system_clock

AT_ONCE = 1_000
AHEAD = timedelta(minutes=1)
"""A record that is recorded so far in the future is not: clocks differ by less."""


@dataclass(slots=True)
class _Chain:
    """How far the seals of a partition were followed; `hashes` is what the next one may name."""

    first: int = 0
    next: int = 0
    record: str = ""
    hashes: frozenset[str] = frozenset({FIRST})


class Verification:
    """One walk through all records and seals.

    Args:
        report: what it comes to is noted there.
        topic: all, if none is named.
        grace: so long after it was recorded a record may have no seal.
        tell: told of each partition when it is done.
    """

    def __init__(
        self,
        books: Books,
        report: Report,
        *,
        topic: str | None = None,
        grace: timedelta = timedelta(seconds=30),
        clock: Clock = system_clock,
        tell: Callable[[Checked], None] = lambda _: None,
    ) -> None:
        self._books = books
        self._report = report
        self._topic = topic
        self._grace = grace
        self._clock = clock
        self._tell = tell
        self._notebook = Notebook(books, report)
        self._found = self._notebook.found
        self._records = Records(books.records(topic), self._notebook)
        self._chain = _Chain()

    async def verify(self) -> None:
        """Raises Unavailable."""
        here: Partition | None = None
        async for kept in self._books.seals(self._topic):
            if kept.partition != here:
                await self._pass(here, kept.partition)
                here, self._chain = kept.partition, _Chain()
            await self._seal(kept)
        await self._pass(here, None)

    async def _pass(self, here: Partition | None, until: Partition | None) -> None:
        """Leave a partition and go on to the records of another one: before it there are only such as have no seal."""
        while (run := await self._records.next()) is not None and (until is None or run.partition < until):
            if here is not None and run.partition != here:
                self._tell(self._report.of(here))
            here = run.partition
            if isinstance(run, Stray):
                await self._records.drop(run)
            elif (part := await self._records.take(run.partition)) is not None:
                await self._unsealed(part)
        if here is not None:
            self._tell(self._report.of(here))

    async def _unsealed(self, run: Run) -> None:
        now, checked = self._clock(), self._report.of(run.partition)
        for offset, id_, at in zip(run.offsets, run.ids, run.at, strict=True):
            if at is not None and now - self._grace <= at <= now + AHEAD:
                checked.unsealed += 1
                continue
            age = "at no time" if at is None else f"{(now - at).total_seconds():.0f} s ago"
            await self._found(
                Kind.INSERTED,
                run.partition,
                offset,
                id_,
                f"up to {checked.next}",
                f"a record of {age}: put in, or its consumer has stopped",
            )

    async def _seal(self, kept: Kept) -> None:
        here, chain = kept.partition, self._chain
        checked = self._report.of(here)
        checked.seals += 1
        if kept.seal is None:
            await self._found(Kind.BROKEN_CHAIN, here, kept.first, "", "a seal", f"{kept.id}, which cannot be read")
            return
        seal, link = kept.seal, kept.seal.link
        first = seal.ids[0] if seal.ids else ""
        if (kept.id, kept.root, kept.hash) != (seal.id, link.root.hex(), link.hash):
            what = f"the seal of hash {kept.hash:.16}"
            await self._found(Kind.BROKEN_CHAIN, here, seal.first, first, what, "one with other contents")
        if not (seal.first < seal.next and 0 <= seal.lost <= seal.next - seal.first):
            there = f"a seal of {seal.first} to {seal.next}, {seal.lost} lost"
            await self._found(Kind.BROKEN_CHAIN, here, seal.first, first, "some messages", there)
        await self._gap(seal, chain)
        if seal.first == chain.next and seal.previous not in chain.hashes:
            sealed, there = f"the seal of hash {seal.previous:.16}", f"one of hash {min(chain.hashes):.16}"
            await self._found(Kind.BROKEN_CHAIN, here, chain.first, chain.record, sealed, there)
        if seal.lost:
            checked.lost += seal.lost
            await self._found(Kind.LOST, here, seal.first, "", f"{seal.lost} messages", "none of them")
        self._chain = _Chain(seal.first, max(chain.next, seal.next), first, frozenset({kept.hash, link.hash}))
        checked.next = self._chain.next
        await _Batch(self._books, self._notebook, self._records, seal).verify()

    async def _gap(self, seal: Seal, chain: _Chain) -> None:
        """What lies before a seal and after the one before it: nothing."""
        here, is_gap = (seal.topic, seal.partition), seal.first != chain.next
        record = ""
        while (part := await self._records.take(here, seal.first)) is not None:
            record = record or part.ids[0]
            if not is_gap:
                for offset, id_ in zip(part.offsets, part.ids, strict=True):
                    await self._found(Kind.INSERTED, here, offset, id_, "nothing here", "a record")
        if is_gap:
            sealed, there = f"messages from {chain.next} on", f"no seal before {seal.first}"
            if seal.first < chain.next:
                there = f"a second seal, from {seal.first} on"
            at = min(chain.next, seal.first)
            await self._found(Kind.BROKEN_CHAIN, here, at, record, sealed, there)


class _Batch:
    """The records of one seal, compared with it."""

    def __init__(self, books: Books, notebook: Notebook, records: Records, seal: Seal) -> None:
        self._books = books
        self._found = notebook.found
        self._records = records
        self._seal = seal
        self._here = seal.topic, seal.partition
        self._checked = notebook.report.of(self._here)
        self._leaves: dict[str, bytes] = {}
        self._ids: dict[str, None] = {}
        """Those of the seal that were not found one after the other: in their order, each once."""
        self._there: dict[str, tuple[int, bytes]] = {}
        self._last = seal.first - 1

    async def verify(self) -> None:
        seal, at, is_whole = self._seal, 0, True
        while (part := await self._records.take(self._here, seal.next)) is not None:
            to = at + len(part.ids)
            self._checked.records += len(part.ids)
            if is_whole and (seal.ids[at:to], seal.leaves[at:to]) == (tuple(part.ids), tuple(part.leaves)):
                at, self._last = to, part.offsets[-1]
                continue
            if is_whole:
                self._rest(at)
                is_whole = False
            await self._sort(part)
        if is_whole and at < len(seal.ids):
            self._rest(at)
        if self._ids:
            await self._compare()

    def _rest(self, at: int) -> None:
        self._ids = dict.fromkeys(self._seal.ids[at:])
        self._leaves = dict(zip(self._seal.ids[at:], self._seal.leaves[at:], strict=True))

    async def _sort(self, part: Run) -> None:
        for offset, id_, leaf in zip(part.offsets, part.ids, part.leaves, strict=True):
            if id_ in self._ids:
                self._there[id_] = offset, leaf
            else:
                await self._found(Kind.INSERTED, self._here, offset, id_, "nothing here", "a record")

    async def _compare(self) -> None:
        """Where ids differ from the seal's, and contents from its leaves; then what is missing."""
        expected = [id_ for id_ in self._ids if id_ in self._there]
        for id_, (other, (offset, _)) in zip(expected, self._there.items(), strict=True):
            if id_ != other:
                await self._found(Kind.REORDERED, self._here, offset, other, f"{id_} here", "this one")
        wrong = {id_: offset for id_, (offset, leaf) in self._there.items() if leaf != self._leaves[id_]}
        await self._changed(wrong)
        missing: dict[str, int] = {}
        last = self._last
        for id_ in self._ids:
            last = self._there[id_][0] if id_ in self._there else last + 1
            if id_ not in self._there:
                missing[id_] = min(last, self._seal.next - 1)
        await self._missing(missing)

    async def _changed(self, wrong: Mapping[str, int]) -> None:
        for some in _parts(wrong):
            looks = await self._books.look(some)
            others = await self._books.look([look.own for id_, look in looks.items() if look.own not in ("", id_)])
            for id_ in some:
                look = looks.get(id_)
                sealed = f"content of leaf {self._leaves[id_].hex():.16}"
                if look is not None and look.own in others:
                    there = f"the content of {look.own}"
                    await self._found(Kind.REORDERED, self._here, wrong[id_], id_, sealed, there)
                else:
                    there = f"leaf {look.leaf.hex():.16}" if look else "nothing any more"
                    await self._found(Kind.EDITED, self._here, wrong[id_], id_, sealed, there)

    async def _missing(self, missing: Mapping[str, int]) -> None:
        """Told twice, a record stands where it arrived first: that place has to be of a seal that knows it too."""
        seal = self._seal
        other: Seal | None = None
        for some in _parts(missing):
            looks = await self._books.look(some)
            for id_ in some:
                offset, look = missing[id_], looks.get(id_)
                if look is None:
                    await self._found(Kind.REMOVED, self._here, offset, id_, "a record", "none")
                    continue
                if look.leaf != self._leaves[id_]:
                    sealed = f"content of leaf {self._leaves[id_].hex():.16}"
                    there = f"leaf {look.leaf.hex():.16}, at {look.where}"
                    await self._found(Kind.EDITED, self._here, offset, id_, sealed, there)
                    continue
                if look.partition == self._here and seal.first <= look.offset < seal.next:
                    continue
                if look.partition is not None and not _covers(other, look.partition, look.offset):
                    other = await self._books.covering(look.partition, look.offset)
                if look.partition is None or (other is not None and _knows_not(other, look, id_)):
                    await self._found(Kind.REORDERED, self._here, offset, id_, "here", f"at {look.where}")


def _parts(some: Iterable[str]) -> Iterable[list[str]]:
    left = iter(some)
    while part := list(islice(left, AT_ONCE)):
        yield part


def _covers(seal: Seal | None, partition: Partition, offset: int) -> bool:
    return seal is not None and (seal.topic, seal.partition) == partition and seal.first <= offset < seal.next


def _knows_not(seal: Seal, look: Look, id_: str) -> bool:
    return look.partition is not None and _covers(seal, look.partition, look.offset) and id_ not in seal.ids
