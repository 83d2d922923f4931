"""The command line as a person uses it, on a whole stack of its own."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from workshop.stack import SERVERS
from workshop.stack.local.folder import Folder
from workshop.stack.local.process import marked

CHECKOUT = Path(__file__).resolve().parents[2]


class Home:
    """A state folder of one's own, and `workshop` on it."""

    def __init__(self, path: Path) -> None:
        self.environment: Mapping[str, str] = {
            **{name: value for name, value in os.environ.items() if not name.startswith("SHOWCASE_")},
            "SHOWCASE_STATE_HOME": str(path),
            "COLUMNS": "300",
        }
        name = Folder.of_checkout().path.name
        self.folder = Folder(path / name)

    def start(self, *arguments: str, **environment: str) -> subprocess.Popen[str]:
        """Start `workshop` in a process group of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "workshop", *arguments],
            cwd=CHECKOUT,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environment: str) -> tuple[int, str, str]:
        """Run `workshop` to its end: exit code, stdout, stderr."""
        with self.start(*arguments, **environment) as process:
            output, errors = process.communicate(timeout=120)
        return process.returncode, output, errors

    def processes(self) -> list[str]:
        """What runs of this stack."""
        return [process.name() for process in marked(self.folder.path)]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """A home with nothing in it, reachable for PostgreSQL's user, and nothing left running after."""
    path = tmp_path_factory.mktemp("home")
    for folder in (path, path.parent, path.parent.parent):
        folder.chmod(0o755)
    home = Home(path)
    yield home
    home.run("reset", "--all")
    assert home.processes() == []


@pytest.fixture
def up(home: Home) -> Iterator[Home]:
    """The home with its stack up and every server ready."""
    code, _, errors = home.run("up")
    assert code == 0, errors
    yield home
    for name in SERVERS:
        home.run("resume", name)


def states(output: str) -> dict[str, str]:
    """Server and state of each row of `workshop status`."""
    return {row[0]: row[1] for line in output.splitlines()[1:] if len(row := line.split()) > 1}


def test_exec_runs_a_command_on_a_stack_and_takes_down_what_it_brought_up(home: Home) -> None:
    code, output, _ = home.run("exec", "--", "sh", "-c", 'echo "$SHOWCASE_MAIL_URL"; exit 7')

    assert code == 7
    assert re.fullmatch(r"smtp://showcase:\w+@127\.0\.0\.1:\d+\n", output)
    assert home.run("status")[0] == 1
    assert home.processes() == []


def test_exec_takes_the_stack_down_after_ctrl_c(home: Home) -> None:
    with home.start("exec", "--", sys.executable, "-c", "print('running', flush=True); input()") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.killpg(process.pid, signal.SIGINT)
        process.wait(60)

    assert process.returncode != 0
    assert home.processes() == []


def test_exec_leaves_up_what_was_up(up: Home) -> None:
    assert up.run("exec", "--", "true")[0] == 0

    assert set(states(up.run("status")[1]).values()) == {"ready"}


def test_up_twice_is_harmless_and_says_so(up: Home) -> None:
    code, _, errors = up.run("up")

    assert code == 0
    assert "the stack is up" in errors


def test_status_lists_every_server_with_version_memory_and_address(up: Home) -> None:
    code, output, _ = up.run("status")

    assert code == 0
    assert list(states(output)) == list(SERVERS)
    for line in output.splitlines()[1:]:
        assert re.search(r"ready +\d+\.\d+\S* +\d+ +\d+ MiB +127\.0\.0\.1:\d+", line), line


def test_a_paused_server_is_shown_and_the_doctor_says_how_to_go_on(up: Home) -> None:
    assert up.run("pause", "redis-state")[0] == 0

    code, output, _ = up.run("status")
    assert (code, states(output)["redis-state"]) == (1, "paused")
    code, output, _ = up.run("doctor")
    assert code == 1
    assert re.search(r"✗ +redis-state +paused +`workshop resume redis-state`", output), output
    assert "1 of the checks failed" in output, output

    assert up.run("resume", "redis-state")[0] == 0
    assert up.run("status")[0] == 0


def test_a_killed_server_stays_dead_until_it_is_restarted(up: Home) -> None:
    assert up.run("kill", "redis-cache")[0] == 0

    code, output, _ = up.run("status")
    assert (code, states(output)["redis-cache"]) == (1, "dead")
    assert "killed by SIGKILL" in output
    code, _, errors = up.run("up")
    assert code == 1
    assert "workshop restart redis-cache" in errors

    assert up.run("restart", "redis-cache")[0] == 0
    assert up.run("status")[0] == 0


def test_the_doctor_makes_a_round_trip_through_every_server(up: Home) -> None:
    code, output, _ = up.run("doctor")

    assert code == 0, output
    for name in SERVERS:
        assert re.search(rf"✓ +{name} +\d.*: .* in \d+ ms", output), output
    assert re.search(r"seen on Kafka after \d+ ms", output)
    assert "all is well" in output


def test_env_prints_addresses_for_a_shell(up: Home) -> None:
    _, output, _ = up.run("env")

    shell = subprocess.run(
        ["/bin/sh", "-c", output + 'echo "$SHOWCASE_POSTGRES_URL"'], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"postgresql://showcase:\w+@127\.0\.0\.1:\d+/postgres\n", shell.stdout)


def test_logs_shows_the_end_of_a_servers_log(up: Home) -> None:
    code, output, _ = up.run("logs", "redis-state", "-n", "3")

    assert code == 0
    assert 1 <= len(output.splitlines()) <= 3
    assert "eady to accept connections" in output


@pytest.mark.parametrize("command", ["kill", "pause", "resume", "restart", "logs"])
def test_an_unknown_server_is_one_clear_line(up: Home, command: str) -> None:
    code, _, errors = up.run(command, "oracle")

    assert code == 1
    assert "no server is called oracle" in errors
    assert "redis-state" in errors


def test_a_command_that_does_not_exist_is_one_clear_line(up: Home) -> None:
    code, _, errors = up.run("exec", "--", "no-such-command")

    assert code == 1
    assert "cannot run no-such-command" in errors


def test_the_doctor_says_what_is_missing_when_nothing_is_there(tmp_path: Path) -> None:
    home = Home(tmp_path / "nothing")
    environment = {"XDG_CACHE_HOME": str(tmp_path / "empty"), "SHOWCASE_JAVA_HOME": str(tmp_path / "no-java")}

    code, output, _ = home.run("doctor", **environment)

    assert code == 1
    assert re.search(r"✗ +kafka installed +the Java in \S*no-java\s+does\s+not run", output), output
    assert re.search(r"✗ +stack +the stack is not up +`make up`", output), output


def test_without_its_packages_the_command_line_says_what_to_do() -> None:
    bare = [sys.executable, "-S", "-m", "workshop", "up"]  # -S: no site-packages

    result = subprocess.run(bare, cwd=CHECKOUT, env={}, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert "make setup" in result.stderr
    assert "Traceback" not in result.stderr
