"""One contract for every kind of stack.

The local backend runs real servers and the external one looks at those. There is no Docker engine where the
tests run, so the compose backend talks to a small program named `docker`, which notes what it is asked and
answers as Compose does: of that backend only the command lines, and what it makes of the answers, are tested.
"""

import json
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from workshop.stack import compose
from workshop.stack.compose import ComposeBackend, port_variable
from workshop.stack.external import PROBE_WITHIN_S, ExternalBackend, answers
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import CHECKOUT, Folder
from workshop.stack.model import SERVERS, Action, Backend, Phase, ServerStatus, StackError, url_of

RUNNING = ("redis-state", "mail")
DOCKER = """
import json, os, sys
from pathlib import Path

folder = Path(__file__).parent
asked = sys.argv[1:]
with (folder / "asked").open("a") as log:
    log.write(json.dumps([asked, os.environ.get("SHOWCASE_PASSWORD", "")]) + "\\n")
if (folder / "fails").exists():
    sys.exit((folder / "fails").read_text())
if (folder / "hangs").exists():
    import time
    time.sleep(60)
state = folder / "state.json"
containers = json.loads(state.read_text()) if state.exists() else {}
core = ["redis-state", "mail"]
words = [word for word in asked[1:] if not word.startswith("--profile") and word != "*"]
command, names = words[0], [word for word in words if word in core] or core
match command:
    case "up":
        containers |= dict.fromkeys(names, "running")
    case "down":
        containers = {}
    case "kill" | "stop":
        containers |= dict.fromkeys(names, "exited")
    case "pause":
        containers |= dict.fromkeys(names, "paused")
    case "unpause":
        containers |= dict.fromkeys(names, "running")
    case "logs":
        print("one line of a log")
    case "ps":
        for name, now in containers.items():
            health = "healthy" if now == "running" else ""
            print(json.dumps({"Service": name, "State": now, "Health": health, "ExitCode": 137}))
state.write_text(json.dumps(containers))
"""


class Docker:
    """The program that stands in for `docker`, and what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        program = folder / "docker"
        program.write_text(f"#!{sys.executable}\n{DOCKER}")
        program.chmod(0o755)

    def asked(self) -> list[str]:
        """The commands, without `compose` and the profiles."""
        lines = (self.folder / "asked").read_text().splitlines()
        return [" ".join(json.loads(line)[0]).removeprefix("compose --profile * ") for line in lines]

    def passwords(self) -> set[str]:
        return {json.loads(line)[1] for line in (self.folder / "asked").read_text().splitlines()}

    def answers_as(self, how: str, text: str = "") -> None:
        (self.folder / how).write_text(text)


@pytest.fixture(scope="module")
def servers() -> Iterator[LocalBackend]:
    """Two real servers."""
    home = Path(tempfile.mkdtemp(prefix="sc-", dir="/var/tmp"))  # short enough for a Unix socket
    backend = LocalBackend(Folder(home / "s"), RUNNING)
    yield backend
    backend.reset()
    shutil.rmtree(home)


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Docker:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(compose, "LOOK_EVERY_S", 0.05)
    return Docker(folder)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "checkout"
    folder.mkdir()
    shutil.copy(CHECKOUT / ".env.example", folder)
    return folder


@pytest.fixture(params=["local", "external", "compose"])
def backend(request: pytest.FixtureRequest, servers: LocalBackend) -> Backend:
    """Each kind of backend, up."""
    return backend_of_kind(request.param, request, servers)


@pytest.fixture(params=["local", "compose"])
def owner(request: pytest.FixtureRequest, servers: LocalBackend) -> Backend:
    """Each kind of backend that starts and stops its servers, up."""
    return backend_of_kind(request.param, request, servers)


@pytest.fixture
def guest(servers: LocalBackend) -> ExternalBackend:
    """The backend whose servers are somebody else's, up."""
    servers.up()
    return ExternalBackend(RUNNING, servers.urls())


def backend_of_kind(kind: str, request: pytest.FixtureRequest, servers: LocalBackend) -> Backend:
    servers.up()
    match kind:
        case "local":
            return servers
        case "external":
            return ExternalBackend(RUNNING, servers.urls())
    request.getfixturevalue("docker")
    backend = ComposeBackend(checkout=request.getfixturevalue("checkout"))
    point_at(backend, servers)
    backend.up()
    return backend


