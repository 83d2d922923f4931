"""What uvicorn speaks on a connection, with the bounds that it does not set itself.

A request's head must come within a time (slowloris); control frames and fragments of one WebSocket are counted, since
no application ever sees them; a peer that answers no ping is cut, whatever lies in the buffers for it.
"""

import asyncio
from contextlib import suppress
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Request
from websockets.protocol import State

from showcase.platform.web.allowance import Allowance

AT_ONCE = "showcase.send_at_once"
"""The extension of an ASGI scope in which an app finds `WebSocket.send_at_once`."""
HEAD_WITHIN_S = 10.0
SLICE_BYTES = 4_096
"""So much is looked at before a connection is judged: a chunk of 256 KiB may hold 40,000 pings."""
FRAMES_PER_S, FRAMES_AT_ONCE = 100.0, 2_000
MAX_FRAGMENTS = 1_024
CUT_AFTER_S = 1.0
LINGER_S = 1.0


class Http(H11Protocol):
    """HTTP/1.1; a connection on which no whole head of a request comes in time is closed."""

    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is h11.IDLE:
            self._await_head()
        else:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:  # the next head has begun meanwhile
            self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_WITHIN_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class WebSocket(WebSocketsSansIOProtocol):
    """RFC 6455; whoever breaks a rule is told which by a close code, in whatever company the frame comes."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._allowance = Allowance(FRAMES_PER_S, FRAMES_AT_ONCE)
        self._is_over = False

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), SLICE_BYTES):
            if self._is_over or self.transport.is_closing():
                return
            super().data_received(data[at : at + SLICE_BYTES])

    def handle_events(self) -> None:
        unseen = sum(isinstance(one, Frame) and not _is_whole_message(one) for one in self.conn.events)
        if unseen and not self._allowance.take(unseen):
            self.conn.events_received()
            self._fail(CloseCode.POLICY_VIOLATION, f"no more than {FRAMES_PER_S:g} such frames a second")
            return
        super().handle_events()

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:  # a fragment may be empty: their size alone bounds nothing
            self._fail(CloseCode.MESSAGE_TOO_BIG, f"a message has up to {MAX_FRAGMENTS:,} fragments")
            return
        super().handle_cont(event)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if self.handshake_initiated and not self.handshake_complete:
            self.scope["extensions"][AT_ONCE] = self.send_at_once  # type: ignore[assignment]  # an extension of our own

    def send_at_once(self, text: str) -> bool:
        """Send a text if the connection is open and has room for it; whether that was so. It waits for nobody."""
        if not self.writable.is_set() or self.conn.state is not State.OPEN or self.transport.is_closing():
            return False
        self.conn.send_text(text.encode())
        self.transport.write(b"".join(self.conn.data_to_send()))
        return True

    def send_receive_event_to_app(self) -> None:
        """Uvicorn trips over text that is none where a close frame has come with it, and logs each as an exception."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self._fail(CloseCode.INVALID_DATA, "text is UTF-8")
                return
        super().send_receive_event_to_app()

    def handle_parser_exception(self) -> None:
        """Say why, and read on for a moment: whoever closes on unread data resets, and the peer never sees the code."""
        assert self.conn.close_sent is not None
        if self._is_over:
            return
        self._is_over = self.close_sent = True
        closing = self.conn.close_sent
        self.queue.put_nowait({"type": "websocket.disconnect", "code": closing.code, "reason": closing.reason})
        self.transport.write(b"".join(self.conn.data_to_send()))
        if self.transport.can_write_eof():
            with suppress(OSError):  # it may be reset already
                self.transport.write_eof()
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.close_timer is not None:
            self.close_timer.cancel()
        self.close_timer = self.loop.call_later(LINGER_S, self.transport.close)

    def keepalive_timeout(self) -> None:
        """Uvicorn then waits until all that was written is taken: by somebody who is gone."""
        super().keepalive_timeout()
        self.loop.call_later(CUT_AFTER_S, self.transport.abort)

    def _fail(self, code: CloseCode, reason: str) -> None:
        self.frames = []
        self.conn.fail(code, reason)
        self.handle_parser_exception()


def _is_whole_message(frame: Frame) -> bool:
    return frame.fin and frame.opcode in (Opcode.TEXT, Opcode.BINARY)
