"""The same bills three ways: a question a line, two questions, one; asked for by us, counted by MongoDB itself."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pandas as pd
from pymongo.database import Database

from showcase.documents import Repository, one_of
from workshop.documents.store import Article, Bill

REPEATS = 3
Bills = Sequence[Bill] | Sequence[Mapping[str, Any]]
Way = Callable[[], Awaitable[Bills]]


async def in_two(bills: Repository[Bill], articles: Repository[Article], households: Sequence[int]) -> Sequence[Bill]:
    """The bills of some households, and then all products that are on them, at once."""
    found = (await bills.find(one_of("household_id", households), limit=1_000)).items
    wanted = {line.product_id for bill in found for line in bill.lines}
    names = {one.id: one.name for one in await articles.find(one_of("id", [*wanted]), limit=10_000)}
    return [
        bill.model_copy(
            update={"lines": tuple(line.model_copy(update={"name": names[line.product_id]}) for line in bill.lines)}
        )
        for bill in found
    ]


async def in_one(full_bills: Repository[Bill], households: Sequence[int]) -> Sequence[Bill]:
    """The bills of some households, which hold the names themselves."""
    return (await full_bills.find(one_of("household_id", households), limit=1_000)).items


def names_on(bills: Bills) -> list[str]:
    """Every name on some bills, in the order of the bills' ids."""
    plain = [one.model_dump(by_alias=True) if isinstance(one, Bill) else one for one in bills]
    return [str(line["name"]) for bill in sorted(plain, key=lambda one: int(one["_id"])) for line in bill["lines"]]


@contextmanager
def profiled(database: Database[dict[str, Any]]) -> Iterator[Callable[[], pd.DataFrame]]:
    """What MongoDB's profiler says of the questions that come to a database while the block goes on.

    Yields a function that gives one row a question so far: `collection`, `keys` (looked at), `returned`.
    """
    database.command("profile", 0)
    database.drop_collection("system.profile")
    database.command("profile", 2)

    def found() -> pd.DataFrame:
        asked = database["system.profile"].find({"op": "query", "command.find": {"$ne": "system.profile"}})
        rows = [(one["command"]["find"], one.get("keysExamined", 0), one["nreturned"]) for one in asked]
        return pd.DataFrame(rows, columns=["collection", "keys", "returned"])

    try:
        yield found
    finally:
        database.command("profile", 0)


async def measured(
    database: Database[dict[str, Any]], ways: Mapping[str, Way], asked: Callable[[str], Awaitable[int]]
) -> pd.DataFrame:
    """Ask each way a few times for how long it takes, and once under the profiler's eyes for how often it asks.

    Args:
        asked: how often the client has ever given a command.

    Returns one row a way: `way`, `queries` and `docs` (says MongoDB), `client` (the questions, says the client), `ms`
    (the best of some), `names`.
    """
    rows = []
    for way, read in ways.items():
        times_ms = []
        for _ in range(REPEATS):
            began_s = time.perf_counter()
            found = await read()
            times_ms.append(1_000 * (time.perf_counter() - began_s))
        so_far = await asked("find")
        with profiled(database) as seen:
            await read()
            questions = seen()
        client = await asked("find") - so_far
        rows.append((way, len(questions), int(questions.returned.sum()), client, min(times_ms), names_on(found)))
    return pd.DataFrame(rows, columns=["way", "queries", "docs", "client", "ms", "names"])
