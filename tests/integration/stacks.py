"""What the stack's tests build with: state folders of their own, processes that use a stack, ways to look.

Nothing here touches the stack of the checkout. What a test looks at it looks at itself: `processes_below`
reads /proc and does not ask the code under test which processes are its own.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import CHECKOUT, Folder
from workshop.stack.model import SERVERS

WITHIN_S = 60.0
LIGHT = ("redis-state", "mail")
WORKSHOP = (sys.executable, "-m", "workshop")


class Home:
    """A folder for state folders, as SHOWCASE_STATE_HOME names it, and processes that use it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.started: list[subprocess.Popen[str]] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")},
            "SHOWCASE_STATE_HOME": str(path),
            "COLUMNS": "400",
        }

    @property
    def folder(self) -> Folder:
        """The state folder that this checkout has in this home."""
        return Folder(self.path / Folder.of_checkout().path.name)

    def backend(self, names: Sequence[str] = LIGHT, *, ephemeral: bool = False) -> LocalBackend:
        """A backend of this process on the home's stack."""
        return LocalBackend(self.folder, names, ephemeral=ephemeral)

    def python(self, code: str, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
        """Start Python on some lines of code, in a process group of its own."""
        return self.start(sys.executable, "-c", PRELUDE + code, *arguments, **environment)

    def workshop(self, *arguments: str, **environment: str) -> "Ended":
        """Run `workshop` to its end."""
        return ended(self.start(*WORKSHOP, *arguments, **environment))

    def start(self, *command: object, **environment: str) -> "subprocess.Popen[str]":
        """Start a command of this home, in a process group of its own."""
        process = subprocess.Popen(
            [str(part) for part in command],
            cwd=CHECKOUT,
            env={**self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def processes(self) -> list[str]:
        """What runs of any stack of this home."""
        return processes_below(self.path)


PRELUDE = """
import json, os, signal, sys, time
from pathlib import Path
from workshop.stack import Stack, StackError
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import Folder
"""


class Ended:
    """How a command ended: exit code and all it printed, on lines of any length."""

    def __init__(self, code: int, output: str, errors: str) -> None:
        self.code = code
        self.output = output
        self.errors = errors

    def __repr__(self) -> str:
        return f"exit code {self.code}\n{self.output}\n{self.errors}"


def ended(process: "subprocess.Popen[str]") -> Ended:
    """Wait for a started command."""
    with process:
        output, errors = process.communicate(timeout=120)
    return Ended(process.returncode, output, errors)


@contextmanager
def short_home(below: str = "/var/tmp") -> Iterator[Home]:  # noqa: S108 - made anew, mode 755 so that `nobody` gets in
    """A home under a short path; at the end its stack is taken down, nothing runs, nothing is left."""
    path = Path(tempfile.mkdtemp(prefix="st-", dir=below))
    path.chmod(0o755)
    home = Home(path)
    try:
        yield home
        with suppress(FileNotFoundError):
            LocalBackend(home.folder).reset()
        assert home.processes() == []
    finally:
        for process in find_below(path):  # only after a failure
            with suppress(psutil.NoSuchProcess):
                process.kill()
        for child in home.started:  # one that a failed test did not wait for would be a zombie of the next tests
            with child:
                child.kill()
        shutil.rmtree(path, ignore_errors=True)


def processes_below(path: Path) -> list[str]:
    """The processes that have to do with a folder, as text; empty when nothing is left."""
    return [f"{process.pid} {describe(process)[:200]}" for process in find_below(path)]


def find_below(path: Path) -> list[psutil.Process]:
    """The living processes, this one aside, whose environment, working folder or open files name a folder."""
    return [
        process
        for process in psutil.process_iter()
        if process.pid != os.getpid() and any(place.startswith(str(path)) for place in places(process))
    ]


def places(process: psutil.Process) -> Iterator[str]:
    """The paths that tie a process to a stack; none for one that only waits to be reaped."""
    proc = Path("/proc") / str(process.pid)
    with suppress(OSError):
        for variable in (proc / "environ").read_bytes().split(b"\0"):
            name, _, value = variable.partition(b"=")
            if name == b"SHOWCASE_STACK_FOLDER":
                yield os.fsdecode(value)
    with suppress(OSError):
        yield str((proc / "cwd").readlink())
        for descriptor in (proc / "fd").iterdir():
            with suppress(OSError):
                yield str(descriptor.readlink())


def describe(process: psutil.Process) -> str:
    """A process's command line; it may have ended since it was found."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return "gone"


def supervisors(home: Home) -> list[psutil.Process]:
    """The supervisors that run in a home."""
    return [process for process in find_below(home.path) if "workshop.stack.local.supervisor" in describe(process)]


def wait_until(condition: Callable[[], object], *, within_s: float = WITHIN_S) -> None:
    """Wait for a condition. Raises AssertionError when it does not come true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s"
        time.sleep(0.01)


def supervisor_of(folder: Folder) -> psutil.Process:
    """The supervisor that the state file names."""
    return psutil.Process(json.loads(folder.state.read_bytes())["supervisor"]["pid"])


def pids_of(folder: Folder) -> dict[str, int]:
    """The main process of each server that was started."""
    records = json.loads(folder.state.read_bytes())["servers"]
    return {name: records[name]["pid"] for name in SERVERS if "pid" in records.get(name, {})}


def phases(backend: LocalBackend) -> dict[str, str]:
    """What `status` says of each server."""
    return {status.name: str(status.phase) for status in backend.status()}


def runs(process: psutil.Process) -> bool:
    """Whether a process is there, and does not only wait for its parent to notice that it ended."""
    with suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False
