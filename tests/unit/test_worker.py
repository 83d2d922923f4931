"""A process in the background: what its event loop runs in."""

import subprocess
import sys

from showcase.platform.worker import GC_AFTER

ASKING = """
import gc
from showcase.platform.worker import run_in_loop
async def main():
    print(gc.get_threshold()[0], gc.get_freeze_count() > 0)
run_in_loop(main())
"""


def test_worker_looks_for_garbage_as_seldom_as_its_batches_are_large() -> None:
    asked = subprocess.run([sys.executable, "-c", ASKING], check=True, capture_output=True, text=True, timeout=60)

    assert asked.stdout.split() == [str(GC_AFTER), "True"]
