"""The WebSocket `/ws` (RFC 6455), subprotocol `showcase.v1`: JSON messages, each with a `type`.

    client: hello {token} first, within five seconds; then subscribe {topic}, unsubscribe {topic}
    server: welcome, subscribed {topic}, event {topic, id, event}, error {problem}

Closed with 1008 for what is against these rules and when the session ends, 1009 for a message that is too large,
1011 when the stream of events broke, 1012 when the process stops, and 1013 when there are too many connections or one
does not keep up.
"""

import asyncio
from contextlib import suppress
from typing import Annotated, Any, Literal

import structlog
from fastapi import APIRouter
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from starlette.websockets import WebSocket, WebSocketDisconnect

from showcase.kernel.errors import DomainError, Invalid, Unauthenticated, Unavailable
from showcase.kernel.principal import Principal
from showcase.platform.web.callers import Authenticate
from showcase.platform.web.problems import problem, status_of, title_of, type_of
from showcase.realtime.application import INTERNAL_ERROR, POLICY_VIOLATION, TRY_AGAIN_LATER, Client, Closing, Hub
from showcase.realtime.domain import Topic

log = structlog.get_logger()

SUBPROTOCOL = "showcase.v1"
MAX_MESSAGE_BYTES = 64 * 1024
HELLO_WITHIN_S = 5.0
CLOSE_WITHIN_S = 5.0
MAX_MALFORMED = 5

TOO_BIG = 1009


class NoSubprotocol(Invalid):
    """The handshake does not offer the subprotocol that is spoken here."""


class MalformedMessage(Invalid):
    """The message cannot be read."""


class Hello(BaseModel):
    """Who is there. The token is never in the URL, which ends up in logs."""

    type: Literal["hello"]
    token: str


class Subscribe(BaseModel):
    """Tell me what happens there from now on."""

    type: Literal["subscribe"]
    topic: str


class Unsubscribe(BaseModel):
    """Tell me no more of it."""

    type: Literal["unsubscribe"]
    topic: str


ClientMessage = Annotated[Hello | Subscribe | Unsubscribe, Field(discriminator="type")]
_CLIENT_MESSAGE: TypeAdapter[Hello | Subscribe | Unsubscribe] = TypeAdapter(ClientMessage)


class _Ended(Exception):
    """The connection is to be closed."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.closing = Closing(code, reason)


def routes(hub: Hub) -> APIRouter:
    """The one route; whose token it is says `app.state.authenticate`."""
    router = APIRouter()

    @router.websocket("/ws")
    async def follow(websocket: WebSocket) -> None:
        if SUBPROTOCOL not in websocket.scope["subprotocols"]:
            refused = problem(
                400, type_of(NoSubprotocol), title_of(NoSubprotocol), f"send Sec-WebSocket-Protocol: {SUBPROTOCOL}"
            )
            await websocket.send_denial_response(refused)
            return
        await websocket.accept(SUBPROTOCOL)
        client = Client()
        if not hub.join(client):
            with suppress(WebSocketDisconnect):
                await websocket.close(TRY_AGAIN_LATER, "too many connections")
            return
        reading = asyncio.create_task(_read(websocket, client, hub))
        writing = asyncio.create_task(_write(websocket, client))
        try:
            first: set[asyncio.Future[Any]] = {reading, writing, client.closing}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if reading.done() and (closing := _why(reading.exception())):
                client.close(closing.code, closing.reason)
            if client.closing.done():  # one that is stalled does not even take its close
                await asyncio.wait({writing}, timeout=CLOSE_WITHIN_S)
        finally:
            reading.cancel()
            writing.cancel()
            await asyncio.gather(reading, writing, return_exceptions=True)
            hub.leave(client)  # last: reading may have been about to subscribe

    return router


def _why(error: BaseException | None) -> Closing | None:
    """How to close a connection on which reading ended so; None where nobody is there any more."""
    if isinstance(error, WebSocketDisconnect):
        return None
    if isinstance(error, _Ended):
        return error.closing
    log.error("unhandled", path="/ws", exc_info=error)
    return Closing(INTERNAL_ERROR, "something broke, and it is our fault")


async def _read(websocket: WebSocket, client: Client, hub: Hub) -> None:
    """Do what the client asks for. Raises _Ended, WebSocketDisconnect."""
    try:
        async with asyncio.timeout(HELLO_WITHIN_S):
            principal = await _greeted(websocket)
            hub.signed_in(client, principal)  # nothing in between: a revocation is heard either before or after
    except TimeoutError as error:
        raise _Ended(POLICY_VIOLATION, "the first message is hello, within 5 seconds") from error
    except DomainError as error:
        client.tell(_error(error))
        code = TRY_AGAIN_LATER if isinstance(error, Unavailable) else POLICY_VIOLATION
        raise _Ended(code, title_of(type(error))) from error
    client.tell({"type": "welcome"})
    malformed = 0
    while True:
        try:
            message = await _receive(websocket)
            if isinstance(message, Hello):
                raise MalformedMessage("hello is the first message, and the only one of its type")
            topic = Topic.read(message.topic)
            if isinstance(message, Subscribe):
                await hub.subscribe(client, principal, topic)
            else:
                hub.unsubscribe(client, topic)
        except DomainError as error:
            client.tell(_error(error))
            malformed += isinstance(error, MalformedMessage)
            if malformed == MAX_MALFORMED:
                raise _Ended(POLICY_VIOLATION, f"{MAX_MALFORMED} messages could not be read") from error


async def _greeted(websocket: WebSocket) -> Principal:
    """Whoever says hello. Raises Unauthenticated, MalformedMessage."""
    message = await _receive(websocket)
    if not isinstance(message, Hello):
        raise Unauthenticated("the first message is hello, with an access token")
    authenticate: Authenticate = websocket.app.state.authenticate
    return await authenticate(message.token)


async def _receive(websocket: WebSocket) -> Hello | Subscribe | Unsubscribe:
    """The next message. Raises MalformedMessage, _Ended, WebSocketDisconnect."""
    received = await websocket.receive()
    if received["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(received["code"])
    text = received.get("text")
    if text is None:
        raise MalformedMessage("messages are text, not binary")
    if len(text) > MAX_MESSAGE_BYTES or len(text.encode()) > MAX_MESSAGE_BYTES:
        raise _Ended(TOO_BIG, f"a message has up to {MAX_MESSAGE_BYTES:,} bytes")
    try:
        return _CLIENT_MESSAGE.validate_json(text)
    except ValidationError as error:
        found = error.errors(include_input=False, include_url=False)[0]  # never with the input: it may be a secret
        where = "/".join(str(part) for part in found["loc"])
        raise MalformedMessage(f"{where}: {found['msg']}" if where else found["msg"]) from error


async def _write(websocket: WebSocket, client: Client) -> None:
    """Send what waits until the connection is to be closed, then close it. Raises WebSocketDisconnect."""
    while (text := await client.next()) is not None:
        await websocket.send_text(text)
    closing = client.closing.result()
    await websocket.close(closing.code, closing.reason)


def _error(error: DomainError) -> dict[str, object]:
    kind = type(error)
    known = {"type": type_of(kind), "title": title_of(kind), "status": status_of(kind), "detail": error.detail}
    return {"type": "error", "problem": {**error.facts, **known}}
