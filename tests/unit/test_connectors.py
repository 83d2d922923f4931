"""Connectors: what they are told to be, what a plan says, and how one that fails is brought back."""

import asyncio
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from showcase.audit.application.capture import (
    Capture,
    CaptureFailed,
    NoConnector,
    Part,
    Refused,
    Slot,
    Supervisor,
    Topic,
)
from showcase.audit.infrastructure.connectors import KafkaConnect, PostgresSource, SqlServerSource, cause
from showcase.audit.worker.capturing import capturing, gauges
from showcase.kernel.errors import Invalid, Unavailable
from showcase.platform.settings import Misconfigured
from tests.fakes import until

pytestmark = pytest.mark.anyio

SHOP = PostgresSource(
    name="shop", database="shop", tables=["public.orders", "public.audit_context"], audited=["public.orders"]
)
PRICES = SqlServerSource(name="shop")


def part(state: str, task: int | None = None, why: str = "") -> Part:
    return Part(task=task, state=state, why=why)


def parts(state: str, why: str = "") -> list[Part]:
    """A connector that runs, and its task."""
    return [part("RUNNING"), part(state, 0, why)]


def slot(wal_status: str = "reserved", *, lag_bytes: int = 0) -> Slot:
    return Slot(name="shop", active=True, wal_status=wal_status, lag_bytes=lag_bytes, lag_s=0.0, kept_bytes=lag_bytes)


@dataclass
class FakeConnect:
    """A Kafka Connect with one connector at the most."""

    current: dict[str, str] | None = None
    state: list[Part] | None = None
    wrong: Sequence[str] = ()
    becomes: list[Part] = field(default_factory=lambda: parts("RUNNING"))
    calls: list[str] = field(default_factory=list)
    is_away: bool = False

    async def config(self, name: str) -> Mapping[str, str] | None:
        self._called()
        return self.current

    async def status(self, name: str) -> Sequence[Part] | None:
        self._called()
        return self.state

    async def check(self, name: str, config: Mapping[str, str]) -> Sequence[str]:
        return self.wrong

    async def put(self, name: str, config: Mapping[str, str]) -> None:
        self._called("put")
        self.current = dict(config)
        if self.state is None:
            self.state = self.becomes

    async def stop(self, name: str) -> None:
        self._called("stop")
        self.state = [part("STOPPED")]

    async def pause(self, name: str) -> None:
        self._called("pause")
        self.state = [part("PAUSED"), part("PAUSED", 0)]

    async def resume(self, name: str) -> None:
        self._called("resume")
        self.state = self.becomes

    async def restart(self, name: str) -> None:
        self._called("restart")

    def _called(self, what: str = "") -> None:
        if self.is_away:
            raise Unavailable("Kafka Connect does not answer")
        if what:
            self.calls.append(what)


@dataclass
class FakeTopics:
    there: dict[str, Topic] = field(default_factory=dict)

    async def find(self, names: Sequence[str]) -> Mapping[str, Topic]:
        return {name: self.there[name] for name in names if name in self.there}

    async def make(self, topics: Sequence[Topic]) -> None:
        self.there |= {topic.name: topic for topic in topics if topic.name not in self.there}

    async def change(self, now: Topic, then: Topic) -> None:
        assert self.there[now.name] == now
        self.there[now.name] = then


@dataclass
class FakeCaptured:
    full: dict[str, bool] = field(default_factory=lambda: {"public.orders": True})
    seen: Slot | None = field(default_factory=slot)
    is_away: bool = False

    async def identities(self, tables: Sequence[str]) -> Mapping[str, bool]:
        return {table: self.full[table] for table in tables if table in self.full}

    async def slot(self, name: str) -> Slot | None:
        if self.is_away:
            raise Unavailable("the database does not answer")
        return self.seen


class World:
    """A capture of the shop's database, all of it in memory."""

    def __init__(self, source: PostgresSource | SqlServerSource = SHOP, within_s: float = 0.3) -> None:
        self.connect, self.topics, self.database = FakeConnect(), FakeTopics(), FakeCaptured()
        self.capture = Capture(
            source=source, connectors=self.connect, topics=self.topics, database=self.database, within_s=within_s
        )
        self.now = 0.0
        self.supervisor = Supervisor(capture=self.capture, clock=lambda: self.now, jitter=lambda pause_s: pause_s)

    def given(self, **changes: Any) -> "Capture":
        """The same, with a source that is to be another."""
        assert isinstance(self.capture.source, PostgresSource)
        return replace(self.capture, source=replace(self.capture.source, **changes))

    async def look(self, at_s: float, *state: Part) -> None:
        self.now = at_s
        if state:
            self.connect.state = list(state)
        await self.supervisor.look()


