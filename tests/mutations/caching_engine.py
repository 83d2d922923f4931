"""What keeps the cache from loading twice, and from believing what is old; the last ones need servers."""

from tests.mutations import Mutation

CACHE = "showcase/caching/application/cache.py"
FLIGHT = "showcase/caching/application/flight.py"
FAR = "showcase/caching/application/far.py"
NEAR = "showcase/caching/application/near.py"
ENTRY = "showcase/caching/application/entry.py"
DOMAIN = "showcase/caching/domain.py"
GOES_AWAY = "test_a_redis_that_goes_away_in_the_middle_of_a_load_is_no_readers_error_and_is_told_all_when_it_is_back"


def loading(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_caching.py::{name}" for name in names)


def changing(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/unit/test_caching_changes.py::{name}" for name in names)


def on_redis(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/integration/test_caching.py::{name}" for name in names)


def racing(*names: str) -> tuple[str, ...]:
    return tuple(f"tests/integration/test_caching_races.py::{name}" for name in names)


MUTATIONS = (
    # -- one load for all
    Mutation(
        rule="readers of a process share a load",
        file=CACHE,
        old="        if flight is None:\n            flight = (await self._look([key], one, options))[key]\n",
        new="        flight = (await self._look([key], one, options))[key]\n",
        tests=loading("test_many_readers_share_one_load"),
    ),
    Mutation(
        rule="who gets a lease looks once more",
        file=CACHE,
        old="await self._read_far(trip)  # another process may have stored it just before",
        new="pass  # another process may have stored it just before",
        tests=loading("test_who_gets_the_lease_just_after_an_answer_was_stored_does_not_load_it_again"),
    ),
    Mutation(
        rule="a reader that goes does not end the load",
        file=FLIGHT,
        old="await asyncio.shield(self.landing)",
        new="await self.landing",
        tests=loading("test_a_reader_that_goes_away_does_not_end_the_load"),
    ),
    # -- stale answers
    Mutation(
        rule="near ends before the answer does",
        file=CACHE,
        old="if now < held.fresh_until or held.expires <= now <",
        new="if now < held.fresh_until or now <",
        tests=loading("test_what_was_near_for_long_enough_is_asked_of_redis_before_it_is_given_out"),
    ),
    Mutation(
        rule="an error that is an answer is not hidden",
        file=CACHE,
        old="if stale is None or is_answer or now >= stale.stale_until:",
        new="if stale is None or now >= stale.stale_until:",
        tests=loading("test_an_error_that_is_an_answer_is_not_hidden"),
    ),
    Mutation(
        rule="a source that failed is left alone for a while",
        file=CACHE,
        old="                self.near.put(key.name, stale)\n            flight.land_stale()",
        new="            flight.land_stale()",
        tests=loading("test_a_source_that_fails_is_hidden_behind_the_old_answer_and_left_alone_for_a_while"),
    ),
    Mutation(
        rule="XFetch: the later, the likelier",
        file=DOMAIN,
        old="    return -beta * load_s * math.log(draw)\n",
        new="    return beta * load_s * (1 - draw)\n",
        tests=loading("test_xfetch_refreshes_as_often_as_its_formula_says"),
    ),
    # -- overtaken loads
    Mutation(
        rule="a load that was overtaken is not kept near",
        file=CACHE,
        old="        if flight.is_overtaken:\n            return\n        if not (is_stored",
        new="        if not (is_stored",
        tests=changing("test_a_load_that_is_overtaken_without_redis_is_not_held_for_a_moment_either"),
    ),
    Mutation(
        rule="a change begins the next load anew",
        file=CACHE,
        old="        flight = self._flights.pop(name, None)\n        if flight is not None:\n",
        new="        flight = self._flights.get(name, None)\n        if flight is not None:\n",
        tests=changing("test_a_load_that_is_overtaken_by_a_removal_is_for_those_who_waited_and_nobody_after"),
    ),
    Mutation(
        rule="what was read while a removal was told is dropped",
        file=CACHE,
        old="            self._drop(key.name, version, is_gone=is_gone)  # what was read from Redis meanwhile\n",
        new="            pass\n",
        tests=changing("test_what_is_read_from_redis_before_it_has_heard_of_a_removal_is_not_held"),
    ),
    Mutation(
        rule="a load is stored only under its lease",
        file=CACHE,
        old="ttl_s=self._ttl_s(entry), holder=trip.holder)",
        new="ttl_s=self._ttl_s(entry), holder=None)",
        tests=changing("test_of_two_holders_of_a_lease_the_one_who_lost_it_stores_nothing"),
    ),
    Mutation(
        rule="nothing has the version of the deletion",
        file=CACHE,
        old="                trip.floors[key] = entry.version\n",
        new="",
        tests=changing("test_that_there_is_nothing_has_the_version_of_the_deletion"),
    ),
    # -- news
    Mutation(
        rule="without news nothing near counts",
        file=CACHE,
        old="        return held.is_brief or self._clock() < self._heard_until\n",
        new="        return True\n",
        tests=changing("test_a_memory_is_trusted_only_for_as_long_as_pings_are_answered"),
    ),
    Mutation(
        rule="lost news: what is near is doubted",
        file=CACHE,
        old="        self.near.doubt(self._clock())\n",
        new="",
        tests=changing("test_when_news_may_have_been_missed_nothing_near_counts_but_in_the_greatest_need"),
    ),
    Mutation(
        rule="lost news: no load under way is kept",
        file=CACHE,
        old="        self.near.doubt(self._clock())\n        self._detach_all()\n",
        new="        self.near.doubt(self._clock())\n",
        tests=changing("test_what_was_read_while_news_was_lost_is_not_kept"),
    ),
    Mutation(
        rule="what was loaded without news is near for a moment",
        file=CACHE,
        old="            held.fresh_until = held.early_from = min(held.fresh_until, self._clock() + self._alone_s)\n",
        new="",
        tests=changing("test_without_redis_an_answer_is_loaded_and_near_for_a_moment"),
    ),
    # -- tags
    Mutation(
        rule="what was loaded before a cut is not valid",
        file=FAR,
        old="entry.is_floor or _is_valid(entry, cuts)}",
        new="True}",
        tests=changing("test_a_load_that_nobody_told_of_a_cut_is_believed_by_nobody"),
    ),
    Mutation(
        rule="cuts are known only while news of them comes",
        file=FAR,
        old="        if was_heard and self.is_heard and losses == self._losses:\n",
        new="        if was_heard and self.is_heard:\n",
        tests=changing("test_cuts_that_were_asked_for_while_news_was_lost_are_not_remembered"),
    ),
    # -- Redis away
    Mutation(
        rule="what is owed is paid when Redis is back",
        file=CACHE,
        old="            self._spawn(self._pay())\n",
        new="            pass\n",
        tests=changing("test_a_removal_that_redis_did_not_take_is_told_when_it_is_back"),
    ),
    Mutation(
        rule="until then Redis is not believed",
        file=FAR,
        old="            keys = [key for key in keys if key.name not in self._owed]\n",
        new="            pass\n",
        tests=changing("test_until_redis_was_told_a_process_does_not_believe_it"),
    ),
    Mutation(
        rule="nor after a cut that it has not heard of",
        file=FAR,
        old="        if not keys or self._owed_cuts:\n",
        new="        if not keys:\n",
        tests=changing("test_until_redis_was_told_a_process_does_not_believe_it"),
    ),
    Mutation(
        rule="what is owed again while it is paid stays owed",
        file=FAR,
        old="        if self._owed_cuts.get(tag) is owed:  # or one more has come meanwhile\n",
        new="        if True:\n",
        tests=changing("test_a_cut_that_fails_while_an_earlier_one_is_told_is_still_owed"),
    ),
    Mutation(
        rule="so much is owed, and no more",
        file=FAR,
        old="        if len(self._owed) > OWED_AT_MOST:\n",
        new="        if False:\n",
        tests=changing("test_too_many_removals_that_are_owed_become_one_of_everything"),
    ),
    Mutation(
        rule="the breaker lets one try",
        file=DOMAIN,
        old="        if now < self._next_try:\n            return False\n",
        new="",
        tests=changing("test_redis_that_fails_is_not_asked_again_by_everybody"),
    ),
    # -- what lies in Redis
    Mutation(
        rule="an entry is its key's, and whole",
        file=ENTRY,
        old="        if not data[1] & FLOOR and _checksum(",
        new="        if False and _checksum(",
        tests=changing("test_an_entry_with_any_byte_changed_is_no_entry_or_says_the_same"),
    ),
    Mutation(
        rule="the size of what is near has a limit",
        file=NEAR,
        old="        if _cost(held) > self._limit_bytes:\n",
        new="        if False:\n",
        tests=loading("test_near_holds_so_many_bytes_and_nothing_that_is_larger"),
    ),
    Mutation(
        rule="what was used last makes room last",
        file=CACHE,
        old="                self.near.touch(key.name)\n",
        new="",
        tests=loading("test_near_holds_so_many_entries_and_those_that_were_read_last"),
    ),
    Mutation(
        rule="a reader that goes while it looks into Redis leaves the load to others",
        file=CACHE,
        old="            if trip.left:\n                self._spawn(self._fly(trip))\n",
        new="            pass\n",
        tests=loading("test_a_reader_that_goes_away_while_redis_is_asked_holds_up_nobody"),
    ),
    # -- the same on real servers, with several processes
    Mutation(
        rule="of all processes one loads",
        file=FAR,
        old="zip(keys, given, strict=True) if is_given]",
        new="zip(keys, given, strict=True)]",
        tests=racing("test_of_two_hundred_readers_in_two_processes_one_loads"),
    ),
    Mutation(
        rule="a lease lasts hardly longer than a load may",
        file=CACHE,
        old="lease_s = trip.options.hard.total_seconds() + LEASE_MARGIN_S\n",
        new="lease_s = trip.options.hard.total_seconds() + 5\n",
        tests=racing("test_when_the_holder_of_a_lease_dies_the_others_wait_no_longer_than_it_lasts"),
    ),
    Mutation(
        rule="who has lost the lease stores nothing",
        file=CACHE,
        old="ttl_s=self._ttl_s(entry), holder=trip.holder)",
        new="ttl_s=self._ttl_s(entry), holder=None)",
        tests=racing("test_a_process_that_stood_still_while_its_answer_was_changed_keeps_it_nowhere"),
    ),
    Mutation(
        rule="an overtaken load is kept in no process",
        file=CACHE,
        old="        if flight.is_overtaken:\n            return\n        if not (is_stored",
        new="        if not (is_stored",
        tests=racing(
            "test_whatever_is_changed_lost_and_killed_nobody_reads_what_is_older_than_they_were_promised",
        ),
    ),
    Mutation(
        rule="what others have removed is dropped",
        file=CACHE,
        old="        self.counts.heard += 1\n        self._drop(name",
        new="        self.counts.heard += 1\n        return\n        self._drop(name",
        tests=on_redis("test_what_one_process_has_loaded_the_others_find_and_what_it_removes_they_do_not_give_out"),
    ),
    Mutation(
        rule="what was near before Redis went is asked for anew",
        file=CACHE,
        old="        self.near.doubt(self._clock())\n",
        new="",
        tests=on_redis(GOES_AWAY),
    ),
    Mutation(
        rule="a load that Redis does not take is an answer",
        file=CACHE,
        old="holder=trip.holder)\n        except Unavailable:\n",
        new="holder=trip.holder)\n        except ZeroDivisionError:\n",
        tests=on_redis(GOES_AWAY),
    ),
    Mutation(
        rule="a removal that Redis refuses is owed",
        file=FAR,
        old="            self._owe(name, floor)\n            if isinstance(error, Unavailable):",
        new="            if isinstance(error, Unavailable):",
        tests=on_redis(
            "test_a_redis_that_is_full_hides_no_answer_and_a_removal_reaches_the_others_when_it_has_room",
        ),
    ),
)
