"""The local stack as the rest of the workshop sees it: `Backend` by a supervisor and its state folder."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO
from urllib.parse import urlsplit

from workshop.stack.local.folder import CHECKOUT, Folder, Json
from workshop.stack.local.process import (
    MARK,
    Identity,
    is_paused,
    kill_all,
    kill_marked,
    resident_bytes,
    signal_all,
)
from workshop.stack.model import (
    SERVERS,
    URL_VARIABLES,
    Action,
    OnProgress,
    Phase,
    ServerStatus,
    StackError,
    Urls,
    check_names,
)

UP_WITHIN_S = 180.0
DOWN_WITHIN_S = 60.0
RESTART_WITHIN_S = 90.0


class LocalBackend:
    """Servers as processes of this machine.

    Args:
        folder: the state folder; that of this checkout by default.
        names: which servers; all by default.
        ephemeral: the stack goes with the last process that holds a lease on it.
        private: its folder goes with it, too.
    """

    kind = "local"

    def __init__(
        self,
        folder: Folder | None = None,
        names: Sequence[str] = SERVERS,
        *,
        ephemeral: bool = False,
        private: bool = False,
    ) -> None:
        self.folder = folder or Folder.of_checkout()
        self.names = check_names(names)
        self.ephemeral = ephemeral
        self.private = private
        self._lease: IO[bytes] | None = None

    # -- up and down

    def up(self, on_progress: OnProgress | None = None) -> None:
        self.folder.make()
        with self._alone():
            if self.ephemeral:
                self.lease()
            if not self.is_up():
                self.folder.read_state()  # a damaged one is told, not overwritten
                self._sweep()
                self._start(on_progress or (lambda *_: None))
            elif not self.ephemeral and self.folder.read_state().get("ephemeral"):
                self._ask("keep")

    def down(self) -> None:
        if not self.folder.path.exists():
            return
        with self._alone():
            with suppress(OSError, ValueError):
                self._ask("down")
            deadline = time.monotonic() + DOWN_WITHIN_S
            while self.is_up() and time.monotonic() < deadline:
                time.sleep(0.05)
            self._sweep()
            self.folder.state.unlink(missing_ok=True)

    def reset(self) -> None:
        self.down()
        self.folder.remove()

    def is_up(self) -> bool:
        return self.folder.is_held("supervisor")

    def lease(self) -> None:
        """Keep an ephemeral stack up as long as this process lives, or until `release`."""
        if self._lease is None:
            try:
                self._lease = self.folder.acquire("leases", shared=True, within_s=DOWN_WITHIN_S)
            except BlockingIOError as error:
                raise StackError("the stack is being taken down and does not end", "run `workshop down`") from error

    def release(self) -> None:
        """Give the lease back; an ephemeral stack that nobody else uses then goes down, which is waited for."""
        if self._lease is None:
            return
        self._lease.close()
        self._lease = None
        deadline = time.monotonic() + DOWN_WITHIN_S
        while self.is_up() and not self.folder.is_held("leases") and time.monotonic() < deadline:
            if not self._is_ephemeral():
                return
            time.sleep(0.05)

    def _start(self, on_progress: OnProgress) -> None:
        """Start the supervisor and follow its reports until all is ready. Raises StackError."""
        options = {"servers": self.names, "ephemeral": self.ephemeral, "private": self.private}
        with (self.folder.logs / "supervisor.log").open("ab") as log:
            supervisor = subprocess.Popen(
                [sys.executable, "-m", "workshop.stack.local.supervisor", self.folder.path, json.dumps(options)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=CHECKOUT,
                env={**os.environ, MARK: str(self.folder.path)},
                start_new_session=True,
            )
        assert supervisor.stdout is not None
        try:
            for line in supervisor.stdout:
                report: Json = json.loads(line)
                if "server" in report:
                    phase = Phase(report["phase"])
                    on_progress(report["server"], phase, report["seconds"], report["detail"])
                elif report.get("up"):
                    return
                else:
                    supervisor.wait(DOWN_WITHIN_S)
                    raise StackError(report["failed"], report["remedy"])
            raise StackError("the supervisor ended without a word", f"see {self.folder.logs}/supervisor.log")
        except BaseException:  # Ctrl-C as well: nothing may be left running
            supervisor.terminate()
            with suppress(subprocess.TimeoutExpired):
                supervisor.wait(DOWN_WITHIN_S)
            self._sweep()
            raise
        finally:
            supervisor.stdout.close()
            # Not waited for: it outlives us. Told so, or Popen would warn about it.
            supervisor.returncode = 0

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Bring up or take down one at a time; a second `up` waits for the first and finds it done."""
        try:
            lock = self.folder.acquire("starting", within_s=UP_WITHIN_S)
        except BlockingIOError as error:
            raise StackError(
                "another `workshop` command is busy with this stack", "try again when it is done"
            ) from error
        with lock:
            yield

    def _sweep(self) -> None:
        """End whatever a supervisor left that died: by pid and start time, and by the mark in its environment."""
        state: Json = {}
        with suppress(StackError):
            state = self.folder.read_state()
        for record in state.get("servers", {}).values():
            if identity := identity_in(record):
                kill_all(identity)
        kill_marked(self.folder.path)
        if self.folder.private.exists():
            for path in self.folder.private.iterdir():
                private = LocalBackend(Folder(path))
                if path.suffix != ".postgres" and not private.is_up():
                    private._sweep()
                    private.folder.remove()

    # -- looking and acting

    def urls(self) -> Urls:
        if not self.is_up():
            raise StackError("the stack is not up", "run `workshop up`")
        urls: dict[str, str] = self.folder.read_state()["urls"]
        return urls

    def status(self) -> list[ServerStatus]:
        state = self.folder.read_state() if self.folder.path.exists() else {}
        urls: dict[str, str] = state.get("urls", {})
        return [self._status(name, state.get("servers", {}).get(name), urls) for name in self.names]

    def _status(self, name: str, record: Json | None, urls: Urls) -> ServerStatus:
        if record is None:
            return ServerStatus(name=name, phase=Phase.DOWN)
        identity = identity_in(record)
        running = identity is not None and identity.process() is not None
        phase = Phase(record["phase"])
        detail = record.get("detail", "")
        if identity is None or not running:
            if phase != Phase.STARTING:
                phase = Phase.DEAD
        elif is_paused(identity):
            phase = Phase.PAUSED
        if running and not self.is_up():
            detail = "its supervisor is gone: `workshop down` or `workshop up` cleans up"
        url = urlsplit(urls.get(URL_VARIABLES[name][0], ""))
        return ServerStatus(
            name=name,
            phase=phase,
            version=record.get("version", ""),
            pid=identity.pid if identity and running else None,
            resident_bytes=resident_bytes(identity) if identity and running else None,
            address=f"{url.hostname}:{url.port}" if url.hostname else "",
            detail=detail,
        )

    def act(self, name: str, action: Action) -> None:
        (name,) = check_names([name])
        if action == "restart":
            if not self.is_up():
                raise StackError("the stack is not up", "run `workshop up`")
            self._restart(name)
            return
        record = self.folder.read_state().get("servers", {}).get(name, {}) if self.folder.path.exists() else {}
        identity = identity_in(record)
        if identity is None or identity.process() is None:
            raise StackError(f"{name} is not running", f"run `workshop up`, or `workshop restart {name}`")
        match action:
            case "kill":
                kill_all(identity)
                self._wait_until_noted(name)
            case "pause":
                signal_all(identity, signal.SIGSTOP)
            case "resume":
                signal_all(identity, signal.SIGCONT)

    def logs(self, name: str, lines: int) -> str:
        from workshop.stack.local.supervisor import last_lines

        name = name if name == "supervisor" else check_names([name])[0]
        if not self.folder.log(name).exists():
            raise StackError(f"{name} has no log yet", "run `workshop up`")
        return last_lines(self.folder.log(name), lines)

    def _restart(self, name: str) -> None:
        self._ask("restart", name=name, within_s=RESTART_WITHIN_S)

    def _wait_until_noted(self, name: str) -> None:
        """Wait until the supervisor, if there is one, has seen that a server died."""
        deadline = time.monotonic() + 5
        while self.is_up() and time.monotonic() < deadline:
            if self.folder.read_state()["servers"][name]["phase"] == Phase.DEAD:
                return
            time.sleep(0.01)

    def _is_ephemeral(self) -> bool:
        with suppress(StackError):
            return bool(self.folder.read_state().get("ephemeral"))
        return False

    def _ask(self, what: str, *, name: str = "", within_s: float = 5.0) -> None:
        """Send the supervisor one request and wait for its answer. Raises StackError or OSError."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(within_s)
            connection.connect(str(self.folder.control))
            connection.sendall(json.dumps({"do": what, "name": name}).encode() + b"\n")
            with connection.makefile("rb") as answers:
                answer = json.loads(answers.readline() or b"{}")
        if answer.get("error"):
            raise StackError(answer["error"], answer["remedy"])


def identity_in(record: Json) -> Identity | None:
    """The identity that a server's record holds, if it got that far."""
    return Identity(record["pid"], record["started"]) if "pid" in record else None


def free_bytes(folder: Folder) -> int:
    """Free space, in bytes, where the state folder is or will be."""
    path = folder.path
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
