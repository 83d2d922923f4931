"""What an operator does to parked messages: once, all or nothing, and written down."""

from tests.mutations import Mutation

PARKED = "showcase/messaging/application/parked.py"
OPERATIONS = "showcase/messaging/application/operations.py"
SQL = "showcase/messaging/infrastructure/parked.py"
KEEPER = "showcase/messaging/worker/parking.py"
METRICS = "showcase/platform/web/metrics.py"
UNIT = "tests/unit/test_operations.py"
CONTRACT = "tests/contract/test_parked.py"
SYSTEM = "tests/integration/test_operations.py"


def of(rule: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(rule=rule, file=file, old=old, new=new, tests=tests)


MUTATIONS = (
    # -- what is kept
    of(
        "the same event parked twice is one entry",
        PARKED,
        'left = {} if attributes.get("id") else',
        "left =",
        f"{UNIT}::test_the_same_event_parked_twice_is_one_entry_and_after_a_replay_another",
    ),
    of(
        "an event is not known by its id alone",
        PARKED,
        'identity + b"\\n" + delivery.body',
        "identity",
        f"{UNIT}::test_events_of_two_strangers_with_one_id_are_two_entries",
    ),
    of(
        "what PostgreSQL cannot store is replaced",
        PARKED,
        '.replace("\\x00", "\\ufffd")',
        "",
        f"{CONTRACT}::test_whatever_a_stranger_sends_can_be_kept",
    ),
    of(
        "a message is kept before it is acknowledged",
        KEEPER,
        "            new = await lot.add([Parked.of(delivery) for delivery in batch])\n"
        "            broker.acknowledge(batch)\n",
        "            broker.acknowledge(batch)\n"
        "            new = await lot.add([Parked.of(delivery) for delivery in batch])\n",
        f"{UNIT}::test_what_could_not_be_kept_is_not_acknowledged",
    ),
    of(
        "a message handed over twice stays as it is",
        SQL,
        "ON CONFLICT (parked_id) DO NOTHING",
        "ON CONFLICT (parked_id) DO UPDATE SET state = 'parked'",
        f"{CONTRACT}::test_a_message_handed_over_twice_is_there_once_whatever_became_of_it[postgres]",
    ),
    # -- what is done
    of(
        "a message is settled once",
        SQL,
        "WHERE parked_id = ANY(:ids) AND state = 'parked'",
        "WHERE parked_id = ANY(:ids)",
        f"{CONTRACT}::test_a_message_is_settled_once_and_comes_back_whole[postgres]",
    ),
    of(
        "a message is settled once, though two processes find it at once",
        SQL,
        "        FOR UPDATE SKIP LOCKED\n",
        "",
        f"{SYSTEM}::test_a_message_replayed_in_two_processes_at_once_goes_once",
        f"{SYSTEM}::test_all_of_a_filter_replayed_by_two_processes_at_once_go_once_each",
    ),
    of(
        "nobody waits for a message that somebody is settling",
        SQL,
        "FOR UPDATE SKIP LOCKED",
        "FOR UPDATE",
        f"{CONTRACT}::test_a_message_that_somebody_is_settling_is_waited_for_by_nobody",
    ),
    of(
        "replayed if, and only if, it is in the outbox",
        OPERATIONS,
        "        async with self.transaction():\n            if not await self._replay([id_], actor):",
        "        if True:\n            if not await self._replay([id_], actor):",
        f"{UNIT}::test_a_message_that_could_not_be_sent_back_is_still_parked",
    ),
    of(
        "a replay goes to no queue that nobody consumes",
        OPERATIONS,
        "if parked.queue not in self.consumed:",
        "if False:",
        f"{UNIT}::test_nothing_is_replayed_to_a_queue_that_nobody_consumes",
    ),
    of(
        "one that fails again meanwhile is not replayed again",
        OPERATIONS,
        "which.type, newest[0].place, min(",
        "which.type, newest[0].place._replace(parked_at=newest[0].parked_at.replace(year=9999)), min(",
        f"{UNIT}::test_a_message_that_fails_again_meanwhile_is_not_replayed_again",
    ),
    of(
        "what is done is written down",
        OPERATIONS,
        '        await self.lot.act(done, actor=actor, action="replay")\n',
        "",
        f"{UNIT}::test_a_replayed_message_goes_straight_to_its_queue_and_to_no_other",
    ),
    of(
        "who asks often asks the servers once",
        METRICS,
        "if clock() >= kept_until:",
        "if True:",
        f"{UNIT}::test_who_asks_often_asks_the_servers_once",
    ),
)
