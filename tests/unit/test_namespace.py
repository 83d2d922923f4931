"""What a namespace is called in each system, and whose something in a server is: no servers needed."""

import pytest

from workshop.stack import StackError
from workshop.stack.namespace import Namespace, leftovers, names_left
from workshop.stack.namespace.connect import is_running, is_stopped, source
from workshop.stack.namespace.mail import recipients
from workshop.stack.namespace.part import check_name, found, new_name, owner

URLS = {
    "SHOWCASE_POSTGRES_URL": "postgresql://us%40er:pass@db.test:5432/postgres?sslmode=prefer",
    "SHOWCASE_MONGO_URL": "mongodb://user:pass@mongo.test:27017/?replicaSet=rs0&authSource=admin",
    "SHOWCASE_RABBITMQ_URL": "amqp://user:pass@rabbit.test:5672/%2F",
    "SHOWCASE_REDIS_STATE_URL": "redis://user:pass@redis.test:6379/0",
}


def test_each_system_calls_it_by_the_same_name() -> None:
    names = Namespace(URLS, "demo1")
    assert names.postgres_url == "postgresql://us%40er:pass@db.test:5432/ns_demo1?sslmode=prefer"
    assert names.mongo_url == "mongodb://user:pass@mongo.test:27017/ns_demo1?replicaSet=rs0&authSource=admin"
    assert names.mongo_database == "ns_demo1"
    assert names.rabbitmq_url == "amqp://user:pass@rabbit.test:5672/ns_demo1"
    assert names.redis_prefix == "ns_demo1:"
    assert names.topic_prefix == "ns_demo1."
    assert names.connector == "ns_demo1"
    assert names.mail_domain == "demo1.example"


def test_a_process_is_told_the_urls_of_the_namespace_instead_of_the_shared_ones() -> None:
    names = Namespace(URLS, "demo1")
    assert names.env == {
        "SHOWCASE_POSTGRES_URL": names.postgres_url,
        "SHOWCASE_PAYMENT_POSTGRES_URL": "postgresql://showcase_payment:pass@db.test:5432/ns_demo1?sslmode=prefer",
        "SHOWCASE_STOCK_POSTGRES_URL": "postgresql://showcase_stock:pass@db.test:5432/ns_demo1?sslmode=prefer",
        "SHOWCASE_NOTICE_POSTGRES_URL": "postgresql://showcase_notice:pass@db.test:5432/ns_demo1?sslmode=prefer",
        "SHOWCASE_ANCHOR_POSTGRES_URL": "postgresql://showcase_anchor:pass@db.test:5432/ns_demo1?sslmode=prefer",
        "SHOWCASE_MONGO_URL": names.mongo_url,
        "SHOWCASE_AUDIT_MONGO_URL": (
            "mongodb://audit_writer:pass@mongo.test:27017/ns_demo1?replicaSet=rs0&authSource=ns_demo1"
        ),
        "SHOWCASE_RABBITMQ_URL": names.rabbitmq_url,
        "SHOWCASE_REDIS_STATE_URL": URLS["SHOWCASE_REDIS_STATE_URL"],
        "SHOWCASE_REDIS_PREFIX": "ns_demo1:",
        "SHOWCASE_TOPIC_PREFIX": "ns_demo1.",
        "SHOWCASE_MAIL_DOMAIN": "demo1.example",
    }


@pytest.mark.parametrize(
    ("url", "service"),
    [
        ("postgresql://me:p%40s%2Fs@db.test/x", "postgresql://showcase_payment:p%40s%2Fs@db.test/ns_demo1"),
        ("postgresql://me:pass@[::1]:5433/x", "postgresql://showcase_payment:pass@[::1]:5433/ns_demo1"),
        ("postgresql://me@db.test/x", "postgresql://showcase_payment@db.test/ns_demo1"),
    ],
)
def test_a_service_logs_in_where_the_stack_does_with_the_same_password(url: str, service: str) -> None:
    names = Namespace({"SHOWCASE_POSTGRES_URL": url}, "demo1")
    assert names.env["SHOWCASE_PAYMENT_POSTGRES_URL"] == service


