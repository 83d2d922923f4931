"""The rules by which dead letters are listed and replayed."""

from tests.mutations import rule

REPLAYING = "showcase/audit/application/replaying.py"
LETTERS = "showcase/audit/infrastructure/letters.py"
COMMANDS = "showcase/cli/audit_letters.py"
WIRING = "showcase/audit/wiring.py"


def unit(name: str) -> str:
    return f"tests/unit/test_audit_letters.py::{name}"


def real(name: str) -> str:
    return f"tests/integration/test_audit_letters.py::{name}"


MUTATIONS = (
    rule(
        "a message that was put away twice is one",
        REPLAYING,
        "newest = {letter.origin: letter for",
        "newest = {letter.at: letter for",
        unit("test_letter_that_was_put_away_twice_is_one_and_the_newest_comes_first"),
    ),
    rule(
        "the newest comes first",
        REPLAYING,
        "for letter in reversed(_by_time(newest.values()))",
        "for letter in _by_time(newest.values())",
        unit("test_letter_that_was_put_away_twice_is_one_and_the_newest_comes_first"),
    ),
    rule(
        "how far the recorder has got is asked first",
        REPLAYING,
        "    letters = await box.letters()\n    newest",
        "    letters = await box.letters()\n    handled = await box.handled()\n    newest",
        unit("test_letter_that_fails_while_somebody_looks_is_not_taken_for_recorded"),
    ),
    rule(
        "what the recorder has not got to waits",
        REPLAYING,
        "if any(replay.offset < handled.get(replay.partition, 0) for replay in left):",
        "if left:",
        unit("test_letter_is_open_then_waiting_then_recorded"),
    ),
    rule(
        "what was put away again is not recorded",
        REPLAYING,
        "left = [replay for replay in sent if replay.place not in again]",
        "left = sent",
        unit("test_replayed_letter_that_fails_again_is_the_same_letter_with_its_newest_reason"),
    ),
    rule(
        "one replay that was recorded is enough",
        REPLAYING,
        "    left = [replay for replay in sent if",
        "    left = [replay for replay in sent[-1:] if",
        unit("test_letter_of_which_one_replay_was_recorded_is_recorded_whatever_became_of_others"),
    ),
    rule(
        "all are those that are no record and do not wait",
        REPLAYING,
        "for one in await overview(box) if one.state in due]",
        "for one in await overview(box)]",
        unit("test_replaying_all_twice_replays_nothing_that_waits_or_is_recorded"),
    ),
    rule(
        "an unknown place replays nothing",
        REPLAYING,
        "if names.get(place) not in found]:",
        "if False]:",
        unit("test_letter_is_found_by_each_of_its_places_and_an_unknown_one_replays_nothing"),
    ),
    rule(
        "what is named twice is replayed once",
        REPLAYING,
        "for name in dict.fromkeys(names[place] for place in places)]",
        "for name in [names[place] for place in places]]",
        unit("test_letter_is_found_by_each_of_its_places_and_an_unknown_one_replays_nothing"),
    ),
    rule(
        "a replay has the message's own headers only",
        LETTERS,
        "if name not in (PLACE, REASON, REPLAYED_FROM)]",
        "if True]",
        unit("test_replay_gives_the_message_back_its_own_headers_and_says_where_it_stood"),
    ),
    rule(
        "what is shown cannot steer a terminal",
        COMMANDS,
        "return plain(text[:SHOWN]) +",
        "return text[:SHOWN] +",
        unit("test_what_is_in_a_letter_is_shown_within_bounds_and_steers_no_terminal"),
    ),
    rule(
        "what is shown is bounded",
        COMMANDS,
        "return plain(text[:SHOWN]) +",
        "return plain(text) +",
        unit("test_what_is_in_a_letter_is_shown_within_bounds_and_steers_no_terminal"),
    ),
    rule(
        "what is replayed is read by the recorder",
        WIRING,
        "    topics.append(replay_topic(settings))\n",
        "",
        real("test_replayed_letter_becomes_one_record_when_its_table_is_audited"),
    ),
    rule(
        "only the letters that are chosen are replayed",
        LETTERS,
        "if (origin := origins.get(_at(message))) is not None:",
        'if (origin := origins.get(_at(message), "t:0:0")) is not None:',
        real("test_replay_is_the_message_as_it_was"),
    ),
    rule(
        "there is room for our headers beside the largest message",
        LETTERS,
        "MAX_BYTES = 32 * 1024 * 1024 + 64 * 1024",
        "MAX_BYTES = 32 * 1024 * 1024",
        real("test_largest_message_that_the_broker_takes_can_be_put_away_and_replayed"),
    ),
    rule(
        "letters count for as long as they are to be kept",
        LETTERS,
        "return _time(message) > self._clock() - self._kept",
        "return True",
        real("test_letter_older_than_letters_are_kept_is_no_longer_listed"),
    ),
    rule(
        "only a replay is believed when it says where it stood",
        LETTERS,
        'is_replayed = place.rsplit(":", 2)[0] == replayed',
        "is_replayed = True",
        real("test_message_that_pretends_to_be_a_replay_is_a_letter_of_its_own"),
    ),
    rule(
        "partitions whose leader is elected are asked for again",
        LETTERS,
        "not in ELECTING or",
        "in ELECTING or",
        unit("test_partitions_whose_leader_is_elected_are_waited_for"),
    ),
    rule(
        "asking again has an end",
        LETTERS,
        " or time.monotonic() >= until:",
        ":",
        unit("test_partitions_that_find_no_leader_are_waited_for_no_longer_than_allowed"),
    ),
)
