"""An intruder who is root on MongoDB: what he can do to records and seals, and takes back afterwards.

Each attack is a block, and gives the id of the record concerned; when the block is left, everything is as it was.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import bson
from pymongo.database import Database

from showcase.audit.domain.records import record_id
from showcase.audit.domain.seals import Seal, leaf
from showcase.audit.infrastructure.records import RECORDS, SEALS, seal_of
from showcase.kernel.changes import Operation

Document = dict[str, Any]


class Intruder:
    """Somebody with all rights on a database.

    Args:
        database: as root.
    """

    def __init__(self, database: Database[Document]) -> None:
        self._records = database[RECORDS.name]
        self._seals = database[SEALS.name]

    @contextmanager
    def edits(self, id_: str, **values: object) -> Iterator[str]:
        """Other values in a record."""
        with self._put([edited(self._record(id_), values)]):
            yield id_

    @contextmanager
    def removes(self, id_: str) -> Iterator[str]:
        """A record less."""
        with self._put([], without=[self._record(id_)]):
            yield id_

    @contextmanager
    def inserts(self, like: str, **values: object) -> Iterator[str]:
        """A record of something that never happened, beside one that it resembles."""
        document = forged(self._record(like), values)
        with self._put([document]):
            yield str(document["_id"])

    @contextmanager
    def edits_and_seals(self, id_: str, **values: object) -> Iterator[str]:
        """Other values in a record, and its seal made to fit."""
        document = edited(self._record(id_), values)
        chain = self._chain_from(document)
        with self._put([document], seals=remade(chain[:1], leaves_of([document]), chain[0]["previous"])):
            yield id_

    @contextmanager
    def edits_and_seals_all(self, id_: str, **values: object) -> Iterator[str]:
        """Other values in a record, and its seal and all that follow it made anew: a chain without a flaw."""
        document = edited(self._record(id_), values)
        chain = self._chain_from(document)
        with self._put([document], seals=remade(chain, leaves_of([document]), chain[0]["previous"])):
            yield id_

    @contextmanager
    def cuts_off(self, id_: str) -> Iterator[str]:
        """The seal of a record, and all that follow, with all their records: as if nothing had happened since."""
        record = self._record(id_)
        chain = self._chain_from(record)
        place = {"topic": record["topic"], "partition": record["partition"], "offset": {"$gte": chain[0]["first"]}}
        with self._put([], without=list(self._records.find(place)), without_seals=chain):
            yield id_

    def _record(self, id_: str) -> Document:
        """Raises LookupError."""
        found = self._records.find_one({"_id": id_})
        if found is None:
            raise LookupError(f"there is no record {id_}")
        return found

    def _chain_from(self, record: Document) -> list[Document]:
        """The seal over a record, and those that follow it. Raises LookupError if there is none."""
        place = {name: record[name] for name in ("topic", "partition")}
        chain = list(self._seals.find({**place, "next": {"$gt": record["offset"]}}, sort=[("first", 1)]))
        if not chain or record["_id"] not in chain[0]["ids"]:
            raise LookupError(f"{record['_id']} is in no seal")
        return chain

    @contextmanager
    def _put(
        self,
        records: Sequence[Document],
        *,
        seals: Sequence[Document] = (),
        without: Sequence[Document] = (),
        without_seals: Sequence[Document] = (),
    ) -> Iterator[None]:
        """Have these there, and not those, for a while."""
        parts = ((self._records, records, without), (self._seals, seals, without_seals))
        before = [
            {one["_id"]: one for one in where.find({"_id": {"$in": [one["_id"] for one in (*there, *gone)]}})}
            for where, there, gone in parts
        ]
        try:
            for where, there, gone in parts:
                for document in there:
                    where.replace_one({"_id": document["_id"]}, document, upsert=True)
                if gone:
                    where.delete_many({"_id": {"$in": [one["_id"] for one in gone]}})
            yield
        finally:
            for (where, there, gone), was in zip(parts, before, strict=True):
                if ids := [one["_id"] for one in (*there, *gone)]:
                    where.delete_many({"_id": {"$in": ids}})
                if was:
                    where.insert_many(was.values())


# -- what is written, without a server


def edited(record: Document, values: Mapping[str, object]) -> Document:
    """A record of the same change, with other values in the row as it was after it. Raises KeyError for a column that
    it has not."""
    document = copy.deepcopy(record)
    after = document["change"]["after"]
    if missing := sorted(values.keys() - after.keys()):
        raise KeyError(f"the record has no column {missing[0]}; columns: {', '.join(after)}")
    after.update(values)
    return document


def forged(record: Document, values: Mapping[str, object]) -> Document:
    """A record that belongs beside another one: a deletion of the same row, at the same place, under the right id."""
    document = edited(record, values)
    change = document["change"]
    change.update(operation=Operation.DELETE.value, before=change["after"], after=None)
    document["_id"] = record_id(
        source=change["source"],
        epoch=change["epoch"],
        table=change["entity_type"],
        key=change["key"],
        operation=Operation.DELETE,
        position=change["position"],
    )
    return document


def leaves_of(records: Sequence[Document]) -> dict[str, bytes]:
    """The hashes of records, by their ids."""
    return {record["_id"]: leaf(bson.encode(record["change"])) for record in records}


def remade(chain: Sequence[Document], leaves: Mapping[str, bytes], previous: str) -> list[Document]:
    """Seals that follow one another, made anew.

    Args:
        leaves: the hashes of the records that are other ones now.
        previous: the hash of the seal before the first one.
    """
    made = []
    for document in chain:
        old = seal_of(document)
        fits = tuple(leaves.get(id_, was) for id_, was in zip(old.ids, old.leaves, strict=True))
        seal = replace(old, leaves=fits, previous=previous)
        made.append({**document, **_as_stored(seal)})
        previous = seal.hash
    return made


def _as_stored(seal: Seal) -> Document:
    return {
        "leaves": b"".join(seal.leaves),
        "root": seal.root.hex(),
        "previous": seal.previous,
        "hash": seal.hash,
    }
