"""The rules of asking the audit: who made a change, how a row was, what a page costs, and that readers are noted."""

from tests.mutations import Mutation

ASKING = "showcase/audit/application/asking.py"
HISTORY = "showcase/audit/domain/history.py"
HTTP = "showcase/audit/api.py"
READING = "showcase/audit/infrastructure/reading.py"
RECORDS = "showcase/audit/infrastructure/records.py"


def unit(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_audit_asking.py::{name}" for name in names)


def contract(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_audit_archive.py::{name}" for name in names)


REBUILT = unit("test_whatever_happened_to_a_table_its_records_tell_how_it_is_in_any_order_and_more_than_once")
NO_CONTEXT = unit("test_what_is_no_context_of_a_record_does_not_say_who_made_it")
INDEXES = contract("test_every_route_reads_an_index_in_its_order_and_little_more_than_it_shows")
ANSWERS = contract("test_question_is_answered_with_the_records_for_which_all_of_it_holds")

MUTATIONS = (
    Mutation(
        rule="a number of a transaction that comes again is another one",
        file=HISTORY,
        old="record.epoch, record.transaction, record.committed_at",
        new="record.epoch, record.transaction",
        tests=NO_CONTEXT,
    ),
    Mutation(
        rule="of the contexts before a record the last one counts",
        file=ASKING,
        old="for at in before if",
        new="for at in sorted(before) if",
        tests=unit("test_record_belongs_to_the_last_context_of_its_transaction_that_lies_before_it"),
    ),
    Mutation(
        rule="a context that was removed, or found by a snapshot, says nothing",
        file=HISTORY,
        old="record.entity_type == CONTEXT and record.operation is Operation.CREATE",
        new="record.entity_type == CONTEXT",
        tests=NO_CONTEXT,
    ),
    Mutation(
        rule="nobody has made a snapshot",
        file=HISTORY,
        old="        and record.operation is not Operation.READ\n",
        new="",
        tests=unit("test_snapshot_was_made_by_nobody"),
    ),
    Mutation(
        rule="contexts are asked for until all are there",
        file=ASKING,
        old="while len(some) == CONTEXTS_AT_ONCE and",
        new="while False and",
        tests=unit("test_however_many_contexts_a_transaction_has_each_record_gets_its_own"),
    ),
    Mutation(
        rule="a deed has its own records only",
        file=ASKING,
        old="one.context is not None and one.context.id == context.id for one in shown",
        new="one.who == who(context) for one in shown",
        tests=unit("test_deed_has_the_records_of_its_own_context_only_also_when_the_same_one_acts_again"),
    ),
    Mutation(
        rule="others behind a deed are no more of it",
        file=ASKING,
        old="len(found) <= MAX_DEED or not is_ours[-1]",
        new="len(found) <= MAX_DEED",
        tests=unit("test_deed_is_whole_unless_more_of_it_is_there"),
    ),
    Mutation(
        rule="a row that was deleted is gone since then, not since its table was emptied",
        file=HISTORY,
        old="elif state is not None and state.row is not None:",
        new="elif state is not None:",
        tests=unit("test_row_is_told_as_it_was_and_since_which_record"),
    ),
    Mutation(
        rule="a truncation empties the table",
        file=HISTORY,
        old="                del rows[emptied]\n",
        new="                rows[emptied]\n",
        tests=REBUILT,
    ),
    Mutation(
        rule="records are put in their order",
        file=HISTORY,
        old="return sorted({record.id: record for record in records}.values(), key=lambda record: record.id)",
        new="return list({record.id: record for record in records}.values())",
        tests=REBUILT,
    ),
    Mutation(
        rule="a record that comes twice counts once",
        file=HISTORY,
        old="return sorted({record.id: record for record in records}.values(), key=lambda record: record.id)",
        new="return sorted(records, key=lambda record: record.id)",
        tests=REBUILT,
    ),
    Mutation(
        rule="of two rows of one key the one goes that was so",
        file=HISTORY,
        old="next((at for at, row in enumerate(there) if row == record.before), 0)",
        new="len(there) - 1",
        tests=unit("test_keys_that_are_exchanged_in_one_statement_leave_both_rows"),
    ),
    Mutation(
        rule="a timeline begins with its row",
        file=ASKING,
        old="question = Question(entity_type=entity_type, entity_ids=(entity_id, WHOLE_TABLE), not_before=first.id)",
        new="question = Question(entity_type=entity_type, entity_ids=(entity_id, WHOLE_TABLE))",
        tests=unit("test_timeline_has_the_truncations_since_the_row_is_there_and_no_earlier_ones"),
    ),
    Mutation(
        rule="what a difference begins with is no part of it",
        file=ASKING,
        old="if one.committed_at > since]",
        new="]",
        tests=unit("test_difference_names_the_record_that_each_column_is_by"),
    ),
    Mutation(
        rule="readers are noted",
        file=HTTP,
        old='APIRouter(prefix="/audit", tags=["audit"], dependencies=[Depends(noted)])',
        new='APIRouter(prefix="/audit", tags=["audit"], dependencies=[require(Scope.AUDIT_READ)])',
        tests=unit("test_nothing_is_shown_of_what_is_not_noted"),
    ),
    Mutation(
        rule="only who may read gets in",
        file=HTTP,
        old="require(Scope.AUDIT_READ)",
        new="require(Scope.ACCOUNT)",
        tests=unit("test_whoever_may_not_read_is_turned_away", "test_nothing_is_shown_of_what_is_not_noted"),
    ),
    Mutation(
        rule="a path that PostgreSQL cannot hold is noted all the same",
        file=HTTP,
        old='.replace("\\0", "\\ufffd")',
        new="",
        tests=unit("test_whoever_reads_is_noted_with_what_he_asked_for_even_if_it_is_not_there"),
    ),
    Mutation(
        rule="a number is no time",
        file=HTTP,
        old="Time = Annotated[Moment, BeforeValidator(_rfc3339)]",
        new="Time = Moment",
        tests=unit("test_time_without_an_offset_or_that_is_none_is_refused"),
    ),
    Mutation(
        rule="an export that cannot begin has a status",
        file=HTTP,
        old="first = await anext(records, None)",
        new="first = None",
        tests=unit("test_export_that_cannot_begin_has_the_status_of_what_is_wrong"),
    ),
    Mutation(
        rule="an export that breaks off says so, whatever the reason",
        file=HTTP,
        old="        except Exception as error:",
        new="        except ZeroDivisionError as error:",
        tests=unit("test_export_that_breaks_off_says_so_in_its_last_line"),
    ),
    Mutation(
        rule="records of one moment are divided by their ids",
        file=READING,
        old='"$or": [{time: {further: after.committed_at}}, {"_id": {further: after.id}}],',
        new='"$or": [{time: {further: after.committed_at}}],',
        tests=contract("test_pages_of_any_order_have_every_record_once"),
    ),
    Mutation(
        rule="contexts are in no list for which they were not asked",
        file=READING,
        old="[one for one in there if one != CONTEXT]",
        new="there",
        tests=ANSWERS,
    ),
    Mutation(
        rule="who never said his name is found as unknown",
        file=READING,
        old="None if question.actor == UNKNOWN else question.actor",
        new="question.actor",
        tests=ANSWERS,
    ),
    Mutation(
        rule="contexts of a transaction have an index, however large it is",
        file=RECORDS,
        old='Index(keys=("change.entity_type", "change.transaction", "_id"), only',
        new='Index(keys=("change.entity_type", "change.application", "_id"), only',
        tests=INDEXES,
    ),
    Mutation(
        rule="records of a table have an index by time",
        file=RECORDS,
        old='Index(keys=("change.entity_type", "change.committed_at", "_id")),',
        new='Index(keys=("change.committed_at", "_id")),',
        tests=INDEXES,
    ),
    Mutation(
        rule="a row as it was is found without reading what became of it",
        file=RECORDS,
        old='"change.entity_id", "_id", "change.committed_at")',
        new='"change.entity_id", "_id")',
        tests=INDEXES,
    ),
)
