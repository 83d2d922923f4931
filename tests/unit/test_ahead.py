"""Laying down what a JVM loads at its start: for which Java, in what command, and what is left when it goes wrong.

A shell stands in for the JVM; that a real one starts by what was laid down is in `test_faults_of_the_stack`.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from workshop.stack import StackError
from workshop.stack.local import ahead
from workshop.stack.local.java import Java
from workshop.stack.local.server import Launch, Place
from workshop.stack.model import NotReady, Urls

WRITES = """trap 'echo laid down >"${1#*=}"; exit' TERM; echo $$ >pid; while :; do sleep 0.02; done"""
ENDS = "echo no port is free; exit 3"


class Shell:
    """A server that is a shell; ready as soon as it has written its pid."""

    after: tuple[str, ...] = ()
    ports: tuple[str, ...] = ("main",)
    stop_signal = signal.SIGTERM
    stop_within_s = 5.0

    def __init__(self, name: str, does: str = WRITES) -> None:
        self.name = name
        self._does = does
        self.pid = 0
        self.urls_known: list[str] = []

    def find(self) -> str:
        return "a shell"

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {f"SHOWCASE_{self.name.upper()}_URL": f"x://127.0.0.1:{ports['main']}"}

    def prepare(self, place: Place) -> Launch:
        place.data.mkdir()
        self.urls_known = list(place.urls)
        self._pid_file = place.data / "pid"
        return Launch(argv=["/bin/sh", "-c", self._does, "start", "-Xmx1m", "main"], env={"PATH": os.defpath})

    def set_up(self, place: Place) -> None:
        pass

    def probe(self, urls: Urls, timeout_s: float) -> str:
        if not self._pid_file.exists() or not self._pid_file.read_text().strip():
            raise NotReady("not yet")
        self.pid = int(self._pid_file.read_text())
        return "1"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's cache, with jars in it and Java 25."""
    folder = tmp_path / "cache" / "jars"
    folder.mkdir(parents=True)
    monkeypatch.setattr(ahead, "cache_folder", lambda: folder)
    monkeypatch.setattr(ahead, "find_jars", lambda: None)
    java(monkeypatch, 25)
    return folder


def java(monkeypatch: pytest.MonkeyPatch, major: int) -> None:
    monkeypatch.setattr(ahead, "find_java", lambda: Java(Path("/java"), major, f"{major}.0.1+8"))


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    return folder


def test_a_server_starts_by_what_was_laid_down_for_this_java_and_by_nothing_else(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "kafka-25.0.1+8.aot").touch()
    assert f"-XX:AOTCache={cache}/kafka-25.0.1+8.aot" in ahead.options("kafka", 64)
    assert not any("AOT" in option for option in ahead.options("connect", 64))
    java(monkeypatch, 26)
    assert not any("AOT" in option for option in ahead.options("kafka", 64))


@pytest.mark.parametrize(("major", "present"), [(24, ()), (25, ahead.SERVERS)])
def test_nothing_is_run_for_a_java_that_cannot_do_it_or_where_it_is_done(
    cache: Path, monkeypatch: pytest.MonkeyPatch, major: int, present: tuple[str, ...]
) -> None:
    java(monkeypatch, major)
    for name in present:
        ahead.laid(name).touch()
    monkeypatch.delattr(ahead, "record")
    ahead.lay_down()


def test_servers_are_run_on_one_another_and_what_they_write_at_their_end_is_kept(cache: Path, scratch: Path) -> None:
    servers = [Shell("kafka"), Shell("connect")]
    ahead.record(scratch, servers)
    assert sorted(path.name for path in cache.iterdir()) == ["connect-25.0.1+8.aot", "kafka-25.0.1+8.aot"]
    assert {path.read_text() for path in cache.iterdir()} == {"laid down\n"}
    assert "SHOWCASE_KAFKA_URL" in servers[1].urls_known
    assert not any(psutil.pid_exists(server.pid) for server in servers)


def test_a_server_that_does_not_start_leaves_nothing_and_says_why(cache: Path, scratch: Path) -> None:
    first = Shell("kafka")
    with pytest.raises(StackError, match="connect did not start: no port is free"):
        ahead.record(scratch, [first, Shell("connect", ENDS)])
    assert list(cache.iterdir()) == []
    assert not psutil.pid_exists(first.pid)


def test_what_cannot_be_laid_down_is_one_line_and_no_failure(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "workshop.stack.local.ahead"],
        env={"PATH": os.defpath, "XDG_CACHE_HOME": str(tmp_path / "empty"), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert (ended.returncode, ended.stdout) == (0, "")
    assert ended.stderr.startswith("not laid down: the Kafka and Debezium jars are not there yet")
    assert ended.stderr.count("\n") == 1
