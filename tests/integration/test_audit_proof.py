"""Proof on real servers: MongoDB that anybody may touch, anchors in PostgreSQL and a file, the commands of a person."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import bson
import psycopg
import pytest
from psycopg import errors
from pymongo import MongoClient
from pymongo.database import Database
from pymongo.errors import OperationFailure

from showcase.audit import wiring
from showcase.audit.application.anchoring import Anchoring
from showcase.audit.application.recorder import Recorder
from showcase.audit.domain.anchors import Anchor, Head, Signed, digest
from showcase.audit.domain.findings import Kind
from showcase.audit.domain.seals import FIRST
from showcase.audit.infrastructure.anchors import AnchorFile, Key, Keys, SqlAnchors
from showcase.audit.infrastructure.content import OPTIONS, content_of
from showcase.audit.infrastructure.proof import CHAINS, PLACES, MongoBooks, NotIndexed
from showcase.audit.infrastructure.records import RECORDS, SEALS, MongoSeals, MongoStore
from showcase.documents.wiring import apply, mongo
from showcase.kernel.errors import Unavailable
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from tests.documents_others import closes_late
from tests.fakes import MemoryDeadLetters, settings_of, until
from tests.fakes_proof import ATTACKS, LAST_SEAL_ANCHORED, Attack, Audit, audit_of, cut_the_tail, message
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = [pytest.mark.anyio, closes_late]
CHECKOUT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def shared() -> Iterator[Namespace]:
    """For tests that put all that is in it there themselves."""
    with Stack.attach() as stack, stack.namespace() as names:
        yield names


@pytest.fixture
def names() -> Iterator[Namespace]:
    with Stack.attach() as stack, stack.namespace() as names:
        yield names


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "anchors"


def known(names: Namespace, file: Path) -> dict[str, str]:
    """The variables of a process."""
    return {**names.env, "SHOWCASE_AUDIT_ANCHOR_FILE": str(file), "SHOWCASE_ENVIRONMENT": "workshop"}


@pytest.fixture
async def resources(names: Namespace, file: Path) -> AsyncIterator[Resources]:
    async with Resources(settings_of(known(names, file))) as resources:
        await apply(resources, RECORDS, SEALS)
        yield resources


class Looking:
    """A person with mongosh, who may do anything."""

    def __init__(self, database: Database[dict[str, Any]]) -> None:
        self.database = database

    def take(self) -> Audit:
        """All there is."""
        some = {
            name: list(self.database.get_collection(name, codec_options=OPTIONS).find())
            for name in (RECORDS.name, SEALS.name)
        }
        return Audit(records=some[RECORDS.name], seals=some[SEALS.name])

    def put(self, audit: Audit) -> None:
        """In place of all there is."""
        for name, some in ((RECORDS.name, audit.records), (SEALS.name, audit.seals)):
            self.database[name].delete_many({})
            if some:
                self.database[name].insert_many(some)


@pytest.fixture
def looking(names: Namespace) -> Iterator[Looking]:
    with MongoClient[dict[str, Any]](names.mongo_url, tz_aware=True) as client:
        yield Looking(client.get_default_database())


async def record(resources: Resources, partition: int = 0, count: int = 5, first: int = 0) -> None:
    """Record some rows, as the user that may only insert and find, and seal them together."""
    writer = mongo(resources, "audit_mongo_url")
    recorder = Recorder(MongoStore(writer), MongoSeals(writer), MemoryDeadLetters(), content_of)
    await recorder.record([message("a", partition, at, 1_000 * partition + at) for at in range(first, first + count)])
    await recorder.seal([("a", partition)])


async def anchor(resources: Resources) -> None:
    """The worker, told to stop at once."""
    stop = asyncio.Event()
    working = asyncio.ensure_future(wiring.anchor(resources)(stop))

    async def made() -> bool:
        return working.done() or await SqlAnchors(resources.database_of("anchor")).last() is not None

    await until(made)
    stop.set()
    await asyncio.wait_for(working, 20)


async def test_what_the_recorder_has_written_is_clean_and_anchored_in_table_and_file(
    resources: Resources, file: Path
) -> None:
    for first in (0, 5):
        for partition in (0, 1):
            await record(resources, partition, first=first)
    await anchor(resources)

    report = await wiring.verify(resources)

    assert (report.findings, report.notes) == ([], [])
    assert (report.records, report.anchors, len(report.by_partition)) == (20, 1, 2)
    (line,) = AnchorFile(file).lines()
    assert isinstance(line, Signed)
    assert [(head.partition, head.next) for head in Anchor.of(line.statement).heads] == [(0, 10), (1, 10)]


async def test_what_is_sealed_while_the_anchoring_process_ends_is_anchored(resources: Resources) -> None:
    await record(resources)
    stop = asyncio.Event()
    working = asyncio.ensure_future(wiring.anchor(resources)(stop))
    anchors = SqlAnchors(resources.database_of("anchor"))

    async def made() -> bool:
        return await anchors.last() is not None

    await until(made)
    await record(resources, first=5)
    stop.set()
    await asyncio.wait_for(working, 20)

    last = await anchors.last()
    assert last is not None
    assert Anchor.of(last.statement).heads[0].next == 10


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_attack_is_found_and_named_first(shared: Namespace, file: Path, attack: Attack) -> None:
    audit = await audit_of(LAST_SEAL_ANCHORED)
    await AnchorFile(file).append(audit.anchors)
    kind, partition, offset = attack(audit)
    async with Resources(settings_of(known(shared, file))) as resources:
        await apply(resources, RECORDS, SEALS)
        with MongoClient[dict[str, Any]](shared.mongo_url, tz_aware=True) as client:
            Looking(client.get_default_database()).put(audit)
        with psycopg.connect(shared.postgres_url) as db:
            replace_anchors(db, audit.anchors)

        first = (await verified(resources)).findings[0]

    assert (first.kind, (first.topic, first.partition), first.offset) == (kind, partition, offset)


async def verified(resources: Resources) -> Any:
    """By the key with which the tests sign."""
    return await wiring.verify(resources, [Key(b"k" * 32).public])


def replace_anchors(db: psycopg.Connection[Any], anchors: list[Signed]) -> None:
    """As the owner of the table, who can switch off what keeps them."""
    db.execute("ALTER TABLE audit.anchors DISABLE TRIGGER keep")
    db.execute("DELETE FROM audit.anchors")
    for one in anchors:
        db.execute(
            "INSERT INTO audit.anchors (statement, signature, key_id) VALUES (%s, %s, %s)",
            [one.statement, one.signature, one.key_id],
        )
    db.execute("ALTER TABLE audit.anchors ENABLE ALWAYS TRIGGER keep")


async def test_store_and_table_cut_together_are_found_by_the_file(
    resources: Resources, looking: Looking, names: Namespace
) -> None:
    for first in (0, 5, 10):
        await record(resources, first=first)
        await Anchoring(*anchoring_parts(resources)).anchor()
    audit = looking.take()
    cut_the_tail(audit)
    looking.put(audit)
    with psycopg.connect(names.postgres_url) as db:
        anchors = [one async for one in SqlAnchors(resources.database_of("anchor")).after()]
        replace_anchors(db, anchors[:2])

    findings = (await wiring.verify(resources)).findings

    assert [one.kind for one in findings] == [Kind.MISSING_TAIL, Kind.BROKEN_ANCHOR]


def anchoring_parts(resources: Resources) -> tuple[Any, ...]:
    """What the worker is wired of."""
    key = Key(resources.settings.anchor_seed())
    books = MongoBooks(mongo(resources, "audit_mongo_url"))
    file = AnchorFile(Path(resources.settings.audit_anchor_file))
    return books, SqlAnchors(resources.database_of("anchor")), file, key.sign, Keys(key.public).check


async def test_anchors_of_many_processes_are_one_chain(names: Namespace, file: Path) -> None:
    async with Resources(settings_of(known(names, file))) as first:
        await apply(first, RECORDS, SEALS)

        async def process(partition: int) -> None:
            async with Resources(settings_of(known(names, file))) as own:
                for at in range(5):
                    await record(own, partition, 1, at)
                    await Anchoring(*anchoring_parts(own)).anchor()

        await asyncio.gather(*(process(partition) for partition in range(4)))

        previous = FIRST
        anchors = [one async for one in SqlAnchors(first.database_of("anchor")).after()]
        for number, signed in enumerate(anchors, start=1):
            anchor = Anchor.of(signed.statement)
            assert (anchor.number, anchor.previous) == (number, previous)
            previous = digest(signed.statement)
        assert {head.next for head in Anchor.of(anchors[-1].statement).heads} == {5}
        assert list(AnchorFile(file).lines()) == anchors
        assert (await wiring.verify(first)).is_clean


async def test_newest_seal_of_each_partition_is_read_one_by_one(resources: Resources) -> None:
    audit = await audit_of(LAST_SEAL_ANCHORED)
    for seal in audit.seals:
        await mongo(resources).collection(SEALS.name).insert_one(bson.raw_bson.RawBSONDocument(bson.encode(seal)))

    newest = await MongoBooks(mongo(resources)).newest()

    assert [(one.topic, one.partition, one.next) for one in newest] == [("a", 0, 15), ("a", 1, 10), ("b", 0, 4)]
    assert tuple(newest) == Anchor.of(audit.anchors[-1].statement).heads


def test_writer_may_neither_change_nor_remove_records_and_seals(names: Namespace) -> None:
    url = names.env["SHOWCASE_AUDIT_MONGO_URL"]
    with MongoClient[dict[str, Any]](url) as client:
        for name in (RECORDS.name, SEALS.name):
            collection = client.get_default_database()[name]
            collection.insert_one({"_id": "a"})
            for attempt in (
                lambda: collection.update_one({"_id": "a"}, {"$set": {"b": 1}}),  # noqa: B023 - called at once
                lambda: collection.replace_one({"_id": "a"}, {}),  # noqa: B023 - called at once
                lambda: collection.delete_one({"_id": "a"}),  # noqa: B023 - called at once
                collection.drop,
                lambda: collection.create_index("b", expireAfterSeconds=0),  # noqa: B023 - called at once
            ):
                with pytest.raises(OperationFailure, match="not authorized"):
                    attempt()


async def test_nobody_changes_anchors_not_even_the_owner_and_their_role_sees_nothing_else(
    resources: Resources, names: Namespace
) -> None:
    await record(resources)
    await anchor(resources)
    statements = ("UPDATE audit.anchors SET key_id = ''", "DELETE FROM audit.anchors", "TRUNCATE audit.anchors")
    for url in (names.postgres_url, names.env["SHOWCASE_ANCHOR_POSTGRES_URL"]):
        with psycopg.connect(url, autocommit=True) as db:
            for statement in statements:
                with pytest.raises(errors.InsufficientPrivilege):
                    db.execute(statement.encode())
    with psycopg.connect(names.env["SHOWCASE_ANCHOR_POSTGRES_URL"], autocommit=True) as db:
        for table in ("public.orders", "audit.subject_keys", "public.audit_context"):
            with pytest.raises(errors.InsufficientPrivilege):
                db.execute(f"SELECT FROM {table}".encode())


@pytest.mark.parametrize("change", ["dropped", "sparse", "partial"])
async def test_index_that_could_hide_a_record_is_refused(resources: Resources, looking: Looking, change: str) -> None:
    await record(resources)
    for name, index in ((RECORDS.name, PLACES), (SEALS.name, CHAINS)):
        collection = looking.database[name]
        collection.drop_index(index.name)
        if change != "dropped":
            hides: dict[str, Any] = (
                {"sparse": True} if change == "sparse" else {"partialFilterExpression": {"topic": "a"}}
            )
            collection.create_index([(key, 1) for key in index.keys], name=index.name, **hides)

        with pytest.raises(NotIndexed, match=f"{name}: the index"):
            await wiring.verify(resources)
        collection.drop_indexes()
        await apply(resources, RECORDS, SEALS)


async def test_a_large_store_is_read_in_pieces(resources: Resources, looking: Looking) -> None:
    """More records than a batch has, more seals than one, and one edited in the middle."""
    writer = mongo(resources, "audit_mongo_url")
    recorder = Recorder(MongoStore(writer), MongoSeals(writer), MemoryDeadLetters(), content_of)
    for first in range(0, 24_000, 1_000):
        await recorder.record([message("a", 0, at, at) for at in range(first, first + 1_000)])
        await recorder.seal([("a", 0)])
    assert (await wiring.verify(resources)).is_clean

    looking.database[RECORDS.name].update_one({"offset": 17_345}, {"$set": {"change.after.n": -1}})
    (finding,) = (await wiring.verify(resources)).findings

    assert (finding.kind, finding.offset, finding.entity) == (Kind.EDITED, 17_345, "things/17345")


# -- the commands


def showcase(env: Mapping[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "showcase", *arguments],
        env={**os.environ, **env},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_commands_tell_what_was_touched_and_prove_what_was_not(
    resources: Resources, looking: Looking, names: Namespace, file: Path, tmp_path: Path
) -> None:
    env = known(names, file)
    await record(resources)
    await anchor(resources)
    await record(resources, first=5)

    clean = showcase(env, "audit", "verify")
    assert clean.returncode == 0, clean.stderr
    assert clean.stdout.startswith(
        "a:0: 10 records under 2 seals, up to 10\nclean: 10 records, 1 partitions\n1 anchors"
    )

    id_ = looking.take().record(3)["_id"]
    proof = showcase(env, "audit", "prove", id_)
    (tmp_path / "proof").write_text(proof.stdout)
    checked = showcase({"SHOWCASE_ENVIRONMENT": "workshop", "PATH": ""}, "audit", "check", str(tmp_path / "proof"))
    assert (proof.returncode, checked.returncode) == (0, 0), checked.stderr
    assert checked.stdout.startswith(f"proven: {id_} (things/3)")
    other = Key(b"x" * 32).public.hex()
    assert showcase(env, "audit", "check", str(tmp_path / "proof"), "--key", other).returncode == 1

    looking.database[RECORDS.name].update_one({"offset": 3}, {"$set": {"change.after.n": -1}})
    touched = showcase(env, "audit", "verify")
    assert touched.returncode == 1
    assert f"edited: {id_} (things/3) at a:0:3" in touched.stdout
    assert "TOUCHED: 1 findings, the first one: edited" in touched.stdout
    as_json = json.loads(showcase(env, "audit", "verify", "--json", "--topic", "a").stdout)
    assert (as_json["clean"], as_json["findings"][0]["kind"]) == (False, "edited")
    assert "was edited" in showcase(env, "audit", "prove", id_).stderr


async def test_commands_say_what_was_asked_for_wrongly(names: Namespace, file: Path, tmp_path: Path) -> None:
    env = known(names, file)
    (tmp_path / "junk").write_text("{")

    assert showcase(env, "audit", "verify", "--key", "77").returncode == 2
    assert showcase(env, "audit", "prove", "nobody").returncode == 1
    junk = showcase(env, "audit", "check", str(tmp_path / "junk"))
    assert (junk.returncode, junk.stderr.startswith("error: no proof")) == (1, True)


# -- servers that are away


@pytest.fixture(scope="module")
def private() -> Iterator[Stack]:
    with Stack.private(["mongo", "postgres"]) as stack:
        yield stack


@pytest.mark.parametrize("server", ["mongo", "postgres"])
async def test_anchoring_waits_for_a_server_that_is_paused(private: Stack, file: Path, server: str) -> None:
    with private.namespace() as names:
        settings: Settings = settings_of(
            {**known(names, file), "SHOWCASE_MONGO_TIMEOUT_S": "1", "SHOWCASE_DATABASE_TIMEOUT_S": "1"},
            audit_anchor_s=0.1,
        )
        async with Resources(settings) as resources:
            await apply(resources, RECORDS, SEALS)
            await record(resources)
            stop = asyncio.Event()
            anchors = SqlAnchors(resources.database_of("anchor"))

            async def anchored_to(next_: int) -> bool:
                try:
                    last = await anchors.last()
                except Unavailable:
                    return False
                return last is not None and Anchor.of(last.statement).heads[0].next == next_

            working = asyncio.ensure_future(wiring.anchor(resources)(stop))
            await until(lambda: anchored_to(5))
            private.server(server).pause()
            try:
                await asyncio.sleep(2.5)  # the time itself is the condition: every deadline is over
                assert not working.done()
            finally:
                private.server(server).resume()
            await record(resources, first=5)
            await until(lambda: anchored_to(10))
            stop.set()
            await asyncio.wait_for(working, 20)
            assert (await wiring.verify(resources)).is_clean


def test_head_knows_its_seal() -> None:
    head = Head(topic="a", partition=1, first=5, next=9, hash="")

    assert replace(head, first=6).seal_id == "a:1:6"
