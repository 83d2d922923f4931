"""One contract for everything that keeps documents: in memory, and MongoDB.

Another implementation of `application.Repository` and `application.Transactions` passes it with a world of its own.
"""

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial

import pytest
from pydantic import BaseModel

from showcase.documents import (
    AlreadyThere,
    BadCursor,
    BadQuery,
    Delete,
    Insert,
    Misfit,
    NestedTransaction,
    NoSuchDocument,
    PutNewer,
    Replace,
    Repository,
    Restore,
    Unstorable,
    Upsert,
    VersionConflict,
    all_of,
    any_of,
    eq,
    gt,
    gte,
    has,
    lt,
    lte,
    ne,
    none_of,
    one_of,
)
from showcase.documents.domain.filters import Filter
from tests.documents_others import closes_late
from tests.documents_worlds import (
    BOXES,
    CRATES,
    SECRETS,
    URL,
    Crate,
    InMemory,
    InMongo,
    Kind,
    Label,
    Part,
    World,
    crates,
    every_page,
    filled,
    named,
    told,
)
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, Namespace.create({URL: stack.urls[URL]}) as names:
        yield names


@pytest.fixture
async def in_mongo(names: Namespace) -> AsyncIterator[InMongo]:
    async with InMongo.emptied(names, CRATES) as world:
        yield world


