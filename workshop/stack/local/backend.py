"""The local stack as the rest of the workshop sees it: `Backend` by a supervisor and its state folder."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO
from urllib.parse import urlsplit

from workshop.stack.local.folder import CHECKOUT, Folder, Json, fresh_log, last_lines
from workshop.stack.local.process import (
    MARK,
    Identity,
    is_paused,
    kill_all,
    kill_marked,
    pause_all,
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
ANSWER_WITHIN_S = 5.0


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
        self._supervisor: threading.Thread | None = None

    # -- up and down

    def up(self, on_progress: OnProgress | None = None) -> None:
        with self._alone():
            try:
                if self.ephemeral:
                    self.lease()
                if not self._join():
                    self.folder.read_state()  # a damaged one is told, not overwritten
                    self._sweep()
                    self._clear_privates()
                    self._start(on_progress or (lambda *_: None))
            except BaseException:
                self._drop_lease()
                raise

    def down(self) -> None:
        if self.folder.exists():
            with self._alone():
                self._end()
                self._drop_lease()
        else:
            kill_marked(self.folder.path)  # somebody removed the folder under a stack that was up
        self._clear_privates()

    def reset(self) -> None:
        if self.folder.exists():
            with self._alone():
                self._end()
                self._drop_lease()
                self.folder.remove()
        else:
            self.down()
        self._clear_privates()

    def is_up(self) -> bool:
        return self.folder.exists() and self.folder.is_held("supervisor")

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
        self._drop_lease()
        with suppress(StackError):  # it does not answer: it was killed, or is going already
            if self.is_up() and not self._ask("leave").get("ends"):
                return
        self._wait_for_the_end()
        if self.private or self._is_ephemeral():
            self.clear_away()

    def _drop_lease(self) -> None:
        if self._lease is not None:
            self._lease.close()
            self._lease = None

    def _join(self) -> bool:
        """Whether the stack is up and stays so; waits for one that is still starting, or already ending."""
        if not self.is_up():
            return False
        starting = self.folder.read_state().get("starting", True)
        with suppress(StackError):  # it does not answer: it was killed, or is going already
            self._ask("join" if self.ephemeral else "keep", within_s=UP_WITHIN_S if starting else ANSWER_WITHIN_S)
            return True
        self._wait_for_the_end()
        if self.is_up():
            raise StackError("the stack's supervisor neither answers nor ends", "run `workshop down`")
        return False

    def _end(self) -> None:
        """Take the servers down, the supervisor's way or, if there is none that answers, by force."""
        with suppress(StackError):
            self._ask("down")
            self._wait_for_the_end()
        self._sweep()

    def _wait_for_the_end(self) -> None:
        """Wait, within a limit, until the supervisor has gone."""
        deadline = time.monotonic() + DOWN_WITHIN_S
        while self.is_up() and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._supervisor is not None and not self.is_up():
            self._supervisor.join(ANSWER_WITHIN_S)

    def _start(self, on_progress: OnProgress) -> None:
        """Start the supervisor and follow its reports until all is ready. Raises StackError."""
        options = {"servers": self.names, "ephemeral": self.ephemeral, "private": self.private}
        log_file = fresh_log(self.folder.log("supervisor"))
        with log_file.open("wb") as log:
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
            said = last_lines(log_file, 3)
            raise StackError(
                "the supervisor ended without a word" + (f"\n{said}" if said else ""),
                "`workshop logs supervisor` shows more",
            )
        except BaseException:  # Ctrl-C as well: nothing may be left running
            supervisor.terminate()
            with suppress(subprocess.TimeoutExpired):
                supervisor.wait(DOWN_WITHIN_S)
            self._sweep()
            if self.private:
                self.folder.remove()
            raise
        finally:
            supervisor.stdout.close()
            # It outlives us, or else leaves no zombie.
            self._supervisor = threading.Thread(target=supervisor.wait, daemon=True)
            self._supervisor.start()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Bring up or take down one at a time; a second `up` waits for the first and finds it done."""
        lock = None
        while lock is None:
            self.folder.make()
            with suppress(FileNotFoundError):  # `reset` removed the folder while we waited
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
        self.folder.state.unlink(missing_ok=True)

    def _clear_privates(self) -> None:
        """Remove private stacks whose creator was killed, and their supervisor as well."""
        for folder in self.folder.privates():
            LocalBackend(folder, private=True).clear_away()

    def clear_away(self) -> None:
        """End what a supervisor left that died, unless somebody still uses it; a private stack's folder goes, too."""
        try:
            lock = self.folder.acquire("starting")
        except (BlockingIOError, FileNotFoundError):
            return  # somebody is at it, or has done it
        with lock:
            if not self.is_up() and not self.folder.is_held("leases", shared=True):
                self._sweep()
                if self.private:
                    self.folder.remove()

    # -- looking and acting

    def urls(self) -> Urls:
        state = self.folder.read_state() if self.is_up() else {}
        if not state:
            raise StackError("the stack is not up", "run `workshop up`")
        if state.get("starting"):
            raise StackError("the stack is still starting", "`workshop up` waits until it is ready")
        urls: dict[str, str] = state["urls"]
        return urls

    def status(self) -> list[ServerStatus]:
        state = self.folder.read_state() if self.folder.exists() else {}
        urls: dict[str, str] = state.get("urls", {})
        return [self._status(name, state.get("servers", {}).get(name), urls) for name in self.names]

    def _status(self, name: str, record: Json | None, urls: Urls) -> ServerStatus:
        if record is None:
            return ServerStatus(name=name, phase=Phase.DOWN)
        identity = identity_in(record)
        running = identity is not None and identity.process() is not None
        phase = Phase(record["phase"])
        detail = record.get("detail", "")
        supervised = self.is_up()
        if identity is None or not running:
            if phase != Phase.STARTING or not supervised:
                phase = Phase.DEAD
        elif is_paused(identity):
            phase = Phase.PAUSED
        if running and not supervised:
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
        if name not in self.names:
            raise StackError(f"this stack has no {name}", f"it has {', '.join(self.names)}")
        if action == "restart":
            if not self.is_up():
                raise StackError("the stack is not up", "run `workshop up`")
            self._ask("restart", name=name, within_s=RESTART_WITHIN_S)
            return
        record = self.folder.read_state().get("servers", {}).get(name, {}) if self.folder.exists() else {}
        identity = identity_in(record)
        if identity is None or identity.process() is None:
            raise StackError(f"{name} is not running", f"run `workshop up`, or `workshop restart {name}`")
        match action:
            case "kill":
                kill_all(identity)
                self._wait_until_noted(name)
            case "pause":
                pause_all(identity)
            case "resume":
                signal_all(identity, signal.SIGCONT)

    def logs(self, name: str, lines: int) -> str:
        name = name if name == "supervisor" else check_names([name])[0]
        if not self.folder.log(name).exists():
            raise StackError(f"{name} has no log yet", "run `workshop up`")
        return last_lines(self.folder.log(name), lines)

    def _wait_until_noted(self, name: str) -> None:
        """Wait until the supervisor, if there is one, has seen that a server died."""
        deadline = time.monotonic() + 5
        while self.is_up() and time.monotonic() < deadline:
            if self.folder.read_state().get("servers", {}).get(name, {}).get("phase") == Phase.DEAD:
                return
            time.sleep(0.01)

    def _is_ephemeral(self) -> bool:
        """Whether what is left, if anything, is of a stack that was to go with its last user."""
        with suppress(StackError):
            return bool(self.folder.read_state().get("ephemeral", True))
        return False

    def _ask(self, what: str, *, name: str = "", within_s: float = ANSWER_WITHIN_S) -> Json:
        """Send the supervisor one request and return its answer. Raises StackError."""
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(within_s)
                connection.connect(str(self.folder.control))
                connection.sendall(json.dumps({"do": what, "name": name}).encode() + b"\n")
                with connection.makefile("rb") as answers:
                    line = answers.readline()
        except OSError as error:
            raise StackError(f"the stack's supervisor does not answer: {error}", "run `workshop status`") from error
        if not line:
            raise StackError("the stack's supervisor ended before it answered", "run `workshop status`")
        answer: Json = json.loads(line)
        if answer.get("error"):
            raise StackError(answer["error"], answer["remedy"])
        return answer


def identity_in(record: Json) -> Identity | None:
    """The identity that a server's record holds, if it got that far."""
    return Identity(record["pid"], record["started"]) if "pid" in record else None
