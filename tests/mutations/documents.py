"""The rules of documents: what may be asked, what is stored and read, who overwrites whom, and where a page begins."""

from tests.mutations import Mutation

SLICE = "showcase/documents"
FILTERS = f"{SLICE}/domain/filters.py"
MODEL = f"{SLICE}/domain/documents.py"
CODEC = f"{SLICE}/infrastructure/codec.py"
CURSORS = f"{SLICE}/infrastructure/cursors.py"
REPOSITORY = f"{SLICE}/infrastructure/repository.py"
ERRORS = f"{SLICE}/infrastructure/errors.py"


def unit(name: str) -> tuple[str, ...]:
    return (f"tests/unit/test_documents.py::{name}",)


def contract(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_documents.py::{name}" for name in names)


def bad_input(name: str) -> tuple[str, ...]:
    return (f"tests/contract/test_documents_bad_input.py::{name}",)


MUTATIONS = (
    Mutation(
        rule="a name in a mapping is the name of a field",
        file=FILTERS,
        old="        if name not in self._model.model_fields:",
        new="        if False:",
        tests=unit("test_what_the_model_does_not_have_is_a_bad_query_that_says_why"),
    ),
    Mutation(
        rule="a value is one that the field could have",
        file=FILTERS,
        old="adapter.validator.validate_python(given)",
        new="given",
        tests=unit("test_what_the_model_does_not_have_is_a_bad_query_that_says_why"),
    ),
    Mutation(
        rule="a list of values has its limit",
        file=FILTERS,
        old="if len(where.value) > MAX_VALUES:",
        new="if False:",
        tests=unit("test_what_the_model_does_not_have_is_a_bad_query_that_says_why"),
    ),
    Mutation(
        rule="documents are not sorted by lists",
        file=FILTERS,
        old="if list(_elements(self._model.model_fields[known].annotation)):",
        new="if False:",
        tests=unit("test_documents_are_sorted_by_what_has_one_place"),
    ),
    Mutation(
        rule="a value is below an operator of ours",
        file=REPOSITORY,
        old="        return {path: {str(where.operator): where.value}}",
        new='        return {path: where.value if where.operator == "$eq" else {str(where.operator): where.value}}',
        tests=bad_input("test_an_operator_within_a_field_of_any_content_is_content"),
    ),
    Mutation(
        rule="an id is never read as an operator",
        file=REPOSITORY,
        old='return id_ if isinstance(id_, str | int | UUID | ObjectId) else {"$eq": id_}',
        new="return id_",
        tests=bad_input("test_an_operator_as_an_id_is_an_id_and_nothing_else_is_changed"),
    ),
    Mutation(
        rule="a list of values may hold what looks like operators",
        file=REPOSITORY,
        old="if several is not None:",
        new="if False:",
        tests=bad_input("test_an_operator_within_a_field_of_any_content_is_content"),
    ),
    Mutation(
        rule="a question of none of some finds nothing",
        file=REPOSITORY,
        old="return NOTHING if isinstance(where, Some) else {}",
        new="return {}",
        tests=unit("test_a_filter_becomes_what_mongo_is_asked"),
    ),
    Mutation(
        rule="a replacement is of the version it was made of",
        file=REPOSITORY,
        old="    return version or {",
        new='    return {"$gte": 0} if version else {',
        tests=contract("test_a_replacement_is_of_the_next_version_and_only_of_the_one_it_was_made_of"),
    ),
    Mutation(
        rule="what has no version is of version 0",
        file=REPOSITORY,
        old='version or {"$in": [0, None]}',
        new="version",
        tests=contract("test_what_has_no_version_is_of_version_0_for_every_call"),
    ),
    Mutation(
        rule="a replacement in a bulk that comes late is no insertion",
        file=REPOSITORY,
        old='{**self._next(document), "$setOnInsert": {"_id": None}}, upsert=True',
        new="self._next(document), upsert=True",
        tests=contract("test_a_bulk_tells_what_came_of_each_change_and_makes_all_that_can_be_made"),
    ),
    Mutation(
        rule="what is as new is not put over what is there",
        file=REPOSITORY,
        old='newer = "$gte" if isinstance(change, PutNewer) else "$gt"',
        new='newer = "$gt"',
        tests=contract("test_only_what_is_newer_is_put"),
    ),
    Mutation(
        rule="a bulk is no part of a transaction",
        file=REPOSITORY,
        old="        if self._mongo.is_in_transaction:",
        new="        if False:",
        tests=contract("test_a_bulk_is_no_part_of_a_transaction"),
    ),
    Mutation(
        rule="of a bulk, only what cannot be stored is not made",
        file=REPOSITORY,
        old="                outcomes[place] = error\n",
        new="                raise\n",
        tests=bad_input("test_of_a_bulk_only_what_is_too_large_or_unstorable_is_not_made"),
    ),
    Mutation(
        rule="a patch leaves the id and the version alone",
        file=REPOSITORY,
        old='if refused_names := {"id", "version"} & changes.keys():',
        new="if refused_names := set() & changes.keys():",
        tests=contract("test_a_patch_of_what_the_model_does_not_have_is_a_bad_query"),
    ),
    Mutation(
        rule="what is asked can be written as BSON",
        file=REPOSITORY,
        old='            encoded(wanted, f"what is asked of {self._name}")\n',
        new="            pass\n",
        tests=contract("test_what_cannot_be_asked_is_a_bad_query"),
    ),
    Mutation(
        rule="a page that ends at a list does not begin again there",
        file=REPOSITORY,
        old="if not any(isinstance(value, list) for value in values):",
        new="if values:",
        tests=contract("test_lists_where_there_should_be_none_hide_no_other_document"),
    ),
    Mutation(
        rule="a document that does not fit spoils no other",
        file=CODEC,
        old="yield from (self._fit_or_misfit(raw) for raw in some)",
        new="yield from map(self.decode, some)",
        tests=unit("test_what_does_not_fit_stays_in_its_place_and_spoils_no_other"),
    ),
    Mutation(
        rule="a decimal that is none of 34 digits is read as the driver reads it",
        file=CODEC,
        old=" or digits > _LARGEST:",
        new=":",
        tests=("tests/contract/test_documents_fields.py::test_a_decimal_is_read_as_the_driver_reads_it",),
    ),
    Mutation(
        rule="a mapping that looks like a reference is a mapping",
        file=CODEC,
        old="_References(), _Times()",
        new="_Times()",
        tests=bad_input("test_an_operator_within_a_field_of_any_content_is_content"),
    ),
    Mutation(
        rule="what is nested too deeply is known before it is sent",
        file=CODEC,
        old=" and _is_too_deep(value):",
        new=" and False:",
        tests=bad_input("test_what_is_nested_too_deeply_is_unstorable"),
    ),
    Mutation(
        rule="what is too large is known before it is sent",
        file=CODEC,
        old="    if len(raw) > MAX_BYTES:",
        new="    if False:",
        tests=unit("test_levels_and_bytes_have_their_limits"),
    ),
    Mutation(
        rule="a cursor is signed",
        file=CURSORS,
        old="if not any(hmac.compare_digest(mac, _mac(secret, payload, question)) for secret in self._secrets):",
        new="if not self._secrets:",
        tests=unit("test_anything_but_a_cursor_is_a_bad_cursor"),
    ),
    Mutation(
        rule="a cursor is of one question",
        file=CURSORS,
        old='b"showcase documents cursor" + asked + payload',
        new='b"showcase documents cursor" + payload',
        tests=contract("test_a_cursor_is_good_for_its_own_question_only"),
    ),
    Mutation(
        rule="an older secret opens what it has signed",
        file=CURSORS,
        old="for secret in self._secrets):",
        new="for secret in self._secrets[:1]):",
        tests=contract("test_cursors_outlive_the_rotation_of_secrets_but_not_the_secret"),
    ),
    Mutation(
        rule="the id decides between equals",
        file=CURSORS,
        old='[*keys.items(), ("_id", [*keys.values()][-1])]',
        new="[*keys.items()]",
        tests=contract("test_pages_have_everything_once_and_in_order"),
    ),
    Mutation(
        rule="what comes after the id decides nothing",
        file=CURSORS,
        old='        if "_id" not in keys:',
        new="        if True:",
        tests=unit("test_each_key_of_an_order_decides_once_and_the_id_comes_last"),
    ),
    Mutation(
        rule="a field of another type hides nothing that comes after it",
        file=CURSORS,
        old='of_type = [{"$type": list(others)}] if others else []',
        new="of_type: list[dict[str, Any]] = []",
        tests=contract("test_pages_go_on_past_misfits_whatever_is_in_the_field_they_are_sorted_by"),
    ),
    Mutation(
        rule="what is no number has its place among numbers",
        file=CURSORS,
        old='if value == value else {"$gte": -math.inf}',
        new='if True else {"$gte": -math.inf}',
        tests=contract("test_pages_have_everything_once_and_in_order"),
    ),
    Mutation(
        rule="a page backwards costs no more than one forwards",
        file=CURSORS,
        old='nothing = [] if name == "_id" else [None]',
        new="nothing = [None]",
        tests=bad_input("test_a_page_costs_the_same_wherever_it_begins"),
    ),
    Mutation(
        rule="null comes before everything",
        file=CURSORS,
        old='return [{"$ne": None}] if direction > 0 else []',
        new="return []",
        tests=contract("test_pages_have_everything_once_and_in_order"),
    ),
    Mutation(
        rule="a model with times that come back as others is no collection",
        file=MODEL,
        old="        if _has_other_times(self.model.__pydantic_core_schema__):",
        new="        if False:",
        tests=unit("test_a_collection_keeps_moments_and_no_other_times"),
    ),
    Mutation(
        rule="a model whose fields have other names in MongoDB is no collection",
        file=MODEL,
        old='if field.serialization_alias not in (None, "_id" if name == "id" else name):',
        new="if False:",
        tests=unit("test_a_field_is_stored_by_the_name_it_is_asked_for"),
    ),
    Mutation(
        rule="a validator's refusal says which fields",
        file=ERRORS,
        old='rules=_rules(details.get("errInfo", {}))',
        new="rules=[]",
        tests=unit("test_a_validators_answer_is_told_by_the_names_it_complains_of"),
    ),
)
