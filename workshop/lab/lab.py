"""`Lab`: all that one lesson needs, made when it begins and gone when it ends."""

import atexit
import itertools
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pandas as pd
import psycopg
import redis
from IPython.display import display
from pymongo import MongoClient
from pymongo.database import Database

from showcase.auth import wiring as auth
from showcase.auth.infrastructure.jwk import SigningKey
from showcase.auth.infrastructure.keys import State
from showcase.kernel.principal import Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.realtime.client import Gap, follow
from workshop import accounts, baskets
from workshop.keeper import Keeper
from workshop.lab import checks, looking
from workshop.lab.background import Background
from workshop.lab.processes import Process, Processes
from workshop.lab.replay import TRIES, Replay, bodies, send
from workshop.pictures import Picture, system_map
from workshop.report.marks import Versions
from workshop.stack import SERVERS, Phase, Stack, StackError
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.rabbitmq import queues_on_disk
from workshop.stack.model import CURES
from workshop.stack.namespace import Namespace
from workshop.stack.stack import ServerHandle, chosen_backend

T = TypeVar("T")

HOUSEHOLD = frozenset({Scope.ORDERS_READ, Scope.ORDERS_WRITE})
STAFF = frozenset({Scope.ORDERS_READ, Scope.ORDERS_FOLLOW, Scope.CATALOGUE_WRITE, Scope.AUDIT_READ, Scope.SUPPORT})
TOKEN_LIFETIME = timedelta(hours=12)


