"""The one process that owns the servers of a local stack.

It holds the lock `supervisor` as long as it lives, starts the servers side by side, tells whoever started it
what happens (one JSON object a line on stdout), then answers on a Unix socket until it is told to stop. A
server that dies is written down, never silently restarted. All it knows is in the state file, so that a
supervisor that was killed leaves nothing which the next `up` or `down` does not find.

An `ephemeral` stack ends when nobody holds a lease on it any more: it goes with the last process that uses
it, however that process ended.
"""

import errno
import json
import os
import random
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from queue import SimpleQueue

from workshop.stack.local.catalogue import SERVERS_BY_NAME
from workshop.stack.local.folder import Folder, Json, fresh_log, last_lines, write_json
from workshop.stack.local.process import (
    MARK,
    Identity,
    group_of,
    kill_found,
    kill_marked,
    open_gate,
    signal_all,
    spawn,
    writers,
)
from workshop.stack.local.server import Place, Server
from workshop.stack.model import NotReady, Phase, StackError, check_names

READY_WITHIN_S = 60.0
UNREADY_STOP_WITHIN_S = 2.0  # some servers do not listen before they are ready, and have nothing to lose
PROBE_EVERY_S = 0.05
LEASE_CHECK_EVERY_S = 0.25
LOCKED_WITHIN_S = 2.0  # whoever looks whether the stack is up holds the lock for a moment
PORTS = range(20_000, 32_000)  # below the ports that the system gives to outgoing connections
LARGEST_LOG_BYTES = 50 * 1024 * 1024
LEAST_FREE_BYTES = 512 * 1024 * 1024
FULL_BYTES = 16 * 1024 * 1024
FREE_SPACE = "free some space, or set SHOWCASE_STATE_HOME to a folder on another disk"


class Stopping(Exception):
    """The stack was told to stop while a server was starting."""


