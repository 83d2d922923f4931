"""What verifying finds: each difference between what was sealed and what is there, and where it is."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What is wrong, the gravest first: of two at one place the first one is told first."""

    BROKEN_CHAIN = "broken chain"
    """A seal was edited, removed or put in."""
    MISSING_TAIL = "missing tail"
    """An anchor names a seal that is not there, nor any after it."""
    EDITED = "edited"
    REORDERED = "reordered"
    """A record stands at another's place, or holds another's content."""
    REMOVED = "removed"
    INSERTED = "inserted"
    BROKEN_ANCHOR = "broken anchor"
    """An anchor is not ours, is gone, or its two copies differ."""
    LOST = "lost messages"
    """The topic had them no longer when they were to be read. Nobody has touched the store: it is only told."""


_RANK = {kind: rank for rank, kind in enumerate(Kind)}
NOWHERE = -1
"""Of what has no offset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One difference.

    Attributes:
        offset: at which the record stood, or stands; or that of the first message of the seal concerned.
        record: the id of the first record concerned; empty if nobody can tell it.
        entity: its table and key, `orders/7`, if there is still something that says so.
        sealed: what was to be there.
        there: what is there.
    """

    kind: Kind
    topic: str
    partition: int
    offset: int
    record: str = ""
    entity: str = ""
    sealed: str = ""
    there: str = ""

    @property
    def is_tampering(self) -> bool:
        return self.kind is not Kind.LOST

    @property
    def place(self) -> tuple[bool, str, int, int, int]:
        """By which findings are ordered: anchors, which are at no place of a topic, come last."""
        return self.kind is Kind.BROKEN_ANCHOR, self.topic, self.partition, self.offset, _RANK[self.kind]

    def __str__(self) -> str:
        where = f"{self.topic}:{self.partition}" + (f":{self.offset}" if self.offset != NOWHERE else "")
        what = " ".join(filter(None, [self.record, self.entity and f"({self.entity})"]))
        at = "anchors" if self.kind is Kind.BROKEN_ANCHOR else f"at {where}"
        return f"{self.kind}: {what + ' ' if what else ''}{at}: sealed {self.sealed}; there is {self.there}"
