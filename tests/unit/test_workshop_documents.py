"""The experiments of lesson 08 without servers: the naive ways go wrong, ours do not, and each is counted right."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pytest

from showcase.documents import Repository
from showcase.kernel.errors import Unavailable
from tests.fakes_documents import MemoryDocuments
from workshop.documents import committing, counting, explaining, joining, paging, racing, viewing
from workshop.documents.store import (
    ACCOUNTS,
    ARTICLES,
    BILLS,
    SALES,
    TALLIES,
    UNIQUE_CARDS,
    Account,
    Article,
    Bill,
    Sale,
    Tally,
    bills_of,
    later,
    sales_of,
)
from workshop.naive import documents as naive
from workshop.naive.documents import Told

pytestmark = pytest.mark.anyio

NOON = datetime(2017, 12, 23, 12, tzinfo=UTC)


class Plain:
    """What the naive ways need of a collection of PyMongo's."""

    def __init__(self, *documents: dict[str, Any]) -> None:
        self.documents = {one["_id"]: one for one in documents}

    async def find_one(self, wanted: dict[str, Any]) -> dict[str, Any] | None:
        found = (one for one in self.documents.values() if wanted.items() <= one.items())
        return next((dict(one) for one in found), None)

    async def insert_one(self, document: dict[str, Any]) -> None:
        self.documents[document["_id"]] = document

    async def replace_one(self, wanted: dict[str, Any], document: dict[str, Any]) -> None:
        self.documents[wanted["_id"]] = document


@pytest.fixture
def memory() -> MemoryDocuments:
    return MemoryDocuments()


def lines() -> pd.DataFrame:
    """Two baskets of two households, three lines."""
    return pd.DataFrame(
        {
            "household_id": [1, 1, 2],
            "basket_id": [20, 20, 10],
            "product_id": [7, 8, 7],
            "quantity": [1, 2, 1],
            "total_cents": [100, 250, 100],
            "at": pd.to_datetime([NOON, NOON, NOON]),
        }
    )


# -- two writers


async def test_read_change_and_write_it_whole_loses_what_the_faster_one_wrote() -> None:
    accounts: Any = Plain({"_id": 1, "points": 100})

    async def look() -> str:
        return str(accounts.documents[1]["points"])

    steps = await racing.two_writers(racing.Whole(accounts).add_points, look, 1)
    assert steps.who.tolist() == ["slow till", "fast till", "fast till", "slow till"]
    assert steps.mongo.tolist() == ["100", "100", "130", "150"]


async def test_over_a_version_the_slower_one_is_refused_and_reads_again(memory: MemoryDocuments) -> None:
    ours = racing.Versioned(memory.repository(ACCOUNTS))
    await ours.accounts.insert(Account(id=1, points=100))

    async def look() -> str:
        return str((await ours.accounts.get(1)).points)

    steps = await racing.two_writers(ours.add_points, look, 1)
    assert steps.mongo.tolist() == ["100", "100", "130", "130", "130", "180"]
    assert steps.does[3] == "refused: it is version 2, not 1"
    assert [(one.expected, one.found) for one in ours.conflicts] == [(1, 2)]


async def test_two_who_have_looked_both_give_out_a_card() -> None:
    cards: Any = Plain()

    async def ask(till: str, told: Told) -> bool:
        return await naive.ask_for_card(cards, till, "h@example.org", told)

    assert await racing.both_ask(ask) == [True, True]
    assert len(cards.documents) == 2


async def test_under_a_unique_index_one_of_the_two_does(memory: MemoryDocuments) -> None:
    cards = memory.repository(UNIQUE_CARDS)

    async def ask(till: str, told: Told) -> bool:
        return await racing.ask_for_card(cards, till, "h@example.org", told)

    assert sorted(await racing.both_ask(ask)) == [False, True]
    assert await cards.count() == 1
    assert not await racing.ask_for_card(cards, "later till", "h@example.org")


# -- pages


