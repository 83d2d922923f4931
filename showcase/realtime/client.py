"""A client of the WebSocket: follows topics, comes back when the connection ends, and goes on where it was.

    async with follow(["http://127.0.0.1:8001", "http://127.0.0.1:8002"], token, ["orders"]) as events:
        async for told in events:
            match told:
                case Told():
                    print(told.event.type)
                case Gap():
                    ...  # some events are not told: look anew at what is followed

The same events arrive once each, in order, whatever happens to connections and processes meanwhile.
"""

import asyncio
import json
import random
import ssl
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import cycle
from types import TracebackType
from typing import Any, Self

import httpx
import structlog
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake
from websockets.typing import Subprotocol

from showcase.kernel.events import Event
from showcase.realtime.application.messages import SUBPROTOCOL

log = structlog.get_logger()

ANSWER_WITHIN_S = 10.0
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
MAX_MESSAGE_BYTES = 32 * 1024 * 1024
WINDOW = 64
BUFFER = 1_000
"""Without a window, so many events are taken from the connection before the one who iterates takes them."""

Token = str | Callable[[], Awaitable[str]]
"""An access token, or what fetches one that is fresh."""


class Refused(Exception):
    """The server answered with an error that coming back does not mend.

    Attributes:
        problem: RFC 9457, as it came.
    """

    def __init__(self, problem: dict[str, Any]) -> None:
        super().__init__(f"{problem.get('title')}: {problem.get('detail')}")
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """An event, with the topic under which it came and its place in the stream."""

    id: str
    topic: str
    event: Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """Some events are not told: `count` of them were dropped since this client is slow, or nobody knows how many.

    Attributes:
        at: what came before this place in the stream is not told; None for what was dropped here and there.
    """

    topics: tuple[str, ...]
    why: str
    count: int | None = None
    at: str | None = None


async def ticket(url: str, token: str) -> str:
    """Trade an access token for a ticket. Raises Refused, httpx.TransportError."""
    # No proxy: a token is for the server and nobody on the way.
    async with httpx.AsyncClient(base_url=url, timeout=ANSWER_WITHIN_S, trust_env=False, verify=_tls()) as http:
        answer = await http.post("/realtime/tickets", headers={"Authorization": f"Bearer {token}"})
    if answer.status_code != httpx.codes.CREATED:
        raise _refusal(_problem_in(answer))
    return str(answer.json()["ticket"])


def _problem_in(answer: httpx.Response) -> dict[str, Any]:
    """What went wrong; something between here and the app may have answered, that knows nothing of RFC 9457."""
    said = answer.json() if answer.headers.get("Content-Type") == "application/problem+json" else {}
    return {"title": answer.reason_phrase, "detail": answer.reason_phrase, **said, "status": answer.status_code}


@cache
def _tls() -> ssl.SSLContext:
    """What a client of HTTPS trusts: read from disk once, not with each ticket."""
    return ssl.create_default_context()


@asynccontextmanager
async def opened(url: str, token: str, window: int | None = None) -> AsyncIterator[ClientConnection]:
    """One connection, let in.

    Args:
        url: of the app, `http://host:port`.
        window: how many events may be on their way that are not acknowledged.

    Raises Refused; OSError, httpx.TransportError and websockets.WebSocketException when there is no connection.
    """
    pass_ = await ticket(url, token)
    async with connect(
        f"{url.rstrip('/').replace('http', 'ws', 1)}/ws",
        subprotocols=[Subprotocol(SUBPROTOCOL)],
        compression=None,
        proxy=None,
        open_timeout=ANSWER_WITHIN_S,
        close_timeout=ANSWER_WITHIN_S / 5,
        max_size=MAX_MESSAGE_BYTES,
    ) as socket:
        hello = {"type": "hello", "ticket": pass_, **({} if window is None else {"window": window})}
        await socket.send(json.dumps(hello))
        async with asyncio.timeout(ANSWER_WITHIN_S):
            if (answer := json.loads(await socket.recv()))["type"] != "welcome":
                raise _refusal(answer["problem"])
        yield socket