@pytest.fixture(params=["memory", "mongo"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return InMemory()
    in_mongo: InMongo = request.getfixturevalue("in_mongo")
    return in_mongo


@pytest.fixture
def repository(world: World) -> Repository[Crate]:
    return world.repository(CRATES)


# -- one document


async def test_what_was_inserted_is_got_as_version_1_whatever_it_was_before(repository: Repository[Crate]) -> None:
    crate = Crate(id="a", version=7, name="Käse ✓", price=Decimal("1.10"), parts=(Part(number=1),), made_at=NOON)

    inserted = await repository.insert(crate)

    assert inserted == crate.model_copy(update={"version": 1})
    assert await repository.get("a") == inserted


async def test_what_is_not_there_is_not_found_and_what_is_no_id_is_a_bad_query(repository: Repository[Crate]) -> None:
    await repository.insert(Crate(id="a"))

    with pytest.raises(NoSuchDocument):
        await repository.get("b")
    for no_id in ({"$ne": None}, None, 7, ["a"]):
        for call in (repository.get(no_id), repository.patch(no_id, {}), repository.delete(no_id)):
            with pytest.raises(BadQuery):
                await call


async def test_an_id_is_given_once(repository: Repository[Crate]) -> None:
    await repository.insert(Crate(id="a", size=1))

    with pytest.raises(AlreadyThere) as refused:
        await repository.insert(Crate(id="a", size=2))

    assert refused.value.fields == ("_id",)
    assert (await repository.get("a")).size == 1


async def test_a_value_of_a_unique_index_is_given_once_by_whatever_call(repository: Repository[Crate]) -> None:
    first, other = Crate(id="a", code="x"), Crate(id="b", code="y")
    await filled(repository, first, other, Crate(id="c"), Crate(id="d"))

    for call in (
        repository.insert(Crate(id="e", code="x")),
        repository.replace(Crate(id="b", version=1, code="x")),
        repository.upsert(Crate(id="b", code="x")),
        repository.put_newer(Crate(id="b", version=9, code="x")),
        repository.patch("b", {"code": "x"}),
    ):
        with pytest.raises(AlreadyThere) as refused:
            await call
        assert refused.value.fields in (("code",), ("code_1",))
    assert (await repository.get("b")).code == "y"
    assert (await repository.patch("a", {"code": "x", "size": 2})).size == 2, "its own value is in nobody's way"


async def test_a_replacement_is_of_the_next_version_and_only_of_the_one_it_was_made_of(
    repository: Repository[Crate],
) -> None:
    mine = theirs = await repository.insert(Crate(id="a", size=1, name="before"))

    replaced = await repository.replace(mine.model_copy(update={"size": 2, "name": None}))
    with pytest.raises(VersionConflict) as conflict:
        await repository.replace(theirs.model_copy(update={"size": 3}))

    assert (conflict.value.expected, conflict.value.found) == (1, 2)
    assert conflict.value.facts == {"expected": 1, "found": 2}
    assert replaced == Crate(id="a", version=2, size=2)
    assert await repository.get("a") == replaced


async def test_what_is_not_there_is_not_replaced(repository: Repository[Crate]) -> None:
    with pytest.raises(NoSuchDocument):
        await repository.replace(Crate(id="a", version=1))
    assert await repository.count() == 0


async def test_an_upsert_stores_whatever_is_there_and_counts_on(repository: Repository[Crate]) -> None:
    first = await repository.upsert(Crate(id="a", version=5, size=1))
    second = await repository.upsert(Crate(id="a", size=2))

    assert (first.version, second.version) == (1, 2)
    assert await repository.get("a") == second == Crate(id="a", version=2, size=2)


async def test_only_what_is_newer_is_put(repository: Repository[Crate]) -> None:
    assert await repository.put_newer(Crate(id="a", version=5, size=5))
    assert not await repository.put_newer(Crate(id="a", version=5, size=0)), "it came twice"
    assert not await repository.put_newer(Crate(id="a", version=4, size=4)), "it came late"
    assert await repository.get("a") == Crate(id="a", version=5, size=5)
    assert await repository.put_newer(Crate(id="a", version=7, size=7))
    assert await repository.get("a") == Crate(id="a", version=7, size=7)


async def test_a_patch_changes_what_it_names_and_nothing_else(repository: Repository[Crate]) -> None:
    await repository.insert(Crate(id="a", name="a", size=1, tags=("x",)))

    patched = await repository.patch("a", {"name": None, "tags": ["y", "z"], "first": {"number": 3}}, version=1)

    assert patched == Crate(id="a", version=2, size=1, tags=("y", "z"), first=Part(number=3))
    assert await repository.get("a") == patched
    assert (await repository.patch("a", {"size": 2})).version == 3
    assert (await repository.patch("a", {})).version == 4


async def test_a_patch_of_another_version_or_of_nothing_is_refused(repository: Repository[Crate]) -> None:
    await filled(repository, Crate(id="a"))
    await repository.patch("a", {"size": 1})

    with pytest.raises(VersionConflict) as conflict:
        await repository.patch("a", {"size": 2}, version=1)
    assert (conflict.value.expected, conflict.value.found) == (1, 2)
    for version in (None, 1):
        with pytest.raises(NoSuchDocument):
            await repository.patch("b", {"size": 2}, version=version)
    assert (await repository.get("a")).size == 1


@pytest.mark.parametrize(
    "changes",
    [{"id": "b"}, {"_id": "b"}, {"version": 9}, {"nmae": "x"}, {"size": "many"}, {"first.number": 1}, {"kind": "x"}],
    ids=named,
)
async def test_a_patch_of_what_the_model_does_not_have_is_a_bad_query(
    repository: Repository[Crate], changes: Mapping[str, object]
) -> None:
    stored = await repository.insert(Crate(id="a"))

    with pytest.raises(BadQuery):
        await repository.patch("a", {"size": 5, **changes})

    assert await repository.get("a") == stored


async def test_a_deletion_is_of_what_is_there_and_of_the_version_it_names(repository: Repository[Crate]) -> None:
    await filled(repository, *crates(2))
    await repository.patch("000", {"size": 5})

    with pytest.raises(VersionConflict) as conflict:
        await repository.delete("000", version=1)
    assert (conflict.value.expected, conflict.value.found) == (1, 2)
    await repository.delete("000", version=2)
    await repository.delete("001")
    with pytest.raises(NoSuchDocument):
        await repository.delete("000")
    with pytest.raises(NoSuchDocument):
        await repository.delete("000", version=2)
    assert not await repository.exists()


async def test_fields_that_the_model_does_not_know_survive_every_change(
    world: World, repository: Repository[Crate]
) -> None:
    await world.put({"_id": "a", "version": 1, "size": 1, "theirs": {"$set": [1, 2]}, "first": None})

    await repository.replace(await repository.get("a"))
    await repository.patch("a", {"size": 2})
    await repository.upsert(Crate(id="a", size=3))
    await repository.put_newer(Crate(id="a", version=9, size=4))
    await repository.bulk([Replace(Crate(id="a", version=9, size=5))])
    await repository.bulk([Upsert(Crate(id="a", size=6))])

    stored = await world.raw("a")
    assert (stored["size"], stored["version"], stored["theirs"]) == (6, 11, {"$set": [1, 2]})


# -- many changes at once


async def test_a_bulk_tells_what_came_of_each_change_and_makes_all_that_can_be_made(
    repository: Repository[Crate],
) -> None:
    await filled(repository, *crates(6))
    await repository.patch("001", {"code": "x"})

    outcomes = await repository.bulk(
        [
            Insert(Crate(id="new", version=3)),
            Insert(Crate(id="000")),
            Insert(Crate(id="other", code="x")),
            Replace(Crate(id="000", version=1, size=10)),
            Replace(Crate(id="001", version=1, size=11)),
            Replace(Crate(id="gone", version=1)),
            Replace(Crate(id="002", version=1, code="x")),
            Upsert(Crate(id="upserted", version=8)),
            Upsert(Crate(id="003", size=13)),
            Upsert(Crate(id="004", code="x")),
            PutNewer(Crate(id="newest", version=5)),
            PutNewer(Crate(id="004", version=1, size=14)),
            PutNewer(Crate(id="005", version=2, size=15)),
            Delete("002"),
            Delete("gone"),
            Insert(Crate(id="unstorable", notes={"n": 2**64})),
        ]
    )

    assert list(map(told, outcomes)) == [
        None,
        "AlreadyThere",
        "AlreadyThere",
        None,
        (1, 2),
        "NoSuchDocument",
        "AlreadyThere",
        None,
        None,
        "AlreadyThere",
        None,
        (1, 1),
        None,
        None,
        None,
        "Unstorable",
    ]
    there = {one.id: (one.version, one.size) async for one in repository.stream()}
    assert there == {
        "000": (2, 10),
        "001": (2, 1),
        "003": (2, 13),
        "004": (1, 4),
        "005": (2, 15),
        "new": (1, 0),
        "newest": (5, 0),
        "upserted": (1, 0),
    }


async def test_a_bulk_of_nothing_is_nothing(repository: Repository[Crate]) -> None:
    assert list(await repository.bulk([])) == []


async def test_of_one_document_many_times_in_a_bulk_the_newest_is_there(repository: Repository[Crate]) -> None:
    versions = [3, 1, 4, 1, 5, 2]
    await repository.bulk([PutNewer(Crate(id="a", version=version, size=version)) for version in versions])

    assert await repository.get("a") == Crate(id="a", version=5, size=5)


async def test_what_is_as_new_is_restored_and_what_is_newer_stays(repository: Repository[Crate]) -> None:
    await repository.put_newer(Crate(id="a", version=3, size=3))

    outcomes = await repository.bulk(
        [Restore(Crate(id="a", version=3, size=30)), Restore(Crate(id="b", version=2)), Delete("c")]
    )
    assert list(outcomes) == [None, None, None]
    assert await repository.get("a") == Crate(id="a", version=3, size=30)
    [late] = await repository.bulk([Restore(Crate(id="a", version=2, size=20))])
    assert told(late) == (2, 3)
    assert await repository.get("a") == Crate(id="a", version=3, size=30)


async def test_a_bulk_with_what_is_no_id_is_a_bad_query_and_changes_nothing(repository: Repository[Crate]) -> None:
    with pytest.raises(BadQuery):
        await repository.bulk([Insert(Crate(id="a")), Delete({"$ne": None})])
    assert await repository.count() == 0


# -- questions

SOME = [
    Crate(id="a", name="apple", size=1, weight=1.5, price=Decimal("1.10"), kind=Kind.FRUIT, tags=("red", "ripe")),
    Crate(id="b", name="box", size=2, parts=(Part(number=1, note="n"), Part(number=5)), first=Part(number=1)),
    Crate(id="c", size=3, weight=float("nan"), price=Decimal(2), tags=("red",), parts=(Part(number=3),)),
    Crate(id="d", name="", size=-1, made_at=NOON, notes={"a": {"$ne": 1}}, weight=float("inf")),
]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (None, "abcd"),
        ({}, "abcd"),
        ({"size": 2}, "b"),
        ({"size": 2, "name": "apple"}, ""),
        ({"kind": "fruit"}, "a"),
        ({"kind": Kind.FRUIT}, "a"),
        ({"id": "c"}, "c"),
        ({"name": None}, "c"),
        ({"first": {"number": 1}}, "b"),
        ({"notes": {"a": {"$ne": 1}}}, "d"),
        ({"notes": {"$ne": 1}}, ""),
        ({"tags": ["red", "ripe"]}, "a"),
        (eq("id", "a"), "a"),
        (eq("price", Decimal("1.1")), "a"),
        (eq("weight", float("nan")), "c"),
        (eq("tags", ("red",)), "c"),
        (eq("parts.note", None), "bc"),
        (eq("first.note", None), "abcd"),
        (ne("first.note", "x"), "abcd"),
        (ne("name", "apple"), "bcd"),
        (ne("name", None), "abd"),
        (ne("parts.number", 5), "acd"),
        (gt("size", 1), "bc"),
        (gte("size", 1), "abc"),
        (lt("size", 1), "d"),
        (lte("size", 1), "ad"),
        (gt("name", ""), "ab"),
        (gte("name", None), "c"),
        (gt("name", None), ""),
        (gt("weight", 0), "ad"),
        (lt("weight", 1), "b"),
        (lte("weight", float("nan")), "c"),
        (gt("parts.number", 2), "bc"),
        (lt("parts.number", 2), "b"),
        (lt("made_at", NOON + timedelta(hours=1)), "d"),
        (gte("made_at", NOON.astimezone()), "d"),
        (one_of("size", [1, 2, 9]), "ab"),
        (one_of("name", ["box", None]), "bc"),
        (one_of("name", []), ""),
        (one_of("kind", (Kind.FRUIT,)), "a"),
        (none_of("size", [1, 2, 9]), "cd"),
        (none_of("name", [None]), "abd"),
        (none_of("name", []), "abcd"),
        (has("tags", "red"), "ac"),
        (has("tags", "blue"), ""),
        (all_of(), "abcd"),
        (any_of(), ""),
        (all_of(gt("size", 0), lt("size", 3)), "ab"),
        (any_of(eq("name", "box"), all_of(eq("size", 1), any_of(has("tags", "ripe")))), "ab"),
        (any_of(all_of(), eq("size", 1)), "abcd"),
        (all_of(any_of(), eq("size", 1)), ""),
    ],
    ids=named,
)
async def test_a_filter_finds_what_it_says(repository: Repository[Crate], where: Filter | None, expected: str) -> None:
    await filled(repository, *SOME)

    found = await repository.find(where, sort=("id",))

    assert "".join(one.id for one in found) == expected
    assert [one.id async for one in repository.stream(where, sort=("-id",))] == list(reversed(expected))
    assert await repository.count(where) == len(expected)
    assert await repository.exists(where) is bool(expected)


