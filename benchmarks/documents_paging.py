"""What a page costs, the first one and the last of a thousand: by offset, as most do, and after a key, as ours."""

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from benchmarks.documents_kinds import FLAT, Sale
from benchmarks.load import Row, Turn, in_turns
from showcase.documents import Collection
from showcase.documents.infrastructure.mongo import Mongo
from showcase.documents.infrastructure.repository import MongoRepository

PAGES = 1_000
LIMIT = 100
STEPS = 10
"""To the last page nobody has to read page by page: a cursor is good for pages of any size."""
SORT = "total_cents"
TURNS = 5
READS = 5


def pages(runner: asyncio.Runner, mongo: Mongo, database: AsyncDatabase[dict[str, Any]]) -> Iterator[Row]:
    """All by the same index."""
    collection = database["pages"]
    repository = MongoRepository(mongo, Collection(name=collection.name, model=Sale))

    async def filled() -> str:
        for _ in range(STEPS):
            await collection.insert_many([FLAT.new_dict() for _ in range(PAGES * LIMIT // STEPS)], ordered=False)
        await collection.create_index([(SORT, 1), ("_id", 1)])
        after = None
        for _ in range(STEPS):
            after = (await repository.find(sort=[SORT], limit=(PAGES - 1) * LIMIT // STEPS, after=after)).next
        assert after is not None
        return after

    async def by_key(after: str | None) -> float:
        began = time.perf_counter()
        for _ in range(READS):
            assert len(await repository.find(sort=[SORT], limit=LIMIT, after=after)) == LIMIT
        return READS / (time.perf_counter() - began)

    async def by_offset(skipped: int) -> float:
        began = time.perf_counter()
        for _ in range(READS):
            asked = collection.find({}, sort=[(SORT, 1), ("_id", 1)], skip=skipped, limit=LIMIT, batch_size=LIMIT + 1)
            assert len(await asked.to_list()) == LIMIT
        return READS / (time.perf_counter() - began)

    def turn(page: Callable[[], Coroutine[Any, Any, float]]) -> Turn:
        return lambda: runner.run(page())

    last = runner.run(filled())
    first_by_key, last_by_key, first_by_offset, last_by_offset = in_turns(
        TURNS,
        turn(lambda: by_key(None)),
        turn(lambda: by_key(last)),
        turn(lambda: by_offset(0)),
        turn(lambda: by_offset((PAGES - 1) * LIMIT)),
    )
    page = f"page {PAGES:,} of {LIMIT}"
    yield Row.of(f"{page}, by key", last_by_key, "page 1, by key", first_by_key)
    yield Row.of(f"{page}, by offset", last_by_offset, "page 1, by offset", first_by_offset)
    yield Row.of(f"{page}, by key", last_by_key, f"page {PAGES:,}, by offset", last_by_offset)
