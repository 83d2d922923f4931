"""The servers in containers: `compose.yaml`, run by `docker compose`.

Where the local stack sends signals, this asks Docker for the like: `kill` is SIGKILL, `pause` freezes the
container's whole control group. Settings come from `.env` alone, also where the shell has variables of the
same names, so that containers and URLs never disagree.
"""

import json
import os
import re
import secrets
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from workshop.stack.external import address, answers
from workshop.stack.local.catalogue import SERVERS_BY_NAME
from workshop.stack.local.folder import CHECKOUT, Json
from workshop.stack.model import SERVERS, Action, OnProgress, Phase, ServerStatus, StackError, Urls, check_names

ASK_WITHIN_S = 30.0
ACT_WITHIN_S = 120.0
HEALTHY_WITHIN_S = 300  # from when the containers start; the images may take long to fetch before
UP_WITHIN_S = 1800.0
LOOK_EVERY_S = 1.0
STOP_WITHIN_S = 20
PASSWORD = re.compile(r"[A-Za-z0-9_-]{12,}")
NO_ENGINE = re.compile(r"docker daemon|docker API|docker\.sock|dockerDesktop", re.IGNORECASE)
NO_COMPOSE = re.compile(r"unknown command: docker compose|unknown flag: --profile|'compose' is not a docker command")
INSTALL = "install Docker Engine 25 or later with Compose 2.24 or later, or leave SHOWCASE_STACK at local"


