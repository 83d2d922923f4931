"""Every type that a field can have comes back as it was stored, however it is read, and is found by its value."""

import asyncio
import math
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from typing import Annotated, Any, Literal
from uuid import UUID

import bson
import pytest
from bson.decimal128 import Decimal128
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from showcase.documents import Collection, Document, Insert, Moment, Repository, eq, gt, has, lte, one_of
from showcase.documents.domain.filters import Filter
from showcase.documents.infrastructure.codec import OPTIONS, encoded
from tests.documents_others import closes_late
from tests.documents_worlds import URL, InMemory, InMongo, World
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = closes_late

CHECKED = settings(
    max_examples=40,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],  # to shrink a document with all of these fields takes minutes
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


class Text(StrEnum):
    ONE = "one"
    OTHER = "Ö$.\x00"


class Number(IntEnum):
    ONE = 1
    LARGE = 2**62


class Any_(Enum):  # noqa: N801 - there is a type of this name
    TEXT = "text"
    NUMBER = 2


class Circle(BaseModel):
    model_config = ConfigDict(frozen=True)

    shape: Literal["circle"] = "circle"
    radius: float


class Square(BaseModel):
    model_config = ConfigDict(frozen=True)

    shape: Literal["square"] = "square"
    side: Decimal
    since: Moment | None = None


@dataclass(frozen=True)
class Point:
    x: int
    name: str | None = None


Shape = Annotated[Circle | Square, Field(discriminator="shape")]


class Everything(Document):
    """A field of every type."""

    id: UUID
    text: str
    whole: int
    real: float
    flag: bool
    nothing: None
    maybe: int | None
    money: Decimal
    at: Moment
    day: date
    clock: time
    lasts: timedelta
    key: UUID
    raw: bytes
    as_text: Text
    as_number: Number
    as_any: Any_
    items: list[int]
    pair: tuple[str, int]
    many: tuple[Decimal, ...]
    names: set[str]
    days: frozenset[date]
    point: Point
    points: list[Point]
    shape: Shape
    shapes: tuple[Shape, ...]
    either: int | str | None
    by_name: dict[str, int]
    deep: dict[str, list[Point | None]]


EVERYTHING = Collection(name="everything", model=Everything)

TEXTS = st.text()
WHOLE = st.integers(-(2**63), 2**63 - 1)
REAL = st.floats()
EDGES = [Decimal("9" * 34), Decimal("-1E+6111"), Decimal("1E-6176"), Decimal("0E-6176"), Decimal("-0"), Decimal("1.10")]
DECIMALS = st.one_of(
    st.sampled_from(EDGES),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(map(int, str(digits))), exponent)),
        st.integers(0, 1),
        st.integers(0, 10**34 - 1),
        st.integers(-6176, 6111),
    ),
)
OFFSETS = st.builds(lambda minutes: timezone(timedelta(minutes=minutes)), st.integers(-1439, 1439))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS)  # within the calendar in UTC, too
POINTS = st.builds(Point, x=WHOLE, name=st.none() | TEXTS)
SHAPES = st.one_of(st.builds(Circle, radius=REAL), st.builds(Square, side=DECIMALS, since=st.none() | MOMENTS))
KEYS = st.one_of(
    st.sampled_from(["", ".", "a.b", "$", "$set", "$ne", "$ref", "$id", "_id", "__proto__", "$where", "a.$[].b"]),
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=5),
)
DOCUMENTS = st.builds(
    Everything,
    id=st.uuids(),
    text=TEXTS,
    whole=WHOLE,
    real=REAL,
    flag=st.booleans(),
    nothing=st.none(),
    maybe=st.none() | WHOLE,
    money=DECIMALS,
    at=MOMENTS,
    day=st.dates(),
    clock=st.times(timezones=st.none() | OFFSETS),
    lasts=st.timedeltas(),
    key=st.uuids(),
    raw=st.binary(),
    as_text=st.sampled_from(Text),
    as_number=st.sampled_from(Number),
    as_any=st.sampled_from(Any_),
    items=st.lists(WHOLE, max_size=4),
    pair=st.tuples(TEXTS, WHOLE),
    many=st.lists(DECIMALS, max_size=3),
    names=st.sets(TEXTS, max_size=4),
    days=st.frozensets(st.dates(), max_size=4),
    point=POINTS,
    points=st.lists(POINTS, max_size=3),
    shape=SHAPES,
    shapes=st.lists(SHAPES, max_size=3),
    either=st.none() | WHOLE | TEXTS,
    by_name=st.dictionaries(KEYS, WHOLE, max_size=4),
    deep=st.dictionaries(KEYS, st.lists(st.none() | POINTS, max_size=2), max_size=3),
)
FOUND_BY = ["text", "whole", "real", "flag", "maybe", "money", "at", "day", "clock", "lasts", "key", "raw", "as_text"]
FOUND_BY += ["as_number", "as_any", "items", "pair", "many", "point", "points", "shape", "either", "by_name", "deep"]


def same(one: object, other: object) -> bool:
    """Whether two models are equal to the last digit; what is no number is equal to itself."""
    return bool(exact(one) == exact(other))


