"""The rules by which changes become records, and records are sealed."""

from tests.mutations import rule

RECORDER = "showcase/audit/application/recorder.py"
SEALS = "showcase/audit/domain/seals.py"
RECORDS = "showcase/audit/infrastructure/records.py"
CHANGES = "showcase/kernel/changes.py"


def unit(name: str) -> str:
    return f"tests/unit/test_audit.py::{name}"


def changes(name: str) -> str:
    return f"tests/unit/test_changes.py::{name}"


def store(name: str) -> str:
    return f"tests/contract/test_audit_store.py::{name}"


MUTATIONS = (
    rule(
        "a message that was recorded and not sealed is not noted twice",
        RECORDER,
        "if message.offset >= self._open[here].next:",
        "if True:",
        unit("test_what_was_recorded_and_comes_again_before_its_seal_is_sealed_once"),
    ),
    rule(
        "who takes over begins where the last seal ended",
        RECORDER,
        "sealed, previous = (newest.next, newest.hash) if newest else (0, FIRST)",
        "sealed, previous = (0, FIRST)",
        unit("test_who_takes_over_begins_where_the_last_seal_ended"),
    ),
    rule(
        "each seal names the one before it",
        RECORDER,
        "self._open[partition] = _Open(begin=seal.next, previous=seal.hash, next=seal.next)",
        "self._open[partition] = _Open(begin=seal.next, previous=FIRST, next=seal.next)",
        unit("test_seals_are_a_chain_without_gaps_over_all_messages_also_those_that_are_no_records"),
    ),
    rule(
        "messages that are no records are sealed as well",
        RECORDER,
        "            here.next = max(here.next, message.offset + 1)\n            here.due_at = here.due_at or due_at\n",
        "            here.due_at = here.due_at or due_at\n",
        unit("test_seals_are_a_chain_without_gaps_over_all_messages_also_those_that_are_no_records"),
    ),
    rule(
        "a batch is sealed when it has waited, or is full",
        RECORDER,
        "return partitions is not None or is_full or asyncio.get_running_loop().time() >= here.due_at",
        "return partitions is not None or asyncio.get_running_loop().time() >= here.due_at",
        unit("test_seal_is_due_after_some_time_or_some_records_and_not_before"),
    ),
    rule(
        "a topic that began anew is not read as if it had gone on",
        RECORDER,
        "if end is not None and sealed > end:",
        "if False:",
        unit("test_topic_that_began_anew_is_refused_since_its_messages_would_be_taken_for_old_ones"),
    ),
    rule(
        "messages that are lost are counted",
        RECORDER,
        "next=offset, lost=lost)",
        "next=offset)",
        unit("test_messages_that_were_removed_before_they_were_read_are_counted_in_the_seal"),
    ),
    rule(
        "a change of another table is refused",
        RECORDER,
        "if rules.tables and change.table not in rules.tables:",
        "if False:",
        unit("test_change_of_a_table_that_is_not_audited_is_put_away"),
    ),
    rule(
        "a message that is too large is refused",
        RECORDER,
        "> rules.max_bytes:",
        "> 10**12:",
        unit("test_message_that_is_too_large_is_put_away"),
    ),
    rule(
        "a commit of a far time is refused",
        RECORDER,
        "if message.arrived_ms and ahead_ms > MAX_AHEAD.total_seconds() * 1000:",
        "if False:",
        unit("test_change_of_a_far_time_is_put_away"),
    ),
    rule(
        "what the store refuses is in no seal",
        RECORDER,
        "[entry for at, entry in enumerate(entries) if at not in added.refused]",
        "entries",
        unit("test_record_that_the_store_refuses_is_put_away_and_is_in_no_seal"),
    ),
    rule(
        "dead letters come in the order of the messages",
        RECORDER,
        "sorted(letters, key=lambda one: (one.message.partition, one.message.offset))",
        "letters",
        "tests/integration/test_audit.py::test_broken_messages_are_put_away_and_the_rest_goes_on",
    ),
    rule(
        "leaves and nodes of the tree are told apart and keep their order",
        SEALS,
        'return hashlib.sha256(b"\\x01" + left + right).digest()',
        'return hashlib.sha256(b"\\x01" + min(left, right) + max(left, right)).digest()',
        unit("test_roots_of_other_leaves_or_in_another_order_are_others"),
    ),
    rule(
        "of two who seal from one place on, one is told that it lost",
        RECORDS,
        "if stored != seal:",
        "if False:",
        store("test_of_two_who_seal_from_the_same_offset_on_one_loses"),
    ),
    rule(
        "a seal that was kept without our knowing is ours",
        RECORDS,
        "if stored != seal:",
        "if True:",
        store("test_seal_that_is_there_already_is_no_loss_if_it_is_ours"),
    ),
    rule(
        "what is told otherwise of a record is said",
        RECORDS,
        "if content not in (None, entries[at].content)",
        "if False",
        store("test_record_that_is_there_stays_as_it_is_and_what_is_told_otherwise_of_it_is_said"),
    ),
    rule(
        "places of SQL Server sort by commit, change and serial",
        CHANGES,
        "{_lsn(change) if change else '0' * 20}{serial:08x}",
        "{_lsn(change) if change else '0' * 20}",
        changes("test_a_key_that_changes_is_a_deletion_and_a_creation_in_one_place"),
    ),
    rule(
        "places of PostgreSQL sort as numbers",
        CHANGES,
        'f"{lsn:016x}"',
        'f"{lsn:x}"',
        changes("test_positions_sort_as_the_log"),
    ),
    rule(
        "a column that came or went is a change",
        CHANGES,
        "before.get(name, gone) != after.get(name, gone)",
        "before.get(name) != after.get(name)",
        changes("test_column_that_came_or_went_is_a_change_also_where_it_is_null"),
    ),
)
