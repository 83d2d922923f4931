"""Several relays on one outbox, and inboxes of several processes: racing, stuck, killed."""

import asyncio
import itertools
import json
import random
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import timedelta

import pika
import psycopg
import pytest

from showcase.kernel.events import Event
from showcase.kernel.ids import EventId
from showcase.messaging.domain import Message, Outcome
from showcase.messaging.infrastructure import outbox as module
from showcase.messaging.infrastructure import pruning
from showcase.messaging.infrastructure.inbox import SqlInbox
from showcase.messaging.infrastructure.outbox import SqlOutbox
from showcase.platform.database import Database
from tests.fakes import until
from tests.integration.system import system_on, wait_for
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
POSTGRES = "SHOWCASE_POSTGRES_URL"
TYPE = "shop.order.placed.v1"
DEADLINE_S = 0.5


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with Namespace.create({POSTGRES: stack.urls[POSTGRES]}) as names:
        yield names.postgres_url


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    database = Database(url)
    yield database
    async with database.transaction() as db:
        await db.exec_driver_sql("TRUNCATE outbox, inbox")
    await database.close()


class Wire:
    """A broker that takes all but certain subjects, and notices two messages of one subject on their way at once."""

    def __init__(self, refused: Sequence[str] = ()) -> None:
        self.refused = set(refused)
        self.taken: defaultdict[str, list[int]] = defaultdict(list)
        self.rounds_at_once = 0
        self._on_their_way: list[str] = []
        self._rounds = 0

    async def __call__(self, messages: Sequence[Message]) -> Sequence[Outcome]:
        subjects = [one.attributes["subject"] for one in messages]
        self._on_their_way += subjects
        self._rounds += 1
        self.rounds_at_once = max(self.rounds_at_once, self._rounds)
        assert len(self._on_their_way) == len(set(self._on_their_way)), "two of one subject are on their way at once"
        await asyncio.sleep(random.uniform(0, 0.01))  # noqa: S311 - as a broker does
        for subject, message in zip(subjects, messages, strict=True):
            self._on_their_way.remove(subject)
            if subject not in self.refused:
                self.taken[subject].append(int(message.body))
        self._rounds -= 1
        return [Outcome.REFUSED if subject in self.refused else Outcome.TAKEN for subject in subjects]


def fill(url: str, subjects: Sequence[str], times: int = 1, size: int = 0) -> None:
    """Add numbered events of each subject, in turn."""
    into = "COPY outbox (attributes, body, exchange, routing_key) FROM STDIN"
    with psycopg.connect(url) as db, db.cursor() as cursor, cursor.copy(into) as copy:
        for number, subject in itertools.product(range(times), subjects):
            one = Event(type=TYPE, source="/s", subject=subject, data={})
            copy.write_row((json.dumps(one.attributes()), str(number).zfill(size).encode(), "events", TYPE))


def subjects_of_one_bucket(url: str, count: int) -> list[str]:
    query = (
        "SELECT s::text FROM generate_series(1, 10000) AS s WHERE abs(hashtextextended(s::text, 0) %% 64) = 7 LIMIT %s"
    )
    with psycopg.connect(url) as db:
        return [subject for (subject,) in db.execute(query, [count])]


async def test_relays_that_share_an_outbox_tell_all_once_and_each_subject_in_order(
    database: Database, url: str
) -> None:
    subjects = [f"orders/{number}" for number in range(40)]
    fill(url, subjects, times=10)
    wire = Wire()

    async def work() -> None:
        outbox = SqlOutbox(database)
        while (await outbox.waiting()).waiting:
            await outbox.relay(wire, 50)

    async with asyncio.timeout(20):
        await asyncio.gather(*(work() for _ in range(4)))
    assert wire.taken == {subject: list(range(10)) for subject in subjects}
    assert wire.rounds_at_once > 1


