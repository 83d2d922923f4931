"""No process of a stack is ever lost: whoever is killed, and whenever, the next command finds what is left.

What runs is looked up in /proc by the tests themselves; see `stacks.find_below`.
"""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest

from tests.integration.stacks import (
    LIGHT,
    WORKSHOP,
    Ended,
    Home,
    describe,
    ended,
    find_below,
    phases,
    pids_of,
    processes_below,
    runs,
    supervisor_of,
    supervisors,
    wait_until,
)
from workshop.stack import SERVERS, Phase, StackError
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import Folder
from workshop.stack.local.server import server_user
from workshop.stack.model import credentials, url_of

UP = """
names = sys.argv[2].split(",")
try:
    LocalBackend(Folder(Path(sys.argv[1])), names).up()
except StackError as error:
    sys.exit(error.what)
except KeyboardInterrupt:
    sys.exit(130)
"""
MIXED = ("postgres", "mongo", "redis-state", "rabbitmq", "mail")
"""A server that runs as another user, two that hide their environment, one with a daemon of its own."""


def start_up(home: Home, names: tuple[str, ...] = MIXED) -> "subprocess.Popen[str]":
    """Start to bring a stack up, in a process of its own."""
    return home.python(UP, home.folder.path, ",".join(names))


def kill_supervisor(home: Home) -> None:
    supervisor = supervisor_of(home.folder)
    supervisor.kill()
    wait_until(lambda: not home.backend().is_up())


# -- the supervisor is killed


def test_servers_without_a_supervisor_are_told_and_the_next_up_starts_afresh(home: Home) -> None:
    backend = home.backend(["redis-state", "mail", "postgres"])
    backend.up()
    urls, before = backend.urls(), pids_of(home.folder)
    killed = [psutil.Process(pid) for pid in before.values()]
    kill_supervisor(home)
    for status in backend.status():
        if status.name in before:
            assert (status.phase, status.pid) == (Phase.READY, before[status.name])
            assert "supervisor is gone" in status.detail
    with pytest.raises(StackError, match="not up"):
        backend.urls()
    with pytest.raises(StackError, match="not up"):
        backend.act("mail", "restart")

    backend.up()
    assert backend.urls() == urls
    assert set(pids_of(home.folder).values()).isdisjoint(before.values())
    assert not any(runs(process) for process in killed)
    assert all(status.detail == "" for status in backend.status())


def test_a_killed_postgresql_that_nobody_has_waited_for_is_no_obstacle(home: Home) -> None:
    backend = home.backend(["postgres"])
    backend.up()
    backend.down()
    with subprocess.Popen(["sleep", "60"], user=server_user()) as zombie:
        zombie.send_signal(signal.SIGKILL)
        wait_until(lambda: psutil.Process(zombie.pid).status() == psutil.STATUS_ZOMBIE)
        data = postgres_folder(home) / "data"
        (data / "postmaster.pid").write_text(f"{zombie.pid}\n{data}\n")
        backend.up()
    assert phases(backend) == {"postgres": "ready"}


def postgres_folder(home: Home) -> Path:
    """Where PostgreSQL's data lies."""
    return home.folder.postgres if os.getuid() == 0 else home.folder.data("postgres")


def test_a_server_that_died_after_its_supervisor_is_told_dead(home: Home) -> None:
    backend = home.backend()
    backend.up()
    kill_supervisor(home)
    os.kill(pids_of(home.folder)["mail"], signal.SIGKILL)
    wait_until(lambda: phases(backend)["mail"] == Phase.DEAD)
    assert phases(backend)["redis-state"] == Phase.READY


def test_servers_without_a_supervisor_can_still_be_paused_and_killed(home: Home) -> None:
    backend = home.backend()
    backend.up()
    kill_supervisor(home)
    backend.act("mail", "pause")
    assert phases(backend)["mail"] == Phase.PAUSED
    backend.act("mail", "kill")
    assert phases(backend)["mail"] == Phase.DEAD


