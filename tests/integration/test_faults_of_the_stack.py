"""Every server of a whole stack is killed and paused, by the stack's own means and from outside.

All tests share one stack (`whole`), on which each finds every server ready.
"""

import os
import secrets
import signal
import time
from contextlib import closing

import psutil
import psycopg
import pytest
from pika.exceptions import AMQPError

from tests.integration.contents import GET, KEEPERS, KEPT, PUT
from tests.integration.stacks import phases, pids_of, runs, wait_until
from workshop.stack import SERVERS, NotReady, Phase, ServerStatus, StackError
from workshop.stack.local import ahead, rabbitmq
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.catalogue import SERVERS_BY_NAME
from workshop.stack.local.java import find_java

PROBE_WITHIN_S = 1.0
SLACK_S = 3.0  # two cores, eight servers
NAMED_STATES = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)


def status_of(backend: LocalBackend, name: str) -> ServerStatus:
    return next(status for status in backend.status() if status.name == name)


def processes_of(backend: LocalBackend, name: str) -> list[psutil.Process]:
    """A server's main process and all its descendants."""
    main = psutil.Process(pids_of(backend.folder)[name])
    return [main, *main.children(recursive=True)]


def test_every_server_is_ready_and_tells_version_memory_and_address(whole: LocalBackend) -> None:
    for status in whole.status():
        assert status.phase == Phase.READY
        assert status.version[0].isdigit()
        assert status.resident_bytes is not None
        assert 2**20 < status.resident_bytes < 2**30
        assert status.address.startswith("127.0.0.1:")
        assert status.detail == ""


@pytest.mark.parametrize("name", ahead.SERVERS)
def test_a_jvm_starts_by_what_was_laid_down(whole: LocalBackend, name: str) -> None:
    mapped = [one.path for one in processes_of(whole, name)[0].memory_maps()]
    assert (str(ahead.laid(name)) in mapped) == (find_java().major >= ahead.SINCE)


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_killed_from_outside_is_seen_dead_stays_dead_and_comes_back_with_its_data(
    whole: LocalBackend, name: str
) -> None:
    value = secrets.token_hex(4)
    if name in KEEPERS:
        PUT[name](whole.urls(), value)
        wait_until(lambda: name != "rabbitmq" or rabbitmq.queues_on_disk(whole.folder, [KEPT]))
    before, family = status_of(whole, name), processes_of(whole, name)
    os.kill(family[0].pid, signal.SIGKILL)
    wait_until(lambda: status_of(whole, name).detail == "killed by SIGKILL")
    wait_until(lambda: not any(runs(process) for process in family))
    dead = status_of(whole, name)
    assert (dead.phase, dead.pid, dead.resident_bytes, dead.address) == (Phase.DEAD, None, None, before.address)
    assert {other for other, phase in phases(whole).items() if phase == "dead"} == {name}
    with pytest.raises(NotReady):
        SERVERS_BY_NAME[name].probe(whole.urls(), PROBE_WITHIN_S)

    whole.act(name, "restart")
    after = status_of(whole, name)
    assert (after.phase, after.address, after.version, after.detail) == (
        Phase.READY,
        before.address,
        before.version,
        "",
    )
    assert after.pid not in (None, before.pid)
    if name in KEEPERS:
        assert GET[name](whole.urls())[-1] == value


@pytest.mark.parametrize("name", SERVERS)
def test_a_paused_server_is_seen_paused_and_answers_nothing_until_it_is_resumed(whole: LocalBackend, name: str) -> None:
    pid = status_of(whole, name).pid
    whole.act(name, "pause")
    assert {process.status() for process in processes_of(whole, name)} <= set(NAMED_STATES)
    assert (status_of(whole, name).phase, status_of(whole, name).pid) == (Phase.PAUSED, pid)
    began = time.monotonic()
    with pytest.raises(NotReady):
        SERVERS_BY_NAME[name].probe(whole.urls(), PROBE_WITHIN_S)
    assert time.monotonic() - began < PROBE_WITHIN_S + SLACK_S

    whole.act(name, "resume")
    assert (status_of(whole, name).phase, status_of(whole, name).pid) == (Phase.READY, pid)
    assert SERVERS_BY_NAME[name].probe(whole.urls(), 20 * PROBE_WITHIN_S) == status_of(whole, name).version


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_stopped_from_outside_is_seen_paused(whole: LocalBackend, name: str) -> None:
    pid = pids_of(whole.folder)[name]
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: phases(whole)[name] == Phase.PAUSED)
    os.kill(pid, signal.SIGCONT)
    wait_until(lambda: phases(whole)[name] == Phase.READY)


