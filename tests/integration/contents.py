"""One value in each server that keeps something: put there, and looked for, as a client would."""

import smtplib
from collections.abc import Callable, Mapping
from email.message import EmailMessage

import pika
import psycopg
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # its stub names no exports
from pymongo import MongoClient

from workshop.stack.local import mail
from workshop.stack.local.kafka import client_config
from workshop.stack.local.rabbitmq import connect
from workshop.stack.model import Urls, credentials, url_of

TIMEOUT_S = 20.0
KEPT = "kept"


def put_row(urls: Urls, value: str) -> None:
    with psycopg.connect(urls["SHOWCASE_POSTGRES_URL"]) as session:
        session.execute("CREATE TABLE IF NOT EXISTS kept (value text)")
        session.execute("INSERT INTO kept VALUES (%s)", [value])


def rows(urls: Urls) -> list[str]:
    with psycopg.connect(urls["SHOWCASE_POSTGRES_URL"]) as session:
        return [str(row[0]) for row in session.execute("SELECT value FROM kept")]


def put_document(urls: Urls, value: str) -> None:
    with MongoClient[dict[str, str]](urls["SHOWCASE_MONGO_URL"], timeoutMS=TIMEOUT_S * 1000) as session:
        session[KEPT][KEPT].insert_one({"value": value})


def documents(urls: Urls) -> list[str]:
    with MongoClient[dict[str, str]](urls["SHOWCASE_MONGO_URL"], timeoutMS=TIMEOUT_S * 1000) as session:
        return [document["value"] for document in session[KEPT][KEPT].find()]


def put_key(variable: str) -> Callable[[Urls, str], None]:
    def put(urls: Urls, value: str) -> None:
        with redis.Redis.from_url(urls[variable], socket_timeout=TIMEOUT_S) as session:
            pipeline = session.pipeline(transaction=True)  # a server that forgets transactions keeps single commands
            pipeline.incr(f"{KEPT}:count")
            pipeline.rpush(KEPT, value)
            pipeline.execute()

    return put


def keys(variable: str) -> Callable[[Urls], list[str]]:
    def get(urls: Urls) -> list[str]:
        with redis.Redis.from_url(urls[variable], socket_timeout=TIMEOUT_S, decode_responses=True) as session:
            return [str(value) for value in session.lrange(KEPT, 0, -1)]

    return get


def put_in_queue(urls: Urls, value: str) -> None:
    with connect(urls["SHOWCASE_RABBITMQ_URL"], TIMEOUT_S) as session:
        channel = session.channel()
        channel.confirm_delivery()
        channel.queue_declare(KEPT, durable=True, arguments={"x-queue-type": "quorum"})
        channel.basic_publish("", KEPT, value.encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)


def queued(urls: Urls) -> list[str]:
    """What is in the queue; it stays there, as closing the connection gives it back."""
    with connect(urls["SHOWCASE_RABBITMQ_URL"], TIMEOUT_S) as session:
        channel, found = session.channel(), []
        while (delivered := channel.basic_get(KEPT))[0] is not None:
            found.append(delivered[2].decode())
        return found


def put_in_topic(urls: Urls, value: str) -> None:
    admin = AdminClient(client_config(urls))
    if KEPT not in admin.list_topics(timeout=TIMEOUT_S).topics:
        admin.create_topics([NewTopic(KEPT, 1, 1)])[KEPT].result(TIMEOUT_S)
    producer = Producer({**client_config(urls), "acks": "all"})
    producer.produce(KEPT, value.encode())
    assert producer.flush(TIMEOUT_S) == 0


def in_topic(urls: Urls) -> list[str]:
    consumer = Consumer({**client_config(urls), "group.id": KEPT, "enable.auto.commit": False})
    try:
        _, end = consumer.get_watermark_offsets(TopicPartition(KEPT, 0), timeout=TIMEOUT_S)
        consumer.assign([TopicPartition(KEPT, 0, 0)])
        messages = consumer.consume(end, timeout=TIMEOUT_S) if end else []
        return [(message.value() or b"").decode() for message in messages]
    finally:
        consumer.close()


def put_mail(urls: Urls, value: str) -> None:
    url = url_of(urls, "SHOWCASE_MAIL_URL")
    message = EmailMessage()
    message["From"] = message["To"] = "somebody@example.org"
    message["Subject"] = value
    with smtplib.SMTP(url.hostname or "", url.port or 0, timeout=TIMEOUT_S) as session:
        session.login(*credentials(url))
        session.send_message(message)


def mails(urls: Urls) -> list[str]:
    with mail.client(urls, TIMEOUT_S) as session:
        messages = session.get("/api/v1/messages").raise_for_status().json()["messages"]
    return [message["Subject"] for message in reversed(messages)]


PUT: Mapping[str, Callable[[Urls, str], None]] = {
    "postgres": put_row,
    "mongo": put_document,
    "redis-cache": put_key("SHOWCASE_REDIS_CACHE_URL"),
    "redis-state": put_key("SHOWCASE_REDIS_STATE_URL"),
    "rabbitmq": put_in_queue,
    "kafka": put_in_topic,
    "mail": put_mail,
}
GET: Mapping[str, Callable[[Urls], list[str]]] = {
    "postgres": rows,
    "mongo": documents,
    "redis-cache": keys("SHOWCASE_REDIS_CACHE_URL"),
    "redis-state": keys("SHOWCASE_REDIS_STATE_URL"),
    "rabbitmq": queued,
    "kafka": in_topic,
    "mail": mails,
}
KEEPERS = tuple(name for name in PUT if name != "redis-cache")
