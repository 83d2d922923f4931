"""Runs one notebook as a person would, top to bottom in a fresh kernel, and leaves nothing of it behind.

Papermill runs in a process of its own, away from the terminal's signals, so that one that hangs or crashes takes
nothing with it: an interrupt and a deadline are both a SIGINT to it, on which it interrupts the cell (whose clean-up
runs), ends the kernel and saves. What is still there afterwards carries `MARK` in its environment and is ended.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from ipykernel.kernelspec import write_kernel_spec

from workshop.stack.local.process import MARK as OF_A_STACK
from workshop.stack.local.process import kill_found

MARK = "SHOWCASE_REPORT_RUN"
GRACE_S = 20.0  # for the clean-up of a lesson: stopping app processes, dropping a namespace
KERNEL_START_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How the process that ran a notebook ended.

    Attributes:
        timed_out, interrupted: it was ended, for that reason.
        code: its exit code; what the notebook itself says is in the notebook.
        said: the last line it wrote, which explains a kernel that died or did not start.
    """

    seconds: float
    code: int
    timed_out: bool = False
    interrupted: bool = False
    said: str = ""


def run_notebook(source: Path, executed: Path, *, profile: str, timeout_s: float) -> Ran:
    """Run a notebook in its own folder, with `profile` as its parameter, and save it as it goes.

    Args:
        executed: the file to write; holds what was reached, however the run ends.
        timeout_s: for the whole notebook, the start of its kernel included.

    An interrupt (KeyboardInterrupt) is told in the result, after everything has ended.
    """
    began = time.monotonic()
    mark = uuid.uuid4().hex
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as log:
        # The kernel of this very Python comes first, whatever other kernels the machine knows; and no person's
        # IPython profile runs in it.
        write_kernel_spec(Path(scratch, "kernels", "python3"))
        environment = {**os.environ, MARK: mark, "JUPYTER_PATH": scratch, "IPYTHONDIR": str(Path(scratch, "ipython"))}
        process = None
        timed_out = interrupted = False
        try:
            process = subprocess.Popen(
                papermill(source, executed, profile),
                env=environment,
                cwd=source.parent,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            timed_out = True
        except KeyboardInterrupt:
            interrupted = True
        if timed_out or interrupted:
            try:
                end(process, mark)
            except KeyboardInterrupt:  # a second one: the person does not want to wait
                interrupted = True
        if timed_out or interrupted or process is None or process.returncode < 0:
            kill(process, mark)
        log.seek(0)
        lines = [line for line in log.read().splitlines() if line.strip()]
    return Ran(
        seconds=time.monotonic() - began,
        code=-signal.SIGINT if process is None else process.returncode,
        timed_out=timed_out,
        interrupted=interrupted,
        said=lines[-1].strip() if lines else "",
    )


def papermill(source: Path, executed: Path, profile: str) -> list[str]:
    """The command that runs one notebook."""
    return [
        *(sys.executable, "-m", "workshop.report.tied", str(source.absolute()), str(executed.absolute())),
        *("--parameters_raw", "profile", profile),
        *("--kernel", "python3", "--cwd", str(source.parent.absolute())),
        *("--start-timeout", str(KERNEL_START_S), "--no-progress-bar", "--no-log-output"),
    ]


def end(process: "subprocess.Popen[bytes] | None", mark: str) -> None:
    """Let a run end in order, clean-up included, as long as that takes no longer than it may."""
    deadline = time.monotonic() + GRACE_S
    if process is not None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_S)
    psutil.wait_procs(started_by(mark), timeout=max(0.0, deadline - time.monotonic()))


def kill(process: "subprocess.Popen[bytes] | None", mark: str) -> None:
    """SIGKILL what is left of a run, and wait until nothing of it is there. Raises TimeoutError."""
    if process is not None:
        process.kill()
        process.wait()
    kill_found(lambda: started_by(mark))


def started_by(mark: str) -> list[psutil.Process]:
    """Every process of a run. Servers of a stack are left out: its supervisor ends those that nobody uses."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            environment = process.environ()
            if environment.get(MARK) == mark and OF_A_STACK not in environment:
                found.append(process)
    return found
