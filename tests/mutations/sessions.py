"""The rules of refresh tokens, sessions, the denylist and what access asks of it; most of their tests need servers."""

from tests.mutations import Mutation

RULES = "showcase/auth/domain/refresh.py"
USE_CASES = "showcase/auth/application/sessions.py"
ACCESS = "showcase/auth/application/access.py"
SQL = "showcase/auth/infrastructure/sessions.py"
DENYLIST = "showcase/auth/infrastructure/denylist.py"

VALUES = "tests/unit/test_auth_refresh.py"
CHECKS = "tests/unit/test_auth_access.py"
REFRESH = "tests/integration/test_auth_refresh.py"
RACES = "tests/integration/test_auth_refresh_races.py"
STATES = "tests/integration/test_auth_refresh_states.py::test_whatever_happens_the_database_agrees_with_the_model"
SESSIONS = "tests/integration/test_auth_sessions.py"
DENIED = "tests/integration/test_auth_denylist.py"

DECIDES = f"{VALUES}::test_each_policy_decides"
THEFT = f"{REFRESH}::test_theft_ends_the_session_for_both_and_leaves_its_traces_though_the_caller_gets_an_error"
ENDS_MEANWHILE = f"{REFRESH}::test_a_session_that_ends_meanwhile_gets_no_new_token"
OVER_MEANWHILE = f"{REFRESH}::test_a_session_whose_time_is_over_meanwhile_gets_no_new_token"
NOT_REPEATED = f"{REFRESH}::test_a_session_that_ends_meanwhile_does_not_repeat_its_answer"
STRICT_TWO = f"{REFRESH}::test_strict_of_two_at_once_one_wins_and_the_family_is_revoked[strict]"
SAME_TWO = f"{REFRESH}::test_same_successor_two_at_once_get_the_same_one"
STRICT_RACE = f"{RACES}::test_strict_of_many_at_once_exactly_one_wins_and_then_nobody[strict]"
REPEATED = f"{REFRESH}::test_the_same_successor_is_given_again_within_the_leeway"
LIMITS = f"{REFRESH}::test_each_refresh_begins_the_idle_time_anew_up_to_the_absolute_limit[same-successor]"
REFUSALS = f"{REFRESH}::test_every_refusal_has_the_same_words_and_a_reason_in_the_log"
KEY_GONE = f"{REFRESH}::test_a_successor_whose_key_is_gone_is_refused_and_nobody_is_logged_out"
ONCE = f"{SESSIONS}::test_a_session_ends_once"
ALL_BUT_ONE = f"{SESSIONS}::test_all_sessions_of_an_account_end_but_the_one_that_is_kept"
PRUNED = f"{SESSIONS}::test_what_ended_long_ago_is_removed_with_its_tokens_and_nothing_else"
LISTED = f"{SESSIONS}::test_an_owner_sees_the_sessions_that_live_and_where_they_were_used_last"
STEPPED_UP = f"{SESSIONS}::test_step_up_adds_the_method_and_proves_its_owner_anew"
PAUSED = f"{DENIED}::test_a_paused_redis_is_noticed_within_a_second_and_what_it_kept_to_itself_is_known_when_it_is_back"
KILLED = f"{DENIED}::test_a_killed_redis_is_noticed_and_what_it_lost_is_written_down_again"
STARTS = f"{DENIED}::test_a_process_that_starts_learns_what_was_revoked_before_and_is_not_ready_until_then"
TOLD = f"{DENIED}::test_several_are_denied_at_once_and_each_listener_is_told_once"
UNTOLD = f"{DENIED}::test_a_revocation_that_nobody_told_is_found_in_the_database"
FORGOTTEN = f"{DENIED}::test_a_denial_that_ended_is_forgotten_everywhere"
OVER = f"{DENIED}::test_a_denial_ends_when_no_token_of_the_session_can_live_any_more"


