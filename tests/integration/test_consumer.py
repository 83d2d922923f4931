"""Consumers on RabbitMQ and PostgreSQL: killed, stopped, cut off from the database, given poison."""

import asyncio
import itertools
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from showcase.kernel.errors import Conflict
from showcase.kernel.events import Event
from showcase.messaging.application.handlers import Anything, Handlers
from showcase.messaging.application.ports import Delivery
from showcase.messaging.domain import EVENTS, PARKING, Message, Outcome, Queue, Route, Topology
from showcase.messaging.infrastructure.amqp import Broker
from showcase.messaging.infrastructure.inbox import SqlInbox
from showcase.messaging.worker.consumer import consume
from showcase.platform.database import Database
from showcase.platform.worker import run, run_in_loop
from tests.fakes import until
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
POSTGRES, RABBITMQ = "SHOWCASE_POSTGRES_URL", "SHOWCASE_RABBITMQ_URL"
NAMESPACED = (POSTGRES, RABBITMQ, "SHOWCASE_RABBITMQ_API_URL")
WITHIN_S = 15.0
DEADLINE_S = 2.0
RUNG = timedelta(seconds=0.1)
LOCK = 4711
"""Held by a test, it stops a handler in the middle of its transaction."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A queue of its own, a database with a table for effects, and consumers to start."""

    postgres_url: str
    rabbitmq_url: str
    queue: str
    retries: Sequence[timedelta] = ()

    @property
    def topology(self) -> Topology:
        return Topology(queues=[Queue(name=self.queue, types=(f"{self.queue}.#",))], retries=self.retries)

    @asynccontextmanager
    async def broker(self) -> AsyncIterator[Broker]:
        async with Broker.connected(self.rabbitmq_url, timeout_s=WITHIN_S, name=self.queue) as broker:
            await broker.declare(self.topology)
            yield broker

    def event(self, name: object, does: str = "") -> Event:
        data = {"name": str(name), "does": does}
        return Event(type=f"{self.queue}.v1", source="/t", subject=f"t/{name}", data=data)

    def message(self, event: Event, **changes: str) -> Message:
        attributes = event.attributes() | changes
        return Message(
            attributes={name: value for name, value in attributes.items() if value},
            body=event.body(),
            route=Route(EVENTS, event.type),
            headers={"x-replays": 1},
        )

    async def send(self, messages: Sequence[Message]) -> None:
        async with self.broker() as broker:
            assert set(await broker.publish(messages)) == {Outcome.TAKEN}

    async def tell(self, *events: Event) -> None:
        await self.send([self.message(event) for event in events])

    async def work(self, stop: asyncio.Event, *, batch: int = 10, prefetch: int = 50) -> None:
        """A consumer whose handler writes what it was told into the table, and then does what the event says."""
        database = Database(self.postgres_url, timeout_s=DEADLINE_S, connections=2)

        async def handle(event: Event, data: Anything) -> None:
            name, does = data.root["name"], data.root["does"]
            async with database.transaction() as db:
                await db.execute(
                    text("INSERT INTO effects VALUES (:queue, :name)"), {"queue": self.queue, "name": name}
                )
                if does == "asks for another step first":
                    raise Conflict("not yet")
                if does:
                    await db.execute(text(does))

        handlers = Handlers()
        handlers.on(f"{self.queue}.v1", Anything, handle)
        try:
            async with self.broker() as broker:
                await consume(
                    broker,
                    self.queue,
                    handlers,
                    stop,
                    topology=self.topology,
                    inbox=SqlInbox(database, "public", self.queue),
                    transaction=database.transaction,
                    savepoint=database.savepoint,
                    prefetch=prefetch,
                    batch=batch,
                )
        finally:
            await database.close()

    @asynccontextmanager
    async def working(self, consumers: int = 1) -> AsyncIterator[None]:
        """Some consumers for the length of a block, each with connections of its own."""
        stop = asyncio.Event()
        working = [asyncio.create_task(self.work(stop)) for _ in range(consumers)]
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(asyncio.gather(*working), WITHIN_S)

    @contextmanager
    def process(self) -> Iterator["subprocess.Popen[bytes]"]:
        """A consumer in a process of its own, which handles few messages at once."""
        code = "from tests.integration.test_consumer import main; main()"
        urls = [self.postgres_url, self.rabbitmq_url]
        with subprocess.Popen([sys.executable, "-c", code, *urls, self.queue], env=os.environ) as process:
            try:
                yield process
            finally:
                process.kill()

    def effects(self) -> Counter[str]:
        """What handlers have written and committed, and how often."""
        with psycopg.connect(self.postgres_url, autocommit=True) as db:
            return Counter(name for (name,) in db.execute("SELECT name FROM effects WHERE queue = %s", [self.queue]))

    def is_stopped_at_the_lock(self) -> bool:
        with psycopg.connect(self.postgres_url, autocommit=True) as db:
            query = "SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
            return db.execute(query, [LOCK]).fetchone() is not None

    @contextmanager
    def locked(self) -> Iterator[None]:
        with psycopg.connect(self.postgres_url, autocommit=True) as db:
            db.execute("SELECT pg_advisory_lock(%s)", [LOCK])
            yield

    async def parked(self, count: int) -> list[Delivery]:
        """So many messages from the parking lot."""
        found: list[Delivery] = []
        async with self.broker() as broker:
            deliveries = await broker.consume(PARKING, 100)
            async with asyncio.timeout(WITHIN_S):
                while len(found) < count:
                    delivery = await deliveries.get()
                    assert delivery is not None
                    found.append(delivery)
                    broker.acknowledge([delivery])
        return found

    async def left(self) -> int:
        """How many messages are ready in the queue; consumers have none when they have ended."""
        async with self.broker() as broker:
            depth = (await broker.depths([self.queue]))[self.queue]
        assert depth is not None
        return depth[0]


