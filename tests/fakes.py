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

from showcase.audit.application.asking import Place, Question
from showcase.audit.application.ports import Added, Entry, Letter, SealedAlready
from showcase.audit.domain.history import UNKNOWN
from showcase.audit.domain.records import CONTEXT, Record
from showcase.audit.domain.seals import Seal
from showcase.audit.infrastructure.content import record_of
from showcase.platform.settings import Settings


def settings_of(env: Mapping[str, str], **changes: object) -> Settings:
    """The settings that a process with these variables has."""
    named = {name.removeprefix("SHOWCASE_").lower(): value for name, value in env.items()}
    known = {name: value for name, value in named.items() if name in Settings.model_fields}
    return Settings.model_validate({"environment": "workshop", **known, **changes})


class MemoryAuditStore:
    """The audit's records, by their id, in the order in which they came."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}

    @property
    def records(self) -> list[Record]:
        return [record_of(entry.id, entry.content) for entry in self.entries.values()]

    async def add(self, entries: Sequence[Entry]) -> Added:
        before = len(self.entries)
        there = {at: entry for at, entry in enumerate(entries) if entry.id in self.entries}
        for entry in entries:
            self.entries.setdefault(entry.id, entry)
        other = {at: self.entries[entry.id].content for at, entry in there.items()}
        changed = {at: content for at, content in other.items() if content != entries[at].content}
        return Added(len(self.entries) - before, {}, changed)

    async def find(self, question: Question, after: Place | None = None, limit: int = 50) -> Sequence[Record]:
        def key(record: Record) -> tuple[Any, ...]:
            return (record.committed_at, record.id) if question.by_time else (record.id,)

        def is_behind(record: Record) -> bool:
            if after is None:
                return True
            place = (after.committed_at, after.id) if question.by_time else (after.id,)
            return key(record) < place if question.newest_first else key(record) > place

        found = [one for one in self.records if is_behind(one) and is_asked_for(question, one)]
        return sorted(found, key=key, reverse=question.newest_first)[:limit]


def is_asked_for(question: Question, record: Record) -> bool:
    said, at = record.after or {}, record.committed_at
    return (
        record.id >= question.not_before
        and (record.entity_type == question.entity_type if question.entity_type else record.entity_type != CONTEXT)
        and (not question.entity_ids or record.entity_id in question.entity_ids)
        and (question.operation is None or record.operation is question.operation)
        and (not question.transactions or record.transaction in question.transactions)
        and (not question.actor or (said.get("actor") or UNKNOWN) == question.actor)
        and (not question.request_id or said.get("request_id") == question.request_id)
        and (question.since is None or at >= question.since)
        and (question.until is None or at < question.until)
        and (question.by is None or at <= question.by)
    )


class MemorySeals:
    """Seals, by their id."""

    def __init__(self) -> None:
        self.seals: dict[str, Seal] = {}

    async def newest(self, topic: str, partition: int) -> Seal | None:
        some = [seal for seal in self.seals.values() if (seal.topic, seal.partition) == (topic, partition)]
        return max(some, key=lambda seal: seal.first, default=None)

    async def add(self, seal: Seal) -> None:
        if seal.id in self.seals:
            raise SealedAlready(seal.id)
        self.seals[seal.id] = seal


class MemoryDeadLetters:
    """What could not be read, by where it was."""

    def __init__(self) -> None:
        self.letters: dict[tuple[str, int, int], Letter] = {}

    async def add(self, letters: Sequence[Letter]) -> None:
        for letter in letters:
            message = letter.message
            self.letters.setdefault((message.topic, message.partition, message.offset), letter)


async def until(condition: Callable[[], Awaitable[object]], *, within_s: float = 60.0) -> None:
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
