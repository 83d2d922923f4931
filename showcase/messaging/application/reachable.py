"""An inbox for a consumer whose work is the same, done twice."""

from collections.abc import Awaitable, Callable, Collection

from showcase.kernel.ids import EventId


class Reachable:
    """Remembers nothing (`ports.Inbox`), but knows whether the server that the consumer writes to answers.

    While it does not, messages wait, and none has failed.

    Args:
        ping: raises Unavailable when the server does not answer.
    """

    def __init__(self, ping: Callable[[], Awaitable[object]]) -> None:
        self._ping = ping

    async def seen(self, ids: Collection[EventId]) -> set[EventId]:
        await self._ping()
        return set()

    async def enter(self, ids: Collection[EventId]) -> set[EventId]:
        return set(ids)

    async def leave(self, id_: EventId) -> None:
        await self._ping()