class Following:
    """What `follow` gives: iterate over it.

    Attributes:
        last: id of the event that was taken last; give it as `after` to go on in another process of yours.
        connections: how often it was let in.
        url: of the server that it is connected to, or was last.
    """

    def __init__(
        self,
        urls: Sequence[str],
        token: Token,
        topics: Sequence[str],
        after: str | None = None,
        window: int | None = WINDOW,
        *,
        reconnect: bool = True,
    ) -> None:
        self.last = after
        self.connections = 0
        self.url = ""
        self._urls, self._token, self._topics, self._window = urls, token, topics, window
        self._reconnect = reconnect
        self._came: deque[Told | Gap] = deque()
        self._newest = after
        self._handled: str | None = None
        self._socket: ClientConnection | None = None
        self._is_confirmed = asyncio.Event()
        self._news = asyncio.Event()
        self._room = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._stay())
        confirmed = asyncio.create_task(self._is_confirmed.wait())
        try:
            await asyncio.wait({self._task, confirmed}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                self._task.result()
        except BaseException:
            self._task.cancel()
            raise
        finally:
            confirmed.cancel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Told | Gap:
        """Raises Refused when coming back is no use; what ended the connection, if it is not to come back."""
        await self._acknowledge()
        while not self._came:
            if self._task.done():
                self._task.result()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        one = self._came.popleft()
        self._room.set()
        if isinstance(one, Told):
            self.last = self._handled = one.id
        else:
            self.last = one.at or self.last
        return one

    async def _acknowledge(self) -> None:
        """What was taken last is handled, since the next one is asked for."""
        handled, self._handled = self._handled, None
        if handled is not None and self._socket is not None and self._window is not None:
            with suppress(ConnectionClosed):
                await self._socket.send(json.dumps({"type": "ack", "id": handled}))

    async def _stay(self) -> None:
        """Be connected; come back after a growing pause with jitter, to the next server."""
        pause_s = FIRST_PAUSE_S
        try:
            for url in cycle(self._urls):
                self.url = url
                connections = self.connections
                try:
                    await self._connected()
                except (OSError, TimeoutError, httpx.TransportError, ConnectionClosed, InvalidHandshake) as error:
                    if not self._reconnect:
                        raise
                    log.info("the connection ended", url=self.url, why=str(error))
                if not self._reconnect:
                    return
                if self.connections > connections:
                    pause_s = FIRST_PAUSE_S
                await asyncio.sleep(random.uniform(0, pause_s))  # noqa: S311 - full jitter, no secret
                pause_s = min(LONGEST_PAUSE_S, 2 * pause_s)
        finally:
            self._news.set()

    async def _connected(self) -> None:
        """Until the connection ends."""
        token = self._token if isinstance(self._token, str) else await self._token()
        async with opened(self.url, token, self._window) as socket:
            resume = {} if self._newest is None else {"after": self._newest}
            await socket.send(json.dumps({"type": "subscribe", "topics": list(self._topics), **resume}))
            self._socket = socket
            try:
                async for text in socket:
                    while len(self._came) >= BUFFER:
                        self._room.clear()
                        await self._room.wait()
                    self._heard(json.loads(text))
            finally:
                self._socket = None

    def _heard(self, message: dict[str, Any]) -> None:
        """Raises Refused, ConnectionResetError."""
        kind = message["type"]
        if kind == "event":
            attributes = message["event"]
            event = Event.read(attributes, json.dumps(attributes["data"]).encode())
            self._newest = message["id"]
            self._came.append(Told(id=message["id"], topic=message["topic"], event=event))
        elif kind == "reset":
            self._newest = message["at"]
            self._came.append(Gap(topics=tuple(message["topics"]), why=message["why"], at=message["at"]))
        elif kind == "dropped":
            self._came.append(Gap(topics=(message["topic"],), why="too slow", count=message["count"]))
        elif kind == "subscribed":
            self._newest = self._newest or message["at"]
            self.last = self.last or message["at"]
            self.connections += 1
        elif kind == "error":
            raise _refusal(message["problem"])
        # Whatever comes says that all topics are allowed. What was missed comes before `subscribed`, and more of it
        # than a window only once somebody takes it.
        self._is_confirmed.set()
        self._news.set()


def _refusal(problem: dict[str, Any]) -> Exception:
    """Refused for what coming back does not mend."""
    if problem["status"] >= httpx.codes.INTERNAL_SERVER_ERROR or problem["status"] == httpx.codes.TOO_MANY_REQUESTS:
        return ConnectionResetError(problem["detail"])
    return Refused(problem)


def follow(
    urls: str | Sequence[str],
    token: Token,
    topics: Sequence[str],
    *,
    after: str | None = None,
    window: int | None = WINDOW,
    reconnect: bool = True,
) -> Following:
    """Follow topics; begins when the server has confirmed all of them, or tells what was missed.

    Args:
        urls: of the app's processes, `http://host:port`; the next one is tried when a connection ends.
        after: id of an event; all that comes after it is told first.
        window: how many events may be under way that were not taken yet; None for as many as the server has.
        reconnect: rather than raise websockets.ConnectionClosed, which knows code and reason, when a connection ends.

    Raises Refused when it is entered, or iterated over, and the server says that coming back is no use. A server that
    is away is tried again and again, unless it is not to reconnect.
    """
    given = [urls] if isinstance(urls, str) else list(urls)
    return Following(given, token, topics, after, window, reconnect=reconnect)
