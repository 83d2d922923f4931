"""The rules by which lesson 06 counts and draws: a measurement that cannot come out badly measures nothing."""

from tests.mutations import Mutation

TRACES, READING, HOLDING = "workshop/traces.py", "workshop/reading.py", "workshop/holding.py"
PICTURES = "workshop/pictures/caching.py"


def of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{file}.py::{name}" for name in names)


MUTATIONS = (
    Mutation(
        rule="Belády's optimum may leave the newcomer out",
        file=TRACES,
        old="if held.get(latest) == -last_at:",
        new="if held.get(latest) == -last_at and latest != item:",
        tests=of("traces", "test_belady_throws_out_what_is_read_again_last_the_newcomer_as_well"),
    ),
    Mutation(
        rule="LFU remembers how often a thing was read that it has thrown out",
        file=TRACES,
        old="                del held[rarest]\n",
        new="                del held[rarest], counts[rarest]\n",
        tests=of("traces", "test_lfu_remembers_how_often_it_was_that_something_was_read"),
    ),
    Mutation(
        rule="W-TinyLFU admits only what is read more often",
        file=TRACES,
        old="        if counts[candidate] <= counts[victim]:\n            return\n",
        new="",
        tests=of("traces", "test_one_read_of_each_of_many_does_not_push_out_of_w_tinylfu_what_is_read_often"),
    ),
    Mutation(
        rule="W-TinyLFU forgets",
        file=TRACES,
        old="one: count // 2 for",
        new="one: count for",
        tests=of("traces", "test_w_tinylfu_lets_go_of_what_was_read_often_long_ago"),
    ),
    Mutation(
        rule="a read's time counts from when it was due",
        file=READING,
        old="(frame.answered_s - frame.due_s) * 1000",
        new="(frame.answered_s - frame.sent_s) * 1000",
        tests=of("reading", "test_time_counts_from_when_a_read_was_due_also_if_it_could_not_be_sent"),
    ),
    Mutation(
        rule="a reader waits for no other reader's answer",
        file=READING,
        old="                    tasks.create_task(self._read(number, product_id, due_s))",
        new="                    await self._read(number, product_id, due_s)",
        tests=of("reading", "test_a_slow_answer_holds_up_no_other_reader_and_all_of_its_slowness_is_counted"),
    ),
    Mutation(
        rule="a hit below its ttl is stale",
        file=READING,
        old='< 0:\n        return "stale"',
        new='< -9:\n        return "stale"',
        tests=of("reading", "test_who_gave_an_answer_is_read_from_its_header"),
    ),
    Mutation(
        rule="who gets no answer is counted among the failed",
        file=READING,
        old='                return NO_ANSWER, ""',
        new='                return 200, ""',
        tests=of("reading", "test_who_hangs_up_has_given_no_answer", "test_who_says_nothing_is_given_up_on"),
    ),
    Mutation(
        rule="a connection that the app may have closed is not used again",
        file=READING,
        old="if time.monotonic() - used_s < IDLE_S:",
        new="if used_s:",
        tests=of("reading", "test_a_connection_is_used_again_but_not_when_the_app_may_have_closed_it"),
    ),
    Mutation(
        rule="each connection ends before its rows are counted",
        file=HOLDING,
        old="    while _number(url, _OTHERS):\n",
        new="    while False:\n",
        tests=("tests/integration/test_stampede.py::test_a_row_is_counted_although_its_reader_is_still_connected",),
    ),
    Mutation(
        rule="who waits is who asked before his answer was loaded",
        file="workshop/expiring.py",
        old="answer.value > asked",
        new="answer.value > began",
        tests=(
            "tests/integration/test_stampede.py::test_readers_wait_for_an_answer_that_expires_unless_it_is_refreshed_early",
        ),
    ),
    Mutation(
        rule="a picture has a dot for each read",
        file=PICTURES,
        old="    gaps = np.full(len(y), np.nan)\n",
        new="    gaps = np.full(len(y[::2]), np.nan)\n    began, ended, y = began[::2], ended[::2], y[::2]\n",
        tests=of("pictures_caching", "test_each_read_is_a_dot_and_errors_are_crosses"),
    ),
)
