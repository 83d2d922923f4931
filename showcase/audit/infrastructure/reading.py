"""Reading the audit's records from MongoDB."""

from collections.abc import Sequence
from typing import Any

from showcase.audit.application.asking import Place, Question
from showcase.audit.domain.history import UNKNOWN
from showcase.audit.domain.records import CONTEXT, Record
from showcase.audit.infrastructure.content import record_of
from showcase.audit.infrastructure.records import RECORDS
from showcase.documents.infrastructure.mongo import Mongo

AT_ONCE = 1_000


class MongoArchive:
    """See `application.asking.Archive`."""

    def __init__(self, mongo: Mongo) -> None:
        self._mongo = mongo

    async def find(self, question: Question, after: Place | None = None, limit: int = 50) -> Sequence[Record]:
        way = -1 if question.newest_first else 1
        order = [("change.committed_at", way), ("_id", way)] if question.by_time else [("_id", way)]
        wanted = {"$and": [_where(question), _behind(question, after)]}
        with self._mongo.calling("reading the audit") as session:
            if question.by_time and not question.entity_type:
                # One index has each table's records by time: those of some tables MongoDB merges, in their order.
                there = await self._mongo.collection(RECORDS.name).distinct("change.entity_type", **session)
                wanted["$and"].append({"change.entity_type": {"$in": [one for one in there if one != CONTEXT]}})
            found = self._mongo.collection(RECORDS.name).find(
                wanted, {"change": 1}, sort=order, limit=limit, batch_size=min(limit, AT_ONCE), **session
            )
            return [record_of(document["_id"], bytes(document["change"].raw)) async for document in found]


def _where(question: Question) -> dict[str, Any]:
    """What a question asks for; a value of a caller is only ever compared."""
    where: dict[str, Any] = {"_id": {"$gte": question.not_before}} if question.not_before else {}
    if question.entity_type:
        where["change.entity_type"] = {"$eq": question.entity_type}
    elif not question.by_time:
        where["change.entity_type"] = {"$ne": CONTEXT}
    if question.entity_ids:
        where["change.entity_id"] = {"$in": list(question.entity_ids)}
    if question.operation:
        where["change.operation"] = question.operation.value
    if question.transactions:
        where["change.transaction"] = {"$in": list(question.transactions)}
    if question.actor:
        where["change.after.actor"] = {"$eq": None if question.actor == UNKNOWN else question.actor}
    if question.request_id:
        where["change.after.request_id"] = {"$eq": question.request_id}
    times = {"$gte": question.since, "$lt": question.until, "$lte": question.by}
    if committed := {operator: time for operator, time in times.items() if time is not None}:
        where["change.committed_at"] = committed
    return where


def _behind(question: Question, after: Place | None) -> dict[str, Any]:
    if after is None:
        return {}
    further = "$lt" if question.newest_first else "$gt"
    if not question.by_time:
        return {"_id": {further: after.id}}
    time = "change.committed_at"
    return {
        time: {f"{further}e": after.committed_at},  # by which the index is entered
        "$or": [{time: {further: after.committed_at}}, {"_id": {further: after.id}}],
    }
