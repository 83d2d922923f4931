"""The rules by which a consumer handles each event once and loses none."""

from tests.mutations import Mutation

CONSUMER = "showcase/messaging/worker/consumer.py"
SETTLING = "showcase/messaging/application/settling.py"
DATABASE = "showcase/platform/database.py"
UNIT = "tests/unit/test_consumer.py"
REAL = "tests/integration/test_consumer.py"
PARTS = "tests/integration/test_database.py"


def removed(rule: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(rule=rule, file=file, old=old, new=new, tests=tests)


MUTATIONS = (
    removed(
        "acknowledged after the commit, not before",
        CONSUMER,
        "        with suppress(_Stopped):\n",
        "        self.broker.acknowledge(taken)\n        with suppress(_Stopped):\n",
        f"{UNIT}::test_whoever_waits_for_the_database_can_be_stopped_and_leaves_all_messages",
    ),
    removed(
        "acknowledged when its copy was taken, not when it was sent",
        CONSUMER,
        "[delivery for delivery, _ in moved]",
        "[delivery for delivery, _ in copies]",
        f"{UNIT}::test_what_cannot_be_parked_before_the_end_goes_back_into_its_queue",
    ),
    removed(
        "what was handled is not asked again",
        CONSUMER,
        "work.is_done = work.id in seen",
        "work.is_done = False",
        f"{UNIT}::test_what_was_handled_before_is_not_even_asked_again",
    ),
    removed(
        "what another consumer has entered is not handled",
        CONSUMER,
        "if work.id in entered and (failure",
        "if (failure",
        f"{REAL}::test_two_consumers_that_get_the_same_events_twice_have_one_effect_each",
    ),
    removed(
        "the inbox and the handlers share one transaction",
        CONSUMER,
        "        async with self.transaction():\n",
        "        async with self.transaction():\n            pass\n        if True:\n",
        f"{UNIT}::test_a_consumer_that_dies_in_a_handler_leaves_nothing_of_its_batch",
    ),
    removed(
        "an event is handled once in a batch",
        CONSUMER,
        "works.setdefault(task.event.id, _Work(task))",
        "works.setdefault(EventId(str(id(delivery))), _Work(task))",
        f"{UNIT}::test_the_same_event_twice_in_a_batch_is_handled_once",
    ),
    removed(
        "a failure undoes what its handler did",
        CONSUMER,
        "asyncio.timeout(HANDLED_WITHIN_S), self.savepoint():",
        "asyncio.timeout(HANDLED_WITHIN_S):",
        f"{UNIT}::test_a_failure_undoes_what_its_handler_did_and_nothing_else",
    ),
    removed(
        "what has failed is not in the inbox",
        CONSUMER,
        "await self.inbox.leave(work.id)",
        "pass",
        f"{UNIT}::test_a_failure_undoes_what_its_handler_did_and_nothing_else",
    ),
    removed(
        "a transaction that fails is nobody's failure before each was tried alone",
        CONSUMER,
        "                await self._handle_alone(work)",
        "                work.failure = Failure.of(error)",
        f"{UNIT}::test_a_message_at_which_the_transaction_fails_each_time_is_found_and_the_others_are_handled",
    ),
    removed(
        "a message is to blame only if the database answers",
        CONSUMER,
        "if not await self._answers(work):",
        "if False:",
        f"{UNIT}::test_a_database_that_goes_away_in_the_middle_of_a_batch_is_nobodys_failed_attempt",
    ),
    removed(
        "the rest is handed back at the end",
        CONSUMER,
        "        await broker.hand_back()",
        "        pass",
        f"{UNIT}::test_what_is_in_hand_is_finished_before_the_end_and_the_rest_handed_back",
    ),
    removed(
        "a copy goes to one queue",
        SETTLING,
        'frozenset({"CC", "BCC"})',
        "frozenset[str]()",
        f"{UNIT}::test_what_the_broker_has_said_of_a_message_and_who_else_was_to_get_it_are_not_copied",
    ),
    removed(
        "what is undone has no afterwards",
        DATABASE,
        "            del here.afterwards[registered:]",
        "            pass",
        f"{PARTS}::test_an_error_in_a_savepoint_undoes_that_part_and_no_more",
    ),
)
