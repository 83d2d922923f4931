"""The rules by which lesson 07 judges an answer to be old: an experiment that sees nothing finds nothing."""

from tests.mutations import Mutation

RACES, WIRE, INVALIDATION = "workshop/races.py", "workshop/wire.py", "workshop/invalidation.py"
PICTURES, HEARING = "workshop/pictures/staleness.py", "workshop/hearing.py"


def of(file: str, *names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_{file}.py::{name}" for name in names)


MUTATIONS = (
    Mutation(
        rule="a reader stops between the database and Redis",
        file="workshop/naive/deleting.py",
        old="        await meanwhile()\n",
        new="",
        tests=of("races", "test_by_chance_cache_aside_keeps_some_old_versions_and_the_cache_none"),
    ),
    Mutation(
        rule="a reader is held until the writer is through",
        file=RACES,
        old="await asyncio.wait_for(may_go_on.wait(), WITHIN_S)",
        new="await asyncio.sleep(0)",
        tests=of("races", "test_a_slow_reader_leaves_an_old_version_behind_in_cache_aside"),
    ),
    Mutation(
        rule="what is in Redis is looked for in Redis",
        file=RACES,
        old="        what, version = await self._way.in_redis(self._product_id)\n",
        new='        what, version = "version", there.version if there else 0\n',
        tests=of("races", "test_a_slow_reader_leaves_an_old_version_behind_in_cache_aside"),
    ),
    Mutation(
        rule="the credulous cache is never told that it may have missed something",
        file=HEARING,
        old='        """Nothing is passed on: that is the mistake."""\n',
        new='        """Passed on."""\n        self.cache.lost()\n',
        tests=of("races", "test_a_credulous_cache_hears_what_is_said_and_never_that_something_was_missed"),
    ),
    Mutation(
        rule="a line that goes dead says nothing",
        file=WIRE,
        old="if self._loses_all or (self._loses_news and has_subscribed):",
        new="if self._loses_all:",
        tests=of("wire", "test_subscribers_hear_nothing_more_while_all_others_do"),
    ),
    Mutation(
        rule="a mended wire does not go on in the middle of a sentence",
        file=WIRE,
        old="            self._broken.pop().close()\n",
        new="            self._broken.pop()\n",
        tests=of("wire", "test_subscribers_hear_nothing_more_while_all_others_do"),
    ),
    Mutation(
        rule="an old answer that comes again is not over",
        file=INVALIDATION,
        old="if not is_new), default=0.0)",
        new="if not is_new and at < min((a for a, new in given if new), default=at)), default=0.0)",
        tests=of(
            "staleness",
            "test_the_old_answer_is_over_when_it_is_given_no_more_not_when_the_new_one_is_first_given",
        ),
    ),
    Mutation(
        rule="the last process counts",
        file=INVALIDATION,
        old=".new_from.max()",
        new=".new_from.min()",
        tests=of("staleness", "test_each_process_has_a_window_of_its_own_and_the_last_one_counts"),
    ),
    Mutation(
        rule="a writer is killed after its commit",
        file=INVALIDATION,
        old="    while not is_committed():\n",
        new="    while False:\n",
        tests=of("staleness", "test_a_writer_that_commits_nothing_is_no_experiment"),
    ),
    Mutation(
        rule="what Redis holds is old when the database has something newer",
        file=PICTURES,
        old='held.startswith("version") and held != there',
        new="False",
        tests=of(
            "pictures_staleness",
            "test_a_race_shows_from_when_to_when_redis_has_something_older_than_the_database",
        ),
    ),
)
