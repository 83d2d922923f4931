"""Seals: proof that what was recorded is still there, whole, and in its order.

The records of one partition of one topic are sealed in batches. A batch is a Merkle tree over its records, so that one
of them can be proven with a handful of hashes (RFC 9162 §2.1), and each seal names the one before it: a chain.
What nobody can see from the chain alone, that its end was cut off, is seen by anchors, which are kept elsewhere.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

FIRST = "0" * 64
"""What the first seal of a partition names in place of the one before it."""
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf(content: bytes) -> bytes:
    """The hash of one record; the prefix keeps it apart from those of nodes (RFC 9162 §2.1.1)."""
    return hashlib.sha256(b"\x00" + content).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def root(leaves: Sequence[bytes]) -> bytes:
    """The root of the Merkle tree over some leaves; a last one without a partner moves up as it is."""
    if not leaves:
        return EMPTY_ROOT
    level = list(leaves)
    while len(level) > 1:
        pairs = [_node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        level = pairs + level[-1:] if len(level) % 2 else pairs
    return level[0]


Step = tuple[str, bytes]
"""A neighbour on the way up, `left` or `right` of us."""


def path(leaves: Sequence[bytes], at: int) -> list[Step]:
    """The neighbours on the way from a leaf to the root."""
    steps: list[Step] = []
    level = list(leaves)
    while len(level) > 1:
        neighbour = at ^ 1
        if neighbour < len(level):
            steps.append(("left" if neighbour < at else "right", level[neighbour]))
        pairs = [_node(level[one], level[one + 1]) for one in range(0, len(level) - 1, 2)]
        level = pairs + level[-1:] if len(level) % 2 else pairs
        at //= 2
    return steps


def climbed(start: bytes, steps: Sequence[Step]) -> bytes:
    """The root that a leaf and its neighbours come to."""
    for side, neighbour in steps:
        start = _node(neighbour, start) if side == "left" else _node(start, neighbour)
    return start


@dataclass(frozen=True, slots=True, kw_only=True)
class Seal:
    """A batch of one partition, closed.

    Attributes:
        first: offset at which the batch begins: that at which the one before it ended.
        next: offset after its last message.
        ids: of its records, in their order. Messages that are no records have none; one that was told twice may be in
            two batches.
        leaves: the hashes of these records.
        lost: how many offsets at its beginning the topic had no longer when they were to be read.
        previous: the hash of the seal before it, or `FIRST`.
    """

    topic: str
    partition: int
    first: int
    next: int
    ids: tuple[str, ...]
    leaves: tuple[bytes, ...]
    lost: int
    previous: str

    @property
    def id(self) -> str:
        """Of two who seal from the same place on, one comes first."""
        return f"{self.topic}:{self.partition}:{self.first}"

    @property
    def root(self) -> bytes:
        """Of the tree over its records."""
        return root(self.leaves)

    @property
    def link(self) -> "Link":
        """It without its records."""
        return Link(
            topic=self.topic,
            partition=self.partition,
            first=self.first,
            next=self.next,
            count=len(self.ids),
            lost=self.lost,
            previous=self.previous,
            root=self.root,
            names=names(self.ids),
        )

    @property
    def hash(self) -> str:
        """Of all that the seal says, and so of all that was sealed before."""
        return self.link.hash


def names(ids: Sequence[str]) -> bytes:
    """The hash of the ids of some records: under which id a content stands is sealed as well."""
    return hashlib.sha256(b"\x03" + json.dumps(ids).encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What of a seal its hash is made of: enough to show that one seal follows from another.

    Attributes:
        count: how many records it has.
        root: of the tree over them.
        names: the hash of their ids.
    """

    topic: str
    partition: int
    first: int
    next: int
    count: int
    lost: int
    previous: str
    root: bytes
    names: bytes

    @property
    def hash(self) -> str:
        """See `Seal.hash`."""
        said = [self.topic, self.partition, self.first, self.next, self.count, self.lost, self.previous]
        return hashlib.sha256(b"\x02" + self.root + self.names + json.dumps(said).encode()).hexdigest()