@pytest.mark.parametrize(
    "where",
    [
        {"nmae": "x"},
        {"first.number": 1},
        {"$where": "1"},
        {"size": {"$gt": ""}},
        {"name": {"$ne": None}},
        {"kind": "vegetable"},
        {"name": "\ud800"},
        {"notes": {"a\x00": 1}},
        {"notes": {"a": object()}},
        eq("size", 2**63),
        eq("price", Decimal("0." + "1" * 40)),
        eq("parts.numbr", 1),
        eq("parts.$[]", 1),
        eq("notes.a", 1),
        eq("", 1),
        one_of("name", "box"),
        one_of("name", ["box", {"$ne": 1}]),
        one_of("size", range(10_001)),
        has("name", "x"),
        all_of(eq("size", 1), any_of(eq("made_at", "now"))),
        eq("made_at", NOON.replace(tzinfo=None)),
    ],
    ids=named,
)
async def test_what_cannot_be_asked_is_a_bad_query(repository: Repository[Crate], where: Filter) -> None:
    await filled(repository, *SOME)
    for call in (repository.find(where), repository.count(where), repository.exists(where)):
        with pytest.raises(BadQuery):
            await call
    with pytest.raises(BadQuery):
        _ = [one async for one in repository.stream(where)]


@pytest.mark.parametrize("limit", [-1, 0, 10_001])
async def test_a_page_has_its_limits(repository: Repository[Crate], limit: int) -> None:
    with pytest.raises(BadQuery):
        await repository.find(limit=limit)


