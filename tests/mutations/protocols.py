"""The rules of what uvicorn speaks here: heads of requests, frames that no app sees, and those who are gone."""

from tests.mutations import rule

PROTOCOLS, ALLOWANCE = "showcase/platform/web/protocols.py", "showcase/platform/web/allowance.py"


def of(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_protocols.py::{name}" for name in names)


HEADS = of("test_connection_without_the_whole_head_of_a_request_is_closed")
NO_TEXT = of("test_text_that_is_none_is_closed_with_1007_and_is_no_error_of_ours")

MUTATIONS = (
    rule(
        "a connection is kept longer than by whoever asks",
        "showcase/platform/web/server.py",
        "timeout_keep_alive=KEPT_S",
        "timeout_keep_alive=5",
        "tests/unit/test_web.py::test_a_connection_is_kept_longer_by_the_server_than_by_a_client",
    ),
    rule(
        "the head of a request comes within a time",
        PROTOCOLS,
        "        super().connection_made(transport)\n        self._await_head()\n",
        "        super().connection_made(transport)\n",
        *HEADS,
    ),
    rule(
        "a head that begins behind another request comes within a time, too",
        PROTOCOLS,
        "if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:",
        "if False:",
        *HEADS,
    ),
    rule(
        "a byte is no new beginning",
        PROTOCOLS,
        "        if self._deadline is None:\n",
        "        self._stop_waiting()\n        if True:\n",
        *HEADS,
    ),
    rule(
        "who has sent the whole head is in time",
        PROTOCOLS,
        "            self._deadline.cancel()\n",
        "            pass\n",
        *of("test_whole_head_is_in_time_whatever_comes_after"),
    ),
    rule(
        "frames that no app sees are counted",
        PROTOCOLS,
        "if unseen and not self._allowance.take(unseen):",
        "if False:",
        *of("test_flood_of_pings_is_closed"),
    ),
    rule(
        "messages are the app's to count",
        PROTOCOLS,
        "    return frame.fin and frame.opcode in (Opcode.TEXT, Opcode.BINARY)\n",
        "    return False\n",
        *of("test_whole_messages_are_for_the_app_to_count"),
    ),
    rule(
        "a message has so many fragments",
        PROTOCOLS,
        "if len(self.frames) >= MAX_FRAGMENTS:",
        "if False:",
        *of("test_message_of_fragments_without_end_is_closed"),
    ),
    rule("text is UTF-8, which is no error of ours", PROTOCOLS, 'b"".join(self.frames).decode()', "pass", *NO_TEXT),
    rule(
        "whoever fails a connection reads on for a moment",
        PROTOCOLS,
        "self.loop.call_later(LINGER_S, self.transport.close)",
        "self.loop.call_later(0, self.transport.abort)",
        *of("test_code_arrives_also_where_more_was_under_way"),
    ),
    rule(
        "and no longer",
        PROTOCOLS,
        "self.loop.call_later(LINGER_S, self.transport.close)",
        "self.loop.call_later(3_600, self.transport.close)",
        *of("test_connection_that_was_failed_ends_though_its_peer_does_nothing"),
    ),
    rule(
        "the app is told that the connection has failed",
        PROTOCOLS,
        '        self.queue.put_nowait({"type": "websocket.disconnect"',
        '        asyncio.Queue[object]().put_nowait({"type": "websocket.disconnect"',
        *of("test_connection_that_was_failed_ends_though_its_peer_does_nothing"),
    ),
    rule(
        "who answers no ping is cut",
        PROTOCOLS,
        "        self.loop.call_later(CUT_AFTER_S, self.transport.abort)\n",
        "",
        *of("test_peer_that_is_gone_is_cut_whatever_lies_in_the_buffers_for_it"),
    ),
    rule(
        "an allowance is used up",
        ALLOWANCE,
        "        self._left -= count\n",
        "",
        *of("test_allowance_is_used_up_and_comes_back"),
    ),
    rule(
        "an allowance comes back",
        ALLOWANCE,
        " + (now - self._at) * self._per_s",
        "",
        *of("test_allowance_is_used_up_and_comes_back"),
    ),
    rule(
        "an allowance is no more than so many at once",
        ALLOWANCE,
        "min(self._at_once, self._left + (now - self._at) * self._per_s)",
        "self._left + (now - self._at) * self._per_s + 9",
        *of("test_allowance_is_used_up_and_comes_back"),
    ),
)
