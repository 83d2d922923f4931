"""One contract for every archive of the audit: that in memory and that in MongoDB; and how MongoDB finds records."""

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import pytest
from pymongo import MongoClient
from pymongo.database import Database

from showcase.audit.application.asking import Archive, Place, Question
from showcase.audit.application.ports import Entry, Message
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import leaf
from showcase.audit.infrastructure.content import content_of
from showcase.audit.infrastructure.reading import MongoArchive
from showcase.audit.infrastructure.records import RECORDS, MongoStore
from showcase.documents.wiring import apply, mongo
from showcase.kernel.changes import Operation
from showcase.platform.resources import Resources
from tests.documents_others import closes_late
from tests.fakes import MemoryAuditStore, settings_of
from tests.unit.test_audit_asking import ADA, PSQL, Asking, at, change, context
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]


@pytest.fixture(scope="module")
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, stack.namespace() as names:
        yield names


@pytest.fixture
def database(names: Namespace) -> Iterator[Database[dict[str, Any]]]:
    """A person with mongosh, who leaves nothing behind."""
    with MongoClient[dict[str, Any]](names.mongo_url, tz_aware=True) as client:
        database = client.get_default_database()
        yield database
        database.command("profile", 0)
        for name in ("system.profile", "audit_records"):
            database.drop_collection(name)


@pytest.fixture
async def resources(names: Namespace, database: object) -> AsyncIterator[Resources]:
    async with Resources(settings_of(names.env)) as resources:
        await apply(resources, RECORDS)
        yield resources


def entries(*records: Record) -> list[Entry]:
    return [
        Entry(Message(topic="t", partition=0, offset=offset, key=None, value=None), one.id, content, leaf(content))
        for offset, one in enumerate(records)
        for content in [content_of(one)]
    ]


SOME = (
    context(1, ADA, second=5, transaction=7),
    change(2, Operation.CREATE, key={"order_id": "a"}, after={"n": 1}, second=5, transaction=7),
    change(
        3, table="lines", key={"order_id": "a", "line": 1}, after={"deep": {"$gt": [1, None]}}, second=5, transaction=7
    ),
    context(4, {**PSQL, "actor": None}, second=4, transaction=8),
    change(5, before={"n": 1}, after={"n": 2}, second=4, transaction=8),
    change(6, Operation.TRUNCATE, second=6, transaction=9),
    replace(context(7, ADA, second=9, transaction=10), operation=Operation.DELETE, after=None),
)


@pytest.fixture(params=["memory", "mongo"])
async def archive(request: pytest.FixtureRequest, names: Namespace) -> AsyncIterator[Archive]:
    if request.param == "memory":
        memory = MemoryAuditStore()
        await memory.add(entries(*SOME))
        yield memory
        return
    with MongoClient[dict[str, Any]](names.mongo_url) as client:
        async with Resources(settings_of(names.env)) as resources:
            await apply(resources, RECORDS)
            await MongoStore(mongo(resources, "audit_mongo_url")).add(entries(*SOME))
            yield MongoArchive(mongo(resources))
        client.get_default_database().drop_collection("audit_records")


@pytest.mark.parametrize(
    ("question", "places"),
    [
        (Question(), [2, 3, 5, 6]),
        (Question(by_time=True), [5, 2, 3, 6]),
        (Question(by_time=True, newest_first=True), [6, 3, 2, 5]),
        (Question(entity_type="orders"), [2, 5, 6]),
        (Question(entity_type="orders", newest_first=True), [6, 5, 2]),
        (Question(entity_type="orders", entity_ids=("a",)), [2, 5]),
        (Question(entity_type="orders", entity_ids=("a", "")), [2, 5, 6]),
        (Question(entity_type="lines", entity_ids=("a/1",)), [3]),
        (Question(entity_type="orders", operation=Operation.UPDATE), [5]),
        (Question(entity_type="orders", not_before=SOME[4].id), [5, 6]),
        (Question(transactions=("7",)), [2, 3]),
        (Question(transactions=("7", "8")), [2, 3, 5]),
        (Question(entity_type="audit_context"), [1, 4, 7]),
        (Question(entity_type="audit_context", transactions=("7", "8")), [1, 4]),
        (Question(entity_type="audit_context", actor="staff/ada"), [1]),
        (Question(entity_type="audit_context", actor="unknown", operation=Operation.CREATE), [4]),
        (Question(entity_type="audit_context", request_id="request-1"), [1]),
        (Question(since=at(5)), [2, 3, 6]),
        (Question(until=at(5)), [5]),
        (Question(since=at(5), until=at(6)), [2, 3]),
        (Question(by=at(5)), [2, 3, 5]),
        (Question(entity_type="$ne"), []),
    ],
    ids=str,
)
async def test_question_is_answered_with_the_records_for_which_all_of_it_holds(
    archive: Archive, question: Question, places: list[int]
) -> None:
    found = await archive.find(question)

    assert [int(one.position, 16) for one in found] == places
    assert all(one in SOME for one in found)  # with all that they had


