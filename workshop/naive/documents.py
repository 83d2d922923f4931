"""Documents as the tutorials have them: what everybody writes first, with PyMongo and dicts.

Nothing here is wrong on any single line.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection

Documents = AsyncCollection[dict[str, Any]]
Told = Callable[[str], Awaitable[None]]


async def nothing(does: str) -> None:
    """Whom a step is told, as long as nobody looks."""


async def add_points(accounts: Documents, household_id: int, points: int, told: Told = nothing) -> None:
    """Read an account, change it, write it back whole."""
    account = await accounts.find_one({"_id": household_id})
    assert account is not None
    await told(f"reads {account['points']} points")
    account["points"] += points
    await accounts.replace_one({"_id": household_id}, account)
    await told(f"writes {account['points']} points")


async def ask_for_card(cards: Documents, card_id: str, email: str, told: Told = nothing) -> bool:
    """Give out a card, if nobody has one with this address; whether it was given out."""
    if await cards.find_one({"email": email}):
        return False
    await told("finds nobody with this address")
    await cards.insert_one({"_id": card_id, "email": email, "version": 1})
    return True


async def page(documents: Documents, number: int, size: int) -> list[dict[str, Any]]:
    """A page of the newest documents, by its number, from 1."""
    asked = documents.find().sort([("at", -1), ("_id", -1)]).skip((number - 1) * size).limit(size)
    return await asked.to_list()


async def bills_with_names(bills: Documents, articles: Documents, households: list[int]) -> list[dict[str, Any]]:
    """The bills of some households, each line with the name of its product: one question a line."""
    found = await bills.find({"household_id": {"$in": households}}).to_list()
    for bill in found:
        for line in bill["lines"]:
            article = await articles.find_one({"_id": line["product_id"]})
            line["name"] = article["name"] if article else ""
    return found


async def give_points(accounts: Documents, giver: int, taker: int, points: int) -> None:
    """Take points from one household, and give them to another. Raises LookupError if there is no other."""
    await accounts.update_one({"_id": giver}, {"$inc": {"points": -points}})
    given = await accounts.update_one({"_id": taker}, {"$inc": {"points": points}})
    if not given.matched_count:
        raise LookupError(f"there is no account {taker}")