def test_a_server_that_is_not_mentioned_is_left_out() -> None:
    assert names_left({}) == []
    assert leftovers({}, "demo1") == []
    with Namespace.create({}) as names:
        assert "SHOWCASE_POSTGRES_URL" not in names.env
        with pytest.raises(StackError, match="SHOWCASE_POSTGRES_URL is not set"):
            _ = names.postgres_url
        with pytest.raises(StackError, match="no Kafka Connect"):
            names.capture()


def test_new_names_are_allowed_and_differ() -> None:
    names = {new_name() for _ in range(100)}
    assert len(names) == 100
    assert {check_name(name) for name in names} == names


@pytest.mark.parametrize(
    ("identifier", "name"),
    [
        ("ns_a", "a"),
        ("ns_a:key", "a"),
        ("ns_a.public.orders", "a"),
        ("ns_a1.ns_b.x", "a1"),
        ("ns_", None),
        ("ns_A", None),
        ("ns_a_b", None),
        ("ns_a-b", None),
        ("xns_a", None),
        ("nsa", None),
        (f"ns_{'a' * 21}", "a" * 21),
        (f"ns_{'a' * 22}", None),
    ],
)
def test_whose_something_is_follows_from_its_name(identifier: str, name: str | None) -> None:
    assert owner(identifier) == name


def test_one_namespace_is_never_taken_for_another_whose_name_begins_so() -> None:
    topics = ["ns_a.t", "ns_ab.t", "beat.ns_a", "beat.ns_ab", "other"]
    assert [trace.identifier for trace in found("topic", topics, "a", skip="beat.")] == ["ns_a.t", "beat.ns_a"]
    assert {trace.name for trace in found("topic", topics, None, skip="beat.")} == {"a", "ab"}


def test_mail_belongs_to_the_namespaces_of_its_recipients() -> None:
    def to(*addresses: str) -> list[dict[str, str]]:
        return [{"Name": "", "Address": address} for address in addresses]

    message = {"To": to("a@One.example", "b@shop.invalid"), "Cc": to("c@two.example"), "Bcc": None}
    assert recipients(message) == {"one", "two"}
    assert recipients({"To": to("a@not.a.name.example", "one.example@x.test")}) == set()


def test_the_connector_names_where_its_password_is_and_not_the_password() -> None:
    config = source("demo1", ["shop.orders"]).config()
    assert config["database.password"] == "${env:POSTGRES_PASSWORD}"
    assert {key: value for key, value in config.items() if "demo1" in value} == dict.fromkeys(
        ("database.dbname", "slot.name", "publication.name", "topic.prefix"), "ns_demo1"
    )
    assert config["table.include.list"] == r"public\.heartbeat,shop\.orders"


def test_a_connector_runs_only_with_its_task() -> None:
    running, stopped = {"state": "RUNNING"}, {"state": "STOPPED"}
    assert is_running({"name": "c", "connector": running, "tasks": [running]})
    assert not is_running({"name": "c", "connector": running, "tasks": []})
    assert not is_running({"name": "c", "connector": running, "tasks": [{"state": "UNASSIGNED"}]})
    assert not is_running(None)
    assert is_stopped({"name": "c", "connector": stopped, "tasks": []})
    assert not is_stopped({"name": "c", "connector": stopped, "tasks": [running]})
    assert not is_stopped(None)


def test_a_failed_task_tells_the_first_line_of_its_trace() -> None:
    failed = {"state": "FAILED", "trace": "ConnectException: no slot left\n\tat io.debezium"}
    with pytest.raises(StackError) as failure:
        is_running({"name": "ns_x", "connector": {"state": "RUNNING"}, "tasks": [failed]})
    assert failure.value.what == "connect: ns_x failed: ConnectException: no slot left"
    assert failure.value.remedy
