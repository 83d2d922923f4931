"""Schema that is applied by several processes at once, by processes that are killed, and over what is there already.

The server is of its own: it is made to stand still in the middle of an index.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from typing import Any

import pytest
from pymongo.database import Database

from showcase.documents import AlreadyThere, Collection, Index
from showcase.documents.domain.documents import Applied
from showcase.documents.infrastructure.mongo import Mongo
from showcase.documents.infrastructure.schema import apply
from tests.documents_others import PEOPLE, PEOPLE_LATER, Person, closes_late, connected, failing, mongosh, other, others
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
PROCESSES = 4
HELD_MS = 900
"""A command that is held is done later, whatever has become of who has asked for it."""
ALL = (
    "people",
    "people.team_1_seen_at_-1",
    "people.email_1",
    "people.seen_at_1",
)


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["mongo"]) as stack:
        yield stack


@pytest.fixture
def names(private: Stack) -> Iterator[Namespace]:
    with private.namespace() as names:
        yield names


@pytest.fixture
def database(names: Namespace) -> Iterator[Database[dict[str, Any]]]:
    with mongosh(names.mongo_url) as database:
        yield database


@pytest.fixture
async def mongo(names: Namespace) -> AsyncIterator[Mongo]:
    async with connected(names.mongo_url) as mongo:
        yield mongo


def declared_in(database: Database[dict[str, Any]], name: str = "people") -> tuple[object, dict[str, dict[str, Any]]]:
    """What MongoDB says that a collection has: its validator, and its indexes by name."""
    (collection,) = database.list_collections(filter={"name": name})
    indexes = {one["name"]: dict(one) for one in database[name].list_indexes()}
    for one in indexes.values():
        one["key"] = [*one["key"].items()]
        del one["v"], one["name"]
    return collection["options"].get("validator"), indexes


FIRST = (
    {"$jsonSchema": {"required": ["email"]}},
    {
        "_id_": {"key": [("_id", 1)]},
        "team_1_seen_at_-1": {"key": [("team", 1), ("seen_at", -1)]},
        "email_1": {"key": [("email", 1)]},
        "seen_at_1": {"key": [("seen_at", 1)], "expireAfterSeconds": 30 * 86_400},
    },
)
LATER = (
    {"$jsonSchema": {"required": ["email", "version"], "properties": {"email": {"bsonType": "string"}}}},
    {
        "_id_": {"key": [("_id", 1)]},
        "team_1_seen_at_-1": {
            "key": [("team", 1), ("seen_at", -1)],
            "partialFilterExpression": {"team": {"$gt": ""}},
        },
        "email_1": {"key": [("email", 1)], "unique": True},
        "seen_at_1": {"key": [("seen_at", 1)], "expireAfterSeconds": 7 * 86_400},
    },
)


async def test_what_is_declared_is_made_once(mongo: Mongo, database: Database[dict[str, Any]]) -> None:
    assert await apply(mongo, PEOPLE) == Applied(created=ALL)
    assert await apply(mongo, PEOPLE) == Applied()

    assert declared_in(database) == FIRST


async def test_what_is_declared_otherwise_is_changed_once(mongo: Mongo, database: Database[dict[str, Any]]) -> None:
    await apply(mongo, PEOPLE)

    assert await apply(mongo, PEOPLE_LATER) == Applied(changed=ALL)
    assert await apply(mongo, PEOPLE_LATER) == Applied()
    assert declared_in(database) == LATER

    assert await apply(mongo, PEOPLE) == Applied(changed=ALL)
    assert declared_in(database) == FIRST


async def test_a_validator_that_is_no_longer_declared_is_taken_away(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    await apply(mongo, PEOPLE)

    applied = await apply(mongo, Collection(name="people", model=Person, indexes=PEOPLE.indexes))

    assert applied == Applied(changed=("people",))
    database["people"].insert_one({"_id": 1})


async def test_an_index_whose_expiry_changes_is_not_built_again(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    index = Index(keys=("seen_at",), expires_after=timedelta(days=1))
    await apply(mongo, Collection(name="people", model=Person, indexes=(index,)))
    before = file_of(database, index.name)

    later = Index(keys=("seen_at",), expires_after=timedelta(days=2))
    applied = await apply(mongo, Collection(name="people", model=Person, indexes=(later,)))

    assert applied == Applied(changed=("people.seen_at_1",))
    assert declared_in(database)[1]["seen_at_1"]["expireAfterSeconds"] == 2 * 86_400
    assert file_of(database, index.name) == before


def file_of(database: Database[dict[str, Any]], index: str) -> str:
    """What WiredTiger keeps an index in: something else when it is built again."""
    return str(database.command("collStats", "people", indexDetails=True)["indexDetails"][index]["uri"])


async def test_a_unique_index_over_what_is_not_unique_is_refused_and_says_which(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    database["people"].insert_many([{"_id": one, "email": "a@b.test", "version": 1} for one in range(2)])

    with pytest.raises(AlreadyThere, match="email") as caught:
        await apply(mongo, PEOPLE_LATER)

    assert caught.value.fields == ("email",)
    database["people"].delete_one({"_id": 1})
    assert "people.email_1" in (await apply(mongo, PEOPLE_LATER)).created
    assert declared_in(database) == LATER


async def test_an_index_that_cannot_become_unique_stays_as_it_was(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    await apply(mongo, Collection(name="people", model=Person, indexes=(Index(keys=("email",)),)))
    database["people"].insert_many([{"_id": one, "email": "a@b.test", "version": 1} for one in range(2)])
    before = declared_in(database)

    with pytest.raises(AlreadyThere, match="email"):
        await apply(mongo, Collection(name="people", model=Person, indexes=(Index(keys=("email",), unique=True),)))

    assert declared_in(database) == before


async def test_an_index_may_take_longer_to_build_than_any_other_call(
    names: Namespace, database: Database[dict[str, Any]]
) -> None:
    database["people"].insert_many([{"_id": one, "email": str(one), "version": 1} for one in range(10)])
    async with connected(names.mongo_url, timeout_s=0.5) as mongo:
        with failing(names.mongo_url, ["createIndexes"], blockConnection=True, blockTimeMS=HELD_MS):
            applied = await apply(mongo, Collection(name="people", model=Person, indexes=(Index(keys=("email",)),)))

    assert applied == Applied(created=("people.email_1",))


async def test_an_index_that_nobody_declares_is_told_and_left_alone(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    database["people"].create_index("words", name="somebody's")

    applied = [await apply(mongo, PEOPLE) for _ in range(2)]

    assert [one.left_over for one in applied] == [("people.somebody's",)] * 2
    assert declared_in(database)[1]["somebody's"] == {"key": [("words", 1)]}


async def test_an_index_that_is_there_under_another_name_is_taken_for_what_it_is(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    database["people"].create_index({"team": 1, "seen_at": -1}, name="teams")
    database["people"].create_index("seen_at", name="old", expireAfterSeconds=60)

    applied = await apply(mongo, PEOPLE)

    assert applied == Applied(created=("people.email_1",), changed=("people", "people.seen_at_1"))
    assert await apply(mongo, PEOPLE) == Applied()
    validator, indexes = declared_in(database)
    assert validator == FIRST[0]
    assert indexes["old"] == FIRST[1]["seen_at_1"]
    assert indexes.keys() == {"_id_", "teams", "old", "email_1"}


async def test_the_order_of_an_indexs_keys_is_part_of_it(mongo: Mongo, database: Database[dict[str, Any]]) -> None:
    database["people"].create_index({"seen_at": -1, "team": 1}, name="team_1_seen_at_-1")

    assert "people.team_1_seen_at_-1" in (await apply(mongo, PEOPLE)).changed
    assert declared_in(database) == FIRST


async def test_a_schema_can_be_applied_to_another_database_of_the_same_client(
    mongo: Mongo, database: Database[dict[str, Any]]
) -> None:
    second = f"{database.name}_second"
    try:
        await apply(mongo, PEOPLE, database=second)

        assert declared_in(database.client[second]) == FIRST
        assert database.list_collection_names() == []
    finally:
        database.client.drop_database(second)


# -- several processes


@pytest.mark.parametrize("before", ["nothing", "an older one"])
def test_processes_that_apply_the_same_schema_at_once_all_succeed(
    names: Namespace, database: Database[dict[str, Any]], before: str
) -> None:
    database["people"].insert_many([{"_id": one, "email": f"{one}@b.test", "version": 1} for one in range(2_000)])
    if before == "nothing":
        database.drop_collection("people")
    else:
        with others(("apply", names.mongo_url, "people")) as (first,):
            first.said()
        assert declared_in(database) == FIRST

    with others(*[("apply", names.mongo_url, "people later")] * PROCESSES) as processes:
        applied = [one.said() for one in processes]

    assert declared_in(database) == LATER
    assert set(itertools.chain(*(one["created"] + one["changed"] for one in applied))) == set(ALL)
    with others(("apply", names.mongo_url, "people later")) as (last,):
        assert last.said() == {"created": [], "changed": [], "left_over": []}


@pytest.mark.parametrize(
    ("before", "steps"), [*(("nothing", one) for one in range(4)), *(("an older one", one) for one in range(6))]
)
async def test_a_process_that_is_killed_in_the_middle_leaves_what_the_next_one_completes(
    names: Namespace, mongo: Mongo, database: Database[dict[str, Any]], before: str, steps: int
) -> None:
    if before != "nothing":
        await apply(mongo, PEOPLE)
    commands = ["create", "collMod", "dropIndexes", "createIndexes"]
    with (
        other("apply", names.mongo_url, "people later") as process,
        failing(names.mongo_url, commands, skip=steps, blockConnection=True, blockTimeMS=HELD_MS) as server,
    ):
        process.go_on()
        await server.has_met()
        process.kill()
        assert declared_in_or_nothing(database) != LATER

    await apply(mongo, PEOPLE_LATER)
    assert declared_in(database) == LATER
    assert await apply(mongo, PEOPLE_LATER) == Applied()


def declared_in_or_nothing(database: Database[dict[str, Any]]) -> object:
    return declared_in(database) if "people" in database.list_collection_names() else None
