"""In-memory adapters behind the ports of the slices, for tests without servers; and settings of a namespace.

Each fake passes the same contract tests as the adapter to the real server.
"""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI

from showcase.audit.application import Added, Letter
from showcase.audit.domain import Place, Record
from showcase.kernel.events import Event
from showcase.platform.settings import Settings
from showcase.realtime.application import Stored


def settings_of(env: Mapping[str, str], **changes: object) -> Settings:
    """The settings that a process with these variables has."""
    named = {name.removeprefix("SHOWCASE_").lower(): value for name, value in env.items()}
    known = {name: value for name, value in named.items() if name in Settings.model_fields}
    return Settings.model_validate({"environment": "workshop", **known, **changes})


class MemoryAuditStore:
    """The audit's records, by their id."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}

    async def add(self, records: Sequence[Record]) -> Added:
        before = len(self.records)
        for record in records:
            self.records.setdefault(record.id, record)
        return Added(len(self.records) - before, {})

    async def timeline(
        self, entity_type: str, entity_id: str, after: Place | None = None, limit: int = 50
    ) -> Sequence[Record]:
        found = [
            record
            for record in self.records.values()
            if (record.entity_type, record.entity_id) == (entity_type, entity_id)
            and (after is None or record.place > after)
        ]
        return sorted(found, key=lambda record: record.place)[:limit]


class MemoryDeadLetters:
    """What could not be read, by where it was."""

    def __init__(self) -> None:
        self.letters: dict[tuple[str, int, int], Letter] = {}

    async def add(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            message = letter.message
            self.letters.setdefault((message.topic, message.partition, message.offset), letter)


class MemoryStream:
    """The stream behind the WebSockets."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._added = asyncio.Condition()

    async def publish(self, event: Event) -> bool:
        if any(event.id == one.id for one in self.events):
            return False
        async with self._added:
            self.events.append(event)
            self._added.notify_all()
        return True

    async def end(self) -> str:
        return str(len(self.events))

    async def read(self, after: str) -> Sequence[Stored]:
        if len(self.events) == int(after):
            try:
                async with asyncio.timeout(0.5), self._added:
                    await self._added.wait()
            except TimeoutError:
                return []
        return [Stored(id=str(place + 1), event=event) for place, event in enumerate(self.events)][int(after) :]


async def until(condition: Callable[[], Awaitable[object]], *, within_s: float = 20.0) -> None:
    """Wait for a condition. Raises TimeoutError when it does not come true."""
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110 - what it waits for lies in a server, which sets no event
            await asyncio.sleep(0.01)


@contextmanager
def uncollected() -> Iterator[None]:
    """Measure in it: the garbage collector leaves alone what other tests have left (one walk of it takes 0.25 s)."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@asynccontextmanager
async def serving(app: FastAPI, **config: Any) -> AsyncIterator[str]:
    """Serve an app from this event loop; gives its address, `127.0.0.1:1234`."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, **config))
    task = asyncio.create_task(server.serve())

    async def started() -> bool:
        return server.started or task.done()

    try:
        await until(started)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task