def main() -> None:
    """A consumer's process."""
    postgres_url, rabbitmq_url, queue = sys.argv[1:]
    place = Place(postgres_url=postgres_url, rabbitmq_url=rabbitmq_url, queue=queue)
    run_in_loop(run(queue, lambda stop: place.work(stop, batch=5, prefetch=20), drain_s=WITHIN_S))


async def until_true(condition: Callable[[], object]) -> None:
    async def holds() -> object:
        return condition()

    await until(holds, within_s=WITHIN_S)


STOPS_AT_THE_LOCK = f"SELECT pg_advisory_xact_lock({LOCK})"
EFFECTS = "CREATE TABLE effects (queue text NOT NULL, name text NOT NULL)"
_numbers = itertools.count()


@pytest.fixture(scope="module")
def names(stack: Stack) -> Iterator[Namespace]:
    with Namespace.create({name: stack.urls[name] for name in NAMESPACED}) as names:
        with psycopg.connect(names.postgres_url, autocommit=True) as db:
            db.execute(EFFECTS)
        yield names


@pytest.fixture
def place(names: Namespace) -> Place:
    return Place(postgres_url=names.postgres_url, rabbitmq_url=names.rabbitmq_url, queue=f"q{next(_numbers)}")


# -- each event has one effect


async def test_two_consumers_that_get_the_same_events_twice_have_one_effect_each(place: Place) -> None:
    events = [place.event(number) for number in range(150)]
    await place.tell(*(copy for event in events for copy in (event, event)))  # each consumer gets one at the same time
    async with place.working(consumers=2):
        await until_true(lambda: len(place.effects()) == 150)
        await place.tell(last := place.event("last"), last)
        await until_true(lambda: place.effects()["last"])
    assert set(place.effects().values()) == {1}
    assert await place.left() == 0


async def test_a_consumer_that_is_killed_in_the_middle_of_a_batch_leaves_one_effect_of_each_event(place: Place) -> None:
    events = [place.event(number, STOPS_AT_THE_LOCK if number == 7 else "") for number in range(30)]
    await place.tell(*events)
    with place.process() as process:
        with place.locked():
            await until_true(place.is_stopped_at_the_lock)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert len(place.effects()) < 7, "the batch in hand is undone"
    async with place.working():
        await until_true(lambda: len(place.effects()) == 30)
    assert set(place.effects().values()) == {1}
    assert await place.left() == 0


async def test_a_consumer_that_is_told_to_stop_finishes_its_batch_and_hands_back_the_rest(place: Place) -> None:
    await place.tell(*(place.event(number, "" if number else STOPS_AT_THE_LOCK) for number in range(30)))
    with place.process() as process:
        with place.locked():
            await until_true(place.is_stopped_at_the_lock)
            process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, WITHIN_S) == 0
    assert 1 <= len(place.effects()) <= 5
    assert set(place.effects().values()) == {1}
    assert await place.left() == 30 - len(place.effects())


# -- what cannot be handled


