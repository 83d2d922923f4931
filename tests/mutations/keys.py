"""The rules by which signing keys are kept in PostgreSQL; the tests need servers."""

from tests.mutations import Mutation

KEYS = "showcase/auth/infrastructure/keys.py"
TESTS = "tests/integration/test_auth_keys.py"
EVENT = "await self._events.add(Happened.KEY_ROTATED, actor=actor, kid=kid, retired=retired)"

MUTATIONS = (
    Mutation(
        rule="keys change one at a time",
        file=KEYS,
        old="pg_advisory_xact_lock(hashtextextended('auth.keys', 0))",
        new="1",
        tests=(f"{TESTS}::test_rotations_at_once_leave_one_current_and_one_next",),
    ),
    Mutation(
        rule="a retiring key stays for its tokens",
        file=KEYS,
        old="access_lifetime + RETIRING_MARGIN}",
        new="timedelta()}",
        tests=(f"{TESTS}::test_a_key_retires_when_its_last_token_has_ended",),
    ),
    Mutation(
        rule="a key that has retired is not used",
        file=KEYS,
        old="WHERE retires_at IS NULL OR retires_at > clock_timestamp() ORDER BY",
        new="ORDER BY",
        tests=(f"{TESTS}::test_a_key_retires_when_its_last_token_has_ended",),
    ),
    Mutation(
        rule="only what has retired is pruned",
        file=KEYS,
        old="state = 'retiring' AND retires_at <= clock_timestamp()",
        new="state = 'retiring'",
        tests=(f"{TESTS}::test_a_key_retires_when_its_last_token_has_ended",),
    ),
    Mutation(
        rule="private keys are sealed",
        file=KEYS,
        old="self._secrets.seal(PURPOSE, key.der(), key.public.kid)",
        new="key.der()",
        tests=(f"{TESTS}::test_private_keys_are_sealed",),
    ),
    Mutation(
        rule="sealed under its own name",
        file=KEYS,
        old='"private_sealed": self._secrets.seal(PURPOSE, key.der(), key.public.kid)',
        new='"private_sealed": self._secrets.seal(PURPOSE, key.der(), "")',
        tests=(f"{TESTS}::test_private_keys_are_sealed",),
    ),
    Mutation(
        rule="the next key takes over from a revoked one",
        file=KEYS,
        old="if state == State.CURRENT:",
        new="if state == State.NEXT:",
        tests=(f"{TESTS}::test_a_revoked_key_is_gone_at_once_and_the_next_one_signs",),
    ),
    Mutation(
        rule="a rotation and its event are one",
        file=KEYS,
        old=f"            {EVENT}",
        new=f"        {EVENT}",
        tests=(f"{TESTS}::test_a_rotation_and_its_event_happen_together",),
    ),
    Mutation(
        rule="a changed key is not believed",
        file="showcase/auth/infrastructure/jwk.py",
        old='if jwk.get("kid") != found.kid:',
        new="if False:",
        tests=(f"{TESTS}::test_a_key_that_somebody_changed_in_the_table_is_not_believed",),
    ),
    Mutation(
        rule="a name that is not known is looked up",
        file=KEYS,
        old="if kid not in self._known:",
        new="if not self._known:",
        tests=(f"{TESTS}::test_rotations_under_traffic_of_two_processes_refuse_nobody",),
    ),
)