@pytest.mark.parametrize("content", [None, b"", b"[]", b'{"servers": {"redis-state": {"pid": 1'])
def test_down_finds_everything_without_a_state_file_too(home: Home, content: bytes | None) -> None:
    backend = home.backend(["postgres", "redis-state", "rabbitmq"] if content is None else ["redis-state"])
    backend.up()
    if content is None:
        with psycopg.connect(backend.urls()["SHOWCASE_POSTGRES_URL"]):
            backend.act("postgres", "pause")  # its backends cannot even end by themselves
            kill_supervisor(home)
            os.kill(pids_of(home.folder)["postgres"], signal.SIGKILL)
            home.folder.state.unlink()
            assert {process.name() for process in find_below(home.path)} >= {"postgres", "redis-server", "epmd"}
            backend.down()
    else:
        kill_supervisor(home)
        home.folder.state.write_bytes(content)
        backend.down()
    assert home.processes() == []


def test_a_supervisor_that_is_stopped_is_ended_by_down(home: Home) -> None:
    backend = home.backend()
    backend.up()
    supervisor_of(home.folder).suspend()
    backend.down()
    assert home.processes() == []


@pytest.mark.parametrize("delay_s", [0.0, 0.2, 0.5, 1.0, 2.0, 4.0])
def test_down_leaves_nothing_of_an_up_that_was_killed_at_any_moment(home: Home, delay_s: float) -> None:
    creator = start_up(home)
    wait_until(lambda: supervisors(home))
    time.sleep(delay_s)  # the moment is what varies; nothing is waited for
    victims = [*supervisors(home), psutil.Process(creator.pid)]
    for victim in victims:
        victim.kill()
    ended(creator)
    home.backend().down()
    assert home.processes() == []
    assert not home.folder.state.exists()


@pytest.mark.parametrize("delay_s", [0.0, 0.4, 1.2])
def test_whoever_brings_a_stack_up_cleans_when_its_supervisor_is_killed(home: Home, delay_s: float) -> None:
    creator = start_up(home)
    wait_until(lambda: supervisors(home))
    time.sleep(delay_s)  # the moment is what varies; nothing is waited for
    for supervisor in supervisors(home):
        supervisor.kill()
    told = ended(creator)
    assert (told.code, told.errors.strip()) == (1, "the supervisor ended without a word")
    assert home.processes() == []


# -- whoever brings it up is killed or interrupted


def test_a_stack_whose_creator_is_killed_before_it_is_up_ends_by_itself(home: Home) -> None:
    creator = start_up(home)
    wait_until(lambda: home.folder.state.exists() and "redis-state" in pids_of(home.folder))
    creator.kill()
    ended(creator)
    wait_until(lambda: home.processes() == [] and not home.backend().is_up())


def test_an_up_that_finds_one_whose_creator_was_killed_ends_with_a_stack(home: Home) -> None:
    creator = start_up(home)
    wait_until(lambda: home.folder.state.exists() and "redis-state" in pids_of(home.folder))
    creator.kill()
    ended(creator)
    backend = home.backend(MIXED)
    backend.up()
    assert {name: phase for name, phase in phases(backend).items() if name in MIXED} == dict.fromkeys(MIXED, "ready")
    assert backend.is_up()
    assert len(supervisors(home)) == 1


def test_ctrl_c_in_the_middle_of_up_leaves_nothing(home: Home) -> None:
    creator = home.start(*WORKSHOP, "up")
    wait_until(lambda: home.folder.state.exists() and len(pids_of(home.folder)) >= 4)
    creator.send_signal(signal.SIGINT)
    told = ended(creator)
    assert told.code == 130, told
    assert "Traceback" not in told.errors
    assert home.processes() == []
    assert not home.backend().is_up()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_supervisor_that_is_told_to_end_takes_its_servers_along(home: Home, number: signal.Signals) -> None:
    home.backend().up()
    supervisor_of(home.folder).send_signal(number)
    wait_until(lambda: home.processes() == [])
    assert not home.folder.state.exists()


