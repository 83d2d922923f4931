"""What holds for all tests."""

import os
import signal

import pytest

# A shell starts background jobs with SIGINT ignored, and every process they start inherits that. The tests
# that interrupt a process need it as it is in the foreground.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests marked `sqlserver` need Docker: they are part of a run only where SHOWCASE_SQLSERVER=1 asks for them."""
    if os.environ.get("SHOWCASE_SQLSERVER") == "1":
        return
    left_out = [item for item in items if item.get_closest_marker("sqlserver")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What every test that is a coroutine runs on."""
    return "asyncio"
