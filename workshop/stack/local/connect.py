"""Kafka Connect with Debezium's connectors for PostgreSQL and SQL Server."""

import signal
from collections.abc import Mapping

import httpx

from workshop.stack.local.ahead import options
from workshop.stack.local.jars import find_jars, version
from workshop.stack.local.java import find_java
from workshop.stack.local.kafka import PLAIN
from workshop.stack.local.server import CONFIG, USER, Launch, Place, environment, own, secret_file
from workshop.stack.model import NotReady, Urls, credentials, url_of

HEAP_MB = 512


class Connect:
    """One Connect worker; its REST API asks for the password."""

    name = "connect"
    after: tuple[str, ...] = ("kafka", "postgres")
    ports: tuple[str, ...] = ("main",)
    stop_signal = signal.SIGTERM
    stop_within_s = 15.0

    def find(self) -> str:
        java = find_java()
        find_jars()
        return f"Debezium {version('debezium')} on Java {java.major}"

    def urls(self, ports: Mapping[str, int], password: str) -> Urls:
        return {"SHOWCASE_CONNECT_URL": f"http://{USER}:{password}@127.0.0.1:{ports['main']}"}

    def prepare(self, place: Place) -> Launch:
        own(place.data, None)
        kafka = url_of(place.urls, "SHOWCASE_KAFKA_URL")
        login = f'{PLAIN} username="{USER}" password="{place.password}";'
        security = {
            "security.protocol": "SASL_PLAINTEXT",
            "sasl.mechanism": "PLAIN",
            "sasl.jaas.config": login,
        }
        lines = [
            f"{prefix}{key}={value}\n"
            for prefix in ("", "producer.", "consumer.", "admin.")
            for key, value in security.items()
        ]
        config = secret_file(
            place.data / "connect-distributed.properties",
            (CONFIG / "connect" / "connect-distributed.properties").read_text()
            + f"bootstrap.servers={kafka.hostname}:{kafka.port}\n"
            f"listeners=http://127.0.0.1:{place.ports['main']}\n"
            f"rest.advertised.host.name=127.0.0.1\n"
            f"plugin.path={find_jars().plugins}\n" + "".join(lines),
        )
        users = secret_file(place.data / "users.properties", f"{USER}={place.password}\n")
        jaas = secret_file(
            place.data / "jaas.conf",
            "KafkaConnect { org.apache.kafka.connect.rest.basic.auth.extension.PropertyFileLoginModule "
            f'required file="{users}"; }};\n',
        )
        postgres = url_of(place.urls, "SHOWCASE_POSTGRES_URL")
        return Launch(
            argv=[
                find_java().binary,
                *options(self.name, HEAP_MB),
                f"-Djava.security.auth.login.config={jaas}",
                *("-cp", find_jars().classpath, "org.apache.kafka.connect.cli.ConnectDistributed"),
                config,
            ],
            env=environment(
                POSTGRES_HOST=postgres.hostname or "",
                POSTGRES_PORT=str(postgres.port),
                POSTGRES_USER=USER,
                POSTGRES_PASSWORD=place.password,
            ),
            cwd=place.data,
        )

    def set_up(self, place: Place) -> None:
        self.probe(place.urls, 3.0)

    def probe(self, urls: Urls, timeout_s: float) -> str:
        try:
            with client(urls, timeout_s) as session:
                session.get("/connectors").raise_for_status()  # answers only when the worker has joined its group
                return str(session.get("/").raise_for_status().json()["version"])
        except httpx.HTTPError as error:
            raise NotReady(str(error) or type(error).__name__) from error


def client(urls: Urls, timeout_s: float) -> httpx.Client:
    """An HTTP client for Connect's REST API. Raises StackError when its URL is missing."""
    url = url_of(urls, "SHOWCASE_CONNECT_URL")
    return httpx.Client(
        base_url=f"{url.scheme}://{url.hostname}:{url.port or 8083}", auth=credentials(url), timeout=timeout_s
    )
