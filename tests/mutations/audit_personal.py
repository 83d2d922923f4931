"""The rules by which personal data is sealed, shown, and erased."""

from tests.mutations import rule

PERSONAL = "showcase/audit/domain/personal.py"
PROTECTING = "showcase/audit/application/protecting.py"
RECORDER = "showcase/audit/application/recorder.py"
SUBJECTS = "showcase/audit/infrastructure/subjects.py"


def unit(name: str) -> str:
    return f"tests/unit/test_audit_personal.py::{name}"


def real(name: str) -> str:
    return f"tests/integration/test_audit_personal.py::{name}"


MUTATIONS = (
    rule(
        "a row is sealed for whose it is, before and after",
        PROTECTING,
        "after=self._row(change.table, change.after, is_now, locks),",
        "after=self._row(change.table, change.after, was or is_now, locks),",
        unit("test_row_that_goes_over_to_another_subject_is_sealed_with_the_key_of_each"),
    ),
    rule(
        "what is of nobody known is sealed all the same",
        PERSONAL,
        "        return UNKNOWN\n",
        '        return ""\n',
        unit("test_the_first_way_that_says_whose_a_row_is_is_taken_and_nothing_stays_unsealed"),
    ),
    rule(
        "an empty column says nothing of whose a row is",
        PERSONAL,
        'isinstance(value, str | int) and value != "" for',
        "isinstance(value, str | int) for",
        unit("test_the_first_way_that_says_whose_a_row_is_is_taken_and_nothing_stays_unsealed"),
    ),
    rule(
        "what is NULL stays so",
        PROTECTING,
        "if column not in columns or value is None:",
        "if column not in columns:",
        unit("test_marked_values_are_sealed_before_and_after_and_the_rest_stays_as_it_is"),
    ),
    rule(
        "a subject that can have no key is refused",
        PERSONAL,
        "if len(subject) > SUBJECT_CHARACTERS or",
        "if False and",
        unit("test_change_of_a_subject_that_can_have_no_key_is_refused_and_holds_up_no_other"),
    ),
    rule(
        "a change that is refused becomes a dead letter",
        RECORDER,
        "                if isinstance(one, BrokenChange):\n                    raise one\n",
        "                if isinstance(one, BrokenChange):\n                    continue\n",
        unit("test_refused_change_is_put_away_with_the_reason"),
    ),
    rule(
        "the same value is the same bytes",
        SUBJECTS,
        'nonce = hmac.digest(self._mac_key, len(where).to_bytes(4) + where + plain, "sha256")[:NONCE_BYTES]',
        "nonce = secrets.token_bytes(NONCE_BYTES)",
        unit("test_same_change_is_the_same_bytes_in_any_process"),
        unit("test_value_that_has_not_changed_is_seen_not_to_have_changed"),
    ),
    rule(
        "another value has another nonce",
        SUBJECTS,
        "len(where).to_bytes(4) + where + plain",
        "where",
        unit("test_no_nonce_comes_twice_for_other_values_or_places"),
    ),
    rule(
        "another place has another nonce",
        SUBJECTS,
        "len(where).to_bytes(4) + where + plain",
        "plain",
        unit("test_no_nonce_comes_twice_for_other_values_or_places"),
    ),
    rule(
        "a value opens in its place only",
        PROTECTING,
        'plain = lock.open(Place(table, column, subject), value["sealed"])',
        'plain = lock.open(Place("orders", "reference", subject), value["sealed"])',
        unit("test_sealed_value_opens_to_what_it_was"),
    ),
    rule(
        "the place is sealed with the value",
        SUBJECTS,
        "packed[NONCE_BYTES:], json.dumps(place).encode())",
        'packed[NONCE_BYTES:], json.dumps(["orders", "reference", "households/7"]).encode())',
        unit("test_value_opens_nowhere_but_in_its_place"),
    ),
    rule(
        "what does not open is shown as unreadable",
        SUBJECTS,
        "except (ValueError, InvalidTag):",
        "except ValueError:",
        unit("test_what_its_key_does_not_open_is_shown_as_unreadable"),
    ),
    rule(
        "what is too short to be sealed is shown as unreadable",
        SUBJECTS,
        "except (ValueError, InvalidTag):",
        "except InvalidTag:",
        unit("test_what_its_key_does_not_open_is_shown_as_unreadable"),
    ),
    rule(
        "a value whose key is lost is no erased one",
        PROTECTING,
        "            return UNREADABLE\n        lock = locks[subject]\n",
        "            return ERASED\n        lock = locks[subject]\n",
        unit("test_value_whose_key_is_lost_is_unreadable_and_one_that_came_after_its_erasure_is_erased"),
    ),
    rule(
        "a key is remembered for so long and no longer",
        PROTECTING,
        "if until > now and len(self._known) <= self._limit:",
        "if len(self._known) <= self._limit:",
        unit("test_remembered_key_is_used_for_no_longer_than_it_lasts"),
        real("test_consumer_that_remembers_a_key_uses_it_no_longer_than_it_may"),
    ),
    rule(
        "a key lasts from before it was asked for",
        PROTECTING,
        "self._known[subject] = key, now + self._lasting_s",
        "self._known[subject] = key, self._clock() + self._lasting_s",
        unit("test_key_lasts_from_before_it_was_asked_for"),
    ),
    rule(
        "so many keys are remembered and no more",
        PROTECTING,
        "if until > now and len(self._known) <= self._limit:",
        "if until > now:",
        unit("test_no_more_keys_are_remembered_than_there_may_be"),
    ),
    rule(
        "a change told again after an erasure is sealed as it is stored",
        RECORDER,
        "        if self._alike(stored, entry.content):\n",
        "        if False:\n",
        unit("test_change_told_again_from_the_other_side_of_an_erasure_is_sealed_as_it_is_stored"),
        unit("test_two_that_record_at_once_while_subjects_are_erased_seal_what_is_stored"),
        real("test_change_told_again_after_an_erasure_is_sealed_as_it_is_stored"),
    ),
    rule(
        "one that was edited is not taken for an erased one",
        SUBJECTS,
        "return bson.encode({**ours, **rows}) == stored",
        "return True",
        unit("test_edited_record_is_still_found_when_its_change_is_told_again_after_an_erasure"),
        unit("test_contents_are_alike_only_when_they_differ_by_an_erasure_and_nothing_else"),
    ),
    rule(
        "of two sealed values neither is taken for the other",
        PERSONAL,
        "if (is_sealed(ours) and is_erased(theirs)) or (is_erased(ours) and is_sealed(theirs)):",
        "if (is_sealed(ours) or is_erased(ours)) and (is_sealed(theirs) or is_erased(theirs)):",
        unit("test_contents_are_alike_only_when_they_differ_by_an_erasure_and_nothing_else"),
    ),
    rule(
        "nor one of another subject",
        PERSONAL,
        'return theirs if ours["subject"] == theirs["subject"] else ours',
        "return theirs",
        unit("test_contents_are_alike_only_when_they_differ_by_an_erasure_and_nothing_else"),
    ),
    rule(
        "a name that comes twice hides nothing",
        SUBJECTS,
        "return bson.encode({**ours, **rows}) == stored",
        "return {**ours, **rows} == theirs",
        unit("test_content_with_a_name_that_comes_twice_is_like_no_other"),
    ),
    rule(
        "two that make a key at once agree on it",
        SUBJECTS,
        'found |= {row.subject: row.key for row in await db.execute(_FIND, {"subjects": missing})}',
        "found |= dict(zip(missing, keys, strict=True))",
        real("test_two_processes_that_meet_the_same_new_subjects_at_once_agree_on_their_keys"),
    ),
    rule(
        "an erased subject never gets a key again",
        SUBJECTS,
        "ON CONFLICT (subject) DO NOTHING",
        "ON CONFLICT (subject) DO UPDATE SET key = excluded.key, erased_at = NULL",
        real("test_subject_that_is_erased_while_its_key_is_made_gets_none"),
    ),
    rule(
        "an erasure is written down once",
        SUBJECTS,
        " WHERE known.key IS NOT NULL\n",
        "\n",
        real("test_erasure_leaves_no_key_is_written_down_once_and_says_who_and_why"),
    ),
    rule(
        "a household's account is erased with it",
        "showcase/composition.py",
        'subjects = (subject,) if account is None else (subject, f"accounts/{account.id}")',
        "subjects = (subject,)",
        real("test_erasing_a_household_erases_its_account_as_well"),
    ),
)