@pytest.mark.parametrize("sort", ["nmae", "first.number", "-", "", "--size", "$natural", "-$natural", "tags"])
async def test_documents_are_sorted_by_single_fields_of_the_model(repository: Repository[Crate], sort: str) -> None:
    with pytest.raises(BadQuery):
        await repository.find(sort=(sort,))
    with pytest.raises(BadQuery):
        _ = [one async for one in repository.stream(sort=(sort,))]


async def test_documents_come_in_the_order_that_was_asked_for(repository: Repository[Crate]) -> None:
    await filled(repository, *SOME)
    for sort, expected in {
        ("size",): "dabc",
        ("-size",): "cbad",
        ("name", "id"): "cdab",
        ("-name", "size"): "badc",
        ("weight",): "cbad",
        ("-kind", "-id"): "dcba",
        ("kind", "-size"): "acbd",
    }.items():
        assert "".join(one.id for one in await repository.find(sort=sort)) == expected
        assert "".join([one.id async for one in repository.stream(sort=sort, batch=2)]) == expected


async def test_without_an_order_there_is_one_page(repository: Repository[Crate]) -> None:
    await filled(repository, *crates(3))
    page = await repository.find(limit=2)

    assert (len(page), page.next) == (2, None)
    with pytest.raises(BadCursor):
        await repository.find(limit=2, after=(await repository.find(sort=("id",), limit=2)).next)


