"""Where a local stack keeps its state: one folder outside the checkout, readable by its owner only.

The folder's name derives from the checkout's path, so that two checkouts never meet. It holds the data of
the servers, their logs, the generated passwords, the chosen ports, the state file and three locks:

`starting`    held by whoever is bringing the stack up or down
`supervisor`  held by the supervisor as long as it lives: its liveness, decided by the kernel
`leases`      shared by everyone who uses a stack that is to go when its last user goes

A private stack has a folder of its own beside that of the checkout. PostgreSQL's data lies beside the folder,
too, where root must leave it to another user.
"""

import fcntl
import hashlib
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from workshop.stack.model import StackError

CHECKOUT = Path(__file__).resolve().parents[3]
PRIVATE_BYTES = 4
SOCKET_PATH_MAX = 100  # sun_path holds 108 bytes on Linux, 104 on macOS

Json = dict[str, Any]


class Folder:
    """The state folder of one stack.

    Args:
        path: an absolute path; made with mode 700 when it is first used.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.postgres = path.with_name(path.name + ".postgres")  # may belong to another user: see postgres.py
        self.logs = path / "logs"
        self.state = path / "state.json"
        self.control = path / "control.sock"

    @classmethod
    def of_checkout(cls, checkout: Path = CHECKOUT) -> "Folder":
        """The folder of a checkout, below SHOWCASE_STATE_HOME or /var/tmp."""
        digest = hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:8]
        home = Path(os.environ.get("SHOWCASE_STATE_HOME") or "/var/tmp").resolve()  # noqa: S108 - it is checked
        return cls(home / f"showcase-{os.getuid()}-{digest}")

    def fresh_private(self) -> "Folder":
        """The folder of a new private stack."""
        return Folder(self.path.with_name(f"{self.path.name}-{secrets.token_hex(PRIVATE_BYTES)}"))

    def privates(self) -> list["Folder"]:
        """The folders of all private stacks of this checkout; somebody else's of such a name are left alone."""
        privates = []
        for path in self.path.parent.glob(f"{self.path.name}-{'[0-9a-f]' * 2 * PRIVATE_BYTES}"):
            with suppress(StackError):
                privates += [Folder(path)] if Folder(path).exists() else []
        return privates

    def make(self) -> None:
        """Make the folder, or check that it is ours alone. Raises StackError."""
        if len(os.fsencode(self.control)) > SOCKET_PATH_MAX:
            raise StackError(
                f"the state folder's path is too long for a Unix socket: {self.path}",
                "set SHOWCASE_STATE_HOME to a shorter path",
            )
        try:
            if not self.exists():
                self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.exists()  # it may have been made by somebody else meanwhile
            self.path.chmod(0o700)
            self.logs.mkdir(exist_ok=True)
        except OSError as error:
            raise StackError(
                f"cannot use the state folder {self.path}: {error.strerror}",
                "set SHOWCASE_STATE_HOME to a folder of your own",
            ) from error

    def exists(self) -> bool:
        """Whether the folder is there. Raises StackError when it is not ours, so that nothing in it is believed."""
        try:
            found = self.path.lstat()
        except FileNotFoundError:
            return False
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise StackError(
                f"{self.path} belongs to somebody else",
                "remove it, or set SHOWCASE_STATE_HOME to a folder of your own",
            )
        return True

    def data(self, server: str) -> Path:
        """The data folder of a server."""
        return self.path / "data" / server

    def log(self, server: str) -> Path:
        """The log file of a server."""
        return self.logs / f"{server}.log"

    def remove(self) -> None:
        """Remove everything; nothing may be running."""
        gone = self.path.with_name(f"{self.path.name}.gone")
        shutil.rmtree(self.postgres, ignore_errors=True)
        if self.exists():
            self.path.rename(gone)  # at once: whoever waits for its lock makes a new folder, and nothing in this one
        shutil.rmtree(gone, ignore_errors=True)
        for path in (self.postgres, gone):
            if os.path.lexists(path):
                raise StackError(f"{path} cannot be removed entirely", "see who owns what is in it")

    # -- what is written in it

    def remembered(self, name: str, make: Callable[[], Json]) -> Json:
        """A JSON file that is made once and kept with the data, readable by its owner only.

        Raises StackError when the file is not what was written.
        """
        path = self.path / f"{name}.json"
        if not path.exists():
            write_json(path, make())
        return read_json(path)

    def password(self) -> str:
        """The password of every server of this stack; generated when first asked for."""
        secret: str = self.remembered("secrets", lambda: {"password": secrets.token_hex(16)})["password"]
        return secret

    def read_state(self) -> Json:
        """What the supervisor last wrote; empty when there was none. Raises StackError when damaged."""
        try:
            return read_json(self.state)
        except FileNotFoundError:
            return {}

    # -- its locks

    @contextmanager
    def lock(self, name: str, *, shared: bool = False, within_s: float = 0.0) -> Iterator[None]:
        """Hold one of the folder's locks. Raises BlockingIOError when it is not free within the time."""
        file = self.acquire(name, shared=shared, within_s=within_s)
        try:
            yield
        finally:
            file.close()

    def acquire(self, name: str, *, shared: bool = False, within_s: float = 0.0) -> IO[bytes]:
        """Take a lock and return the open file that holds it; closing it, or dying, gives it back.

        Raises BlockingIOError when it is not free within the time, FileNotFoundError when the folder is gone.
        """
        path = self.path / f"{name}.lock"
        deadline = time.monotonic() + within_s
        while True:
            file = path.open("ab")
            try:
                fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                        return file
                file.close()  # the folder was removed meanwhile: a lock that nobody else will ask for
            except OSError as error:
                file.close()
                if not isinstance(error, BlockingIOError) or time.monotonic() >= deadline:
                    raise
                time.sleep(0.02)

    def is_held(self, name: str, *, shared: bool = False) -> bool:
        """Whether somebody holds a lock, which is one that its holders share or one that they do not."""
        try:
            file = (self.path / f"{name}.lock").open("rb")
        except FileNotFoundError:
            return False
        with file:
            try:
                # Two who look at the same time must not take each other for a holder.
                fcntl.flock(file, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
            return False


def write_json(path: Path, content: Json) -> None:
    """Write a file of mode 600 so that a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(content, file, indent=1)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def read_json(path: Path) -> Json:
    """The JSON object in a file. Raises FileNotFoundError, or StackError when it holds something else."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        content = error
    if not isinstance(content, dict):
        raise StackError(
            f"{path} is damaged",
            "run `workshop down` to stop what is left, then `workshop up` (`workshop reset --all` starts afresh)",
        )
    return content


def fresh_log(log: Path) -> Path:
    """The same path, with nothing there: the log of last time is kept beside it."""
    if log.exists():
        log.replace(log.with_suffix(".log.1"))
    return log


def last_lines(log: Path, count: int) -> str:
    """The last lines of a log that say something; empty when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 64 * 1024))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-count:])
