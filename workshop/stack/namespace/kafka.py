"""Kafka: a prefix of topics and consumer groups."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Future

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from showcase.audit.infrastructure.connectors import HEARTBEAT_TOPIC
from workshop.stack.local.kafka import client_config
from workshop.stack.model import Urls
from workshop.stack.namespace.part import Trace, found, speaking_to, wait_until

RETENTION = {"retention.ms": str(24 * 60 * 60 * 1000), "retention.bytes": str(256 * 1024 * 1024)}


class KafkaPart:
    """A namespace's topics and consumer groups.

    A group can be deleted only when it has no members, and those of a killed process count as members
    until their session times out: `drop` waits for them, and names the groups when that takes too long.
    """

    server = "kafka"

    def __init__(self, urls: Urls, within_s: float) -> None:
        self.urls = urls
        self.within_s = within_s

    def create(self, name: str) -> None:
        """Nothing to make."""

    def make_topics(self, topics: Sequence[str]) -> None:
        """Make topics that keep a day, or 256 MiB, of what is written; harmless for those that exist."""
        with speaking_to(self.server, KafkaException):
            admin = self.admin()
            new = [NewTopic(topic, num_partitions=1, config=RETENTION) for topic in topics]
            made = admin.create_topics(new, operation_timeout=self.within_s, request_timeout=self.within_s)
            settle(made.values(), but=(KafkaError.TOPIC_ALREADY_EXISTS,))

    def traces(self, name: str | None = None) -> list[Trace]:
        with speaking_to(self.server, KafkaException):
            return self.look(self.admin(), name)

    def drop(self, name: str) -> None:
        with speaking_to(self.server, KafkaException):
            admin = self.admin()
            wait_until(
                lambda: self.dropped(admin, name),
                self.within_s,
                lambda: f"kafka: not gone: {', '.join(map(str, self.look(admin, name)))}",
            )

    def admin(self) -> AdminClient:
        """A client that gives up at its deadline."""
        return AdminClient(client_config(self.urls))

    def look(self, admin: AdminClient, name: str | None) -> list[Trace]:
        """The topics and groups of one namespace, or of all."""
        topics = admin.list_topics(timeout=self.within_s).topics
        groups = admin.list_consumer_groups(request_timeout=self.within_s).result().valid
        return [
            *found("kafka topic", topics, name, skip=HEARTBEAT_TOPIC),
            *found("kafka consumer group", (group.group_id for group in groups), name),
        ]

    def dropped(self, admin: AdminClient, name: str) -> bool:
        """Delete what there is of a namespace; whether there was nothing."""
        traces = self.look(admin, name)
        topics = [trace.identifier for trace in traces if trace.kind == "kafka topic"]
        groups = [trace.identifier for trace in traces if trace.kind == "kafka consumer group"]
        if topics:
            deleted = admin.delete_topics(topics, operation_timeout=self.within_s, request_timeout=self.within_s)
            settle(deleted.values(), but=(KafkaError.UNKNOWN_TOPIC_OR_PART,))
        if groups:
            ended = admin.delete_consumer_groups(groups, request_timeout=self.within_s)
            settle(ended.values(), but=(KafkaError.GROUP_ID_NOT_FOUND, KafkaError.NON_EMPTY_GROUP))
        return not traces


def settle(futures: Iterable["Future[None]"], *, but: Sequence[int]) -> None:
    """Wait for what an admin call promised. Raises KafkaException for an error that is not among `but`."""
    for future in futures:
        try:
            future.result()  # bounded: the call itself has a deadline
        except KafkaException as error:
            if error.args[0].code() not in but:
                raise
