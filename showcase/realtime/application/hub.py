"""The hub: one reader of the stream a process, and every client of that process with the topics it follows.

An event reaches a client once: under the narrowest topic that the client follows (`orders/{id}`, then
`households/{id}`, then `orders`, then `ops`).
"""

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from uuid import UUID

import structlog

from showcase.kernel.clock import Clock, system_clock
from showcase.kernel.errors import Conflict, Invalid, TooMany, Unavailable
from showcase.kernel.principal import Principal
from showcase.realtime.application.clients import INTERNAL_ERROR, POLICY_VIOLATION, RESTARTING, TRY_AGAIN_LATER, Client
from showcase.realtime.application.messages import MAX_TOPICS, Reset, Subscribed, Unsubscribed
from showcase.realtime.application.ports import Lost, OwnerOf, Stream
from showcase.realtime.application.recent import Known, Recent
from showcase.realtime.domain import NotYourTopic, Place, Topic, may_follow

log = structlog.get_logger()

PAGE = 500
RECENT = 5_000
"""Events that each process keeps in memory: many who come back at once, as after a deploy, cost Redis nothing."""
RECENT_BYTES = 32_000_000
"""As they are stored; in memory it is about three times as much."""
GONE = "what you saw last is not kept any more"


class TooManyTopics(Invalid):
    """One connection follows no more topics than this."""


class TooLateToResume(Conflict):
    """A connection resumes with the first topics that it subscribes to, or never."""


class TooManySockets(TooMany):
    """One household has no more connections to a process than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of one process.

    Attributes:
        sockets, of_household: how many there may be at once.
        stalled_s: after so long one that catches up and takes nothing is closed.
    """

    sockets: int = 2_000
    of_household: int = 20
    stalled_s: float = 10.0


