"""The rules by which every audited change tells who made it: a request, a consumer, somebody by hand."""

from tests.mutations import Mutation

ACTING = "showcase/kernel/acting.py"
DATABASE = "showcase/platform/database.py"
ENVELOPE = "showcase/platform/web/envelope.py"
CALLERS = "showcase/platform/web/callers.py"
CONSUMER = "showcase/messaging/worker/consumer.py"
MIGRATION = "showcase/migrations/versions/v0007_audit.py"
UNIT = "tests/unit/test_acting.py"
REAL = "tests/integration/test_audit_context.py"


def removed(rule: str, file: str, old: str, new: str, *tests: str) -> Mutation:
    return Mutation(rule=rule, file=file, old=old, new=new, tests=tests)


MUTATIONS = (
    # -- as it is said
    removed(
        "what strangers say is bounded",
        ACTING,
        "getattr(self, name)[:limit]",
        "getattr(self, name)",
        f"{UNIT}::test_each_value_is_cut_to_its_limit",
    ),
    removed(
        "no NUL is said",
        ACTING,
        'text.replace("\\0", "\\ufffd")',
        "text",
        f"{UNIT}::test_nothing_is_said_that_postgresql_cannot_hold",
    ),
    removed(
        "half a surrogate pair is not said",
        ACTING,
        '.encode("utf-8", "replace").decode("utf-8")',
        "",
        f"{UNIT}::test_nothing_is_said_that_postgresql_cannot_hold",
    ),
    removed(
        "nobody acts after the block",
        ACTING,
        "        _CURRENT.reset(token)",
        "        pass",
        f"{UNIT}::test_each_task_knows_who_acts_in_it_and_nobody_acts_after_the_block",
    ),
    removed(
        "who is identified acts only where somebody does",
        ACTING,
        "    if here is not None:\n",
        "    here = here or Acting(actor='')\n    if True:\n",
        f"{UNIT}::test_whoever_is_identified_takes_the_place_of_the_anonymous_and_of_nobody_else",
    ),
    # -- a request, a message
    removed(
        "whoever only looks does not act",
        ENVELOPE,
        " or method in SAFE",
        "",
        f"{UNIT}::test_whoever_only_looks_does_not_act",
    ),
    removed(
        "a reason is printable and short",
        ENVELOPE,
        'if reason.isprintable() and len(reason) <= LIMITS["reason"] else',
        "if True else",
        f"{UNIT}::test_a_reason_is_taken_if_it_can_be_shown",
    ),
    removed(
        "a reason that is no UTF-8 is ignored",
        ENVELOPE,
        '    except UnicodeDecodeError:\n        return ""',
        "    except UnicodeDecodeError:\n        return given",
        f"{UNIT}::test_a_reason_is_taken_if_it_can_be_shown",
    ),
    removed(
        "the caller acts",
        CALLERS,
        "    acting.identify(",
        "    (lambda *_: None)(",
        f"{UNIT}::test_the_caller_of_an_unsafe_request_acts",
    ),
    removed(
        "a consumer acts for the request that an event came of",
        CONSUMER,
        ", acting(self._acting(task.event)):",
        ":",
        f"{UNIT}::test_a_consumer_acts_for_the_request_that_an_event_came_of",
    ),
    # -- a transaction
    removed(
        "a transaction tells who acts",
        DATABASE,
        "                            if here.actor is not None:",
        "                            if False:",
        f"{REAL}::test_what_is_said_arrives_as_it_was_said_whatever_is_in_it",
    ),
    removed(
        "whoever does not act has nothing sent",
        DATABASE,
        "                            if here.actor is not None:",
        "                            if True:",
        f"{REAL}::test_whoever_does_not_act_has_nothing_more_sent",
    ),
    removed(
        "it ends with the transaction",
        DATABASE,
        'f"SET LOCAL audit',
        'f"SET SESSION audit',
        f"{REAL}::test_nobody_has_acted_in_a_transaction_that_comes_later_on_the_same_connection",
    ),
    removed(
        "another acts in a part",
        DATABASE,
        '"SAVEPOINT part" + ("; " + _say(inner) if is_another else "")',
        '"SAVEPOINT part"',
        f"{REAL}::test_another_acts_in_a_part_and_the_first_again_after_it",
    ),
    removed(
        "after a part the first acts again",
        DATABASE,
        '"RELEASE part" + ("; " + _say(outer) if is_another else "")',
        '"RELEASE part"',
        f"{REAL}::test_another_acts_in_a_part_and_the_first_again_after_it",
    ),
    removed(
        "after a part that was undone too",
        DATABASE,
        "        finally:\n            here.actor = outer\n",
        "",
        f"{REAL}::test_within_a_part_that_is_undone_the_one_who_acted_before_acts_again",
        f"{REAL}::test_each_event_of_a_batch_has_its_context_in_the_log_before_the_rows_it_explains",
        f"{REAL}::test_a_part_that_is_undone_leaves_no_context_and_the_next_one_has_its_own",
    ),
    # -- in the database
    removed(
        "the context lies before the rows it explains",
        MIGRATION,
        "CREATE TRIGGER who BEFORE INSERT",
        "CREATE TRIGGER who AFTER INSERT",
        f"{REAL}::test_each_event_of_a_batch_has_its_context_in_the_log_before_the_rows_it_explains",
    ),
    removed(
        "one context is written once a transaction",
        MIGRATION,
        "IF current_setting('audit.written', true) = '=' || said THEN",
        "IF false THEN",
        f"{REAL}::test_many_changes_by_one_in_one_transaction_have_one_context",
    ),
    removed(
        "what was written is forgotten with the transaction",
        MIGRATION,
        "'=' || said, true);",
        "'=' || said, false);",
        f"{REAL}::test_many_changes_by_one_in_one_transaction_have_one_context",
    ),
    removed(
        "another context is written again",
        MIGRATION,
        "IF current_setting('audit.written', true) = '=' || said THEN",
        "IF current_setting('audit.written', true) <> '' THEN",
        f"{REAL}::test_another_acts_in_a_part_and_the_first_again_after_it",
    ),
    removed(
        "what cannot be read fails no change",
        MIGRATION,
        "WHEN data_exception OR program_limit_exceeded THEN",
        "WHEN division_by_zero THEN",
        f"{REAL}::test_what_cannot_be_read_fails_no_change_and_shows",
    ),
    removed(
        "what is nested too deeply fails no change",
        MIGRATION,
        " OR program_limit_exceeded",
        "",
        f"{REAL}::test_what_cannot_be_read_fails_no_change_and_shows",
    ),
    removed(
        "what is no object shows",
        MIGRATION,
        "IF jsonb_typeof(who) <> 'object' THEN",
        "IF false THEN",
        f"{REAL}::test_what_cannot_be_read_fails_no_change_and_shows",
    ),
    removed(
        "what is said by hand is bounded",
        MIGRATION,
        "left(who ->> 'reason', 500)",
        "who ->> 'reason'",
        f"{REAL}::test_what_is_said_by_hand_is_bounded_too",
    ),
    removed(
        "a service may not write contexts itself, but the trigger may",
        MIGRATION,
        "SECURITY DEFINER ",
        "",
        f"{REAL}::test_each_event_of_a_batch_has_its_context_in_the_log_before_the_rows_it_explains",
    ),
    removed(
        "the user who has logged in is told, not the owner of the function",
        MIGRATION,
        "            session_user,",
        "            current_user,",
        f"{REAL}::test_each_event_of_a_batch_has_its_context_in_the_log_before_the_rows_it_explains",
    ),
    removed(
        "truncations count",
        MIGRATION,
        "DELETE OR TRUNCATE ON {table}",
        "DELETE ON {table}",
        f"{REAL}::test_so_has_a_truncation_and_a_copy",
    ),
    removed(
        "nobody escapes by replaying",
        MIGRATION,
        "            ALTER TABLE {table} ENABLE ALWAYS TRIGGER who;\n",
        "",
        f"{REAL}::test_not_even_a_session_that_replays_the_work_of_others_escapes",
    ),
    removed(
        "whole rows are logged",
        MIGRATION,
        "            ALTER TABLE {table} REPLICA IDENTITY FULL;\n",
        "",
        f"{REAL}::test_the_tables_that_are_audited_have_the_trigger_and_log_whole_rows",
    ),
    removed(
        "anchors stay as they are",
        MIGRATION,
        "keep BEFORE UPDATE OR DELETE OR TRUNCATE ON",
        "keep BEFORE UPDATE OR DELETE ON",
        f"{REAL}::test_nobody_changes_or_removes_an_anchor_not_even_their_owner",
    ),
    removed(
        "the anchors' role may add and read",
        MIGRATION,
        "GRANT SELECT, INSERT ON audit.anchors",
        "GRANT SELECT, INSERT, UPDATE ON audit.anchors",
        f"{REAL}::test_anchors_are_added_and_read_by_a_role_that_may_nothing_else",
    ),
    removed(
        "an operator acts under a name",
        "showcase/cli/messages.py",
        'with operating("messages discard"):',
        "if True:",
        f"{REAL}::test_an_operator_acts_under_his_own_name",
    ),
)