async def test_poison_is_parked_with_its_reason_and_the_stream_of_good_messages_goes_on(place: Place) -> None:
    bad = place.event("bad")
    ill = [
        (place.message(bad, datacontenttype="text/xml"), "the content type is 'text/xml', not application/json"),
        (place.message(bad, contentencoding="gzip"), "the content encoding is 'gzip', not utf-8"),
        (place.message(bad, id=""), "the attribute 'id' is missing"),
        (place.message(bad, type=f"{place.queue}.v9"), f"nobody here handles {place.queue}.v9"),
        (place.message(place.event("ill", "SELECT 1 / 0")), "DataError: (psycopg.errors.DivisionByZero)"),
        (place.message(place.event("ill", "SELECT pg_sleep(60)")), "Unavailable: the transaction took too long"),
        (place.message(place.event("ill", KILLS_ITS_CONNECTION)), "Unavailable: the transaction took too long"),
    ]
    broken = Message(attributes=bad.attributes(), body=b'{"name":', route=Route(EVENTS, bad.type))
    good = [place.message(place.event(number)) for number in range(40)]
    stream = [*good[:20], *(message for message, _ in ill), broken, *good[20:]]

    await place.send(stream)
    async with place.working():
        parked = await place.parked(len(ill) + 1)
        await until_true(lambda: len(place.effects()) == 40)
    assert set(place.effects().values()) == {1}
    assert "ill" not in place.effects()
    assert await place.left() == 0
    reasons = [str(one.headers["x-reason"]) for one in parked]
    if NO_ANSWER in reasons:  # what the one that sleeps says if it is the first to learn that its line was cut
        reasons[reasons.index(NO_ANSWER)] = "Unavailable: the transaction took too long"
    reasons, expected = sorted(reasons), sorted([*(reason for _, reason in ill), "data is no JSON"])
    assert [found[: len(reason)] for found, reason in zip(reasons, expected, strict=True)] == expected


NO_ANSWER = "Unavailable: the database does not answer in time"
KILLS_ITS_CONNECTION = "SELECT pg_terminate_backend(pg_backend_pid())"


async def test_a_message_climbs_the_ladder_and_is_parked_with_all_it_came_with(place: Place) -> None:
    ladder = Place(**{**vars(place), "retries": (RUNG, 2 * RUNG)})
    event = ladder.event("1", "asks for another step first")
    await ladder.tell(event, ladder.event("2"))
    async with ladder.working():
        (parked,) = await ladder.parked(1)
    assert ladder.effects() == {"2": 1}
    assert (dict(parked.attributes), parked.body) == (event.attributes(), event.body())
    headers: dict[str, Any] = dict(parked.headers)
    assert (headers["x-queue"], headers["x-attempt"], headers["x-replays"]) == (ladder.queue, 3, 1)
    told = [headers[f"x-reason-{attempt}"].partition(" ") for attempt in (1, 2, 3)]
    assert {reason for _, _, reason in told} == {headers["x-reason"]} == {"Conflict: not yet"}
    first, second, third = (datetime.fromisoformat(at) for at, _, _ in told)
    assert second - first >= RUNG
    assert third - second >= 2 * RUNG
    assert datetime.fromisoformat(headers["x-parked-at"]) == third


# -- a database that is away


@pytest.fixture(scope="module")
def breakable() -> Iterator[tuple[Stack, str]]:
    """A PostgreSQL to pause, with a migrated database."""
    with Stack.private(["postgres"]) as private, Namespace.create({POSTGRES: private.urls[POSTGRES]}) as names:
        with psycopg.connect(names.postgres_url, autocommit=True) as db:
            db.execute(EFFECTS)
        yield private, names.postgres_url


async def test_a_database_that_is_paused_in_the_middle_of_a_batch_parks_nothing_and_loses_nothing(
    place: Place, breakable: tuple[Stack, str]
) -> None:
    private, postgres_url = breakable
    here = Place(**{**vars(place), "postgres_url": postgres_url})
    await here.tell(*(here.event(number, STOPS_AT_THE_LOCK if number == 15 else "") for number in range(50)))

    with capture_logs() as logs:
        async with here.working():
            with here.locked():
                await until_true(here.is_stopped_at_the_lock)
                private.server("postgres").pause()
                try:
                    await until_true(lambda: "waiting for the database" in {line["event"] for line in logs})
                finally:
                    private.server("postgres").resume()
            await until_true(lambda: len(here.effects()) == 50)
    assert set(here.effects().values()) == {1}
    assert not {"parked", "tried again later", "not moved yet"} & {str(line["event"]) for line in logs}
    assert await here.left() == 0
