"""The words every part of the stack shares: its servers, their states, its errors."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

SERVERS = ("postgres", "mongo", "redis-cache", "redis-state", "rabbitmq", "kafka", "connect", "mail")
"""Every server of a whole stack, in the order in which people list them."""

Action = Literal["kill", "pause", "resume", "restart"]


BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class StackError(Exception):
    """Something about the servers went wrong.

    Args:
        what: one sentence for the person who sees it.
        remedy: what to try next; empty when there is nothing to add.
    """

    def __init__(self, what: str, remedy: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


class NotReady(Exception):
    """A server does not answer its own protocol (yet)."""


class Phase(StrEnum):
    """What a server is doing, as `status` shows it."""

    STARTING = "starting"
    READY = "ready"
    PAUSED = "paused"
    DEAD = "dead"
    DOWN = "down"


CURES: Mapping[Phase, Action] = {Phase.DEAD: "restart", Phase.PAUSED: "resume"}
"""What makes a server ready again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatus:
    """One server, as seen now.

    Attributes:
        pid: of its main process; None when it runs elsewhere or not at all.
        resident_bytes: memory of its whole process tree, shared pages counted once; None if unknown.
        detail: for a person: how it died, or why it is not ready.
    """

    name: str
    phase: Phase
    version: str = ""
    pid: int | None = None
    resident_bytes: int | None = None
    address: str = ""
    detail: str = ""


class Backend(Protocol):
    """How a kind of stack is brought up and handled; one contract test suite holds for all."""

    kind: str

    def up(self, on_progress: "OnProgress | None" = None) -> None:
        """Bring every server up; harmless when they are. Raises StackError."""

    def down(self) -> None:
        """Take the servers down and keep their data; harmless when they are."""

    def reset(self) -> None:
        """Take the servers down and remove all their data."""

    def lease(self) -> None:
        """Keep an ephemeral stack up until `release`, or until this process ends. Raises StackError."""

    def release(self) -> None:
        """Give back what this object took: an ephemeral stack that nobody else uses goes down."""

    def is_up(self) -> bool:
        """Whether the stack is up, without asking each server."""

    def urls(self) -> "Urls":
        """Where the servers are. Raises StackError when the stack is not up."""

    def status(self) -> list[ServerStatus]:
        """Every server as it is now; works on a stack in any state."""

    def act(self, name: str, action: Action) -> None:
        """Kill, pause, resume or restart one server. Raises StackError."""

    def logs(self, name: str, lines: int) -> str:
        """The last `lines` lines of a server's log."""


class OnProgress(Protocol):
    """Called whenever a server's phase changes while the stack comes up."""

    def __call__(self, name: str, phase: Phase, seconds: float, detail: str) -> None: ...


Urls = Mapping[str, str]
"""Environment variables that say where the servers are (`SHOWCASE_POSTGRES_URL`, …)."""

URL_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "postgres": ("SHOWCASE_POSTGRES_URL",),
    "mongo": ("SHOWCASE_MONGO_URL",),
    "redis-cache": ("SHOWCASE_REDIS_CACHE_URL",),
    "redis-state": ("SHOWCASE_REDIS_STATE_URL",),
    "rabbitmq": ("SHOWCASE_RABBITMQ_URL", "SHOWCASE_RABBITMQ_API_URL"),
    "kafka": ("SHOWCASE_KAFKA_URL",),
    "connect": ("SHOWCASE_CONNECT_URL",),
    "mail": ("SHOWCASE_MAIL_URL", "SHOWCASE_MAIL_API_URL"),
}
"""The variables of each server; every one is a URL with user and password in it."""


def url_of(urls: Urls, variable: str) -> SplitResult:
    """The parsed URL in `variable`. Raises StackError when it is missing or has no host."""
    try:
        parsed = urlsplit(urls.get(variable, ""))
        valid = (
            bool(parsed.hostname) and (parsed.port is None or parsed.port > 0) and not BAD_ESCAPE.search(parsed.netloc)
        )
    except ValueError:
        valid = False
    if not valid:  # never with the URL, nor with what a parser says of it: there is a password in it
        raise StackError(
            f"{variable} is not set to a URL that can be read",
            "run `workshop up`; or export it with user and password percent-encoded: see .env.example",
        )
    return parsed


def credentials(url: SplitResult) -> tuple[str, str]:
    """User and password of a URL, percent-decoded."""
    return unquote(url.username or ""), unquote(url.password or "")


def check_names(names: Iterable[str]) -> tuple[str, ...]:
    """The names, in the order of SERVERS. Raises StackError for one that is not a server."""
    wanted = set(names)
    if unknown := sorted(wanted.difference(SERVERS)):
        raise StackError(f"no server is called {', '.join(unknown)}", f"servers: {', '.join(SERVERS)}")
    return tuple(name for name in SERVERS if name in wanted)