class Lab:
    """What a lesson calls.

    Attaches to the stack, or starts one that ends with the lesson; takes a fresh namespace.

    Args:
        number: of the lesson, for messages.
        capture: tables whose changes go to Kafka from the beginning, such as `orders`.
        private: servers that this lesson breaks: it gets those for itself, so that nobody else feels it.

    Raises StackError.
    """

    def __init__(self, number: str, *, capture: Sequence[str] = (), private: Sequence[str] = ()) -> None:
        self.number = number
        self._private: Stack | None = None
        self._keeper = Keeper()
        self._background = Background()
        self._clients = ExitStack()
        self._apps: dict[httpx.Client, list[str]] = {}
        self._tokens: dict[str, str] = {}
        atexit.register(self.close)
        try:
            self.stack = _stack()
            shared = dict(self.stack.urls)
            urls = shared
            if private:
                self._private = Stack.private(private)
                urls = shared | dict(self._private.urls)
            self.namespace = Namespace.create(urls)
            self._keeper.tell(namespace=self.namespace.name, urls={k: v for k, v in shared.items() if urls[k] == v})
            if capture:
                self.namespace.capture(capture)
            self._folder = Path(tempfile.mkdtemp(prefix="showcase-lab-"))
            environment = _environment() | self.namespace.env | {"SHOWCASE_ENVIRONMENT": "workshop"}
            self._processes = Processes(environment, self._folder, self._keeper)
        except BaseException:
            self.close()
            raise
        print(f"lesson {number}: {len(SERVERS)} servers are up, and this lesson has a namespace of its own")

    # -- the system's processes

    def app(self, processes: int = 1, **settings: object) -> httpx.Client:
        """Start app processes; each request of the client goes to the next one of them.

        Args:
            settings: of `showcase.platform.settings.Settings`, for these processes.
        """
        urls = [process.url for process in self._processes.start(["app"] * processes, settings)]
        client = httpx.Client(base_url=urls[0], transport=_Taking(urls), timeout=15)
        self._apps[client] = urls
        return self._clients.enter_context(client)

    def urls(self, app: httpx.Client) -> list[str]:
        """Where the processes of an app's client listen, for whoever stays with one of them."""
        return list(self._apps[app])

    def start(self, *names: str, **settings: object) -> None:
        """Start processes, and wait until each is ready: `relay`, `audit`, or the worker of a queue."""
        self._processes.start(list(names), settings)

    def scale(self, name: str, processes: int, **settings: object) -> None:
        """Have so many processes of a name: start more, or stop some."""
        running = self._processes.named(name)
        self._processes.start([name] * (processes - len(running)), settings)
        for process in running[processes:]:
            self._processes.end(process, signal.SIGTERM)

    def kill(self, name: str | httpx.Client) -> None:
        """SIGKILL the oldest process of a name, or of an app's client: it finishes nothing."""
        self._processes.end(self._running(name), signal.SIGKILL)

    def stop(self, name: str) -> None:
        """SIGTERM the oldest process of a name: it finishes what it has begun."""
        self._processes.end(self._running(name), signal.SIGTERM)

    def running(self) -> dict[str, int]:
        """How many processes run of each name."""
        return self._processes.counts()

    def logs(self, name: str, lines: int = 20) -> None:
        """Print the end of what processes of a name have logged."""
        print(self._processes.log_of(name, lines))

    def log(self, name: str) -> pd.DataFrame:
        """All that processes of a name have logged: one row an entry, what it lacks is missing."""
        return pd.DataFrame(self._processes.entries_of(name))

    def command(self, *words: str, **settings: object) -> str:
        """Run a command as an operator does, `lab.command("keys", "rotate")`; what it printed. Raises StackError."""
        return self._processes.run(words, settings)

    def outcome(self, *words: str, **settings: object) -> tuple[int, str]:
        """Run a command whose exit code says something, such as `audit verify`: that, and what it printed."""
        ended = self._processes.outcome(words, settings)
        return ended.returncode, ended.stdout or ended.stderr

    def pause(self, name: str) -> None:
        """SIGSTOP the oldest process of a name: it keeps all that it has, and does nothing."""
        self._running(name).popen.send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """SIGCONT the oldest process of a name."""
        self._running(name).popen.send_signal(signal.SIGCONT)

    def _running(self, name: str | httpx.Client) -> Process:
        if isinstance(name, httpx.Client):
            running = [one for one in self._processes.named("app") if one.url in self._apps[name]]
        else:
            running = self._processes.named(name)
        if not running:
            raise StackError(f"no {name} runs", f"lab.start({name!r}) starts one")
        return running[0]

    # -- servers

    def server(self, name: str) -> ServerHandle:
        """A handle to kill, pause, resume or restart a server that is this lesson's own.

        Raises StackError for one that others use as well.
        """
        if self._private is None or f"SHOWCASE_{name.upper().replace('-', '_')}_URL" not in self._private.urls:
            raise StackError(f"others use {name} as well", f"Lab(…, private=[{name!r}]) gives the lesson its own")
        return self._private.server(name)

    def on_disk(self, *queues: str) -> bool:
        """Whether the lesson's own RabbitMQ would still know these queues after a kill.

        It writes the list of its quorum queues within a second of a change. Raises StackError, as `server` does.
        """
        self.server("rabbitmq")
        backend = self._private.backend if self._private else None
        if not isinstance(backend, LocalBackend):
            raise StackError("only a broker on this machine can be looked into")
        return queues_on_disk(backend.folder, queues)

    def map(self) -> Picture:
        """The map of the system, with the version of each server that runs."""
        stacks = [self.stack, *([self._private] if self._private else [])]
        versions = {one.name: one.version for stack in stacks for one in stack.status() if one.phase is Phase.READY}
        display(Versions(versions).bundle(), raw=True)
        return system_map(versions)

    # -- callers

    def token(self, subject: str, scopes: frozenset[Scope] | None = None) -> str:
        """An access token: `households/7` may order, `staff/ada` may look at everything."""
        if subject not in self._tokens or scopes is not None:
            default = HOUSEHOLD if subject.startswith("households/") else STAFF
            principal = Principal(subject=subject, scopes=scopes or default)
            self._tokens[subject] = self._sign(principal, TOKEN_LIFETIME)
        return self._tokens[subject]

    def as_(self, subject: str) -> dict[str, str]:
        """The headers by which a request is somebody's."""
        return {"Authorization": f"Bearer {self.token(subject)}"}

    def email(self, subject: str) -> str:
        """The mail address with which a household, `staff/ada` or `staff/grace` signs in."""
        return accounts.email_of(subject, self._mail_domain)

    def mails(self, subject: str) -> list[str]:
        """The letters to somebody, the oldest first."""
        return looking.mails(self.namespace.urls, self.email(subject))

    @cached_property
    def _mail_domain(self) -> str:
        """This lesson's own, so that it reads nobody else's letters."""
        with psycopg.connect(self.namespace.postgres_url) as db:
            accounts.move(db, self.namespace.mail_domain)
        return self.namespace.mail_domain

    def signing_key(self) -> SigningKey:
        """The private key that signs access tokens now, as only an operator with our secrets gets at it."""

        async def current() -> SigningKey:
            async with Resources(self.settings) as resources:
                keys = auth.keys(resources)
                return keys.open(next(key for key in await keys.load() if key.state is State.CURRENT))

        return self._background.run(current())

    @cached_property
    def _sign(self) -> Callable[[Principal, timedelta], str]:
        """Signs tokens as the operator's command does, with the key that signs when the lesson begins."""
        return self._background.run(auth.signer(self.settings))

    @cached_property
    def settings(self) -> Settings:
        """As the lesson's processes have them, where nothing else is said when they start."""
        named = {name.removeprefix("SHOWCASE_").lower(): value for name, value in self.namespace.env.items()}
        known = {name: value for name, value in named.items() if name in Settings.model_fields}
        return Settings.model_validate({"environment": "workshop", **known})

    # -- baskets

    def baskets(self, day: str = baskets.DAY, limit: int | None = None, skip: int = 0) -> pd.DataFrame:
        """The lines of real baskets, cleaned; see docs/data.md.

        Args:
            limit: how many baskets.
            skip: begin after so many.
        """
        lines = baskets.load(day, None if limit is None else skip + limit).lines
        chosen = lines.basket_id.unique()[skip:]
        return lines[lines.basket_id.isin(chosen)].reset_index(drop=True)

    def replay(
        self,
        lines: pd.DataFrame,
        rate: float | None = None,
        then: Callable[[Replay], None] | None = None,
        *,
        to: httpx.Client | None = None,
        tries: int = TRIES,
    ) -> pd.DataFrame:
        """Send baskets to the app, each as its household, with a bar that shows how far it is.

        Args:
            rate: baskets a second; as fast as the app takes them if not given.
            then: called now and then while it goes on, with the replay so far.
            to: the client of some app processes; all that were ever started, if not given.
            tries: how often a basket is sent, at the most, until there is an answer that is final.

        Returns one row a basket: basket_id, household_id, order_id, status, tries, sent_at, answered_at.
        """
        if not self._apps:
            raise StackError("no app runs", "lab.app() starts one")
        to_send = bodies(lines)
        replay = Replay(len(to_send))
        bar = display(_bar(replay), raw=True, display_id=True)

        def redraw() -> None:
            if bar is not None:  # there is none outside of a notebook
                bar.update(_bar(replay), raw=True)
            if then is not None:
                then(replay)

        tokens = {number: self.token(f"households/{number}") for number in lines.household_id.unique().tolist()}
        urls = self._apps[to] if to else list(itertools.chain.from_iterable(self._apps.values()))
        self._background.run(send(replay, urls, to_send, tokens.__getitem__, rate, tries), redraw)
        return replay.frame()

    def follow(self, *topics: str, subject: str = "staff/counter") -> "Following":
        """Open a WebSocket and keep what comes, until the lesson ends."""
        following = Following()
        url = next(iter(self._apps.values()))[0]
        self._background.start(following.run(url, self.token(subject), topics))
        self.until(lambda: following.is_open or following.error, what="the WebSocket is open")
        if following.error:
            raise StackError(f"the WebSocket was refused: {following.error}")
        return following

    # -- a look into each server

    def sql(self, query: str, **names: object) -> pd.DataFrame:
        """What a query finds in PostgreSQL; `%(name)s` stands for a value."""
        return looking.sql(self.namespace.postgres_url, query, names)

    def queues(self) -> pd.DataFrame:
        """Each queue of RabbitMQ: messages ready, and consumers."""
        return looking.queues(self.namespace.rabbitmq_url)

    def tap(self, *types: str) -> looking.Tap:
        """From now on, a copy of the events of some types, straight from RabbitMQ: `shop.order.#`."""
        return looking.Tap(self.namespace.rabbitmq_url, types)

    def topic(self, table: str) -> pd.DataFrame:
        """All captured changes of a table that Kafka holds."""
        name = table if "." in table else f"public.{table}"
        return looking.topic(self.namespace.urls["SHOWCASE_KAFKA_URL"], self.namespace.topic_prefix + name)

    @cached_property
    def mongo(self) -> Database[dict[str, Any]]:
        """The namespace's database."""
        client: MongoClient[dict[str, Any]] = MongoClient(
            self.namespace.mongo_url, timeoutMS=15_000, tz_aware=True, uuidRepresentation="standard"
        )
        return self._clients.enter_context(client).get_default_database()

    @cached_property
    def redis(self) -> redis.Redis:
        """redis-state, where the streams behind the WebSockets are. Keys begin with `lab.namespace.redis_prefix`."""
        client: redis.Redis = redis.Redis.from_url(
            self.namespace.urls["SHOWCASE_REDIS_STATE_URL"], socket_timeout=10, decode_responses=True
        )
        self._clients.callback(client.close)
        return client

    # -- checkpoints

    check = staticmethod(checks.check)
    agree = staticmethod(checks.agree)
    until = staticmethod(checks.until)
    record = staticmethod(checks.record)
    source = staticmethod(checks.source)

    def close(self) -> None:
        """End all that this lesson has started, and remove all that it has made; harmless when that is done."""
        atexit.unregister(self.close)
        if self._keeper is None:
            return
        keeper, self._keeper = self._keeper, None  # type: ignore[assignment]  # closed: there is nothing left to tell
        self._clients.close()
        self._background.close()
        left = keeper.finish()
        if "_processes" in vars(self):
            self._processes.reap()
        if self._private is not None:
            self._private.close()
        if "stack" in vars(self):
            self.stack.close()
        if "_folder" in vars(self):
            shutil.rmtree(self._folder, ignore_errors=True)
        print(f"lesson {self.number}: all that it started has ended, all that it made is gone")
        if left:
            raise StackError(f"not everything could be removed: {left}", "run `workshop reset`")


