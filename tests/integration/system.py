"""The system's own processes, as the integration tests start, stop, kill and look at them.

Built on the command line alone: what a test starts is what an operator starts.
"""

import asyncio
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx
import pika
import psycopg

from showcase.auth import wiring as auth
from showcase.kernel.principal import Principal, Scope
from tests.fakes import settings_of
from tests.integration.stacks import Ended, ended
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

WITHIN_S = 30.0
START_WITHIN_S = 90.0
"""Ten processes side by side, on a machine that is busy with other tests."""
HOUSEHOLD = frozenset({Scope.ORDERS_READ, Scope.ORDERS_WRITE})
PRODUCT = 1_082_185
"""In the catalogue, as the households 1 to 2,500 are."""


class Process:
    """One process of the system.

    Attributes:
        url: of an app.
    """

    def __init__(self, name: str, popen: "subprocess.Popen[bytes]", log: Path, url: str) -> None:
        self.name = name
        self.popen = popen
        self.log = log
        self.url = url

    def is_ready(self) -> bool:
        assert self.popen.poll() is None, self.log.read_text()
        if not self.url:
            return '"event": "ready"' in self.log.read_text()
        try:
            return httpx.get(f"{self.url}/health/ready", timeout=5).is_success
        except httpx.TransportError:
            return False

    def kill(self) -> None:
        """It finishes nothing."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> int:
        """It finishes what it has begun; the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(WITHIN_S)


def ready(channel: Any, queue: str) -> int:
    """How many messages are ready in a queue, as seen on a channel: nobody else sees an exclusive one."""
    return int(channel.queue_declare(queue, passive=True).method.message_count)


