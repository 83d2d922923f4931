"""Topics that are there before a table is captured, with more partitions than a lesson's usually have."""

from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from showcase.platform.kafka import client_config
from workshop.lab.lab import Lab

WITHIN_S = 15.0


def spread(lab: Lab, table: str, partitions: int) -> None:
    """Make the topic of a table, with so many partitions, so that consumers can share it.

    Raises confluent_kafka.KafkaException, also when it is there.
    """
    topic = f"{lab.namespace.topic_prefix}public.{table}"
    admin = AdminClient(client_config(lab.namespace.urls["SHOWCASE_KAFKA_URL"]))
    new = NewTopic(topic, num_partitions=partitions, replication_factor=1)
    made = admin.create_topics([new], operation_timeout=WITHIN_S, request_timeout=WITHIN_S)
    made[topic].result(WITHIN_S + 1)