# -- settings


def test_no_setting_holds_a_secret_and_all_that_is_kept_secret_is_named() -> None:
    for source in (SHOP, PRICES):
        config = source.config()
        assert all(
            value.startswith("${env:") for key, value in config.items() if key.endswith(("password", "jaas.config"))
        )


def test_rows_come_whole_and_in_words_and_with_the_epoch() -> None:
    config = replace(SHOP, epoch=7).config()
    assert config["transforms.epoch.value.literal"] == "7"
    assert config["transforms.epoch.header"] == "epoch"
    assert (config["decimal.handling.mode"], config["time.precision.mode"]) == ("string", "isostring")
    assert (config["skipped.operations"], config["snapshot.mode"]) == ("none", "initial")
    assert int(config["producer.override.max.request.size"]) == 32 * 1024 * 1024
    assert int(config["producer.override.buffer.memory"]) >= int(config["producer.override.max.request.size"])


def test_the_heartbeat_table_always_comes_along_and_tables_are_no_patterns() -> None:
    assert SHOP.config()["table.include.list"] == r"public\.audit_context,public\.heartbeat,public\.orders"


def test_each_table_has_a_topic_and_the_structure_of_sql_servers_is_kept_for_ever() -> None:
    made = {topic.name: (topic.partitions, topic.kept) for topic in SHOP.topics}
    week = timedelta(days=7)
    assert made == {
        "shop.public.orders": (3, week),
        "shop.public.audit_context": (3, week),
        "shop.public.heartbeat": (1, week),
        "shop.transaction": (1, week),
        "__debezium-heartbeat.shop": (1, week),
    }
    prices = {topic.name: topic.kept for topic in PRICES.topics}
    assert prices["shop.pricing.dbo.price_list"] == week
    assert prices[PRICES.config()["schema.history.internal.kafka.topic"]] is None


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"name": "Shop"}, "lower-case letters"),
        ({"name": ""}, "1 to 63"),
        ({"name": "s" * 64}, "1 to 63"),
        ({"name": "shop; DROP"}, "names no replication slot"),
        ({"database": "a b"}, "names no database"),
        ({"tables": ["orders"]}, "`schema.table`"),
        ({"tables": ["public.orders,public.x"]}, "`schema.table`"),
        ({"tables": []}, "no table"),
        ({"audited": [".*"]}, "`schema.table`"),
        ({"epoch": -1}, "SHOWCASE_AUDIT_EPOCH"),
        ({"poll": timedelta(0)}, "poll interval"),
        ({"heartbeat": timedelta(seconds=-1)}, "heartbeat interval"),
        ({"partitions": 0}, "SHOWCASE_AUDIT_PARTITIONS"),
        ({"kept": timedelta(0)}, "SHOWCASE_AUDIT_RETENTION"),
        ({"max_bytes": 0}, "size of a change"),
    ],
)
def test_values_that_cannot_be_are_refused_with_one_line(change: dict[str, Any], says: str) -> None:
    with pytest.raises(Misconfigured, match=says) as refused:
        replace(SHOP, **change)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("change", [{"name": "shop/x"}, {"database": "x;y"}, {"tables": ["a.b.c"]}, {"partitions": 0}])
def test_sql_servers_values_are_looked_at_too(change: dict[str, Any]) -> None:
    with pytest.raises(Misconfigured):
        replace(PRICES, **change)


# -- plan and apply


async def test_a_plan_tells_all_that_is_missing_and_changes_nothing() -> None:
    world = World()
    plan = await world.capture.plan()
    assert plan.connector[0] == "connector shop: new"
    assert "  + slot.name = shop" in plan.connector
    assert "topic shop.public.orders: new, 3 partitions, kept 7 days" in plan.topics
    assert "topic shop.transaction: new, 1 partition, kept 7 days" in plan.topics
    assert (world.connect.calls, world.topics.there) == ([], {})


async def test_applied_twice_is_applied_once() -> None:
    world = World()
    assert await world.capture.apply()
    assert not await world.capture.plan()
    assert not await world.capture.apply()
    assert world.connect.calls == ["put"]


