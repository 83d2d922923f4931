"""In memory: the stream behind the WebSockets, and tickets. Each passes the contract tests of the real one."""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from redis.asyncio import Redis

from showcase.kernel.events import Event
from showcase.kernel.principal import Principal
from showcase.realtime.application.ports import BadTicket, Lost, Stored
from showcase.realtime.domain import Place


async def lose_end(redis: Redis, key: str, events: int) -> None:
    """Have the newest entries of a stream in Redis gone, as after coming back from an older copy."""
    kept: Any = await redis.xrange(key)
    async with redis.pipeline(transaction=True) as lost:
        lost.unlink(key)
        for id_, fields in kept[:-events]:
            lost.xadd(key, fields, id=id_)
        await lost.execute()


class MemoryStream:
    """The stream behind the WebSockets.

    Args:
        length: how many events are kept.
    """

    def __init__(self, length: int = 1_000_000) -> None:
        self.epoch = "00000000"
        self.kept: list[Stored] = []
        self._length = length
        self._ids: set[str] = set()
        self._number = 0
        self._added = asyncio.Condition()

    async def publish(self, event: Event) -> bool:
        if event.id in self._ids:
            return False
        self._ids.add(event.id)
        await self.end()
        await self._add(event)
        return True

    async def _add(self, event: Event | None) -> None:
        async with self._added:
            self._number += 1
            self.kept.append(Stored(place=Place(self.epoch, (self._number, 0)), event=event))
            del self.kept[: -self._length]
            self._added.notify_all()

    async def end(self) -> Place:
        if not self.kept:
            await self._begin()
        return self.kept[-1].place

    async def _begin(self) -> None:
        self.epoch = f"{int(self.epoch, 16) + 1:08x}"
        await self._add(None)

    async def read(self, after: Place) -> Sequence[Stored]:
        if not (found := await self.since(after, 500)):
            with suppress(TimeoutError):
                async with asyncio.timeout(0.5), self._added:
                    await self._added.wait()
            found = await self.since(after, 500)
        return found

    async def since(self, after: Place, count: int) -> Sequence[Stored]:
        places = [one.place for one in self.kept]
        if after.epoch != self.epoch or (after.number not in [place.number for place in places]):
            raise Lost
        at = next(number for number, place in enumerate(places) if place.number == after.number)
        return self.kept[at + 1 :][:count]

    async def recover(self, lost: Place) -> Place:
        end = await self.end()
        if lost.epoch == self.epoch and (lost.number > end.number or self.kept[0].place.number < lost.number):
            await self._begin()
        return await self.end()

    def lose(self, events: int) -> None:
        """Lose the newest ones, as a server that comes back from an older copy of itself."""
        del self.kept[len(self.kept) - events :]


class MemoryTickets:
    """See `realtime.application.ports.Tickets`. Whoever is known by name has a ticket of that name, for ever."""

    def __init__(self, known: Mapping[str, Principal] | None = None) -> None:
        self._known = dict(known or {})
        self._issued: dict[str, Principal] = {}

    async def issue(self, principal: Principal) -> str:
        ticket = f"ticket-{len(self._issued)}-{id(self)}"
        self._issued[ticket] = principal
        return ticket

    async def redeem(self, ticket: str) -> Principal:
        principal = self._known.get(ticket) or self._issued.pop(ticket, None)
        if principal is None:
            raise BadTicket("no such ticket")
        return principal
