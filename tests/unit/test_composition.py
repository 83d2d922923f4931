"""What is plugged together: a process loads what it uses."""

import subprocess
import sys

import pytest

from showcase.composition import WORKERS

BUILDING = """
import sys
from showcase import composition
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings

names = "postgres payment_postgres stock_postgres notice_postgres anchor_postgres rabbitmq kafka connect mail"
urls = {f"{name}_url": "any://user:secret@127.0.0.1:1/x" for name in names.split()}
urls |= {name: url.replace("any", "postgresql") for name, url in urls.items() if "postgres" in name}
urls |= {"mongo_url": "mongodb://127.0.0.1:1/x", "redis_state_url": "redis://127.0.0.1:1"}
urls |= {"redis_cache_url": "redis://127.0.0.1:1"}
composition.build_worker(Resources(Settings(environment="workshop", **urls)), sys.argv[1])
print(*(name for name in ("fastapi", "starlette", "uvicorn") if name in sys.modules))
"""


@pytest.mark.parametrize("worker", WORKERS)
def test_worker_starts_without_loading_a_web_framework(worker: str) -> None:
    asked = subprocess.run(
        [sys.executable, "-c", BUILDING, worker], check=False, capture_output=True, text=True, timeout=60
    )

    assert (asked.returncode, asked.stdout.strip()) == (0, ""), asked.stderr
