"""The audit over HTTP."""

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field

from showcase.audit.application.asking import Archive, NoSuchEntity, timeline
from showcase.kernel.changes import Operation
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Scope
from showcase.platform.web.callers import MissingScope, MissingToken, require
from showcase.platform.web.paging import BadCursor, Cursor, Limit, Page, cursor_of, key_of
from showcase.platform.web.problems import documented


class AuditRecord(BaseModel):
    """One change of one row."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    entity_type: str
    entity_id: str
    operation: Operation
    before: dict[str, Any] | None = Field(description="the row as it was")
    after: dict[str, Any] | None = Field(description="the row as it is since then")
    changed: list[str] = Field(description="the columns whose value is another one since then")
    committed_at: datetime
    position: str = Field(description="place in the database's log: of two, the later one is greater")
    transaction: str = Field(description="of the database: what one request changed has one")


def routes(archive: Archive) -> APIRouter:
    """All of them."""
    router = APIRouter(prefix="/audit", tags=["audit"], dependencies=[require(Scope.AUDIT_READ)])

    @router.get(
        "/entities/{entity_type}/{entity_id:path}",
        responses=documented(MissingToken, MissingScope, NoSuchEntity, BadCursor, Unavailable),
    )
    async def entity(
        entity_type: Annotated[str, Path(max_length=200, examples=["orders"])],
        entity_id: Annotated[str, Path(max_length=500, description="the primary key, its parts joined with `/`")],
        after: Cursor = None,
        limit: Limit = 50,
    ) -> Page[AuditRecord]:
        """The timeline of one row: everything that ever happened to it, the oldest first."""
        place = None if after is None else str(key_of(after, str)[0])
        records, following = await timeline(archive, entity_type, entity_id, place, limit)
        return Page(
            items=[AuditRecord.model_validate(record) for record in records],
            next=None if following is None else cursor_of(following),
        )

    return router
