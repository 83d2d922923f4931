"""The rules of capturing: what is refused, how new settings come in, and how a failed connector is brought back."""

from tests.mutations import Mutation

RULES = "showcase/audit/application/capture.py"
CONNECT = "showcase/audit/infrastructure/connectors.py"


def unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_connectors.py::{name}" for name in names)


MUTATIONS = (
    Mutation(
        rule="tables without before-images are refused",
        file=RULES,
        old="refused=[*await self._tables_refused(), *_fewer(pairs)]",
        new="refused=_fewer(pairs)",
        tests=unit("test_tables_that_do_not_tell_rows_as_they_were_are_named_with_what_mends_them"),
    ),
    Mutation(
        rule="partitions grow only",
        file=RULES,
        old="refused=[*await self._tables_refused(), *_fewer(pairs)]",
        new="refused=await self._tables_refused()",
        tests=unit("test_fewer_partitions_are_refused_in_one_line_before_anything_changes"),
    ),
    Mutation(
        rule="what Kafka Connect finds wrong is told before anything is made",
        file=RULES,
        old="if wrong := await self.connectors.check(name, config):",
        new="if wrong := ():",
        tests=unit("test_all_that_kafka_connect_finds_wrong_is_told_a_line_each_and_nothing_is_made"),
    ),
    Mutation(
        rule="settings that are as they are to be are not put again",
        file=RULES,
        old="        if plan.connector:\n",
        new="        if True:\n",
        tests=unit("test_applied_twice_is_applied_once"),
    ),
    Mutation(
        rule="an old state does not pass for that of new settings",
        file=RULES,
        old="                await self._stopped()  # or",
        new="                pass  # or",
        tests=unit("test_new_settings_are_put_while_it_is_stopped_so_that_no_old_state_passes_for_new"),
    ),
    Mutation(
        rule="what an operator has paused stays so",
        file=RULES,
        old="parts[0].state in (PAUSED, STOPPED)",
        new="parts[0].state == STOPPED",
        tests=unit("test_one_that_an_operator_has_paused_or_stopped_gets_its_settings_and_stays_so"),
    ),
    Mutation(
        rule="a limit of bytes is mended",
        file=RULES,
        old='limit = "" if self.max_bytes is None else',
        new='limit = "" if True else',
        tests=unit("test_a_topic_that_would_lose_records_by_their_bytes_is_told_and_mended"),
    ),
    Mutation(
        rule="a connector needs a task to run",
        file=RULES,
        old="return len(parts) > 1 and all(",
        new="return len(parts) > 0 and all(",
        tests=unit("test_a_connector_without_a_task_does_not_pass_for_one_that_runs"),
    ),
    Mutation(
        rule="a failure ends the waiting",
        file=RULES,
        old='                    raise CaptureFailed(f"{named(name, part)} has failed: {part.why}")\n',
        new="                    continue\n",
        tests=unit("test_a_task_that_fails_ends_the_waiting_with_its_reason"),
    ),
    Mutation(
        rule="pauses grow",
        file=RULES,
        old="min(self.longest_s, 2 * ailing.pause_s)",
        new="ailing.pause_s",
        tests=unit("test_a_failed_task_is_restarted_after_growing_pauses_up_to_the_longest"),
    ),
    Mutation(
        rule="pauses are bounded",
        file=RULES,
        old="min(self.longest_s, 2 * ailing.pause_s)",
        new="2 * ailing.pause_s",
        tests=unit("test_a_failed_task_is_restarted_after_growing_pauses_up_to_the_longest"),
    ),
    Mutation(
        rule="what runs for long is well again",
        file=RULES,
        old="            del self._ailing[part.task]\n",
        new="            pass\n",
        tests=unit("test_what_ran_long_enough_begins_with_the_first_pause_again_and_not_before"),
    ),
    Mutation(
        rule="what runs for a moment is not well yet",
        file=RULES,
        old="        if now - ailing.well_since >= self.steady_s:\n",
        new="        if True:\n",
        tests=unit("test_what_ran_long_enough_begins_with_the_first_pause_again_and_not_before"),
    ),
    Mutation(
        rule="a lost slot is not restarted for ever",
        file=RULES,
        old="        if lost:\n            return False\n",
        new="",
        tests=unit("test_a_lost_slot_is_told_once_and_not_restarted_for_ever"),
    ),
    Mutation(
        rule="a slot that has gone is lost",
        file=RULES,
        old="is_gone = slot is None and self._slot is not None",
        new="is_gone = False",
        tests=unit("test_a_lost_slot_is_told_once_and_not_restarted_for_ever"),
    ),
    Mutation(
        rule="a slot that was not made yet is not lost",
        file=RULES,
        old="is_gone = slot is None and self._slot is not None",
        new="is_gone = slot is None",
        tests=unit("test_a_slot_that_was_not_made_yet_is_no_lost_one"),
    ),
    Mutation(
        rule="a database that is away keeps no restart back",
        file=RULES,
        old="        except Unavailable as error:\n            self._tell_once",
        new="        except ZeroDivisionError as error:\n            self._tell_once",
        tests=unit("test_a_database_that_is_away_keeps_no_restart_back"),
    ),
    Mutation(
        rule="a worker that shares out its work is asked again",
        file=CONNECT,
        old="if answer.status_code != httpx.codes.CONFLICT:",
        new="if True:",
        tests=unit("test_a_worker_that_shares_out_its_work_is_asked_again"),
    ),
    Mutation(
        rule="asking again has an end",
        file=CONNECT,
        old="                asyncio.timeout(within_s),\n",
        new="                asyncio.timeout(None),\n",
        tests=unit("test_what_goes_wrong_is_told_in_one_line_without_the_password"),
    ),
    Mutation(
        rule="the last cause is told",
        file=CONNECT,
        old="return _line(causes[-1] if causes else lines[0])",
        new="return _line(lines[0])",
        tests=unit("test_a_state_tells_the_cause_of_a_failure"),
    ),
    Mutation(
        rule="tables are no patterns",
        file=CONNECT,
        old='",".join(map(re.escape, self.captured))',
        new='",".join(self.captured)',
        tests=unit("test_the_heartbeat_table_always_comes_along_and_tables_are_no_patterns"),
    ),
    Mutation(
        rule="the heartbeat comes along",
        file=CONNECT,
        old="sorted({HEARTBEAT_TABLE, *self.tables})",
        new="sorted(self.tables)",
        tests=unit("test_the_heartbeat_table_always_comes_along_and_tables_are_no_patterns"),
    ),
)