def point_at(backend: ComposeBackend, servers: LocalBackend) -> None:
    """A `.env` with the ports and the password of the servers that run; nothing listens on the other ports."""
    urls = servers.urls()
    settings = {port_variable(name, port): "1" for name in SERVERS for port in ("main", "api")}
    for variable, url in urls.items():
        settings[variable.replace("_URL", "_PORT")] = str(url_of(urls, variable).port)
        settings["SHOWCASE_PASSWORD"] = url_of({"url": url}, "url").password or ""
    backend.dotenv.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))


def status_of(backend: Backend, name: str) -> ServerStatus:
    return next(status for status in backend.status() if status.name == name)


def eventually(condition: Callable[[], bool], within_s: float = 30.0) -> bool:
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


# -- what holds for all


def test_up_twice_is_harmless(backend: Backend) -> None:
    backend.up()
    urls = backend.urls()
    backend.up()
    assert backend.is_up()
    assert backend.urls() == urls


def test_every_url_answers_in_its_servers_protocol(backend: Backend) -> None:
    found = answers(backend.urls(), RUNNING)
    assert all(isinstance(version, str) and version for version in found.values()), found


def test_status_lists_every_server_once_and_in_order(backend: Backend) -> None:
    names = [status.name for status in backend.status()]
    assert names == [name for name in SERVERS if name in names]
    assert set(names) >= set(RUNNING)


def test_a_server_that_answers_is_ready_with_version_and_address(backend: Backend) -> None:
    for name in RUNNING:
        status = status_of(backend, name)
        assert (status.phase, status.detail) == (Phase.READY, "")
        assert status.version
        assert status.address.startswith("127.0.0.1:")


@pytest.mark.parametrize("action", ["kill", "pause", "resume", "restart"])
def test_an_unknown_server_is_refused_by_name(backend: Backend, action: Action) -> None:
    for attempt in (lambda: backend.act("mysql", action), lambda: backend.logs("mysql", 1)):
        with pytest.raises(StackError, match="mysql") as error:
            attempt()
        assert "redis-state" in error.value.remedy


def test_release_of_a_stack_that_is_not_ephemeral_leaves_it_up(backend: Backend) -> None:
    backend.release()
    backend.release()
    assert backend.is_up()


# -- what holds for those that start and stop their servers


def test_up_tells_when_each_server_is_ready(owner: Backend) -> None:
    told: list[tuple[str, Phase]] = []
    owner.down()
    owner.up(lambda name, phase, seconds, detail: told.append((name, phase)))
    assert {name for name, phase in told if phase == Phase.READY} == set(RUNNING)


def test_down_takes_all_down_and_again_is_harmless(owner: Backend) -> None:
    for _ in range(2):
        owner.down()
        assert not owner.is_up()
        assert {status.phase for status in owner.status()} == {Phase.DOWN}
    with pytest.raises(StackError, match="not up") as refused:
        owner.urls()
    assert "workshop up" in refused.value.remedy


def test_a_server_of_a_stack_that_is_down_cannot_be_handled(owner: Backend) -> None:
    owner.down()
    actions: list[Action] = ["kill", "pause", "resume", "restart"]
    for action in actions:
        with pytest.raises(StackError) as error:
            owner.act("redis-state", action)
        assert "workshop up" in error.value.remedy


def test_reset_takes_it_down_and_again_is_harmless(owner: Backend) -> None:
    owner.reset()
    assert not owner.is_up()
    owner.reset()


def test_a_paused_server_is_seen_and_goes_on(owner: Backend) -> None:
    for _ in range(2):  # pausing what is paused is harmless
        owner.act("redis-state", "pause")
        assert eventually(lambda: status_of(owner, "redis-state").phase == Phase.PAUSED)
    for _ in range(2):
        owner.act("redis-state", "resume")
        assert eventually(lambda: status_of(owner, "redis-state").phase == Phase.READY)


def test_a_killed_server_is_seen_dead_until_it_is_restarted(owner: Backend) -> None:
    owner.act("redis-state", "kill")
    status = status_of(owner, "redis-state")
    assert status.phase == Phase.DEAD
    assert status.detail
    assert owner.is_up()
    with pytest.raises(StackError, match="not running"):
        owner.act("redis-state", "kill")
    owner.act("redis-state", "restart")
    assert status_of(owner, "redis-state").phase == Phase.READY


def test_logs_end_with_the_lines_asked_for(owner: Backend) -> None:
    line = owner.logs("redis-state", 1)
    assert line
    assert "\n" not in line