@pytest.mark.parametrize("newest_first", [False, True])
@pytest.mark.parametrize("by_time", [False, True])
async def test_pages_of_any_order_have_every_record_once(archive: Archive, by_time: bool, newest_first: bool) -> None:
    question = Question(by_time=by_time, newest_first=newest_first)
    found: list[Record] = []
    place: Place | None = None
    for _ in range(5):
        some = await archive.find(question, place, 1)
        found += some
        place = Place.of(some[-1]) if some else place

    assert found == list(await archive.find(question))
    assert len(found) == 4


# -- how MongoDB finds them

TOLD = ("op", "planSummary", "hasSortStage", "keysExamined", "docsExamined", "nreturned")
MANY = 3_000
LARGE = 20_000
"""Records of one transaction: more than any page."""


def stock() -> Iterator[Record]:
    """Many transactions of a record each, by few actors; and one large transaction, whose context comes first."""
    for n in range(MANY):
        said = {**ADA, "actor": f"staff/{n % 3}" if n % 7 else None, "request_id": f"request-{n // 2}"}
        yield context(2 * n, said, second=n, transaction=n)
        yield change(2 * n + 1, key={"order_id": n % 50}, after={"n": n}, second=n, transaction=n)
    place = 3 * MANY
    yield context(place, {**ADA, "actor": "staff/bulk"}, second=MANY, transaction=MANY)
    for n in range(LARGE):
        key = {"order_id": n}
        yield change(place + n + 1, table="lines", key=key, after={"n": n}, second=MANY, transaction=MANY)
    yield change(place + LARGE, table="rare", second=MANY, transaction=MANY)
    yield change(place + LARGE + 1, Operation.TRUNCATE, second=MANY + 1, transaction=MANY + 1)


async def test_every_route_reads_an_index_in_its_order_and_little_more_than_it_shows(
    resources: Resources, database: Database[dict[str, Any]]
) -> None:
    stored = MongoStore(mongo(resources, "audit_mongo_url"))
    records = list(stock())
    for begin in range(0, len(records), 2_000):
        await stored.add(entries(*records[begin : begin + 2_000]))
    asked = Asking(MongoArchive(mongo(resources)))
    middle, later = at(MANY // 2).isoformat(), at(MANY // 2 + 100).isoformat()
    routes: dict[str, dict[str, Any]] = {
        "entities/orders/7": {},
        "entities/orders/7/at": {"time": later},
        "entities/orders/7/diff": {"from_": middle, "to": later},
        "actors/staff/1": {},
        "actors/unknown": {},
        "requests/request-700": {},
        f"transactions/{MANY}": {"limit": 200},
        "records": {"from_": middle, "limit": 200},
        "export": {"from_": middle, "to": later},
    }
    rare = {"records": {"type": "rare"}, "export": {"type": "audit_context"}}
    for path, query in [*routes.items(), *rare.items()]:
        database.command("profile", 0)
        database.drop_collection("system.profile")
        database.command("profile", 2)
        answer = await asked.get(path, **query)
        database.command("profile", 0)
        seen = list(database["system.profile"].find({"ns": f"{database.name}.audit_records"}))
        told = [{name: one.get(name) for name in TOLD} for one in seen]
        described = json.dumps([path, query, told])
        assert answer.status_code == 200, described
        assert len(answer.text) > 200, described
        assert seen, described
        for one in seen:
            assert one["planSummary"].startswith(("IXSCAN", "DISTINCT_SCAN")), described
            assert "COLLSCAN" not in one["planSummary"], described
            assert not one.get("hasSortStage"), described
            assert one["docsExamined"] <= 2 * one.get("nreturned", 0) + 20, described
