"""Cleans up after a lesson, also when its kernel is killed: a process that waits for the lesson to end.

The kernel tells it, a JSON object a line, what it has started and made. When the line goes dead, however that
came about, the keeper ends those processes and drops the namespace. `Lab.close` uses the same way.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Any

import psutil

from workshop.stack.local.process import Identity

STOP_WITHIN_S = 12.0


class Keeper:
    """The lesson's end of the line."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workshop.keeper"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a Ctrl-C for the lesson is none for it
        )

    def tell(self, **fact: object) -> None:
        """One more thing to clean up."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(fact) + "\n")
        self._process.stdin.flush()

    def finish(self, within_s: float = 60.0) -> str:
        """Have everything cleaned up now. Returns what went wrong with that, if anything did."""
        with suppress(subprocess.TimeoutExpired):
            _, errors = self._process.communicate(timeout=within_s)
            return errors.strip()
        return f"cleaning up takes longer than {within_s:.0f} s"


def main() -> None:
    """Wait for the lesson to end, then clean up."""
    from workshop.stack import Stack, StackError

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(StackError):
        Stack.attach()  # keeps a stack up that would otherwise end with the lesson, until all of this is done
    facts: list[dict[str, Any]] = [json.loads(line) for line in sys.stdin]
    stop([Identity(*fact["process"]) for fact in facts if "process" in fact])
    for fact in facts:
        if "namespace" in fact:
            from workshop.stack.namespace import Namespace

            try:
                Namespace(fact["urls"], fact["namespace"]).drop()
            except StackError as error:
                sys.stderr.write(f"{error.what}\n")


def stop(processes: list[Identity]) -> None:
    """End processes and whatever they have started: SIGTERM first, SIGKILL for those that do not follow."""
    for identity in processes:
        with suppress(psutil.NoSuchProcess):
            if process := identity.process():
                process.terminate()
                process.resume()  # one that is paused hears nothing
    deadline = time.monotonic() + STOP_WITHIN_S
    while any(identity.process() for identity in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    for identity in processes:
        if identity.process():
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(identity.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
