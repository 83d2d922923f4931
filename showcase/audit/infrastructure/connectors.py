"""Kafka Connect: what Debezium's connectors are to be, as typed settings, and its REST API.

Connect's API shows settings to whoever asks, so a secret stands there as `${env:POSTGRES_PASSWORD}`: where the database
is, and who reads it, the Connect worker knows by its own environment (KIP-887).

https://debezium.io/documentation/reference/3.6/connectors/postgresql.html
https://debezium.io/documentation/reference/3.6/connectors/sqlserver.html
"""

import asyncio
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

import httpx

from showcase.audit.application.capture import Part, Topic
from showcase.kernel.changes import EPOCH_HEADER
from showcase.kernel.errors import Invalid, Unavailable
from showcase.platform.settings import Misconfigured

HEARTBEAT_TABLE = "public.heartbeat"
"""A row that the connector itself changes: a database in which nothing else happens keeps no log for it."""
_BEAT = f"UPDATE {HEARTBEAT_TABLE} SET beat_at = now() WHERE id = 1"  # noqa: S608 - nothing in it is from outside
CONTEXT_TABLE = "public.audit_context"
"""Who did what, in the same transaction."""
HEARTBEAT_TOPIC = "__debezium-heartbeat."
"""Debezium puts this before its topic prefix."""
MIB = 1024 * 1024
CHECKED_WITHIN_S = 60.0
"""The connector tries to reach its database when its settings are looked at: 15 s for a SQL Server that is away."""

