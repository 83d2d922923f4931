"""Two writers of one document: step by step, and in two processes that hold nobody.

A way to add points reads, tells of it, and writes; whom it tells may hold it there.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from bson.codec_options import CodecOptions

from showcase.documents import AlreadyThere, Repository, VersionConflict
from showcase.platform.settings import Settings
from workshop.documents.crew import Crew, Ready
from workshop.documents.store import ACCOUNTS, Account, Card, Store
from workshop.naive import documents as naive
from workshop.naive.documents import Documents, Told, nothing

WITHIN_S = 10.0
WHOLE, VERSIONED = "write it whole", "only over what was read"
Add = Callable[[int, int, Told], Coroutine[Any, Any, None]]
"""Adds points to the account of a household; each step is told."""
Look = Callable[[], Awaitable[str]]
_DICTS: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True)


@dataclass(slots=True)
class Versioned:
    """Adds points only to the version that was read. Whoever comes late reads again."""

    accounts: Repository[Account]
    conflicts: list[VersionConflict] = field(default_factory=list)

    async def add_points(self, household_id: int, points: int, told: Told = nothing) -> None:
        while True:
            account = await self.accounts.get(household_id)
            await told(f"reads {account.points} points")
            more = account.model_copy(update={"points": account.points + points})
            try:
                await self.accounts.replace(more)
            except VersionConflict as conflict:
                self.conflicts.append(conflict)
                await told(f"refused: it is version {conflict.found}, not {conflict.expected}")
            else:
                return await told(f"writes {more.points} points")


@dataclass(frozen=True, slots=True)
class Whole:
    """`naive.documents.add_points`."""

    accounts: Documents

    async def add_points(self, household_id: int, points: int, told: Told = nothing) -> None:
        await naive.add_points(self.accounts, household_id, points, told)


def whole(store: Store) -> Whole:
    """The naive way, by the same client."""
    return Whole(plain(store, ACCOUNTS.name))


def versioned(store: Store) -> Versioned:
    """The way of `showcase`."""
    return Versioned(store.of(ACCOUNTS))


def plain(store: Store, name: str) -> Documents:
    """A collection as PyMongo gives it to everybody, its documents dicts."""
    client: Any = store.mongo.client
    collection: Documents = client[store.mongo.database][name].with_options(codec_options=_DICTS)
    return collection


async def two_writers(add: Add, look: Look, household_id: int) -> pd.DataFrame:
    """Two tills add points at once. The slow one stops when it has read, and goes on when the fast one is through.

    Args:
        look: what MongoDB holds now, in words.

    Returns one row a step: `who`, `does`, `mongo`.
    """
    rows: list[tuple[str, str, str]] = []
    has_read, may_go_on = asyncio.Event(), asyncio.Event()

    async def slow(does: str) -> None:
        rows.append(("slow till", does, await look()))
        if not has_read.is_set():
            has_read.set()
            await asyncio.wait_for(may_go_on.wait(), WITHIN_S)

    async def fast(does: str) -> None:
        rows.append(("fast till", does, await look()))

    slow_till = asyncio.create_task(add(household_id, 50, slow))
    await asyncio.wait_for(has_read.wait(), WITHIN_S)
    await add(household_id, 30, fast)
    may_go_on.set()
    await slow_till
    return pd.DataFrame(rows, columns=["who", "does", "mongo"])


def in_processes(settings: Settings, way: str, household_id: int, *, each: int, processes: int = 2) -> int:
    """Each process adds one point, again and again, while the others do. How often somebody had to read again.

    Args:
        way: WHOLE or VERSIONED.
    """
    with Crew(_adds, [(settings, way, household_id, each)] * processes) as crew:
        pass
    return sum(crew.results)


async def _adds(ready: Ready, settings: Settings, way: str, household_id: int, times: int) -> int:
    store = Store(settings)
    try:
        ours = versioned(store)
        add: Add = whole(store).add_points if way == WHOLE else ours.add_points
        await store.answers()
        await ready()
        for _ in range(times):
            await add(household_id, 1, nothing)
        return len(ours.conflicts)
    finally:
        await store.close()


async def both_ask(ask: Callable[[str, Told], Awaitable[Any]]) -> list[Any]:
    """Two tills ask for a card with the same address. Neither goes on before both have looked.

    Args:
        ask: with the id of the card, and whom to tell when it has looked.

    Returns what came of each: an answer, or an error.
    """
    barrier = asyncio.Barrier(2)

    async def told(does: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            await barrier.wait()

    return [*await asyncio.gather(ask("left till", told), ask("right till", told), return_exceptions=True)]


async def ask_for_card(cards: Repository[Card], card_id: str, email: str, told: Told = nothing) -> bool:
    """Give out a card; whether it was given out. It looks first, and relies on the index."""
    if await cards.exists({"email": email}):
        return False
    await told("finds nobody with this address")
    try:
        await cards.insert(Card(id=card_id, email=email))
    except AlreadyThere:
        return False
    return True
