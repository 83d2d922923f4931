"""Kafka Connect: a Debezium connector, and the stored place in the log that it has read up to.

The connector's config is the one that the system itself applies (`showcase.audit`), with other names. Where the
database is and who reads it the Connect worker knows by its own environment, so that it serves every kind of stack.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import httpx

from showcase.audit.infrastructure.connectors import PostgresSource
from workshop.stack.local.connect import client
from workshop.stack.model import StackError, Urls
from workshop.stack.namespace.part import POLL_S, Trace, first_line, found, in_server, speaking_to, wait_until

Json = dict[str, Any]


class ConnectPart:
    """A namespace's connector and its offsets."""

    server = "connect"

    def __init__(self, urls: Urls, within_s: float) -> None:
        self.urls = urls
        self.within_s = within_s

    def create(self, name: str) -> None:
        """Nothing to make: a connector comes only when asked for, see `Namespace.capture`."""

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, httpx.HTTPError), client(self.urls, self.within_s) as api:
            return found("connector", self.connectors(api), name)

    def start(self, name: str, config: Mapping[str, str], is_streaming: Callable[[], bool], within_s: float) -> None:
        """Make the connector, or change it, and wait until it streams.

        Args:
            is_streaming: whether the database sees its reader.

        Raises StackError with what Connect finds wrong in the config, or with what made the task fail.
        """
        path = f"/connectors/{in_server(name)}"
        with speaking_to(self.server, httpx.HTTPError), client(self.urls, self.within_s) as api:
            self.validate(api, {**config, "name": in_server(name)})
            exists = in_server(name) in self.connectors(api)
            if exists:
                self.stop(api, in_server(name))  # or its old status would pass for that of the new config
            self.ask(api, "PUT", f"{path}/config", config)
            if exists:
                self.ask(api, "PUT", f"{path}/resume")
            wait_until(
                lambda: is_running(self.status(api, in_server(name))) and is_streaming(),
                within_s,
                lambda: f"connect: the connector {in_server(name)} does not stream",
            )

    def validate(self, api: httpx.Client, config: Mapping[str, str]) -> None:
        """Have Connect and the connector look at a config. Raises StackError with all that is wrong in it.

        Asked for on its own: when PUT finds a mistake, Connect 4.3 answers with a NullPointerException.
        """
        plugin = config["connector.class"].rpartition(".")[2]
        answer = self.ask(api, "PUT", f"/connector-plugins/{plugin}/config/validate", config).json()
        values = [setting["value"] for setting in answer["configs"] if setting["value"]]
        if wrong := [f"{value['name']}: {error}" for value in values for error in value["errors"]]:
            raise StackError(f"connect: {'; '.join(wrong)}", "see `workshop logs connect`")

    def drop(self, name: str) -> None:
        with speaking_to(self.server, httpx.HTTPError), client(self.urls, self.within_s) as api:
            for trace in found("connector", self.connectors(api), name):
                self.remove(api, trace.identifier)

    def remove(self, api: httpx.Client, connector: str) -> None:
        """Stop a connector, remove it and its offsets, and wait until it is gone."""
        path = f"/connectors/{connector}"
        try:
            self.stop(api, connector)
            self.ask(api, "DELETE", f"{path}/offsets")  # or its next namesake would start where this one stood
        finally:
            self.ask(api, "DELETE", path)
        wait_until(
            lambda: connector not in self.connectors(api) and self.status(api, connector) is None,
            self.within_s,
            lambda: f"connect: the connector {connector} is not gone",
        )

    def stop(self, api: httpx.Client, connector: str) -> None:
        """End the connector's task; it keeps its config and offsets."""
        self.ask(api, "PUT", f"/connectors/{connector}/stop")
        wait_until(
            lambda: is_stopped(self.status(api, connector)),
            self.within_s,
            lambda: f"connect: the connector {connector} does not stop",
        )

    def connectors(self, api: httpx.Client) -> list[str]:
        """The names of all connectors."""
        names: list[str] = self.ask(api, "GET", "/connectors").json()
        return names

    def status(self, api: httpx.Client, connector: str) -> Json | None:
        """What the connector and its task are doing; None when nobody has said yet, or any more."""
        answer = api.get(f"/connectors/{connector}/status")
        return None if answer.status_code == httpx.codes.NOT_FOUND else dict(answer.raise_for_status().json())

    def ask(self, api: httpx.Client, method: str, path: str, body: object = None) -> httpx.Response:
        """One request, made again while the worker is busy with another change. Raises StackError."""
        deadline = time.monotonic() + self.within_s
        while True:
            answer = api.request(method, path, json=body)
            if answer.status_code != httpx.codes.CONFLICT or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        if answer.is_error and not (method == "DELETE" and answer.status_code == httpx.codes.NOT_FOUND):
            raise StackError(f"connect: {complaint(answer)}", "see `workshop logs connect`")
        return answer


def is_running(status: Json | None) -> bool:
    """Whether a connector and its task run. Raises StackError when either has failed."""
    parts = [status["connector"], *status["tasks"]] if status else []
    for part in parts:
        if part["state"] == "FAILED":
            raise StackError(
                f"connect: {status and status['name']} failed: {first_line(part.get('trace', ''))}",
                "see `workshop logs connect`",
            )
    return len(parts) > 1 and all(part["state"] == "RUNNING" for part in parts)


def is_stopped(status: Json | None) -> bool:
    """Whether a connector is stopped and its task gone."""
    return status is not None and status["connector"]["state"] == "STOPPED" and not status["tasks"]


def complaint(answer: httpx.Response) -> str:
    """What Connect says is wrong, in one line."""
    try:
        said = str(answer.json()["message"])
    except (ValueError, KeyError):
        said = answer.text or answer.reason_phrase
    return " ".join(said.split())


def source(name: str, tables: Iterable[str]) -> PostgresSource:
    """A namespace's database as a source of changes.

    Args:
        tables: with their schema, such as `public.orders`; that of the heartbeat comes along.

    Raises Misconfigured for a name that cannot be one of a table.
    """
    identifier = in_server(name)
    return PostgresSource(name=identifier, database=identifier, tables=tuple(tables), partitions=1)