class ComposeBackend:
    """Servers as containers of the compose project in a checkout.

    Args:
        ephemeral: `release` takes down what `up` found down. Unlike a local stack, it knows nothing of other
            processes that use the containers meanwhile, and does not see this process being killed.
        checkout: the folder with compose.yaml, .env.example and, made when it is missing, .env.
    """

    kind = "compose"
    names = SERVERS

    def __init__(self, *, ephemeral: bool = False, checkout: Path = CHECKOUT) -> None:
        self.ephemeral = ephemeral
        self.checkout = checkout
        self.dotenv = checkout / ".env"
        self.started = False

    # -- up and down

    def up(self, on_progress: OnProgress | None = None) -> None:
        if not self.dotenv.exists():
            write_settings(self.dotenv, (self.checkout / ".env.example").read_text())
        was_up = self.is_up()
        self.started = self.started or not was_up
        try:
            self._up(on_progress or (lambda *_: None))
        except BaseException:  # Ctrl-C as well
            self.release()
            raise

    def down(self) -> None:
        self._remove("--timeout", str(STOP_WITHIN_S))

    def reset(self) -> None:
        self._remove("--volumes", "--timeout", "1")

    def lease(self) -> None:
        """Nothing to take: containers stay until somebody takes them down."""

    def release(self) -> None:
        """Take the containers down if they are ephemeral and this object brought them up."""
        if self.ephemeral and self.started:
            self.started = False
            self.down()

    def _remove(self, *options: str) -> None:
        if self.dotenv.exists():  # without it nothing of this checkout ever ran
            self._compose("--profile", "*", "down", *options, within_s=ACT_WITHIN_S)

    def is_up(self) -> bool:
        return any(container["State"] in ("running", "paused") for container in self._containers().values())

    def _up(self, on_progress: OnProgress) -> None:
        """Run `docker compose up` and follow the containers until all are healthy. Raises StackError."""
        profiles = [f"--profile={name.strip()}" for name in self._profiles().split(",")]
        command = [*profiles, "up", "--detach", "--wait", "--wait-timeout", str(HEALTHY_WITHIN_S), "--quiet-pull"]
        began = time.monotonic()
        seen: dict[str, Phase] = {}
        with tempfile.TemporaryFile("w+") as errors:
            process = self._start(command, errors)
            try:
                while process.poll() is None:
                    if time.monotonic() - began > UP_WITHIN_S:
                        raise StackError("docker compose up does not end", "see `docker compose ps` and `… logs`")
                    time.sleep(LOOK_EVERY_S)
                    self._report(seen, began, on_progress)
            finally:
                if process.poll() is None:
                    process.terminate()
                    process.wait(ACT_WITHIN_S)
            self._report(seen, began, on_progress)
            errors.seek(0)
            check(process.returncode, errors.read())

    def _report(self, seen: dict[str, Phase], began: float, on_progress: OnProgress) -> None:
        """Tell of every server whose container has changed."""
        for name, container in self._containers().items():
            phase = phase_of(container)
            if seen.get(name) != phase:
                seen[name] = phase
                on_progress(name, phase, time.monotonic() - began, "")

    # -- looking and acting

    def urls(self) -> Urls:
        if not self.is_up():
            raise StackError("the stack is not up", "run `workshop up`")
        return self._urls()

    def _urls(self) -> Urls:
        settings = self.settings()
        urls: dict[str, str] = {}
        for name, server in SERVERS_BY_NAME.items():
            ports = {port: int(settings.get(port_variable(name, port), 0)) for port in server.ports}
            urls |= server.urls(ports, settings["SHOWCASE_PASSWORD"])
        return urls

    def status(self) -> list[ServerStatus]:
        containers = self._containers()
        urls = self._urls() if containers else {}
        answered = answers(urls, [name for name, found in containers.items() if found["State"] == "running"])
        return [self._status(name, containers.get(name), answered.get(name, ""), urls) for name in self.names]

    def _status(self, name: str, container: Json | None, answer: str | Exception, urls: Urls) -> ServerStatus:
        if container is None:
            return ServerStatus(name=name, phase=Phase.DOWN)
        phase, detail = phase_of(container), ""
        if container["State"] == "running":
            if isinstance(answer, str):
                phase = Phase.READY
            else:
                phase = Phase.STARTING if phase == Phase.STARTING else Phase.DEAD
                detail = f"its container runs, but it does not answer: {answer}"
        elif phase == Phase.DEAD:
            detail = f"its container is {container['State']} (exit code {container.get('ExitCode')})"
        version = answer if isinstance(answer, str) else ""
        return ServerStatus(name=name, phase=phase, version=version, address=address(urls, name), detail=detail)

    def act(self, name: str, action: Action) -> None:
        (name,) = check_names([name])
        if action == "restart":
            if not self.is_up():
                raise StackError("the stack is not up", "run `workshop up`")
            self._compose("--profile", "*", "stop", "--timeout", str(STOP_WITHIN_S), name, within_s=ACT_WITHIN_S)
            wait = ["--wait", "--wait-timeout", str(HEALTHY_WITHIN_S)]
            self._compose("--profile", "*", "up", "--detach", "--no-deps", *wait, name, within_s=HEALTHY_WITHIN_S + 30)
            return
        container = self._containers().get(name)
        if container is None or container["State"] not in ("running", "paused"):
            raise StackError(f"{name} is not running", f"run `workshop up`, or `workshop restart {name}`")
        paused = container["State"] == "paused"
        if action == "kill":
            self._compose("--profile", "*", "kill", name)
        elif paused == (action == "resume"):  # else it is done already
            self._compose("--profile", "*", "unpause" if paused else "pause", name)

    def logs(self, name: str, lines: int) -> str:
        (name,) = check_names([name])
        if name not in self._containers():
            raise StackError(f"{name} has no log yet", "run `workshop up`")
        output = self._compose("--profile", "*", "logs", "--no-color", "--no-log-prefix", "--tail", str(lines), name)
        return output.rstrip("\n")

    # -- docker compose

    def settings(self) -> Mapping[str, str]:
        """What `.env` says. Raises StackError when its password would not do."""
        lines = [line.strip() for line in self.dotenv.read_text().splitlines()]
        pairs = [line.split("=", 1) for line in lines if "=" in line and not line.startswith("#")]
        settings = {name.strip(): value.strip().strip("\"'") for name, value in pairs}
        if not PASSWORD.fullmatch(settings.get("SHOWCASE_PASSWORD", "")):
            raise StackError(
                f"SHOWCASE_PASSWORD in {self.dotenv} is not at least 12 letters, digits, - and _",
                "set it, or remove the file: a new one gets a random password",
            )
        return settings

    def _profiles(self) -> str:
        return self.settings().get("COMPOSE_PROFILES") or "core"

    def _containers(self) -> dict[str, Json]:
        """The servers' containers, as `docker compose ps` describes them."""
        if not self.dotenv.exists():
            return {}
        output = self._compose("--profile", "*", "ps", "--all", "--format", "json")
        found = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
        return {container["Service"]: container for container in found if container["Service"] in self.names}

    def _compose(self, *arguments: str, within_s: float = ASK_WITHIN_S) -> str:
        """Run one `docker compose` command and return its output. Raises StackError."""
        with tempfile.TemporaryFile("w+") as errors, tempfile.TemporaryFile("w+") as output:
            process = self._start(arguments, errors, output)
            try:
                process.wait(within_s)
            except subprocess.TimeoutExpired as error:
                raise StackError(
                    f"docker compose {arguments[-1]} gave no answer for {within_s:g} s", "does `docker ps` answer?"
                ) from error
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
            errors.seek(0)
            output.seek(0)
            check(process.returncode, errors.read())
            return output.read()

    def _start(self, arguments: Sequence[str], errors: IO[str], output: IO[str] | None = None) -> subprocess.Popen[str]:
        """Start `docker compose`. Raises StackError when there is no docker."""
        try:
            return subprocess.Popen(
                ["docker", "compose", *arguments],
                cwd=self.checkout,
                env={**os.environ, **self.settings(), "COMPOSE_PROGRESS": "plain"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if output is None else output,
                stderr=errors,
                text=True,
            )
        except FileNotFoundError as error:
            raise StackError("docker is not installed", INSTALL) from error


def check(code: int, errors: str) -> None:
    """Raises StackError when a `docker compose` command failed, with what there is to do about it."""
    if code == 0:
        return
    if NO_COMPOSE.search(errors):
        raise StackError("docker is installed without its compose plug-in", INSTALL)
    if NO_ENGINE.search(errors):
        raise StackError("the Docker engine does not answer", "start it, and see that `docker ps` works for you")
    last = [line.strip() for line in errors.splitlines() if line.strip()][-1:]
    raise StackError(
        f"docker compose failed: {' '.join(last) or f'exit code {code}'}",
        "`workshop logs NAME` says more about a server; `workshop down` removes what did start",
    )


def phase_of(container: Json) -> Phase:
    """What Docker's view of a container means; a running one that is not healthy (any more) is dead."""
    match container["State"], container.get("Health", ""):
        case "running", "healthy" | "":
            return Phase.READY
        case "running", "starting":
            return Phase.STARTING
        case "created" | "restarting", _:
            return Phase.STARTING
        case "paused", _:
            return Phase.PAUSED
        case _:
            return Phase.DEAD


def port_variable(name: str, port: str) -> str:
    """The setting with a server's published port, such as SHOWCASE_RABBITMQ_API_PORT."""
    return "_".join(["SHOWCASE", name.upper().replace("-", "_"), *([] if port == "main" else [port.upper()]), "PORT"])


def write_settings(path: Path, example: str) -> None:
    """Make a `.env`, readable by its owner only: a random password, and other ports where some are taken."""

    def filled(line: str) -> str:
        name, _, value = line.partition("=")
        if name == "SHOWCASE_PASSWORD":
            return f"{name}={secrets.token_hex(16)}"
        return f"{name}={free_port(int(value))}" if name.endswith("_PORT") else line

    content = "".join(f"{filled(line)}\n" for line in example.splitlines())
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:  # another process was faster
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(content)


def free_port(wanted: int) -> int:
    """A port of 127.0.0.1 that nobody listens on: the wanted one, or any."""
    for port in (wanted, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise StackError("no port of 127.0.0.1 is free", "close what listens there")
