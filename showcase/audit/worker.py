"""The audit's consumer: from Kafka into the store.

A record is stored first and its offset committed after it, so a crash between the two brings it again
(at least once), and its id keeps it one record.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from showcase.audit.application import Message, Recorder
from showcase.platform.kafka import consume
from showcase.platform.settings import Settings
from showcase.platform.worker import Work, persist


def recording(
    recorder: Recorder, settings: Settings, topics: Sequence[str], prepare: Callable[[], Awaitable[None]]
) -> Work:
    """A consumer of some topics; any number of them share the work.

    Args:
        prepare: awaited before the first record.
    """

    async def handle(messages: Sequence[Any]) -> None:
        await recorder.record(
            [
                Message(
                    topic=message.topic(),
                    partition=message.partition(),
                    offset=message.offset(),
                    key=message.key(),
                    value=message.value(),
                )
                for message in messages
            ]
        )

    async def attempt(stop: asyncio.Event) -> None:
        await prepare()
        await consume(
            settings.url("kafka_url"),
            topics,
            handle,
            stop,
            group=f"{settings.topic_prefix}audit",
            session_timeout_s=settings.kafka_session_timeout_s,
        )

    return lambda stop: persist(attempt, stop)
