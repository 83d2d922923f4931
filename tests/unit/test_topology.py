"""The topology's description: what is declared, which way a message goes, and the file that compose loads."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from showcase import composition
from showcase.messaging.domain import (
    DEAD,
    DEFAULT_EXCHANGE,
    DELIVERY_LIMIT,
    EVENTS,
    PARKING,
    Queue,
    Route,
    Topology,
    straight_to,
    takes,
)
from showcase.messaging.infrastructure.definitions import definitions
from tests.fakes import settings_of
from workshop.stack.local.server import CONFIG

SECOND = timedelta(seconds=1)
TOPOLOGY = Topology(
    queues=[Queue(name="payment", types=("a.v1", "b.#"))], retries=[SECOND / 2, 5 * SECOND], delays=[600 * SECOND]
)


def test_every_queue_is_replicated_bounded_and_refuses_rather_than_drops() -> None:
    for queue in TOPOLOGY.declared():
        assert queue.arguments["x-queue-type"] == "quorum"
        assert queue.arguments["x-overflow"] == "reject-publish"
        assert int(queue.arguments["x-max-length"]) > 0
        # Dead-lettering at least once works with `reject-publish` only, and loses nothing when the other queue is full.
        if "x-dead-letter-exchange" in queue.arguments:
            assert queue.arguments["x-dead-letter-strategy"] == "at-least-once"


def test_what_kills_every_consumer_ends_in_the_parking_lot() -> None:
    declared = {queue.name: queue.arguments for queue in TOPOLOGY.declared()}
    assert declared["payment"]["x-delivery-limit"] == DELIVERY_LIMIT
    assert declared["payment"]["x-dead-letter-exchange"] == DEAD
    assert [one.queue for one in TOPOLOGY.bindings() if one.exchange == DEAD] == [PARKING]
    assert "x-dead-letter-exchange" not in declared[PARKING]


def test_the_retry_ladder_has_an_end_and_leads_straight_back() -> None:
    assert TOPOLOGY.retry("payment", 1) == Route("retry.0.5s", "payment")
    assert TOPOLOGY.retry("payment", 2) == Route("retry.5s", "payment")
    assert TOPOLOGY.retry("payment", 3) is None
    rung = {queue.name: queue.arguments for queue in TOPOLOGY.declared()}["retry.0.5s"]
    assert rung["x-message-ttl"] == 500
    assert rung["x-dead-letter-exchange"] == DEFAULT_EXCHANGE


def test_an_event_is_told_later_by_delays_that_there_are() -> None:
    assert TOPOLOGY.later("a.v1", 600 * SECOND) == Route("delay.600s", "a.v1")
    waiting = {queue.name: queue.arguments for queue in TOPOLOGY.declared()}["delay.600s"]
    assert waiting["x-dead-letter-exchange"] == EVENTS
    with pytest.raises(LookupError, match=r"by 600s, not by 1s"):
        TOPOLOGY.later("a.v1", SECOND)


def test_every_exchange_and_queue_of_a_binding_is_declared_and_no_name_is_taken_twice() -> None:
    exchanges = [one.name for one in TOPOLOGY.exchanges()]
    queues = [one.name for one in TOPOLOGY.declared()]
    assert len(set(exchanges)) == len(exchanges)
    assert len(set(queues)) == len(queues)
    assert {(one.exchange in exchanges, one.queue in queues) for one in TOPOLOGY.bindings()} == {(True, True)}
    assert {one.queue for one in TOPOLOGY.bindings()} == set(queues)


def test_a_queue_is_found_by_its_name() -> None:
    assert TOPOLOGY.queue("payment").types == ("a.v1", "b.#")
    assert straight_to("payment") == Route(DEFAULT_EXCHANGE, "payment")
    with pytest.raises(LookupError, match="payment"):
        TOPOLOGY.queue("stock")


# -- patterns


@pytest.mark.parametrize(
    ("pattern", "taken", "not_taken"),
    [
        ("a.b", ["a.b"], ["a", "a.b.c", "a.c", "aab", ""]),
        ("a.*", ["a.b", "a."], ["a", "a.b.c", "b.a"]),
        ("a.#", ["a", "a.b", "a.b.c"], ["b", "ab"]),
        ("#.v1", ["v1", "a.v1", "a.b.v1"], ["v1.a", "a.v11"]),
        ("*.#.c", ["a.c", "a.b.c", "a.b.b.c"], ["c", "a.b"]),
        ("#", ["", "a", "a.b"], []),
    ],
)
def test_a_pattern_takes_what_a_topic_exchange_takes(pattern: str, taken: list[str], not_taken: list[str]) -> None:
    assert [type_ for type_ in taken if not takes(pattern, type_)] == []
    assert [type_ for type_ in not_taken if takes(pattern, type_)] == []


WORDS = st.lists(st.sampled_from("ab"), min_size=1, max_size=5)


def ways(words: list[str]) -> Iterator[str]:
    """Patterns that take these words, made from them."""
    yield ".".join(words)
    yield ".".join(["#", *words])
    yield ".".join("*" * len(words))
    for cut in range(len(words)):
        yield ".".join([*words[:cut], "#"])
        yield ".".join([*words[:cut], "*", *words[cut + 1 :]])


@given(WORDS)
def test_a_wild_card_takes_whatever_it_replaces(words: list[str]) -> None:
    assert [pattern for pattern in ways(words) if not takes(pattern, ".".join(words))] == []


# -- definitions


def test_the_definitions_are_the_description_and_have_no_secrets() -> None:
    made = definitions(TOPOLOGY, "somewhere")
    assert made.keys() == {"exchanges", "queues", "bindings"}
    assert {one["name"]: one["arguments"] for one in made["queues"]} == {
        one.name: one.arguments for one in TOPOLOGY.declared()
    }
    assert [(one["name"], one["type"]) for one in made["exchanges"]] == [
        (one.name, one.type) for one in TOPOLOGY.exchanges()
    ]
    assert {one["vhost"] for kind in made.values() for one in kind} == {"somewhere"}


def test_what_compose_loads_is_what_the_description_gives() -> None:
    path = CONFIG / "rabbitmq" / "definitions.json"
    wanted = json.dumps(composition.definitions(settings_of({})), indent=2) + "\n"
    assert path.read_text() == wanted, "make it anew: SHOWCASE_ENVIRONMENT=workshop showcase topology definitions"
