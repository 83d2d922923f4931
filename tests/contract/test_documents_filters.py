"""Whatever is asked of whatever is stored: the documents in memory give the answer that MongoDB gives."""

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from showcase.documents import Insert, Repository, all_of, any_of, eq, gt, gte, has, lt, lte, ne, none_of, one_of
from showcase.documents.domain.filters import Where
from tests.documents_others import closes_late
from tests.documents_worlds import CRATES, URL, Crate, InMemory, InMongo, Kind, Part, every_page
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = closes_late

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)
NUMBERS = [0, 1, 2, 3, -1]
NOTES = [None, "", "n", "Ö"]
PARTS = st.builds(Part, number=st.sampled_from(NUMBERS), note=st.sampled_from(NOTES))
VALUES = {
    "name": st.sampled_from([None, "", "a", "b", "Ö", "😀"]),
    "size": st.sampled_from(NUMBERS),
    "weight": st.sampled_from([0.0, -0.0, 1.0, 1.5, -1.0, float("nan"), float("inf"), float("-inf")]),
    "price": st.sampled_from(list(map(Decimal, ["0", "1", "1.0", "1.10", "-1", "1E+3"]))),
    "kind": st.sampled_from(Kind),
    "tags": st.lists(st.sampled_from(["", "a", "b", "Ö"]), max_size=3).map(tuple),
    "parts": st.lists(PARTS, max_size=2).map(tuple),
    "first": st.none() | PARTS,
    "notes": st.sampled_from([{}, {"a": 1}, {"a": None}, {"b": 1, "a": 1}, {"a": {"$ne": 1}}, {"a": [1]}, {"a": True}]),
    "made_at": st.sampled_from([None, MOMENT, MOMENT.replace(year=1), MOMENT.replace(year=9999)]),
}
PATHS = {
    **VALUES,
    "parts.number": st.sampled_from(NUMBERS),
    "parts.note": st.sampled_from(NOTES),
    "first.number": st.sampled_from(NUMBERS),
    "first.note": st.sampled_from(NOTES),
}
DOCUMENTS = st.lists(st.builds(Crate, id=st.just(""), **VALUES), min_size=1, max_size=7).map(
    lambda some: [one.model_copy(update={"id": f"{number}"}) for number, one in enumerate(some)]
)
COMPARISONS = st.sampled_from(sorted(PATHS)).flatmap(
    lambda path: st.one_of(
        st.builds(lambda make, value: make(path, value), st.sampled_from([eq, ne, lt, lte, gt, gte]), PATHS[path]),
        st.builds(
            lambda make, values: make(path, values),
            st.sampled_from([one_of, none_of]),
            st.lists(PATHS[path], max_size=3),
        ),
    )
)
ELEMENTS = st.builds(has, st.just("tags"), st.sampled_from(["a", ""])) | st.builds(has, st.just("parts"), PARTS)
FILTERS: st.SearchStrategy[Where] = st.recursive(
    COMPARISONS | ELEMENTS,
    lambda parts: st.builds(
        lambda make, some: make(*some), st.sampled_from([all_of, any_of]), st.lists(parts, max_size=3)
    ),
    max_leaves=4,
)
SORTS = st.lists(
    st.builds(str.__add__, st.sampled_from(["", "-"]), st.sampled_from(["id", *(VALUES.keys() - {"tags", "parts"})])),
    min_size=1,
    max_size=3,
)
CHECKED = settings(
    max_examples=80,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink what is asked of a server takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Both:
    """The same documents in memory and in MongoDB, on one event loop."""

    def __init__(self, runner: asyncio.Runner, mongo: Repository[Crate]) -> None:
        self.runner = runner
        self.mongo = mongo
        self.memory = InMemory().repository(CRATES)

    async def answers(
        self, documents: list[Crate], filters: list[Where], sort: list[str]
    ) -> tuple[list[list[str]], list[list[str]]]:
        """What each of them finds: by each filter, and page by page."""
        both = []
        for repository in (self.memory, self.mongo):
            await repository.bulk([Insert(one) for one in documents])
            try:
                found = [[one.id for one in await repository.find(where, sort=("id",))] for where in filters]
                found.append(await every_page(repository, sort, 2))
                found.append([one.id async for one in repository.stream(filters[0], sort=sort)])
                both.append(found)
            finally:
                for one in documents:
                    await repository.delete(one.id)
        return both[0], both[1]


@pytest.fixture(scope="module")
def both() -> Iterator[Both]:
    with Stack.attach() as stack, Namespace.create({URL: stack.urls[URL]}) as names, asyncio.Runner() as runner:
        closing = AsyncExitStack()
        world = runner.run(closing.enter_async_context(InMongo.emptied(names, CRATES)))
        yield Both(runner, world.repository(CRATES))
        runner.run(closing.aclose())


@CHECKED
@given(documents=DOCUMENTS, filters=st.lists(FILTERS, min_size=1, max_size=8), sort=SORTS)
def test_memory_finds_what_mongo_finds_and_sorts_it_as_mongo_does(
    both: Both, documents: list[Crate], filters: list[Where], sort: list[str]
) -> None:
    in_memory, in_mongo = both.runner.run(both.answers(documents, filters, sort))
    asked = [*filters, "pages", "stream"]
    assert [one for one in zip(asked, in_memory, in_mongo, strict=True) if one[1] != one[2]] == []