def without(rule: str, file: str, old: str, *tests: str, new: str = "") -> Mutation:
    """Some text that is not there, or another in its place."""
    return Mutation(rule=rule, file=file, old=old, new=new, tests=tests)


def check(rule: str, file: str, condition: str, *tests: str) -> Mutation:
    """A check whose condition is never true any more."""
    return without(rule, file, f"if {condition}:", *tests, new=f"if False and ({condition}):")


def statement(rule: str, file: str, old: str, *tests: str) -> Mutation:
    """A statement that does nothing."""
    return without(rule, file, old, *tests, new="pass")


MUTATIONS = (
    # -- a refresh token as a value
    check(
        "a token has one spelling",
        RULES,
        "token.text != text",
        f"{VALUES}::test_any_other_spelling_is_refused_in_the_same_words[trailing bits set]",
    ),
    without(
        "only a hash is stored",
        RULES,
        "hashlib.sha256(self.secret).digest()",
        f"{SESSIONS}::test_only_hashes_of_refresh_tokens_are_stored",
        f"{VALUES}::test_only_a_hash_of_the_secret_is_stored_and_only_the_secret_matches_it",
        new="self.secret",
    ),
    *(
        without(
            f"a successor depends on {part}",
            RULES,
            "return parent.secret + family.bytes + generation.to_bytes",
            f"{VALUES}::test_two_lineages_are_the_same_bytes_only_if_every_part_is_the_same",
            new=f"return {rest}.to_bytes",
        )
        for part, rest in {
            "its parent": "family.bytes + generation",
            "its family": "parent.secret + generation",
            "its generation": "parent.secret + family.bytes + (2)",
        }.items()
    ),
    check(
        "a secret has one length",
        RULES,
        "len(parent.secret) != SECRET_BYTES",
        f"{VALUES}::test_a_secret_of_another_length_has_no_lineage",
    ),
    # -- what its use means
    check(
        "a family that ended takes no token",
        RULES,
        "use.ended",
        f"{VALUES}::test_a_token_of_a_family_that_ended_leads_nowhere",
    ),
    without("the leeway ends", RULES, " and use.used_s <= leeway_s", f"{DECIDES}[parent, too late]", REPEATED, THEFT),
    without("only the immediate parent", RULES, " and was_parent", f"{DECIDES}[grandparent, at once]"),
    without(
        "only until its successor is used",
        RULES,
        " and not use.successor_used",
        f"{DECIDES}[parent of one that was used]",
    ),
    without(
        "only the youngest generation rotates",
        RULES,
        "if use.generation == use.newest:",
        f"{DECIDES}[sibling, left over from `grace`]",
        f"{REFRESH}::test_branches_left_over_from_grace_do_not_live_side_by_side",
        new="if use.used_s is None:",
    ),
    without(
        "strict repeats nothing",
        RULES,
        "policy is Policy.SAME_SUCCESSOR and within_leeway",
        f"{DECIDES}[parent, at once]",
        f"{REFRESH}::test_strict_revokes_at_the_second_use[strict]",
        new="within_leeway",
    ),
    check(
        "two methods make it multi-factor",
        USE_CASES,
        "len(methods) < 2",
        f"{VALUES}::test_two_different_methods_make_it_multi_factor",
    ),
    # -- a refresh
    check(
        "the secret must be right",
        USE_CASES,
        "not given.matches(known.secret_hash)",
        f"{REFRESH}::test_a_wrong_secret_is_refused_and_logs_nobody_out",
    ),
    without(
        "rotation compares the generation (use case)",
        USE_CASES,
        "after = None if policy is Policy.GRACE else known.use.generation",
        STRICT_TWO,
        SAME_TWO,
        new="after = None",
    ),
    without(
        "rotation compares the generation (SQL)",
        SQL,
        "(CAST(:after AS int) IS NULL OR s.generation = :after) AND {_LIVES}",
        STRICT_RACE,
        new="(CAST(:after AS int) IS NULL OR s.generation >= :after) AND {_LIVES}",
    ),
    without(
        "grace branches from any generation",
        USE_CASES,
        "after = None if policy is Policy.GRACE else known.use.generation",
        f"{REFRESH}::test_grace_gives_a_child_of_its_own_to_whoever_comes_within_the_leeway[grace]",
        new="after = known.use.generation",
    ),
    without(
        "grace counts the leeway from the first use",
        SQL,
        "SET used_at = coalesce(used_at, clock_timestamp())",
        f"{REFRESH}::test_grace_counts_the_leeway_from_the_first_use[grace]",
        new="SET used_at = clock_timestamp()",
    ),
    without(
        "a rotation uses up the parent",
        SQL,
        "WHERE token_id = :parent_id",
        REPEATED,
        f"{STATES}[same-successor]",
        new="WHERE token_id = :token_id",
    ),
    without(
        "a repeated answer is that of the youngest generation",
        SQL,
        "s.generation = :generation AND ",
        f"{REFRESH}::test_an_answer_is_not_repeated_once_its_successor_is_used_meanwhile",
    ),
    without(
        "a repeated answer needs a session that lives",
        USE_CASES,
        "if not await self.store.touch(session.id, generation, device, self.rules.idle):",
        NOT_REPEATED,
        new="if await self.store.touch(session.id, generation, device, self.rules.idle) is None:",
    ),
    check(
        "a successor is checked against its hash",
        USE_CASES,
        "not child.matches(successor.secret_hash)",
        f"{KEY_GONE}[another by its name]",
    ),
    without(
        "a key that is gone is no crash",
        USE_CASES,
        "except ValueError as error:",
        f"{KEY_GONE}[none by its name]",
        new="except LookupError as error:",
    ),
    without(
        "nothing rotates after a revocation",
        SQL,
        "s.revoked_at IS NULL AND s.idle_until",
        f"{ENDS_MEANWHILE}[strict]",
        f"{ENDS_MEANWHILE}[grace]",
        f"{ENDS_MEANWHILE}[same-successor]",
        NOT_REPEATED,
        f"{RACES}::test_whoever_ends_a_session_while_it_is_refreshed_wins[grace]",
        new="s.idle_until",
    ),
    without(
        "nothing rotates after the idle limit",
        SQL,
        "s.idle_until > clock_timestamp() AND s.expires_at",
        f"{OVER_MEANWHILE}[idle-same-successor]",
        new="s.expires_at",
    ),
    without(
        "nothing rotates after the absolute limit",
        SQL,
        ' AND s.expires_at > clock_timestamp()"',
        f"{OVER_MEANWHILE}[absolute-same-successor]",
        new='"',
    ),
    without(
        "a refresh begins the idle time anew",
        SQL,
        "idle_until = clock_timestamp() + CAST(:idle AS interval), address = :address, device = :device\n",
        LIMITS,
        new="address = :address, device = :device\n",
    ),
    without(
        "a refresh proves nobody anew",
        SQL,
        "SET generation = s.generation + 1, ",
        f"{REFRESH}::test_a_refresh_keeps_how_and_when_its_owner_signed_in",
        new="SET generation = s.generation + 1, auth_time = clock_timestamp(), ",
    ),
    without(
        "tokens never outlive their session",
        USE_CASES,
        "lifetime = min(self.rules.access, self._lasts(session))",
        LIMITS,
        new="lifetime = self.rules.access",
    ),
    without(
        "the owner learns the absolute limit",
        USE_CASES,
        "min(self.rules.idle, session.lasts)",
        LIMITS,
        new="self.rules.idle",
    ),
    # -- theft
    without(
        "a revocation is committed before the error",
        USE_CASES,
        "        await self.deny([session.id])\n        return True",
        THEFT,
        f"{STATES}[strict]",
        new="            raise InvalidRefreshToken\n        return True",
    ),
    statement(
        "theft is an event", USE_CASES, "await self._tell(Happened.REUSED, session, device, data, reason=REUSE)", THEFT
    ),
    statement(
        "so is its revocation", USE_CASES, "await self._tell(Happened.REVOKED, session, device, reason=REUSE)", THEFT
    ),
    without(
        "the owner gets a mail",
        USE_CASES,
        "await self.mails.add(session.email, ",
        THEFT,
        new="await self.mails.add(None, ",
    ),
    statement("theft is pushed", USE_CASES, "await self.deny([session.id])", THEFT),
    statement(
        "a refusal is an event",
        USE_CASES,
        "await self._tell(Happened.REFRESH_REFUSED, session, device, reason=why.value)",
        REFUSALS,
    ),
    # -- sessions
    without(
        "nobody ends another's session",
        SQL,
        "AND (CAST(:account_id AS uuid) IS NULL OR account_id = :account_id)",
        f"{SESSIONS}::test_nobody_ends_the_session_of_another",
        new="AND (CAST(:account_id AS uuid) IS NULL OR account_id = account_id)",
    ),
    without(
        "a session ends once",
        SQL,
        "WHERE session_id = :session_id AND revoked_at IS NULL",
        ONCE,
        STRICT_RACE,
        new="WHERE session_id = :session_id",
    ),
    statement("an end is pushed", USE_CASES, "await self.deny([session_id])", ONCE),
    statement("all ends are pushed", USE_CASES, "await self.deny(ended)", ALL_BUT_ONE),
    statement("an end is an event", USE_CASES, "await self._tell_revoked([session_id], account_id, why, actor)", ONCE),
    statement("all ends are events", USE_CASES, "await self._tell_revoked(ended, account_id, why, actor)", ALL_BUT_ONE),
    without(
        "one may be kept",
        SQL,
        "AND session_id IS DISTINCT FROM CAST(:keep AS uuid) AND revoked_at IS NULL",
        ALL_BUT_ONE,
        new="AND revoked_at IS NULL",
    ),
    without(
        "those that ended are not ended again",
        SQL,
        "CAST(:keep AS uuid) AND revoked_at IS NULL",
        ALL_BUT_ONE,
        new="CAST(:keep AS uuid)",
    ),
    without(
        "no step-up of a session that ended",
        SQL,
        "WHERE s.session_id = :session_id AND {_LIVES}\n    FOR NO KEY UPDATE OF s",
        f"{SESSIONS}::test_no_step_up_of_a_session_that_has_ended",
        new="WHERE s.session_id = :session_id\n    FOR NO KEY UPDATE OF s",
    ),
    without(
        "a step-up proves its owner anew", SQL, "auth_time = clock_timestamp(), used_at", STEPPED_UP, new="used_at"
    ),
    without(
        "a step-up adds to the methods", USE_CASES, "proven_by((*before.amr, *amr))", STEPPED_UP, new="proven_by(amr)"
    ),
    without(
        "only sessions that live are listed",
        SQL,
        "s.account_id = :account_id AND {_LIVES}",
        LISTED,
        new="s.account_id = :account_id",
    ),
    *(
        without(
            f"pruning knows what is {how}",
            SQL,
            "least(revoked_at, idle_until, expires_at)",
            PRUNED,
            new=f"least({rest})",
        )
        for how, rest in {
            "revoked": "idle_until, expires_at",
            "idle": "revoked_at, expires_at",
            "expired": "revoked_at, idle_until",
        }.items()
    ),
    # -- access
    check(
        "a session that ended is refused",
        ACCESS,
        "self.denylist.is_denied(session_id)",
        f"{CHECKS}::test_pushed_looks_into_memory_only",
    ),
    without(
        "memory is trusted only in sync",
        ACCESS,
        "if self.denylist.in_sync:",
        f"{CHECKS}::test_what_is_sensitive_fails_closed_when_the_denylist_cannot_tell",
        f"{CHECKS}::test_otherwise_the_database_is_asked",
        new="if True:",
    ),
    check(
        "what is sensitive fails closed",
        ACCESS,
        "sensitive",
        f"{CHECKS}::test_what_is_sensitive_fails_closed_when_the_denylist_cannot_tell",
    ),
    without(
        "otherwise the database is asked",
        ACCESS,
        "return not await self.is_live(session_id)",
        f"{CHECKS}::test_otherwise_the_database_is_asked",
        new="return False",
    ),
    without(
        "Redis away is no answer",
        ACCESS,
        "            except Unavailable as error:\n",
        f"{CHECKS}::test_otherwise_the_database_is_asked",
        new="            except LookupError as error:\n",
    ),
    without(
        "looked-up asks Redis",
        ACCESS,
        "if self.revocation is Revocation.PUSHED:",
        f"{CHECKS}::test_looked_up_asks_redis_each_time",
        new="if True:",
    ),
    # -- the denylist
    statement("a denial is known here at once", DENYLIST, "self._remember(ends)", PAUSED),
    statement("a denial is told", DENYLIST, "both.publish(self._channel, str(session_id))", TOLD),
    without(
        "a denial is written down",
        DENYLIST,
        "ex=max(1, round(seconds))",
        f"{DENIED}::test_whoever_looks_up_finds_a_denial_and_nothing_else",
        new="px=1",
    ),
    without(
        "Redis away is no error",
        DENYLIST,
        '        except Unavailable as error:\n            log.warning("denials not pushed"',
        PAUSED,
        new='        except LookupError as error:\n            log.warning("denials not pushed"',
    ),
    without("a listener is told once", DENYLIST, "if is_new:", TOLD, new="if True:"),
    without(
        "a denial outlives every access token",
        DENYLIST,
        "access_lifetime + margin",
        f"{DENIED}::test_a_session_is_denied_for_longer_than_its_access_tokens_can_live",
        new="access_lifetime",
    ),
    without(
        "a denial ends",
        DENYLIST,
        "return self._until.get(session_id, _NEVER) > time.monotonic()",
        OVER,
        new="return session_id in self._until",
    ),
    without("memory is bounded by time", DENYLIST, "if until > now}", FORGOTTEN, new="}"),
    statement("who starts reads the database", DENYLIST, "self._remember(denied)", STARTS, PAUSED),
    without(
        "and is not ready before",
        DENYLIST,
        "self._is_followed = False  # until",
        STARTS,
        f"{DENIED}::test_a_database_that_is_away_keeps_a_process_that_starts_out_of_sync",
        new="self._is_followed = True  # until",
    ),
    statement("Redis gets back what it lost", DENYLIST, "await self._push(denied, tell=False)", KILLED),
    statement("the database is compared", DENYLIST, "self._remember(missed)", UNTOLD),
    statement("Redis gets what nobody told", DENYLIST, "await self._push(missed, tell=False)", UNTOLD),
    without(
        "what was known is no longer trusted after a stop",
        DENYLIST,
        "return time.monotonic() - self._answered < LOST_AFTER_S",
        f"{DENIED}::test_a_process_that_was_stopped_itself_does_not_trust_what_it_knew",
        new="return self._answered > _NEVER",
    ),
    check("a line without answers is lost", DENYLIST, "now - answered > LOST_AFTER_S", PAUSED),
    without(
        "a line made anew is not trusted",
        DENYLIST,
        "elif kind:",
        f"{DENIED}::test_a_connection_that_the_driver_makes_anew_is_not_trusted",
        new="elif False:",
    ),
    without(
        "nonsense breaks nothing",
        DENYLIST,
        "except ValueError:",
        f"{DENIED}::test_what_is_no_session_is_overheard",
        new="except LookupError:",
    ),
    without(
        "nobody follows any more: not ready",
        DENYLIST,
        "        finally:\n            self._is_followed = False",
        f"{DENIED}::test_a_process_whose_denylist_nobody_follows_any_more_is_not_ready",
        new="        finally:\n            pass",
    ),
)
