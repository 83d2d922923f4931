"""Anchors: where the chains of seals stood at some time, signed, and kept where the store's masters do not reach.

A chain shows that nothing in it was touched, but not that its end is still there, nor that all of it was not made
anew. An anchor does: it names the newest seal of every partition. Anchors are a chain too, each with the hash of the
one before.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from showcase.audit.domain.seals import FIRST

PURPOSE = "showcase audit anchor 1"
"""Part of what is signed: a signature made for something else is none of ours."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Head:
    """The newest seal of a partition; `first` and `next` as in `seals.Seal`."""

    topic: str
    partition: int
    first: int
    next: int
    hash: str

    @property
    def seal_id(self) -> str:
        """See `seals.Seal.id`."""
        return f"{self.topic}:{self.partition}:{self.first}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A statement of where all chains stood.

    Attributes:
        number: of the anchor, from 1 on.
        previous: the hash of the statement before it, or `FIRST`.
        heads: by topic and partition.
    """

    number: int
    made_at: datetime
    previous: str
    heads: tuple[Head, ...]

    @property
    def statement(self) -> str:
        """What is signed: JSON without blanks, its names in alphabetical order (after RFC 8785)."""
        said = {
            "purpose": PURPOSE,
            "number": self.number,
            "made_at": self.made_at.isoformat(),
            "previous": self.previous,
            "heads": [asdict(head) for head in self.heads],
        }
        return json.dumps(said, sort_keys=True, separators=(",", ":"))

    @classmethod
    def of(cls, statement: str) -> "Anchor":
        """What a statement says. Raises ValueError for one that is none of ours."""
        try:
            said = json.loads(statement)
            anchor = cls(
                number=said["number"],
                made_at=datetime.fromisoformat(said["made_at"]),
                previous=said["previous"],
                heads=tuple(Head(**head) for head in said["heads"]),
            )
            if anchor.made_at.tzinfo is None or anchor.statement != statement:
                raise ValueError("it is not written as we write them")
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"no statement of an anchor: {type(error).__name__}: {error}") from error
        return anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A statement and its signature (Ed25519, RFC 8032) by the key of this id."""

    statement: str
    signature: bytes
    key_id: str


def digest(statement: str) -> str:
    """By which the next statement names this one."""
    return hashlib.sha256(statement.encode()).hexdigest()


def following(last: Signed | None, made_at: datetime, newest: Sequence[Head]) -> tuple[Anchor, list[Head]]:
    """The anchor that comes after another one, or the first.

    Returns also the heads of the last one that are not there any more: those stay in the new one, since whoever cuts a
    chain off must not have that confirmed. Raises ValueError if the last one is none of ours.
    """
    before = None if last is None else Anchor.of(last.statement)
    known = {(head.topic, head.partition): head for head in (before.heads if before else ())}
    heads = {(head.topic, head.partition): head for head in newest}
    gone: list[Head] = []
    for partition, head in known.items():
        now = heads.get(partition)
        if now is None or now.next < head.next or (now.next == head.next and now != head):
            gone.append(head)
            heads[partition] = head
    anchor = Anchor(
        number=before.number + 1 if before else 1,
        made_at=made_at,
        previous=digest(last.statement) if last else FIRST,
        heads=tuple(heads[partition] for partition in sorted(heads)),
    )
    return anchor, gone


def goes_on(before: Anchor, after: Anchor) -> bool:
    """Whether no partition of an anchor is behind, or missing, in the one that follows it."""
    ends = {(head.topic, head.partition): head.next for head in after.heads}
    return all(ends.get((head.topic, head.partition), -1) >= head.next for head in before.heads)
