"""Operations over HTTP, and the figures that a monitoring system asks for."""

import base64
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from showcase.kernel.principal import Principal, Scope
from showcase.messaging.application.operations import (
    MAX_REASON,
    AlreadySettled,
    BadReason,
    NoSuchMessage,
    NoSuchQueue,
    Operations,
    OutboxState,
)
from showcase.messaging.application.parked import MAX_NAME, State
from showcase.messaging.application.parking_lot import Details, Place, Which
from showcase.platform.slices import Gauge
from showcase.platform.web.callers import MissingScope, MissingToken, require
from showcase.platform.web.paging import BadCursor, Cursor, Limit, Page, cursor_of, key_of
from showcase.platform.web.problems import documented

NAME = r"^[ -~]*$"


class QueueModel(BaseModel):
    """A queue of the broker."""

    name: str
    ready: int = Field(description="messages that wait for a consumer")
    consumers: int
    in_per_s: float | None = Field(description="messages a second; null where nobody measures it")
    out_per_s: float | None = Field(description="messages that consumers acknowledge, a second")


class OutboxModel(BaseModel):
    """A service's outbox."""

    outbox: str = Field(description="its schema")
    waiting: int = Field(description="events that the broker has not taken yet")
    oldest_s: float | None = Field(description="for how long the oldest of them has waited")
    parked: int = Field(description="events that cannot be published")


class ParkedModel(BaseModel):
    """A message that nobody could handle, or publish."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    queue: str = Field(description="whose consumer failed; `outbox:SCHEMA` if it could not be published")
    event_id: str
    type: str
    subject: str
    reason: str
    attempts: int
    replays: int
    parked_at: datetime
    state: State
    settled_at: datetime | None


class ActionModel(BaseModel):
    """What somebody did to it."""

    model_config = ConfigDict(from_attributes=True)

    at: datetime
    actor: str
    action: Literal["replay", "discard"]
    reason: str


class DetailsModel(ParkedModel):
    """All that is known of it."""

    attributes: dict[str, str] = Field(description="of CloudEvents")
    headers: dict[str, Any] = Field(description="all others")
    body: str
    body_encoding: Literal["text", "base64"] = Field(description="`base64` if the body is no UTF-8")
    actions: list[ActionModel] = Field(description="the last ones, the newest first")

    @classmethod
    def of(cls, details: Details) -> "DetailsModel":
        body, encoding = read_body(details.body)
        return cls(
            **ParkedModel.model_validate(details.entry).model_dump(),
            attributes=dict(details.attributes),
            headers=dict(details.headers),
            body=body,
            body_encoding=encoding,
            actions=[ActionModel.model_validate(action) for action in details.actions],
        )


class Filter(BaseModel):
    """Which messages: all that are parked, if it says nothing."""

    model_config = ConfigDict(extra="forbid")

    queue: Annotated[str, Field(max_length=MAX_NAME, pattern=NAME)] | None = None
    type: Annotated[str, Field(max_length=MAX_NAME, pattern=NAME)] | None = None


class ReplayedModel(BaseModel):
    """What a replay of many did."""

    model_config = ConfigDict(from_attributes=True)

    replayed: int
    more: bool = Field(description="whether some of them are left: ask again")


class Discarding(BaseModel):
    """Why a message is given up."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str, Field(description=f"1 to {MAX_REASON} characters")]


Support = Annotated[Principal, require(Scope.SUPPORT)]
Id = Annotated[str, Path(max_length=100, description="a UUID, or `outbox:SCHEMA:POSITION`")]
OfQueue = Annotated[str | None, Query(alias="queue", max_length=MAX_NAME, pattern=NAME)]
OfType = Annotated[str | None, Query(alias="type", max_length=MAX_NAME, pattern=NAME)]


