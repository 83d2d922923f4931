"""A broker in memory: routes by the topology's description, and passes the same contract tests as RabbitMQ."""

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from showcase.kernel.errors import Unavailable
from showcase.messaging.domain import (
    DEFAULT_EXCHANGE,
    MAX_ATTRIBUTES_BYTES,
    MAX_LENGTH,
    Declared,
    Message,
    Outcome,
    Route,
    Topology,
    takes,
)


@dataclass(frozen=True, slots=True, eq=False)
class MemoryDelivery:
    """A message, in its queue or handed over."""

    attributes: Mapping[str, object]
    headers: Mapping[str, object]
    body: bytes
    key: str


@dataclass(slots=True)
class Consumer:
    """Who takes from a queue, and what it has not acknowledged."""

    queue: str
    prefetch: int
    deliveries: "asyncio.Queue[MemoryDelivery | None]" = field(default_factory=asyncio.Queue)
    out: list[MemoryDelivery] = field(default_factory=list)


class MemoryServer:
    """Exchanges and queues, which outlive a connection."""

    def __init__(self, topology: Topology, max_length: int) -> None:
        self.topology = topology
        self.max_length = max_length
        self.ready = {one.name: deque[MemoryDelivery]() for one in topology.declared()}
        self.consumers: list[Consumer] = []
        self._declared = {one.name: one for one in topology.declared()}
        self._types = {one.name: one.type for one in topology.exchanges()}
        self._turn = count()

    def publish(self, route: Route, message: MemoryDelivery) -> Outcome:
        queues = self._routed(route)
        if not queues:
            return Outcome.UNROUTABLE
        full = [name for name in queues if self._length(name) >= self.max_length]
        for name in queues:
            if name not in full:
                self._add(self._declared[name], message)
        return Outcome.REFUSED if full else Outcome.TAKEN

    def hand_out(self, queue: str) -> None:
        """Give what is ready to those who take from the queue, in turn."""
        while self.ready[queue]:
            free = [one for one in self.consumers if one.queue == queue and len(one.out) < one.prefetch]
            if not free:
                return
            consumer = free[next(self._turn) % len(free)]
            message = self.ready[queue].popleft()
            consumer.out.append(message)
            consumer.deliveries.put_nowait(message)

    def take_back(self, consumer: Consumer) -> None:
        self.consumers.remove(consumer)
        self.ready[consumer.queue].extendleft(reversed(consumer.out))
        consumer.out.clear()
        self.hand_out(consumer.queue)

    def _routed(self, route: Route) -> list[str]:
        if route.exchange == DEFAULT_EXCHANGE:
            return [route.key] if route.key in self.ready else []
        bound = [one for one in self.topology.bindings() if one.exchange == route.exchange]
        is_fanout = self._types.get(route.exchange) == "fanout"
        return list(dict.fromkeys(one.queue for one in bound if is_fanout or takes(one.key, route.key)))

    def _length(self, queue: str) -> int:
        return len(self.ready[queue]) + sum(len(one.out) for one in self.consumers if one.queue == queue)

    def _add(self, queue: Declared, message: MemoryDelivery) -> None:
        self.ready[queue.name].append(message)
        self.hand_out(queue.name)
        if (ttl_ms := queue.arguments.get("x-message-ttl")) is not None:
            asyncio.get_running_loop().call_later(int(ttl_ms) / 1000, self._expire, queue, message)

    def _expire(self, queue: Declared, message: MemoryDelivery) -> None:
        self.ready[queue.name].remove(message)
        self.publish(Route(str(queue.arguments["x-dead-letter-exchange"]), message.key), message)


class MemoryBroker:
    """A connection to a broker in memory, to one of its own if none is given.

    Args:
        max_length: of each queue, what was handed over included.
    """

    def __init__(
        self,
        topology: Topology,
        *,
        max_length: int = MAX_LENGTH,
        max_message_bytes: int = 16_777_216,
        server: MemoryServer | None = None,
    ) -> None:
        self.server = server or MemoryServer(topology, max_length)
        self.max_message_bytes = max_message_bytes
        self.published: list[Message] = []
        """Whatever this connection was asked to send."""
        self.is_lost = False
        self._consumers: list[Consumer] = []

    def another(self) -> "MemoryBroker":
        """A further connection to the same broker."""
        return MemoryBroker(self.server.topology, max_message_bytes=self.max_message_bytes, server=self.server)

    def ready(self, queue: str) -> list[MemoryDelivery]:
        """What waits in a queue and was not handed over."""
        return list(self.server.ready[queue])

    async def declare(self, topology: Topology) -> None:
        self.check()

    async def publish(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        self.check()
        self.published += messages
        outcomes = [self._publish(message) for message in messages]
        await asyncio.sleep(0)
        return outcomes

    async def consume(self, queue: str, prefetch: int) -> "asyncio.Queue[MemoryDelivery | None]":
        self.check()
        consumer = Consumer(queue, prefetch)
        self._consumers.append(consumer)
        self.server.consumers.append(consumer)
        self.server.hand_out(queue)
        return consumer.deliveries

    def acknowledge(self, deliveries: Sequence[MemoryDelivery]) -> None:
        self.check()
        for consumer in self._consumers:
            consumer.out = [one for one in consumer.out if one not in deliveries]
            self.server.hand_out(consumer.queue)

    async def hand_back(self) -> None:
        self.check()
        for consumer in self._consumers:
            self.server.take_back(consumer)
            while not consumer.deliveries.empty():
                consumer.deliveries.get_nowait()
        self._consumers.clear()

    async def depths(self, names: Sequence[str]) -> dict[str, tuple[int, int] | None]:
        self.check()
        return {name: self._depth(name) if name in self.server.ready else None for name in names}

    def check(self) -> None:
        if self.is_lost:
            raise Unavailable("the connection to rabbitmq was lost")

    def lose(self) -> None:
        """The connection breaks: what was not acknowledged is in its queue again."""
        self.is_lost = True
        for consumer in self._consumers:
            self.server.take_back(consumer)
            consumer.deliveries.put_nowait(None)
        self._consumers.clear()

    def _publish(self, message: Message) -> Outcome:
        size = sum(
            len(name) + len(str(value)) for name, value in (*message.attributes.items(), *message.headers.items())
        )
        if len(message.body) > self.max_message_bytes or size > MAX_ATTRIBUTES_BYTES:
            return Outcome.TOO_LARGE
        route = message.route
        return self.server.publish(
            route, MemoryDelivery(dict(message.attributes), dict(message.headers), message.body, route.key)
        )

    def _depth(self, queue: str) -> tuple[int, int]:
        return len(self.server.ready[queue]), sum(one.queue == queue for one in self.server.consumers)