async def test_a_plan_tells_what_was_and_what_will_be() -> None:
    world = World()
    await world.capture.apply()
    assert world.connect.current is not None
    world.connect.current |= {"by.hand": "1"}
    del world.connect.current["tasks.max"]
    plan = await world.given(poll=timedelta(milliseconds=500), partitions=4, kept=timedelta(days=8)).plan()
    assert plan.connector == [
        "connector shop: to change",
        "  - by.hand = 1",
        "  ~ poll.interval.ms = 10 → 500",
        "  + tasks.max = 1",
    ]
    assert "topic shop.public.orders: 3 → 4 partitions, kept 7 days → kept 8 days" in plan.topics
    assert "topic shop.transaction: kept 7 days → kept 8 days" in plan.topics


async def test_new_settings_are_put_while_it_is_stopped_so_that_no_old_state_passes_for_new() -> None:
    world = World()
    await world.capture.apply()
    await world.given(epoch=1, partitions=4).apply()
    assert world.connect.calls == ["put", "stop", "put", "resume"]
    assert world.topics.there["shop.public.orders"].partitions == 4


async def test_a_topic_that_would_lose_records_by_their_bytes_is_told_and_mended() -> None:
    world = World()
    await world.capture.apply()
    name = "shop.public.orders"
    world.topics.there[name] = replace(world.topics.there[name], max_bytes=1_000_000)
    plan = await world.capture.apply()
    assert plan.topics == [f"topic {name}: kept 7 days, 1,000,000 bytes a partition at the most → kept 7 days"]
    assert world.topics.there[name].max_bytes is None


@pytest.mark.parametrize("held", ["pause", "stop"])
async def test_one_that_an_operator_has_paused_or_stopped_gets_its_settings_and_stays_so(held: str) -> None:
    world = World()
    await world.capture.apply()
    await getattr(world.connect, held)("shop")
    await world.given(epoch=1).apply()
    assert world.connect.calls == ["put", held, "put"]
    assert world.connect.current is not None
    assert world.connect.current["transforms.epoch.value.literal"] == "1"


async def test_fewer_partitions_are_refused_in_one_line_before_anything_changes() -> None:
    world = World()
    await world.capture.apply()
    with pytest.raises(Refused, match=r"partitions grow only: shop\.public\.audit_context has 3, not 1") as refused:
        await world.given(partitions=1, epoch=1).apply()
    assert "\n" not in refused.value.detail
    assert world.connect.calls == ["put"]


@pytest.mark.parametrize(
    ("full", "says"),
    [
        ({"public.orders": False}, "ALTER TABLE public.orders REPLICA IDENTITY FULL"),
        ({}, "no table public.orders to audit: `showcase migrate`"),
    ],
)
async def test_tables_that_do_not_tell_rows_as_they_were_are_named_with_what_mends_them(
    full: dict[str, bool], says: str
) -> None:
    world = World()
    world.database.full = full
    assert says in "".join((await world.capture.plan()).refused)
    with pytest.raises(Refused, match=says):
        await world.capture.apply()
    assert (world.connect.calls, world.topics.there) == ([], {})


async def test_all_that_kafka_connect_finds_wrong_is_told_a_line_each_and_nothing_is_made() -> None:
    world = World()
    world.connect.wrong = ["tasks.max: no number", "database.hostname: unknown"]
    with pytest.raises(Refused, match=r"refuses the settings of shop:\n  tasks.max: no number\n  database.hostname"):
        await world.capture.apply()
    assert (world.connect.calls, world.topics.there) == ([], {})


async def test_a_task_that_fails_ends_the_waiting_with_its_reason() -> None:
    world = World(within_s=5)
    world.connect.becomes = parts("FAILED", "no such slot")
    with pytest.raises(CaptureFailed, match="shop/0 has failed: no such slot"):
        await world.capture.apply()


async def test_a_connector_without_a_task_does_not_pass_for_one_that_runs() -> None:
    world = World()
    world.connect.becomes = [part("RUNNING")]
    with pytest.raises(CaptureFailed, match=r"after 0\.3 s shop does not run"):
        await world.capture.apply()


async def test_what_was_not_applied_can_be_neither_paused_nor_restarted() -> None:
    world = World()
    for call in (world.capture.status, world.capture.pause, world.capture.resume, world.capture.restart):
        with pytest.raises(NoConnector, match="connectors apply"):
            await call()