# -- what a stack that is not ours says instead


@pytest.mark.parametrize("attempt", ["down", "reset", "kill", "pause", "resume", "restart", "logs"])
def test_servers_that_are_not_ours_are_only_looked_at(guest: ExternalBackend, attempt: str) -> None:
    attempts: dict[str, Callable[[], object]] = {
        "down": guest.down,
        "reset": guest.reset,
        "kill": lambda: guest.act("redis-state", "kill"),
        "pause": lambda: guest.act("redis-state", "pause"),
        "resume": lambda: guest.act("redis-state", "resume"),
        "restart": lambda: guest.act("redis-state", "restart"),
        "logs": lambda: guest.logs("redis-state", 1),
    }
    with pytest.raises(StackError, match=r"not ours|not here") as error:
        attempts[attempt]()
    assert error.value.remedy
    assert {status.phase for status in guest.status()} == {Phase.READY}


# -- external


def test_external_names_the_variables_that_are_missing() -> None:
    backend = ExternalBackend(RUNNING, {"SHOWCASE_MAIL_URL": "smtp://mail.example"})
    assert not backend.is_up()
    with pytest.raises(StackError, match="SHOWCASE_REDIS_STATE_URL, SHOWCASE_MAIL_API_URL") as error:
        backend.up()
    assert ".env.example" in error.value.remedy
    assert {status.phase for status in backend.status()} == {Phase.DOWN}


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "redis://u:wrong@HERE/0", "http://HERE"])
def test_external_names_each_server_that_does_not_answer(servers: LocalBackend, url: str) -> None:
    servers.up()
    urls = dict(servers.urls())
    here = url_of(urls, "SHOWCASE_REDIS_STATE_URL")
    urls["SHOWCASE_REDIS_STATE_URL"] = url.replace("HERE", f"{here.hostname}:{here.port}")
    backend = ExternalBackend(RUNNING, urls)
    with pytest.raises(StackError, match=r"redis-state does not answer: .+") as error:
        backend.up()
    assert "mail" not in error.value.what
    assert [status.phase for status in backend.status()] == [Phase.DEAD, Phase.READY]


@pytest.mark.parametrize(
    "url", ["nonsense", "redis://u:SECRET/x@HERE/0", "redis://u:SECRET%zz@HERE/0", "redis://u:SECRET@[HERE/0"]
)
def test_external_names_a_variable_that_holds_no_url_but_never_its_password(servers: LocalBackend, url: str) -> None:
    servers.up()
    backend = ExternalBackend(RUNNING, {**servers.urls(), "SHOWCASE_REDIS_STATE_URL": url})
    for call in (backend.up, backend.urls, backend.status):
        with pytest.raises(StackError, match="SHOWCASE_REDIS_STATE_URL is not set to a URL") as error:
            call()
        assert "SECRET" not in error.value.what + error.value.remedy


def test_external_waits_no_longer_for_a_paused_server_than_it_said(servers: LocalBackend) -> None:
    servers.up()
    backend = ExternalBackend(RUNNING, servers.urls())
    servers.act("redis-state", "pause")
    began = time.monotonic()
    try:
        phases = {status.name: status.phase for status in backend.status()}
    finally:
        servers.act("redis-state", "resume")
    assert time.monotonic() - began < PROBE_WITHIN_S + 1
    assert phases == {"redis-state": Phase.DEAD, "mail": Phase.READY}


# -- compose: settings


def test_compose_makes_settings_with_a_random_password_for_the_owner_only(docker: Docker, checkout: Path) -> None:
    backend = ComposeBackend(checkout=checkout)
    assert not backend.is_up()
    backend.down()
    assert not backend.dotenv.exists()
    backend.up()
    password = backend.settings()["SHOWCASE_PASSWORD"]
    assert stat.S_IMODE(backend.dotenv.stat().st_mode) == 0o600
    assert docker.passwords() == {password}
    backend.up()
    assert backend.settings()["SHOWCASE_PASSWORD"] == password


def test_compose_takes_another_port_where_one_is_in_use(servers: LocalBackend, docker: Docker, checkout: Path) -> None:
    servers.up()
    urls = servers.urls()
    taken = url_of(urls, "SHOWCASE_REDIS_STATE_URL").port
    example = checkout / ".env.example"
    example.write_text(example.read_text().replace("=16380", f"={taken}"))
    backend = ComposeBackend(checkout=checkout)
    backend.up()
    assert int(backend.settings()["SHOWCASE_REDIS_STATE_PORT"]) not in (taken, 0)


