"""Kafka in KRaft mode: one node that is broker and controller, every listener with SASL."""

import secrets
import signal
from base64 import urlsafe_b64encode
from collections.abc import Mapping

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from workshop.stack.local.ahead import options
from workshop.stack.local.jars import find_jars, version
from workshop.stack.local.java import find_java
from workshop.stack.local.server import CONFIG, USER, Launch, Place, environment, own, secret_file
from workshop.stack.model import NotReady, Urls, credentials, url_of

HEAP_MB = 512
PLAIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
START = """
java=$1 config=$2 cluster=$3; shift 3
"$java" "$@" kafka.tools.StorageTool format --ignore-formatted -t "$cluster" -c "$config" || exit
exec "$java" "$@" kafka.Kafka "$config"
"""


class Kafka:
    """One Kafka node."""

    name = "kafka"
    after: tuple[str, ...] = ()
    ports: tuple[str, ...] = ("main", "controller")
    stop_signal = signal.SIGTERM
    stop_within_s = 15.0

    def find(self) -> str:
        java = find_java()
        find_jars()
        return f"Kafka {version('kafka')} on Java {java.major}"

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {"SHOWCASE_KAFKA_URL": f"kafka://{USER}:{password}@127.0.0.1:{ports['main']}"}

    def prepare(self, place: Place) -> Launch:
        own(place.data, None)
        cluster = place.folder.remembered("kafka", lambda: {"cluster": new_cluster_id()})["cluster"]
        login = f'{PLAIN} username="{USER}" password="{place.password}" user_{USER}="{place.password}";'
        client = f"127.0.0.1:{place.ports['main']}"
        controller = f"127.0.0.1:{place.ports['controller']}"
        config = secret_file(
            place.data / "server.properties",
            (CONFIG / "kafka" / "server.properties").read_text()
            + f"listeners=CLIENT://{client},CONTROLLER://{controller}\n"
            f"advertised.listeners=CLIENT://{client}\n"
            f"controller.quorum.voters=1@{controller}\n"
            f"log.dirs={place.data / 'log'}\n"
            f"listener.name.client.plain.sasl.jaas.config={login}\n"
            f"listener.name.controller.plain.sasl.jaas.config={login}\n",
        )
        java = [*options(self.name, HEAP_MB), "-cp", find_jars().classpath]
        return Launch(
            argv=["/bin/sh", "-c", START, "start", find_java().binary, config, cluster, *java],
            env=environment(),
            cwd=place.data,
        )

    def set_up(self, place: Place) -> None:
        self.probe(place.urls, 2.0)

    def probe(self, urls: Urls, timeout_s: float) -> str:
        try:
            AdminClient(client_config(urls)).list_topics(timeout=timeout_s)
        except KafkaException as error:
            raise NotReady(error.args[0].str()) from error
        return version("kafka")  # the protocol does not tell; the pom says what we run


def client_config(urls: Urls) -> dict[str, str | int | float | bool]:
    """What every confluent-kafka client needs to reach the broker. Raises StackError."""
    url = url_of(urls, "SHOWCASE_KAFKA_URL")
    user, password = credentials(url)
    config: dict[str, str | int | float | bool] = {
        "bootstrap.servers": f"{url.hostname}:{url.port or 9092}",
        "log_level": 2,  # a broker that is away is reported by the call that needs it, not on stderr
        "socket.timeout.ms": 10_000,
        "reconnect.backoff.ms": 20,
        "reconnect.backoff.max.ms": 500,
    }
    if user:
        config |= {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.username": user,
            "sasl.password": password,
        }
    return config


def new_cluster_id() -> str:
    """A random id in Kafka's form: 16 bytes in base64url, not starting with a dash."""
    identifier = urlsafe_b64encode(secrets.token_bytes(16)).rstrip(b"=").decode()
    return identifier if not identifier.startswith("-") else new_cluster_id()