async def test_a_stream_has_everything_however_much_and_can_be_left(repository: Repository[Crate]) -> None:
    await repository.bulk([Insert(one) for one in crates(250)])

    assert [one.size async for one in repository.stream(sort=("size",), batch=100)] == list(range(250))
    assert sum([one.size async for one in repository.stream()]) == sum(range(250))
    async for one in repository.stream(sort=("size",), batch=10):
        if one.size == 30:
            break
    assert await repository.count() == 250


async def test_documents_are_read_as_another_model_and_only_its_fields(
    world: World, repository: Repository[Crate]
) -> None:
    await filled(repository, Crate(id="a", name="x", size=2), Crate(id="b", size=1))
    await world.put({"_id": "c", "name": "broken elsewhere", "size": "many"})
    labels = repository.into(Label)

    assert await labels.get("a") == Label.model_validate({"_id": "a", "name": "x"})
    first = await labels.find(gt("size", 0), sort=("size",), limit=1)
    rest = await labels.find(gt("size", 0), sort=("size",), limit=1, after=first.next)
    assert [one.id for one in (*first, *rest)] == ["b", "a"]
    assert rest.next is None
    assert [one.id async for one in labels.stream(sort=("id",))] == ["a", "b", "c"]
    with pytest.raises(NoSuchDocument):
        await labels.get("d")


async def test_a_model_with_a_field_that_there_is_not_reads_nothing(repository: Repository[Crate]) -> None:
    class Strange(BaseModel):
        colour: str

    class Nameless(BaseModel):
        id: str

    with pytest.raises(BadQuery, match="colour"):
        repository.into(Strange)
    with pytest.raises(BadQuery, match="_id"):
        repository.into(Nameless)


# -- pages

TIED = crates(
    13, lambda n: {"size": n % 3, "name": None if n % 4 == 0 else f"n{n % 2}", "weight": float("nan") if n % 5 else n}
)


@pytest.mark.parametrize("limit", [1, 2, 3, 13])
@pytest.mark.parametrize(
    "sort",
    [
        ("id",),
        ("-id",),
        ("size",),
        ("-size",),
        ("name",),
        ("-name",),
        ("weight",),
        ("-weight",),
        ("-size", "name"),
        ("name", "-size", "-id"),
        ("-name", "weight", "id"),
        ("made_at", "first"),
        ("kind", "-price"),
        ("size", "-size"),
        ("kind", "-id", "size", "id"),
    ],
    ids=" ".join,
)
async def test_pages_have_everything_once_and_in_order(
    repository: Repository[Crate], sort: tuple[str, ...], limit: int
) -> None:
    await repository.bulk([Insert(one) for one in reversed(TIED)])
    in_order = [one.id async for one in repository.stream(sort=sort)]

    assert len(in_order) == 13
    assert await every_page(repository, sort, limit) == in_order
    found = await every_page(repository, sort, limit, where=ne("size", 1))
    assert found == [id_ for id_ in in_order if int(id_) % 3 != 1]


