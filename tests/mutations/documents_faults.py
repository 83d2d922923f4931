"""The rules by which documents outlive faults: deadlines, transactions, schema, change streams."""

from tests.mutations import rule

IN = "showcase/documents/infrastructure"
MONGO, SCHEMA, CHANGES = f"{IN}/mongo.py", f"{IN}/schema.py", f"{IN}/changes.py"


def faults(name: str) -> str:
    return f"tests/integration/test_documents_faults.py::{name}"


def transactions(name: str) -> str:
    return f"tests/integration/test_documents_transactions.py::{name}"


def schema(name: str) -> str:
    return f"tests/integration/test_documents_schema.py::{name}"


def changes(name: str) -> str:
    return f"tests/integration/test_documents_changes.py::{name}"


def apps(name: str) -> str:
    return f"tests/integration/test_documents_apps.py::{name}"


def driver(name: str) -> str:
    return f"tests/unit/test_documents_driver.py::{name}"


MUTATIONS = (
    rule(
        "each call has a deadline that a paused server cannot defeat",
        MONGO,
        "timeoutMS=_ms(options.timeout_s),\n                server",
        "timeoutMS=_ms(options.timeout_s * 3),\n                server",
        faults("test_a_route_whose_server_is_away_says_so_in_time_and_when_to_try_again[paused]"),
    ),
    rule(
        "calls that pile up are shed early",
        MONGO,
        "is_full = self.watch",
        "is_full = False and self.watch",
        faults("test_a_call_that_finds_every_connection_in_use_is_unavailable_as_soon_as_it_has_waited_long_enough"),
    ),
    rule(
        "a transaction has one deadline for all of its calls",
        MONGO,
        "with pymongo.timeout(within_s):",
        "with nullcontext():",
        transactions("test_the_deadline_of_a_transaction_is_one_for_all_of_its_calls[as_block]"),
    ),
    rule(
        "a transaction whose time is up is undone at once",
        MONGO,
        "                        yield\n                        await _commit(session, ends_at)\n"
        "                finally:\n",
        "                        try:\n                            yield\n"
        "                            await _commit(session, ends_at)\n"
        "                        except BaseException:\n                            await session.abort_transaction()\n"
        "                            raise\n                finally:\n",
        transactions(
            "test_a_transaction_that_takes_too_long_is_unavailable_in_time_and_holds_nothing_up[as_block]",
        ),
    ),
    rule(
        "a commit whose answer is lost is asked for again",
        MONGO,
        "if expired or is_known or",
        "if True or",
        transactions(
            "test_a_commit_whose_answer_is_lost_is_asked_for_again_and_is_made_once[after it was committed-as_block]"
        ),
    ),
    rule(
        "a function that meets another transaction is called again",
        MONGO,
        "if not _was_in_the_way(error) or",
        "if True or",
        transactions("test_a_function_that_really_meets_another_transaction_comes_after_it"),
    ),
    rule(
        "a transaction within another is refused",
        MONGO,
        "if self._open.get() is not None:",
        "if False:",
        transactions("test_a_transaction_within_another_is_refused_and_the_outer_one_goes_on"),
    ),
    rule(
        "a transaction is its task's alone",
        MONGO,
        "if open_ is not None and open_.task",
        "if False and open_.task",
        transactions("test_a_task_that_is_started_within_a_transaction_is_refused"),
    ),
    rule(
        "a command carries the trace of whoever asks",
        MONGO,
        '"comment": trace.current()',
        '"comment": None',
        apps("test_each_command_carries_the_trace_to_the_server"),
    ),
    rule(
        "what another transaction has stopped may succeed later",
        f"{IN}/errors.py",
        '_PASSING = ("RetryableWriteError", "TransientTransactionError", "UnknownTransactionCommitResult")',
        "_PASSING: tuple[str, ...] = ()",
        transactions("test_a_block_that_really_meets_another_transaction_is_unavailable"),
    ),
    rule(
        "a server that is not ready will be",
        f"{IN}/errors.py",
        "error.code in NOT_READY",
        "False",
        faults("test_a_server_that_has_just_started_and_cannot_answer_yet_is_unavailable"),
    ),
    rule(
        "a process that was overtaken looks again",
        SCHEMA,
        "if error.code not in _OVERTAKEN:",
        "if True:",
        schema("test_processes_that_apply_the_same_schema_at_once_all_succeed"),
    ),
    rule(
        "an index is not built again for its expiry",
        SCHEMA,
        "if EXPIRY in found and EXPIRY in wanted",
        "if False and EXPIRY in wanted",
        schema("test_an_index_whose_expiry_changes_is_not_built_again"),
    ),
    rule(
        "an index is the same whatever its name is",
        SCHEMA,
        " or _popped(found, index)",
        "",
        schema("test_an_index_that_is_there_under_another_name_is_taken_for_what_it_is"),
    ),
    rule(
        "the order of keys makes an index",
        SCHEMA,
        '"key": [*index["key"].items()]',
        '"key": dict(index["key"])',
        schema("test_the_order_of_an_indexs_keys_is_part_of_it"),
    ),
    rule(
        "the place before the first change is stored",
        CHANGES,
        "        if found is None:\n",
        "        if False:\n",
        changes("test_a_reader_misses_nothing_from_its_first_start_on_although_it_ends_before_the_first_change"),
    ),
    rule(
        "a change is handled when the next one is asked for",
        CHANGES,
        "                yield self._read(told)\n",
        "                await self._save(stream.resume_token)\n                yield self._read(told)\n",
        changes("test_a_change_in_whose_handling_a_reader_ends_comes_again"),
    ),
    rule(
        "a place is saved while nothing happens",
        CHANGES,
        "clock() - saved_at >= SAVE_EVERY_S",
        "False",
        changes("test_a_reader_to_whom_nothing_happens_saves_its_place_all_the_same"),
    ),
    rule(
        "a lost history is told as such",
        CHANGES,
        "_LOST = (136, 260, 280, 286)",
        "_LOST = (136, 260, 286)",
        changes("test_a_place_at_which_nothing_happened_is_of_another_history"),
    ),
    rule(
        "a collection that is gone is a lost history",
        CHANGES,
        'raise HistoryLost(f"{self._what}: the collection is gone ({kind}); forget the place, and build anew")',
        "raise StopAsyncIteration",
        changes("test_a_collection_that_goes_is_a_lost_history_until_the_place_is_forgotten"),
    ),
    rule(
        "a server that is away is told",
        f"{IN}/watch.py",
        "self._seen(event, is_up=False)",
        "self._seen(event, is_up=True)",
        apps("test_a_server_is_up_then_away_then_up_again"),
    ),
    rule(
        "a cancellation that the driver has swallowed is not forgotten",
        CHANGES,
        "and task.cancelling():",
        "and False:",
        driver("test_a_reader_of_changes_that_is_cancelled_at_the_moment_of_an_answer_ends"),
    ),
    rule(
        "closing ends, whatever the driver waits for",
        MONGO,
        "await asyncio.wait_for(self.client.close(), self.options.timeout_s)",
        "await self.client.close()",
        driver("test_a_client_that_does_not_end_is_left_after_the_time_of_a_call"),
    ),
)