def test_closing_the_terminal_of_up_does_not_end_the_stack(home: Home) -> None:
    creator = start_up(home, LIGHT)
    assert ended(creator).code == 0
    assert os.getsid(supervisor_of(home.folder).pid) != creator.pid
    with pytest.raises(ProcessLookupError):
        os.killpg(creator.pid, signal.SIGHUP)  # nothing of it is left in its group
    assert home.backend().is_up()


# -- who may reach it


def listening_of(backend: LocalBackend) -> Iterator[Any]:
    """Where the processes of a stack listen. Some have children that live for a moment only."""
    for process in find_below(backend.folder.path):
        with suppress(psutil.NoSuchProcess):
            yield from (one.laddr for one in process.net_connections("inet") if one.status == psutil.CONN_LISTEN)


def test_everything_listens_on_loopback_only(whole: LocalBackend) -> None:
    listening = {address.ip for address in listening_of(whole)}
    assert "127.0.0.1" in listening
    assert listening <= {"127.0.0.1", "::1"}  # epmd listens on both, whatever it is told


def test_every_port_was_chosen_by_the_stack(whole: LocalBackend) -> None:
    listening = {address.port for address in listening_of(whole)}
    chosen = json.loads(whole.folder.state.read_bytes())["ports"]
    assert listening == {port for ports in chosen.values() for port in ports.values()}


def test_no_command_line_and_no_log_shows_the_password(whole: LocalBackend) -> None:
    _, password = credentials(url_of(whole.urls(), "SHOWCASE_POSTGRES_URL"))
    for process in psutil.process_iter():
        assert password not in describe(process)
    for log in whole.folder.logs.iterdir():
        assert password not in log.read_text(errors="replace")


def test_whatever_holds_the_password_is_for_its_owners_eyes_only(whole: LocalBackend) -> None:
    _, password = credentials(url_of(whole.urls(), "SHOWCASE_POSTGRES_URL"))
    assert whole.folder.path.stat().st_mode & 0o777 == 0o700
    secret = {path.name for path in files_with(whole.folder, password.encode())}
    assert secret >= {"secrets.json", "state.json", "redis.conf", "server.properties", "users.properties"}


def files_with(folder: Folder, content: bytes) -> Iterator[Path]:
    """The files of a stack that hold some bytes; every one must be closed to everybody but its owner."""
    for root in (folder.path, folder.postgres):
        for path in root.rglob("*") if root.exists() else ():
            try:
                found = path.is_file() and content in path.read_bytes()
            except FileNotFoundError:
                continue  # a server's temporary file
            if found:
                assert path.stat().st_mode & 0o077 == 0, f"{path} is open to others"
                yield path


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs PostgreSQL as another user")
def test_postgresqls_data_is_closed_to_everybody_but_its_user(whole: LocalBackend) -> None:
    found = whole.folder.postgres.stat()
    assert found.st_mode & 0o777 == 0o700
    assert found.st_uid != 0


def test_servers_run_in_a_known_environment(home: Home) -> None:
    backend_environment = {"PGPORT": "1", "JAVA_TOOL_OPTIONS": "-Xmx1m", "RABBITMQ_NODENAME": "x"}
    told: Ended = ended(home.python(UP, home.folder.path, "mail", **backend_environment))
    assert told.code == 0, told
    assert set(backend_environment).isdisjoint(psutil.Process(pids_of(home.folder)["mail"]).environ())


def test_a_stack_has_every_server_of_the_list(whole: LocalBackend) -> None:
    assert tuple(pids_of(whole.folder)) == SERVERS


# -- the end of the whole stack; last, because nothing of it is left for other tests


def test_down_leaves_nothing_of_a_whole_stack_whose_supervisor_was_killed(whole: LocalBackend) -> None:
    kill_supervisor(Home(whole.folder.path.parent))
    names = {process.name() for process in find_below(whole.folder.path)}
    assert names >= {"postgres", "mongod", "redis-server", "beam.smp", "epmd", "java"}
    whole.down()
    assert processes_below(whole.folder.path.parent) == []
