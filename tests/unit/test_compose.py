"""compose.yaml is valid, safe, and the same system as the local stack."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from showcase.audit.infrastructure.connectors import PostgresSource, SqlServerSource
from workshop.stack.compose import port_variable
from workshop.stack.local.catalogue import SERVERS_BY_NAME
from workshop.stack.local.folder import CHECKOUT
from workshop.stack.local.jars import version
from workshop.stack.local.mongo import REPLICA_SET
from workshop.stack.local.server import CONFIG, USER
from workshop.stack.model import SERVERS

TEXT = (CHECKOUT / "compose.yaml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(TEXT)["services"]
SETTINGS = dict(
    line.split("=", 1)
    for line in (CHECKOUT / ".env.example").read_text().splitlines()
    if "=" in line and not line.startswith("#")
)
VARIABLE = re.compile(r"(?<!\$)\$\{(\w+)([^}]*)\}")
SQLSERVER = ("sqlserver", "sqlserver-init")
ONE_SHOT = "sqlserver-init"
CONNECTORS: dict[str, PostgresSource | SqlServerSource] = {
    "postgres": PostgresSource(name="shop", database="shop", tables=["public.orders"]),
    "sqlserver": SqlServerSource(name="shop"),
}


def environment(service: str) -> dict[str, str]:
    return {name: str(value) for name, value in SERVICES[service].get("environment", {}).items()}


def script(service: str) -> str:
    """What a container runs, as one text."""
    return "\n".join(SERVICES[service].get("command", []))


def mounts(service: str) -> list[list[str]]:
    """Source, target and mode of whatever is mounted from the checkout."""
    volumes: list[str] = SERVICES[service].get("volumes", [])
    return [volume.split(":") for volume in volumes if volume.startswith("./")]


def keys(path: Path, separator: str) -> set[str]:
    """The settings that a config file makes."""
    lines = [line.strip() for line in path.read_text().splitlines()]
    return {re.split(separator, line)[0] for line in lines if line and not line.startswith("#")}


# -- the file itself


def test_valid_by_the_compose_specification() -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", "compose.yaml"]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stdout


def test_servers_are_those_of_the_local_stack() -> None:
    profiles = {name: service["profiles"] for name, service in SERVICES.items()}
    assert profiles == {name: ["core"] for name in SERVERS} | {name: ["sqlserver"] for name in SQLSERVER}


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_waits_for_those_that_it_waits_for_locally(name: str) -> None:
    awaited = SERVICES[name].get("depends_on", {})
    core = {needed: how for needed, how in awaited.items() if needed in SERVERS}
    assert core == {needed: {"condition": "service_healthy"} for needed in SERVERS_BY_NAME[name].after}


def test_versions_are_those_of_the_pom() -> None:
    assert SERVICES["kafka"]["image"] == f"apache/kafka:{version('kafka')}"
    minor = ".".join(version("debezium").split(".")[:2])
    assert SERVICES["connect"]["image"] == f"quay.io/debezium/connect:{minor}"


# -- the same config files, and nothing that contradicts them


def test_every_config_file_of_a_local_server_is_mounted() -> None:
    files = {path for path in CONFIG.rglob("*") if path.suffix in (".conf", ".properties") or path.suffix == ""}
    wanted = {path for path in files if path.is_file()}
    mounted = [CHECKOUT / source for name in SERVERS for source, _, _ in mounts(name)]
    found = {file for path in mounted for file in ([path] if path.is_file() else wanted & set(path.iterdir()))}
    assert len(wanted) >= 8
    assert found == wanted


def test_whatever_is_mounted_exists_and_is_read_only() -> None:
    found = [mount for name in SERVICES for mount in mounts(name)]
    assert all((CHECKOUT / source).exists() and mode == "ro" for source, _, mode in found), found


def test_postgres_reads_the_shared_file() -> None:
    [[_, target, _]] = mounts("postgres")
    options = [one for one in SERVICES["postgres"]["command"] if "=" in one]
    assert f"config_file={target}" in options
    added = {option.split("=")[0] for option in options}
    assert not added & keys(CONFIG / "postgres" / "postgresql.conf", r"\s*=")


def test_mongo_reads_the_shared_file_and_is_the_same_replica_set() -> None:
    [[_, target, _]] = mounts("mongo")
    assert f"--config {target}" in script("mongo")
    assert set(re.findall(r"--(\w+)", script("mongo"))) == {
        "config",
        "dbpath",
        "bind_ip_all",
        "port",
        "keyFile",
        "setParameter",
    }
    check = SERVICES["mongo"]["healthcheck"]["test"][-1]
    assert f'_id: "{REPLICA_SET}"' in check
    assert f"replSetName: {REPLICA_SET}" in (CONFIG / "mongo" / "mongod.conf").read_text()
    assert '"127.0.0.1:" + process.env.MONGO_PORT' in check


@pytest.mark.parametrize("name", ["redis-cache", "redis-state"])
def test_redis_includes_the_shared_file(name: str) -> None:
    [[_, target, _]] = mounts(name)
    lines = script(name).splitlines()
    assert f"include {target}" in [line.replace("$$NAME", environment(name)["NAME"]) for line in lines]
    added = {line.split()[0] for line in lines if line} - {"include", "exec", "sh", "-c", "END"}
    assert added == {"port", "dir", "protected-mode", "user"}
    assert not added & keys(CONFIG / "redis" / f"{name}.conf", r"\s")
    assert [line for line in lines if line.startswith("user")] == [
        "user default off ~* &* +@all",
        f"user {USER} on >$$REDISCLI_AUTH ~* &* +@all",
    ]


def test_rabbitmq_is_told_nothing_but_its_user() -> None:
    assert environment("rabbitmq").keys() == {"RABBITMQ_DEFAULT_USER", "RABBITMQ_DEFAULT_PASS"}
    targets = {Path(source).name: target for source, target, _ in mounts("rabbitmq")}
    assert targets["rabbitmq.conf"] > "/etc/rabbitmq/conf.d/10-defaults.conf"  # the later file counts
    assert targets["enabled_plugins"] == "/etc/rabbitmq/enabled_plugins"


def test_kafka_variables_do_not_override_the_shared_file() -> None:
    shared = CONFIG / "kafka" / "server.properties"
    not_settings = {"KAFKA_HEAP_OPTS", "KAFKA_LOG4J_ROOT_LOGLEVEL"}
    added = {
        name.removeprefix("KAFKA_").lower().replace("_", ".") for name in environment("kafka").keys() - not_settings
    }
    assert added >= {"listeners", "advertised.listeners", "controller.quorum.voters", "log.dirs"}
    assert not added & keys(shared, "=")


def test_kafka_listeners_all_have_a_protocol_and_a_login() -> None:
    shared = (CONFIG / "kafka" / "server.properties").read_text()
    match = re.search(r"^listener\.security\.protocol\.map=(.+)$", shared, re.MULTILINE)
    assert match
    protocols = dict(pair.split(":") for pair in match[1].split(","))
    listeners = re.findall(r"(\w+)://", environment("kafka")["KAFKA_LISTENERS"])
    assert protocols == dict.fromkeys(listeners, "SASL_PLAINTEXT")
    for listener in listeners:
        login = environment("kafka")[f"KAFKA_LISTENER_NAME_{listener}_PLAIN_SASL_JAAS_CONFIG"]
        assert f'username="{USER}"' in login
        assert f"user_{USER}=" in login


def test_connect_reads_the_shared_file_and_only_adds_to_it() -> None:
    [[source, target, _]] = mounts("connect")
    assert f"cat {target}" in script("connect")
    added = set(re.findall(r'echo "?(?:\$\$\{client\})?([a-z.]+)=', script("connect")))
    assert added >= {"bootstrap.servers", "listeners", "plugin.path", "sasl.jaas.config"}
    assert not added & keys(CHECKOUT / source, "=")
    assert SERVICES["connect"]["entrypoint"] == ["/bin/bash", "-c"]  # the image's own would rewrite the settings


@pytest.mark.parametrize("name", CONNECTORS)
def test_what_connector_configs_name_is_there_and_allowed(name: str) -> None:
    worker = (CONFIG / "connect" / "connect-distributed.properties").read_text()
    allowed = re.search(r"allowlist\.pattern=(.+)", worker)
    assert allowed
    named = re.findall(r"\$\{env:(\w+)\}", " ".join(CONNECTORS[name].config().values()))
    assert len(named) >= 4
    for variable in named:
        assert variable in environment("connect")
        assert re.search(allowed[1], variable)


def test_sql_server_captures_the_tables_that_its_connector_reads() -> None:
    scripts = "\n".join(path.read_text() for path in sorted((CONFIG / "sqlserver").glob("*.sql")))
    connector = SqlServerSource(name="shop")
    captured = re.findall(r"@source_schema = N'(\w+)', @source_name = N'(\w+)'", scripts)
    assert sorted(".".join(table) for table in captured) == sorted(connector.tables)
    assert f"CREATE DATABASE {connector.database};" in scripts
    assert f"CREATE LOGIN {environment('connect')['SQLSERVER_USER']} " in scripts
    assert set(re.findall(r"\$\((\w+)\)", scripts)) <= environment(ONE_SHOT).keys()


# -- safety


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_only_and_chosen_in_the_settings(name: str) -> None:
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:\$\{SHOWCASE_\w+_PORT:\?\}:(\d+|\$\{SHOWCASE_\w+_PORT:\?\})", port)


@pytest.mark.parametrize("name", SERVERS)
def test_ports_with_a_url_are_published(name: str) -> None:
    server = SERVERS_BY_NAME[name]
    numbers = dict(zip(server.ports, range(1000, 2000), strict=False))
    urls = " ".join(server.urls(numbers, "x").values())
    wanted = {port_variable(name, port) for port, number in numbers.items() if str(number) in urls}
    published = {found[0] for port in SERVICES[name]["ports"] for found in VARIABLE.findall(port)}
    assert published == wanted
    assert wanted <= SETTINGS.keys()


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_has_a_health_check_a_memory_limit_and_a_bounded_log(name: str) -> None:
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["logging"]["options"].keys() == {"max-size", "max-file"}
    assert service["restart"] == "no"
    if name == ONE_SHOT:
        awaited = SERVICES["connect"]["depends_on"][name]
        assert awaited == {"condition": "service_completed_successfully", "required": False}
    else:
        assert {"test", "interval", "timeout", "retries", "start_period"} <= service["healthcheck"].keys()


def test_health_checks_log_in() -> None:
    from_environment = {"redis-cli --user": "REDISCLI_AUTH", "sqlcmd -C": "SQLCMDPASSWORD"}
    for name in {*SERVICES} - {ONE_SHOT}:
        check = " ".join(SERVICES[name]["healthcheck"]["test"])
        told = [secret for client, secret in from_environment.items() if client in check]
        named = re.findall(r"\w*(?:PASS|AUTH|JAAS)\w*", check)
        assert set(told + named) & environment(name).keys(), name


@pytest.mark.parametrize("name", SERVICES)
def test_secrets_come_from_the_settings(name: str) -> None:
    for variable, value in environment(name).items():
        if re.search(r"PASS|AUTH$|JAAS", variable):
            assert "${SHOWCASE_PASSWORD:?" in value, variable


def test_every_variable_is_explained_and_required() -> None:
    used = VARIABLE.findall(re.sub(r"(?m)^\s*#.*$", "", TEXT))
    assert {name for name, _ in used} == SETTINGS.keys() - {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}
    assert all(default.startswith(":?") for _, default in used)


def test_the_password_has_no_default() -> None:
    assert SETTINGS["SHOWCASE_PASSWORD"] == ""
    assert "${SHOWCASE_PASSWORD:?set it in .env" in TEXT


def test_published_ports_differ() -> None:
    ports = [value for name, value in SETTINGS.items() if name.endswith("_PORT")]
    assert len(set(ports)) == len(ports)


def test_everything_durable_has_a_volume_and_the_cache_has_none() -> None:
    durable = {name for name in SERVICES if any(not v.startswith("./") for v in SERVICES[name].get("volumes", []))}
    assert durable == {*SERVERS, "sqlserver"} - {"redis-cache", "connect"}  # Connect keeps all it knows in Kafka
