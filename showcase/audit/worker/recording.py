"""The audit's consumer: from Kafka into the store.

A record is stored at once, its seal comes within a second or so, and its offset is committed after that. A crash
between any of these brings it again (at least once), its id keeps it one record, and the seals tell where to go on.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import structlog

from showcase.audit.application.ports import Message, Partition, SealedAlready
from showcase.audit.application.recorder import Recorder
from showcase.kernel.errors import Unavailable
from showcase.platform.kafka import consume_into
from showcase.platform.settings import Settings
from showcase.platform.worker import Work, persist

log = structlog.get_logger()

BATCH = 4_000
"""So many messages are taken at the most: what all of them wait for, the disk, costs each of them less."""


def recording(
    recorder: Callable[[], AbstractAsyncContextManager[Recorder]],
    settings: Settings,
    topics: Sequence[str],
    prepare: Callable[[], Awaitable[None]],
) -> Work:
    """A consumer of some topics; any number of them share the work.

    Args:
        recorder: makes one for each time that the consumer joins its group, and lets go of what it needs.
        prepare: awaited before the first record.
    """

    async def attempt(stop: asyncio.Event) -> None:
        await prepare()
        try:
            async with recorder() as ours:
                await consume_into(
                    settings.url("kafka_url"),
                    topics,
                    _Ledger(ours),
                    stop,
                    group=group_of(settings),
                    batch=BATCH,
                    session_timeout_s=settings.kafka_session_timeout_s,
                )
        except SealedAlready as error:
            raise Unavailable(f"another consumer has sealed {error}: reading again from where it ended") from error

    return lambda stop: persist(attempt, stop)


def group_of(settings: Settings) -> str:
    """The group of all consumers that record."""
    return f"{settings.topic_prefix}audit"


class _Ledger:
    """See `platform.kafka.Ledger`."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def begin(self, there: Mapping[Partition, tuple[int, int]]) -> dict[Partition, int]:
        return {partition: await self._recorder.begin(*partition, *bounds) for partition, bounds in there.items()}

    async def handle(self, messages: Sequence[Any]) -> dict[Partition, int]:
        await self._recorder.record([_message(message) for message in messages])
        return await self._recorder.seal()

    async def end(self, partitions: Collection[Partition]) -> dict[Partition, int]:
        try:
            return await self._recorder.seal(partitions)
        finally:
            self._recorder.forget(partitions)

    def lose(self, partitions: Collection[Partition]) -> None:
        self._recorder.forget(partitions)


def _message(message: Any) -> Message:
    return Message(
        topic=message.topic(),
        partition=message.partition(),
        offset=message.offset(),
        key=message.key(),
        value=message.value(),
        headers=message.headers() or (),
        arrived_ms=max(0, message.timestamp()[1]),
    )
