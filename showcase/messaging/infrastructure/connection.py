"""One connection to RabbitMQ: coroutines out of pika's callbacks, each with a deadline.

A paused broker answers nothing and closes nothing, so no wait here is without a limit, the farewell included.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pika
import structlog
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.channel import Channel
from pika.exceptions import ChannelClosedByBroker

from showcase.kernel.errors import Unavailable
from showcase.messaging.infrastructure import wire

log = structlog.get_logger()

FAREWELL_S = 1.0
"""How long the broker has to say goodbye."""


class ChannelRefused(Exception):
    """The broker did not do what it was asked for, and closed the channel.

    Args:
        code: 404 for what is not there, 406 for what is there otherwise (AMQP 0-9-1 §1.1).
    """

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


class Connection:
    """An open connection with a channel. Once it is lost, every call raises Unavailable: open another one."""

    _connection: AsyncioConnection
    channel: Channel

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._closed = asyncio.Event()
        self._unblocked = asyncio.Event()
        self._unblocked.set()

    @classmethod
    @asynccontextmanager
    async def opened(cls, url: str, *, timeout_s: float, heartbeat_s: int, name: str) -> AsyncIterator["Connection"]:
        """A connection for the length of a block.

        Args:
            timeout_s: the longest that a call may wait for its answer.
            heartbeat_s: when neither side has heard of the other for twice as long, it takes it for gone.
            name: what the broker's management page shows it as.

        Raises Unavailable.
        """
        self = cls(timeout_s)
        opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        parameters = pika.URLParameters(url)
        parameters.heartbeat = heartbeat_s
        parameters.connection_attempts = 1
        parameters.socket_timeout = parameters.stack_timeout = timeout_s
        parameters.client_properties = {"connection_name": name}
        self._connection = AsyncioConnection(
            parameters,
            on_open_callback=lambda _: _settle(opened, None),
            on_open_error_callback=lambda _, error: _settle(opened, error),
            on_close_callback=lambda _, error: self._on_closed(error),
            custom_ioloop=asyncio.get_running_loop(),
        )
        pika_connection = self._connection
        pika_connection._read_frame = lambda: wire.decode(pika_connection._frame_buffer)  # noqa: SLF001 - see there
        self._connection.add_on_connection_blocked_callback(self._on_blocked)
        self._connection.add_on_connection_unblocked_callback(lambda *_: self._unblocked.set())
        try:
            await self.answer(opened)
            self.channel = await self._open_channel()
            self.channel.add_on_close_callback(lambda _, error: self.lose(error))
            yield self
        finally:
            await self._close()

    @property
    def frame_max(self) -> int:
        """The largest frame that the broker takes, in bytes."""
        return int(self._connection.params.frame_max)

    async def call(self, method: Callable[..., object], **arguments: object) -> Any:
        """Call a method of the channel that takes a callback, and wait for what that is called with."""
        self.check()
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        method(**arguments, callback=lambda frame: _settle(answered, frame))
        return await self.answer(answered)

    async def try_call(self, method: str, **arguments: object) -> Any:
        """Call a method on a channel of its own: what the broker refuses, it closes the channel for.

        Raises ChannelRefused, Unavailable.
        """
        self.check()
        channel = await self._open_channel()
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        channel.add_on_close_callback(lambda _, error: _settle(answered, error))
        getattr(channel, method)(**arguments, callback=lambda frame: _settle(answered, frame))
        try:
            return await self.answer(answered)
        finally:
            if channel.is_open:
                channel.close()

    def send(self, frames: bytes) -> None:
        """Send frames of the channel as they are: one write, where pika makes one of each frame. Raises Unavailable."""
        self.check()
        # A view, because pika cuts off what the socket took at once, and so copies nothing.
        self._connection._output_marshaled_frames([memoryview(frames)])  # noqa: SLF001 - else three writes a message

    async def unblocked(self) -> None:
        """Wait while the broker takes no messages. Raises Unavailable if that lasts too long."""
        if not self._unblocked.is_set():
            await self.answer(asyncio.ensure_future(self._unblocked.wait()))

    def check(self) -> None:
        """Raises Unavailable when the connection is lost."""
        if self.lost.done():
            self.lost.result()

    async def answer(self, answer: "asyncio.Future[Any]") -> Any:
        """Wait for an answer, but not beyond the deadline, nor when the connection is lost."""
        try:
            await asyncio.wait({answer, self.lost}, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
        finally:
            answer.cancel()
        self.check()
        if not self._unblocked.is_set():
            raise Unavailable("rabbitmq takes no messages now: it has too little memory or disk")
        raise Unavailable("rabbitmq does not answer in time")

    def lose(self, error: BaseException) -> None:
        """From now on every call raises Unavailable."""
        if not self.lost.done():
            self.lost.set_exception(Unavailable(f"the connection to rabbitmq was lost: {error}"))
            self.lost.exception()  # looked at: nobody may be waiting for it

    async def _open_channel(self) -> Channel:
        opened: asyncio.Future[Channel] = asyncio.get_running_loop().create_future()
        self._connection.channel(on_open_callback=lambda channel: _settle(opened, channel))
        return await self.answer(opened)

    def _on_blocked(self, _: object, frame: Any) -> None:
        if self._unblocked.is_set():
            log.warning("rabbitmq takes no messages", why=frame.method.reason)
        self._unblocked.clear()

    def _on_closed(self, error: BaseException) -> None:
        self._closed.set()
        self.lose(error)

    async def _close(self) -> None:
        """Say goodbye, and hang up if no answer comes; a connection that is just opening is given up."""
        was_open = self._connection.is_open
        if not (self._connection.is_closing or self._connection.is_closed):
            self._connection.close()
        if was_open:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), min(FAREWELL_S, self._timeout_s))
            if not self._closed.is_set():
                self._connection._adapter_disconnect_stream()  # noqa: SLF001 - pika itself would wait for the broker
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), FAREWELL_S)


def _settle(future: "asyncio.Future[Any]", outcome: object) -> None:
    """Give a future its outcome, unless nobody waits for it any longer."""
    if future.done():
        return
    if isinstance(outcome, ChannelClosedByBroker):
        future.set_exception(ChannelRefused(outcome.reply_code, outcome.reply_text))
    elif isinstance(outcome, BaseException):
        future.set_exception(Unavailable(f"rabbitmq cannot be reached: {outcome}"))
    else:
        future.set_result(outcome)