@pytest.mark.parametrize("sort", ["size", "-size"])
async def test_what_comes_and_goes_between_pages_shifts_nothing(repository: Repository[Crate], sort: str) -> None:
    await filled(repository, *crates(20, lambda n: {"size": n // 2}))
    expected = [one.id async for one in repository.stream(sort=(sort,))]
    first = await repository.find(sort=(sort,), limit=8)
    seen = [one.id for one in first]

    for id_ in (seen[0], seen[3], seen[-1]):
        await repository.delete(id_)
    await repository.insert(Crate(id="before", size=-1 if sort == "size" else 99))
    await repository.insert(Crate(id="among", size=2 if sort == "size" else 8))
    await repository.insert(Crate(id="after", size=99 if sort == "size" else -1))
    rest = await repository.find(sort=(sort,), limit=100, after=first.next)

    assert seen + [one.id for one in rest] == [*expected, "after"]


async def test_the_last_page_says_so(repository: Repository[Crate]) -> None:
    await filled(repository, *crates(4))
    first = await repository.find(sort=("id",), limit=2)
    last = await repository.find(sort=("id",), limit=2, after=first.next)

    assert first.next is not None
    assert (len(last), last.next) == (2, None)
    for id_ in ("002", "003"):
        await repository.delete(id_)
    nothing = await repository.find(sort=("id",), limit=2, after=first.next)
    assert (len(nothing), nothing.next) == (0, None)


async def test_a_cursor_is_good_for_its_own_question_only(world: World, repository: Repository[Crate]) -> None:
    await filled(repository, *crates(6))
    where, sort = gt("size", 0), ("size",)
    cursor = (await repository.find(where, sort=sort, limit=2)).next

    assert [one.size for one in await repository.find(where, sort=sort, after=cursor)] == [3, 4, 5]
    assert [one.size for one in await repository.find(where, sort=sort, limit=1, after=cursor)] == [3]
    for other, order in ((None, sort), (gt("size", 1), sort), (where, ("-size",)), (where, ("id",)), (where, ())):
        with pytest.raises(BadCursor):
            await repository.find(other, sort=order, after=cursor)
    boxes = world.repository(BOXES)
    with pytest.raises(BadCursor):
        await boxes.find(where, sort=sort, after=cursor)


async def test_a_cursor_that_was_touched_or_made_up_is_refused(repository: Repository[Crate]) -> None:
    await filled(repository, *crates(3))
    cursor = (await repository.find(sort=("size",), limit=1)).next
    assert cursor is not None
    whole = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))
    touched = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    forged = [base64.urlsafe_b64encode(one).decode().rstrip("=") for one in [*touched, whole[:-1], whole + b"\0", b""]]

    for bad in [*forged, "", "x", "=", "Käse ✓", "\ud800", "a" * 1_000, cursor[:-4], cursor + "=!", cursor[::-1]]:
        with pytest.raises(BadCursor):
            await repository.find(sort=("size",), after=bad)
    assert len(await repository.find(sort=("size",), after=cursor)) == 2


async def test_cursors_outlive_the_rotation_of_secrets_but_not_the_secret(
    world: World, repository: Repository[Crate]
) -> None:
    await filled(repository, *crates(3))
    cursor = (await repository.find(sort=("id",), limit=1)).next
    rotated = world.repository(CRATES, (b"a newer secret", *SECRETS))
    renewed = world.repository(CRATES, (b"a newer secret",))

    assert len(await rotated.find(sort=("id",), after=cursor)) == 2
    with pytest.raises(BadCursor):
        await renewed.find(sort=("id",), after=cursor)
    newer = (await rotated.find(sort=("id",), limit=1)).next
    assert len(await renewed.find(sort=("id",), after=newer)) == 2
    with pytest.raises(BadCursor):
        await repository.find(sort=("id",), after=newer)


async def test_without_a_secret_there_are_no_pages_but_everything_else(world: World) -> None:
    repository = world.repository(CRATES, ())
    await filled(repository, *crates(2))

    assert len(await repository.find(sort=("id",))) == 2
    with pytest.raises(ValueError, match="secret"):
        await repository.find(sort=("id",), limit=1)


# -- what somebody else has written


async def test_a_document_that_does_not_fit_is_named_and_the_others_are_there(
    world: World, repository: Repository[Crate]
) -> None:
    await filled(repository, *crates(50))
    await world.put({"_id": "017 broken", "version": 1, "size": 17, "kind": "vegetable"})

    page = await repository.find(sort=("size",))

    assert [one.size for one in page] == list(range(50))
    [misfit] = page.misfits
    assert (misfit.id, misfit.collection) == ("017 broken", "crates")
    assert "kind" in misfit.why
    with pytest.raises(Misfit) as found:
        await repository.get("017 broken")
    assert found.value.id == "017 broken"


async def test_a_stream_tells_of_misfits_or_ends_with_the_first(world: World, repository: Repository[Crate]) -> None:
    await filled(repository, *crates(5))
    for number in (2, 3):
        await world.put({"_id": f"{number} broken", "version": 1, "size": number, "tags": "no list"})
    told_of: list[Misfit] = []

    every = [one.size async for one in repository.stream(sort=("size",), misfit=told_of.append)]

    assert every == [0, 1, 2, 3, 4]
    assert [misfit.id for misfit in told_of] == ["2 broken", "3 broken"]
    stream = repository.stream(sort=("size", "id"))
    assert [(await anext(stream)).size for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Misfit) as found:
        await anext(stream)
    assert found.value.id == "2 broken"


@pytest.mark.parametrize("limit", [1, 2, 5])
@pytest.mark.parametrize("sort", ["size", "-size", "name", "-name", "id", "-id", "made_at", "-made_at"])
async def test_pages_go_on_past_misfits_whatever_is_in_the_field_they_are_sorted_by(
    world: World, repository: Repository[Crate], sort: str, limit: int
) -> None:
    await filled(repository, *crates(5, lambda n: {"size": n, "name": f"n{n}", "made_at": NOON + timedelta(days=n)}))
    strange = ["x", 5.5, float("nan"), True, {"a": 1}, {}, b"bytes", None, NOON, datetime(1, 1, 1, tzinfo=UTC)]
    for number, value in enumerate(strange):
        await world.put({"_id": f"0{number} m", "size": value, "name": value, "made_at": value, "kind": "x"})
    for id_ in (7, {"a": 1}):
        await world.put({"_id": id_, "kind": "x"})

    seen = await every_page(repository, (sort,), limit)

    fits = [id_ for id_ in seen if not id_.startswith("[")]
    assert fits == sorted(fits, reverse=sort.startswith("-")) == [one.id for one in sorted_by(sort)]
    assert len(seen) == len(set(seen)) == 5 + len(strange) + 2


def sorted_by(sort: str) -> list[Crate]:
    return crates(5)[:: -1 if sort.startswith("-") else 1]


@pytest.mark.parametrize("sort", ["size", "-size"])
@pytest.mark.parametrize("limit", [1, 3])
async def test_lists_where_there_should_be_none_hide_no_other_document(
    world: World, repository: Repository[Crate], sort: str, limit: int
) -> None:
    await filled(repository, *crates(9))
    for number, value in enumerate([[], [3, 8], [8, "x"], [[1]], [None]]):
        await world.put({"_id": f"broken {number}", "size": value})

    seen = await every_page(repository, (sort,), limit)

    assert [id_ for id_ in seen if not id_.startswith("[")] == [
        one.id for one in crates(9)[:: -1 if sort == "-size" else 1]
    ]


async def test_what_has_no_version_is_of_version_0_for_every_call(world: World, repository: Repository[Crate]) -> None:
    for id_ in ("a", "b", "c", "d", "e", "f"):
        await world.put({"_id": id_, "size": 1})
    read = await repository.get("a")
    assert read.version == 0

    assert (await repository.replace(read)).version == 1
    assert (await repository.patch("b", {"size": 2}, version=0)).version == 1
    await repository.delete("c", version=0)
    assert await repository.put_newer(Crate(id="d", version=3))
    outcomes = await repository.bulk([Replace(Crate(id="e")), Restore(Crate(id="f", version=2))])
    assert list(outcomes) == [None, None]
    versions = {one.id: one.version async for one in repository.stream()}
    assert versions == {"a": 1, "b": 1, "d": 3, "e": 1, "f": 2}


# -- transactions


async def test_what_is_done_in_a_transaction_is_done_wholly(world: World, repository: Repository[Crate]) -> None:
    await filled(repository, *crates(2))

    async with world.transactions.transaction():
        await repository.insert(Crate(id="new"))
        await repository.patch("000", {"size": 10})
        await repository.delete("001")
        assert await repository.count() == 2, "it sees what it has done"

    assert {one.id: one.size async for one in repository.stream()} == {"000": 10, "new": 0}


async def test_a_transaction_that_fails_leaves_nothing(world: World, repository: Repository[Crate]) -> None:
    await filled(repository, *crates(3))

    async def change() -> None:
        await repository.insert(Crate(id="new"))
        await repository.replace(Crate(id="000", version=1, size=10))
        await repository.patch("000", {"size": 11})
        await repository.upsert(Crate(id="001", size=12))
        await repository.delete("002")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with world.transactions.transaction():
            await change()
    with pytest.raises(ZeroDivisionError):
        await world.transactions.in_transaction(change)

    assert [(one.id, one.version, one.size) async for one in repository.stream(sort=("id",))] == [
        ("000", 1, 0),
        ("001", 1, 1),
        ("002", 1, 2),
    ]


async def test_a_refused_change_within_a_transaction_undoes_the_others(
    world: World, repository: Repository[Crate]
) -> None:
    await filled(repository, Crate(id="a"))

    async def insert_and(change: Callable[[Crate], Awaitable[object]]) -> None:
        await repository.insert(Crate(id="b"))
        await change(Crate(id="a", version=5))

    for change, refusal in ((repository.insert, AlreadyThere), (repository.replace, VersionConflict)):
        with pytest.raises(refusal):
            await world.transactions.in_transaction(partial(insert_and, change))

    assert await repository.count() == 1


async def test_a_function_in_a_transaction_gives_its_result(world: World, repository: Repository[Crate]) -> None:
    async def work() -> int:
        await repository.insert(Crate(id="a"))
        return 42

    assert await world.transactions.in_transaction(work) == 42
    assert await repository.exists({"id": "a"})


async def test_transactions_do_not_nest(world: World, repository: Repository[Crate]) -> None:
    async def nothing() -> None:
        pass

    async with world.transactions.transaction():
        await repository.insert(Crate(id="a"))
        with pytest.raises(NestedTransaction):
            async with world.transactions.transaction():
                pass
        with pytest.raises(NestedTransaction):
            await world.transactions.in_transaction(nothing)
        await repository.insert(Crate(id="b"))

    assert await repository.count() == 2
    async with world.transactions.transaction():
        await repository.insert(Crate(id="c"))


async def test_a_task_started_within_a_transaction_has_no_part_in_it(
    world: World, repository: Repository[Crate]
) -> None:
    async with world.transactions.transaction():
        await repository.insert(Crate(id="a"))
        with pytest.raises(RuntimeError, match="another task"):
            await asyncio.create_task(repository.count())

    assert await asyncio.create_task(repository.count()) == 1


async def test_a_bulk_is_no_part_of_a_transaction(world: World, repository: Repository[Crate]) -> None:
    async def insert_and(change: Callable[[], Awaitable[object]]) -> None:
        await repository.insert(Crate(id="a"))
        await change()

    for change in (
        lambda: repository.bulk([Insert(Crate(id="b"))]),
        lambda: repository.put_newer(Crate(id="b", version=3)),
    ):
        with pytest.raises(RuntimeError, match="all or nothing"):
            await world.transactions.in_transaction(partial(insert_and, change))

    assert await repository.count() == 0


async def test_what_is_unstorable_is_refused_by_every_call(repository: Repository[Crate]) -> None:
    stored = await repository.insert(Crate(id="a"))
    for strange in ({"n": 2**63}, {"s": "\ud800"}, {"k\x00": 1}, {"d": Decimal("0." + "1" * 40)}, {"o": object()}):
        bad = stored.model_copy(update={"notes": strange})
        for call in (
            repository.insert(bad.model_copy(update={"id": "b"})),
            repository.replace(bad),
            repository.upsert(bad),
            repository.put_newer(bad.model_copy(update={"version": 9})),
            repository.patch("a", {"notes": strange}),
        ):
            with pytest.raises(Unstorable):
                await call
    assert await repository.get("a") == stored
    assert await repository.count() == 1
