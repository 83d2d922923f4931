"""Reading the audit's records from MongoDB."""

from collections.abc import Sequence

from showcase.audit.domain.records import Record
from showcase.audit.infrastructure.content import record_of
from showcase.audit.infrastructure.records import RecordDocument
from showcase.documents import Repository, all_of, eq, gt
from showcase.documents.domain.filters import Where


class DocumentArchive:
    """See `application.asking.Archive`."""

    def __init__(self, records: Repository[RecordDocument]) -> None:
        self._records = records

    async def timeline(
        self, entity_type: str, entity_id: str, after: str | None = None, limit: int = 50
    ) -> Sequence[Record]:
        wanted: list[Where] = [eq("change.entity_type", entity_type), eq("change.entity_id", entity_id)]
        if after is not None:
            wanted.append(gt("id", after))
        found = await self._records.find(all_of(*wanted), sort=("id",), limit=limit)
        return [record_of(document.id, document.change.model_dump()) for document in found]