async def by_number(memory: MemoryDocuments, size: int) -> AsyncIterator[list[int]]:
    """As `paging.by_number`, of the repository in memory."""
    number = 0
    while True:
        everything = (await memory.repository(SALES).find(sort=("-at",), limit=1_000)).items
        if not (found := everything[number * size : (number + 1) * size]):
            return
        yield [one.id for one in found]
        number += 1


async def sold(memory: MemoryDocuments, count: int) -> list[Sale]:
    first = Sale(id=0, household_id=1, product_id=1, total_cents=1, at=NOON)
    return [await memory.repository(SALES).insert(later(first, number, number)) for number in range(count)]


async def walked(memory: MemoryDocuments, *, is_by_number: bool) -> pd.DataFrame:
    there = await sold(memory, 60)
    sales: Repository[Sale] = memory.repository(SALES)
    writer = paging.Writer(sales, there[-1], sells=2, takes_back=4)
    pages = by_number(memory, 10) if is_by_number else paging.after_a_key(sales, 10)
    seen = await paging.walked(pages, writer)
    return paging.compared([one.id for one in reversed(there)], seen, writer.taken_back, 10)


async def test_by_number_some_are_read_twice_and_some_never(memory: MemoryDocuments) -> None:
    stayed = (walk := await walked(memory, is_by_number=True))[~walk.is_gone]
    assert (stayed.times > 1).any()
    assert (stayed.times == 0).any()


