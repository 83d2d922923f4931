"""Transactions that fail on purpose: MongoDB is told to refuse some commands, or to hide what became of one."""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.database import Database

from showcase.documents import Repository
from showcase.kernel.errors import NotFound
from workshop.documents.store import Account
from workshop.naive.documents import Told, nothing

WRITE_CONFLICT = 112
WRITE_CONCERN_FAILED = 64
IN_THE_WAY = {"errorCode": WRITE_CONFLICT, "errorLabels": ["TransientTransactionError"]}
"""What MongoDB says when another transaction is in the way: undone, and to be run again."""
NOBODY_KNOWS = {"writeConcernError": {"code": WRITE_CONCERN_FAILED, "errmsg": "no majority has it yet"}}
"""What a server says that has done it, and has not heard in time whether a majority has."""


@dataclass(slots=True)
class Giving:
    """Gives points from one household to another, as one piece of work; it counts how often it was run."""

    accounts: Repository[Account]
    giver: int
    taker: int
    points: int
    runs: int = 0

    async def __call__(self) -> None:
        self.runs += 1
        giver = await self.accounts.get(self.giver)
        await self.accounts.replace(giver.model_copy(update={"points": giver.points - self.points}))
        taker = await self.accounts.get(self.taker)
        await self.accounts.replace(taker.model_copy(update={"points": taker.points + self.points}))


@contextmanager
def failing(database: Database[dict[str, Any]], commands: Sequence[str], times: int, how: dict[str, Any]) -> Iterator[
    Callable[[], int]
]:  # fmt: skip
    """Have MongoDB fail some commands of clients of ours, so many times. Only for a server of one's own.

    Yields a function that says how often it has, by MongoDB's count.
    """
    admin = database.client.admin
    data = {"failCommands": [*commands], "appName": "showcase", **how}
    before = admin.command("configureFailPoint", "failCommand", mode={"times": times}, data=data)["count"]

    def failed() -> int:
        now = admin.command("configureFailPoint", "failCommand", mode="off")["count"]
        return int(now - before)

    try:
        yield failed
    finally:
        failed()


def committed(database: Database[dict[str, Any]]) -> int:
    """How many transactions MongoDB has ever committed."""
    return int(database.client.admin.command("serverStatus")["transactions"]["totalCommitted"])


async def outcome(work: Callable[[], Awaitable[object]]) -> str:
    """What comes of some work, in a word: `done`, or the name of the error."""
    try:
        await work()
    except (NotFound, LookupError) as error:
        return type(error).__name__
    return "done"


@dataclass(slots=True)
class Withdrawal:
    """Takes points from one account of a couple, if both accounts together have as many.

    Attributes:
        writes_both: the other account, of which nothing is taken, is written as well.
    """

    accounts: Repository[Account]
    mine: int
    other: int
    points: int
    told: Told = nothing
    writes_both: bool = False
    runs: int = 0

    async def __call__(self) -> bool:
        """Whether they were taken."""
        self.runs += 1
        mine, other = await self.accounts.get(self.mine), await self.accounts.get(self.other)
        if self.runs == 1:
            await self.told(f"sees {mine.points + other.points} points")
        if mine.points + other.points < self.points:
            return False
        await self.accounts.replace(mine.model_copy(update={"points": mine.points - self.points}))
        if self.writes_both:
            await self.accounts.replace(other)
        return True
