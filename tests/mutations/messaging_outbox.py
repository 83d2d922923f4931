"""The rules that keep an outbox whole and in order, whoever relays it; and those of the inbox."""

from tests.mutations import Mutation

OUTBOX = "showcase/messaging/infrastructure/outbox.py"
INBOX = "showcase/messaging/infrastructure/inbox.py"
PRUNING = "showcase/messaging/infrastructure/pruning.py"
RELAY = "showcase/messaging/worker/relay.py"
CONTRACT = "tests/contract/test_outbox_and_inbox.py"
RACES = "tests/integration/test_relay.py"
LANES = "tests/unit/test_relay.py"

MUTATIONS = (
    Mutation(
        rule="a bucket belongs to one relay at a time",
        file=OUTBOX,
        old="LIMIT :share FOR UPDATE SKIP LOCKED",
        new="LIMIT :share",
        tests=(f"{RACES}::test_relays_that_share_an_outbox_tell_all_once_and_each_subject_in_order",),
    ),
    Mutation(
        rule="a relay takes no more than its share of the buckets",
        file=OUTBOX,
        old="SHARE = 16",
        new="SHARE = 64",
        tests=(f"{RACES}::test_relays_that_share_an_outbox_tell_all_once_and_each_subject_in_order",),
    ),
    Mutation(
        rule="of a subject one message is on its way",
        file=OUTBOX,
        old="subjects[row.subject_key].append(row)",
        new="subjects[row.position].append(row)",
        tests=(f"{CONTRACT}::test_messages_of_a_subject_are_never_told_out_of_order_though_one_is_refused",),
    ),
    Mutation(
        rule="a refused message holds back those behind it",
        file=OUTBOX,
        old="if outcome is Outcome.REFUSED or not subjects[row.subject_key]:",
        new="if not subjects[row.subject_key]:",
        tests=(f"{CONTRACT}::test_messages_of_a_subject_are_never_told_out_of_order_though_one_is_refused",),
    ),
    Mutation(
        rule="rounds begin behind what was refused",
        file=OUTBOX,
        old="self._passed.get(bucket, 0) if self._rounds % 2 else 0",
        new="0",
        tests=(f"{RACES}::test_refused_subjects_keep_none_of_their_bucket_from_its_turn",),
    ),
    Mutation(
        rule="such a round leaves the subjects that it has passed",
        file=OUTBOX,
        old="b.after = 0 OR (",
        new="true OR (",
        tests=(f"{RACES}::test_a_round_that_begins_behind_refused_events_tells_no_later_ones_of_their_subjects",),
    ),
    Mutation(
        rule="a round reads so many bytes",
        file=OUTBOX,
        old="WHERE bytes - octet_length(body) < :bytes",
        new="WHERE :bytes > 0",
        tests=(f"{RACES}::test_a_round_reads_no_more_bytes_than_memory_is_meant_for",),
    ),
    Mutation(
        rule="a message wakes the relay",
        file=OUTBOX,
        old=":routing_key, :headers)\n    RETURNING pg_notify('{channel}', '')",
        new=":routing_key, :headers)",
        tests=(f"{CONTRACT}::test_a_committed_event_wakes_the_relay",),
    ),
    Mutation(
        rule="pruning ends when nothing is left",
        file=PRUNING,
        old="if found < PIECE:",
        new="if found <= PIECE:",
        tests=(f"{RACES}::test_pruning_goes_on_until_nothing_old_is_left",),
    ),
    Mutation(
        rule="events are entered in one order",
        file=INBOX,
        old="sorted(set(ids))",
        new="list(ids)",
        tests=(f"{RACES}::test_processes_that_enter_the_same_events_at_once_never_block_one_another",),
    ),
    Mutation(
        rule="news during a look is not lost",
        file=RELAY,
        old="await next_ring.wait()",
        new="await self._bell.next.wait()",
        tests=(f"{LANES}::test_what_comes_while_a_relay_looks_is_not_slept_through",),
    ),
    Mutation(
        rule="a round that was full calls in another lane",
        file=RELAY,
        old="                self._more.ring()",
        new="                pass",
        tests=(f"{LANES}::test_a_round_that_was_full_calls_in_another_lane",),
    ),
    Mutation(
        rule="refusals are answered by a pause",
        file=RELAY,
        old="if self._refused > moved:",
        new="if self._refused > moved + 99:",
        tests=(f"{LANES}::test_refusals_are_answered_by_pauses_that_grow_up_to_the_poll",),
    ),
    Mutation(
        rule="rounds that have begun are finished",
        file=RELAY,
        old="        await asyncio.wait(tasks)\n",
        new="",
        tests=(
            f"{LANES}::test_a_relay_that_is_told_to_stop_finishes_the_round_it_has_begun",
            f"{LANES}::test_an_error_of_one_lane_ends_the_relay_when_the_others_have_finished_their_rounds",
        ),
    ),
)
