"""Kafka, Connect and the Debezium connectors, fetched once a user with Maven.

The cache is keyed by the content of `workshop/servers/kafka/pom.xml`. A fetch fills a temporary folder that
is renamed when it is whole, so an interrupted one leaves nothing half-done; a lock makes two at once share
one download. Run as a module, it fetches what is missing.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from workshop.stack.local.java import find_java
from workshop.stack.local.server import CONFIG, find_command
from workshop.stack.model import StackError

POM = CONFIG / "kafka" / "pom.xml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
FETCH_WITHIN_S = 900


@dataclass(frozen=True, slots=True)
class Jars:
    """Where the fetched files are: `classpath` of the servers, `plugins` for Connect."""

    folder: Path

    @property
    def classpath(self) -> str:
        return str(self.folder / "libs" / "*")

    @property
    def plugins(self) -> Path:
        return self.folder / "plugins"


def version(name: str) -> str:
    """A version that the pom names, such as `kafka` or `debezium`."""
    match = re.search(rf"<{name}\.version>(.+?)</", POM.read_text())
    assert match is not None, f"{POM} names no {name}.version"
    return match[1]


def cache_folder() -> Path:
    """Where the jars of this pom belong."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "showcase" / f"kafka-{hashlib.sha256(POM.read_bytes()).hexdigest()[:12]}"


@cache
def find_jars() -> Jars:
    """The cached jars. Raises StackError when they were not fetched yet."""
    if not cache_folder().exists():
        raise StackError("the Kafka and Debezium jars are not there yet", "`make setup` fetches them with Maven")
    return Jars(cache_folder())


def fetch() -> Jars:
    """Fetch the jars unless they are there. Raises StackError."""
    folder = cache_folder()
    if folder.exists():
        return Jars(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the one who waited finds the jars of the one who fetched
        if not folder.exists():
            for left in folder.parent.glob(f"{folder.name}.part-*"):
                shutil.rmtree(left, ignore_errors=True)
            # Never the folder of an interrupted fetch, whose Maven may still be writing to it.
            temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
            try:
                fill(temporary)
                temporary.rename(folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    return Jars(folder)


def fill(folder: Path) -> None:
    """Put the servers' jars and the unpacked connectors into a folder. Raises StackError."""
    copy_dependencies(folder / "libs")
    for archive in (folder / "libs").glob("*-plugin.tar.gz"):
        with tarfile.open(archive) as content:
            # Debian 12's Python 3.11.2 has no filters yet; the archives' checksums were verified by Maven.
            content.extraction_filter = getattr(tarfile, "data_filter", None)
            content.extractall(folder / "plugins")  # noqa: S202 - filtered where that exists
        archive.unlink()


def copy_dependencies(target: Path) -> None:
    """Have Maven put every jar of the pom into a folder. Raises StackError."""
    maven = find_command("mvn", packages="maven")
    # The system's Java knows the system's certificates; the wheel's serves where there is no other.
    java = {} if shutil.which("java") else {"JAVA_HOME": str(find_java().home)}
    print("fetching Kafka and Debezium with Maven (once, about 100 MB) …", flush=True)
    try:
        result = subprocess.run(
            [maven, "-q", "-B", "-f", POM, COPY, f"-DoutputDirectory={target}"],
            env={**os.environ, **java},
            capture_output=True,
            text=True,
            timeout=FETCH_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(
            f"Maven did not finish in {FETCH_WITHIN_S} s", "look at the network, then run it again"
        ) from error
    if result.returncode != 0:
        errors = [line for line in result.stdout.splitlines() if "[ERROR]" in line]
        raise StackError(f"Maven failed: {errors[0] if errors else result.stderr[-300:]}", "look at the network")


if __name__ == "__main__":
    try:
        fetch()
    except StackError as error:
        sys.exit(f"{error.what}\n  try: {error.remedy}")
