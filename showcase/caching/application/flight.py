"""A load on its way: whoever wants the same answer meanwhile waits for it instead of loading it again."""

import asyncio
from typing import Generic, TypeVar

from showcase.caching.application.near import Held

T = TypeVar("T")

Landed = tuple[Held[T], str]
"""An answer, and where it came from: `near`, `far` or `loaded`."""


class Flight(Generic[T]):
    """One load of one answer, shared by all readers in this process.

    It may land with an old answer, since that is better than waiting, and go on to load a new one for later readers.

    Args:
        stale: an old answer, if there is one.
        newer_than: an answer of the store that expires (Unix time) by then is not new enough: early refresh.
        is_heard: whether news came when it began. Otherwise what it brings is held for a moment only.

    Attributes:
        is_overtaken: the key was changed after this load had begun: what it brings is for those who waited already.
    """

    def __init__(self, *, stale: Held[T] | None, newer_than: float, is_heard: bool) -> None:
        self.stale = stale
        self.newer_than = newer_than
        self.is_heard = is_heard
        self.is_overtaken = False
        self.landing: asyncio.Future[Landed[T]] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def has_landed(self) -> bool:
        """Whether readers have their answer."""
        return self.landing.done()

    async def landed(self) -> Landed[T]:
        """What it brought, when it is there. Whoever no longer waits does not end it."""
        return self.landing.result() if self.landing.done() else await asyncio.shield(self.landing)

    def land(self, held: Held[T], source: str) -> None:
        """Give all readers an answer, if they have none yet."""
        if not self.landing.done():
            self.landing.set_result((held, source))
        self.forget_timer()

    def land_stale(self) -> None:
        """Give all readers the old answer, if there is one."""
        if self.stale is not None:
            self.land(self.stale, "near")

    def land_stale_in(self, seconds: float) -> None:
        """Do so after some time, unless there is a better one by then."""
        self.forget_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self.land_stale)

    def fail(self, error: BaseException) -> None:
        """Give all readers an error, if they have no answer yet."""
        if not self.landing.done():
            self.landing.set_exception(error)
            self.landing.exception()  # nobody may be waiting
        self.forget_timer()

    def forget_timer(self) -> None:
        """No longer wait to land."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