class Following:
    """What comes over one WebSocket.

    Attributes:
        error: why it ended; empty while it goes on.
    """

    def __init__(self) -> None:
        self.is_open = False
        self.error = ""
        self._rows: list[dict[str, Any]] = []

    async def run(self, url: str, token: str, topics: Sequence[str]) -> None:
        """Receive until the connection ends."""
        try:
            async with follow(url, token, topics) as events:
                self.is_open = True
                async for told in events:
                    if isinstance(told, Gap):
                        raise StackError(f"events are missing: {told.why}")
                    event = told.event
                    row = {"id": event.id, "type": event.type, "subject": event.subject, "at": datetime.now(UTC)}
                    self._rows.append(row | {"topic": told.topic, "data": event.data})
        except Exception as error:
            self.error = f"{type(error).__name__}: {error}"

    def frame(self) -> pd.DataFrame:
        """All that came so far; `at` is when it came."""
        return pd.DataFrame(list(self._rows), columns=["id", "type", "subject", "at", "topic", "data"])


class _Taking(httpx.BaseTransport):
    """Sends each request to the next app process."""

    def __init__(self, urls: Sequence[str]) -> None:
        self._urls = itertools.cycle([httpx.URL(url) for url in urls])
        self._transport = httpx.HTTPTransport()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        place = next(self._urls)
        request.url = request.url.copy_with(scheme=place.scheme, host=place.host, port=place.port)
        return self._transport.handle_request(request)

    def close(self) -> None:
        self._transport.close()


def _stack() -> Stack:
    """The stack that is up, or a fresh one that ends with its last user. Raises StackError."""
    backend = chosen_backend(ephemeral=True)
    backend.up()
    stack = Stack(backend)
    if limping := [one for one in stack.status() if one.phase in CURES]:
        cures = " && ".join(f"workshop {CURES[one.phase]} {one.name}" for one in limping)
        raise StackError(f"{', '.join(f'{one.name} is {one.phase}' for one in limping)}", f"run `{cures}`")
    return stack


def _environment() -> dict[str, str]:
    """This process's environment, without settings of somebody else's namespace."""
    return {name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")}


def _bar(replay: Replay) -> Mapping[str, str]:
    done = len(replay.answers)
    words = f"{done:,} of {replay.baskets:,} baskets answered"
    bar = f'<progress value="{done}" max="{replay.baskets}" style="width: 24em" aria-label="{words}"></progress>'
    return {"text/plain": words, "text/html": f"{bar} {words}"}
