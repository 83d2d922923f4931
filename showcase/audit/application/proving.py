"""The proof of one record: all that somebody needs, besides our public key, to see that it was recorded so.

From the record's bytes to the root of its seal (RFC 9162 §2.1.3), from there by the chain to a seal that an anchor
names, and by the anchor's signature to whoever holds the key.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Protocol

from showcase.audit.application.anchoring import Check
from showcase.audit.application.books import Look, Partition
from showcase.audit.domain.anchors import Anchor, Signed
from showcase.audit.domain.seals import Link, Seal, climbed, leaf, path
from showcase.kernel.errors import Conflict, Invalid, NotFound

MAX_LINKS = 10_000
"""Between a record's seal and an anchored one: hours, where anchors come by the second."""
SIDES = ("left", "right")


class NoSuchRecord(NotFound):
    """There is no record of this id."""


class NotProvable(Conflict):
    """The record is there, and nothing shows yet, or any more, that it always was."""


class BadProof(Invalid):
    """It does not show what it says."""


@dataclass(frozen=True, slots=True)
class Opened:
    """What some content says: the id that follows from it, of what it is, and all of it as JSON."""

    id: str
    entity: str
    said: Any


Open = Callable[[bytes], Opened]
"""Raises ValueError for bytes that are no content."""


class Shelf(Protocol):
    """What a proof is taken from. Raises Unavailable."""

    async def content(self, id_: str) -> tuple[Look, bytes] | None: ...

    async def covering(self, partition: Partition, offset: int) -> Seal | None: ...

    async def chain(self, partition: Partition, first: int, last: int, limit: int) -> Sequence[Seal]: ...


class Naming(Protocol):
    """Raises Unavailable."""

    async def naming(self, topic: str, partition: int, next_: int) -> Signed | None:
        """The first anchor that names a seal of a partition which ends at an offset, or later."""


async def prove(id_: str, shelf: Shelf, anchors: Naming, open_: Open, public_key: bytes) -> dict[str, Any]:
    """A proof as JSON values. Raises NoSuchRecord, NotProvable, Unavailable."""
    found = await shelf.content(id_)
    if found is None:
        raise NoSuchRecord(f"there is no record {id_}")
    look, content = found
    seal = None if look.partition is None else await shelf.covering(look.partition, look.offset)
    if seal is None or id_ not in seal.ids:
        raise NotProvable(f"{id_} is in no seal: it is new, or was put in; `audit verify` shows which")
    at = seal.ids.index(id_)
    if seal.leaves[at] != leaf(content):
        raise NotProvable(f"{id_} is not what was sealed: it was edited")
    signed = await anchors.naming(seal.topic, seal.partition, seal.next)
    if signed is None:
        raise NotProvable(f"the seal of {id_} has no anchor yet: one is made at intervals, by `showcase worker anchor`")
    (head,) = [one for one in Anchor.of(signed.statement).heads if (one.topic, one.partition) == look.partition]
    chain = await shelf.chain((seal.topic, seal.partition), seal.first, head.first, MAX_LINKS + 1)
    if len(chain) > MAX_LINKS:
        raise NotProvable(f"more than {MAX_LINKS:,} seals lie between {id_} and its anchor")
    return {
        "record": id_,
        "content": open_(content).said,
        "bytes": content.hex(),
        "leaf": seal.leaves[at].hex(),
        "path": [[side, neighbour.hex()] for side, neighbour in path(seal.leaves, at)],
        "chain": [_as_json(one.link) for one in chain],
        "anchor": {
            "statement": signed.statement,
            "signature": signed.signature.hex(),
            "key_id": signed.key_id,
            "public_key": public_key.hex(),
        },
    }


@dataclass(frozen=True, slots=True)
class Proven:
    """What a proof shows: that a record was sealed with this content when its anchor was made, at the latest."""

    record: str
    entity: str
    anchor: int
    anchored_at: datetime


def check(proof: Mapping[str, Any], is_ours: Check, open_: Open) -> Proven:
    """Check a proof, with nothing else at hand. Raises BadProof, which says what does not follow."""
    try:
        content, said = bytes.fromhex(proof["bytes"]), proof["anchor"]
        steps = [(str(side), bytes.fromhex(neighbour)) for side, neighbour in proof["path"]]
        links = [_link(one) for one in proof["chain"]]
        signed = Signed(
            statement=said["statement"], signature=bytes.fromhex(said["signature"]), key_id=str(said["key_id"])
        )
        anchor = Anchor.of(signed.statement)
        opened = open_(content)
        first, last = links[0], links[-1]
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        raise BadProof(f"no proof: {type(error).__name__}: {error}") from error
    heads = {(head.topic, head.partition): head for head in anchor.heads}
    head = heads.get((last.topic, last.partition))
    follows = {
        "the content is not what its bytes say": opened.said == proof.get("content"),
        "the id does not follow from the content": opened.id == proof.get("record"),
        "the leaf is not the hash of the bytes": leaf(content).hex() == proof.get("leaf"),
        "the path does not lead from the leaf to the root of the seal": climbed(leaf(content), steps) == first.root
        and all(side in SIDES for side, _ in steps),
        "a seal does not follow from the one before it": all(
            after.previous == before.hash for before, after in pairwise(links)
        ),
        "the anchor does not name the last seal": head is not None and head.hash == last.hash,
        "the anchor is not signed by our key": is_ours(signed),
    }
    for what, holds in follows.items():
        if not holds:
            raise BadProof(what)
    return Proven(opened.id, opened.entity, anchor.number, anchor.made_at)


def _as_json(link: Link) -> dict[str, Any]:
    return {**asdict(link), "root": link.root.hex(), "names": link.names.hex()}


def _link(said: Mapping[str, Any]) -> Link:
    return Link(**{**said, "root": bytes.fromhex(said["root"]), "names": bytes.fromhex(said["names"])})
