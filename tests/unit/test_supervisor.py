"""The supervisor's own rules, on stand-ins for servers: real processes, but small ones."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import IOBase
from pathlib import Path

import psutil
import pytest

from workshop.stack.local.folder import Folder, Json, write_json
from workshop.stack.local.process import group_of, kill_marked
from workshop.stack.local.server import Launch, Place, Server, environment
from workshop.stack.local.supervisor import Stopping, Supervisor, check_disk, remedy_for
from workshop.stack.model import NotReady, Phase, StackError, Urls

WITHIN_S = 20.0
SLEEP = ("sleep", "60")


class StandIn:
    """A server that is a small command, ready as soon as it runs.

    Args:
        ready: called by the probe; raises NotReady.
    """

    ports: tuple[str, ...] = ("main",)
    stop_signal = signal.SIGTERM
    stop_within_s = 5.0

    def __init__(
        self,
        name: str,
        command: tuple[str, ...] = SLEEP,
        *,
        after: tuple[str, ...] = (),
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.after = after
        self.command = command
        self.ready = ready

    def find(self) -> str:
        return "a stand-in"

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {}

    def prepare(self, place: Place) -> Launch:
        place.data.mkdir(parents=True, exist_ok=True)
        return Launch(argv=self.command, env=environment())

    def set_up(self, place: Place) -> None:
        self.ready()

    def probe(self, urls: Urls, timeout_s: float) -> str:
        return "1.0"


class Run:
    """A supervisor of stand-ins in this process, and what it reported."""

    def __init__(self, folder: Folder, *servers: StandIn) -> None:
        self.supervisor = Supervisor(folder, [], ephemeral=False, private=False)
        self.others = psutil.Process().children()  # other tests of this process may have theirs
        fresh: dict[str, Server] = {server.name: server for server in servers}
        self.supervisor.servers = fresh
        self.supervisor.records = {name: {"phase": Phase.STARTING} for name in fresh}
        self.supervisor.ready = {name: threading.Event() for name in fresh}
        self.supervisor.turns = {name: threading.RLock() for name in fresh}
        self.reports: list[Json] = []
        self.supervisor.report = self.reported  # type: ignore[method-assign]  # there is no pipe to a parent here

    def reported(self, **facts: object) -> None:
        self.reports.append(facts)

    def record(self, name: str) -> Json:
        """What the state file says of a server."""
        record: Json = self.supervisor.folder.read_state()["servers"][name]
        return record

    def children(self) -> list[int]:
        """The process ids of this process's children that came since."""
        return [child.pid for child in psutil.Process().children() if child not in self.others]

    def pid(self, name: str) -> int:
        return self.supervisor.processes[name].pid

    def choose_ports(self) -> dict[str, int]:
        return {name: ports["main"] for name, ports in self.supervisor.choose_ports().items()}


Start = Callable[..., Run]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    folder = Folder(tmp_path / "state")
    folder.make()
    return folder


@pytest.fixture
def run(folder: Folder) -> Iterator[Start]:
    runs: list[Run] = []

    def build(*servers: StandIn, of: Folder = folder) -> Run:
        runs.append(Run(of, *servers))
        return runs[-1]

    yield build
    for one in runs:
        one.supervisor.stop()
        give_back(one.supervisor)
    kill_marked(folder.path)


def give_back(supervisor: Supervisor) -> None:
    """Close what keeps ports and leases, as the end of its process would."""
    for held in supervisor.held:
        assert isinstance(held, socket.socket | IOBase)
        held.close()
    supervisor.held.clear()


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def never() -> None:
    raise NotReady("not yet")


# -- starting


def test_servers_start_side_by_side_and_after_those_they_need(run: Start) -> None:
    both = threading.Barrier(2)

    def meet() -> None:
        both.wait(WITHIN_S)

    one = run(StandIn("one", ready=meet), StandIn("two", ready=meet), StandIn("three", after=("one", "two")))
    one.supervisor.start()
    order = [report["server"] for report in one.reports if report.get("phase") == Phase.READY]
    assert set(order[:2]) == {"one", "two"}
    assert order[2] == "three"
    assert one.reports[-1]["up"] is True