async def test_restart_starts_only_what_has_failed() -> None:
    world = World()
    await world.capture.apply()
    assert await world.capture.restart() == []
    world.connect.state = parts("FAILED", "away")
    assert [one.task for one in await world.capture.restart()] == [0]
    assert world.connect.calls == ["put", "restart"]


# -- supervision


async def test_a_failed_task_is_restarted_after_growing_pauses_up_to_the_longest() -> None:
    world = World()
    restarted_at: list[int] = []
    for second in range(400):
        before = world.supervisor.restarts
        await world.look(second, *parts("FAILED", "away"))
        if world.supervisor.restarts > before:
            restarted_at.append(second)
    gaps = [later - earlier for earlier, later in itertools.pairwise(restarted_at)]
    # A second passes between a restart and the look that finds it has failed again.
    assert [restarted_at[0], *gaps] == [1, 3, 5, 9, 17, 33, 61, 61, 61, 61, 61]


async def test_what_ran_long_enough_begins_with_the_first_pause_again_and_not_before() -> None:
    for ran_s, pause_s in ((100.0, 4.0), (301.0, 1.0)):
        world = World()
        for at_s in (0, 1, 2, 4):
            await world.look(at_s, *parts("FAILED"))
        assert world.supervisor.restarts == 2
        await world.look(10, *parts("RUNNING"))
        await world.look(10 + ran_s)
        with capture_logs() as logs:
            await world.look(1_000, *parts("FAILED"))
        assert [entry["restart_in_s"] for entry in logs] == [pause_s]


async def test_each_failure_is_logged_with_its_reason() -> None:
    world = World()
    with capture_logs() as logs:
        await world.look(0, *parts("FAILED", "the publication is gone"))
        await world.look(0.5)
        await world.look(1)
        await world.look(2, *parts("RUNNING"))
        await world.look(3)
    assert [(entry["event"], entry["part"]) for entry in logs] == [
        ("has failed", "shop/0"),
        ("restarted", "shop/0"),
        ("runs again", "shop/0"),
    ]
    assert logs[0]["why"] == "the publication is gone"


async def test_a_connector_that_has_failed_itself_is_restarted_as_well() -> None:
    world = World()
    await world.look(0, part("FAILED"))
    await world.look(2)
    assert world.connect.calls == ["restart"]


@pytest.mark.parametrize("seen", [slot("lost"), None])
async def test_a_lost_slot_is_told_once_and_not_restarted_for_ever(seen: Slot | None) -> None:
    world = World()
    await world.look(0, *parts("RUNNING"))
    world.database.seen = seen
    with capture_logs() as logs:
        for second in range(100):
            await world.look(second, *parts("FAILED", "slot"))
    [entry] = logs
    assert entry["log_level"] == "error"
    assert "slot is lost" in entry["event"]
    assert "snapshot" in entry["remedy"]
    assert world.supervisor.restarts == 0


async def test_a_slot_that_was_not_made_yet_is_no_lost_one() -> None:
    world = World()
    world.database.seen = None
    for second in range(3):
        await world.look(second, *parts("FAILED", "the database is away"))
    assert world.supervisor.restarts == 1


async def test_a_new_slot_after_a_lost_one_is_looked_after_again() -> None:
    world = World()
    world.database.seen = slot("lost")
    await world.look(0, *parts("FAILED"))
    world.database.seen = slot()
    for second in (1, 2, 3):
        await world.look(second)
    assert world.supervisor.restarts == 1


async def test_a_database_that_is_away_keeps_no_restart_back() -> None:
    world = World()
    world.database.is_away = True
    with capture_logs() as logs:
        for second in range(3):
            await world.look(second, *parts("FAILED"))
    assert world.supervisor.restarts == 1
    assert [entry["event"] for entry in logs].count("the database does not say how its slot is") == 1


async def test_what_is_paused_is_left_alone() -> None:
    world = World()
    for second in range(100):
        await world.look(second, part("PAUSED"), part("PAUSED", 0))
    assert world.connect.calls == []


async def test_sql_server_is_looked_after_without_a_slot() -> None:
    world = World(PRICES)
    world.database.is_away = True
    for second in range(3):
        await world.look(second, *parts("FAILED"))
    assert world.supervisor.restarts == 1


