"""Fixtures of the integration tests: the stack that is up, homes for stacks of one's own."""

from collections.abc import Iterator

import pytest

from tests.integration.stacks import Home, short_home
from workshop.stack import SERVERS, Stack
from workshop.stack.local.backend import LocalBackend


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The stack that is up (`workshop exec -- pytest` brings it up): for tests that break no server."""
    with Stack.attach() as stack:
        yield stack


@pytest.fixture
def home() -> Iterator[Home]:
    """A home with nothing in it."""
    with short_home() as home:
        yield home


@pytest.fixture(scope="session")
def broken_stack_home() -> Iterator[Home]:
    """The home of one whole stack for all tests that break servers."""
    with short_home() as home:
        yield home


@pytest.fixture
def whole(broken_stack_home: Home) -> LocalBackend:
    """A whole stack to break, every server ready."""
    backend = broken_stack_home.backend(SERVERS)
    backend.up()
    for status in backend.status():
        if status.phase != "ready":
            backend.act(status.name, "restart")
    assert [status.name for status in backend.status() if status.phase == "ready"] == list(SERVERS)
    return backend
