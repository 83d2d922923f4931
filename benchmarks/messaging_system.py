"""What is sent and what is done with it, in every measurement of messaging; and relay and worker as processes.

Run as a program (`python -m benchmarks.messaging_system relay`) it is the relay, or the worker, that `showcase` starts:
with the same wiring and settings, but a topology of one queue, and a handler that writes one row.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psycopg
from pydantic import BaseModel
from sqlalchemy import text

from showcase.kernel.events import Event
from showcase.messaging import wiring
from showcase.messaging.application.handlers import Handlers
from showcase.messaging.domain import Message, Queue, Topology, straight_to
from showcase.messaging.wiring import Consumer
from showcase.platform import logs
from showcase.platform.database import Database
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.worker import run, run_in_loop

TYPE = "benchmark.thing.done.v1"
QUEUE = "benchmark"
ROUTE = straight_to(QUEUE)
"""Not by the exchange of events: in RabbitMQ its routing takes as long as all else, and we measure clients."""
TOPOLOGY = Topology(queues=[Queue(name=QUEUE, types=(TYPE,))])
BODY_BYTES = 200
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
EFFECTS = "CREATE TABLE effects (number bigserial PRIMARY KEY, thing bigint NOT NULL)"
EFFECTS_SO_FAR = "SELECT last_value FROM effects_number_seq"
READY_WITHIN_S = 30.0
END_WITHIN_S = 15.0


class Thing(BaseModel):
    """The data of an event."""

    thing: int
    note: str


Handle = Callable[[Thing], Awaitable[None]]


def event(thing: int) -> Event:
    """An event with a body of 200 bytes, of a subject of its own."""
    bare = len(json.dumps({"thing": thing, "note": ""}, separators=(",", ":")))
    data = {"thing": thing, "note": "x" * (BODY_BYTES - bare)}
    return Event(type=TYPE, source="/benchmark", subject=f"things/{thing}", data=data, traceparent=TRACEPARENT)


def messages(count: int) -> list[Message]:
    """So many, no two alike, as the relay sends them."""
    return [
        Message(attributes=one.attributes(), body=one.body(), route=ROUTE) for one in (event(i) for i in range(count))
    ]


def fill_outbox(postgres_url: str, rows: Sequence[Message]) -> None:
    """Put messages into an outbox that is empty and has just been analysed."""
    with psycopg.connect(postgres_url, connect_timeout=10, autocommit=True) as db:
        db.execute("TRUNCATE outbox")
        add_to_outbox(db, rows)
        db.execute("VACUUM ANALYZE outbox")


def add_to_outbox(db: "psycopg.Connection[tuple[object, ...]]", rows: Sequence[Message]) -> None:
    """Put messages into an outbox, in bulk and without waking anybody."""
    with db.cursor().copy("COPY outbox (attributes, body, exchange, routing_key) FROM STDIN") as copy:
        for row in rows:
            copy.write_row((json.dumps(dict(row.attributes)), row.body, row.route.exchange, row.route.key))


def writer(database: Database) -> Handle:
    """What every handler does: it writes one row."""
    statement = text("INSERT INTO effects (thing) VALUES (:thing)")

    async def write(thing: Thing) -> None:
        async with database.transaction() as db:
            await db.execute(statement, {"thing": thing.thing})

    return write


def handlers(handle: Handle) -> Handlers:
    """A registry of one handler."""
    registry = Handlers()
    registry.on(TYPE, Thing, lambda _, thing: handle(thing))
    return registry


@contextmanager
def started(environment: Mapping[str, str], folder: Path, *arguments: str) -> Iterator["subprocess.Popen[bytes]"]:
    """This program as a process, once it is ready. It has ended, in peace, when the block is over.

    Args:
        folder: for its log.

    Raises RuntimeError, with the end of its log, when it does not get there.
    """
    log = folder / f"{arguments[0]}.log"
    with log.open("wb") as output:
        popen = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.messaging_system", *arguments],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        deadline = time.monotonic() + READY_WITHIN_S
        while b'"ready"' not in log.read_bytes():
            if time.monotonic() > deadline or popen.poll() is not None:
                raise RuntimeError(f"{arguments[0]} is not ready: {log.read_text(errors='replace')[-1_000:]}")
            time.sleep(0.05)
        yield popen
    finally:
        popen.terminate()
        try:
            popen.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def main() -> None:
    """Be the relay, or the worker; a worker that is given a file writes there what it has committed, and when."""
    name, *files = sys.argv[1:]
    logs.configure(name)
    settings = Settings()
    committed: list[tuple[int, float]] = []

    async def work() -> None:
        async with Resources(settings) as resources:
            if name == "relay":
                job = wiring.relaying(resources, TOPOLOGY, ["public"])
            else:
                database = resources.database
                handle = noting(database, committed) if files else writer(database)
                consumer = Consumer(queue=QUEUE, handlers=handlers(handle), database=database)
                job = wiring.consuming(resources, TOPOLOGY, consumer)
            await run(name, job, drain_s=settings.drain_s)

    run_in_loop(work())
    for file in files:
        Path(file).write_text(json.dumps(committed))


def noting(database: Database, committed: list[tuple[int, float]]) -> Handle:
    """Writes a row, and notes when it was committed, by the clock that all processes of a machine share."""
    write = writer(database)

    async def handle(thing: Thing) -> None:
        async def note() -> None:
            committed.append((thing.thing, time.monotonic()))

        await write(thing)
        await database.after_commit(note)

    return handle


if __name__ == "__main__":
    main()
