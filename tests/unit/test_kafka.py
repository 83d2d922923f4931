"""A consumer's loop without a broker: what the client says while it is left."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from showcase.kernel.errors import Unavailable
from showcase.platform import kafka

pytestmark = pytest.mark.anyio


class Client:
    """A client of a broker that is gone when it is read, when it is left, or both."""

    def __init__(self, *gone: str) -> None:
        self._gone = gone

    def subscribe(self, topics: list[str], **callbacks: Callable[..., None]) -> None:
        """Nobody else is in the group."""

    def poll(self, timeout_s: float) -> None:
        self._answer("poll")

    def close(self) -> None:
        self._answer("close")

    def _answer(self, call: str) -> None:
        if call in self._gone:
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, call))


@pytest.mark.parametrize("gone", [("poll",), ("poll", "close")], ids=str)
async def test_broker_that_goes_away_is_unavailable_also_while_partitions_are_handed_over(
    monkeypatch: pytest.MonkeyPatch, gone: tuple[str, ...]
) -> None:
    def client(config: Any) -> Client:
        return Client(*gone)

    async def handle(messages: Any) -> None:
        raise AssertionError("there are no messages")

    monkeypatch.setattr(kafka, "Consumer", client)

    with pytest.raises(Unavailable, match=gone[-1]):
        await kafka.consume("kafka://u:p@nowhere.test:1", ["t"], handle, asyncio.Event(), group="g")


async def test_broker_that_is_gone_when_the_consumer_is_told_to_stop_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stop = asyncio.Event()
    stop.set()

    async def handle(messages: Any) -> None:
        raise AssertionError("there are no messages")

    monkeypatch.setattr(kafka, "Consumer", lambda config: Client("close"))

    with pytest.raises(Unavailable, match="close"):
        await kafka.consume("kafka://u:p@nowhere.test:1", ["t"], handle, stop, group="g")
