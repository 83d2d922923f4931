"""Kafka's topics (`application.capture.Topics`)."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it has them, and does not say so
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)
from confluent_kafka.cimpl import NewPartitions, NewTopic

from showcase.audit.application.capture import Topic
from showcase.kernel.errors import Unavailable
from showcase.platform.kafka import client_config

T = TypeVar("T")

KEPT, BYTES = "retention.ms", "retention.bytes"


class KafkaTopics:
    """The topics of one broker.

    Args:
        url: `kafka://user:password@host:9092`.
        timeout_s: the longest that a call may take.
    """

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._url = url
        self._timeout_s = timeout_s

    async def find(self, names: Sequence[str]) -> Mapping[str, Topic]:
        return await self._done(lambda admin: self._find(admin, names))

    async def make(self, topics: Sequence[Topic]) -> None:
        if not topics:
            return
        new = [NewTopic(one.name, num_partitions=one.partitions, config=_config(one)) for one in topics]

        def make(admin: AdminClient) -> None:
            made = admin.create_topics(new, **self._deadlines())
            self._settled(made, but=KafkaError.TOPIC_ALREADY_EXISTS)

        await self._done(make)

    async def change(self, now: Topic, then: Topic) -> None:
        def change(admin: AdminClient) -> None:
            if then.partitions > now.partitions:
                grown = admin.create_partitions([NewPartitions(then.name, then.partitions)], **self._deadlines())
                self._settled(grown)
            entries = [
                ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
                for key, value in _config(then).items()
            ]
            topic = ConfigResource(ResourceType.TOPIC, then.name, incremental_configs=entries)
            self._settled(admin.incremental_alter_configs([topic], request_timeout=self._timeout_s))

        await self._done(change)

    def _find(self, admin: AdminClient, names: Sequence[str]) -> Mapping[str, Topic]:
        there = admin.list_topics(timeout=self._timeout_s).topics
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in names if name in there]
        if not resources:
            return {}
        described = admin.describe_configs(resources, request_timeout=self._timeout_s)
        configs = {one.name: future.result(self._timeout_s) for one, future in described.items()}
        return {
            name: Topic(
                name=name,
                partitions=len(there[name].partitions),
                kept=None if (kept_ms := int(config[KEPT].value)) < 0 else timedelta(milliseconds=kept_ms),
                max_bytes=None if (limit := int(config[BYTES].value)) < 0 else limit,
            )
            for name, config in configs.items()
        }

    def _deadlines(self) -> dict[str, float]:
        return {"operation_timeout": self._timeout_s, "request_timeout": self._timeout_s}

    def _settled(self, futures: Mapping[Any, "Future[Any]"], *, but: int | None = None) -> None:
        """Raises KafkaException for the first that failed in another way."""
        for future in futures.values():
            error = future.exception(self._timeout_s + 1)
            if error is not None and not (isinstance(error, KafkaException) and error.args[0].code() == but):
                raise error

    async def _done(self, call: Callable[[AdminClient], T]) -> T:
        """What a call of the client comes to, in a thread: it blocks. Raises Unavailable."""
        try:
            return await asyncio.to_thread(lambda: call(AdminClient(client_config(self._url))))
        except KafkaException as error:
            raise Unavailable(f"kafka does not answer: {error.args[0].str()}") from error


def _config(topic: Topic) -> dict[str, str]:
    """The broker's own limit of bytes would remove records that are younger than they are to become."""
    kept_ms = -1 if topic.kept is None else round(topic.kept.total_seconds() * 1000)
    return {KEPT: str(kept_ms), BYTES: str(-1 if topic.max_bytes is None else topic.max_bytes)}
