"""The rules of real time: who may follow what, coming back, slow clients, limits, and how connections end."""

from tests.mutations import rule

SLICE = "showcase/realtime"
DOMAIN, CLIENT = f"{SLICE}/domain.py", f"{SLICE}/client.py"
HUB, CLIENTS = f"{SLICE}/application/hub.py", f"{SLICE}/application/clients.py"
SOCKET, TICKETS = f"{SLICE}/api/socket.py", f"{SLICE}/infrastructure/tickets.py"
STREAM = f"{SLICE}/infrastructure/stream.py"
REDIS = "showcase/platform/redis.py"
ORIGINS, ALLOWANCE = "showcase/platform/web/origins.py", "showcase/platform/web/allowance.py"


def unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_realtime.py::{name}" for name in names)


def following(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_realtime_client.py::{name}" for name in names)


def told(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_realtime_told.py::{name}" for name in names)


def tickets(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_tickets.py::{name}" for name in names)


def stream(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_stream.py::{name}" for name in names)


MAY_FOLLOW = unit("test_household_follows_its_own_and_the_counter_follows_all")
ONCE = unit("test_event_reaches_a_client_once_under_the_narrowest_topic_that_it_follows")
IN_ORDER = unit("test_what_waits_is_sent_in_the_order_of_the_stream_and_answers_before_it")
WINDOW = unit("test_client_with_a_window_is_told_no_more_than_it_has_acknowledged")
CATCHES_UP = unit("test_who_comes_back_is_told_exactly_what_it_missed_and_then_what_comes")
LAGS = unit("test_who_comes_back_to_a_reader_that_lags_is_told_nothing_twice")
DRAINS = unit("test_hub_that_drains_sends_what_waits_and_takes_nobody_in")
LOST_END = stream("test_stream_that_lost_its_end_begins_a_new_epoch")

MUTATIONS = (
    # -- who may
    rule("ops is for support", DOMAIN, "return Scope.SUPPORT in principal.scopes", "return True", *MAY_FOLLOW),
    rule(
        "a household follows what is its own",
        DOMAIN,
        'and (household == owner or topic.name == f"households/{household}")',
        "and owner is None",
        *MAY_FOLLOW,
    ),
    rule("all orders need a scope", DOMAIN, "if Scope.ORDERS_FOLLOW in principal.scopes:", "if True:", *MAY_FOLLOW),
    rule(
        "each topic is allowed or not",
        HUB,
        "if not may_follow(principal, topic, owner):",
        "if False:",
        *unit("test_hub_asks_who_owns_an_order_before_it_lets_a_household_follow"),
    ),
    rule(
        "all topics of a request are followed, or none",
        HUB,
        "            await self._authorise(client, topic)\n",
        "            await self._authorise(client, topic)\n            client.topics.add(topic)\n",
        *unit("test_one_topic_that_is_not_allowed_leaves_all_of_the_request_undone"),
    ),
    rule(
        "a connection follows so many topics",
        HUB,
        "if len(client.topics | set(topics)) > MAX_TOPICS:",
        "if False:",
        *unit("test_one_connection_follows_a_limited_number_of_topics"),
    ),
    rule(
        "nobody follows before the reader knows where it begins",
        HUB,
        "if not self.positioned.is_set():",
        "if False:",
        *unit("test_nobody_can_subscribe_before_the_reader_knows_where_it_begins"),
    ),
    # -- who is told
    rule(
        "an event is told once",
        HUB,
        "self._following.get(topic, set()) - told",
        "self._following.get(topic, set())",
        *ONCE,
    ),
    rule(
        "the narrowest topic comes first",
        HUB,
        "for topic in one.topics:\n            followers",
        "for topic in reversed(one.topics):\n            followers",
        *ONCE,
    ),
    rule(
        "who unsubscribes is told no more",
        HUB,
        "            followers.discard(client)\n",
        "",
        *unit("test_nobody_is_told_after_unsubscribing_or_leaving"),
    ),
    # -- those who do not keep up
    rule(
        "who does not keep up with orders is closed",
        CLIENTS,
        "            if policy is Policy.DISCONNECT:\n",
        "            if False:\n",
        *unit("test_client_that_does_not_keep_up_with_orders_is_closed_and_no_other"),
    ),
    rule(
        "of each product the latest waits",
        CLIENTS,
        "key = subject if policy is Policy.COALESCE else one.number",
        "key = one.number",
        *unit("test_of_each_product_only_the_latest_waits"),
    ),
    rule(
        "the oldest are dropped",
        CLIENTS,
        "_, oldest = lane.popitem(last=False)",
        "_, oldest = lane.popitem(last=True)",
        *unit("test_of_everything_the_oldest_are_dropped_and_counted"),
    ),
    rule(
        "it is told how many were dropped",
        CLIENTS,
        "            self._to_tell[oldest.topic] += 1\n",
        "",
        *unit("test_of_everything_the_oldest_are_dropped_and_counted"),
    ),
    rule(
        "each policy has a lane of its own",
        CLIENTS,
        "        lane = self._lanes[policy]\n",
        "        lane = self._lanes[Policy.DROP_OLDEST]\n",
        *unit("test_flood_in_one_topic_costs_no_event_of_another"),
    ),
    rule(
        "what waits is sent in the stream's order",
        CLIENTS,
        "_first(lane).number < _first(found).number",
        "_first(lane).number > _first(found).number",
        *IN_ORDER,
    ),
    rule(
        "answers go before events",
        CLIENTS,
        "            if self._answers:\n                return",
        "            if self._answers and not any(self._lanes.values()):\n                return",
        *IN_ORDER,
    ),
    rule(
        "no more is told than the window",
        CLIENTS,
        "return self.window is not None and len(self._unacknowledged) >= self.window",
        "return False",
        *WINDOW,
    ),
    rule("an ack of what was not told is harmless", CLIENTS, "if id_ in self._unacknowledged:", "if True:", *WINDOW),
    rule(
        "what is told at once waits for whoever writes",
        CLIENTS,
        "        if self._asleep is None or self._asleep.done():\n            return False\n",
        "",
        *told("test_before_anybody_writes_all_waits"),
        *told("test_nothing_overtakes_what_waits"),
    ),
    rule(
        "what is told at once stops at the window",
        CLIENTS,
        " or self._to_tell or self._is_full())",
        " or self._to_tell)",
        *told("test_what_is_told_at_once_counts_for_the_window"),
    ),
    rule(
        "what is told at once counts for the window",
        CLIENTS,
        "            self._note_sent(place)\n",
        "",
        *told("test_what_is_told_at_once_counts_for_the_window"),
    ),
    rule(
        "what is told while catching up is counted",
        HUB,
        '                        self.counts["told"] += 1\n',
        "",
        *told("test_what_happened_is_counted"),
    ),
    # -- coming back
    rule("what was missed is told", HUB, "while self._is_behind(after):", "while False:", *CATCHES_UP),
    rule("nothing is told twice after catching up", HUB, "            client.told_up_to = after\n", "", *LAGS),
    rule(
        "who comes too late is told so",
        HUB,
        "client.mark(Reset(topics=[topic.name for topic in topics], at=str(self._end), why=GONE, ref=ref))",
        "pass",
        *unit("test_who_comes_back_too_late_is_told_so_and_goes_on_from_here"),
    ),
    rule(
        "a connection resumes at first or never",
        HUB,
        " or (after is not None and client.topics)",
        "",
        *unit("test_connection_resumes_with_its_first_topics_or_never"),
    ),
    rule(
        "who takes nothing while it catches up is closed",
        HUB,
        "await asyncio.wait_for(client.room(), self._limits.stalled_s)",
        "await client.room()",
        *unit("test_who_catches_up_slowly_is_waited_for_and_who_takes_nothing_is_not"),
    ),
    rule(
        "who reads slowly while it catches up is waited for",
        HUB,
        "                        if not client.has_room:\n",
        "                        if False:\n",
        *unit("test_who_catches_up_slowly_is_waited_for_and_who_takes_nothing_is_not"),
    ),
    rule(
        "the reader goes on where it broke off",
        HUB,
        "        if self._recent is None:\n",
        "        if True:\n",
        *unit("test_reader_goes_on_where_it_broke_off"),
    ),
    rule(
        "everybody is told that events were lost",
        HUB,
        "client.mark(Reset(topics=names, at=str(self._end), why=GONE))",
        "pass",
        *unit("test_everybody_is_told_when_the_stream_has_lost_its_end"),
    ),
    rule(
        "memory tells from no place that it does not know",
        f"{SLICE}/application/recent.py",
        "if at == len(self._kept) or self._kept[at].place != after:",
        "if at == len(self._kept):",
        *unit("test_recent_events_are_told_from_any_place_among_them_and_from_no_other"),
    ),
    # -- the stream
    rule(
        "a lost end begins a new epoch", STREAM, "if epoch == ARGV[2] and not there and (", "if false and (", *LOST_END
    ),
    rule(
        "an old place begins no new epoch",
        STREAM,
        "not there and (oldest or before(newest, ARGV[3])) then",
        "not there then",
        *stream("test_place_that_is_too_old_is_lost_and_the_epoch_stays"),
    ),
    rule("a reader notices that its place is gone", STREAM, "or not there or any(", "or any(", *LOST_END),
    rule(
        "a reader notices another epoch",
        STREAM,
        "if now != after.epoch or not there",
        "if not there",
        *stream("test_place_of_another_stream_is_lost"),
    ),
    rule(
        "a page comes after a place that is there",
        STREAM,
        " or not redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])[1] then\n    return false",
        " then\n    return false",
        *stream("test_place_that_is_too_old_is_lost_and_the_epoch_stays"),
    ),
    rule(
        "an event is added once",
        STREAM,
        "if redis.call('EXISTS', KEYS[3]) == 1 then",
        "if false then",
        *stream("test_event_published_again_is_not_added"),
    ),
    rule(
        "marks of what was told go by themselves",
        STREAM,
        "KEYS[3], id, 'EX', ARGV[5])",
        "KEYS[3], id)",
        *stream("test_told_marks_go_by_themselves"),
    ),
    rule(
        "an event is noted after it was added",
        STREAM,
        "    return false\nend\nlocal id = redis.call(\n",
        "    return false\nend\nredis.call('SET', KEYS[3], '', 'EX', ARGV[5])\nlocal id = redis.call(\n",
        *stream("test_event_that_was_not_added_is_not_taken_for_told"),
    ),
    rule(
        "the stream has a length",
        STREAM,
        "'MAXLEN', '~', ARGV[2], ",
        "",
        *stream("test_redis_keeps_about_as_many_events_as_it_is_told"),
    ),
    rule(
        "events wait while Redis is away",
        "showcase/composition.py",
        ", inbox=Reachable(partial(realtime.ping, resources)))",
        ")",
        *told("test_messages_wait_while_redis_is_away"),
    ),
    # -- getting in
    rule("a ticket works once", TICKETS, ".getdel(", ".get(", *tickets("test_ticket_works_once")),
    rule(
        "a ticket expires",
        TICKETS,
        ", px=self._lifetime)",
        ")",
        *tickets("test_ticket_in_redis_cannot_be_read_there_and_goes_by_itself"),
    ),
    rule(
        "Redis does not know the ticket",
        TICKETS,
        "hashlib.sha256(ticket.encode()).hexdigest()",
        "ticket + hashlib.sha256(b'').hexdigest()",
        *tickets("test_ticket_in_redis_cannot_be_read_there_and_goes_by_itself"),
    ),
    rule(
        "a ticket keeps when its token expires",
        TICKETS,
        'expires_at=known["expires_at"] and',
        "expires_at=None and",
        *tickets("test_ticket_is_whose_it_was_issued_to"),
    ),
    rule(
        "a ticket is worth nothing once its session has ended",
        SOCKET,
        "if principal.session_id is not None and await",
        "if False and await",
        *unit("test_ticket_of_a_session_that_ended_meanwhile_is_none"),
    ),
    rule(
        "a page of another site is refused",
        SOCKET,
        "if origin is not None and not is_trusted(",
        "if origin is not None and origin and False and not is_trusted(",
        *unit("test_page_of_another_site_is_refused"),
    ),
    rule(
        "an own page is of the same host",
        ORIGINS,
        " and parts.netloc == host",
        "",
        *unit("test_page_of_another_site_is_refused"),
    ),
    rule(
        "a trusted page is let in",
        ORIGINS,
        " or origin in trusted",
        "",
        *unit("test_own_pages_and_trusted_ones_are_let_in"),
    ),
    rule(
        "the subprotocol is offered",
        SOCKET,
        "if SUBPROTOCOL not in offered:",
        "if False:",
        *unit("test_handshake_without_the_subprotocol_is_refused"),
    ),
    rule(
        "the ticket is not echoed",
        SOCKET,
        "await websocket.accept(SUBPROTOCOL)",
        'await websocket.accept(websocket.scope["subprotocols"][-1])',
        *unit("test_ticket_may_come_with_the_handshake"),
    ),
    rule(
        "who says no hello is closed",
        SOCKET,
        "async with asyncio.timeout(HELLO_WITHIN_S):",
        "async with asyncio.timeout(None):",
        *unit("test_silence_instead_of_hello_is_closed"),
    ),
    rule(
        "hello comes first",
        SOCKET,
        "if not isinstance(message, Hello):",
        "if False:",
        *unit("test_who_does_not_say_hello_with_a_good_ticket_is_told_why_and_closed"),
    ),
    rule(
        "hello again is for the same subject",
        SOCKET,
        " and client.principal.subject != principal.subject:",
        " and False:",
        *unit("test_hello_again_is_for_whoever_said_it_first"),
    ),
    # -- how it ends
    rule(
        "connections end with their session",
        HUB,
        "for client in self._of_session.get(session_id, ()):",
        "for client in ():",
        *unit("test_connections_end_with_their_session_and_are_told_nothing_more"),
    ),
    rule(
        "nothing is told after the session",
        HUB,
        '"the session has ended", at_once=True)',
        '"the session has ended")',
        *unit("test_connections_end_with_their_session_and_are_told_nothing_more"),
    ),
    rule(
        "connections end with their token",
        HUB,
        "        if principal.expires_at is not None:\n",
        "        if False:\n",
        *unit("test_connection_is_closed_when_its_token_expires_unless_it_says_hello_again"),
    ),
    rule(
        "hello again lets it stay",
        HUB,
        "            expiring.cancel()\n",
        "            pass\n",
        *unit("test_connection_is_closed_when_its_token_expires_unless_it_says_hello_again"),
    ),
    rule(
        "who has left leaves nothing",
        HUB,
        "                del self._of_session[session_id]\n",
        "                pass\n",
        *unit("test_a_connection_that_has_left_leaves_nothing_of_its_session"),
    ),
    rule(
        "a process that stops takes nobody in", HUB, "        if self._is_stopping:\n", "        if False:\n", *DRAINS
    ),
    rule(
        "draining closes with 1012",
        HUB,
        "        self._is_stopping = True\n        self.break_off(RESTARTING",
        "        self._is_stopping = True\n        self.break_off(TRY_AGAIN_LATER",
        *DRAINS,
    ),
    rule(
        "what waits is sent before it closes",
        HUB,
        "            client.close(code, reason)\n",
        "            client.close(code, reason, at_once=True)\n",
        *DRAINS,
    ),
    rule(
        "draining waits for nobody for ever",
        HUB,
        "async with asyncio.timeout(within_s):",
        "async with asyncio.timeout(None):",
        *unit("test_draining_waits_for_nobody_for_ever"),
    ),
    # -- limits
    rule(
        "a household has so many connections",
        HUB,
        " and self._of_household[household] >= self._limits.of_household:",
        " and False:",
        *unit("test_household_has_so_many_connections_and_takes_nobody_elses"),
    ),
    rule(
        "a process has so many connections",
        HUB,
        "elif len(self._clients) >= self._limits.sockets:",
        "elif False:",
        *unit("test_connection_beyond_the_limit_is_told_to_come_back_and_one_that_ends_makes_room"),
    ),
    rule(
        "so many messages a second",
        SOCKET,
        "if not isinstance(message, Ack) and not allowance.take():",
        "if False:",
        *unit("test_flood_of_messages_is_told_so_then_closed"),
    ),
    rule(
        "an allowance is used up",
        ALLOWANCE,
        "        self._left -= count\n",
        "",
        *unit("test_flood_of_messages_is_told_so_then_closed"),
    ),
    rule(
        "so many malformed messages",
        SOCKET,
        "if malformed == MAX_MALFORMED:",
        "if False:",
        *unit("test_fifth_malformed_message_closes"),
    ),
    rule(
        "a message is text",
        SOCKET,
        "    if text is None:\n        raise MalformedMessage",
        "    if text is None and False:\n        raise MalformedMessage",
        *unit("test_fifth_malformed_message_closes"),
    ),
    rule(
        "a message has so many bytes, not characters",
        SOCKET,
        " or len(text.encode()) > MAX_MESSAGE_BYTES",
        "",
        *unit("test_message_that_is_too_large_closes"),
    ),
    rule(
        "who follows nothing is closed",
        SOCKET,
        "asyncio.timeout(None if client.topics or client.catching_up else IDLE_S)",
        "asyncio.timeout(None)",
        *unit("test_connection_that_follows_nothing_is_closed_after_a_while"),
    ),
    rule(
        "who follows something is not",
        SOCKET,
        "asyncio.timeout(None if client.topics or client.catching_up else IDLE_S)",
        "asyncio.timeout(IDLE_S)",
        *unit("test_connection_that_follows_nothing_is_closed_after_a_while"),
    ),
    # -- the client in Python
    rule(
        "the client goes on after its newest event",
        CLIENT,
        '            self._newest = message["id"]\n',
        "",
        *following("test_client_comes_back_and_is_told_what_happened_meanwhile"),
    ),
    rule(
        "the client goes on from where it was confirmed",
        CLIENT,
        'self._newest = self._newest or message["at"]',
        "pass",
        *following("test_client_that_has_heard_nothing_yet_misses_nothing_either"),
    ),
    rule(
        "a gap has its place",
        CLIENT,
        "self.last = one.at or self.last",
        "pass",
        *following("test_client_that_was_away_for_too_long_is_told_a_gap_and_goes_on"),
    ),
    rule(
        "a refusal ends it",
        CLIENT,
        "    return Refused(problem)\n",
        '    return ConnectionResetError(problem["detail"])\n',
        *following("test_topic_of_someone_else_ends_it"),
    ),
    rule(
        "what is away is tried again",
        CLIENT,
        'problem["status"] >= httpx.codes.INTERNAL_SERVER_ERROR or ',
        "",
        *following("test_stream_that_does_not_answer_is_tried_again"),
    ),
    rule(
        "pauses grow",
        CLIENT,
        "min(LONGEST_PAUSE_S, 2 * pause_s)",
        "min(LONGEST_PAUSE_S, pause_s)",
        *following("test_server_that_is_away_is_tried_again_after_growing_pauses"),
    ),
    rule(
        "pauses have a limit",
        CLIENT,
        "min(LONGEST_PAUSE_S, 2 * pause_s)",
        "2 * pause_s",
        *following("test_server_that_is_away_is_tried_again_after_growing_pauses"),
    ),
    rule(
        "pauses begin anew",
        CLIENT,
        "                    pause_s = FIRST_PAUSE_S\n",
        "                    pass\n",
        *following("test_pauses_begin_anew_once_it_was_connected"),
    ),
    rule(
        "what is taken is acknowledged",
        CLIENT,
        'await self._socket.send(json.dumps({"type": "ack", "id": handled}))',
        "pass",
        *following("test_client_is_told_no_more_than_its_window_before_it_takes_some"),
    ),
    rule(
        "no more is held than there is room for",
        CLIENT,
        "while len(self._came) >= BUFFER:",
        "while False:",
        *following("test_client_without_a_window_takes_no_more_than_it_can_hold"),
    ),
    rule(
        "without coming back its end is raised",
        CLIENT,
        "                    if not self._reconnect:\n                        raise\n",
        "",
        *following("test_without_coming_back_the_end_is_raised_with_its_code"),
    ),
    rule(
        "a line to Redis that is cut while it is opened is Redis being away",
        REDIS,
        "connection_class=_Connection,",
        "",
        "tests/unit/test_redis.py::test_line_that_is_cut_while_it_is_opened_is_a_server_that_is_away",
    ),
    rule(
        "a mistake is not Redis being away",
        REDIS,
        "if CUT not in str(error):",
        "if False:",
        "tests/unit/test_redis.py::test_mistake_of_ours_is_no_server_that_is_away",
    ),
)