def exact(value: Any) -> Any:
    """Something that is equal only for what cannot be told apart."""
    if isinstance(value, BaseModel):
        return type(value), {name: exact(one) for name, one in value}
    if isinstance(value, Point):
        return value.x, value.name
    if isinstance(value, dict):
        return {name: exact(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value), [exact(one) for one in value]
    if isinstance(value, float):
        return "nan" if math.isnan(value) else (value, math.copysign(1, value))
    if isinstance(value, Decimal):
        return value.as_tuple()
    if isinstance(value, datetime | time):
        return value, value.utcoffset()
    return type(value), value


class Running:
    """Worlds on one event loop, for tests whose examples are made by hypothesis."""

    def __init__(self, runner: asyncio.Runner, worlds: list[World]) -> None:
        self.runner = runner
        self.repositories = [world.repository(EVERYTHING) for world in worlds]


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with (
        Stack.attach() as stack,
        Namespace.create({URL: stack.urls[URL]}) as names,
        asyncio.Runner() as runner,
    ):
        closing = AsyncExitStack()
        in_mongo = runner.run(closing.enter_async_context(InMongo.emptied(names, EVERYTHING)))
        yield Running(runner, [InMemory(), in_mongo])
        runner.run(closing.aclose())


@CHECKED
@given(document=DOCUMENTS, other=DOCUMENTS)
def test_what_is_stored_comes_back_equal_by_every_way_of_reading_and_writing(
    running: Running, document: Everything, other: Everything
) -> None:
    for repository in running.repositories:
        running.runner.run(comes_back(repository, document, other.model_copy(update={"id": document.id})))


async def comes_back(repository: Repository[Everything], document: Everything, other: Everything) -> None:
    stored = await repository.insert(document)
    try:
        expected = document.model_copy(update={"version": 1})
        assert same(stored, expected)
        assert same(await repository.get(document.id), expected)
        [found] = await repository.find({"id": document.id})
        assert same(found, expected)
        assert [same(one, expected) async for one in repository.stream({"id": document.id})] == [True]

        changes = {name: getattr(other, name) for name in Everything.model_fields if name not in ("id", "version")}
        patched = await repository.patch(document.id, changes)
        assert same(patched, other.model_copy(update={"version": 2}))
        replaced = await repository.replace(document.model_copy(update={"version": 2}))
        assert same(await repository.get(document.id), replaced)
        await repository.upsert(other)
        assert same(await repository.get(document.id), other.model_copy(update={"version": 4}))
        assert await repository.put_newer(document.model_copy(update={"version": 9}))
        assert same(await repository.get(document.id), document.model_copy(update={"version": 9}))
    finally:
        await repository.delete(document.id)


@settings(CHECKED, max_examples=20)
@given(document=DOCUMENTS)
def test_what_is_stored_is_found_by_each_of_its_values(running: Running, document: Everything) -> None:
    for repository in running.repositories:
        running.runner.run(is_found(repository, document))


async def is_found(repository: Repository[Everything], document: Everything) -> None:
    wanted: list[Filter] = [eq(name, getattr(document, name)) for name in FOUND_BY]
    wanted += [one_of(name, [getattr(document, name)]) for name in FOUND_BY]
    wanted += [lte(name, getattr(document, name)) for name in ("text", "whole", "real", "money", "at", "raw", "key")]
    wanted += [{name: getattr(document, name) for name in FOUND_BY}]
    wanted += [has("items", one) for one in document.items] + [has("names", one) for one in document.names]
    wanted += [has("days", one) for one in document.days] + [has("points", one) for one in document.points]
    wanted += [eq("point.x", document.point.x), eq("point.name", document.point.name), eq("shape.shape", "circle")]
    wanted[-1] = eq("shape.shape", document.shape.shape)
    await repository.bulk([Insert(document)])
    try:
        for where in wanted:
            assert await repository.exists(where), where
        for name in ("text", "whole", "money", "at", "raw"):
            assert not await repository.exists(gt(name, getattr(document, name)))
    finally:
        await repository.delete(document.id)


@given(st.binary(min_size=16, max_size=16))
@example(bytes(16))
@example(b"\xff" * 16)
@example(bytes(14) + b"\x40\x30")
@example(b"\xff" * 14 + b"\xfe\x5f")
def test_a_decimal_is_read_as_the_driver_reads_it(pattern: bytes) -> None:
    there = Decimal128.from_bid(pattern)
    read = bson.decode(bson.encode({"": there}), OPTIONS)[""]

    expected = there.to_decimal()
    assert isinstance(read, Decimal)
    assert read.as_tuple() == expected.as_tuple()


@given(DECIMALS)
def test_a_decimal_of_34_digits_is_written_and_read_with_all_of_them(number: Decimal) -> None:
    assert bson.decode(encoded({"": number}, "it").raw, OPTIONS)[""].as_tuple() == number.as_tuple()


@given(MOMENTS)
def test_a_moment_is_the_same_time_in_utc(at: datetime) -> None:
    class Has(BaseModel):
        at: Moment

    moment = Has(at=at).at
    assert moment.tzinfo is UTC
    assert timedelta(0) <= at - moment < timedelta(milliseconds=1)
