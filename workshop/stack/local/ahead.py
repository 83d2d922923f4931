"""What Kafka and Connect load at each start, laid down once a user: a start then takes half of the processor's time.

Both are run once and told to end; while they do, the JVM writes down which classes it has loaded, and how they are
linked (ahead-of-time cache, https://openjdk.org/jeps/514). Such a file is for one Java and one set of jars. A JVM that
cannot use it starts as it would without. Run as a module, it lays down what is missing.
"""

import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from workshop.stack.local.folder import Folder
from workshop.stack.local.jars import cache_folder, find_jars
from workshop.stack.local.java import find_java
from workshop.stack.local.server import Place, Server
from workshop.stack.model import NotReady, StackError

SINCE = 25
"""The first Java that does it in one go."""
SERVERS = ("kafka", "connect")
HEAP = "-Xmx"
QUIET = "-Xlog:aot*=error"
READY_WITHIN_S = 90.0
ENDS_WITHIN_S = 120.0
LOOK_EVERY_S = 0.2


def options(server: str, heap_mb: int) -> list[str]:
    """JVM options for a server that starts fast and stays small."""
    known = [f"-XX:AOTCache={laid(server)}", QUIET] if laid(server).exists() else []
    return [
        f"{HEAP}{heap_mb}m",
        *known,
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Djava.net.preferIPv4Stack=true",
        "-Dlog4j2.level=WARN",
    ]


def laid(server: str) -> Path:
    """Where it is, or would be. Raises StackError when there is no Java."""
    return cache_folder() / f"{server}-{find_java().build}.aot"


def lay_down() -> None:
    """Lay down what is missing. Raises StackError, OSError, subprocess.TimeoutExpired."""
    find_jars()
    if find_java().major < SINCE or all(laid(server).exists() for server in SERVERS):
        return
    with cache_folder().with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # of two at once the second finds it done
        if not all(laid(server).exists() for server in SERVERS):
            print("laying down what Kafka and Connect load at a start (once, 20 seconds or so) …", flush=True)
            from workshop.stack.local.connect import Connect  # which ask this module how they start
            from workshop.stack.local.kafka import Kafka

            with tempfile.TemporaryDirectory(prefix="showcase-ahead-", dir=cache_folder().parent) as scratch:
                record(Path(scratch), [Kafka(), Connect()])


def record(scratch: Path, servers: Sequence[Server]) -> None:
    """Run servers, each on those before it, have them end, and keep what they have written down."""
    password, ports = secrets.token_urlsafe(16), free_ports("main", "controller", "rest")
    urls = {"SHOWCASE_POSTGRES_URL": "postgresql://127.0.0.1:5432"}  # which nobody asks for here
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for server in servers:
            own = ports if server.name == "kafka" else {"main": ports["rest"]}
            urls |= server.urls(own, password)
            launch = server.prepare(Place(Folder(scratch), scratch / server.name, own, password, urls))
            with said(scratch, server.name).open("wb") as log:
                process = subprocess.Popen(
                    recording(launch.argv, written(scratch, server.name)),
                    env=dict(launch.env),
                    cwd=launch.cwd or scratch / server.name,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            processes.append(process)
            wait_until_ready(server, urls, process, scratch)
        for process in reversed(processes):
            process.terminate()
            process.wait(ENDS_WITHIN_S)
    finally:
        for process in processes:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(5)
    for server in servers:
        if not written(scratch, server.name).exists():
            raise StackError(f"{server.name} has written nothing down", "`make doctor`")
        written(scratch, server.name).rename(laid(server.name))


def recording(argv: Sequence[str | Path], file: Path) -> list[str]:
    """The same command, of a JVM that writes down what it has loaded when it ends."""
    words = [str(word) for word in argv]
    first = next(at for at, word in enumerate(words) if word.startswith(HEAP))
    return [*words[:first], f"-XX:AOTCacheOutput={file}", QUIET, *words[first:]]


def written(scratch: Path, server: str) -> Path:
    """Where a server writes it down before it is whole."""
    return scratch / f"{server}.aot"


def said(scratch: Path, server: str) -> Path:
    """A server's log."""
    return scratch / f"{server}.log"


def wait_until_ready(server: Server, urls: dict[str, str], process: "subprocess.Popen[bytes]", scratch: Path) -> None:
    """Raises StackError when it ends, or is not ready in time."""
    deadline = time.monotonic() + READY_WITHIN_S
    while process.poll() is None and time.monotonic() < deadline:
        with suppress(NotReady):
            server.probe(urls, 2.0)
            return
        time.sleep(LOOK_EVERY_S)
    last = said(scratch, server.name).read_text().splitlines()[-1:]
    raise StackError(f"{server.name} did not start: {' '.join(last):.300}", "`make doctor`")


def free_ports(*names: str) -> dict[str, int]:
    """Ports of 127.0.0.1 that nobody listens on."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    try:
        return {name: one.getsockname()[1] for name, one in zip(names, held, strict=True)}
    finally:
        for one in held:
            one.close()


if __name__ == "__main__":
    try:
        lay_down()
    except (StackError, OSError, subprocess.TimeoutExpired) as failed:
        print(f"not laid down: {failed}; Kafka and Connect start all the same, only slower", file=sys.stderr)
