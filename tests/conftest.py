"""What holds for all tests."""

import signal

import pytest

# A shell starts background jobs with SIGINT ignored, and every process they start inherits that. The tests
# that interrupt a process need it as it is in the foreground.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """What every test that is a coroutine runs on."""
    return "asyncio"
