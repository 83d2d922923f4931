"""The local stack: up and down, also at once; what is kept; who gets in; private and ephemeral stacks; and
what each thing that can be wrong with a machine looks like.
"""

import os
import secrets
import shutil
import smtplib
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pika.exceptions
import psutil
import psycopg
import pymongo.errors
import pytest
import redis
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from pymongo import MongoClient

from tests.integration.contents import GET, KEEPERS, PUT
from tests.integration.stacks import (
    LIGHT,
    WORKSHOP,
    Home,
    ended,
    find_below,
    phases,
    pids_of,
    processes_below,
    short_home,
    supervisor_of,
    supervisors,
    wait_until,
)
from workshop.stack import Phase, ServerStatus, Stack, StackError
from workshop.stack.local import kafka, rabbitmq
from workshop.stack.local.backend import LocalBackend
from workshop.stack.local.folder import CHECKOUT, Folder
from workshop.stack.local.postgres import WHEEL, can_reach, find_binaries
from workshop.stack.model import Urls, url_of

root_only = pytest.mark.skipif(os.getuid() != 0, reason="only root can act as somebody else, or mount")
TIMEOUT_S = 5.0
WRONG = "wrong"

UP = """
names = sys.argv[2].split(",")
backend = LocalBackend(Folder(Path(sys.argv[1])), names, ephemeral=sys.argv[3] == "ephemeral")
print("ready", flush=True)
sys.stdin.readline()
try:
    backend.up()
    print(json.dumps({"urls": dict(backend.urls())}), flush=True)
    if backend.ephemeral:
        sys.stdin.readline()
        backend.release()
except StackError as error:
    sys.exit(error.what)
"""
PRIVATE = """
with Stack.private(sys.argv[1].split(",")) as stack:
    print(stack.backend.folder.path, flush=True)
    if sys.stdin.readline() == "fail\\n":
        raise RuntimeError("as a test does")
"""


class User:
    """A process that uses a stack: it does the next thing when it is told to."""

    def __init__(self, home: Home, *, kind: str = "stays", names: tuple[str, ...] = LIGHT) -> None:
        self.process = home.python(UP, home.folder.path, ",".join(names), kind)
        self.told()

    def go(self) -> "User":
        """Let it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self

    def told(self) -> str:
        """The next line that it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def end(self) -> int:
        """Wait for its end and return the exit code."""
        return ended(self.process).code

    def kill(self) -> None:
        self.process.kill()
        ended(self.process)


