"""The hub: one reader of the stream a process, and every client of that process with the topics it follows.

An event reaches a client once: under the narrowest topic that the client follows (`orders/{id}`, then
`households/{id}`, then `orders`).
"""

import asyncio
import json
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from showcase.kernel.errors import Invalid, Unavailable
from showcase.kernel.events import Event
from showcase.kernel.principal import Principal
from showcase.realtime.domain import NotYourTopic, Topic, may_follow, topics_of

QUEUE_LENGTH = 256
MAX_TOPICS = 100

RESTARTING = 1012
TRY_AGAIN_LATER = 1013
INTERNAL_ERROR = 1011
POLICY_VIOLATION = 1008

OwnerOf = Callable[[UUID], Awaitable[int | None]]
"""The household that an order belongs to; None if there is no such order. Raises Unavailable."""


class TooManyTopics(Invalid):
    """One connection follows no more topics than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """An event with its place in the stream; None for something there that is no event."""

    id: str
    event: Event | None


class Stream(Protocol):
    """The events of all processes, in one order. Raises Unavailable."""

    async def publish(self, event: Event) -> bool:
        """Add an event to the end; False for one that was added before."""

    async def end(self) -> str:
        """The id of the last event."""

    async def read(self, after: str) -> Sequence[Stored]:
        """What comes after an id, the oldest first. Waits a moment if there is nothing."""


@dataclass(frozen=True, slots=True)
class Closing:
    """Why a connection ends (RFC 6455 §7.4)."""

    code: int
    reason: str


class Client:
    """One connection: what waits to be sent, what it follows, whose session it is, and why it ends."""

    def __init__(self) -> None:
        self.topics: set[Topic] = set()
        self.session_id: UUID | None = None
        self.closing: asyncio.Future[Closing] = asyncio.get_running_loop().create_future()
        self._waiting: deque[str] = deque()
        self._news = asyncio.Event()

    def tell(self, message: Mapping[str, object]) -> None:
        """Have a message sent."""
        self.put(_text(message))

    def put(self, text: str) -> None:
        """Have some text sent. Waits for nobody: a client that does not keep up is closed."""
        if self.closing.done():
            return
        if len(self._waiting) < QUEUE_LENGTH:
            self._waiting.append(text)
            self._news.set()
        else:
            self.close(TRY_AGAIN_LATER, f"more than {QUEUE_LENGTH} messages were waiting to be read", at_once=True)

    async def next(self) -> str | None:
        """What is to be sent next; None when that was all and the connection is to be closed."""
        while not self._waiting:
            if self.closing.done():
                return None
            self._news.clear()
            await self._news.wait()
        return self._waiting.popleft()

    def close(self, code: int, reason: str, *, at_once: bool = False) -> None:
        """Have the connection closed; the first reason counts.

        Args:
            at_once: what waits is not sent any more, rather than sent first.
        """
        if at_once:
            self._waiting.clear()
        if not self.closing.done():
            self.closing.set_result(Closing(code, reason))
            self._news.set()


class Hub:
    """The clients of this process and what they follow.

    Args:
        max_clients: how many there may be.
    """

    def __init__(self, stream: Stream, owner_of: OwnerOf, *, max_clients: int) -> None:
        self._stream = stream
        self._owner_of = owner_of
        self._max_clients = max_clients
        self._clients: set[Client] = set()
        self._following: dict[Topic, set[Client]] = {}
        self._of_session: dict[UUID, set[Client]] = {}
        self._after: str | None = None
        self.positioned = asyncio.Event()
        """Set as soon as the reader knows where it begins."""

    def join(self, client: Client) -> bool:
        """Take a client in; False when there are too many."""
        if len(self._clients) >= self._max_clients:
            return False
        self._clients.add(client)
        return True

    def leave(self, client: Client) -> None:
        """Forget a client and what it follows."""
        for topic in list(client.topics):
            self.unsubscribe(client, topic)
        self._clients.discard(client)
        if client.session_id is not None:
            clients = self._of_session[client.session_id]
            clients.discard(client)
            if not clients:
                del self._of_session[client.session_id]

    def signed_in(self, client: Client, principal: Principal) -> None:
        """Note whose a connection is, so that it ends with the session."""
        client.session_id = principal.session_id
        if principal.session_id is not None:
            self._of_session.setdefault(principal.session_id, set()).add(client)

    def end_session(self, session_id: UUID) -> None:
        """Close every connection of a session; what waits to be sent is not sent any more."""
        for client in self._of_session.get(session_id, ()):
            client.close(POLICY_VIOLATION, "the session has ended", at_once=True)

    async def subscribe(self, client: Client, principal: Principal, topic: Topic) -> None:
        """Have a client told every event of a topic that is published from now on.

        Raises NotYourTopic, also for an order that is not there; TooManyTopics, Unavailable.
        """
        if len(client.topics | {topic}) > MAX_TOPICS:
            raise TooManyTopics(f"unsubscribe from some of the {MAX_TOPICS} topics first")
        if not self.positioned.is_set():
            raise Unavailable("the stream of events does not answer")
        order_id = topic.order_id
        owner = None if order_id is None or may_follow(principal, topic, None) else await self._owner_of(order_id)
        if not may_follow(principal, topic, owner):
            raise NotYourTopic(f"follow your own orders; {topic.name} needs the scope orders:follow")
        client.topics.add(topic)
        self._following.setdefault(topic, set()).add(client)
        client.tell({"type": "subscribed", "topic": topic.name})

    def unsubscribe(self, client: Client, topic: Topic) -> None:
        """Tell a client no more of a topic; harmless if it does not follow it."""
        client.topics.discard(topic)
        followers = self._following.get(topic, set())
        followers.discard(client)
        if not followers:
            self._following.pop(topic, None)

    async def read(self, stop: asyncio.Event) -> None:
        """Read the stream: from its end at first, later from where it broke off. Raises Unavailable."""
        if self._after is None:
            self._after = await self._stream.end()
            self.positioned.set()
        while not stop.is_set():
            for stored in await self._stream.read(self._after):
                self._after = stored.id
                if stored.event is not None:
                    self.deliver(stored.id, stored.event)

    def deliver(self, id_: str, event: Event) -> None:
        """Put an event of the stream into the queue of everybody who follows it. Waits for nobody."""
        told: set[Client] = set()
        for topic in topics_of(event):
            followers = self._following.get(topic, set()) - told
            if followers:
                text = _text(message_of(id_, event, topic))  # once, however many follow
                for client in followers:
                    client.put(text)
                told |= followers

    def break_off(self, code: int, reason: str) -> None:
        """Have every connection closed, and take no subscription any more."""
        self.positioned.clear()
        for client in self._clients:
            client.close(code, reason)


def message_of(id_: str, event: Event, topic: Topic) -> dict[str, object]:
    """An event as it is told: CloudEvents' JSON format, with its place in the stream."""
    return {"type": "event", "topic": topic.name, "id": id_, "event": {**event.attributes(), "data": event.data}}


def _text(message: Mapping[str, object]) -> str:
    return json.dumps(message, ensure_ascii=False, separators=(",", ":"))
