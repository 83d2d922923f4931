"""Runs a notebook with nbval, every output compared, in a pytest of its own.

Apart from the one that calls it: its options, timeouts and warnings are not this one's.
"""

import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
CELL_WITHIN_S = 180
GRACE_S = 20.0


def run(
    notebook: Path, scratch: Path, *, env: Mapping[str, str] | None = None, within_s: float = 600.0
) -> "subprocess.CompletedProcess[str]":
    """Run a notebook and compare; what differs is on standard output.

    Args:
        env: what its cells see; by default the environment of this process. A thread that starts it while tests go on
            gives it: they change the environment, and whatever inherits it at that moment may not start (EFAULT).
    """
    nothing = scratch / "pytest.ini"
    nothing.write_text("[pytest]\n")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-c", str(nothing), "--rootdir", str(notebook.parent)),
            *("--disable-plugin-autoload", "-p", "nbval.plugin", "-p", "tests.notebooks.compared"),
            *("-p", "no:cacheprovider", "-q", "--no-header", "--color=no", "-x"),
            *("--nbval", "--nbval-current-env", "--nbval-cell-timeout", str(CELL_WITHIN_S)),
            *("--nbval-sanitize-with", str(CHECKOUT / "tests" / "nbval_sanitize.cfg"), str(notebook)),
        ],
        cwd=CHECKOUT,  # where the plugin is found
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        said, _ = process.communicate(timeout=within_s)
    except BaseException:
        process.send_signal(signal.SIGINT)  # on which it ends the kernel
        try:
            process.communicate(timeout=GRACE_S)
        finally:
            process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, said)
