"""The documents of lesson 08, and the store that they are in: `showcase.documents`, as any slice would have it."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import pandas as pd
from pydantic import BaseModel, Field
from pymongo.database import Database
from structlog.testing import capture_logs

from showcase.documents import Collection, Document, Index, Moment, Repository, wiring
from showcase.documents.domain.documents import Applied, T
from showcase.documents.infrastructure.mongo import Mongo
from showcase.kernel.errors import Unavailable
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings

AT_ONCE = 10_000
ANSWERS_WITHIN_S = 30.0
ASK_AGAIN_S = 0.05
PAGE = 100
NEWEST_FIRST = ("-at",)


class Account(Document):
    """The bonus points of a household."""

    id: int
    points: int = 0


class Tally(Document):
    """A number that several writers count up.

    Attributes:
        seen: for each writer, the last of its increments that is in `total`: so that it can be asked for again.
    """

    id: str
    total: int = 0
    seen: Mapping[str, int] = Field(default_factory=dict)


class Card(Document):
    """A household's bonus card, by the mail address it was asked for with."""

    id: str
    email: str


class Sale(Document):
    """One line of a basket, as the till wrote it."""

    id: int
    household_id: int
    product_id: int
    total_cents: int
    at: Moment


class Article(Document):
    """A product, by the name that is printed on a bill."""

    id: int
    name: str


class BillLine(BaseModel):
    """A line of a bill; the name only where it is kept with it."""

    product_id: int
    total_cents: int
    name: str = ""


class Bill(Document):
    """A basket that was paid for, with its lines."""

    id: int
    household_id: int
    lines: tuple[BillLine, ...]


ACCOUNTS = Collection(name="accounts", model=Account)
TALLIES = Collection(name="tallies", model=Tally)
CARDS = Collection(name="cards", model=Card)
UNIQUE_CARDS = Collection(name="cards", model=Card, indexes=(Index(keys=("email",), unique=True),))
SALES = Collection(name="sales", model=Sale, indexes=(Index(keys=("-at", "-_id")),))
"""By its index, the sales are read newest first without anything being sorted."""
ARTICLES = Collection(name="articles", model=Article)
BILLS = Collection(name="bills", model=Bill, indexes=(Index(keys=("household_id",)),))
FULL_BILLS = Collection(name="full_bills", model=Bill, indexes=(Index(keys=("household_id",)),))
"""The same, and each line knows the name of its product."""


class Store:
    """A client as an app has one. Its log is not shown: a notebook is no place for that.

    Args:
        settings: of the lesson.
        changes: to some of them.
    """

    def __init__(self, settings: Settings, **changes: object) -> None:
        self._quiet = ExitStack()
        self._quiet.enter_context(capture_logs())
        self._resources = Resources(settings.model_copy(update=changes))

    @property
    def mongo(self) -> Mongo:
        """Its client, which also is its `Transactions`."""
        return wiring.mongo(self._resources)

    def of(self, collection: Collection[T]) -> Repository[T]:
        """The documents of a collection."""
        return wiring.repository(self._resources, collection)

    async def answers(self) -> None:
        """Wait until MongoDB answers: for the first time that may take longer than an impatient client allows for.

        Raises Unavailable.
        """
        deadline_s = time.monotonic() + ANSWERS_WITHIN_S
        while True:
            try:
                await self.mongo.ping()
            except Unavailable:
                if time.monotonic() > deadline_s:
                    raise
                await asyncio.sleep(ASK_AGAIN_S)  # one that has just begun refuses at once
            else:
                return

    async def apply(self, *collections: Collection[Any]) -> Applied:
        """Bring the database to what is declared."""
        return await wiring.apply(self._resources, *collections)

    async def asked(self, command: str) -> int:
        """How many commands of a kind were answered, or failed, says the client's own watch."""
        counts = {one.name: one.values for one in await wiring.metrics(self._resources)}
        return round(
            counts["showcase_mongo_commands_total"].get(command, 0)
            + counts["showcase_mongo_command_failures_total"].get(command, 0)
        )

    async def close(self) -> None:
        """End its connections."""
        await self._resources.__aexit__(None, None, None)
        self._quiet.close()


def fill(database: Database[dict[str, Any]], collection: Collection[Any], documents: list[dict[str, Any]]) -> int:
    """Put documents into a collection that is empty then; how many MongoDB counts.

    Not by our repository: this is the lesson's material, and what is read from it is compared with pandas.
    """
    held = database[collection.name]
    held.delete_many({})
    for first in range(0, len(documents), AT_ONCE):
        held.insert_many([{**one, "version": 1} for one in documents[first : first + AT_ONCE]], ordered=False)
    return held.count_documents({})


def sales_of(lines: pd.DataFrame) -> list[dict[str, Any]]:
    """One document a line; the later ones have the higher ids."""
    columns = ("household_id", "product_id", "total_cents")
    rows = zip(*(lines[name].tolist() for name in columns), lines["at"].dt.to_pydatetime(), strict=True)
    return [
        {"_id": number, "household_id": household, "product_id": product, "total_cents": cents, "at": at}
        for number, (household, product, cents, at) in enumerate(rows)
    ]


def bills_of(lines: pd.DataFrame, names: "pd.Series[str] | None" = None) -> list[dict[str, Any]]:
    """One document a basket.

    Args:
        names: of products, by their ids, to be kept with the lines.
    """
    found = []
    for basket, group in lines.groupby("basket_id", sort=False):
        held = [
            {"product_id": product, "total_cents": cents, "name": "" if names is None else str(names[product])}
            for product, cents in zip(group.product_id.tolist(), group.total_cents.tolist(), strict=True)
        ]
        found.append({"_id": int(str(basket)), "household_id": int(group.household_id.iloc[0]), "lines": held})
    return found


def later(sale: Sale, by_s: float, id_: int) -> Sale:
    """A sale that comes after another one."""
    return sale.model_copy(update={"id": id_, "at": sale.at + timedelta(seconds=by_s), "version": 0})