SnapshotMode = Literal["initial", "no_data", "when_needed", "always"]
Json = dict[str, Any]

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_TABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*\.[A-Za-z_][A-Za-z0-9_$]*")
_DATABASE = re.compile(r"[A-Za-z_][A-Za-z0-9_$-]{0,62}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSource:
    """A PostgreSQL database, read by its log (`pgoutput`).

    Attributes:
        name: of the connector, its slot, its publication and its topics: `<name>.<schema>.<table>`.
        tables: captured ones, `public.orders`; that of the heartbeat comes along.
        audited: those of them whose rows are needed as they were before a change.
        epoch: which life of the database this is: raised when it was restored, since its log begins again.
        snapshot: what is read of rows that were there before.
        poll: how long a change waits in the connector. Debezium's default, 500 ms, is the delay that people notice.
        heartbeat: how often it changes its own row, and confirms to the database how far it has read.
        max_bytes: of one change as it is sent: a row before and after.
        partitions: of each table's topic; that of the heartbeat has one.
        kept: how long a topic keeps a change.

    Raises Misconfigured for values that cannot be.
    """

    name: str
    database: str
    tables: Sequence[str]
    audited: Sequence[str] = ()
    epoch: int = 0
    snapshot: SnapshotMode = "initial"
    poll: timedelta = timedelta(milliseconds=10)
    heartbeat: timedelta = timedelta(seconds=5)
    max_bytes: int = 32 * MIB
    partitions: int = 3
    kept: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise Misconfigured(
                f"{self.name!r} names no replication slot: 1 to 63 lower-case letters, digits and underscores, "
                "no digit first; it is SHOWCASE_TOPIC_PREFIX without its dot"
            )
        _check(self.database, self.tables, self.audited, self.epoch)
        _check_numbers(self.poll, self.heartbeat, self.max_bytes, self.partitions, self.kept)

    @property
    def connector(self) -> str:
        return self.name

    @property
    def slot(self) -> str:
        return self.name

    @property
    def captured(self) -> Sequence[str]:
        """All tables that are captured, in alphabetical order."""
        return sorted({HEARTBEAT_TABLE, *self.tables})

    @property
    def topics(self) -> Sequence[Topic]:
        partitions = dict.fromkeys(self.tables, self.partitions)
        return [
            *(_topic(f"{self.name}.{table}", self.kept, partitions.get(table, 1)) for table in self.captured),
            *_internal(self.name, self.kept),
        ]

    def config(self) -> dict[str, str]:
        """The connector's settings."""
        return {
            "connector.class": "io.debezium.connector.postgresql.PostgresConnector",
            "database.hostname": "${env:POSTGRES_HOST}",
            "database.port": "${env:POSTGRES_PORT}",
            "database.user": "${env:POSTGRES_USER}",
            "database.password": "${env:POSTGRES_PASSWORD}",
            "database.dbname": self.database,
            "plugin.name": "pgoutput",
            "slot.name": self.slot,
            "slot.drop.on.stop": "false",
            "slot.max.retries": "60",
            "slot.retry.delay.ms": "500",
            "publication.name": self.name,
            "publication.autocreate.mode": "filtered",
            "table.include.list": ",".join(map(re.escape, self.captured)),
            "heartbeat.action.query": _BEAT,
            **_shared(self.name, self.snapshot, self.poll, self.heartbeat, self.max_bytes, self.epoch),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SqlServerSource:
    """A SQL Server database, read by the change tables that its Agent fills.

    It has no slot, and always tells a row as it was. The structure of its tables at each point of the log the connector
    keeps in a topic of its own, which must never lose anything.

    Attributes:
        name: of the topics: `<name>.<database>.<schema>.<table>`; of the connector, with `.sqlserver` after it.

    For the others, and what is raised, see PostgresSource.
    """

    name: str
    database: str = "pricing"
    tables: Sequence[str] = ("dbo.supplier", "dbo.price_list")
    epoch: int = 0
    snapshot: SnapshotMode = "initial"
    poll: timedelta = timedelta(milliseconds=100)
    heartbeat: timedelta = timedelta(seconds=5)
    max_bytes: int = 32 * MIB
    partitions: int = 3
    kept: timedelta = timedelta(days=7)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}", self.name):
            raise Misconfigured(
                f"{self.name!r} begins no topic's name: letters, digits, dots, dashes and underscores; "
                "it is SHOWCASE_TOPIC_PREFIX without its dot"
            )
        _check(self.database, self.tables, (), self.epoch)
        _check_numbers(self.poll, self.heartbeat, self.max_bytes, self.partitions, self.kept)

    @property
    def connector(self) -> str:
        return f"{self.name}.sqlserver"

    @property
    def slot(self) -> str:
        return ""

    @property
    def audited(self) -> Sequence[str]:
        return ()

    @property
    def history(self) -> str:
        """The topic in which the connector keeps the structure of the tables."""
        return f"{self.name}.{self.database}.schema-history"

    @property
    def topics(self) -> Sequence[Topic]:
        return [
            *(_topic(f"{self.name}.{self.database}.{table}", self.kept, self.partitions) for table in self.tables),
            *_internal(self.name, self.kept),
            _topic(self.name, self.kept),  # news of the tables' structure, for whoever cares
            _topic(self.history, None),
        ]

    def config(self) -> dict[str, str]:
        """The connector's settings."""
        login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
        history = "schema.history.internal"
        return {
            "connector.class": "io.debezium.connector.sqlserver.SqlServerConnector",
            "database.hostname": "${env:SQLSERVER_HOST}",
            "database.port": "${env:SQLSERVER_PORT}",
            "database.user": "${env:SQLSERVER_USER}",
            "database.password": "${env:SQLSERVER_PASSWORD}",
            "database.encrypt": "false",  # the server of the workshop has no certificate that anybody could check
            "database.names": self.database,
            "table.include.list": ",".join(map(re.escape, self.tables)),
            "snapshot.isolation.mode": "snapshot",
            f"{history}.kafka.topic": self.history,
            f"{history}.kafka.bootstrap.servers": "${env:SQLSERVER_KAFKA}",
            **{
                f"{history}.{client}.{key}": value
                for client in ("producer", "consumer")
                for key, value in {**login, "sasl.jaas.config": "${env:SQLSERVER_JAAS}"}.items()
            },
            **_shared(self.name, self.snapshot, self.poll, self.heartbeat, self.max_bytes, self.epoch),
        }


def _shared(
    name: str, snapshot: SnapshotMode, poll: timedelta, heartbeat: timedelta, max_bytes: int, epoch: int
) -> dict[str, str]:
    """What holds for any database."""
    return {
        "tasks.max": "1",
        "topic.prefix": name,
        "snapshot.mode": snapshot,
        "exactly.once.support": "required",
        "provide.transaction.metadata": "true",
        "poll.interval.ms": _ms(poll),
        "heartbeat.interval.ms": _ms(heartbeat),
        "decimal.handling.mode": "string",
        "time.precision.mode": "isostring",  # else a date is a number of days, and a timestamp one of microseconds
        "skipped.operations": "none",
        "tombstones.on.delete": "false",
        "retriable.restart.connector.wait.ms": "1000",
        "max.queue.size.in.bytes": str(2 * max_bytes),  # 8,192 changes, the default, may be 8,192 large ones
        "producer.override.max.request.size": str(max_bytes),
        "producer.override.buffer.memory": str(2 * max_bytes),
        "producer.override.compression.type": "none",
        # A transaction that a task leaves open when it fails keeps readers waiting, and its own end: 60 s by default.
        "producer.override.transaction.timeout.ms": "15000",
        "transforms": "epoch",
        "transforms.epoch.type": "org.apache.kafka.connect.transforms.InsertHeader",
        "transforms.epoch.header": EPOCH_HEADER,
        "transforms.epoch.value.literal": str(epoch),
    }


def _topic(name: str, kept: timedelta | None, partitions: int = 1) -> Topic:
    return Topic(name=name, partitions=partitions, kept=kept)


def _internal(name: str, kept: timedelta) -> list[Topic]:
    """Where transactions begin and end, and that the connector is alive."""
    return [_topic(f"{name}.transaction", kept), _topic(f"{HEARTBEAT_TOPIC}{name}", kept)]


def _check(database: str, tables: Sequence[str], audited: Sequence[str], epoch: int) -> None:
    """Raises Misconfigured."""
    if not _DATABASE.fullmatch(database):
        raise Misconfigured(f"{database!r} names no database: letters, digits, `_`, `-` and `$`")
    for table in (*tables, *audited):
        if not _TABLE.fullmatch(table):
            raise Misconfigured(f"{table!r} names no table: `schema.table`")
    if not tables:
        raise Misconfigured("there is no table to capture")
    if epoch < 0:
        raise Misconfigured(f"the epoch (SHOWCASE_AUDIT_EPOCH) is a whole number from 0 on, not {epoch}")


def _check_numbers(poll: timedelta, heartbeat: timedelta, max_bytes: int, partitions: int, kept: timedelta) -> None:
    """Raises Misconfigured."""
    millisecond = timedelta(milliseconds=1)
    for what, value, least in (
        ("the poll interval", poll, millisecond),
        ("the heartbeat interval", heartbeat, millisecond),
        ("the retention of a topic (SHOWCASE_AUDIT_RETENTION)", kept, timedelta(seconds=1)),
    ):
        if value < least:
            raise Misconfigured(f"{what} is at least {least.total_seconds():g} s, not {value.total_seconds():g} s")
    for what, number, fewest in (
        ("the size of a change", max_bytes, MIB),
        ("the number of partitions (SHOWCASE_AUDIT_PARTITIONS)", partitions, 1),
    ):
        if number < fewest:
            raise Misconfigured(f"{what} is at least {fewest:,}, not {number:,}")


def _ms(duration: timedelta) -> str:
    return str(round(duration.total_seconds() * 1000))


class KafkaConnect:
    """The REST API of Kafka Connect (`application.capture.Connectors`).

    Args:
        url: `http://user:password@host:8083`.
        timeout_s: the longest that a call may take, repeated ones included; CHECKED_WITHIN_S for a check.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        parts = urlsplit(url)
        self._address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._login = (unquote(parts.username or ""), unquote(parts.password or ""))
        self._timeout_s = timeout_s

    async def config(self, name: str) -> Mapping[str, str] | None:
        found = await self._ask("GET", f"/connectors/{quote(name)}/config")
        return None if found is None else {key: str(value) for key, value in found.items() if key != "name"}

    async def status(self, name: str) -> Sequence[Part] | None:
        found = await self._ask("GET", f"/connectors/{quote(name)}/status")
        if found is None:
            return None
        return [_part(None, found["connector"]), *(_part(int(task["id"]), task) for task in found["tasks"])]

    async def check(self, name: str, config: Mapping[str, str]) -> Sequence[str]:
        plugin = config["connector.class"].rpartition(".")[2]
        # Asked for on its own: when PUT finds a mistake, Connect 4.3 answers with a NullPointerException.
        path = f"/connector-plugins/{plugin}/config/validate"
        found = await self._ask("PUT", path, {**config, "name": name}, within_s=CHECKED_WITHIN_S)
        if found is None:
            return [f"it has no {plugin}: is Debezium on its plugin.path?"]
        values = [one["value"] for one in found["configs"] if one["value"]]
        return list(dict.fromkeys(f"{value['name']}: {_line(error)}" for value in values for error in value["errors"]))

    async def put(self, name: str, config: Mapping[str, str]) -> None:
        await self._ask("PUT", f"/connectors/{quote(name)}/config", config)

    async def stop(self, name: str) -> None:
        await self._ask("PUT", f"/connectors/{quote(name)}/stop")

    async def pause(self, name: str) -> None:
        await self._ask("PUT", f"/connectors/{quote(name)}/pause")

    async def resume(self, name: str) -> None:
        await self._ask("PUT", f"/connectors/{quote(name)}/resume")

    async def restart(self, name: str) -> None:
        await self._ask("POST", f"/connectors/{quote(name)}/restart?includeTasks=true&onlyFailed=true")

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return ssl.create_default_context()  # once: making it takes longer than the call

    async def _ask(self, method: str, path: str, body: object = None, *, within_s: float | None = None) -> Any:
        """What Connect answers; None for "there is none". Raises Unavailable, Invalid.

        While its workers share out the work it answers 409 to whatever changes something: that is asked again.
        """
        within_s, pause_s = within_s or self._timeout_s, 0.05
        try:
            async with (
                asyncio.timeout(within_s),
                httpx.AsyncClient(auth=self._login, timeout=within_s, verify=self._tls) as client,
            ):
                while True:
                    answer = await client.request(method, self._address + path, json=body)
                    if answer.status_code != httpx.codes.CONFLICT:
                        break
                    await asyncio.sleep(pause_s)
                    pause_s = min(1.0, 2 * pause_s)
                if answer.status_code == httpx.codes.NOT_FOUND:
                    return None
                if answer.is_success:
                    return answer.json() if answer.content else {}
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, ValueError) as error:
            # Its name, not the error itself, which may hold the URL.
            raise Unavailable(f"Kafka Connect does not answer: {type(error).__name__}") from error
        complaint = _complaint(answer)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise Invalid("Kafka Connect does not know this user and password: see SHOWCASE_CONNECT_URL")
        if answer.is_server_error:
            raise Unavailable(f"Kafka Connect cannot do that: {complaint}")
        raise Invalid(f"Kafka Connect refuses that: {complaint}")


def _part(task: int | None, status: Json) -> Part:
    why = cause(status.get("trace") or "") if status["state"] == "FAILED" else ""
    return Part(task=task, state=status["state"], why=why, worker=str(status.get("worker_id", "")))


def cause(trace: str) -> str:
    """What a stack trace of Java comes from, in one line: its last cause, which says more than the wrapping around."""
    lines = trace.strip().splitlines() or ["no reason given"]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    return _line(causes[-1] if causes else lines[0])


def _complaint(answer: httpx.Response) -> str:
    """What Connect says is wrong, in one line."""
    try:
        return _line(str(answer.json()["message"]))
    except (ValueError, KeyError, TypeError):
        return _line(answer.text or answer.reason_phrase)


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
