"""The protocol `showcase.v1`: every message that goes over a WebSocket, each a JSON object with a `type`.

A client says `hello` with a ticket (unless that came with the handshake) and is told `welcome`. It subscribes to
topics, on the first time perhaps `after` the last event that it has handled, and is told what it missed, then
`subscribed`, then each event as it happens. Whatever it asks for wrongly is answered with `error`; `ref` tells which
request that was.
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

SUBPROTOCOL = "showcase.v1"
MAX_TOPICS = 100

Ref = Annotated[str | None, Field(max_length=64, description="Comes back in the answer.")]
TopicName = Annotated[str, Field(max_length=100)]
Topics = Annotated[list[TopicName], Field(min_length=1, max_length=MAX_TOPICS)]
PlaceText = Annotated[str, Field(max_length=60, description="The id of an event, as it was told.")]


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    ref: Ref = None


# -- what a client says


class Hello(_Message):
    """Who is there. Said again with a fresh ticket, before the old one's token expires, it lets the connection stay."""

    type: Literal["hello"] = "hello"
    ticket: Annotated[str, Field(max_length=200, description="From POST /realtime/tickets; it works once.")]
    window: Annotated[
        int | None, Field(ge=1, le=256, description="So many events may be told that are not acknowledged yet.")
    ] = None


class Subscribe(_Message):
    """Tell me what happens there: all after an event, or what happens from now on."""

    type: Literal["subscribe"] = "subscribe"
    topics: Topics
    after: PlaceText | None = None


class Unsubscribe(_Message):
    """Tell me no more of it."""

    type: Literal["unsubscribe"] = "unsubscribe"
    topics: Topics


class Ack(_Message):
    """This event, and all before it, are handled."""

    type: Literal["ack"] = "ack"
    id: PlaceText


class Ping(_Message):
    """Are you there?"""

    type: Literal["ping"] = "ping"


Asked = Hello | Subscribe | Unsubscribe | Ack | Ping
ASKED: TypeAdapter[Asked] = TypeAdapter(Annotated[Asked, Field(discriminator="type")])
"""Reads what a client says."""


# -- what a server says


class Welcome(_Message):
    """The ticket was good."""

    type: Literal["welcome"] = "welcome"
    expires_at: datetime | None = Field(None, description="When the connection is closed, without another hello.")


class Subscribed(_Message):
    """From here on everything that happens in these topics is told."""

    type: Literal["subscribed"] = "subscribed"
    topics: list[str]
    at: PlaceText


class Unsubscribed(_Message):
    """Nothing more of these is told."""

    type: Literal["unsubscribed"] = "unsubscribed"
    topics: list[str]


class Told(_Message):
    """Something happened: an event as CloudEvents' JSON format has it, with its place in the stream."""

    type: Literal["event"] = "event"
    topic: str
    id: PlaceText
    event: dict[str, Any]


class Dropped(_Message):
    """The client was too slow: so many events of a topic that only shows the newest were passed over."""

    type: Literal["dropped"] = "dropped"
    topic: str
    count: int


class Reset(_Message):
    """What happened in these topics until now is not known any more: look at how things stand, and go on from here."""

    type: Literal["reset"] = "reset"
    topics: list[str]
    at: PlaceText
    why: str


class Pong(_Message):
    """Yes."""

    type: Literal["pong"] = "pong"


class Error(_Message):
    """It cannot be done, and why (RFC 9457)."""

    type: Literal["error"] = "error"
    problem: dict[str, Any]


Said = Welcome | Subscribed | Unsubscribed | Told | Dropped | Reset | Pong | Error
SAID: TypeAdapter[Said] = TypeAdapter(Annotated[Said, Field(discriminator="type")])
"""Reads what a server says."""


def text_of(message: _Message) -> str:
    """A message as it goes over the wire."""
    return message.model_dump_json(exclude_none=True)
