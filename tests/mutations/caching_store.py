"""The rules of the cache's store in Redis, which are in its scripts, and of the line between processes."""

from tests.mutations import Mutation

IN = "showcase/caching/infrastructure"
LINE = f"{IN}/backplane.py"
ENTRY = "showcase/caching/application/entry.py"


def contract(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_cache.py::{name}" for name in names)


def scripts(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/contract/test_cache_scripts.py::{name}" for name in names)


def line(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/integration/test_backplane.py::{name}" for name in names)


MUTATIONS = (
    Mutation(
        rule="a load is stored only under its lease",
        file=f"{IN}/write.lua",
        old="if redis.pcall('GET', KEYS[2]) ~= holder then",
        new="if false then",
        tests=contract("test_a_load_is_stored_under_its_lease_once"),
    ),
    Mutation(
        rule="an older version is not stored",
        file=f"{IN}/write.lua",
        old="version < old_version or ",
        new="",
        tests=contract("test_an_older_version_is_not_stored_over_a_newer_one"),
    ),
    Mutation(
        rule="a deletion beats what is of its version",
        file=f"{IN}/write.lua",
        old="has(old_bits, GONE, ABSENT)",
        new="has(old_bits, ABSENT)",
        tests=scripts("test_the_script_stores_exactly_what_beats_what_is_there"),
    ),
    Mutation(
        rule="a change takes the lease away",
        file=f"{IN}/write.lua",
        old="redis.call('DEL', KEYS[2]) -- whoever",
        new="-- whoever",
        tests=contract("test_a_change_takes_the_lease_away_from_a_load_that_may_have_read_what_was_before"),
    ),
    Mutation(
        rule="a removal takes the lease away",
        file=f"{IN}/remove.lua",
        old="redis.call('DEL', KEYS[2])",
        new="",
        tests=contract("test_a_change_takes_the_lease_away_from_a_load_that_may_have_read_what_was_before"),
    ),
    Mutation(
        rule="a removal leaves what is newer",
        file=f"{IN}/remove.lua",
        old="old_version > version or ",
        new="",
        tests=contract("test_a_removal_leaves_what_is_as_new_as_it_demands"),
    ),
    Mutation(
        rule="a removal without a version remembers that of what it removes",
        file=f"{IN}/remove.lua",
        old="version, stays = old_version, false",
        new="stays = false",
        tests=contract("test_a_removal_without_a_version_removes_anything_and_remembers_its_version"),
    ),
    Mutation(
        rule="a lease is one holder's",
        file=f"{IN}/lease.lua",
        old=", 'NX'",
        new="",
        tests=contract("test_among_many_at_once_one_is_given_the_lease"),
    ),
    Mutation(
        rule="the first look at tags cuts nothing that is being loaded",
        file=f"{IN}/lease.lua",
        old="birth() -- before",
        new="-- before",
        tests=contract("test_a_first_look_at_tags_does_not_cut_what_is_being_loaded"),
    ),
    Mutation(
        rule="cuts that were lost count as made now",
        file=f"{IN}/tags.lua",
        old="at = now()",
        new="at = 0",
        tests=contract("test_cuts_that_were_lost_count_as_made_now"),
    ),
    Mutation(
        rule="what was loaded before a forgotten cut is not valid",
        file=f"{IN}/cut.lua",
        old="redis.call('ZADD', KEYS[1], oldest[2], BIRTH)",
        new="",
        tests=scripts(
            "test_so_many_cuts_are_remembered_and_what_was_loaded_before_the_forgotten_ones_is_not_valid",
        ),
    ),
    Mutation(
        rule="the store answers in time",
        file=f"{IN}/redis.py",
        old="asyncio.timeout(self._timeout_s)",
        new="asyncio.timeout(None)",
        tests=line("test_the_store_answers_within_its_deadline_and_no_late_answer_is_taken_for_another"),
    ),
    Mutation(
        rule="nobody hears of its own changes",
        file=LINE,
        old="if news.origin == self._origin:",
        new="if False:",
        tests=contract("test_each_process_hears_of_the_others_changes_and_not_of_its_own"),
    ),
    Mutation(
        rule="what was told before anybody listened is missing",
        file=LINE,
        old="        self._listener.lost()  # what",
        new="        # what",
        tests=line("test_news_that_came_while_the_driver_connected_anew_is_known_to_be_missing"),
    ),
    Mutation(
        rule="a missed ping is noticed",
        file=LINE,
        old="elif left_s <= 0 and pong:",
        new="elif False:",
        tests=line(
            "test_a_paused_redis_is_noticed_within_a_second_and_trusted_again_when_it_is_back",
        ),
    ),
    Mutation(
        rule="a line that the driver made anew is not trusted",
        file=LINE,
        old='raise Unavailable("the subscription was interrupted")',
        new="pass",
        tests=line("test_news_that_came_while_the_driver_connected_anew_is_known_to_be_missing"),
    ),
    Mutation(
        rule="an answer that has long been there is read before the line is given up",
        file=LINE,
        old="await _next(subscription, max(left_s, 0.001))",
        new='await _next(subscription, left_s) if left_s > 0 else (b"", b"")',
        tests=line("test_a_process_that_stood_still_itself_hears_everything_before_it_trusts_again"),
    ),
    Mutation(
        rule="spoilt bytes are a miss",
        file=ENTRY,
        old="if not data[1] & FLOOR and _checksum(name, head, body)",
        new="if False and _checksum(name, head, body)",
        tests=("tests/unit/test_entry.py::test_bytes_that_were_changed_are_a_miss_or_the_value_and_never_another",),
    ),
)
