"""Processes that are never lost: gate, identity, group and mark."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from workshop.stack.local.process import (
    MARK,
    Identity,
    group_of,
    is_paused,
    kill_all,
    kill_found,
    kill_marked,
    marked,
    open_gate,
    pause_all,
    resident_bytes,
    signal_all,
    spawn,
    writers,
)

WITHIN_S = 20.0
FAMILY = "sleep 60 & setsid sleep 60 & exec sleep 60"
# Writes over its own environment, as Redis and PostgreSQL's backends do for their titles.
TITLED = """
import ctypes, time
with open("/proc/self/stat") as stat:
    start, end = map(int, stat.read().split()[49:51])
ctypes.memset(start, 0, end - start)
print("titled", flush=True)
time.sleep(60)
"""

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells where a process writes to")

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Spawns marked processes; what is left of them at the end is killed."""
    (tmp_path / "logs").mkdir()
    spawned = []

    def start(*command: str, gate: bool = True) -> subprocess.Popen[bytes]:
        process = spawn(
            command, env={**os.environ, MARK: str(tmp_path)}, cwd=tmp_path, log=tmp_path / "logs" / "server.log"
        )
        spawned.append(process)
        if gate:
            open_gate(process)
        return process

    yield start
    kill_marked(tmp_path)
    for process in spawned:
        process.wait()
        if process.stdin is not None:
            process.stdin.close()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def started(process: subprocess.Popen[bytes], size: int = 1) -> Identity:
    """The identity of a process whose group has reached a size."""
    identity = Identity.of(process.pid)
    wait_until(lambda: len([p for p in group_of(identity) if "sleep" in p.name()]) == size)
    return identity


# -- the gate


def test_a_process_does_nothing_before_its_gate_is_opened(start: Start, tmp_path: Path) -> None:
    process = start("touch", str(tmp_path / "done"), gate=False)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.3)
    assert not (tmp_path / "done").exists()
    open_gate(process)
    assert process.wait(WITHIN_S) == 0
    assert (tmp_path / "done").exists()


def test_a_process_whose_starter_dies_before_the_gate_is_open_ends_by_itself(start: Start, tmp_path: Path) -> None:
    process = start("touch", str(tmp_path / "done"), gate=False)
    assert process.stdin is not None
    process.stdin.close()  # as the kernel does for a starter that was killed
    assert process.wait(WITHIN_S) != 0
    assert not (tmp_path / "done").exists()


def test_the_process_has_the_pid_that_was_written_down(start: Start) -> None:
    process = start("sleep", "60")
    assert started(process).pid == process.pid


def test_the_process_reads_nothing_and_writes_to_its_log(start: Start, tmp_path: Path) -> None:
    assert start("sh", "-c", "cat; echo out; echo err >&2").wait(WITHIN_S) == 0
    assert (tmp_path / "logs" / "server.log").read_text() == "out\nerr\n"


def test_opening_the_gate_of_a_process_that_was_killed_is_no_error(start: Start) -> None:
    process = start("sleep", "60", gate=False)
    process.kill()
    process.wait()
    open_gate(process)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can start processes as somebody else")