@pytest.fixture
def private_home(home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A home where also the stacks lie that this process makes."""
    monkeypatch.setenv("SHOWCASE_STATE_HOME", str(home.path))
    return home


# -- up and down


def test_up_twice_is_one_stack(home: Home) -> None:
    first = home.backend()
    first.up()
    urls, pids = first.urls(), pids_of(home.folder)
    second = home.backend()
    second.up()
    assert (second.urls(), pids_of(home.folder)) == (urls, pids)


def test_five_ups_at_once_are_one_stack(home: Home) -> None:
    users = [User(home) for _ in range(5)]  # each has said that it is ready: the barrier
    for user in users:
        user.go()
    assert len({user.told() for user in users}) == 1
    assert [user.end() for user in users] == [0] * 5
    assert len(supervisors(home)) == 1
    assert len(home.processes()) == 1 + len(LIGHT)


def test_up_and_down_at_once_never_leave_half_a_stack(home: Home) -> None:
    for _ in range(4):
        user = User(home, names=("redis-state",))
        with ThreadPoolExecutor(1) as pool:
            down = pool.submit(home.backend().down)
            user.go()
            down.result()
        assert user.end() == 0
        backend = home.backend(["redis-state"])
        if backend.is_up():
            assert phases(backend) == {"redis-state": "ready"}
        else:
            assert home.processes() == []


def test_reset_and_up_at_once_never_mix(home: Home) -> None:
    for _ in range(4):
        users = [User(home, names=("redis-state",)) for _ in range(2)]
        with ThreadPoolExecutor(1) as pool:
            reset = pool.submit(home.backend().reset)
            for user in users:
                user.go()
            reset.result()
        assert {user.end() for user in users} <= {0, 1}
        assert len(supervisors(home)) <= 1
        home.backend(["redis-state"]).up()
        assert phases(home.backend(["redis-state"])) == {"redis-state": "ready"}


def test_looking_while_it_comes_up_disturbs_nobody(home: Home) -> None:
    stop = threading.Event()

    def look() -> set[str]:
        seen: set[str] = set()
        while not stop.is_set():
            seen |= set(phases(home.backend()).values())
        return seen

    with ThreadPoolExecutor(3) as pool:
        lookers = [pool.submit(look) for _ in range(3)]
        try:
            for _ in range(3):
                home.backend().up()
                home.backend().down()
        finally:
            stop.set()
        assert set().union(*(looker.result() for looker in lookers)) <= {"down", "starting", "ready", "dead"}


def test_a_stack_that_is_still_starting_gives_no_addresses(home: Home) -> None:
    user = User(home, names=("rabbitmq",)).go()
    wait_until(lambda: home.folder.state.exists() and pids_of(home.folder))
    with pytest.raises(StackError, match="still starting") as caught:
        home.backend().urls()
    assert "workshop up" in caught.value.remedy
    assert phases(home.backend(["rabbitmq"])) == {"rabbitmq": Phase.STARTING}
    user.kill()


def test_down_is_harmless_when_nothing_is_up(home: Home) -> None:
    home.backend().down()
    home.backend().reset()
    assert list(home.path.iterdir()) == []


def test_nothing_but_its_own_folder_is_left_by_a_stack_that_is_down(home: Home) -> None:
    backend = home.backend(["redis-state", "postgres"])
    backend.up()
    backend.down()
    assert home.processes() == []
    assert {path.name for path in home.path.iterdir()} <= {home.folder.path.name, home.folder.postgres.name}
    wait_until(lambda: zombies() == [])
    with pytest.raises(StackError, match="the stack is not up"):
        backend.urls()
    backend.reset()
    assert list(home.path.iterdir()) == []


def zombies() -> list[psutil.Process]:
    """Children of this process that ended and were never waited for."""
    return [child for child in psutil.Process().children() if child.status() == psutil.STATUS_ZOMBIE]


# -- what is kept


def test_data_and_addresses_are_kept_over_down_and_up(whole: LocalBackend) -> None:
    value, urls = secrets.token_hex(4), whole.urls()
    for put in PUT.values():
        put(urls, value)
    whole.down()
    whole.up()
    assert whole.urls() == urls
    assert {name: GET[name](urls)[-1] for name in KEEPERS} == dict.fromkeys(KEEPERS, value)
    assert GET["redis-cache"](urls) == []


def test_reset_removes_data_and_passwords(home: Home) -> None:
    backend = home.backend(["redis-state", "postgres"])
    backend.up()
    urls = backend.urls()
    PUT["redis-state"](urls, "x")
    backend.reset()
    backend.up()
    assert GET["redis-state"](backend.urls()) == []
    assert backend.urls() != urls


def test_a_server_whose_port_was_taken_meanwhile_moves_with_its_data(home: Home) -> None:
    backend = home.backend(["mongo", "redis-state"])
    backend.up()
    before = {name: status.address for name, status in by_name(backend).items()}
    for name in before:
        PUT[name](backend.urls(), "kept")
    backend.down()
    with listening(int(before["mongo"].rpartition(":")[2])), listening(int(before["redis-state"].rpartition(":")[2])):
        backend.up()
        after = {name: status.address for name, status in by_name(backend).items()}
        assert set(after.values()).isdisjoint(before.values())
        assert {name: GET[name](backend.urls()) for name in before} == {name: ["kept"] for name in before}


def by_name(backend: LocalBackend) -> dict[str, ServerStatus]:
    return {status.name: status for status in backend.status()}


@contextmanager
def listening(port: int) -> Iterator[None]:
    """Somebody else's server on a port of the stack: it hangs up on whoever speaks another protocol."""
    with Listener(("127.0.0.1", port), socketserver.BaseRequestHandler) as listener:
        thread = threading.Thread(target=listener.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield
        finally:
            listener.shutdown()
            thread.join()


class Listener(socketserver.TCPServer):
    allow_reuse_address = True


# -- who gets in


def no_postgres(urls: Urls, password: str) -> None:
    url = url_of(urls, "SHOWCASE_POSTGRES_URL")
    login = f"showcase:{password}" if password else "showcase"
    psycopg.connect(f"postgresql://{login}@{url.hostname}:{url.port}/postgres", connect_timeout=5).close()


def no_mongo(urls: Urls, password: str) -> None:
    url = url_of(urls, "SHOWCASE_MONGO_URL")
    login = f"showcase:{password}@" if password else ""
    address = f"mongodb://{login}{url.hostname}:{url.port}/?replicaSet=rs0&authSource=admin"
    with MongoClient[dict[str, object]](address, timeoutMS=TIMEOUT_S * 1000) as session:
        session["any"]["any"].find_one()


def no_redis(variable: str) -> Callable[[Urls, str], None]:
    def attempt(urls: Urls, password: str) -> None:
        url = url_of(urls, variable)
        login = f"showcase:{password}@" if password else ""
        with redis.Redis.from_url(f"redis://{login}{url.hostname}:{url.port}", socket_timeout=TIMEOUT_S) as session:
            session.ping()

    return attempt


def no_amqp(urls: Urls, password: str) -> None:
    url = url_of(urls, "SHOWCASE_RABBITMQ_URL")
    login = f"showcase:{password}" if password else "guest:guest"
    rabbitmq.connect(f"amqp://{login}@{url.hostname}:{url.port}/%2F", TIMEOUT_S).close()


def no_http(variable: str, path: str) -> Callable[[Urls, str], None]:
    def attempt(urls: Urls, password: str) -> None:
        url = url_of(urls, variable)
        login = ("showcase", password) if password else None
        answer = httpx.get(f"http://{url.hostname}:{url.port}{path}", auth=login, timeout=TIMEOUT_S)
        if answer.status_code == httpx.codes.UNAUTHORIZED:
            answer.raise_for_status()

    return attempt


def no_kafka(urls: Urls, password: str) -> None:
    errors: list[KafkaError] = []
    login = kafka.client_config(urls) | {"sasl.password": password}
    if not password:
        login = {"bootstrap.servers": login["bootstrap.servers"], "log_level": 0}
    config: dict[str, Any] = {**login, "error_cb": errors.append}
    client = AdminClient(config)
    try:
        client.list_topics(timeout=TIMEOUT_S)
    finally:
        client.poll(0)
        codes = {error.code() for error in errors}
        assert not password or KafkaError._AUTHENTICATION in codes  # and not merely out of reach


def no_smtp(urls: Urls, password: str) -> None:
    url = url_of(urls, "SHOWCASE_MAIL_URL")
    with smtplib.SMTP(url.hostname or "", url.port or 0, timeout=TIMEOUT_S) as session:
        if password:
            session.login("showcase", password)
        session.sendmail("a@example.org", ["b@example.org"], "Subject: none\r\n\r\n")


REFUSED: dict[str, tuple[Callable[[Urls, str], None], type[Exception], str | None]] = {
    "postgres": (no_postgres, psycopg.OperationalError, "password"),
    "mongo": (no_mongo, pymongo.errors.OperationFailure, "[Aa]uthentication"),
    "redis-cache": (no_redis("SHOWCASE_REDIS_CACHE_URL"), redis.RedisError, "(?i)auth|password"),
    "redis-state": (no_redis("SHOWCASE_REDIS_STATE_URL"), redis.RedisError, "(?i)auth|password"),
    "amqp": (no_amqp, pika.exceptions.AMQPConnectionError, None),
    "rabbitmq api": (no_http("SHOWCASE_RABBITMQ_API_URL", "/api/overview"), httpx.HTTPStatusError, "401"),
    "kafka": (no_kafka, KafkaException, None),
    "connect": (no_http("SHOWCASE_CONNECT_URL", "/connectors"), httpx.HTTPStatusError, "401"),
    "smtp": (no_smtp, smtplib.SMTPException, "(?i)auth"),
    "mail api": (no_http("SHOWCASE_MAIL_API_URL", "/api/v1/messages"), httpx.HTTPStatusError, "401"),
}


@pytest.mark.parametrize("password", [WRONG, ""], ids=["wrong password", "no password"])
@pytest.mark.parametrize("server", REFUSED)
def test_a_server_lets_nobody_in_without_the_password(whole: LocalBackend, server: str, password: str) -> None:
    attempt, refusal, why = REFUSED[server]
    with pytest.raises(refusal, match=why):
        attempt(whole.urls(), password)


# -- private stacks


def test_a_private_stack_has_addresses_and_passwords_of_its_own(private_home: Home) -> None:
    shared = private_home.backend(["redis-state"])
    shared.up()
    with Stack.private(["redis-state"]) as one, Stack.private(["redis-state"]) as other:
        urls = [stack.urls["SHOWCASE_REDIS_STATE_URL"] for stack in (one, other)] + list(shared.urls().values())
        assert len(set(urls)) == 3
        assert len({url_of({"url": url}, "url").password for url in urls}) == 3
    assert shared.is_up()


def test_a_private_stack_of_every_kind_of_server_user_is_gone_when_its_block_ends(private_home: Home) -> None:
    with Stack.private(["postgres", "mail"]) as stack:
        assert {status.phase for status in stack.status()} == {Phase.READY}
        stack.server("mail").kill()
        assert stack.server("mail").status().phase == Phase.DEAD
    assert private_home.processes() == []
    assert list(private_home.path.iterdir()) == []
    wait_until(lambda: zombies() == [])


def test_a_private_stack_whose_supervisor_was_killed_is_gone_when_its_block_ends(private_home: Home) -> None:
    with Stack.private(["redis-state"]) as stack:
        assert isinstance(stack.backend, LocalBackend)
        supervisor_of(stack.backend.folder).kill()
        wait_until(lambda: not stack.backend.is_up())
    assert private_home.processes() == []
    assert list(private_home.path.iterdir()) == []


def test_a_private_stack_that_does_not_start_leaves_nothing(private_home: Home) -> None:
    with pytest.raises(StackError, match="connect does not work without kafka"):
        Stack.private(["connect", "postgres"])
    assert private_home.processes() == []
    assert list(private_home.path.iterdir()) == []


def test_a_server_that_a_private_stack_does_not_have_is_told(private_home: Home) -> None:
    with Stack.private(["redis-state"]) as stack:
        with pytest.raises(StackError, match="this stack has no mongo"):
            stack.server("mongo").restart()
        with pytest.raises(StackError, match="no server is called no-such"):
            stack.server("no-such").kill()
    with pytest.raises(StackError, match="no server is called no-such"):
        Stack.private(["no-such"])


@pytest.mark.parametrize(("word", "code"), [("end\n", 0), ("fail\n", 1)])
def test_a_private_stack_goes_with_its_process(home: Home, word: str, code: int) -> None:
    with home.python(PRIVATE, ",".join(LIGHT)) as creator:
        assert creator.stdout is not None
        folder = Path(creator.stdout.readline().strip())
        assert folder.exists()
        creator.communicate(word, timeout=60)
    assert creator.returncode == code
    assert not folder.exists()
    assert home.processes() == []


def test_a_private_stack_goes_with_its_process_that_was_killed(home: Home) -> None:
    with home.python(PRIVATE, ",".join(LIGHT)) as creator:
        assert creator.stdout is not None
        folder = Path(creator.stdout.readline().strip())
        creator.kill()
    wait_until(lambda: not folder.exists() and home.processes() == [])


@pytest.mark.parametrize("command", ["up", "down"])
def test_private_stacks_whose_process_and_supervisor_were_killed_are_cleared_away(home: Home, command: str) -> None:
    with home.python(PRIVATE, "redis-state") as killed, home.python(PRIVATE, "redis-state") as alive:
        assert killed.stdout is not None
        assert alive.stdout is not None
        gone, kept = (Folder(Path(one.stdout.readline().strip())) for one in (killed, alive) if one.stdout)
        supervisor_of(gone).kill()
        killed.kill()
        killed.wait()
        assert processes_below(gone.path) != []
        getattr(home.backend(["redis-state"]), command)()
        assert processes_below(gone.path) == []
        assert not gone.path.exists()
        assert phases(LocalBackend(kept, ["redis-state"])) == {"redis-state": "ready"}
        alive.communicate("end\n", timeout=60)
    assert alive.returncode == 0


def test_a_private_stack_that_is_starting_is_not_cleared_away(home: Home) -> None:
    with home.python(PRIVATE, "redis-state,mail") as creator:
        while not list(home.path.glob("*-*-*-*/state.json")):
            home.backend().down()
        for _ in range(20):
            home.backend().down()
        output, errors = creator.communicate("end\n", timeout=60)
    assert creator.returncode == 0, output + errors


# -- ephemeral stacks


def test_an_ephemeral_stack_goes_with_its_last_user(home: Home) -> None:
    one, other = User(home, kind="ephemeral").go(), User(home, kind="ephemeral").go()
    assert one.told() == other.told()
    one.go()
    assert one.end() == 0
    assert home.backend().is_up()
    other.go()
    assert other.end() == 0
    assert home.processes() == []


def test_an_ephemeral_stack_stays_as_long_as_somebody_is_attached_to_it(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWCASE_STATE_HOME", str(home.path))
    backend = home.backend(ephemeral=True)
    backend.up()
    with Stack.attach() as stack:
        backend.release()
        assert home.backend().is_up()
        assert stack.server("mail").status().phase == Phase.READY
    assert not home.backend().is_up()
    assert home.processes() == []


def test_an_ephemeral_stack_goes_with_its_last_user_that_was_killed(home: Home) -> None:
    one, other = User(home, kind="ephemeral").go(), User(home, kind="ephemeral").go()
    assert one.told() == other.told()
    one.kill()
    assert set(phases(home.backend()).values()) == {"ready"}
    other.kill()
    wait_until(lambda: home.processes() == [])


def test_up_makes_an_ephemeral_stack_one_that_stays(home: Home) -> None:
    user = User(home, kind="ephemeral").go()
    user.told()
    pids = pids_of(home.folder)
    home.backend().up()
    user.go()
    assert user.end() == 0
    assert pids_of(home.folder) == pids
    assert set(phases(home.backend()).values()) == {"ready"}


def test_a_stack_that_stays_stays_when_an_ephemeral_user_leaves(home: Home) -> None:
    home.backend().up()
    user = User(home, kind="ephemeral").go()
    user.told()
    user.go()
    assert user.end() == 0
    assert set(phases(home.backend()).values()) == {"ready"}


@pytest.mark.parametrize("kind", ["ephemeral", "stays"])
def test_whoever_comes_when_the_last_user_leaves_has_a_stack(home: Home, kind: str) -> None:
    names = ("redis-state",)
    for _ in range(3):
        leaving = User(home, kind="ephemeral", names=names).go()
        leaving.told()
        coming = User(home, kind=kind, names=names)
        leaving.go()
        coming.go()
        assert "urls" in coming.told()
        assert phases(home.backend(names)) == {"redis-state": "ready"}
        if kind == "ephemeral":
            coming.go()
        assert (leaving.end(), coming.end()) == (0, 0)
        home.backend().down()


# -- what can be wrong: one clear line, what to try, exit code 1, nothing left


def complaint(home: Home, *arguments: str, **environment: str) -> str:
    """What `workshop` says when it fails; it leaves nothing running."""
    told = home.workshop(*(arguments or ("up",)), **environment)
    assert told.code == 1, told
    assert "Traceback" not in told.errors
    assert told.errors.count("error:") == 1, told
    assert "  try: " in told.errors
    assert home.processes() == []
    return told.errors


@contextmanager
def hidden(command: str) -> Iterator[tuple[str, ...]]:
    """The beginning of a command line under which a program is not there: something that nobody can run lies
    over it, in a mount namespace of its own."""
    with tempfile.NamedTemporaryFile() as nothing:
        found = shutil.which(command, path=f"{os.environ['PATH']}:/usr/sbin")
        assert found is not None
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        yield "unshare", "-m", "sh", "-c", script, "sh", nothing.name, str(Path(found).resolve())


def may(*command: str) -> bool:
    """Whether this machine lets us do something with mounts."""
    return os.getuid() == 0 and subprocess.run(command, capture_output=True, check=False).returncode == 0


can_unshare = pytest.mark.skipif(
    not may("unshare", "-m", "mount", "--bind", "/dev/null", "/dev/null"), reason="no mount namespaces without root"
)


@can_unshare
@pytest.mark.parametrize("command", ["redis-server", "rabbitmq-server", "epmd"])
def test_a_missing_program_is_told_with_what_installs_it(home: Home, command: str) -> None:
    with hidden(command) as under:
        told = ended(home.start(*under, *WORKSHOP, "up"))
    assert told.code == 1, told
    assert f"error: {command} is not installed" in told.errors
    assert "try: apt-get install" in told.errors
    assert home.processes() == []


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo 'openjdk version \"11.0.2\"' >&2", "holds Java 11, but Kafka needs 17 or later"),
        (None, "does not run"),
        ("echo hello", "holds no Java that tells its version"),
    ],
)
def test_a_wrong_java_is_told(home: Home, tmp_path: Path, script: str | None, says: str) -> None:
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    if script is not None:
        java.write_text(f"#!/bin/sh\n{script}\n")
        java.chmod(0o755)
    told = complaint(home, SHOWCASE_JAVA_HOME=str(tmp_path))
    assert says in told
    assert "SHOWCASE_JAVA_HOME" in told


def test_missing_jars_are_told(home: Home, tmp_path: Path) -> None:
    told = complaint(home, XDG_CACHE_HOME=str(tmp_path))
    assert "error: the Kafka and Debezium jars are not there yet" in told
    assert "try: `make setup`" in told


def test_an_unknown_kind_of_stack_is_told(home: Home) -> None:
    assert "SHOWCASE_STACK=cloud is not a kind of stack" in complaint(home, SHOWCASE_STACK="cloud")


def test_a_path_too_long_for_a_socket_is_told(home: Home) -> None:
    told = complaint(home, SHOWCASE_STATE_HOME=str(home.path / ("x" * 100)))
    assert "too long for a Unix socket" in told


def test_a_damaged_state_file_of_a_stack_that_is_down_is_told_and_down_repairs_it(home: Home) -> None:
    home.folder.make()
    home.folder.state.write_text('{"servers": ')
    told = complaint(home)
    assert f"error: {home.folder.state} is damaged" in told
    assert "try: run `workshop down`" in told
    assert home.workshop("down").code == 0
    home.backend().up()


def test_a_damaged_state_file_of_a_stack_that_is_up_is_told_and_down_ends_everything(home: Home) -> None:
    home.backend().up()
    home.folder.state.write_text('{"servers": ')
    for command in ("status", "up", "env"):
        told = home.workshop(command)
        assert told.code == 1
        assert "is damaged" in told.errors
    assert home.workshop("down").code == 0
    assert home.processes() == []


@pytest.mark.parametrize("command", [("down",), ("reset", "--all")])
def test_a_stack_whose_folder_was_removed_is_still_taken_down(home: Home, command: tuple[str, ...]) -> None:
    home.backend().up()
    shutil.rmtree(home.folder.path)
    assert home.processes() != []
    assert home.workshop(*command).code == 0
    assert home.processes() == []


@pytest.mark.parametrize("command", ["up", "down", "status", "env", "kill"])
@root_only
def test_a_state_folder_of_somebody_else_is_told_and_not_touched(home: Home, command: str) -> None:
    home.folder.path.mkdir()
    shutil.chown(home.folder.path, "nobody")
    told = complaint(home, *([command, "mail"] if command == "kill" else [command]))
    assert f"error: {home.folder.path} belongs to somebody else" in told
    assert list(home.folder.path.iterdir()) == []
    home.folder.path.rmdir()


@root_only
def test_a_home_that_postgresqls_user_cannot_reach_is_told(home: Home) -> None:
    home.path.chmod(0o700)
    with pytest.raises(StackError, match="the user nobody, as whom PostgreSQL runs, cannot reach") as caught:
        home.backend(["postgres", "redis-state"]).up()
    assert "SHOWCASE_STATE_HOME" in caught.value.remedy
    assert home.processes() == []


@root_only
def test_a_link_in_the_place_of_postgresqls_folder_is_told_and_not_followed(home: Home, tmp_path: Path) -> None:
    home.folder.postgres.symlink_to(tmp_path)
    with pytest.raises(StackError, match="belongs to somebody else"):
        home.backend(["postgres"]).up()
    assert tmp_path.stat().st_uid == 0
    home.folder.postgres.unlink()


@pytest.fixture
def small_disk(request: pytest.FixtureRequest) -> Iterator[Home]:
    """A home on a disk of so many MiB."""
    with tempfile.TemporaryDirectory(prefix="st-", dir=Path("/", "var", "tmp")) as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={request.param}m", "st", folder], check=True)
        try:
            with short_home(folder) as home:
                yield home
        finally:
            subprocess.run(["umount", folder], check=True)


can_mount = pytest.mark.skipif(
    not may("unshare", "-m", "mount", "-t", "tmpfs", "st", tempfile.gettempdir()), reason="a small disk needs root"
)


@can_mount
@pytest.mark.parametrize("small_disk", [64], indirect=True)
def test_a_disk_that_is_too_small_is_told(small_disk: Home) -> None:
    told = complaint(small_disk)
    assert "error: only 6" in told
    assert "MiB are free where the servers keep their data" in told
    assert "try: free some space" in told


@can_mount
@pytest.mark.parametrize("small_disk", [530], indirect=True)
def test_a_disk_that_fills_while_the_servers_start_is_told(small_disk: Home) -> None:
    starting = small_disk.start(*WORKSHOP, "up")
    wait_until(lambda: small_disk.folder.state.exists() and pids_of(small_disk.folder))
    fill(small_disk.path / "filler")
    told = ended(starting)
    (small_disk.path / "filler").unlink()
    assert told.code == 1, told
    assert "Traceback" not in told.errors
    assert "error: " in told.errors
    assert "No space left on device" in told.errors
    assert small_disk.processes() == []


def fill(path: Path) -> None:
    """Take all the space that is left, also what is given back meanwhile."""
    size = 2**20
    with path.open("wb", buffering=0) as file:
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2


def test_a_server_that_dies_at_its_start_prints_the_end_of_its_log(home: Home) -> None:
    backend = home.backend(["redis-state", "mail"])
    backend.up()
    backend.down()
    (home.folder.data("redis-state") / "appendonlydir" / "appendonly.aof.manifest").write_text("not a manifest\n")
    with pytest.raises(StackError, match=r"redis-state ended with exit code 1\n[\s\S]*AOF manifest file") as caught:
        backend.up()
    assert "workshop logs redis-state" in caught.value.remedy
    assert home.processes() == []
    assert "AOF manifest file" in backend.logs("redis-state", 20)


def test_a_server_whose_port_somebody_took_while_it_was_dead_says_so(home: Home) -> None:
    backend = home.backend(["redis-state", "mail"])
    backend.up()
    backend.act("redis-state", "kill")
    port = url_of(backend.urls(), "SHOWCASE_REDIS_STATE_URL").port
    assert port is not None
    with listening(port), pytest.raises(StackError, match=r"(?i)address already in use"):
        backend.act("redis-state", "restart")
    assert phases(backend) == {"redis-state": "dead", "mail": "ready"}
    backend.act("redis-state", "restart")
    assert phases(backend) == {"redis-state": "ready", "mail": "ready"}


# -- whose it is


def as_nobody(scratch: Path) -> tuple[str, ...]:
    """The beginning of a command line that runs the rest as an ordinary user. Where this Python or the checkout lies
    in root's home, that home is an open one in a mount namespace of the command's own, with just these in it."""
    become = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", "--")
    needed = [folder for folder in (Path(sys.base_prefix), CHECKOUT) if not can_reach(folder)]
    if not needed:
        return become
    closed = {next(one for one in reversed(folder.parents) if not can_reach(one)) for folder in needed}
    held = {scratch / str(number): folder for number, folder in enumerate(needed)}
    steps = [
        "set -e",
        *(f"mkdir -p {place} && mount --bind {folder} {place}" for place, folder in held.items()),
        *(f"mount -t tmpfs -o mode=755 st {folder}" for folder in closed),
        *(f"mkdir -p {folder} && mount --bind {place} {folder}" for place, folder in held.items()),
        'exec "$@"',
    ]
    return ("unshare", "-m", "sh", "-c", "\n".join(steps), "sh", *become)


@can_unshare
def test_an_ordinary_user_has_a_stack_too(home: Home) -> None:
    code = """
import os, sys
from workshop.stack.local.backend import LocalBackend
backend = LocalBackend(names=["postgres", "redis-state", "rabbitmq", "mail"])
backend.up()
print(os.getuid(), *(status.phase for status in backend.status()), flush=True)
backend.act("postgres", "pause")
backend.act("postgres", "kill")
backend.act("postgres", "restart")
sys.stdin.readline()
backend.reset()
"""
    state = home.path / "state"
    state.mkdir()
    shutil.chown(state, "nobody")
    with home.start(
        *as_nobody(home.path / "held"),
        *(sys.executable, "-c", code),
        SHOWCASE_STATE_HOME=str(state),
        HOME=str(state),
    ) as user:
        assert user.stdout is not None
        said = user.stdout.readline().split()
        running = {name for process in find_below(state) for name in user_of(process)}
        _, errors = user.communicate("\n", timeout=60)
    assert user.returncode == 0, errors
    assert said[1:] == ["ready"] * 4
    assert running == {"nobody"}
    assert home.processes() == []


def user_of(process: psutil.Process) -> list[str]:
    """The user of a process, if it is still there."""
    try:
        return [process.username()]
    except psutil.NoSuchProcess:
        return []


@root_only
def test_a_checkout_that_postgresqls_user_cannot_reach_gets_a_copy_of_its_programs(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one in root's home: the wheel lies in a folder that only root may enter, its files open to nobody else."""
    package = next(folder for folder in find_binaries().parents if folder.name == WHEEL)
    with tempfile.TemporaryDirectory(dir=Path.home()) as closed:
        for part in (package, package.with_name(f"{package.name}.libs")):
            shutil.copytree(part, Path(closed) / part.name)
        subprocess.run(["chmod", "-R", "go=", closed], check=True)
        monkeypatch.setenv("PYTHONPATH", closed)
        backend = home.backend(["postgres"])
        backend.up()
        PUT["postgres"](backend.urls(), "kept")
        running = Path(psutil.Process(pids_of(home.folder)["postgres"]).exe())
        assert running.is_relative_to(home.folder.postgres / "binaries")
        backend.down()
        backend.up()  # with the copy that is there
        assert GET["postgres"](backend.urls()) == ["kept"]
