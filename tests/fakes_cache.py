"""The cache's store in memory, for tests without servers; and the lines along which its processes hear of changes.

server = MemoryServer()
mine, others = MemoryStore(server, "a"), MemoryStore(server, "b")
line = others.follow(listener)   # delivers at once
line.is_held = True              # from now on in `line.waiting`: deliver(3), repeat(0), lose(1)
server.away = True               # every call fails, and all lines are lost; False: they are made anew
"""

import math
import time
from collections import deque
from collections.abc import Callable, Sequence

from showcase.caching.application import entry as entries
from showcase.caching.application.ports import Listener
from showcase.kernel.errors import Unavailable

News = Callable[[Listener], None]


class MemoryServer:
    """What all processes share.

    Attributes:
        now: the server's clock, in seconds: a test may set it.
        entries, leases: each with the time when it ends.
        born: since when no cut has been forgotten; None: they all have been.
    """

    def __init__(self, now: Callable[[], float] = time.time) -> None:
        self.now = now
        self.entries: dict[str, tuple[bytes, float]] = {}
        self.leases: dict[str, tuple[str, float]] = {}
        self.cuts: dict[str, float] = {}
        self.born: float | None = None
        self.lines: list[Line] = []
        self._away = False

    @property
    def away(self) -> bool:
        """Whether it answers nobody."""
        return self._away

    @away.setter
    def away(self, away: bool) -> None:
        if away != self._away:
            self._away = away
            for line in self.lines:
                if away:
                    line.cut_off()
                else:
                    line.connect()

    def forget(self, *names: str) -> None:
        """Lose some entries, as an eviction does; without names, everything, as a new start does."""
        for name in names or list(self.entries):
            self.entries.pop(name, None)
        if not names:
            self.leases.clear()
            self.forget_cuts()

    def forget_cuts(self) -> None:
        """Lose what was cut."""
        self.cuts.clear()
        self.born = None

    def birth(self) -> float:
        """Since when no cut has been forgotten: from now on, at the latest."""
        if self.born is None:
            self.born = self.now()
        return self.born

    def entry(self, name: str) -> bytes | None:
        """What is there, and has not ended."""
        data, until = self.entries.get(name, (None, 0.0))
        return data if self.now() < until else None

    def head(self, name: str) -> tuple[int, int]:
        """The bits and the version of what is there."""
        return entries.head(self.entry(name) or b"")

    def holder(self, name: str) -> str | None:
        """Who has the lease."""
        holder, until = self.leases.get(name, (None, 0.0))
        return holder if self.now() < until else None

    def tell(self, origin: str, news: News) -> None:
        """Tell all processes but one."""
        for line in self.lines:
            if line.origin != origin:
                line.send(news)


class Line:
    """Along which one process hears of the others' changes; trusted as long as nothing that is sent gets lost.

    Attributes:
        is_held: what is sent waits, until a test delivers it.
        waiting: what was sent, oldest first.
    """

    def __init__(self, origin: str, listener: Listener) -> None:
        self.origin = origin
        self.is_held = False
        self.waiting: deque[News] = deque()
        self._listener = listener
        self._is_up = False

    def send(self, news: News) -> None:
        """Deliver, or keep for later; what is sent while the line is cut off is gone."""
        if self._is_up:
            self.waiting.append(news)
            if not self.is_held:
                self.deliver_all()

    def deliver(self, place: int = 0) -> None:
        """Deliver one that waits: another than the first comes out of turn."""
        news = self.waiting[place]
        del self.waiting[place]
        news(self._listener)

    def repeat(self, place: int = 0) -> None:
        """Deliver one that waits, and keep it: it comes twice."""
        self.waiting[place](self._listener)

    def lose(self, place: int = 0) -> None:
        """One that waits never comes, and the listener is not told: a test that shows what that leads to."""
        del self.waiting[place]

    def deliver_all(self) -> None:
        """Deliver all that wait, in order."""
        while self.waiting:
            self.deliver()

    def cut_off(self) -> None:
        """The line is interrupted: what waits is gone, and the listener knows."""
        self._is_up = False
        self.waiting.clear()
        self._listener.lost()

    def connect(self) -> None:
        """The line is there (again), and is trusted from now on."""
        self._is_up = True
        self._listener.lost()
        self.trust(math.inf)

    def trust(self, until: float) -> None:
        """The listener may believe until then (`time.monotonic`) that it has heard everything."""
        self._listener.trusted(until)


class MemoryStore:
    """What one process sees of the server (`application.ports.Store`)."""

    def __init__(self, server: MemoryServer, origin: str = "memory") -> None:
        self.server = server
        self.origin = origin

    def follow(self, listener: Listener) -> Line:
        """A line to this process, connected if the server is there."""
        line = Line(self.origin, listener)
        self.server.lines.append(line)
        if not self.server.away:
            line.connect()
        return line

    async def read(self, names: Sequence[str]) -> Sequence[bytes | None]:
        server = self._reached()
        return [server.entry(name) for name in names]

    async def lease(self, names: Sequence[str], holder: str, ttl_s: float) -> tuple[float, Sequence[bool]]:
        server = self._reached()
        server.birth()
        given = []
        for name in names:
            given.append(server.holder(name) is None)
            if given[-1]:
                server.leases[name] = holder, server.now() + ttl_s
        return server.now(), given

    async def release(self, names: Sequence[str], holder: str) -> None:
        server = self._reached()
        for name in names:
            if server.holder(name) == holder:
                del server.leases[name]

    async def write(self, name: str, entry: bytes, *, ttl_s: float, holder: str | None = None, tell: bool) -> bool:
        server = self._reached()
        if holder:
            if server.holder(name) != holder:
                return False
            del server.leases[name]
        if not entries.beats(entries.head(entry), server.head(name)):
            return False
        server.entries[name] = entry, server.now() + ttl_s
        server.leases.pop(name, None)
        if tell:
            self._tell_removed(name, entry)
        return True

    async def remove(self, name: str, entry: bytes, *, ttl_s: float) -> None:
        server = self._reached()
        stands = entries.merged(entries.head(entry), server.head(name))
        if stands is not None:
            bits, version = stands
            floor = entries.floor(version, is_gone=bool(bits & entries.GONE))
            server.entries[name] = entries.Codec().write(name, floor), server.now() + ttl_s
        server.leases.pop(name, None)
        self._tell_removed(name, entry)

    async def expire(self, name: str) -> None:
        server = self._reached()
        data = server.entry(name)
        if data is not None:
            server.entries[name] = entries.expired(data), server.entries[name][1]
        server.leases.pop(name, None)
        server.tell(self.origin, lambda listener: listener.heard_expired(name))

    async def cut(self, tag: str) -> float:
        server = self._reached()
        at = max(server.birth(), math.nextafter(server.now(), math.inf), server.cuts.get(tag, 0.0))
        server.cuts[tag] = at
        server.tell(self.origin, lambda listener: listener.heard_cut(tag, at))
        return at

    async def cuts(self, tags: Sequence[str]) -> Sequence[float]:
        server = self._reached()
        return [server.cuts.get(tag, server.birth()) for tag in tags]

    def _tell_removed(self, name: str, entry: bytes) -> None:
        bits, version = entries.head(entry)
        is_gone = bool(bits & (entries.GONE | entries.ABSENT))
        self.server.tell(self.origin, lambda listener: listener.heard_removed(name, version, is_gone))

    def _reached(self) -> MemoryServer:
        if self.server.away:
            raise Unavailable("away")
        return self.server