def test_the_first_server_that_fails_is_the_one_that_is_told(run: Start) -> None:
    one = run(
        StandIn("slow", ready=never),
        StandIn("broken", ("sh", "-c", "echo why >&2; exit 3"), ready=never),
        StandIn("needs", after=("broken",)),
    )
    began = time.monotonic()
    with pytest.raises(StackError) as caught:
        one.supervisor.start()
    assert caught.value.what == "broken ended with exit code 3\nwhy"
    assert "workshop logs broken" in caught.value.remedy
    assert time.monotonic() - began < WITHIN_S  # the slow one was not waited for


def test_a_server_that_never_gets_ready_is_told_with_why_and_stopped(
    run: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workshop.stack.local.supervisor.READY_WITHIN_S", 0.2)
    one = run(StandIn("one", ready=never))
    with pytest.raises(StackError, match=r"one not ready after 0 s: not yet"):
        one.supervisor.start()
    assert group_of(one.supervisor.identities["one"]) == []


def test_a_server_that_dies_while_others_still_start_is_told(run: Start) -> None:
    two = StandIn("two")
    one = run(StandIn("one"), two)

    def kill_the_other() -> None:
        phase = one.record("one")["phase"]
        if phase == Phase.READY:
            with suppress(ProcessLookupError):  # killed the last time we looked
                os.kill(one.pid("one"), signal.SIGKILL)
        if phase != Phase.DEAD:
            raise NotReady

    two.ready = kill_the_other
    with pytest.raises(StackError, match="one died while others started: killed by SIGKILL"):
        one.supervisor.start()


def test_a_server_without_what_it_needs_is_told(run: Start) -> None:
    with pytest.raises(StackError, match="one does not work without two"):
        run(StandIn("one", after=("two",))).supervisor.start()


def test_a_command_that_is_not_there_is_told(run: Start) -> None:
    with pytest.raises(StackError, match=r"one ended with exit code 127[\s\S]*not found"):
        run(StandIn("one", ("/no/such/command",), ready=never)).supervisor.start()


def test_nothing_is_launched_once_the_stack_stops(run: Start, folder: Folder) -> None:
    one = run(StandIn("one"))
    one.supervisor.start()
    one.supervisor.stop()
    with pytest.raises(Stopping):
        one.supervisor.restart("one")
    assert one.supervisor.processes == {}


def test_stopping_ends_a_start_that_hangs(run: Start) -> None:
    one = run(StandIn("one", ready=never))
    with ThreadPoolExecutor(1) as pool:
        start = pool.submit(one.supervisor.start)
        wait_until(lambda: "one" in one.supervisor.processes)
        one.supervisor.stopping.set()
        assert isinstance(start.exception(WITHIN_S), Stopping)


def test_the_identity_of_a_server_is_on_disk_before_it_runs(
    run: Start, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one = run(StandIn("one", ("touch", str(tmp_path / "ran"))))
    seen = []

    def look(process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        process.stdin.close()
        seen.append((one.record("one")["pid"], (tmp_path / "ran").exists()))
        raise OSError("the supervisor was killed here")

    monkeypatch.setattr("workshop.stack.local.supervisor.open_gate", look)
    with pytest.raises(OSError, match="killed here"):
        one.supervisor.start()
    assert seen == [(one.supervisor.identities["one"].pid, False)]


def test_a_stack_is_starting_until_every_server_is_ready(run: Start, folder: Folder) -> None:
    states = []
    one = run(StandIn("one", ready=lambda: states.append(folder.read_state()["starting"])))
    one.supervisor.start()
    assert states == [True]
    assert folder.read_state()["starting"] is False


# -- a server that dies


@pytest.mark.parametrize(
    ("command", "how"),
    [(("sh", "-c", "sleep 0.3; exit 7"), "ended with exit code 7"), (("sh", "-c", "sleep 0.3; kill -9 $$"), "SIGKILL")],
)
def test_a_server_that_dies_is_written_down_and_stays_dead(run: Start, command: tuple[str, ...], how: str) -> None:
    one = run(StandIn("one", command))
    one.supervisor.start()
    wait_until(lambda: one.record("one")["phase"] == Phase.DEAD)
    assert how in one.record("one")["detail"]
    assert one.children() == []


def test_what_a_dead_server_leaves_is_cleared_away(run: Start) -> None:
    one = run(StandIn("one", ("sh", "-c", "sleep 60 & exec sleep 60")))
    one.supervisor.start()
    identity = one.supervisor.identities["one"]
    wait_until(lambda: len(group_of(identity)) == 2)
    os.kill(identity.pid, signal.SIGKILL)
    wait_until(lambda: group_of(identity) == [])


def test_a_restart_is_no_death(run: Start) -> None:
    one = run(StandIn("one"))
    one.supervisor.start()
    before = one.pid("one")
    one.reports.clear()
    one.supervisor.restart("one")
    assert one.pid("one") != before
    assert not psutil.pid_exists(before)
    assert [report["phase"] for report in one.reports] == [Phase.STARTING, Phase.STARTING, Phase.READY]
    assert one.record("one")["detail"] == ""


def test_a_server_that_was_dead_has_no_trace_of_it_after_a_restart(run: Start) -> None:
    one = run(StandIn("one"))
    one.supervisor.start()
    os.kill(one.pid("one"), signal.SIGKILL)
    wait_until(lambda: one.record("one")["phase"] == Phase.DEAD)
    one.supervisor.restart("one")
    assert (one.record("one")["phase"], one.record("one")["detail"]) == (Phase.READY, "")


def test_a_server_that_is_restarted_at_once_after_its_death_lives(run: Start) -> None:
    one = run(StandIn("one"))
    one.supervisor.start()
    for _ in range(10):
        os.kill(one.pid("one"), signal.SIGKILL)
        one.supervisor.restart("one")  # while its watcher learns of the death
        assert one.supervisor.processes["one"].poll() is None
    assert one.record("one")["phase"] == Phase.READY


def test_two_restarts_at_once_leave_one_server(run: Start, folder: Folder) -> None:
    one = run(StandIn("one"))
    one.supervisor.start()
    with ThreadPoolExecutor(4) as pool:
        for restart in [pool.submit(one.supervisor.restart, "one") for _ in range(4)]:
            restart.result(WITHIN_S)
    assert one.children() == [one.pid("one")]
    assert one.record("one")["pid"] == one.pid("one")


def test_a_restart_that_fails_leaves_nothing_running_and_says_so(run: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    server = StandIn("one")
    one = run(server)
    one.supervisor.start()
    monkeypatch.setattr("workshop.stack.local.supervisor.READY_WITHIN_S", 0.2)
    server.ready = never
    with pytest.raises(StackError, match="not ready"):
        one.supervisor.restart("one")
    assert one.children() == []
    assert one.record("one")["phase"] == Phase.DEAD


def test_a_server_that_ignores_being_told_to_stop_is_killed(run: Start) -> None:
    server = StandIn("one", ("sh", "-c", "trap '' TERM; while :; do sleep 0.1; done"))
    server.stop_within_s = 0.3
    one = run(server)
    one.supervisor.start()
    one.supervisor.stop()
    assert one.children() == []


def test_a_paused_server_can_be_stopped_politely(run: Start, tmp_path: Path) -> None:
    said = tmp_path / "said"
    one = run(
        StandIn("one", ("sh", "-c", f"trap 'echo bye >{said}; exit' TERM; touch {said}; while :; do sleep 0.05; done"))
    )
    one.supervisor.start()
    wait_until(said.exists)
    os.kill(one.pid("one"), signal.SIGSTOP)
    one.supervisor.stop()
    assert said.read_text() == "bye\n"


# -- whoever started it


def test_one_who_dies_before_the_stack_is_up_takes_it_along(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    supervisor = Supervisor(folder, ["mail"], ephemeral=False, private=False)
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        supervisor.report(server="mail")
        assert not supervisor.stopping.is_set()
        os.close(reading)
        supervisor.report(server="mail")
        assert supervisor.stopping.is_set()


def test_nobody_has_to_listen_once_the_stack_is_up(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    supervisor = Supervisor(folder, ["mail"], ephemeral=False, private=False)
    supervisor.watched = False
    with os.fdopen(writing, "w") as pipe:
        monkeypatch.setattr(sys, "stdout", pipe)
        os.close(reading)
        supervisor.report(server="mail")
        assert not supervisor.stopping.is_set()


# -- leases


def test_an_ephemeral_stack_ends_only_when_nobody_uses_it(folder: Folder) -> None:
    supervisor = Supervisor(folder, [], ephemeral=True, private=False)
    with folder.lock("leases", shared=True):
        assert not supervisor.end_if_unused()
    assert supervisor.end_if_unused()
    with pytest.raises(BlockingIOError):
        folder.acquire("leases", shared=True)  # nobody joins what is going
    give_back(supervisor)


def test_a_stack_that_stays_needs_no_lease(folder: Folder) -> None:
    assert not Supervisor(folder, [], ephemeral=False, private=False).end_if_unused()


def test_a_stack_that_is_going_cannot_be_kept(folder: Folder) -> None:
    supervisor = Supervisor(folder, [], ephemeral=True, private=False)
    supervisor.up.set()
    assert supervisor.end_if_unused()
    with pytest.raises(Stopping):
        supervisor.keep()
    give_back(supervisor)


# -- ports


def listening(port: int) -> socket.socket:
    """Somebody else's server."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def ports_of(run: Start) -> tuple[Run, dict[str, int]]:
    one = run(StandIn("one"), StandIn("two"))
    return one, one.choose_ports()


def test_ports_are_kept_from_one_time_to_the_next(run: Start) -> None:
    first, ports = ports_of(run)
    give_back(first.supervisor)
    _, again = ports_of(run)
    assert again == ports


def test_a_port_that_was_taken_meanwhile_is_replaced_and_the_others_are_kept(run: Start) -> None:
    first, ports = ports_of(run)
    give_back(first.supervisor)
    with listening(ports["one"]):
        _, again = ports_of(run)
    assert again["one"] != ports["one"]
    assert again["two"] == ports["two"]


def test_a_port_with_old_connections_in_time_wait_is_kept(run: Start) -> None:
    first, ports = ports_of(run)
    give_back(first.supervisor)
    with (
        listening(ports["one"]) as listener,
        socket.create_connection(("127.0.0.1", ports["one"])) as client,
        listener.accept()[0] as accepted,
    ):
        accepted.close()  # the side that closes first waits
        assert client.recv(1) == b""
    _, again = ports_of(run)
    assert again == ports


def test_a_damaged_file_of_ports_costs_the_ports_and_nothing_else(run: Start, folder: Folder) -> None:
    (folder.path / "ports.json").write_text("{")
    _, ports = ports_of(run)
    assert json.loads((folder.path / "ports.json").read_text())["one"]["main"] == ports["one"]


def test_two_stacks_that_start_at_the_same_time_get_different_ports(
    run: Start, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workshop.stack.local.supervisor.PORTS", range(31_000, 31_200))
    with ThreadPoolExecutor(4) as pool:
        folders = [folder.fresh_private() for _ in range(4)]
        for one in folders:
            one.make()
        stacks = [run(*(StandIn(str(number)) for number in range(10)), of=one) for one in folders]
        chosen = list(pool.map(Run.choose_ports, stacks))
    assert len({port for ports in chosen for port in ports.values()}) == 40


def test_a_reserved_port_is_nobody_elses_but_its_server_may_listen_on_it(run: Start) -> None:
    _, ports = ports_of(run)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", ports["one"]))
    listening(ports["one"]).close()


# -- what it says


def test_a_disk_that_is_too_full_is_told_with_both_sizes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_disk(tmp_path)
    monkeypatch.setattr("workshop.stack.local.supervisor.LEAST_FREE_BYTES", 2**60)
    with pytest.raises(StackError, match=r"only \d+ MiB are free.*they need \d+ MiB") as caught:
        check_disk(tmp_path)
    assert "SHOWCASE_STATE_HOME" in caught.value.remedy


def test_a_full_disk_has_a_remedy_of_its_own() -> None:
    assert "free some space" in remedy_for(OSError(28, "No space left on device"))
    assert "workshop doctor" in remedy_for(OSError(13, "Permission denied"))


def test_no_supervisor_takes_a_folder_that_another_one_has(folder: Folder, capfd: pytest.CaptureFixture[str]) -> None:
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}
    try:
        with folder.lock("supervisor"):
            write_json(folder.state, {"mine": True})
            assert Supervisor(folder, [], ephemeral=False, private=False).run() == 1
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert "another supervisor owns this stack" in capfd.readouterr().out
    assert folder.read_state() == {"mine": True}


# -- logs


def test_a_log_that_has_grown_is_emptied_while_another_is_put_aside(
    run: Start, folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workshop.stack.local.supervisor.LARGEST_LOG_BYTES", 1_000)
    one = run(StandIn("one"))
    for name in ("a_gone", "z_gone"):
        folder.log(name).symlink_to("nowhere")  # listed, and not there when it is looked at
    folder.log("small").write_text("x" * 1_000)
    folder.log("large").write_text("x" * 1_001)
    one.supervisor.bound_logs()
    assert [folder.log(name).stat().st_size for name in ("small", "large")] == [1_000, 0]
