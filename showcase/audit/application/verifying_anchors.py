"""Verifying anchors: that all are ours and form a chain, that both copies agree, and that their seals are there."""

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import timedelta

from showcase.audit.application.anchoring import Anchors, Check
from showcase.audit.application.books import Books, Notebook, Partition, Report
from showcase.audit.domain.anchors import Anchor, Head, Signed, digest, goes_on
from showcase.audit.domain.findings import NOWHERE, Finding, Kind
from showcase.audit.domain.seals import FIRST
from showcase.kernel.clock import Clock, system_clock

AT_ONCE = 1_000


class AnchorVerification:
    """One walk through all anchors, after that through the seals.

    Args:
        report: of that walk: it tells where the chains end now.
        check: whether a signature is by one of our keys.
        copy: the anchors in their second place, if there is one; lines that are no anchor as text.
        topic: anchors name the seals of all; only those of this one are looked at, if one is named.
        grace: so long after it was made an anchor may not be in its second place.
    """

    def __init__(
        self,
        books: Books,
        report: Report,
        anchors: Anchors,
        check: Check,
        *,
        copy: Iterable[Signed | str] | None = None,
        topic: str | None = None,
        grace: timedelta = timedelta(seconds=30),
        clock: Clock = system_clock,
    ) -> None:
        self._books = books
        self._report = report
        self._anchors = anchors
        self._check = check
        self._copy = copy
        self._topic = topic
        self._grace = grace
        self._clock = clock
        self._found = Notebook(books, report).found

    async def verify(self) -> None:
        """Raises Unavailable."""
        known: dict[Partition, Head] = {}
        wanted: list[tuple[int, Head]] = []
        before: Anchor | None = None
        last: Signed | None = None
        async for signed in self._merged():
            try:
                anchor = Anchor.of(signed.statement)
            except ValueError as error:
                self._broken("a statement", str(error))
                continue
            if not self._check(signed):
                self._broken(f"a signature of ours on anchor {anchor.number}", f"one by {signed.key_id:.40}")
                continue
            if (anchor.number, anchor.previous) != (
                (before.number + 1, digest(last.statement)) if before and last else (1, FIRST)
            ):
                after = before.number if before else 0
                self._broken(f"anchor {after + 1} after {after}", f"anchor {anchor.number}, which follows another one")
            elif before is not None and not goes_on(before, anchor):
                self._broken(f"all of anchor {before.number} in the one after it", "less")
            before, last = anchor, signed
            self._report.anchors += 1
            for head in anchor.heads:
                place = head.topic, head.partition
                if self._topic in (None, head.topic) and known.get(place) != head:
                    known[place] = head
                    wanted.append((anchor.number, head))
            if len(wanted) >= AT_ONCE:
                await self._verify_heads(wanted)
                wanted = []
        await self._verify_heads(wanted)
        self._report.anchored_at = None if before is None else before.made_at

    async def _verify_heads(self, wanted: Sequence[tuple[int, Head]]) -> None:
        there = await self._books.heads([head.seal_id for _, head in wanted])
        for number, head in wanted:
            found = there.get(head.seal_id)
            if found == (head.next, head.hash):
                continue
            here = head.topic, head.partition
            end = self._report.of(here).next
            sealed = f"the seal of {head.first} to {head.next}, hash {head.hash:.16}, by anchor {number}"
            if found is not None:
                seal = await self._books.covering(here, head.first)
                record = seal.ids[0] if seal and seal.ids else ""
                await self._found(Kind.BROKEN_CHAIN, here, head.first, record, sealed, f"hash {found[1]:.16}")
            elif head.first >= end:
                await self._found(Kind.MISSING_TAIL, here, end, "", sealed, f"no seal from {end} on")
            else:
                await self._found(Kind.BROKEN_CHAIN, here, head.first, "", sealed, "none of that number")

    async def _merged(self) -> AsyncIterator[Signed]:
        """The anchors of both copies in the order of their numbers, each once; where they differ is told."""
        if self._copy is None:
            async for signed in self._anchors.after():
                yield signed
            return
        copy = _Lines(self._copy, self._broken)
        lacking: list[Signed] = []
        async for signed in self._anchors.after():
            number = _number(signed)
            while copy.signed is not None and number is not None and copy.number < number:
                self._broken(f"anchor {copy.number} in the table", "one in the file only")
                yield copy.signed
                copy.advance()
            if number is not None and copy.number == number:
                if copy.signed != signed:
                    self._broken(f"the same anchor {number} in table and file", "two that differ")
                copy.advance()
            elif number is not None and len(lacking) < AT_ONCE:
                lacking.append(signed)
            yield signed
        while copy.signed is not None:
            self._broken(f"anchor {copy.number} in the table", "one in the file only: the table was cut")
            yield copy.signed
            copy.advance()
        self._report.notes += copy.notes
        self._lacks(lacking, copy.last)

    def _lacks(self, lacking: Sequence[Signed], last: int) -> None:
        """A crash may have kept anchors from the file that come after its last one and are new; no others."""
        for signed in lacking:
            anchor = Anchor.of(signed.statement)
            if anchor.number > last and anchor.made_at >= self._clock() - self._grace:
                self._report.notes.append(f"anchor {anchor.number} is not in the file yet")
            else:
                self._broken(f"anchor {anchor.number} in the file", "one in the table only")

    def _broken(self, sealed: str, there: str) -> None:
        self._report.add(
            Finding(kind=Kind.BROKEN_ANCHOR, topic="", partition=0, offset=NOWHERE, sealed=sealed, there=there)
        )


def _number(signed: Signed) -> int | None:
    try:
        return Anchor.of(signed.statement).number
    except ValueError:
        return None


class _Lines:
    """The lines of the copy, one after the other: `number` of the one at hand, 0 after the last one.

    Several processes may have written the same line: it counts once.
    """

    def __init__(self, lines: Iterable[Signed | str], broken: Callable[[str, str], None]) -> None:
        self._lines = iter(lines)
        self._broken = broken
        self.signed: Signed | None = None
        self.number = 0
        self.last = 0
        self.notes: list[str] = []
        self.advance()

    def advance(self) -> None:
        before, self.signed, self.number = self.signed, None, 0
        for line in self._lines:
            if isinstance(line, str):
                self.notes.append(line)
                continue
            number = _number(line)
            if number is None:
                self._broken("an anchor in each line of the file", "a line that cannot be read")
            elif line != before:
                self.signed, self.number, self.last = line, number, number
                return
