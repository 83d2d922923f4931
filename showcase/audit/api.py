"""The audit over HTTP. Whoever reads it is himself noted, before he is shown anything."""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Annotated, Any, Protocol

import structlog
from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from showcase.audit.application.asking import (
    Archive,
    Attributed,
    BadInterval,
    Deed,
    NoSuchEntity,
    NothingRecorded,
    Place,
    Question,
    deeds,
    diff,
    everything,
    page,
    row_at,
    timeline,
)
from showcase.audit.application.asking import Page as Found
from showcase.audit.domain.history import differences
from showcase.documents import Moment
from showcase.kernel import trace
from showcase.kernel.acting import Acting, acting
from showcase.kernel.changes import Operation
from showcase.kernel.errors import DomainError, Unavailable
from showcase.kernel.principal import Principal, Scope
from showcase.platform.web.callers import MissingScope, MissingToken, require
from showcase.platform.web.paging import BadCursor, Cursor, Limit, Page, cursor_of, key_of
from showcase.platform.web.problems import bug, documented, response_of

log = structlog.get_logger()

PROBLEMS = (MissingToken, MissingScope, Unavailable)
MAX_QUERY = 2_000
"""What is noted of a query, in characters."""

EntityType = Annotated[str, Path(min_length=1, max_length=200, examples=["orders"], description="a table")]
EntityId = Annotated[
    str,
    Path(
        min_length=1,
        max_length=500,
        description="the primary key, its parts joined with `/`. Rows whose parts read the same (`a/b`, `c` and `a`, "
        "`b/c`) are told together: `key` tells them apart. The timeline of a key that ends in `/at` or `/diff` cannot "
        "be asked for: see `/audit/records`",
    ),
]