class System:
    """A namespace, and processes in it.

    Attributes:
        slices: what its apps serve.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path) -> None:
        self.environment = dict(environment)
        self.started: list[Process] = []
        self.numbers = itertools.count()
        self.slices = "shop"
        self._folder = folder
        self._tokens: dict[tuple[str, frozenset[Scope]], str] = {}

    @property
    def postgres_url(self) -> str:
        return self.environment["SHOWCASE_POSTGRES_URL"]

    def start(self, *names: str, **settings: object) -> list[Process]:
        """Start `app`, `relay` or the worker of a queue, side by side; all are ready then."""
        begun = [self._begin(name, settings) for name in names]
        wait_for(lambda: all(process.is_ready() for process in begun), within_s=START_WITHIN_S)
        return begun

    def again(self, app: Process, **settings: object) -> Process:
        """Start an app where one was that has ended; it is ready then."""
        begun = self._begin("app", settings, port=int(app.url.rpartition(":")[2]))
        wait_for(begun.is_ready, within_s=START_WITHIN_S)
        return begun

    def running(self, name: str) -> list[Process]:
        """Those of a name that run, the oldest first."""
        return [process for process in self.started if process.name == name and process.popen.poll() is None]

    def run(self, *command: str, **variables: str) -> Ended:
        """Run a command of the command line to its end; a variable that is "" is not set."""
        changed = {**self.environment, **variables}
        return ended(
            subprocess.Popen(
                [sys.executable, "-m", "showcase", *command],
                env=_bare() | {name: value for name, value in changed.items() if value},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def headers(self, subject: str = "households/7", scopes: frozenset[Scope] = HOUSEHOLD) -> dict[str, str]:
        """By which a request is somebody's."""
        return {"Authorization": f"Bearer {self.token(subject, scopes)}"}

    def token(self, subject: str, scopes: frozenset[Scope] = HOUSEHOLD) -> str:
        """An access token without a sign-in."""
        if (subject, scopes) not in self._tokens:
            principal = Principal(subject=subject, scopes=scopes)
            self._tokens[subject, scopes] = self.sign(principal, timedelta(minutes=30))
        return self._tokens[subject, scopes]

    @cached_property
    def sign(self) -> Callable[[Principal, timedelta], str]:
        """Signs access tokens as the operator's command does."""
        with ThreadPoolExecutor(1) as pool:  # also where an event loop runs already
            return pool.submit(asyncio.run, auth.signer(settings_of(self.environment))).result()

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query finds, past the system."""
        with psycopg.connect(self.postgres_url, autocommit=True) as db:
            return db.execute(query.encode(), values).fetchall()

    def sql_alone(self, statement: str) -> None:
        """Run a statement that is no query."""
        with psycopg.connect(self.postgres_url, autocommit=True) as db:
            db.execute(statement.encode())

    @contextmanager
    def channel(self) -> Iterator[Any]:
        """A channel to the broker, past the system."""
        connection = pika.BlockingConnection(pika.URLParameters(self.environment["SHOWCASE_RABBITMQ_URL"]))
        try:
            yield connection.channel()
        finally:
            connection.close()

    def waiting(self, queue: str) -> int:
        """How many messages are ready in a queue."""
        with self.channel() as channel:
            return ready(channel, queue)

    def one(self, query: str, *values: object) -> Any:
        """The only value that a query finds."""
        return self.sql(query, *values)[0][0]

    def end(self) -> None:
        """Kill whatever still runs."""
        for process in self.started:
            process.kill()

    def _begin(self, name: str, settings: Mapping[str, object], port: int = 0) -> Process:
        command = [name] if name == "relay" else ["worker", name]
        line, url = None, ""
        if name == "app":  # listens already, so that nobody else gets the port
            line = socket.create_server(("127.0.0.1", port), backlog=1_024)
            url = f"http://127.0.0.1:{line.getsockname()[1]}"
            command = ["serve", "--slices", self.slices, "--fd", str(line.fileno())]
        log = self._folder / f"{len(self.started)}-{name}.log"
        named = {f"SHOWCASE_{key.upper()}": str(value) for key, value in settings.items()}
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", "showcase", *command],
                env=_bare() | self.environment | named,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[] if line is None else [line.fileno()],
            )
        if line is not None:
            line.close()
        self.started.append(Process(name, popen, log, url))
        return self.started[-1]


@contextmanager
def system_on(stack: Stack, private: Stack | None = None) -> Iterator[System]:
    """A system in a fresh namespace; all of it is gone at the end.

    Args:
        private: servers to take instead of the stack's.
    """
    urls = dict(stack.urls) | (dict(private.urls) if private else {})
    with Namespace.create(urls) as names, tempfile.TemporaryDirectory() as folder:
        system = System({**names.env, "SHOWCASE_ENVIRONMENT": "workshop"}, Path(folder))
        try:
            yield system
        finally:
            system.end()


def basket(*lines: tuple[int, int], product_id: int = PRODUCT, **more: object) -> dict[str, object]:
    """The body of an order: quantities and totals in cents."""
    chosen = lines or ((2, 199),)
    return {
        "lines": [{"product_id": product_id, "quantity": pieces, "total_cents": cents} for pieces, cents in chosen],
        **more,
    }


def at_once(calls: int, send: Callable[[int], httpx.Response]) -> list[httpx.Response]:
    """So many requests that leave together: each waits at a barrier until all are there."""
    barrier = threading.Barrier(calls)

    def one(number: int) -> httpx.Response:
        barrier.wait(WITHIN_S)
        return send(number)

    with ThreadPoolExecutor(calls) as pool:
        return list(pool.map(one, range(calls)))


def wait_for(condition: Callable[[], object], *, within_s: float = WITHIN_S) -> None:
    """Wait for a condition. Raises AssertionError when it does not come true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s"
        time.sleep(0.02)


def problem_of(response: httpx.Response) -> tuple[int, str]:
    """The status and the type of a problem document."""
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = response.json()
    assert found["status"] == response.status_code
    assert set(found) >= {"type", "title", "detail"}
    return response.status_code, str(found["type"]).removeprefix("/problems/")


def log_events(process: Process) -> Sequence[dict[str, Any]]:
    """The lines of a process's log."""
    return [json.loads(line) for line in process.log.read_text().splitlines() if line.startswith("{")]


def _bare() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")}
