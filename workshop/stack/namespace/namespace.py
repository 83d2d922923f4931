"""`Namespace`: what one run has in all servers, and how it comes and goes."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar

from showcase.audit.infrastructure.connectors import CONTEXT_TABLE, HEARTBEAT_TABLE
from workshop.stack.model import URL_VARIABLES, StackError, Urls, url_of
from workshop.stack.namespace.connect import ConnectPart, source
from workshop.stack.namespace.kafka import KafkaPart
from workshop.stack.namespace.mail import TOP_LEVEL, MailPart
from workshop.stack.namespace.mongo import MongoPart, writer_url
from workshop.stack.namespace.part import Part, check_name, in_server, new_name, taken
from workshop.stack.namespace.postgres import PostgresPart, database_url, service_urls
from workshop.stack.namespace.rabbitmq import RabbitMQPart
from workshop.stack.namespace.redis import RedisPart

ANSWER_WITHIN_S = 15.0
CAPTURE_WITHIN_S = 60.0
DROPPED_AT_ONCE = 4

T = TypeVar("T")


class Namespace:
    """Everything one run creates in the servers, under one name.

    Args:
        urls: where the servers are (`SHOWCASE_*`); those not mentioned are left out.
        name: a lower-case letter and up to 20 more lower-case letters and digits.
        within_s: the longest that one server may take to make or drop its part.

    The constructor makes nothing: `Namespace(urls, "x").drop()` drops what another process made.
    Raises StackError for a name that is none.
    """

    def __init__(self, urls: Urls, name: str, *, within_s: float = ANSWER_WITHIN_S) -> None:
        self.urls = urls
        self.name = check_name(name)
        self.within_s = within_s

    @classmethod
    def create(cls, urls: Urls, name: str | None = None, *, within_s: float = ANSWER_WITHIN_S) -> "Namespace":
        """A namespace that exists from now on; with a name that nobody has if none is given.

        Raises StackError when the name is taken or a server does not do its part; what was made is dropped again.
        """
        names = cls(urls, new_name() if name is None else name, within_s=within_s)
        if name is not None and (old := leftovers(urls, name, within_s=within_s)):
            raise taken(name, old[0])
        made: list[Part] = []
        try:
            for part in parts(urls, within_s):  # one by one: of two who want one name, the first server decides
                part.create(names.name)
                made.append(part)
        except BaseException:  # Ctrl-C as well
            with suppress(StackError):
                side_by_side(lambda part: part.drop(names.name), made)
            raise
        return names

    def capture(
        self,
        tables: Sequence[str] = (),
        config: Mapping[str, str] | None = None,
        *,
        within_s: float = CAPTURE_WITHIN_S,
    ) -> None:
        """Capture every change of some tables into Kafka from now on; returns when it is streaming.

        Args:
            tables: `orders` or `schema.orders`, topics `<topic_prefix><schema>.<table>`. The tables
                `heartbeat` and `audit_context` always come along: changes of the first let Debezium give old log
                free, the second tells who changed something.
            config: settings of the connector other than those that the system itself applies.
            within_s: the longest that this may take; rows already there are copied first.

        Called again it captures these tables instead. Raises StackError for a table that is not there, and
        when the connector fails.
        """
        if "SHOWCASE_CONNECT_URL" not in self.urls:
            raise StackError("there is no Kafka Connect to capture changes with", "name connect among the servers")
        postgres, kafka = PostgresPart(self.urls, self.within_s), KafkaPart(self.urls, self.within_s)
        named = {HEARTBEAT_TABLE, *(table if "." in table else f"public.{table}" for table in tables)}
        if missing := sorted(named - (there := postgres.tables(self.name))):
            raise StackError(f"no table {', '.join(missing)} to capture", f"there are: {', '.join(sorted(there))}")
        # Before the connector: a consumer that subscribes to a topic that is not there yet waits long for it.
        captured = source(self.name, named | ({CONTEXT_TABLE} & there))
        kafka.make_topics([topic.name for topic in captured.topics])
        ConnectPart(self.urls, self.within_s).start(
            self.name,
            captured.config() | dict(config or {}),
            lambda: postgres.is_streaming(self.name),
            within_s,
        )

    def drop(self) -> None:
        """Remove everything of this namespace from all servers; safe to repeat.

        Raises StackError that names what could not be removed; all else is gone then.
        """
        errors = []
        every = parts(self.urls, self.within_s)
        # The connector first: it holds the replication slot and writes to the topics.
        connector = [part for part in every if part.server == "connect"]
        for some in (connector, [part for part in every if part not in connector]):
            try:
                side_by_side(lambda part: part.drop(self.name), some)
            except StackError as error:
                errors.append(error)
        if errors:
            raise together(f"namespace {self.name} is not wholly dropped: ", errors)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.drop()
        except StackError as left:
            if error is None:
                raise
            error.add_note(left.what)  # what went wrong first is what matters

    # -- what it is called in each system

    @property
    def postgres_url(self) -> str:
        """Of its own database."""
        return database_url(self.urls, in_server(self.name))

    @property
    def mongo_database(self) -> str:
        return in_server(self.name)

    @property
    def mongo_url(self) -> str:
        """With its database as the default one."""
        return url_of(self.urls, "SHOWCASE_MONGO_URL")._replace(path=f"/{self.mongo_database}").geturl()

    @property
    def rabbitmq_url(self) -> str:
        """Of its own virtual host."""
        return url_of(self.urls, "SHOWCASE_RABBITMQ_URL")._replace(path=f"/{in_server(self.name)}").geturl()

    @property
    def redis_prefix(self) -> str:
        """What every key begins with, in both Redis servers."""
        return f"{in_server(self.name)}:"

    @property
    def topic_prefix(self) -> str:
        """What every Kafka topic and consumer group begins with."""
        return f"{in_server(self.name)}."

    @property
    def connector(self) -> str:
        """Of the Debezium connector, its slot and its publication, once `capture` was called."""
        return in_server(self.name)

    @property
    def mail_domain(self) -> str:
        return self.name + TOP_LEVEL

    @property
    def env(self) -> dict[str, str]:
        """The variables by which a process of the system works in this namespace.

        Each service finds its own database role in `SHOWCASE_PAYMENT_POSTGRES_URL` and so on. The roles belong to
        the stack, as its own user does: they stay when the namespace goes, and what they may do in it goes with it.
        """
        env = {
            **self.urls,
            "SHOWCASE_REDIS_PREFIX": self.redis_prefix,
            "SHOWCASE_TOPIC_PREFIX": self.topic_prefix,
            "SHOWCASE_MAIL_DOMAIN": self.mail_domain,
        }
        if "SHOWCASE_POSTGRES_URL" in self.urls:
            env["SHOWCASE_POSTGRES_URL"] = self.postgres_url
            env |= service_urls(self.urls, in_server(self.name))
        if "SHOWCASE_MONGO_URL" in self.urls:
            env["SHOWCASE_MONGO_URL"] = self.mongo_url
            env["SHOWCASE_AUDIT_MONGO_URL"] = writer_url(self.urls, self.mongo_database)
        if "SHOWCASE_RABBITMQ_URL" in self.urls:
            env["SHOWCASE_RABBITMQ_URL"] = self.rabbitmq_url
        return env


def names_left(urls: Urls, *, within_s: float = ANSWER_WITHIN_S) -> list[str]:
    """The names of all namespaces in any of the servers, whoever made them. Raises StackError."""
    found = side_by_side(lambda part: part.traces(), parts(urls, within_s))
    return sorted({trace.name for traces in found for trace in traces})


def leftovers(urls: Urls, name: str, *, within_s: float = ANSWER_WITHIN_S) -> list[str]:
    """Everything of one namespace in any of the servers, such as `postgres database ns_x`. Raises StackError."""
    found = side_by_side(lambda part: part.traces(check_name(name)), parts(urls, within_s))
    return sorted(str(trace) for traces in found for trace in traces)


def reset(urls: Urls, *, within_s: float = ANSWER_WITHIN_S) -> list[str]:
    """Drop all namespaces, those in use as well, and the templates of other migrations than today's.

    Returns the names. Raises StackError that names what could not be dropped; all else is gone then.
    """
    errors: list[StackError] = []
    names: set[str] = set()

    def look(part: Part) -> None:
        try:
            names.update(trace.name for trace in part.traces())
        except StackError as error:
            errors.append(error)

    def drop(name: str) -> None:
        try:
            Namespace(urls, name, within_s=within_s).drop()
        except StackError as error:
            errors.append(error)

    every = parts(urls, within_s)
    side_by_side(look, every)
    with ThreadPoolExecutor(DROPPED_AT_ONCE, "reset") as pool:
        list(pool.map(drop, sorted(names)))
    for part in every:
        if isinstance(part, PostgresPart):
            try:
                part.remove_old_templates()
            except StackError as error:
                errors.append(error)
    if errors:
        raise together("", errors)
    return sorted(names)


def parts(urls: Urls, within_s: float) -> list[Part]:
    """What a namespace has in those servers that the URLs mention."""
    every: list[Part] = [
        PostgresPart(urls, within_s),
        MongoPart(urls, within_s),
        RedisPart(urls, within_s, server="redis-cache", variable="SHOWCASE_REDIS_CACHE_URL"),
        RedisPart(urls, within_s, server="redis-state", variable="SHOWCASE_REDIS_STATE_URL"),
        RabbitMQPart(urls, within_s),
        KafkaPart(urls, within_s),
        ConnectPart(urls, within_s),
        MailPart(urls, within_s),
    ]
    return [part for part in every if URL_VARIABLES[part.server][0] in urls]


def side_by_side(call: Callable[[Part], T], some: Sequence[Part]) -> list[T]:
    """Call something for each part, all at once, to the end of the last. Raises StackError for all that failed."""
    with ThreadPoolExecutor(max(1, len(some)), "namespace") as pool:
        futures = [pool.submit(call, part) for part in some]
    errors = [error for future in futures if isinstance(error := future.exception(), StackError)]
    if errors:
        raise together("", errors) from errors[0]
    return [future.result() for future in futures]


def together(what: str, errors: Sequence[StackError]) -> StackError:
    """Several errors as one."""
    remedies = dict.fromkeys(error.remedy for error in errors if error.remedy)
    return StackError(what + "; ".join(dict.fromkeys(error.what for error in errors)), "; ".join(remedies))
