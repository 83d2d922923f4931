"""Personal data in the audit on real servers: PostgreSQL keeps the keys, MongoDB what they seal."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from typing import Any
from uuid import uuid4

import bson
import psycopg
import pytest
from pymongo import MongoClient

from showcase import composition
from showcase.audit import wiring
from showcase.audit.application.asking import Question
from showcase.audit.application.ports import Message
from showcase.audit.application.protecting import CachedKeys, Protecting, Reveal, Revealing, SubjectKeys
from showcase.audit.application.recorder import Recorder
from showcase.audit.domain.records import Record
from showcase.audit.domain.seals import leaf
from showcase.audit.infrastructure.content import content_of
from showcase.audit.infrastructure.reading import MongoArchive
from showcase.audit.infrastructure.records import MongoSeals, MongoStore
from showcase.audit.infrastructure.subjects import SqlSubjectKeys, SubjectLock, alike
from showcase.documents.wiring import apply, mongo
from showcase.kernel.acting import Acting, acting
from showcase.kernel.errors import Unavailable
from showcase.platform.database import Database
from showcase.platform.resources import Resources
from tests.documents_others import closes_late
from tests.fakes import MemoryDeadLetters, settings_of, until
from tests.integration.test_audit import CHECKOUT, api, execute, place_order, recorded
from tests.unit.test_audit import envelope, message
from tests.unit.test_audit_personal import MemorySubjectKeys, change
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
SECRET = "Ada's birthday cake"


@pytest.fixture
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, stack.namespace() as names:
        yield names


@pytest.fixture
async def resources(names: Namespace) -> AsyncIterator[Resources]:
    async with Resources(settings_of(names.env)) as resources:
        await apply(resources, *wiring.COLLECTIONS)
        yield resources


@pytest.fixture
def db(names: Namespace) -> Iterator[psycopg.Connection]:
    """Somebody with psql."""
    with psycopg.connect(names.postgres_url, autocommit=True) as db:
        yield db


def recorder(resources: Resources, keys: SubjectKeys) -> Recorder:
    store = mongo(resources, "audit_mongo_url")
    protect = Protecting(composition.PERSONAL, keys, SubjectLock)
    return Recorder(MongoStore(store), MongoSeals(store), MemoryDeadLetters(), content_of, protect=protect, alike=alike)


def told(*numbers: int, household_id: int = 7) -> list[Message]:
    row = {"household_id": household_id, "reference": SECRET, "status": "placed"}
    return [
        message(envelope(lsn=number, before=row, after={**row, "status": "paid"}), {"order_id": "a"}, offset=number)
        for number in numbers
    ]


async def timeline(resources: Resources) -> list[Record]:
    """As whoever asks sees it."""
    archive = Revealing(MongoArchive(mongo(resources)), Reveal(wiring.subjects(resources), SubjectLock))
    return list(await archive.find(Question(entity_type="orders", entity_ids=("a",))))


def seal_and_records(names: Namespace) -> tuple[list[bytes], list[bytes]]:
    """The hashes in the only seal, and the bytes of its records as they are stored."""
    with MongoClient[bson.raw_bson.RawBSONDocument](
        names.mongo_url, document_class=bson.raw_bson.RawBSONDocument
    ) as client:
        database = client.get_default_database()
        (seal,) = database["audit_seals"].find()
        packed = bytes(seal["leaves"])
        stored = {one["_id"]: bytes(one["change"].raw) for one in database["audit_records"].find()}
        return [packed[at : at + 32] for at in range(0, len(packed), 32)], [stored[id_] for id_ in seal["ids"]]


# -- keys: one contract for those in memory and those in PostgreSQL


@pytest.fixture(params=["memory", "postgres"])
def keys(request: pytest.FixtureRequest) -> SubjectKeys:
    if request.param == "memory":
        return MemorySubjectKeys()
    resources: Resources = request.getfixturevalue("resources")
    return wiring.subjects(resources)


async def erase(keys: SubjectKeys, subject: str) -> None:
    if isinstance(keys, MemorySubjectKeys):
        keys.erase(subject)
    else:
        assert isinstance(keys, SqlSubjectKeys)
        await keys.erase([subject], "asked for it")


async def test_key_is_made_once_and_stays_until_it_is_erased_and_is_never_made_again(keys: SubjectKeys) -> None:
    assert await keys.found(["a", "b"]) == {}
    made = await keys.made(["a", "b"])
    assert {len(key or b"") for key in made.values()} == {32}
    assert made["a"] != made["b"]
    assert await keys.made(["b", "a"]) == made == await keys.found(["a", "b", "c"])

    await erase(keys, "a")
    await erase(keys, "c")
    assert await keys.made(["a", "b", "c"]) == {"a": None, "b": made["b"], "c": None}
    assert await keys.found(["a", "c", "d"]) == {"a": None, "c": None}


async def test_subject_that_is_erased_while_its_key_is_made_gets_none(resources: Resources) -> None:
    other = wiring.subjects(resources)

    class Late(SqlSubjectKeys):
        async def found(self, subjects: Collection[str]) -> Mapping[str, bytes | None]:
            found = await super().found(subjects)
            await other.erase(["a"], "asked for it")
            return found

    assert await Late(resources.database).made(["a"]) == {"a": None}


# -- erasure in PostgreSQL


async def test_erasure_leaves_no_key_is_written_down_once_and_says_who_and_why(
    resources: Resources, db: psycopg.Connection
) -> None:
    keys = wiring.subjects(resources)
    await keys.made(["households/7", "households/8"])
    with acting(Acting(actor="operators/ada")):
        first = await keys.erase(["households/7"], "asked for it")
        again = await keys.erase(["households/7"], "asked for it again")

    assert [(one.subject, one.is_new) for one in (*first, *again)] == [("households/7", True), ("households/7", False)]
    assert first[0].at == again[0].at
    assert db.execute("SELECT subject, key IS NULL FROM audit.subject_keys ORDER BY 1").fetchall() == [
        ("households/7", True),
        ("households/8", False),
    ]
    trail = db.execute("SELECT subject, actor, reason FROM audit.erasures").fetchall()
    assert trail == [("households/7", "operators/ada", "asked for it")]
    assert await keys.count() == (1, 1)
    assert [one.subject for one in await keys.all("households/7", 10)] == ["households/8"]


async def test_two_that_erase_at_once_write_it_down_once(resources: Resources, db: psycopg.Connection) -> None:
    keys = wiring.subjects(resources)
    await keys.made(["households/7"])
    both = await asyncio.gather(*(keys.erase(["households/7"], "asked for it") for _ in range(4)))

    assert sorted(one.is_new for (one,) in both) == [False, False, False, True]
    assert db.execute("SELECT count(*) FROM audit.erasures").fetchone() == (1,)


async def test_erasing_a_household_erases_its_account_as_well(resources: Resources, db: psycopg.Connection) -> None:
    account = uuid4()
    db.execute(
        "INSERT INTO auth.accounts VALUES (%s, 'ada@example.org', 'households/1000007', 'customer', 'x')", (account,)
    )
    done = await composition.erase(resources, "households/1000007", "asked for it")

    assert [one.subject for one in done] == [f"accounts/{account}", "households/1000007"]


def test_every_marked_column_is_there_and_none_is_of_the_primary_key(db: psycopg.Connection) -> None:
    """A key that is found by is kept as it is; and a column that was renamed would be recorded unsealed."""
    audited = {name.removeprefix("public.") for name in ("public.audit_context", *composition.AUDITED)}
    for one in composition.PERSONAL:
        assert one.table in audited
        columns = {
            name
            for (name,) in db.execute(
                "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
                (one.table,),
            )
        }
        key = {
            name
            for (name,) in db.execute(
                "SELECT attname FROM pg_index JOIN pg_attribute ON attrelid = indrelid AND attnum = ANY (indkey)"
                " WHERE indrelid = %s::regclass AND indisprimary",
                (one.table,),
            )
        }
        assert set(one.columns) <= columns - key
        one.subject_of(dict.fromkeys(columns, "1"))  # its ways name no column that is not there
        assert one.subject_of(dict.fromkeys(columns, "1")) != "unknown"


# -- two processes


def protect_in_a_process(url: str, together: Barrier, count: int, told: Any) -> None:
    """Seals changes of new subjects once the other process is ready too; tells what came out."""

    async def protect() -> list[bytes]:
        database = Database(url)
        try:
            await database.ping()
            some = [change(after={"household_id": number, "reference": SECRET}) for number in range(count)]
            together.wait(30)
            protected = await Protecting(composition.PERSONAL, SqlSubjectKeys(database), SubjectLock)(some)
            return [content_of(Record.of(one)) for one in protected]  # type: ignore[arg-type]  # none is broken
        finally:
            await database.close()

    told.put(asyncio.run(protect()))


def test_two_processes_that_meet_the_same_new_subjects_at_once_agree_on_their_keys(
    names: Namespace, db: psycopg.Connection
) -> None:
    context = get_context("spawn")
    together, answers = context.Barrier(2), context.Queue()
    both = [
        context.Process(target=protect_in_a_process, args=(names.postgres_url, together, 500, answers))
        for _ in range(2)
    ]
    for one in both:
        one.start()
    first, second = answers.get(timeout=60), answers.get(timeout=60)
    for one in both:
        one.join(30)

    assert first == second
    assert len(set(first)) == 500
    assert db.execute("SELECT count(*), count(DISTINCT key) FROM audit.subject_keys").fetchone() == (500, 500)


# -- what is stored


async def test_nothing_personal_is_in_the_bytes_that_mongodb_stores_and_readers_see_it(
    names: Namespace, resources: Resources
) -> None:
    assert await recorder(resources, wiring.subjects(resources)).record(told(0, 1)) == 2

    with MongoClient[bson.raw_bson.RawBSONDocument](
        names.mongo_url, document_class=bson.raw_bson.RawBSONDocument
    ) as client:
        database = client.get_default_database()
        stored = b"".join(one.raw for name in database.list_collection_names() for one in database[name].find())
    assert b"households/7" in stored
    assert SECRET.encode() not in stored
    assert SECRET.encode("utf-16-le") not in stored
    assert [record.after and record.after["reference"] for record in await timeline(resources)] == [SECRET, SECRET]


async def test_erased_timeline_stays_without_its_values_and_no_stored_byte_changes(
    names: Namespace, resources: Resources
) -> None:
    keys = wiring.subjects(resources)
    recording = recorder(resources, keys)
    await recording.record([*told(0), *told(1, household_id=8)])
    await recording.seal([("t", 0)])
    leaves, before = seal_and_records(names)
    await keys.erase(["households/7"], "asked for it")

    first, second = await timeline(resources)
    assert first.before is not None
    assert first.after is not None
    assert (first.before["reference"], first.after["reference"]) == ({"erased": True}, {"erased": True})
    assert (first.before["status"], first.after["status"], first.changed) == ("placed", "paid", ["status"])
    assert second.after is not None
    assert second.after["reference"] == SECRET
    assert seal_and_records(names) == (leaves, before)
    assert [leaf(content) for content in before] == leaves


async def test_change_told_again_after_an_erasure_is_sealed_as_it_is_stored(
    names: Namespace, resources: Resources
) -> None:
    """A consumer is killed before it seals; who takes over knows that the subject is erased."""
    keys = wiring.subjects(resources)
    assert await recorder(resources, keys).record(told(0, 1)) == 2
    await keys.erase(["households/7"], "asked for it")
    other = recorder(resources, keys)
    assert await other.record(told(0, 1, 2)) == 1
    await other.seal([("t", 0)])

    leaves, stored = seal_and_records(names)
    assert [leaf(content) for content in stored] == leaves
    assert [b"sealed" in content for content in stored] == [True, True, False]


async def test_consumer_that_remembers_a_key_uses_it_no_longer_than_it_may(resources: Resources) -> None:
    now = 0.0
    keys = wiring.subjects(resources)
    recording = recorder(resources, CachedKeys(keys, lasting_s=60, clock=lambda: now))
    await recording.record(told(0))
    await keys.erase(["households/7"], "asked for it")
    now = 59.0
    await recording.record(told(1))
    now = 60.0
    await recording.record(told(2))

    stored = await recorded(resources.settings, "orders")
    assert [sorted(one["after"]["reference"]) for one in stored] == [
        ["sealed", "subject"],
        ["sealed", "subject"],
        ["erased", "subject"],
    ]


@asynccontextmanager
async def paused(stack: Stack, server: str) -> AsyncIterator[None]:
    stack.server(server).pause()
    try:
        yield
    finally:
        stack.server(server).resume()


async def test_nothing_is_stored_while_the_keys_are_away_and_all_of_it_afterwards() -> None:
    with Stack.private(["postgres", "mongo"]) as stack, stack.namespace() as names:
        async with Resources(settings_of(names.env, database_timeout_s=1)) as resources:
            await apply(resources, *wiring.COLLECTIONS)
            recording = recorder(resources, wiring.subjects(resources))
            async with paused(stack, "postgres"):
                with pytest.raises(Unavailable):
                    await recording.record(told(0, 1))
                assert await recorded(resources.settings, "orders") == []

            assert await recording.record(told(0, 1)) == 2
            stored = await recorded(resources.settings, "orders")
            assert all(sorted(one["after"]["reference"]) == ["sealed", "subject"] for one in stored)


# -- from the row to the reader, with the commands that a person types


def showcase(names: Namespace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "showcase", *arguments],
        env={**os.environ, **names.env, "SHOWCASE_ENVIRONMENT": "workshop"},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def started(names: Namespace, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "showcase", *arguments],
        env={**os.environ, **names.env, "SHOWCASE_ENVIRONMENT": "workshop"},
        cwd=CHECKOUT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def test_household_that_is_erased_by_command_is_gone_from_its_timeline(names: Namespace) -> None:
    settings = settings_of(names.env)
    order = uuid4()
    names.capture(["orders", "audit.erasures"])
    place_order(names, order)
    execute(names, "UPDATE orders SET reference = 'for Ada', version = 2 WHERE order_id = %(id)s", id=order)
    worker = started(names, "audit", "record")
    try:
        async with api(settings) as client:

            async def references() -> list[Any]:
                answer = await client.get(f"/audit/entities/orders/{order}")
                return [one["after"]["reference"] for one in answer.json().get("items", [])]

            async def both() -> bool:
                return len(await references()) == 2

            await until(both, within_s=40)
            assert await references() == ["r", "for Ada"]
            done = await asyncio.to_thread(
                showcase, names, "audit", "erase", "households/1", "--reason", "asked for it"
            )
            again = await asyncio.to_thread(
                showcase, names, "audit", "erase", "households/1", "--reason", "asked for it"
            )
            listed = await asyncio.to_thread(showcase, names, "audit", "subjects")
            assert await references() == [{"erased": True}, {"erased": True}]

            async def trail() -> bool:
                return len(await recorded(settings, "audit.erasures")) == 2

            await until(trail, within_s=40)
    finally:
        worker.terminate()
        worker.wait(30)

    assert (done.returncode, again.returncode) == (0, 0), done.stderr + again.stderr
    assert "households/1: erased\n" in done.stdout
    assert "households/1: was erased already, at " in again.stdout
    assert ", 2 erased" in listed.stdout
    account, row = [one["after"] for one in await recorded(settings, "audit.erasures")]
    assert account["subject"].startswith("accounts/")
    assert (row["subject"], row["reason"]) == ("households/1", "asked for it")
    assert row["actor"].startswith("operators/")


@pytest.mark.parametrize("arguments", [["", "--reason", "x"], ["a\nb", "--reason", "x"], ["a", "--reason", " "], ["a"]])
def test_erasing_without_a_subject_or_a_reason_is_refused(names: Namespace, arguments: list[str]) -> None:
    refused = showcase(names, "audit", "erase", *arguments)

    assert refused.returncode == 2
    assert refused.stdout == ""