def test_a_process_of_another_user_has_no_groups_of_root(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = spawn(["id"], env=dict(os.environ), cwd=Path("/"), log=log, user="nobody")
    open_gate(process)
    assert process.wait(WITHIN_S) == 0
    assert "root" not in log.read_text()


# -- identity


def test_a_later_process_with_the_same_pid_is_another(start: Start) -> None:
    identity = started(start("sleep", "60"))
    earlier = Identity(identity.pid, identity.started - 3600)
    assert identity.process() is not None
    assert earlier.process() is None
    assert group_of(earlier) == []
    signal_all(earlier, signal.SIGKILL)
    kill_all(earlier)
    assert identity.process() is not None


def test_a_process_that_only_waits_to_be_reaped_does_not_run(start: Start) -> None:
    process = start("sleep", "60")
    identity = started(process)
    os.kill(process.pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE)
    assert identity.process() is None
    assert group_of(identity) == []


# -- the group


def test_a_group_holds_children_also_those_with_a_session_of_their_own(start: Start) -> None:
    identity = started(start("sh", "-c", FAMILY), size=3)
    assert len({os.getsid(process.pid) for process in group_of(identity)}) == 2


def test_killing_a_group_leaves_none_of_it(start: Start) -> None:
    identity = started(start("sh", "-c", FAMILY), size=3)
    family = group_of(identity)
    kill_all(identity)
    assert [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE] == []


def test_what_is_left_of_a_group_whose_leader_died_is_found(start: Start) -> None:
    process = start("sh", "-c", "sleep 60 & exec sleep 60")
    identity = started(process, size=2)
    process.kill()
    process.wait()
    assert len(group_of(identity)) == 1
    kill_all(identity)
    assert group_of(identity) == []


def test_a_pause_has_stopped_every_process_of_the_group_when_it_returns(start: Start) -> None:
    identity = started(start("sh", "-c", FAMILY), size=3)
    assert not is_paused(identity)
    pause_all(identity)
    assert [process.status() for process in group_of(identity)] == [psutil.STATUS_STOPPED] * 3
    assert is_paused(identity)
    signal_all(identity, signal.SIGCONT)
    wait_until(lambda: psutil.STATUS_STOPPED not in [process.status() for process in group_of(identity)])


def test_a_paused_group_can_be_killed(start: Start) -> None:
    identity = started(start("sh", "-c", FAMILY), size=3)
    pause_all(identity)
    kill_all(identity)
    assert group_of(identity) == []


def test_a_fork_bomb_that_is_killed_does_not_escape(start: Start) -> None:
    process = start("sh", "-c", "while :; do sleep 60 & sleep 0.01; done")
    identity = Identity.of(process.pid)
    wait_until(lambda: len(group_of(identity)) > 5)
    kill_all(identity)
    assert group_of(identity) == []


def test_memory_is_that_of_the_whole_group(start: Start) -> None:
    alone = started(start("sleep", "60"))
    three = started(start("sh", "-c", FAMILY), size=3)
    assert resident_bytes(three) > resident_bytes(alone) > 0


# -- the mark


def test_the_mark_finds_what_left_the_group_and_lost_its_parent(start: Start, tmp_path: Path) -> None:
    start("sh", "-c", "setsid sleep 60 >/dev/null &").wait(WITHIN_S)
    wait_until(lambda: [process.name() for process in marked(tmp_path)] == ["sleep"])
    kill_marked(tmp_path)
    assert marked(tmp_path) == []


def test_the_mark_of_one_stack_does_not_find_the_processes_of_another(start: Start, tmp_path: Path) -> None:
    started(start("sleep", "60"))
    kill_marked(tmp_path.with_name(f"{tmp_path.name}-other"))
    kill_marked(tmp_path.parent)
    assert len(marked(tmp_path)) == 1


@linux_only
def test_a_process_that_wrote_over_its_environment_is_found_by_its_log(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    process = start(sys.executable, "-c", TITLED)
    wait_until(lambda: log.read_text() == "titled\n")
    assert psutil.Process(process.pid).environ().get(MARK) is None
    assert [found.pid for found in marked(tmp_path)] == [process.pid]
    assert [found.pid for found in writers(log)] == [process.pid]
    log.replace(tmp_path / "logs" / "server.log.1")  # a new log was begun
    assert [found.pid for found in writers(log)] == [process.pid]
    kill_marked(tmp_path)
    assert writers(log) == []


@linux_only
def test_somebody_who_reads_a_log_is_no_process_of_the_stack(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "logs" / "server.log"
    log.touch()
    with subprocess.Popen(["tail", "-f", log], stdout=subprocess.PIPE) as reader:
        wait_until(lambda: psutil.Process(reader.pid).name() == "tail")
        assert marked(tmp_path) == []
        assert writers(log) == []
        reader.kill()


def test_nobody_kills_himself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from workshop.stack.local.process import kill_marked, marked\n"
        "kill_marked(Path(sys.argv[1])); print('alive')"
    )
    monkeypatch.setenv(MARK, str(tmp_path))
    assert subprocess.check_output([sys.executable, "-c", code, tmp_path], timeout=WITHIN_S) == b"alive\n"


def test_what_does_not_die_is_told_after_a_time() -> None:
    with subprocess.Popen(["sleep", "60"]) as process:
        immortal = psutil.Process(process.pid)
        immortal.kill = lambda: None  # type: ignore[method-assign]  # as one in uninterruptible sleep
        with pytest.raises(TimeoutError, match=str(process.pid)):
            kill_found(lambda: [immortal], within_s=0.2)
        with suppress(ProcessLookupError):
            process.kill()