def _rfc3339(given: object) -> object:
    """A number would be taken for seconds. Raises ValueError."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", str(given), re.ASCII):
        raise ValueError("give a time with its offset: 2026-01-31T23:59:00+01:00, where `+` is %2B in a query")
    return given


Time = Annotated[Moment, BeforeValidator(_rfc3339)]
"""RFC 3339, with an offset."""
Table = Annotated[str, Query(alias="type", max_length=200, description="only this table")]
Since = Annotated[Time | None, Query(alias="from", description="committed then or later")]
Until = Annotated[Time | None, Query(alias="to", description="committed before")]


class Actor(BaseModel):
    """Who made a change, as far as anybody knows."""

    model_config = ConfigDict(from_attributes=True)

    actor: str = Field(description="`unknown` where nobody has said so: by hand, or it has not arrived yet")
    summary: str = Field(description="in words: `by hand, as postgres from psql`")
    session_id: str
    request_id: str
    reason: str
    traceparent: str
    database_user: str = Field(description="what the database knows of its client")
    application: str
    client_address: str


class Change(BaseModel):
    """One column, before and after."""

    model_config = ConfigDict(from_attributes=True)

    before: Any
    after: Any


class Became(Change):
    """One column at two times."""

    by: str | None = Field(description="the id of the record that gave it its new value; null where not all are read")


class AuditRecord(BaseModel):
    """One change of one row."""

    id: str
    source: str
    entity_type: str
    entity_id: str = Field(description="empty: all rows of the table, which was truncated")
    key: dict[str, Any]
    operation: Operation
    who: Actor
    before: dict[str, Any] | None = Field(description="the row as it was")
    after: dict[str, Any] | None = Field(description="the row as it is since then")
    changed: list[str] = Field(description="the columns whose value is another one since then, or that came or went")
    changes: dict[str, Change]
    committed_at: datetime
    position: str = Field(description="place in the database's log: of two, the later one is greater")
    transaction: str = Field(description="of the database: what one request changed has one")

    @classmethod
    def of(cls, one: Attributed) -> "AuditRecord":
        record = one.record
        fields = {name: getattr(record, name) for name in cls.model_fields if name not in ("who", "changes")}
        changes = {name: Change.model_validate(both) for name, both in differences(record.before, record.after).items()}
        return cls(**fields, who=Actor.model_validate(one.who), changes=changes)


class RowThen(BaseModel):
    """A row as it was."""

    row: dict[str, Any] | None = Field(description="null: it was gone by then")
    is_gone: bool
    by: AuditRecord = Field(description="what had made it so")


class DiffModel(BaseModel):
    """What became of a row between two times."""

    columns: dict[str, Became] = Field(description="that differ")
    records: list[AuditRecord] = Field(description="what happened to it in between")
    is_whole: bool = Field(description="whether these are all")


class DeedModel(BaseModel):
    """What somebody did in one go."""

    who: Actor
    at: datetime
    transaction: str
    records: list[AuditRecord]
    is_whole: bool = Field(description="whether these are all; if not, ask for the transaction")

    @classmethod
    def of(cls, deed: Deed) -> "DeedModel":
        return cls(
            who=Actor.model_validate(deed.who),
            at=deed.context.committed_at,
            transaction=deed.context.transaction,
            records=[AuditRecord.of(Attributed(record, deed.who)) for record in deed.records],
            is_whole=deed.is_whole,
        )


class Reads(Protocol):
    """Notes who reads what. Raises Unavailable."""

    async def add(self, *, actor: str, request_id: str, path: str, query: str) -> None: ...


def routes(archive: Archive, reads: Reads) -> APIRouter:
    """All of them."""

    async def noted(request: Request, principal: Annotated[Principal, require(Scope.AUDIT_READ)]) -> None:
        """Raises Unavailable: then nothing is shown."""
        request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))
        reason = f"{request.method} {request.url.path}"
        session_id = str(principal.session_id or "")
        who = Acting(
            actor=principal.subject,
            session_id=session_id,
            request_id=request_id,
            reason=reason,
            traceparent=trace.current(),
        )
        with acting(who):
            await reads.add(
                actor=principal.subject,
                request_id=request_id,
                path=request.url.path.replace("\0", "\ufffd"),  # PostgreSQL knows no NUL
                query=request.url.query[:MAX_QUERY],
            )

    router = APIRouter(prefix="/audit", tags=["audit"], dependencies=[Depends(noted)])
    _of_entities(router, archive)
    _of_deeds(router, archive)
    _of_records(router, archive)
    return router


def _of_entities(router: APIRouter, archive: Archive) -> None:
    """What became of one row. The two with a suffix come first: the id takes whatever is left of a path."""

    @router.get("/entities/{entity_type}/{entity_id:path}/at", responses=documented(*PROBLEMS, NoSuchEntity))
    async def at(entity_type: EntityType, entity_id: EntityId, time: Time) -> RowThen:
        """One row as it was at some time."""
        state = await row_at(archive, entity_type, entity_id, time)
        return RowThen(
            row=None if state.row is None else dict(state.row),
            is_gone=state.row is None,
            by=AuditRecord.of(state.by),
        )

    @router.get(
        "/entities/{entity_type}/{entity_id:path}/diff", responses=documented(*PROBLEMS, NoSuchEntity, BadInterval)
    )
    async def between(
        entity_type: EntityType,
        entity_id: EntityId,
        since: Annotated[Time, Query(alias="from")],
        until: Annotated[Time, Query(alias="to")],
    ) -> DiffModel:
        """What became of one row between two times."""
        found = await diff(archive, entity_type, entity_id, since, until)
        return DiffModel(
            columns={
                name: Became(before=both.before, after=both.after, by=found.by.get(name))
                for name, both in found.columns.items()
            },
            records=[AuditRecord.of(one) for one in found.records],
            is_whole=found.is_whole,
        )

    @router.get("/entities/{entity_type}/{entity_id:path}", responses=documented(*PROBLEMS, NoSuchEntity, BadCursor))
    async def entity(
        entity_type: EntityType, entity_id: EntityId, after: Cursor = None, limit: Limit = 50
    ) -> Page[AuditRecord]:
        """The timeline of one row: everything that ever happened to it, the oldest first."""
        return _page(await timeline(archive, entity_type, entity_id, _place(after), limit))


def _of_deeds(router: APIRouter, archive: Archive) -> None:
    """What somebody did."""

    @router.get("/actors/{actor:path}", responses=documented(*PROBLEMS, NothingRecorded, BadCursor))
    async def actor(
        actor: Annotated[str, Path(min_length=1, max_length=200, examples=["households/7", "services/payment"])],
        after: Cursor = None,
        limit: Limit = 20,
    ) -> Page[DeedModel]:
        """What somebody did, the newest first."""
        question = Question(actor=actor, newest_first=True)
        return _deeds(*await deeds(archive, question, _place(after), limit))

    @router.get("/requests/{request_id}", responses=documented(*PROBLEMS, NothingRecorded, BadCursor))
    async def made_by_request(
        request_id: Annotated[str, Path(min_length=1, max_length=256)], after: Cursor = None, limit: Limit = 20
    ) -> Page[DeedModel]:
        """What one request did, or what workers did for the sake of one event: its id is their correlation id."""
        return _deeds(*await deeds(archive, Question(request_id=request_id), _place(after), limit))

    @router.get("/transactions/{transaction}", responses=documented(*PROBLEMS, NothingRecorded, BadCursor))
    async def transaction(
        transaction: Annotated[str, Path(min_length=1, max_length=200)], after: Cursor = None, limit: Limit = 50
    ) -> Page[AuditRecord]:
        """Everything that one transaction changed, in all tables."""
        found = await page(archive, Question(transactions=(transaction,)), _place(after), limit)
        if not found.items and after is None:
            raise NothingRecorded(f"nothing is recorded of the transaction {transaction}")
        return _page(found)


def _of_records(router: APIRouter, archive: Archive) -> None:
    """What was changed in some time."""

    @router.get("/records", responses=documented(*PROBLEMS, BadInterval, BadCursor))
    async def records(
        since: Since = None,
        until: Until = None,
        entity_type: Table = "",
        operation: Operation | None = None,
        after: Cursor = None,
        limit: Limit = 50,
    ) -> Page[AuditRecord]:
        """What was changed in some time, in the order of commits. Without a type: all but who did it."""
        question = Question(entity_type=entity_type, operation=operation, since=since, until=until, by_time=True)
        return _page(await page(archive, question, _place_in_time(after), limit), _in_time)

    @router.get("/export", responses=documented(*PROBLEMS, BadInterval), response_class=StreamingResponse)
    async def export(since: Since = None, until: Until = None, entity_type: Table = "") -> StreamingResponse:
        """The same as NDJSON (https://github.com/ndjson/ndjson-spec), one record a line, as many as there are.

        If it has to break off, the last line is a problem with an `error`: a file without one is whole.
        """
        question = Question(entity_type=entity_type, since=since, until=until, by_time=True)
        if since and until and until < since:
            raise BadInterval(f"{until} is before {since}")
        records = everything(archive, question)
        first = await anext(records, None)  # as long as nothing is sent, a status can tell what is wrong
        return StreamingResponse(_lines(first, records), media_type="application/x-ndjson")


async def _lines(first: Attributed | None, others: AsyncGenerator[Attributed]) -> AsyncIterator[str]:
    async with aclosing(others):
        try:
            if first is not None:
                yield AuditRecord.of(first).model_dump_json() + "\n"
            async for one in others:
                yield AuditRecord.of(one).model_dump_json() + "\n"
        except DomainError as error:
            log.warning("export broken off", why=error.detail)
            yield _last_line(error.detail, response_of(error))
        except Exception as error:  # a file that looks whole would be worse
            log.error("export broken off", exc_info=error)
            yield _last_line("this is our fault", bug())


def _last_line(why: str, problem: Response) -> str:
    return json.dumps({"error": why, **json.loads(bytes(problem.body))}) + "\n"


def _place(cursor: str | None) -> Place | None:
    """Raises BadCursor."""
    return None if cursor is None else Place(str(key_of(cursor, str)[0]))


def _place_in_time(cursor: str | None) -> Place | None:
    """Raises BadCursor."""
    if cursor is None:
        return None
    id_, ms = key_of(cursor, str, int)
    try:
        return Place(str(id_), datetime.fromtimestamp(int(ms) / 1000, UTC))
    except (ValueError, OverflowError, OSError) as error:
        raise BadCursor("begin with the first page again") from error


def _in_log(place: Place) -> str:
    return cursor_of(place.id)


def _in_time(place: Place) -> str:
    assert place.committed_at is not None
    return cursor_of(place.id, round(place.committed_at.timestamp() * 1000))


def _page(found: Found, cursor: Callable[[Place], str] = _in_log) -> Page[AuditRecord]:
    return Page(
        items=[AuditRecord.of(one) for one in found.items], next=None if found.next is None else cursor(found.next)
    )


def _deeds(found: list[Deed], following: Place | None) -> Page[DeedModel]:
    return Page(items=[DeedModel.of(deed) for deed in found], next=None if following is None else _in_log(following))
