"""How long the local stack takes to come up from nothing, to be attached to, and how much memory it holds.

Runs in a state folder of its own, beside whatever else is up. Beside each figure stands its target and, since
a machine is never quiet, what the same machine needs in the same minute for something bare: one JVM that
prints its version, and one Python that imports nothing.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import Folder
from workshop.stack.local.java import find_java

COLD_UP_TARGET_S = 20.0
ATTACH_TARGET_S = 1.0
MEMORY_TARGET_MIB = 1.6 * 1024
ATTACHES = 5


def main() -> int:
    """Measure, print the three figures beside their targets, and return 1 if one is missed."""
    workshop = [sys.executable, "-m", "workshop"]
    with tempfile.TemporaryDirectory(prefix="showcase-bench-", dir="/var/tmp") as home:
        os.chmod(home, 0o755)  # noqa: S103, PTH101 - PostgreSQL's user must be able to enter it
        environment = {**os.environ, "SHOWCASE_STATE_HOME": home, "SHOWCASE_STACK": "local"}
        os.environ["SHOWCASE_STATE_HOME"] = home
        bare_java = timed([str(find_java().binary), "-version"], environment)
        bare_python = timed([sys.executable, "-c", ""], environment)
        try:
            cold = timed([*workshop, "up"], environment)
            attach = statistics.median(timed([*workshop, "up"], environment) for _ in range(ATTACHES))
            found = LocalBackend(Folder.of_checkout()).status()
            memory = {server.name: (server.resident_bytes or 0) / 2**20 for server in found}
        finally:
            subprocess.run([*workshop, "reset", "--all"], env=environment, check=True, timeout=120, capture_output=True)
    total = sum(memory.values())
    parts = ", ".join(f"{name} {mib:.0f}" for name, mib in memory.items())
    rows = [
        ("cold up, s", cold, COLD_UP_TARGET_S, f"{cold / bare_java:.0f} starts of a bare JVM"),
        ("attach, s", attach, ATTACH_TARGET_S, f"{attach / bare_python:.0f} starts of a bare Python"),
        ("memory, MiB", total, MEMORY_TARGET_MIB, parts),
    ]
    for what, figure, target, beside in rows:
        met = "met" if figure < target else "MISSED"
        print(f"{what:12} {figure:8.2f}  target < {target:6.0f}  {met:6}  = {beside}")
    return 0 if all(figure < target for _, figure, target, _ in rows) else 1


def timed(command: Sequence[str], environment: Mapping[str, str]) -> float:
    """Seconds that a command takes as a whole process."""
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=180)
    return time.perf_counter() - began