class Hub:
    """The clients of this process and what they follow."""

    def __init__(
        self, stream: Stream, owner_of: OwnerOf, limits: Limits | None = None, clock: Clock = system_clock
    ) -> None:
        self.positioned = asyncio.Event()
        """Set as soon as the reader knows where it begins."""
        self.counts: Counter[str] = Counter()
        """How often what happened since the process began: `told`, `resumed`, `reset`, `dropped`, `closed 1013`…"""
        self._stream = stream
        self._owner_of = owner_of
        self._limits = limits or Limits()
        self._clock = clock
        self._clients: set[Client] = set()
        self._following: dict[Topic, set[Client]] = {}
        self._of_session: dict[UUID, set[Client]] = {}
        self._of_household: Counter[int] = Counter()
        self._expiring: dict[Client, asyncio.TimerHandle] = {}
        self._recent: Recent | None = None
        self._moved = asyncio.Event()
        self._left = asyncio.Event()
        self._is_stopping = False

    # -- who is there

    @property
    def clients(self) -> int:
        """How many there are."""
        return len(self._clients)

    @property
    def waiting(self) -> int:
        """How much waits to be sent, to all of them."""
        return sum(client.waiting for client in self._clients)

    def join(self, client: Client) -> None:
        """Take a client in; one too many is to be closed at once."""
        if self._is_stopping:
            client.close(RESTARTING, "the process stops: come back")
        elif len(self._clients) >= self._limits.sockets:
            client.close(TRY_AGAIN_LATER, "too many connections")
        self._clients.add(client)

    def leave(self, client: Client) -> None:
        """Forget a client and what it follows."""
        if client.catching_up is not None:
            client.catching_up.cancel()
        self._unfollow(client, list(client.topics))
        self._signed_out(client)
        self._clients.discard(client)
        self._left.set()
        self.counts["dropped"] += client.dropped
        if client.closing.done():
            self.counts[f"closed {client.closing.result().code}"] += 1

    def signed_in(self, client: Client, principal: Principal) -> None:
        """Note whose a connection is, so that it ends with the session, and when that is not known any longer.

        Raises TooManySockets.
        """
        self._signed_out(client)
        household, session_id = principal.household_id, principal.session_id
        if household is not None and self._of_household[household] >= self._limits.of_household:
            raise TooManySockets("close another one first", retry_after_s=5)
        client.principal = principal
        if household is not None:
            self._of_household[household] += 1
        if session_id is not None:
            self._of_session.setdefault(session_id, set()).add(client)
        if principal.expires_at is not None:
            left_s = (principal.expires_at - self._clock()).total_seconds()
            ends = asyncio.get_running_loop().call_later(
                max(0.0, left_s), client.close, POLICY_VIOLATION, "the token has expired"
            )
            self._expiring[client] = ends

    def _signed_out(self, client: Client) -> None:
        principal, client.principal = client.principal, None
        if expiring := self._expiring.pop(client, None):
            expiring.cancel()
        if principal is None:
            return
        if (household := principal.household_id) is not None:
            self._of_household[household] -= 1
            if not self._of_household[household]:
                del self._of_household[household]
        if (session_id := principal.session_id) is not None:
            clients = self._of_session[session_id]
            clients.discard(client)
            if not clients:
                del self._of_session[session_id]

    def end_session(self, session_id: UUID) -> None:
        """Close every connection of a session; what waits to be sent is not sent any more."""
        for client in self._of_session.get(session_id, ()):
            client.close(POLICY_VIOLATION, "the session has ended", at_once=True)

    # -- what they follow

    async def subscribe(
        self, client: Client, topics: Sequence[Topic], after: Place | None = None, ref: str | None = None
    ) -> None:
        """Have a client told every event of some topics: all after a place, or those that are published from now on.

        Raises NotYourTopic, also for an order that is not there; TooManyTopics, TooLateToResume, Unavailable.
        """
        if len(client.topics | set(topics)) > MAX_TOPICS:
            raise TooManyTopics(f"unsubscribe from some of the {MAX_TOPICS} topics first")
        if not self.positioned.is_set():
            raise Unavailable("the stream of events does not answer")
        if client.catching_up is not None or (after is not None and client.topics):
            raise TooLateToResume("subscribe to all topics at once, with `after`, before any other")
        for topic in topics:
            await self._authorise(client, topic)
        if after is None:
            self._follow(client, topics, ref)
        else:
            client.resuming = set(topics)
            client.catching_up = asyncio.create_task(self._catch_up(client, list(topics), after, ref))

    async def _authorise(self, client: Client, topic: Topic) -> None:
        principal, order_id = client.principal, topic.order_id
        if principal is None:
            raise NotYourTopic("say hello first")
        owner = None if order_id is None or may_follow(principal, topic, None) else await self._owner_of(order_id)
        if not may_follow(principal, topic, owner):
            raise NotYourTopic(f"follow your own orders; {topic.name} needs a scope that the token does not have")

    def _follow(self, client: Client, topics: Sequence[Topic], ref: str | None) -> None:
        for topic in topics:
            client.topics.add(topic)
            self._following.setdefault(topic, set()).add(client)
        client.mark(Subscribed(topics=[topic.name for topic in topics], at=str(self._end), ref=ref))

    def unsubscribe(self, client: Client, topics: Sequence[Topic], ref: str | None = None) -> None:
        """Tell a client no more of some topics; harmless for those that it does not follow."""
        self._unfollow(client, topics)
        client.answer(Unsubscribed(topics=[topic.name for topic in topics], ref=ref))

    def _unfollow(self, client: Client, topics: Sequence[Topic]) -> None:
        for topic in topics:
            client.topics.discard(topic)
            client.resuming.discard(topic)
            followers = self._following.get(topic, set())
            followers.discard(client)
            if not followers:
                self._following.pop(topic, None)

    async def _catch_up(self, client: Client, topics: list[Topic], after: Place, ref: str | None) -> None:
        """Tell a client what it missed, as fast as it reads, and have it follow from exactly there."""
        try:
            while self._is_behind(after):
                page = await self._since(after)
                if not page:  # another process was told more than the reader of this one knows
                    await asyncio.wait_for(self._has_moved(), self._limits.stalled_s)
                for one in page:
                    topic = next((topic for topic in one.topics if topic in client.resuming), None)
                    if one.event is not None and topic is not None:
                        if not client.has_room:
                            await asyncio.wait_for(client.room(), self._limits.stalled_s)
                        client.tell(topic, one.event.subject, str(one.place), one.text(one.event, topic))
                        self.counts["told"] += 1
                    after = one.place
                await asyncio.sleep(0)  # others get a turn: a page that is known and taken at once waits for nothing
            self.counts["resumed"] += 1
            client.told_up_to = after
        except Lost:
            self.counts["reset"] += 1
            client.mark(Reset(topics=[topic.name for topic in topics], at=str(self._end), why=GONE, ref=ref))
        except (Unavailable, TimeoutError):
            client.close(TRY_AGAIN_LATER, "what you missed could not be told in time")
            return
        except Exception as error:
            log.error("catching up broke", exc_info=error)
            client.close(INTERNAL_ERROR, "something broke, and it is our fault")
            return
        finally:
            client.catching_up = None
        # Nothing in between: the reader delivers all that comes after.
        self._follow(client, [topic for topic in topics if topic in client.resuming], ref)

    async def _since(self, after: Place) -> Sequence[Known]:
        """From memory, or from the stream if it is long ago. Raises Lost, Unavailable."""
        known = self._read_so_far.since(after, PAGE)
        return known if known is not None else [Known.of(one) for one in await self._stream.since(after, PAGE)]

    def _is_behind(self, place: Place) -> bool:
        """Whether the reader is past a place, or in another epoch."""
        return place != self._end and not place.is_after(self._end)

    @property
    def _read_so_far(self) -> Recent:
        assert self._recent is not None, "nobody is let in before it is positioned"
        return self._recent

    @property
    def _end(self) -> Place:
        return self._read_so_far.end

    async def _has_moved(self) -> None:
        self._moved.clear()
        await self._moved.wait()

    # -- what they are told

    async def read(self, stop: asyncio.Event) -> None:
        """Read the stream: from its end at first, later from where it broke off. Raises Unavailable."""
        if self._recent is None:
            self._recent = Recent(await self._stream.end(), RECENT, RECENT_BYTES)
            self.positioned.set()
        while not stop.is_set():
            try:
                found = await self._stream.read(self._end)
            except Lost:
                await self._begin_again()
                continue
            for stored in found:
                one = Known.of(stored)
                self._read_so_far.add(one)
                self.deliver(one)
                await asyncio.sleep(0)  # a thousand may have been told: whoever else has something to do gets a turn
            self._moved.set()

    async def _begin_again(self) -> None:
        """Go on from the end, and say so to everybody: what lies between is not known."""
        log.error("events were lost, or came faster than they are kept", after=str(self._end))
        self._recent = Recent(await self._stream.recover(self._end), RECENT, RECENT_BYTES)
        self._moved.set()
        for client in self._clients:
            client.told_up_to = None
            if client.topics:
                self.counts["reset"] += 1
                names = sorted(topic.name for topic in client.topics)
                client.mark(Reset(topics=names, at=str(self._end), why=GONE))

    def deliver(self, one: Known) -> None:
        """Put an event of the stream into the queue of everybody who follows it. Waits for nobody."""
        told: set[Client] = set()
        place, event = one.place, one.event
        if event is None:
            return
        id_ = str(place)
        for topic in one.topics:
            followers = self._following.get(topic, set()) - told
            if not followers:
                continue
            text = one.text(event, topic)
            for client in followers:
                known = client.told_up_to
                if known is not None:
                    if place == known or known.is_after(place):
                        continue
                    client.told_up_to = None
                client.tell(topic, event.subject, id_, text)
            told |= followers
        self.counts["told"] += len(told)

    # -- the end

    async def drain(self, within_s: float) -> None:
        """Take nobody in any more, and close every connection once all that waits is sent, within a time."""
        self._is_stopping = True
        self.break_off(RESTARTING, "the process stops: come back")
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._clients:
                    self._left.clear()
                    await self._left.wait()

    def break_off(self, code: int, reason: str) -> None:
        """Have every connection closed, and take no subscription any more."""
        self.positioned.clear()
        for client in self._clients:
            client.close(code, reason)