async def test_after_a_key_each_is_read_once(memory: MemoryDocuments) -> None:
    walk = await walked(memory, is_by_number=False)
    assert walk.is_gone.sum() == 8
    assert set(walk.times) == {1}
    assert walk.page.tolist() == [place // 10 + 1 for place in range(60)]


async def test_the_cursor_before_a_page_is_found_however_far_it_is(
    memory: MemoryDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paging, "PAGE", 10)
    monkeypatch.setattr(paging, "FURTHEST", 25)
    there = await sold(memory, 60)
    cursor = await paging.cursor_before(memory.repository(SALES), 6)
    page = await memory.repository(SALES).find(sort=("-at",), limit=10, after=cursor)
    assert [one.id for one in page] == [one.id for one in reversed(there[:10])]
    assert await paging.cursor_before(memory.repository(SALES), 1) is None


# -- questions, plans


async def test_bills_get_their_names_in_the_order_of_their_lines(memory: MemoryDocuments) -> None:
    for one in bills_of(lines()):
        await memory.repository(BILLS).insert(Bill.model_validate(one))
    for id_, name in ((7, "milk"), (8, "bread")):
        await memory.repository(ARTICLES).insert(Article(id=id_, name=name))
    found = await joining.in_two(memory.repository(BILLS), memory.repository(ARTICLES), [1, 2])
    assert joining.names_on(found) == ["milk", "milk", "bread"]


def test_bills_may_hold_the_names_themselves() -> None:
    bills = bills_of(lines(), pd.Series({7: "milk", 8: "bread"}))
    assert [one["_id"] for one in bills] == [20, 10]
    assert joining.names_on(bills) == ["milk", "milk", "bread"]


def test_sales_are_numbered_by_time() -> None:
    assert [(one["_id"], one["total_cents"], one["at"]) for one in sales_of(lines())] == [
        (0, 100, NOON),
        (1, 250, NOON),
        (2, 100, NOON),
    ]


@pytest.mark.parametrize(
    "plan",
    [
        {"stage": "LIMIT", "inputStage": {"stage": "FETCH", "inputStage": {"stage": "IXSCAN"}}},
        {"queryPlan": {"stage": "LIMIT", "inputStage": {"stage": "FETCH", "inputStage": {"stage": "IXSCAN"}}}},
    ],
)
def test_a_plan_is_told_from_its_first_stage_on(plan: dict[str, Any]) -> None:
    assert explaining.stages_of(plan) == ["IXSCAN", "FETCH", "LIMIT"]


# -- transactions


async def test_points_are_given_wholly_or_not_at_all(memory: MemoryDocuments) -> None:
    accounts = memory.repository(ACCOUNTS)
    await accounts.insert(Account(id=1, points=100))
    gift = committing.Giving(accounts, giver=1, taker=999, points=30)
    assert await committing.outcome(lambda: memory.in_transaction(gift)) == "NoSuchDocument"
    assert (await accounts.get(1)).points == 100


@pytest.mark.parametrize("writes_both", [False, True])
async def test_who_writes_what_he_relies_on_changes_its_version(memory: MemoryDocuments, writes_both: bool) -> None:
    accounts = memory.repository(ACCOUNTS)
    for id_ in (7, 8):
        await accounts.insert(Account(id=id_, points=50))
    assert await committing.Withdrawal(accounts, 7, 8, 80, writes_both=writes_both)()
    assert not await committing.Withdrawal(accounts, 8, 7, 80)()
    assert [(one.points, one.version) for one in (await accounts.get(7), await accounts.get(8))] == [
        (-30, 2),
        (50, 2 if writes_both else 1),
    ]


# -- counted through faults


class Losing:
    """A repository that loses every third answer to a replacement, in turns before and after it is made."""

    def __init__(self, tallies: Repository[Tally]) -> None:
        self._tallies = tallies
        self._asked = 0

    async def get(self, id_: object) -> Tally:
        return await self._tallies.get(id_)

    async def replace(self, tally: Tally) -> Tally:
        self._asked += 1
        if self._asked % 6 == 3:
            raise Unavailable("before it was made")
        stored = await self._tallies.replace(tally)
        if self._asked % 6 == 0:
            raise Unavailable("after it was made")
        return stored


async def test_an_increment_whose_answer_is_lost_is_made_once(
    memory: MemoryDocuments, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "PAUSE_S", 0.0)
    tallies = memory.repository(TALLIES)
    await tallies.insert(Tally(id=counting.NAME))
    writers = [counting.Counting(Losing(tallies), f"writer {n}") for n in (1, 2)]  # type: ignore[arg-type]  # all that it needs

    async def count(writer: counting.Counting) -> None:
        for number in range(1, 31):
            await writer.one_more(number)

    await asyncio.gather(*map(count, writers))
    stored = await tallies.get(counting.NAME)
    assert (stored.total, stored.version) == (60, 61)
    assert stored.seen == {"writer 1": 30, "writer 2": 30}
    assert all(writer.unanswered > writer.made > 0 for writer in writers)


async def test_a_writer_gives_up_when_nobody_answers(memory: MemoryDocuments, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "GIVES_UP_AFTER_S", -1.0)
    memory.away = True
    with pytest.raises(Unavailable):
        await counting.Counting(memory.repository(TALLIES), "writer 1").one_more(1)


# -- the read model


def answers(*rows: tuple[str, float, float, int]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["path", "due", "answered", "found"]).assign(status=200)


def test_an_answer_with_fewer_orders_than_before_has_a_gap() -> None:
    asked = answers(("a", 1, 2, 3), ("a", 3, 4, 2), ("b", 5, 6, 0), ("b", 5, 9, 0))
    known = {"a": 3, "b": 1}
    assert viewing.missed(asked, known, 0, 10) == 3
    assert viewing.missed(asked, known, 0, 6) == 2
    assert viewing.missed(asked, known, 7, 8) == 0
    assert viewing.missed(asked, known, 4) == 2
    assert viewing.missed(asked.assign(status=503), known, 0, 10) == 0


@pytest.mark.parametrize(
    ("postgres", "mongo", "apart"),
    [
        ((("1", 2), ("2", 1)), (("2", 1), ("1", 2)), 0),
        ((("1", 2), ("2", 1)), (("1", 1), ("2", 1)), 1),
        ((("1", 2),), (("1", 2), ("2", 1)), 1),
        ((("1", 2), ("2", 1)), (), 2),
    ],
)
def test_orders_and_views_are_apart_where_one_is_other_or_missing(
    postgres: Sequence[tuple[str, int]],
    mongo: Sequence[tuple[str, int]],
    apart: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, rows in (("in_postgres", postgres), ("in_mongo", mongo)):
        frame = pd.DataFrame(rows, columns=["order_id", "version"])
        monkeypatch.setattr(viewing, name, lambda _lab, frame=frame: frame)
    lab: Any = None
    assert viewing.apart(lab) == apart
