"""The system's own processes, as a lesson starts, kills and counts them."""

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx

from workshop.keeper import Keeper
from workshop.stack import StackError
from workshop.stack.local.process import Identity

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 12.0
COMMAND_WITHIN_S = 90.0
POLL_S = 0.02


@dataclass(slots=True)
class Process:
    """One running process.

    Attributes:
        url: of an app process.
    """

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path
    url: str = ""

    def log_lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()


class Processes:
    """All processes of a lesson.

    Args:
        environment: what they find the servers by.
        folder: for their logs.
    """

    def __init__(self, environment: Mapping[str, str], folder: Path, keeper: Keeper) -> None:
        self.environment = dict(environment)
        self._folder = folder
        self._keeper = keeper
        self._running: list[Process] = []
        self._count = 0

    def start(self, names: list[str], settings: Mapping[str, object]) -> list[Process]:
        """Start processes side by side and wait until each is ready. Raises StackError when one does not get there."""
        begun = [self._begin(name, settings) for name in names]
        for process in begun:
            self._wait_until_ready(process)
        return begun

    def named(self, name: str) -> list[Process]:
        """Those of a name that run, the oldest first."""
        return [process for process in self._running if process.name == name and process.popen.poll() is None]

    def counts(self) -> dict[str, int]:
        """How many run of each name."""
        running = [process.name for process in self._running if process.popen.poll() is None]
        return {name: running.count(name) for name in dict.fromkeys(running)}

    def end(self, process: Process, number: signal.Signals) -> None:
        """End one process by a signal, and wait until it has gone."""
        process.popen.send_signal(number)
        try:
            process.popen.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            process.popen.kill()
            process.popen.wait()

    def reap(self) -> None:
        """Wait for those that the keeper has ended, so that no zombie of them stays."""
        for process in self._running:
            process.popen.wait(STOP_WITHIN_S)

    def log_of(self, name: str, lines: int) -> str:
        """The end of the log of each process that ever had this name."""
        logs = sorted(self._folder.glob(f"*-{name}.log"))
        return "\n".join("\n".join(log.read_text(errors="replace").splitlines()[-lines:]) for log in logs)

    def entries_of(self, name: str) -> list[dict[str, Any]]:
        """All that processes that ever had this name have logged as JSON; those of one process in their order."""
        found = []
        for log in sorted(self._folder.glob(f"*-{name}.log")):
            for line in log.read_text(errors="replace").splitlines():
                with suppress(ValueError):  # what a library has printed
                    found.append(json.loads(line))
        return [entry for entry in found if isinstance(entry, dict)]

    def run(self, words: Sequence[str], settings: Mapping[str, object]) -> str:
        """Run a command of the system to its end; what it printed. Raises StackError, also when it fails."""
        ended = self.outcome(words, settings)
        if ended.returncode != 0:
            raise StackError(f"showcase {words[0]}: {ended.stderr.strip() or 'it said nothing'}")
        return ended.stdout

    def outcome(self, words: Sequence[str], settings: Mapping[str, object]) -> "subprocess.CompletedProcess[str]":
        """Run a command of the system to its end, whatever its exit code is. Raises StackError if it takes too long."""
        try:
            return subprocess.run(
                [sys.executable, "-m", "showcase", *words],
                check=False,
                env=self._environment_with(settings),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=COMMAND_WITHIN_S,
            )
        except subprocess.TimeoutExpired as error:
            raise StackError(f"showcase {words[0]} took longer than {COMMAND_WITHIN_S:.0f} s") from error

    def _environment_with(self, settings: Mapping[str, object]) -> dict[str, str]:
        return self.environment | {f"SHOWCASE_{key.upper()}": _text(value) for key, value in settings.items()}

    def _begin(self, name: str, settings: Mapping[str, object]) -> Process:
        self._count += 1
        log = self._folder / f"{self._count:03}-{name}.log"
        command = ["serve"] if name == "app" else [name] if name == "relay" else ["worker", name]
        line = None
        url = ""
        if name == "app":  # listens already, so that nobody else gets the port
            line = socket.create_server(("127.0.0.1", 0), backlog=1_024)
            url = f"http://127.0.0.1:{line.getsockname()[1]}"
            command += ["--fd", str(line.fileno())]
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", "showcase", *command],
                env=self._environment_with(settings),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[] if line is None else [line.fileno()],
                start_new_session=True,
            )
        if line is not None:
            line.close()
        self._keeper.tell(process=astuple(Identity.of(popen.pid)))
        process = Process(name, popen, log, url)
        self._running.append(process)
        return process

    def _wait_until_ready(self, process: Process) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while not _is_ready(process):
            if process.popen.poll() is not None:
                raise StackError(f"{process.name} has ended: {_last_words(process)}", "see lab.logs(name)")
            if time.monotonic() > deadline:
                raise StackError(f"{process.name} is not ready: {_last_words(process)}", "run `workshop doctor`")
            time.sleep(POLL_S)


def _is_ready(process: Process) -> bool:
    if process.url:
        try:
            return httpx.get(f"{process.url}/health/ready", timeout=5).is_success
        except httpx.TransportError:
            return False
    return any('"event": "ready"' in line for line in process.log_lines())


def _last_words(process: Process) -> str:
    lines = process.log_lines()
    if not lines:
        return "it said nothing"
    try:
        entry = json.loads(lines[-1])
    except ValueError:
        return lines[-1]
    return str(entry.get("why") or entry.get("event"))


def _text(value: object) -> str:
    """A setting as the environment holds it."""
    return f"PT{value.total_seconds()}S" if isinstance(value, timedelta) else str(value)
