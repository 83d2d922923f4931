"""The shape of a namespace's part in one system, and the names that all systems share."""

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from confluent_kafka import KafkaException

from workshop.stack.model import StackError

NAME = re.compile(r"[a-z][a-z0-9]{0,20}")
OWNED = re.compile(rf"ns_({NAME.pattern})(?=[.:]|$)")
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Trace:
    """Something of a namespace that was found in a server.

    Attributes:
        name: of the namespace.
        kind: what was found, and where, such as `postgres database`.
        identifier: what it is called there.
    """

    name: str
    kind: str
    identifier: str

    def __str__(self) -> str:
        return f"{self.kind} {self.identifier}"


class Part(Protocol):
    """What a namespace has in one server. No call outlasts its deadline by much, also on a paused server."""

    server: str

    def create(self, name: str) -> None:
        """Make what has to exist before it is used. Raises StackError, also when it exists already."""

    def traces(self, name: str | None = None) -> list[Trace]:
        """Everything here of one namespace, or at least one trace of each of all. Raises StackError."""

    def drop(self, name: str) -> None:
        """Remove everything of one namespace and wait until it is gone; safe to repeat. Raises StackError."""


def check_name(name: str) -> str:
    """The name. Raises StackError when a namespace cannot be called that."""
    if not NAME.fullmatch(name):
        raise StackError(
            f"a namespace cannot be called {name!r}",
            "1 to 21 characters: a lower-case letter, then lower-case letters and digits",
        )
    return name


def taken(name: str, trace: str) -> StackError:
    """What to raise when a name is wanted that somebody has."""
    return StackError(f"namespace {name} exists already: {trace}", "choose another name, or drop all: `workshop reset`")


def new_name() -> str:
    """A name that nobody has."""
    return f"n{secrets.token_hex(5)}"


def in_server(name: str) -> str:
    """What a namespace is called in the servers."""
    return f"ns_{name}"


def owner(identifier: str) -> str | None:
    """The namespace that something in a server belongs to by its name; None if to none."""
    found = OWNED.match(identifier)
    return found[1] if found else None


def found(kind: str, identifiers: Iterable[str], name: str | None, *, skip: str = "") -> list[Trace]:
    """Those of the identifiers that belong to one namespace, or to any.

    Args:
        skip: what may stand before `ns_`.
    """
    owners = [(owner(identifier.removeprefix(skip)), identifier) for identifier in identifiers]
    return [Trace(one, kind, identifier) for one, identifier in owners if one and name in (None, one)]


@contextmanager
def speaking_to(server: str, *errors: type[Exception]) -> Iterator[None]:
    """Turn what a driver raises into a StackError that names the server."""
    try:
        yield
    except errors as error:
        remedy = f"see `workshop status` and `workshop logs {server}`"
        raise StackError(f"{server}: {first_line(error)}", remedy) from error


def first_line(error: object) -> str:
    """An error in one line."""
    text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
    line = next(iter(text.strip().splitlines()), "") or type(error).__name__
    return line.partition(", Timeout: ")[0]  # PyMongo goes on to print all it knows of the replica set


def wait_until(done: Callable[[], bool], within_s: float, what: Callable[[], str]) -> None:
    """Ask until something is so. Raises StackError that says `what` is wrong when it is not in time."""
    deadline = time.monotonic() + within_s
    while not done():
        if time.monotonic() > deadline:
            raise StackError(f"{what()} after {within_s:g} s")
        time.sleep(POLL_S)
