"""RabbitMQ: the broker of Debian's package or any other `rabbitmq-server` on PATH.

The broker and its epmd (Erlang's port mapper) run in one process group, so that neither outlives the other.
"""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pika
import pika.exceptions

from workshop.stack.local.folder import Folder
from workshop.stack.local.server import CONFIG, USER, Launch, Place, environment, find_command, own, secret_file
from workshop.stack.model import NotReady, StackError, Urls, credentials, url_of

DEBIAN = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")  # Debian's /usr/sbin wrapper changes user and ignores arguments
LOOPBACK_ONLY = "-kernel inet_dist_use_interface {127,0,0,1}"
IDLE_SCHEDULERS_SLEEP = "+sbwt none +sbwtdcpu none +sbwtdio none"
START = """
"$1" -address 127.0.0.1 -port "$ERL_EPMD_PORT" &
for _ in 1 2 3 4 5 6 7 8 9 10; do
    "$1" -port "$ERL_EPMD_PORT" -names >/dev/null 2>&1 && break
    sleep 0.1
done
exec "$2"
"""


class RabbitMQ:
    """One broker with its management API."""

    name = "rabbitmq"
    after: tuple[str, ...] = ()
    ports: tuple[str, ...] = ("main", "api", "metrics", "distribution", "epmd")
    stop_signal = signal.SIGTERM
    stop_within_s = 15.0

    def find(self) -> str:
        find_epmd()
        return str(find_broker())

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {
            "SHOWCASE_RABBITMQ_URL": f"amqp://{USER}:{password}@127.0.0.1:{ports['main']}/%2F",
            "SHOWCASE_RABBITMQ_API_URL": f"http://{USER}:{password}@127.0.0.1:{ports['api']}",
        }

    def prepare(self, place: Place) -> Launch:
        own(place.data, None)
        shared = CONFIG / "rabbitmq"
        config = place.data / "conf.d"
        config.mkdir(exist_ok=True)
        shutil.copyfile(shared / "rabbitmq.conf", config / "10-workshop.conf")
        secret_file(
            config / "90-local.conf",
            f"listeners.tcp.1 = 127.0.0.1:{place.ports['main']}\n"
            f"management.tcp.ip = 127.0.0.1\nmanagement.tcp.port = {place.ports['api']}\n"
            f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {place.ports['metrics']}\n"
            f"default_user = {USER}\ndefault_pass = {place.password}\n",
        )
        cookie = place.data / ".erlang.cookie"
        if not cookie.exists():
            secret_file(cookie, place.password).chmod(0o400)
        return Launch(
            argv=["/bin/sh", "-c", START, "start", find_epmd(), find_broker()],
            env=environment(
                HOME=str(place.data),
                RUNNING_UNDER_SYSTEMD="true",  # makes the script become the broker instead of its parent
                RABBITMQ_NODENAME="showcase@localhost",
                RABBITMQ_MNESIA_BASE=str(place.data / "mnesia"),
                RABBITMQ_LOG_BASE=str(place.data),
                RABBITMQ_CONFIG_FILES=str(config / "*.conf"),
                RABBITMQ_ADVANCED_CONFIG_FILE=str(config / "none"),
                RABBITMQ_CONF_ENV_FILE=str(config / "none"),
                RABBITMQ_ENABLED_PLUGINS_FILE=str(shared / "enabled_plugins"),
                RABBITMQ_PID_FILE=str(place.data / "rabbitmq.pid"),
                RABBITMQ_DIST_PORT=str(place.ports["distribution"]),
                RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=f"-start_epmd false {LOOPBACK_ONLY} {IDLE_SCHEDULERS_SLEEP}",
                ERL_EPMD_PORT=str(place.ports["epmd"]),
                ERL_EPMD_ADDRESS="127.0.0.1",
            ),
            cwd=place.data,
        )

    def set_up(self, place: Place) -> None:
        self.probe(place.urls, 3.0)

    def probe(self, urls: Urls, timeout_s: float) -> str:
        api = url_of(urls, "SHOWCASE_RABBITMQ_API_URL")
        try:
            answer = httpx.get(
                f"http://{api.hostname}:{api.port}/api/overview", auth=credentials(api), timeout=timeout_s
            ).raise_for_status()
            connect(urls["SHOWCASE_RABBITMQ_URL"], timeout_s).close()
        except (httpx.HTTPError, pika.exceptions.AMQPError, OSError) as error:
            raise NotReady(str(error) or type(error).__name__) from error
        return str(answer.json()["rabbitmq_version"])


def connect(url: str, timeout_s: float) -> pika.BlockingConnection:
    """A blocking connection, made within the timeout.

    What is done with it is bounded by heartbeats: pika, which adds 5 s to their interval, gives up on a broker that
    misses two, so after 10 s and two thirds of the timeout.
    """
    parameters = pika.URLParameters(url)
    parameters.socket_timeout = parameters.stack_timeout = parameters.blocked_connection_timeout = timeout_s
    parameters.heartbeat = max(1, int(timeout_s / 3))
    parameters.connection_attempts = 1
    return pika.BlockingConnection(parameters)


def queues_on_disk(folder: Folder, queues: Sequence[str]) -> bool:
    """Whether a broker would still know these quorum queues after a kill.

    It confirms a declaration before their list is on disk; that is written within a second.
    """
    lists = folder.data("rabbitmq").glob("mnesia/*/quorum/*/names.dets")
    known = b"".join(path.read_bytes() for path in lists)
    return all(f"_{queue}".encode() in known for queue in queues)


def find_broker() -> Path:
    """The start script of the broker. Raises StackError."""
    found = find_command("rabbitmq-server", packages="rabbitmq-server")
    return DEBIAN if found.parent == Path("/usr/sbin") and DEBIAN.exists() else found


def find_epmd() -> Path:
    """Erlang's port mapper. Raises StackError."""
    try:
        return find_command("epmd", packages="erlang-base")
    except StackError:
        erl = shutil.which("erl")
        beside = sorted(Path(erl).resolve().parents[1].glob("**/erts-*/bin/epmd")) if erl else []
        found = [path for path in beside if os.access(path, os.X_OK)]
        if not found:
            raise
        return found[-1]
