"""Asking what happened: to one row, in one transaction, by one actor, in some time."""

from collections.abc import Sequence
from typing import Protocol

from showcase.audit.domain.records import Record
from showcase.kernel.errors import NotFound


class NoSuchEntity(NotFound):
    """Nobody has recorded a change of this."""


class Archive(Protocol):
    """The records that were kept. Raises Unavailable."""

    async def timeline(
        self, entity_type: str, entity_id: str, after: str | None = None, limit: int = 50
    ) -> Sequence[Record]:
        """The records of one entity by their ids, the oldest first.

        Args:
            after: the id of a record: those after it.
        """


async def timeline(
    archive: Archive, entity_type: str, entity_id: str, after: str | None, limit: int
) -> tuple[Sequence[Record], str | None]:
    """One page of an entity's records, and the id after which the next one begins, if there is one.

    Raises NoSuchEntity, Unavailable.
    """
    found = await archive.timeline(entity_type, entity_id, after, limit + 1)
    if not found and after is None:
        raise NoSuchEntity(f"no change of {entity_type}/{entity_id} is recorded: look at its spelling")
    page = found[:limit]
    return page, page[-1].id if len(found) > limit else None
