"""The shape every local server has: find it, prepare it, start it, ask whether it is ready.

A server's module holds one class with these members and nothing of any other server. Its config file lies
in `workshop/servers/`, is the same one that compose mounts, and gets ports, folders and passwords from
here. The supervisor does the rest: gate, log, progress, readiness within a time, stop.
"""

import os
import pwd
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from signal import Signals
from typing import Protocol

from workshop.stack.local.folder import Folder
from workshop.stack.local.process import MARK
from workshop.stack.model import StackError, Urls

CONFIG = Path(__file__).resolve().parents[2] / "servers"
USER = "showcase"
UNPRIVILEGED_USER = "nobody"


@dataclass(frozen=True, slots=True)
class Place:
    """What a server is told about where it runs.

    Attributes:
        ports: this server's ports on 127.0.0.1, by the names in `Server.ports`.
        password: of the user `showcase`, in every server of the stack.
        urls: of this server and of those it starts after.
    """

    folder: Folder
    data: Path
    ports: Mapping[str, int]
    password: str
    urls: Urls


@dataclass(frozen=True, slots=True, kw_only=True)
class Launch:
    """How to start a server: the command, what it finds in its environment, as whom and where."""

    argv: Sequence[str | Path]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    cwd: Path | None = None


class Server(Protocol):
    """One kind of server."""

    name: str
    after: tuple[str, ...]
    """Servers that must be ready before this one starts."""
    ports: tuple[str, ...]
    stop_signal: Signals
    stop_within_s: float

    def find(self) -> str:
        """What it will run, for a person. Raises StackError with a remedy when something is not installed."""

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        """Where clients reach it."""

    def prepare(self, place: Place) -> Launch:
        """Make its data folder and config; safe to repeat."""

    def set_up(self, place: Place) -> None:
        """Called until it no longer raises NotReady: what only a running server can be told, once."""

    def probe(self, urls: Urls, timeout_s: float) -> str:
        """Speak the server's protocol and return its version. Raises NotReady."""


def find_command(name: str, *, packages: str, also: Sequence[str] = ()) -> Path:
    """A server's program on PATH, or in the folders where Debian keeps what only root runs.

    Raises StackError that says how to install it.
    """
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin", *also])
    if found := shutil.which(name, path=path):
        return Path(found)
    raise StackError(
        f"{name} is not installed",
        f"apt-get install {packages} (or conda env create -f environment.yml, or SHOWCASE_STACK=compose)",
    )


def environment(**extra: str) -> dict[str, str]:
    """A small, known environment for a server: nothing of the caller's settings changes how it behaves."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "TMPDIR", MARK) if name in os.environ}
    return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"} | kept | extra


def server_user() -> str | None:
    """The user that servers which refuse to run as root run as; None when we are not root."""
    return UNPRIVILEGED_USER if os.getuid() == 0 else None


def own(path: Path, user: str | None) -> None:
    """Make a folder of mode 700 that belongs to a user. Raises StackError when somebody else has made it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if user is None:
        return
    entry = pwd.getpwnam(user)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (os.getuid(), entry.pw_uid):
        raise StackError(
            f"{path} belongs to somebody else", "remove it, or set SHOWCASE_STATE_HOME to a folder of your own"
        )
    os.chown(path, entry.pw_uid, entry.pw_gid, follow_symlinks=False)


def secret_file(path: Path, content: str) -> Path:
    """Write a file that only its owner can read."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
    return path