class Supervisor:
    """Owns the servers of one state folder.

    Args:
        names: the servers to run.
        ephemeral: stop, and remove the folder if `private`, when the last lease is given back.
        private: a stack of one process, whose folder goes with it.
    """

    def __init__(self, folder: Folder, names: Sequence[str], *, ephemeral: bool, private: bool) -> None:
        self.folder = folder
        self.servers: dict[str, Server] = {name: SERVERS_BY_NAME[name] for name in check_names(names)}
        self.ephemeral = ephemeral
        self.private = private
        self.password = ""
        self.ports: dict[str, dict[str, int]] = {}
        self.held: list[object] = []  # open sockets and files that keep ports and the last lease ours
        self.urls: dict[str, str] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.identities: dict[str, Identity] = {}
        self.records: dict[str, Json] = {name: {"phase": Phase.STARTING} for name in self.servers}
        self.ready = {name: threading.Event() for name in self.servers}
        self.turns = {name: threading.RLock() for name in self.servers}  # one at a time starts or restarts a server
        self.up = threading.Event()
        self.stopping = threading.Event()
        self.watched = True  # as long as whoever started us is owed an answer
        self.writing = threading.RLock()
        self.began = time.monotonic()

    # -- life

    def run(self) -> int:
        """Start everything, serve until told to stop, stop everything. Returns the exit code."""
        self.stop_on_signals()
        try:
            lock = self.folder.acquire("supervisor", within_s=LOCKED_WITHIN_S)
        except BlockingIOError:
            self.report(failed="another supervisor owns this stack", remedy="run `workshop status`")
            return 1
        with lock:
            os.dup(lock.fileno())  # never closed: whoever sees the lock free sees no supervisor any more
            try:
                self.serve()
            except (StackError, OSError) as error:
                self.report(failed=str(error), remedy=getattr(error, "remedy", "") or remedy_for(error))
                return 1
            except Stopping:
                self.report(failed="stopped while starting", remedy="")
                return 1
            finally:
                self.stop()
        return 0

    def stop_on_signals(self) -> None:
        """Have SIGTERM, SIGINT and SIGHUP stop the stack."""
        arrived: SimpleQueue[int] = SimpleQueue()  # safe in a signal handler, where an Event may deadlock

        def stop_on_arrival() -> None:
            arrived.get()
            self.stopping.set()

        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda number, _: arrived.put(number))
        threading.Thread(target=stop_on_arrival, daemon=True).start()

    def start(self) -> None:
        """Start all servers side by side. Raises StackError for the first that fails."""
        kill_marked(self.folder.path)
        check_disk(self.folder.path)
        for server in self.servers.values():
            server.find()
        self.password = self.folder.password()
        self.ports = self.choose_ports()
        for name, server in self.servers.items():
            self.urls |= server.urls(self.ports[name], self.password)
        self.write_state()
        with ThreadPoolExecutor(len(self.servers)) as pool:
            starts = [pool.submit(self.start_server, name) for name in self.servers]
            if any(start.exception() for start in wait(starts, return_when=FIRST_EXCEPTION).done):
                self.stopping.set()
        failures = [failure for start in starts if (failure := start.exception())]
        for failure in sorted(failures, key=lambda failure: isinstance(failure, Stopping)):
            raise failure  # the first that was not merely told to stop
        for name, record in self.records.items():
            if record["phase"] == Phase.DEAD:
                raise self.failure(name, f"died while others started: {record['detail']}")
        self.up.set()
        self.write_state()
        self.report(up=True, seconds=round(time.monotonic() - self.began, 2))
        self.watched = False

    def serve(self) -> None:
        """Start everything, then answer requests until told to stop or, when ephemeral, until the last lease
        is given back. Raises StackError, OSError or Stopping when a server does not start."""
        self.folder.control.unlink(missing_ok=True)
        with ControlServer(str(self.folder.control), self) as control:
            threading.Thread(target=control.serve_forever, args=(0.05,), daemon=True).start()
            try:
                self.start()
                while not self.stopping.wait(LEASE_CHECK_EVERY_S):
                    self.bound_logs()
                    self.end_if_unused()
            finally:
                control.shutdown()

    def bound_logs(self) -> None:
        """Empty a log that has grown too large: servers append, so they go on at its new end."""
        for log in self.folder.logs.glob("*.log"):
            with suppress(FileNotFoundError):  # that of a server that is started anew was just put aside
                if log.stat().st_size > LARGEST_LOG_BYTES:
                    os.truncate(log, 0)

    def end_if_unused(self) -> bool:
        """Stop an ephemeral stack on which nobody holds a lease any more; whether the stack ends."""
        with self.writing:
            if self.ephemeral and not self.stopping.is_set():
                with suppress(BlockingIOError):
                    self.held.append(self.folder.acquire("leases"))  # nobody attaches to what is going
                    self.stopping.set()
        return self.stopping.is_set()

    def join(self) -> None:
        """Wait until the stack is up. Raises Stopping when it ends instead."""
        while not self.up.wait(PROBE_EVERY_S):
            self.check_stopping()
        self.check_stopping()

    def keep(self) -> None:
        """Make the stack, once it is up, one that stays. Raises Stopping when it ends instead."""
        self.join()
        with self.writing:
            self.check_stopping()
            self.ephemeral = False
            self.write_state()

    def stop(self) -> None:
        """Stop what runs, those first that others wait for; forget the state; remove a private folder."""
        with self.writing:  # what was about to be launched has been, and nothing follows
            self.stopping.set()
        last = {name for server in self.servers.values() for name in server.after}
        for names in (self.processes.keys() - last, self.processes.keys() & last):
            if names:
                with ThreadPoolExecutor(len(names)) as pool:
                    list(pool.map(self.stop_server, names))
        kill_marked(self.folder.path)
        self.folder.control.unlink(missing_ok=True)
        self.folder.state.unlink(missing_ok=True)
        if self.private:
            self.folder.remove()

    # -- one server

    def start_server(self, name: str) -> None:
        """Start one server and wait until it is ready. Raises StackError, OSError or Stopping."""
        with self.turns[name]:
            try:
                self.start_in_turn(name)
            except (StackError, OSError) as error:
                self.stop_server(name)
                self.note(name, phase=Phase.DEAD, detail=str(error).splitlines()[0])
                raise

    def start_in_turn(self, name: str) -> None:
        """The same, leaving what it started when it fails."""
        server, began = self.servers[name], time.monotonic()
        for needed in server.after:
            self.wait_for(needed, of=name)
        self.check_stopping()
        self.note(name, phase=Phase.STARTING, seconds=0.0)
        place = self.place(name)
        launch = server.prepare(place)
        self.launch(name, launch.argv, launch.env, launch.cwd or place.data, launch.user)
        self.wait_until_ready(name, place)
        try:
            version = server.probe(place.urls, 5.0)
        except NotReady as error:
            raise self.failure(name, str(error)) from error
        with self.writing:
            if self.processes[name].poll() is not None:
                raise self.failure(name, f"ended with exit code {self.processes[name].returncode}")
            self.ready[name].set()
            self.note(name, phase=Phase.READY, version=version, seconds=time.monotonic() - began, detail="")

    def wait_for(self, needed: str, *, of: str) -> None:
        """Wait until a server that another one needs is ready. Raises StackError or Stopping."""
        if needed not in self.servers:
            raise StackError(f"{of} does not work without {needed}", f"name {needed} as well")
        deadline = time.monotonic() + READY_WITHIN_S
        while not self.ready[needed].wait(PROBE_EVERY_S):
            self.check_stopping()
            if self.records[needed]["phase"] == Phase.DEAD or time.monotonic() > deadline:
                raise StackError(f"{of} needs {needed}, which is not running", f"`workshop restart {needed}` first")

    def launch(
        self, name: str, argv: Sequence[str | Path], env: Mapping[str, str], cwd: Path, user: str | None
    ) -> None:
        """Start a server's process, but let it go on only once its identity is on disk."""
        with self.writing:
            self.check_stopping()
            log = fresh_log(self.folder.log(name))
            process = spawn(argv, env={**env, MARK: str(self.folder.path)}, cwd=cwd, log=log, user=user)
            self.processes[name] = process
            self.identities[name] = Identity.of(process.pid)
            self.note(name, **asdict(self.identities[name]))
        open_gate(process)
        threading.Thread(target=self.watch, args=(name, process), daemon=True).start()

    def wait_until_ready(self, name: str, place: Place) -> None:
        """Repeat the server's set-up until it succeeds. Raises StackError or Stopping."""
        deadline = time.monotonic() + READY_WITHIN_S
        while True:
            if self.processes[name].poll() is not None:  # looked at first: whoever needs it may have failed already
                raise self.failure(name, f"ended with exit code {self.processes[name].returncode}")
            self.check_stopping()
            try:
                self.servers[name].set_up(place)
                return
            except NotReady as error:
                if time.monotonic() > deadline:
                    raise self.failure(name, f"not ready after {READY_WITHIN_S:.0f} s: {error}") from error
            time.sleep(PROBE_EVERY_S)

    def failure(self, name: str, what: str) -> StackError:
        """The error for a server that did not come up, with the end of its log."""
        tail = last_lines(self.folder.log(name), 8)
        remedy = f"`workshop logs {name}` shows more; `workshop doctor` checks disk, memory and packages"
        if free_bytes(self.folder.path) < FULL_BYTES:
            remedy = FREE_SPACE
        return StackError(f"{name} {what}" + (f"\n{tail}" if tail else ""), remedy)

    def watch(self, name: str, process: subprocess.Popen[bytes]) -> None:
        """Write down that a server died, and clear away what it leaves (a thread a server)."""
        code = process.wait()
        with self.writing:
            if self.processes.get(name) is not process or self.stopping.is_set():
                return
            self.ready[name].clear()
            how = f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            self.note(name, phase=Phase.DEAD, detail=how)
            self.kill_rest(name)

    def stop_server(self, name: str) -> None:
        """Stop one server, if it runs: politely, then by force."""
        with self.writing:
            process = self.processes.pop(name, None)  # whoever watches it now knows that its end is wanted
        if process is None:
            return
        identity, server = self.identities[name], self.servers[name]
        for_good = self.private and self.stopping.is_set()  # then its folder goes, too: nothing to save
        if process.poll() is None and not for_good:
            signal_all(identity, signal.SIGCONT)
            process.send_signal(server.stop_signal)
            with suppress(subprocess.TimeoutExpired):
                process.wait(server.stop_within_s if self.ready[name].is_set() else UNREADY_STOP_WITHIN_S)
        self.kill_rest(name)
        process.wait(5)

    def kill_rest(self, name: str) -> None:
        """SIGKILL what is left of a server whose main process has ended, or does not end."""
        identity, log = self.identities[name], self.folder.log(name)
        kill_found(lambda: group_of(identity) + writers(log))

    def restart(self, name: str) -> None:
        """Stop one server, if it runs, and start it again on its ports. Raises StackError, OSError or Stopping."""
        with self.turns[name]:
            self.note(name, phase=Phase.STARTING, seconds=0.0, detail="")
            self.stop_server(name)
            self.ready[name].clear()
            self.start_server(name)

    # -- what it knows

    def place(self, name: str) -> Place:
        """What the server `name` is told."""
        return Place(self.folder, self.folder.data(name), self.ports[name], self.password, self.urls)

    def choose_ports(self) -> dict[str, dict[str, int]]:
        """Each server's ports: those of last time where they are free, others where not.

        Each is bound, without listening, for as long as the supervisor lives: the server may listen on it
        (both sides set SO_REUSEADDR), while nobody who looks for a free port gets it.
        """
        remembered: Json = {}
        with suppress(StackError):
            remembered = self.folder.remembered("ports", dict)
        chosen: dict[str, dict[str, int]] = dict(remembered)
        for name, server in self.servers.items():
            old = remembered.get(name, {})
            chosen[name] = {port: self.reserve(old.get(port)) for port in server.ports}
        write_json(self.folder.path / "ports.json", chosen)
        return {name: chosen[name] for name in self.servers}

    def reserve(self, wanted: int | None) -> int:
        """Reserve a port on 127.0.0.1: the wanted one or any. Raises StackError when none is free."""
        for port in [*([wanted] if wanted else []), *random.sample(PORTS, 200)]:
            probe = socket.socket()
            # The port of last time may still have connections in TIME-WAIT, which only SO_REUSEADDR ignores;
            # without it the bind fails if anybody at all has the port, a reservation like this one included.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, port == wanted)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                probe.close()
                continue
            if sys.platform == "linux":  # elsewhere no second socket may bind, not even with SO_REUSEADDR
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                self.held.append(probe)
            else:
                probe.close()
            return port
        raise StackError("no free port between 20000 and 32000", "close what listens there")

    def note(self, name: str, **facts: object) -> None:
        """Record facts about a server, in the state file and for whoever watches the start."""
        with self.writing:
            self.records[name] |= facts
            self.write_state()
        if "phase" in facts:
            self.report(
                server=name, phase=facts["phase"], seconds=facts.get("seconds", 0.0), detail=facts.get("detail", "")
            )

    def write_state(self) -> None:
        """Write all that anyone else may need to know."""
        with self.writing:
            state = {
                "supervisor": asdict(Identity.of(os.getpid())),
                "ephemeral": self.ephemeral,
                "starting": not self.up.is_set(),
                "ports": self.ports,
                "urls": self.urls,
                "servers": self.records,
            }
            write_json(self.folder.state, state)

    def report(self, **facts: object) -> None:
        """Tell whoever started us. One who is gone before the stack is up never learns that it is: it ends then."""
        try:
            with self.writing:
                os.write(sys.stdout.fileno(), json.dumps(facts).encode() + b"\n")
        except OSError:
            if self.watched:
                self.stopping.set()

    def check_stopping(self) -> None:
        """Raises Stopping when the stack is to stop."""
        if self.stopping.is_set():
            raise Stopping


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Answers one JSON request a connection: `{"do": "down" | "restart" | "join" | "keep" | "leave", "name": …}`."""

    daemon_threads = True

    def __init__(self, path: str, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        super().__init__(path, ControlHandler)


class ControlHandler(socketserver.StreamRequestHandler):
    timeout = 5

    def handle(self) -> None:
        assert isinstance(self.server, ControlServer)
        supervisor = self.server.supervisor
        request = json.loads(self.rfile.readline(4096))
        answer: Json = {"error": "", "remedy": ""}
        try:
            match request["do"]:
                case "down":
                    supervisor.stopping.set()
                case "join":
                    supervisor.join()
                case "keep":
                    supervisor.keep()
                case "leave":
                    answer["ends"] = supervisor.end_if_unused()
                case "restart":
                    supervisor.restart(request["name"])
        except StackError as error:
            answer = {"error": error.what, "remedy": error.remedy}
        except Stopping:
            answer = {"error": "the stack is stopping", "remedy": "run `workshop up` when it has"}
        except OSError as error:
            answer = {"error": str(error), "remedy": remedy_for(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def check_disk(path: Path) -> None:
    """Raises StackError when a file system is too full for servers."""
    free = free_bytes(path)
    if free < LEAST_FREE_BYTES:
        raise StackError(
            f"only {free / 2**20:.0f} MiB are free where the servers keep their data ({path}); "
            f"they need {LEAST_FREE_BYTES / 2**20:.0f} MiB",
            FREE_SPACE,
        )


def free_bytes(path: Path) -> int:
    """What is left for this user where a folder is or will be."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free


def remedy_for(error: BaseException) -> str:
    """What to try after an operating system error."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return FREE_SPACE
    return "`workshop doctor` checks disk, memory and packages"


def main(arguments: Sequence[str]) -> int:
    """`python -m workshop.stack.local.supervisor FOLDER {"servers": […], "ephemeral": …, "private": …}`"""
    folder, options = Folder(Path(arguments[0])), json.loads(arguments[1])
    return Supervisor(folder, options["servers"], ephemeral=options["ephemeral"], private=options["private"]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
