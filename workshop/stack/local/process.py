"""Processes of a stack: started so that none is ever lost, found again by pid and start time.

A server's pid is written down before the server exists: `spawn` starts a shell that waits at a gate, the
caller records its identity, and only `open_gate` lets the shell become the server. If the caller dies in
between, the shell reads end-of-file and ends. Every process carries the name of its stack in its
environment (`MARK`), which also finds what left its process group, or whose record is damaged; those that
write a title over their environment (Redis, PostgreSQL's backends) are known by the log they write to.
"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

MARK = "SHOWCASE_STACK_FOLDER"
GATE = 'IFS= read -r go && [ "$go" = go ] && exec "$@" </dev/null'
STILL = (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP, psutil.STATUS_ZOMBIE, None)
START_TIME_TOLERANCE_S = 2.0  # the kernel counts from boot, and the wall clock may have been corrected since


@dataclass(frozen=True, slots=True)
class Identity:
    """A process that cannot be mistaken for another: its pid and when it started (seconds since 1970)."""

    pid: int
    started: float

    @classmethod
    def of(cls, pid: int) -> "Identity":
        """The identity of a living process. Raises psutil.NoSuchProcess."""
        return cls(pid, psutil.Process(pid).create_time())

    def is_now(self, process: psutil.Process) -> bool:
        """Whether a living process with this pid is this one, not a later one that got its number."""
        return abs(process.create_time() - self.started) < START_TIME_TOLERANCE_S

    def process(self) -> psutil.Process | None:
        """The process, if it still runs (one that only waits to be reaped does not)."""
        with suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if self.is_now(process) and process.status() != psutil.STATUS_ZOMBIE:
                return process
        return None


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    log: Path,
    user: str | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a group of its own, halted before its first instruction: see `open_gate`."""
    with log.open("ab") as output:
        return subprocess.Popen(
            ["/bin/sh", "-c", GATE, "gate", *map(str, argv)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            user=user,
            group=None if user is None else primary_group(user),
            extra_groups=None if user is None else [],
            start_new_session=True,
        )


def open_gate(process: subprocess.Popen[bytes]) -> None:
    """Let a spawned process go on."""
    assert process.stdin is not None
    with suppress(BrokenPipeError), process.stdin:
        process.stdin.write(b"go\n")


def primary_group(user: str) -> int:
    """The group id of a user."""
    import pwd

    return pwd.getpwnam(user).pw_gid


def group_of(identity: Identity) -> list[psutil.Process]:
    """Everything that belongs to a server: its process, all descendants and the rest of its group."""
    main = identity.process()
    found = {} if main is None else {main.pid: main}
    if main is not None:
        with suppress(psutil.NoSuchProcess):
            found |= {child.pid: child for child in main.children(recursive=True)}
    elif _has_new_owner(identity):
        return []  # so the old group is gone
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, ProcessLookupError):
            if process.pid not in found and os.getpgid(process.pid) == identity.pid:
                found[process.pid] = process
    return [p for p in found.values() if _state(p) not in (None, psutil.STATUS_ZOMBIE)]


def marked(folder: Path) -> list[psutil.Process]:
    """Every process that belongs to the stack in `folder`, by its environment or by where it logs."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            ours = process.environ().get(MARK) == str(folder) or _stdout(process).startswith(f"{folder}/logs/")
            if ours and process.pid != os.getpid():
                found.append(process)
    return found


def writers(log: Path) -> list[psutil.Process]:
    """Every process whose standard output is a server's log, or the one before: also the backends of a dead
    PostgreSQL, which are in no group of its and may be paused."""
    logs = {str(log), f"{log}.1"}
    return [process for process in psutil.process_iter() if _stdout(process) in logs]


def signal_all(identity: Identity, number: signal.Signals) -> None:
    """Send a signal to a server's whole group, the parent first, until a look finds nobody new."""
    reached: set[int] = set()
    while fresh := [p for p in group_of(identity) if p.pid not in reached]:
        for process in fresh:
            reached.add(process.pid)
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)


def pause_all(identity: Identity, within_s: float = 5.0) -> None:
    """SIGSTOP a server's whole group and wait until all of it has stopped."""
    deadline = time.monotonic() + within_s
    signal_all(identity, signal.SIGSTOP)
    while any(_state(process) not in STILL for process in group_of(identity)):
        if time.monotonic() > deadline:
            raise TimeoutError(f"process group {identity.pid} does not stop")
        time.sleep(0.002)


def kill_all(identity: Identity) -> None:
    """SIGKILL a server's whole group and wait until nothing of it runs."""
    kill_found(lambda: group_of(identity))


def kill_marked(folder: Path) -> None:
    """SIGKILL all that is left of the stack in `folder` and wait until nothing of it runs."""
    kill_found(lambda: marked(folder))


def kill_found(find: Callable[[], list[psutil.Process]], within_s: float = 10.0) -> None:
    """SIGKILL what `find` finds until it finds nothing. Raises TimeoutError."""
    deadline = time.monotonic() + within_s
    while left := find():
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(left, timeout=0.1)
        if time.monotonic() > deadline:
            raise TimeoutError(f"processes do not die: {', '.join(str(process.pid) for process in left)}")


def is_paused(identity: Identity) -> bool:
    """Whether a server's main process is stopped by a signal."""
    process = identity.process()
    return process is not None and _state(process) == psutil.STATUS_STOPPED


def resident_bytes(identity: Identity) -> int:
    """Memory of a server's whole group, in bytes. Pages that its processes share count once where the
    system can tell (Linux: the proportional set size)."""
    total = 0
    for process in group_of(identity):
        with suppress(psutil.NoSuchProcess):
            try:
                memory = process.memory_full_info()
                total += getattr(memory, "pss", 0) or memory.rss
            except psutil.AccessDenied:
                total += process.memory_info().rss
    return total


def _has_new_owner(identity: Identity) -> bool:
    """Whether the pid now belongs to a later process."""
    with suppress(psutil.NoSuchProcess):
        return not identity.is_now(psutil.Process(identity.pid))
    return False


def _stdout(process: psutil.Process) -> str:
    """The file that a process writes its standard output to; empty where the system does not tell."""
    with suppress(OSError):
        return str(Path(f"/proc/{process.pid}/fd/1").readlink())
    return ""


def _state(process: psutil.Process) -> str | None:
    try:
        return str(process.status())
    except psutil.NoSuchProcess:
        return None