def routes(operations: Operations) -> APIRouter:
    """The routes of operators, each for the scope `support`."""
    router = APIRouter(prefix="/messaging", tags=["messaging"])
    refused = (MissingToken, MissingScope)

    @router.get("/queues", responses=documented(*refused))
    async def queues(caller: Support) -> list[QueueModel]:
        """How many messages wait in each queue, and how many consumers it has."""
        return [
            QueueModel(
                name=queue.name,
                ready=queue.ready,
                consumers=queue.consumers,
                in_per_s=queue.rate and queue.rate.in_per_s,
                out_per_s=queue.rate and queue.rate.out_per_s,
            )
            for queue in await operations.queue_states()
        ]

    @router.get("/outboxes", responses=documented(*refused))
    async def outboxes(caller: Support) -> list[OutboxModel]:
        """How many events wait in each outbox, and for how long."""
        return [
            OutboxModel(
                outbox=schema,
                waiting=state.waiting,
                oldest_s=_seconds(state),
                parked=state.parked,
            )
            for schema, state in (await operations.outbox_states()).items()
        ]

    @router.get("/parked", responses=documented(*refused, BadCursor))
    async def parked(
        caller: Support, queue: OfQueue = None, type_: OfType = None, limit: Limit = 50, cursor: Cursor = None
    ) -> Page[ParkedModel]:
        """Messages that nobody could handle or publish, the newest first."""
        before = None if cursor is None else place_of(cursor)
        entries, following = await operations.parked(Which(queue=queue, type=type_), before, limit)
        return Page(
            items=[ParkedModel.model_validate(entry) for entry in entries],
            next=None if following is None else cursor_after(following),
        )

    @router.get("/parked/{message_id}", responses=documented(*refused, NoSuchMessage))
    async def message(message_id: Id, caller: Support) -> DetailsModel:
        """One message with its headers and body, and what was done to it."""
        return DetailsModel.of(await operations.message(message_id))

    @router.post(
        "/parked/{message_id}/replay",
        status_code=204,
        responses=documented(*refused, NoSuchMessage, AlreadySettled, NoSuchQueue),
    )
    async def replay(message_id: Id, caller: Support) -> Response:
        """Send a message back to the queue it came from, once however often this is asked for."""
        await operations.replay(message_id, caller.subject)
        return Response(status_code=204)

    @router.post("/replays", responses=documented(*refused, NoSuchQueue))
    async def replay_all(which: Filter, caller: Support) -> ReplayedModel:
        """Send back all that are parked now, or some of them, the oldest first; a bounded number at a time."""
        wanted = Which(queue=which.queue, type=which.type)
        return ReplayedModel.model_validate(await operations.replay_all(wanted, caller.subject))

    @router.post(
        "/parked/{message_id}/discard",
        status_code=204,
        responses=documented(*refused, NoSuchMessage, AlreadySettled, BadReason),
    )
    async def discard(message_id: Id, discarding: Discarding, caller: Support) -> Response:
        """Give a message up, for a reason that is written down."""
        await operations.discard(message_id, caller.subject, discarding.reason)
        return Response(status_code=204)

    return router


def described(asyncapi: Callable[[], dict[str, Any]]) -> APIRouter:
    """The description of all events and queues, for everybody to read; made when it is first asked for."""
    router = APIRouter(tags=["messaging"])
    made = cache(asyncapi)

    @router.get("/asyncapi.json", include_in_schema=False)
    async def document() -> dict[str, Any]:
        return made()

    return router


async def gauges(operations: Operations) -> Sequence[Gauge]:
    """What to be woken up for: one query an outbox, one for all parked messages. Raises Unavailable."""
    states = await operations.outbox_states()
    parked = await operations.counts()

    def of_outboxes(name: str, words: str, value: Callable[[OutboxState], float]) -> Gauge:
        values = {schema: value(state) for schema, state in states.items()}
        return Gauge(name=f"showcase_outbox_{name}", help=words, label="outbox", values=values)

    return [
        of_outboxes("waiting_messages", "Events that the broker has not taken yet.", lambda one: one.waiting),
        of_outboxes("oldest_seconds", "For how long the oldest of them has waited.", lambda one: _seconds(one) or 0),
        of_outboxes("parked_messages", "Events that cannot be published.", lambda one: one.parked),
        Gauge(
            name="showcase_parked_messages",
            help="Messages that no consumer could handle.",
            label="queue",
            values=parked,
        ),
    ]


def _seconds(state: OutboxState) -> float | None:
    return None if state.oldest is None else state.oldest.total_seconds()


def cursor_after(place: Place) -> str:
    """The cursor of the page after a place."""
    return cursor_of(place.parked_at.isoformat(), place.id)


def place_of(cursor: str) -> Place:
    """The place in a cursor. Raises BadCursor."""
    at, id_ = (str(part) for part in key_of(cursor, str, str))
    try:
        place = Place(datetime.fromisoformat(at), id_)
    except ValueError:
        place = None
    if place is None or place.parked_at.tzinfo is None or not id_.isprintable():
        raise BadCursor("begin with the first page again")
    return place


def read_body(body: bytes) -> tuple[str, Literal["text", "base64"]]:
    """A body as text, if it is some, or else in base64; and which of them it is."""
    try:
        return body.decode(), "text"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
