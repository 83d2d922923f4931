"""What is stored, as whoever verifies it reads it: it may be anything, whoever has written it."""

from bisect import bisect_left
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from showcase.audit.domain.findings import Finding, Kind
from showcase.audit.domain.seals import Seal

Partition = tuple[str, int]
MAX_FINDINGS = 1_000
"""So many are told; the others are counted."""


@dataclass(frozen=True, slots=True)
class Run:
    """Records of one partition that follow one another; `at` is when each was recorded, if it says so."""

    partition: Partition
    offsets: Sequence[int]
    ids: Sequence[str]
    leaves: Sequence[bytes]
    at: Sequence[datetime | None]


@dataclass(frozen=True, slots=True)
class Stray:
    """A record that says no place where a message can be: no consumer has written it."""

    partition: Partition
    offset: int
    id: str


@dataclass(frozen=True, slots=True)
class Kept:
    """A seal as it is stored; None if it cannot be read."""

    id: str
    partition: Partition
    first: int
    seal: Seal | None
    root: str
    hash: str


@dataclass(frozen=True, slots=True)
class Look:
    """A record looked at by itself.

    Attributes:
        own: the id that its content should stand under; empty if that cannot be read.
    """

    partition: Partition | None
    offset: int
    leaf: bytes
    own: str
    entity: str

    @property
    def where(self) -> str:
        return f"{self.partition[0]}:{self.partition[1]}:{self.offset}" if self.partition else "no place"


class Books(Protocol):
    """What is stored, whoever has written it. Raises Unavailable."""

    def records(self, topic: str | None) -> AsyncIterator[Run | Stray]:
        """Every record, or those of a topic, by topic, partition and offset."""

    def seals(self, topic: str | None) -> AsyncIterator[Kept]:
        """Every seal, or those of a topic, by topic, partition and first offset."""

    async def look(self, ids: Sequence[str]) -> Mapping[str, Look]:
        """Those of some records that are there."""

    async def covering(self, partition: Partition, offset: int) -> Seal | None:
        """The seal in whose range an offset is."""

    async def heads(self, ids: Sequence[str]) -> Mapping[str, tuple[int, str]]:
        """By the ids of seals, the `next` and the `hash` of those that are there."""


@dataclass(slots=True)
class Checked:
    """What there is of one partition.

    Attributes:
        next: offset up to which it is sealed.
        unsealed: records after it.
        lost: messages that never became records, since the topic had them no longer.
    """

    topic: str
    partition: int
    seals: int = 0
    records: int = 0
    next: int = 0
    unsealed: int = 0
    lost: int = 0


@dataclass(slots=True)
class Report:
    """What verifying has come to.

    Attributes:
        findings: in the order of their places, the first `MAX_FINDINGS` of them.
        found: how many there are of those that are tampering.
        anchors: how many anchors there are, and when the newest one was made.
        notes: what is to be known besides.
    """

    by_partition: dict[Partition, Checked] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    found: int = 0
    anchors: int = 0
    anchored_at: datetime | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def is_clean(self) -> bool:
        return self.found == 0

    @property
    def records(self) -> int:
        return sum(one.records + one.unsealed for one in self.by_partition.values())

    def of(self, partition: Partition) -> Checked:
        """What there is of a partition; it is begun with."""
        return self.by_partition.setdefault(partition, Checked(*partition))

    def add(self, finding: Finding) -> None:
        self.found += finding.is_tampering
        if len(self.findings) < 2 * MAX_FINDINGS:  # those of anchors come later and may belong before others
            self.findings.append(finding)

    def sort(self) -> None:
        """Bring the findings into the order of their places."""
        self.findings.sort(key=lambda finding: finding.place)
        del self.findings[MAX_FINDINGS:]


class Notebook:
    """Writes findings into a report."""

    def __init__(self, books: Books, report: Report) -> None:
        self._books = books
        self.report = report

    async def found(self, kind: Kind, partition: Partition, offset: int, record: str, sealed: str, there: str) -> None:
        """Note one; of which entity the record is, if it is there, is looked up."""
        is_told = record and len(self.report.findings) < MAX_FINDINGS
        look = (await self._books.look([record])).get(record) if is_told else None
        self.report.add(
            Finding(
                kind=kind,
                topic=partition[0],
                partition=partition[1],
                offset=offset,
                record=record,
                entity=look.entity if look else "",
                sealed=sealed,
                there=there,
            )
        )


class Records:
    """The stream of records, of which one can take what lies before some offset."""

    def __init__(self, runs: AsyncIterator[Run | Stray], notebook: Notebook) -> None:
        self._runs = runs
        self._notebook = notebook
        self._run: Run | Stray | None = None
        self._at = 0

    async def next(self) -> Run | Stray | None:
        """What comes next, or what is left of it, without taking it."""
        if self._run is None:
            self._run, self._at = await anext(self._runs, None), 0
        return self._run

    async def take(self, partition: Partition, until: int | None = None) -> Run | None:
        """Take what comes next if it is of a partition, and before an offset."""
        while isinstance(run := await self.next(), Stray) and run.partition == partition:
            await self.drop(run)
        if not isinstance(run, Run) or run.partition != partition:
            return None
        at, size = self._at, len(run.offsets)
        to = size if until is None else bisect_left(run.offsets, until, at)
        if to == at:
            return None
        self._at = to
        if to == size:
            self._run = None
        return Run(partition, run.offsets[at:to], run.ids[at:to], run.leaves[at:to], run.at[at:to])

    async def drop(self, stray: Stray) -> None:
        """Take what comes next, and tell of it."""
        self._run = None
        where = stray.partition, stray.offset
        await self._notebook.found(Kind.INSERTED, *where, stray.id, "nothing here", "a record without a place")