@pytest.mark.parametrize("password", ["", "short", "has spaces in it", "quote'in-it-12345"])
def test_compose_refuses_a_password_that_would_not_do(docker: Docker, checkout: Path, password: str) -> None:
    backend = ComposeBackend(checkout=checkout)
    backend.dotenv.write_text(f"SHOWCASE_PASSWORD={password}\n")
    with pytest.raises(StackError, match="SHOWCASE_PASSWORD") as error:
        backend.up()
    assert error.value.remedy


def test_compose_goes_by_the_settings_where_the_shell_says_otherwise(
    docker: Docker, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWCASE_PASSWORD", "another-password")
    backend = ComposeBackend(checkout=checkout)
    backend.up()
    assert "another-password" not in docker.passwords()
    assert "another-password" not in backend.urls()["SHOWCASE_POSTGRES_URL"]


# -- compose: command lines


def test_compose_starts_the_profiles_of_the_settings_and_waits_for_health(docker: Docker, checkout: Path) -> None:
    backend = ComposeBackend(checkout=checkout)
    shutil.copy(checkout / ".env.example", backend.dotenv)
    text = backend.dotenv.read_text().replace("PASSWORD=\n", "PASSWORD=long-enough-1\n")
    backend.dotenv.write_text(text.replace("PROFILES=core", "PROFILES=core,sqlserver"))
    backend.up()
    [up] = [line for line in docker.asked() if " up " in line]
    assert up == "compose --profile=core --profile=sqlserver up --detach --wait --wait-timeout 300 --quiet-pull"


def test_compose_asks_for_what_each_method_says(docker: Docker, checkout: Path) -> None:
    backend = ComposeBackend(checkout=checkout)
    backend.up()
    done = len(docker.asked())
    backend.act("mail", "pause")
    backend.act("mail", "resume")
    backend.act("mail", "kill")
    backend.act("mail", "restart")
    backend.logs("mail", 7)
    backend.down()
    backend.reset()
    assert [line for line in docker.asked()[done:] if not line.startswith("ps ")] == [
        "pause mail",
        "unpause mail",
        "kill mail",
        "stop --timeout 20 mail",
        "up --detach --no-deps --wait --wait-timeout 300 mail",
        "logs --no-color --no-log-prefix --tail 7 mail",
        "down --timeout 20",
        "down --volumes --timeout 1",
    ]


@pytest.mark.parametrize("was_up", [False, True])
def test_compose_when_ephemeral_takes_down_only_what_it_brought_up(
    docker: Docker, checkout: Path, was_up: bool
) -> None:
    if was_up:
        ComposeBackend(checkout=checkout).up()
    backend = ComposeBackend(ephemeral=True, checkout=checkout)
    backend.up()
    backend.up()
    backend.release()
    assert backend.is_up() == was_up


# -- compose: what can go wrong


def test_compose_without_docker_says_what_to_install(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    with pytest.raises(StackError, match="docker is not installed") as error:
        ComposeBackend(checkout=checkout).up()
    assert "Docker Engine" in error.value.remedy


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Cannot connect to the Docker daemon at unix:///var/run/docker.sock.", "engine does not answer"),
        ("permission denied while trying to connect to the docker API", "engine does not answer"),
        ("unknown flag: --profile\n\nRun 'docker --help' for more information", "without its compose plug-in"),
        ("docker: unknown command: docker compose", "without its compose plug-in"),
        ("pulling\n container showcase-kafka-1 is unhealthy\n", "container showcase-kafka-1 is unhealthy"),
        ("", "exit code 1"),
    ],
)
def test_compose_says_in_one_line_what_failed(docker: Docker, checkout: Path, said: str, meant: str) -> None:
    docker.answers_as("fails", said)
    with pytest.raises(StackError, match=meant) as error:
        ComposeBackend(checkout=checkout).up()
    assert "\n" not in error.value.what
    assert error.value.remedy


def test_compose_does_not_wait_for_ever_for_an_engine_that_hangs(
    docker: Docker, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ComposeBackend(checkout=checkout)
    backend.up()
    docker.answers_as("hangs")
    monkeypatch.setattr(compose, "ACT_WITHIN_S", 0.5)
    began = time.monotonic()
    with pytest.raises(StackError, match="gave no answer"):
        backend.down()
    assert time.monotonic() - began < 5