async def test_the_worker_waits_for_a_connect_that_is_away_and_goes_on_where_it_was() -> None:
    world, stop = World(), asyncio.Event()
    world.connect.state = parts("RUNNING")
    world.connect.is_away = True
    with capture_logs() as logs:
        task = asyncio.ensure_future(capturing([world.capture], look_s=0.01)(stop))

        async def said(event: str) -> bool:
            return any(entry["event"] == event for entry in logs)

        await until(lambda: said("waiting for a server"))
        world.connect.is_away = False
        await until(lambda: said("ready"))
        stop.set()
        await task


async def test_gauges_tell_lag_and_what_runs_and_a_connect_that_is_away_runs_nothing() -> None:
    world = World()
    world.connect.state = parts("FAILED")
    world.database.seen = slot(lag_bytes=42)
    values = {gauge.name.removeprefix("showcase_audit_"): gauge.values for gauge in await gauges([world.capture])}
    assert values == {
        "slot_lag_bytes": {"shop": 42},
        "slot_active": {"shop": True},
        "connector_running": {"shop": 1, "shop/0": 0},
    }
    world.connect.is_away = True
    assert (await gauges([world.capture]))[2].values == {"shop": 0}


# -- the REST API


@dataclass
class Answers:
    """A Kafka Connect that answers as it is told, one answer a request, the last one for ever."""

    answers: list[httpx.Response]
    asked: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@pytest.fixture
def rest(monkeypatch: pytest.MonkeyPatch) -> Answers:
    """What every client of this test speaks to."""
    answers = Answers([])
    client = httpx.AsyncClient

    def made(**options: Any) -> httpx.AsyncClient:
        return client(**{**options, "transport": httpx.MockTransport(answers)})

    monkeypatch.setattr(httpx, "AsyncClient", made)
    return answers


CONNECT = "http://user:s%40cret@connect.test:8083"


async def test_a_worker_that_shares_out_its_work_is_asked_again(rest: Answers) -> None:
    rest.answers = [httpx.Response(409), httpx.Response(409), httpx.Response(204)]
    await KafkaConnect(CONNECT).stop("shop.sqlserver")
    assert [str(request.url) for request in rest.asked] == [
        "http://connect.test:8083/connectors/shop.sqlserver/stop"
    ] * 3
    assert httpx.BasicAuth("user", "s@cret")._auth_header == rest.asked[0].headers["authorization"]


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (httpx.Response(409), Unavailable, "does not answer: TimeoutError"),
        (httpx.Response(500, json={"message": "Request timed out.\nWorker"}), Unavailable, "Request timed out. Worker"),
        (httpx.Response(400, json={"message": "nonsense"}), Invalid, "refuses that: nonsense"),
        (httpx.Response(401), Invalid, "SHOWCASE_CONNECT_URL"),
        (httpx.Response(200, text="<html>"), Unavailable, "does not answer"),
    ],
)
@pytest.mark.timeout(20)  # it has an end
async def test_what_goes_wrong_is_told_in_one_line_without_the_password(
    rest: Answers, answer: httpx.Response, error: type[Invalid | Unavailable], says: str
) -> None:
    rest.answers = [answer]
    with pytest.raises(error, match=says) as told:
        await KafkaConnect(CONNECT, timeout_s=0.3).config("shop")
    assert "\n" not in told.value.detail
    assert "cret" not in told.value.detail


async def test_a_connector_that_is_not_there_has_neither_settings_nor_state(rest: Answers) -> None:
    rest.answers = [httpx.Response(404)]
    connect = KafkaConnect(CONNECT)
    assert (await connect.config("shop"), await connect.status("shop")) == (None, None)


async def test_a_state_tells_the_cause_of_a_failure(rest: Answers) -> None:
    trace = (
        "org.x.ConnectException: stopped\n\tat a.b\nCaused by: org.y.E: no\n\tat c\nCaused by: org.z.PSQL: gone\n\tat d"
    )
    task = {"id": 0, "state": "FAILED", "worker_id": "w:1", "trace": trace}
    rest.answers = [httpx.Response(200, json={"connector": {"state": "RUNNING", "worker_id": "w:1"}, "tasks": [task]})]
    assert await KafkaConnect(CONNECT).status("shop") == [
        Part(task=None, state="RUNNING", worker="w:1"),
        Part(task=0, state="FAILED", why="org.z.PSQL: gone", worker="w:1"),
    ]
    assert (cause("java.E: only\n\tat x"), cause("")) == ("java.E: only", "no reason given")
