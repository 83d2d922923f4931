"""Pages of a list that others write to meanwhile: by their number, and after a key."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field
from pymongo.database import Database

from showcase.documents import Repository
from workshop.documents.joining import profiled
from workshop.documents.store import NEWEST_FIRST, PAGE, Sale, later
from workshop.naive import documents as naive
from workshop.naive.documents import Documents

FURTHEST = 10_000
REPEATS = 5
OFFSET, KEYSET = "by number: skip, limit", "after a key"
Pages = AsyncIterator[list[int]]
"""The ids of each page, one page after the other."""


class OnlyId(BaseModel):
    """All that is read of a sale on the way to a page."""

    model_config = ConfigDict(populate_by_name=True)

    id: int = Field(alias="_id")


async def by_number(sales: Documents, size: int) -> Pages:
    """All pages, the next one by its number, until one is empty."""
    number = 1
    while found := await naive.page(sales, number, size):
        yield [one["_id"] for one in found]
        number += 1


async def after_a_key(sales: Repository[Sale], size: int) -> Pages:
    """All pages, the next one by the cursor of the one before."""
    page = await sales.find(sort=NEWEST_FIRST, limit=size)
    yield [sale.id for sale in page]
    while page.next is not None:
        page = await sales.find(sort=NEWEST_FIRST, limit=size, after=page.next)
        yield [sale.id for sale in page]


async def walked(pages: Pages, write: Callable[[int, Sequence[int]], Awaitable[object]]) -> dict[int, list[int]]:
    """Read all pages, while somebody else writes between one and the next. On which pages each document was.

    Args:
        write: called after each page with its number, from 1, and with what was on it.
    """
    seen: dict[int, list[int]] = {}
    number = 0
    async for ids in pages:
        number += 1
        for id_ in ids:
            seen.setdefault(id_, []).append(number)
        await write(number, ids)
    return seen


class Writer:
    """Writes while others read: new sales on most pages, and what is taken back on some.

    Args:
        newest: the sale that is at the top when it begins.
        sells: so many after each page; takes_back: so many instead, of the page just read, after each third one.
    """

    def __init__(self, sales: Repository[Sale], newest: Sale, *, sells: int = 3, takes_back: int = 5) -> None:
        self._sales = sales
        self._newest = newest
        self._sells = sells
        self._takes_back = takes_back
        self.sold: list[int] = []
        self.taken_back: list[int] = []

    async def __call__(self, number: int, ids: Sequence[int]) -> None:
        if number % 3 == 0:
            for id_ in ids[: self._takes_back]:
                await self._sales.delete(id_)
                self.taken_back.append(id_)
            return
        for _ in range(self._sells):
            self._newest = later(self._newest, 1, self._newest.id + 1)
            await self._sales.insert(self._newest)
            self.sold.append(self._newest.id)


def compared(ids: Sequence[int], seen: dict[int, list[int]], gone: Sequence[int], size: int) -> pd.DataFrame:
    """What a walk has seen of what was there before it began and after it had ended.

    Args:
        ids: what was there when it began, in order; gone: what was removed meanwhile.

    Returns one row a document: `id`, `page` (where it was in the beginning), `times` (how often it was read).
    """
    rows = [(id_, place // size + 1, len(seen.get(id_, []))) for place, id_ in enumerate(ids)]
    frame = pd.DataFrame(rows, columns=["id", "page", "times"])
    frame["is_gone"] = frame.id.isin(gone)
    return frame


async def timed(
    database: Database[dict[str, Any]], sales: Documents, repository: Repository[Sale], numbers: Sequence[int]
) -> pd.DataFrame:
    """How long a page takes, by its number and after a key: the best of some times.

    Args:
        database: to look into, for what MongoDB's profiler says.

    Returns one row a page and way: `way`, `page`, `ms`, `keys` (of the index, looked at, says MongoDB), `first` (the
    id of the first document on it).
    """
    rows: list[tuple[str, int, float, int, int]] = []
    for number in numbers:
        cursor = await cursor_before(repository, number)

        async def skipped(number: int = number) -> int:
            return int((await naive.page(sales, number, PAGE))[0]["_id"])

        async def keyed(cursor: str | None = cursor) -> int:
            return (await repository.find(sort=NEWEST_FIRST, limit=PAGE, after=cursor)).items[0].id

        for way, read in ((OFFSET, skipped), (KEYSET, keyed)):
            times_ms = []
            for _ in range(REPEATS):
                began_s = time.perf_counter()
                first = await read()
                times_ms.append(1_000 * (time.perf_counter() - began_s))
            with profiled(database) as asked:
                await read()
                keys = int(asked()["keys"].sum())
            rows.append((way, number, min(times_ms), keys, first))
    return pd.DataFrame(rows, columns=["way", "page", "ms", "keys", "first"])


async def cursor_before(sales: Repository[Sale], number: int) -> str | None:
    """The cursor that a page begins after: how many documents are read on the way there does not matter to it."""
    left, cursor, reader = (number - 1) * PAGE, None, sales.into(OnlyId)
    while left:
        page = await reader.find(sort=NEWEST_FIRST, limit=min(left, FURTHEST), after=cursor)
        left, cursor = left - len(page), page.next
    return cursor