@pytest.mark.parametrize("refused", [1, 30])
async def test_refused_subjects_keep_none_of_their_bucket_from_its_turn(
    database: Database, url: str, refused: int
) -> None:
    """One with many events, or many with one each: more than a round reads, and all before the other one's."""
    *first, other = subjects_of_one_bucket(url, refused + 1)
    fill(url, first, times=60 // refused)
    fill(url, [other], times=2)
    wire, outbox = Wire(refused=first), SqlOutbox(database)

    for _ in range(40):
        await outbox.relay(wire, 5)
    assert wire.taken == {other: [0, 1]}
    wire.refused.clear()
    async with asyncio.timeout(20):
        while (await outbox.waiting()).waiting:
            await outbox.relay(wire, 5)
    assert wire.taken == {other: [0, 1]} | {subject: list(range(60 // refused)) for subject in first}


async def test_a_round_that_begins_behind_refused_events_tells_no_later_ones_of_their_subjects(
    database: Database, url: str
) -> None:
    subjects = subjects_of_one_bucket(url, 6)
    fill(url, subjects, times=2)
    wire, outbox = Wire(refused=subjects), SqlOutbox(database)
    for _ in range(2):
        await outbox.relay(wire, 5)
    wire.refused.clear()

    async with asyncio.timeout(20):
        while (await outbox.waiting()).waiting:
            await outbox.relay(wire, 5)
    assert wire.taken == {subject: [0, 1] for subject in subjects}


async def test_a_round_reads_no_more_bytes_than_memory_is_meant_for(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1_000)
    fill(url, [f"orders/{number}" for number in range(5)], size=600)
    outbox, wire = SqlOutbox(database), Wire()
    assert [await outbox.relay(wire, 100) for _ in range(4)] == [2, 2, 1, 0]


async def test_a_relay_that_is_stuck_with_its_locks_loses_them(database: Database, url: str) -> None:
    """Paused while its messages are on their way: PostgreSQL ends a transaction in which nothing happens."""
    fill(url, ["orders/1"])
    code = f"""
import asyncio
from showcase.messaging.infrastructure.outbox import SqlOutbox
from showcase.platform.database import Database

async def publish(messages):
    print("published", flush=True)
    await asyncio.sleep(60)

asyncio.run(SqlOutbox(Database({url!r}, timeout_s={DEADLINE_S})).relay(publish, 10))
"""
    stuck = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    try:
        assert stuck.stdout is not None
        assert await stuck.stdout.readline() == b"published\n"
        stuck.send_signal(signal.SIGSTOP)
        outbox, wire = SqlOutbox(database), Wire()
        assert await outbox.relay(wire, 10) == 0, "it still holds them"

        async def moved() -> int:
            return await outbox.relay(wire, 10)

        await until(moved, within_s=10)
        assert wire.taken == {"orders/1": [0]}
    finally:
        stuck.kill()
        await stuck.wait()


async def test_pruning_goes_on_until_nothing_old_is_left(
    database: Database, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "PIECE", 3)
    inbox = SqlInbox(database, "public", "shop")
    await inbox.enter([EventId(str(number)) for number in range(8)])
    with psycopg.connect(url) as db:
        db.execute("UPDATE inbox SET handled_at = now() - interval '8 days' WHERE event_id <> '0'")
    assert await inbox.prune(timedelta(days=7)) == 7
    assert await inbox.seen([EventId("0"), EventId("1")]) == {"0"}


async def test_the_same_event_in_two_processes_waits_for_the_first_and_is_entered_once(database: Database) -> None:
    inbox = SqlInbox(database, "public", "shop")
    for number, (error, entered_after) in enumerate([(None, set()), (LookupError, {"1"})]):
        id_ = EventId(str(number))
        second: asyncio.Task[set[EventId]] | None = None
        try:
            async with database.transaction():
                assert await inbox.enter([id_]) == {id_}
                second = asyncio.create_task(inbox.enter([id_]))
                await asyncio.wait({second}, timeout=0.2)
                assert not second.done()
                if error:
                    raise error
        except LookupError:
            pass
        assert second is not None
        assert await second == entered_after


async def test_processes_that_enter_the_same_events_at_once_never_block_one_another(database: Database) -> None:
    ids = [EventId(f"{number:04}") for number in range(300)]

    async def enter() -> set[EventId]:
        inbox = SqlInbox(database, "public", "shop")
        return await inbox.enter(random.sample(ids, len(ids)))

    for _ in range(5):
        entered = await asyncio.gather(*(enter() for _ in range(6)))
        assert sorted(id_ for some in entered for id_ in some) == ids
        async with database.transaction() as db:
            await db.exec_driver_sql("TRUNCATE inbox")


def test_relays_that_are_killed_lose_nothing_and_keep_each_subject_in_order(stack: Stack) -> None:
    subjects, times = [f"orders/{number}" for number in range(30)], 60
    waiting = "SELECT count(*) FROM outbox WHERE published_at IS NULL"
    with system_on(stack) as system:
        relays = system.start("relay", "relay", relay_batch=20)
        fill(system.postgres_url, subjects, times)
        for relay in relays:
            before = system.one(waiting)
            wait_for(lambda before=before: system.one(waiting) < before)  # type: ignore[misc]  # of a default
            relay.kill()
        assert system.one(waiting) > 0
        (last,) = system.start("relay", relay_batch=20)
        wait_for(lambda: system.one(waiting) == 0)
        assert last.stop() == 0
        told = queued(system.environment["SHOWCASE_RABBITMQ_URL"], "payment")
    firsts = {subject: list(dict.fromkeys(numbers)) for subject, numbers in told.items()}
    assert firsts == {subject: list(range(times)) for subject in subjects}


def queued(url: str, queue: str) -> Mapping[str, list[int]]:
    """The numbers of all events in a queue, by their subject, in its order."""
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    connection = pika.BlockingConnection(pika.URLParameters(url))
    channel = connection.channel()
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            break
        numbers[properties.headers["cloudEvents:subject"]].append(int(body))
    connection.close()
    return numbers
