"""Papermill, tied to the process that started it: `python -m workshop.report.tied ARGUMENTS OF PAPERMILL`.

Its standard input is a pipe from there, on which nothing is ever written: when it ends, that process is gone,
killed perhaps, and this one does what it does on an interrupt: it ends the kernel, and itself.
"""

import os
import runpy
import signal
import threading


def interrupt_at_end_of_input() -> None:
    """Wait until whoever holds the other end of standard input is gone."""
    os.read(0, 1)
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    threading.Thread(target=interrupt_at_end_of_input, daemon=True).start()
    runpy.run_module("papermill", run_name="__main__", alter_sys=True)
