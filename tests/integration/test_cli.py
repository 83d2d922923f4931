"""The command line as a person uses it, on the whole stack that all tests of breaking servers share."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.stacks import WITHIN_S, WORKSHOP, Home
from workshop.stack import SERVERS
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import CHECKOUT


@pytest.fixture
def up(whole: LocalBackend, broken_stack_home: Home) -> Home:
    """The home of a stack that is up, every server ready."""
    assert whole.is_up()
    return broken_stack_home


def states(output: str) -> dict[str, str]:
    """Server and state of each row of `workshop status`."""
    return {row[0]: row[1] for line in output.splitlines()[1:] if len(row := line.split()) > 1}


def test_exec_runs_a_command_on_a_stack_and_takes_down_what_it_brought_up(home: Home) -> None:
    result = home.workshop("exec", "--", "sh", "-c", 'echo "$SHOWCASE_MAIL_URL"; exit 7')

    assert result.code == 7
    assert re.fullmatch(r"smtp://showcase:\w+@127\.0\.0\.1:\d+\n", result.output)
    assert home.workshop("status").code == 1
    assert home.processes() == []


def test_exec_takes_the_stack_down_after_ctrl_c(home: Home) -> None:
    running = [sys.executable, "-c", "print('running', flush=True); input()"]
    with home.start(*WORKSHOP, "exec", "--", *running) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "running\n"
        os.killpg(process.pid, signal.SIGINT)
        process.wait(WITHIN_S)

    assert process.returncode != 0
    assert home.processes() == []


def test_exec_leaves_up_what_was_up(up: Home) -> None:
    assert up.workshop("exec", "--", "true").code == 0

    assert set(states(up.workshop("status").output).values()) == {"ready"}


def test_up_twice_is_harmless_and_says_so(up: Home) -> None:
    result = up.workshop("up")

    assert result.code == 0
    assert "the stack is up" in result.errors


def test_status_lists_every_server_with_version_memory_and_address(up: Home) -> None:
    result = up.workshop("status")

    assert result.code == 0
    assert list(states(result.output)) == list(SERVERS)
    for line in result.output.splitlines()[1:]:
        assert re.search(r"ready +\d+\.\d+\S* +\d+ +\d+ MiB +127\.0\.0\.1:\d+", line), line


def test_a_paused_server_is_shown_and_the_doctor_says_how_to_go_on(up: Home) -> None:
    assert up.workshop("pause", "redis-state").code == 0

    result = up.workshop("status")
    assert (result.code, states(result.output)["redis-state"]) == (1, "paused")
    result = up.workshop("up")
    assert (result.code, "redis-state is paused" in result.errors) == (1, True)
    assert "`workshop resume redis-state`" in result.errors
    result = up.workshop("doctor")
    assert result.code == 1
    assert re.search(r"✗ +redis-state +paused +`workshop resume redis-state`", result.output), result.output
    assert "1 of the checks failed" in result.output, result.output

    assert up.workshop("resume", "redis-state").code == 0
    assert up.workshop("status").code == 0


def test_a_killed_server_stays_dead_until_it_is_restarted(up: Home) -> None:
    assert up.workshop("kill", "redis-cache").code == 0

    result = up.workshop("status")
    assert (result.code, states(result.output)["redis-cache"]) == (1, "dead")
    assert "killed by SIGKILL" in result.output
    result = up.workshop("up")
    assert result.code == 1
    assert "workshop restart redis-cache" in result.errors

    assert up.workshop("restart", "redis-cache").code == 0
    assert up.workshop("status").code == 0


def test_the_doctor_makes_a_round_trip_through_every_server(up: Home) -> None:
    result = up.workshop("doctor")

    assert result.code == 0, result.output
    for name in SERVERS:
        assert re.search(rf"✓ +{name} +\d.*: .* in \d+ ms", result.output), result.output
    assert re.search(r"seen on Kafka after \d+ ms", result.output)
    assert "all is well" in result.output


def test_env_prints_addresses_for_a_shell(up: Home) -> None:
    result = up.workshop("env")

    shell = subprocess.run(
        ["/bin/sh", "-c", result.output + 'echo "$SHOWCASE_POSTGRES_URL"'], capture_output=True, text=True, check=True
    )
    assert re.fullmatch(r"postgresql://showcase:\w+@127\.0\.0\.1:\d+/postgres\n", shell.stdout)


def test_logs_shows_the_end_of_a_servers_log(up: Home) -> None:
    result = up.workshop("logs", "redis-state", "-n", "3")

    assert result.code == 0
    assert 1 <= len(result.output.splitlines()) <= 3
    assert "eady to accept connections" in result.output


@pytest.mark.parametrize("command", ["kill", "pause", "resume", "restart", "logs"])
def test_an_unknown_server_is_one_clear_line(up: Home, command: str) -> None:
    result = up.workshop(command, "oracle")

    assert result.code == 1
    assert "no server is called oracle" in result.errors
    assert "redis-state" in result.errors


def test_a_command_that_does_not_exist_is_one_clear_line(up: Home) -> None:
    result = up.workshop("exec", "--", "no-such-command")

    assert result.code == 1
    assert "cannot run no-such-command" in result.errors


def test_the_doctor_says_what_is_missing_when_nothing_is_there(tmp_path: Path) -> None:
    home = Home(tmp_path / "nothing")
    environment = {"XDG_CACHE_HOME": str(tmp_path / "empty"), "SHOWCASE_JAVA_HOME": str(tmp_path / "no-java")}

    result = home.workshop("doctor", **environment)

    assert result.code == 1
    assert re.search(r"✗ +kafka installed +the Java in \S*no-java\s+does\s+not run", result.output), result.output
    assert re.search(r"✗ +stack +the stack is not up +run `workshop up`", result.output), result.output


def test_without_its_packages_the_command_line_says_what_to_do() -> None:
    bare = [sys.executable, "-S", "-m", "workshop", "up"]  # -S: no site-packages

    result = subprocess.run(bare, cwd=CHECKOUT, env={}, capture_output=True, text=True, check=False)

    assert result.returncode == 1
    assert "make setup" in result.stderr
    assert "Traceback" not in result.stderr