@pytest.mark.parametrize("name", ["postgres", "redis-cache", "mail"])
def test_kill_has_happened_and_is_written_down_when_it_returns_also_on_a_paused_server(
    whole: LocalBackend, name: str
) -> None:
    family = processes_of(whole, name)
    whole.act(name, "pause")
    whole.act(name, "kill")
    assert status_of(whole, name).phase == Phase.DEAD
    assert status_of(whole, name).detail == "killed by SIGKILL"
    assert not any(runs(process) for process in family)


@pytest.mark.parametrize("name", ["postgres", "redis-state"])
def test_a_server_that_runs_is_stopped_politely_by_a_restart(whole: LocalBackend, name: str) -> None:
    value = secrets.token_hex(4)
    PUT[name](whole.urls(), value)
    pid = status_of(whole, name).pid
    whole.act(name, "restart")
    assert status_of(whole, name).pid != pid
    assert GET[name](whole.urls())[-1] == value
    log = whole.folder.log(name).with_suffix(".log.1").read_text()
    assert {"postgres": "database system is shut down", "redis-state": "bye bye"}[name] in log


def test_a_dead_server_can_be_neither_paused_nor_killed(whole: LocalBackend) -> None:
    whole.act("redis-cache", "kill")
    for action in ("kill", "pause", "resume"):
        with pytest.raises(StackError, match="redis-cache is not running") as caught:
            whole.act("redis-cache", action)
        assert "workshop restart redis-cache" in caught.value.remedy


def test_a_pause_of_postgresql_reaches_the_connections_that_are_open(whole: LocalBackend) -> None:
    with closing(psycopg.connect(whole.urls()["SHOWCASE_POSTGRES_URL"])) as session:
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        whole.act("postgres", "pause")
        assert psutil.Process(row[0]).status() == psutil.STATUS_STOPPED
        whole.act("postgres", "resume")
        assert session.execute("SELECT 1").fetchone() == (1,)


def test_paused_connections_of_a_postgresql_that_was_killed_do_not_outlive_it(whole: LocalBackend) -> None:
    with closing(psycopg.connect(whole.urls()["SHOWCASE_POSTGRES_URL"])) as session:
        row = session.execute("SELECT pg_backend_pid()").fetchone()
        assert row is not None
        connection = psutil.Process(row[0])
        whole.act("postgres", "pause")
        os.kill(pids_of(whole.folder)["postgres"], signal.SIGKILL)
        wait_until(lambda: phases(whole)["postgres"] == Phase.DEAD)
        wait_until(lambda: not runs(connection))
        whole.act("postgres", "restart")
        assert phases(whole)["postgres"] == Phase.READY
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")


def test_no_step_on_a_connection_to_rabbitmq_waits_long_for_a_broker_that_was_paused(whole: LocalBackend) -> None:
    connection = rabbitmq.connect(whole.urls()["SHOWCASE_RABBITMQ_URL"], 3.0)
    whole.act("rabbitmq", "pause")
    began = time.monotonic()
    with pytest.raises(AMQPError):
        connection.channel()
    assert time.monotonic() - began < 12.0 + SLACK_S
    whole.act("rabbitmq", "resume")


def test_a_restart_that_fails_prints_the_end_of_the_log_and_the_next_one_succeeds(whole: LocalBackend) -> None:
    config = whole.folder.data("redis-state") / "appendonlydir" / "appendonly.aof.manifest"
    good = config.read_bytes()
    config.write_bytes(b"not a manifest\n")
    try:
        with pytest.raises(StackError, match=r"redis-state ended with exit code 1[\s\S]*AOF manifest file") as caught:
            whole.act("redis-state", "restart")
    finally:
        config.write_bytes(good)
    assert "workshop logs redis-state" in caught.value.remedy
    dead = status_of(whole, "redis-state")
    assert (dead.phase, dead.pid, dead.detail) == (Phase.DEAD, None, "redis-state ended with exit code 1")
    whole.act("redis-state", "restart")
    assert phases(whole)["redis-state"] == Phase.READY
