"""What strangers send, and what others have written: nothing of a request becomes an operator, and nothing that cannot
be stored, or read, is in anybody else's way. On MongoDB, whose profiler tells what has really reached it."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any

import bson
import pytest
from bson.datetime_ms import DatetimeMS
from pydantic import AwareDatetime, BaseModel, Field, ValidationError, create_model

from showcase.documents import (
    BadQuery,
    Collection,
    Delete,
    Document,
    DocumentTooLarge,
    Insert,
    Misfit,
    Moment,
    NoSuchDocument,
    PutNewer,
    Replace,
    Repository,
    Unstorable,
    Upsert,
    VersionConflict,
    eq,
    one_of,
)
from showcase.documents.domain.filters import Operator
from showcase.documents.infrastructure.codec import OPTIONS
from showcase.kernel.errors import DomainError
from tests.documents_others import closes_late
from tests.documents_worlds import CRATES, URL, Crate, InMongo, Part, crates, every_page, filled, named, told
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
MEGABYTE = 1024 * 1024
STRICT = Collection(
    name="strict",
    model=Crate,
    schema={"required": ["name", "kind"], "properties": {"size": {"minimum": 0}, "name": {"bsonType": "string"}}},
)


@pytest.fixture(scope="module")
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, Namespace.create({URL: stack.urls[URL]}) as names:
        yield names


@pytest.fixture
async def world(names: Namespace) -> AsyncIterator[InMongo]:
    async with InMongo.emptied(names, CRATES, STRICT) as world:
        yield world


@pytest.fixture
def repository(world: InMongo) -> Repository[Crate]:
    return world.repository(CRATES)


# -- operators from a request's body

BODIES = [
    '{"$where": "sleep(1000)"}',
    '{"$expr": {"$eq": [1, 1]}}',
    '{"$or": [{}, {}]}',
    '{"name": {"$ne": null}}',
    '{"name": {"$gt": ""}}',
    '{"name": {"$regex": ".*"}}',
    '{"name": {"$in": ["secret"]}}',
    '{"name": ["secret"]}',
    '{"size": {"$exists": true}}',
    '{"size": {"$gte": 0, "$lte": 9}}',
    '{"size": {"$numberLong": "1"}}',
    '{"first": {"$ne": null}}',
    '{"first": {"number": {"$gt": 0}}}',
    '{"first.number": 1}',
    '{"parts": {"$elemMatch": {"number": 1}}}',
    '{"parts": [{"number": {"$gt": 0}}]}',
    '{"tags": {"$size": 1}}',
    '{"tags": [{"$ne": 1}]}',
    '{"id": {"$ne": null}}',
    '{"_id": "secret"}',
    '{"__proto__": {"size": 1}}',
    '{"__class__": "x"}',
    '{"constructor": 1}',
    '{"model_fields": 1}',
    '{"name\\u0000": "x"}',
    '{"": "x"}',
    '{"$": 1}',
    '{"notes.$where": "1"}',
    '{"kind": {"$not": {"$eq": "x"}}}',
    '{"price": {"$numberDecimal": "1"}}',
    '{"made_at": {"$date": 1}}',
]
LITERAL = [
    '{"$ne": null}',
    '{"$where": "true"}',
    '{"$exists": true}',
    '{"a": {"$gt": ""}}',
    '{"a.b": 1}',
    '{"$expr": {"$function": {"body": "x", "args": [], "lang": "js"}}}',
    '{"$set": {"size": 1}, "$inc": {"version": 7}}',
    '{"$oid": "0123456789abcdef01234567"}',
    '{"$regex": ".*", "$options": "i"}',
    '{"$dbPointer": {"$ref": "x", "$id": "y"}}',
    '{"$ref": 1}',
    '{"$literal": 1}',
    '{"$ref": "x", "$id": 1}',
    '{"$id": {"$ref": "y", "$id": 1, "$db": "z"}, "$ref": "x", "more": {"$ref": 5, "$id": 1}}',
    '{"__proto__": {"$size": 1}}',
    "{}",
]
"""For a field that holds any mapping: there it is a value."""
OURS = {"$and", "$or", "$not", *map(str, Operator), "$set", "$inc", "$setOnInsert"}
VALUES = {"$eq", "$ne", "$in", "$set", "$setOnInsert"}
"""Below these, MongoDB reads nothing as an operator."""


class Profile:
    """Which commands have reached the collection."""

    def __init__(self, world: InMongo) -> None:
        self._database = world.mongo.client[world.mongo.database].with_options(codec_options=OPTIONS)

    async def start(self) -> None:
        await self._database.command("profile", 0)
        await self._database.drop_collection("system.profile")
        await self._database.command("profile", 2)

    async def commands(self) -> list[dict[str, Any]]:
        """Since the start; then it ends."""
        await self._database.command("profile", 0)
        found = self._database["system.profile"].find({"ns": {"$regex": r"\.crates$"}}, sort=[("ts", 1)])
        return [one async for one in found]


def operators(asked: object) -> Iterator[str]:
    """What MongoDB reads as operators of its own."""
    if isinstance(asked, Mapping):
        for name, value in asked.items():
            if name.startswith("$"):
                yield name
            if name not in VALUES:
                yield from operators(value)
    elif isinstance(asked, list):
        for one in asked:
            yield from operators(one)


@pytest.fixture
async def profile(world: InMongo) -> AsyncIterator[Profile]:
    profile = Profile(world)
    await filled(
        world.repository(CRATES),
        Crate(id="secret", name="secret", size=1, tags=("x",), first=Part(number=1), parts=(Part(number=1),)),
    )
    await profile.start()
    yield profile
    await profile.commands()


async def came_of(call: Awaitable[object]) -> object:
    """What a call gives, or the kind of error with which it was refused."""
    try:
        return await call
    except DomainError as refusal:
        return type(refusal)


def is_by_id(asked: object) -> bool:
    """Whether a filter asks for documents by an id that is a text, and for nothing else."""
    match asked:
        case None | {"_id": str()} | {"_id": {"$eq": str()}}:
            return True
        case {"_id": {"$in": list(ids)}}:
            return all(isinstance(id_, str) for id_ in ids)
    return False


@pytest.mark.parametrize("body", BODIES)
async def test_nothing_of_a_body_is_read_as_an_operator(
    repository: Repository[Crate], profile: Profile, body: str
) -> None:
    asked: Mapping[str, Any] = json.loads(body)
    [value] = asked.values()
    before = await repository.get("secret")

    for call in (repository.find(asked), repository.count(asked), repository.patch("secret", asked)):
        assert await came_of(call) is BadQuery
    for given in (asked, value):
        if given != "secret":
            calls = (repository.get(given), repository.patch(given, {"size": 7}), repository.delete(given))
            for other in calls:
                assert await came_of(other) is (NoSuchDocument if isinstance(given, str) else BadQuery)

    assert await repository.get("secret") == before
    commands = [one["command"] for one in await profile.commands()]
    assert commands
    for command in commands:
        assert is_by_id(command.get("filter")), command
        assert is_by_id(command.get("q")), command
        assert is_by_id(command.get("query")), command
        assert command.get("update", {"$set": {"size": 7}, "$inc": {"version": 1}}).keys() == {"$set", "$inc"}


@pytest.mark.parametrize("body", LITERAL)
async def test_an_operator_within_a_field_of_any_content_is_content(
    repository: Repository[Crate], profile: Profile, body: str
) -> None:
    notes = json.loads(body)
    await filled(repository, Crate(id="a", notes={"some": 1}), Crate(id="b", notes=notes))
    expected = ["b"] if notes else ["b", "secret"]

    for where in ({"notes": notes}, eq("notes", notes), one_of("notes", [notes]), {"notes": notes, "version": 1}):
        assert [one.id for one in await repository.find(where, sort=("id",))] == expected
        assert await repository.count(where) == len(expected)
    assert (await repository.patch("a", {"notes": notes})).notes == notes
    assert (await repository.replace(Crate(id="b", version=1, notes={"in": [notes]}))).notes == {"in": [notes]}
    assert (await repository.upsert(Crate(id="c", notes=notes))).notes == notes
    assert await repository.put_newer(Crate(id="d", version=4, notes=notes))
    for id_, version in {"a": 2, "b": 2, "c": 1, "d": 4}.items():
        stored = await repository.get(id_)
        assert (stored.notes, stored.version, stored.size) == (notes if id_ != "b" else {"in": [notes]}, version, 0)

    for command in await profile.commands():
        read = command["command"]
        asked = [read.get("filter"), read.get("q"), read.get("query"), read.get("u"), read.get("update")]
        assert set(operators([one for one in asked if isinstance(one, Mapping)])) <= OURS


class Odd(Document):
    """With an id that may be any mapping."""

    id: dict[str, Any]
    size: int = 0


ODDS = Collection(name="crates", model=Odd)


async def test_an_operator_as_an_id_is_an_id_and_nothing_else_is_changed(world: InMongo, profile: Profile) -> None:
    odds = world.repository(ODDS)
    stranger: dict[str, Any] = {"$gt": ""}

    with pytest.raises(DomainError):
        await odds.get(stranger)
    with pytest.raises(DomainError):
        await odds.patch(stranger, {"size": 7})
    with pytest.raises(DomainError):
        await odds.delete(stranger)
    with pytest.raises(DomainError):
        await odds.replace(Odd(id=stranger, version=1, size=7))
    outcomes = await odds.bulk([Replace(Odd(id=stranger, version=1, size=7)), Delete(stranger)])
    assert list(map(told, outcomes)) == ["NoSuchDocument", None]

    assert (await world.raw("secret"))["size"] == 1
    for command in await profile.commands():
        assert set(operators(command["command"].get("filter"))) <= OURS
        assert set(operators(command["command"].get("q"))) <= OURS


# -- what cannot be stored


def large(id_: str, megabytes: int = 17) -> Crate:
    return Crate(id=id_, name="x" * (megabytes * MEGABYTE))


async def test_a_document_that_is_too_large_is_refused_by_every_call(repository: Repository[Crate]) -> None:
    stored = await repository.insert(Crate(id="a"))
    for call in (
        repository.insert(large("b")),
        repository.replace(large("a").model_copy(update={"version": 1})),
        repository.upsert(large("a")),
        repository.put_newer(large("a").model_copy(update={"version": 9})),
        repository.patch("a", {"name": "x" * (17 * MEGABYTE)}),
    ):
        with pytest.raises(DocumentTooLarge):
            await call
    assert await repository.get("a") == stored


async def test_a_document_that_would_become_too_large_is_refused(world: InMongo, repository: Repository[Crate]) -> None:
    await repository.insert(large("a", 9))
    half = "x" * (9 * MEGABYTE)

    with pytest.raises(DocumentTooLarge):
        await repository.patch("a", {"code": half})
    await world.put({"_id": "b", "version": 1, "theirs": half})
    with pytest.raises(DocumentTooLarge):
        await repository.replace(Crate(id="b", version=1, name=half))
    with pytest.raises(DocumentTooLarge):
        await repository.upsert(Crate(id="b", name=half))
    [outcome] = await repository.bulk([Upsert(Crate(id="b", name=half))])
    assert isinstance(outcome, DocumentTooLarge)
    assert (await repository.get("a")).code is None


async def test_of_a_bulk_only_what_is_too_large_or_unstorable_is_not_made(repository: Repository[Crate]) -> None:
    await repository.insert(Crate(id="there"))
    strange: list[dict[str, Any]] = [
        {"n": 2**63},
        {"n": -(2**63) - 1},
        {"s": "\ud800"},
        {"k\x00": 1},
        {"\udfff": 1},
        {"d": Decimal("1." + "1" * 39)},
        {"d": Decimal("1e6200")},
        {"o": object()},
        deep(5_000),
    ]
    outcomes = await repository.bulk(
        [
            Insert(Crate(id="a")),
            *(Insert(Crate(id=f"s{number}").model_copy(update={"notes": one})) for number, one in enumerate(strange)),
            Insert(large("b")),
            Upsert(large("there")),
            PutNewer(large("c")),
            Replace(large("there").model_copy(update={"version": 1})),
            Insert(Crate(id="\ud800")),
            Upsert(Crate(id="\ud800")),
            PutNewer(Crate(id="\ud800")),
            Replace(Crate(id="\ud800", version=1)),
            Insert(Crate(id="z")),
        ]
    )

    assert [None if one is None else type(one).__name__ for one in outcomes] == [
        None,
        *["Unstorable"] * len(strange),
        *["DocumentTooLarge"] * 4,
        *["Unstorable"] * 4,
        None,
    ]
    assert {one.id async for one in repository.stream()} == {"a", "there", "z"}


def deep(levels: int) -> dict[str, Any]:
    """A mapping in a mapping in …"""
    whole: dict[str, Any] = {}
    for _ in range(levels):
        whole = {"a": whole}
    return whole


@pytest.mark.parametrize("levels", [100, 200, 500, 5_000])
async def test_what_is_nested_too_deeply_is_unstorable(repository: Repository[Crate], levels: int) -> None:
    nested = Crate(id="a").model_copy(update={"notes": deep(levels)})
    for call in (repository.insert(nested), repository.upsert(nested), repository.patch("a", {"notes": nested.notes})):
        with pytest.raises(Unstorable):
            await call
    with pytest.raises(BadQuery):
        await repository.find({"notes": nested.notes})

    outcomes = await repository.bulk([Insert(Crate(id="b")), Upsert(nested), Insert(nested), Upsert(Crate(id="c"))])

    assert list(map(told, outcomes)) == [None, "Unstorable", "Unstorable", None]


async def test_what_is_nested_as_deeply_as_it_may_be_comes_back(repository: Repository[Crate]) -> None:
    many = {"levels": deep(90), "many": [{"number": number} for number in range(300)]}
    stored = await repository.insert(Crate(id="a", notes=many))
    await repository.patch("a", {"notes": many})
    assert (await repository.bulk([Upsert(stored)]))[0] is None

    assert (await repository.get("a")).notes == many
    assert len(await repository.find({"notes": many})) == 1


async def test_an_id_that_cannot_be_stored_is_refused_by_every_call(repository: Repository[Crate]) -> None:
    for call in (repository.get("\ud800"), repository.patch("\ud800", {"size": 1}), repository.delete("\ud800")):
        with pytest.raises(BadQuery):
            await call
    bad = Crate(id="\ud800", version=1)
    for write in (repository.insert(bad), repository.replace(bad), repository.upsert(bad), repository.put_newer(bad)):
        with pytest.raises(Unstorable):
            await write


async def test_what_the_collections_validator_refuses_is_unstorable_and_says_which_fields(world: InMongo) -> None:
    strict = world.repository(STRICT)
    await strict.insert(Crate(id="a", name="a"))
    calls: list[tuple[Callable[[], Awaitable[object]], list[str]]] = [
        (lambda: strict.insert(Crate(id="b", name="b", size=-1)), ["size"]),
        (lambda: strict.replace(Crate(id="a", version=1, name="a", size=-1)), ["size"]),
        (lambda: strict.upsert(Crate(id="c", name=None)), ["name"]),
        (lambda: strict.put_newer(Crate(id="a", version=7, size=-1)), ["size", "name"]),
        (lambda: strict.patch("a", {"size": -5}), ["size"]),
    ]

    for call, rules in calls:
        with pytest.raises(Unstorable) as refused:
            await call()
        assert refused.value.facts == {"rules": rules}
    outcomes = await strict.bulk([Insert(Crate(id="b", name="b", size=-1)), Insert(Crate(id="c", name="c"))])
    assert [None if one is None else one.facts for one in outcomes] == [{"rules": ["size"]}, None]
    assert [one.id async for one in strict.stream(sort=("id",))] == ["a", "c"]


# -- what does not fit


def raw(**fields: Any) -> bytes:
    return bson.encode({"version": 1, "size": 2, **fields}, codec_options=OPTIONS)


UNFIT = {
    "wrong type": raw(_id="x", name=5),
    "wrong type within": raw(_id="x", parts=[{"number": "many"}]),
    "missing field": raw(_id="x", parts=[{"note": "n"}]),
    "unknown member of an enum": raw(_id="x", kind="vegetable"),
    "negative version": raw(_id="x", version=-1),
    "time after the year 9999": raw(_id="x", made_at=DatetimeMS(2**62)),
    "time before the year 1": raw(_id="x", made_at=DatetimeMS(-(2**62))),
    "time in a field of any content": raw(_id="x", notes={"at": DatetimeMS(2**62)}),
    "bytes that are no UTF-8": raw(_id="x", name="AAAA").replace(b"AAAA", b"\xff\xfe\xfd\xfc"),
    "name of a field that is no UTF-8": raw(_id="x", AAAA=1).replace(b"AAAA", b"\xff\xfe\xfd\xfc"),
    "text where a time should be": raw(_id="x", made_at="noon"),
    "list": raw(_id="x", name=["x"]),
}


@pytest.mark.parametrize("strange", UNFIT)
async def test_what_does_not_fit_is_named_on_its_page_and_in_nobodys_way(
    world: InMongo, repository: Repository[Crate], strange: str
) -> None:
    await filled(repository, *crates(5))
    await world.put(UNFIT[strange])

    page = await repository.find(sort=("size",))
    assert [one.size for one in page] == list(range(5))
    assert [(misfit.id, misfit.collection) for misfit in page.misfits] == [("x", "crates")]
    assert page.misfits[0].why

    with pytest.raises(Misfit) as misfit:
        await repository.get("x")
    assert misfit.value.id == "x"
    told_of: list[Misfit] = []
    assert len([one async for one in repository.stream(misfit=told_of.append)]) == 5
    assert [one.id for one in told_of] == ["x"]
    with pytest.raises(Misfit):
        _ = [one async for one in repository.stream()]
    for sort in ("size", "-size", "id", "-made_at"):
        for limit in (1, 10):
            seen = await every_page(repository, (sort,), limit)
            assert sorted(seen) == sorted([*(one.id for one in crates(5)), "[x]"])


@pytest.mark.parametrize("equals", [3, 2_000])
@pytest.mark.parametrize("sort", ["size", "-size", "made_at", "-made_at", "-name", "id", "-id"])
async def test_a_page_costs_the_same_wherever_it_begins(
    repository: Repository[Crate], profile: Profile, sort: str, equals: int
) -> None:
    made = [
        Crate(id=f"{number:04}", size=number // equals, made_at=datetime.fromtimestamp(number // equals, UTC))
        for number in range(2_000)
    ]
    await filled(repository, *made)
    cursor = (await repository.find(sort=(sort,), limit=1_000)).next
    await profile.start()
    await repository.find(sort=(sort,), limit=20, after=cursor)

    [command] = await profile.commands()
    if sort != "-name":  # there is no index
        assert command["keysExamined"] < 50
        assert command["docsExamined"] < 100
    assert command.get("hasSortStage", False) is (sort == "-name")


@pytest.mark.parametrize("version", [None, "newest", {"number": 3}], ids=named)
async def test_a_version_that_is_no_number_is_older_than_any(
    world: InMongo, repository: Repository[Crate], version: object
) -> None:
    for id_ in ("a", "b"):
        await world.put({"_id": id_, "size": 1, "version": version})

    with pytest.raises(VersionConflict) as caught:
        await repository.replace(Crate(id="a", version=7))

    assert (caught.value.expected, caught.value.found) == (7, 0)
    assert await repository.put_newer(Crate(id="b", version=1))
    assert (await repository.get("b")).version == 1


async def test_an_id_that_cannot_be_read_is_no_reason_to_lose_the_page(
    world: InMongo, repository: Repository[Crate]
) -> None:
    await filled(repository, *crates(3))
    await world.put(raw(_id="AAAA").replace(b"AAAA", b"\xff\xfe\xfd\xfc"))

    page = await repository.find(sort=("size",))

    assert len(page) == 3
    assert len(page.misfits) == 1


# -- times


@pytest.mark.parametrize("at", [datetime(2026, 1, 1), "2026-01-01T00:00:00", "noon", "9999-12-31T23:59:59-01:00"])
def test_a_time_without_an_offset_or_beyond_the_calendar_is_no_moment(at: object) -> None:
    with pytest.raises(ValidationError):
        Crate.model_validate({"id": "a", "made_at": at})


def test_a_moment_is_in_utc_and_to_the_millisecond() -> None:
    last = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    assert Crate(id="a", made_at=last).made_at == last.replace(microsecond=999_000)
    crate = Crate.model_validate({"id": "a", "made_at": "2026-01-01T00:00:00.123456+01:00"})
    assert crate.made_at == datetime(2025, 12, 31, 23, 0, 0, 123_000, UTC)


class Inner(BaseModel):
    at: datetime


@dataclass
class Plain:
    at: list[datetime]


@pytest.mark.parametrize(
    "type_",
    [
        datetime,
        AwareDatetime,
        datetime | None,
        list[datetime],
        dict[str, AwareDatetime],
        tuple[int, datetime],
        Moment | datetime,
        Inner,
        list[Inner] | None,
        Plain,
        Annotated[datetime, Field(description="bare")],
    ],
    ids=named,
)
def test_a_model_with_times_that_would_come_back_as_others_is_no_collection(type_: Any) -> None:
    model = create_model("Odd", __base__=Document, id=(str, ...), at=(type_, ...))
    with pytest.raises(TypeError, match="Moment"):
        Collection(name="odd", model=model)
    Collection(name="even", model=create_model("Even", __base__=Document, id=(str, ...), at=(list[Moment] | None, ...)))
