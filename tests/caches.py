"""Processes with a cache each, on one store in memory; time passes when a test says so."""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from showcase.caching.application.cache import Cache
from showcase.caching.domain import Kind
from tests.fakes import until
from tests.fakes_cache import Line, MemoryServer, MemoryStore

T = TypeVar("T")
EPOCH = 1_700_000_000.0


class Row(msgspec.Struct, frozen=True):
    """A row of a table; its version grows with each change."""

    version: int
    text: str = ""
    tags: tuple[str, ...] = ()


ROW = Kind("row", Row, version=lambda row: row.version, tags=lambda row: row.tags)
NUMBER = Kind("number", int)
NUMBERS = Kind("numbers", list[int])


class Source(Generic[T]):
    """Where an answer comes from.

    Attributes:
        value: what there is now; `error` is raised instead.
        calls: how often it was asked.
        opened: a load stops between what it reads and its answer, until this is set.
    """

    def __init__(self, value: T, *, error: Exception | None = None, is_open: bool = True) -> None:
        self.value = value
        self.error = error
        self.calls = 0
        self.opened = asyncio.Event()
        if is_open:
            self.opened.set()

    async def __call__(self) -> T:
        self.calls += 1
        value = self.value
        await self.opened.wait()
        if self.error:
            raise self.error
        return value

    async def asked(self, times: int = 1) -> None:
        """Wait until it has been asked so often."""

        async def is_asked() -> bool:
            return self.calls >= times

        await until(is_asked)


@dataclass(slots=True)
class Process:
    """A cache, and the line along which it hears of the others' changes."""

    cache: Cache
    store: MemoryStore
    line: Line

    async def rests(self) -> None:
        """Wait until nothing goes on in the background."""

        async def is_done() -> bool:
            return not self.cache._tasks

        await until(is_done)


class World:
    """Processes that share a store.

    Attributes:
        now: by every clock, in seconds.
        draw: what chance says, from 0 up to 1.
    """

    def __init__(self) -> None:
        self.now = 1_000.0
        self.draw = 0.0
        self._asked = 0
        self.server = MemoryServer(now=self._ticks)
        self.processes: list[Process] = []

    def wall(self) -> float:
        return EPOCH + self.now

    def _ticks(self) -> float:
        """The store's clock never says the same twice."""
        self._asked += 1
        return self.wall() + 1e-6 * self._asked

    def process(self, *, near_entries: int = 10_000, near_bytes: int = 64_000_000) -> Process:
        """One more process."""
        store = MemoryStore(self.server, f"process {len(self.processes)}")
        cache = Cache(
            store,
            near_entries=near_entries,
            near_bytes=near_bytes,
            clock=lambda: self.now,
            wall=self.wall,
            draw=lambda: self.draw,
        )
        self.processes.append(Process(cache, store, store.follow(cache)))
        return self.processes[-1]

    async def end(self) -> None:
        for process in self.processes:
            await process.cache.close()


def begun(work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
    """A reader of its own."""
    return asyncio.create_task(work)


async def turns(condition: Callable[[], bool]) -> None:
    """Wait for something that happens in this event loop."""

    async def holds() -> bool:
        return condition()

    await until(holds)
