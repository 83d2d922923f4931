"""Registering, signing in, passwords and second factors, over stores in memory and a clock that the test turns."""

import copy
from collections.abc import Awaitable
from dataclasses import replace
from uuid import uuid4

import pyotp
import pytest

from showcase.auth.application.accounts import (
    NoSuchAccount,
    SecondFactorRequired,
    TooManyAttempts,
    WrongCode,
    WrongCredentials,
)
from showcase.auth.application.factors import AlreadyEnrolled, NoSession, NotEnrolled
from showcase.auth.application.ports import Happened
from showcase.auth.application.stores import Kind
from showcase.auth.domain.accounts import BadEmail, Role
from showcase.auth.domain.passwords import WeakPassword
from showcase.kernel.errors import Unavailable
from tests.fakes_accounts import EMAIL, LIMIT, OTHER, PASSWORD, PHONE, THIEF, House, PlainPasswords

pytestmark = pytest.mark.anyio


@pytest.fixture
def house() -> House:
    return House()


async def refused(call: Awaitable[object], kind: type[Exception]) -> str:
    """What a refusal says."""
    with pytest.raises(kind) as caught:
        await call
    return repr(vars(caught.value))


async def test_a_mailed_code_makes_the_account_and_then_one_can_sign_in(house: House) -> None:
    challenge_id = await house.accounts.register(" Ada@Example.org", PASSWORD, PHONE)
    assert house.world.letters[0][0] == EMAIL
    await refused(house.accounts.login(EMAIL, PASSWORD, PHONE), WrongCredentials)  # not verified yet
    account = await house.accounts.verify(challenge_id, house.code(), PHONE)
    assert (account.email, account.subject, account.role) == (EMAIL, "households/1", Role.CUSTOMER)
    tokens = await house.accounts.login("ADA@example.org", PASSWORD, PHONE)
    assert house.world.amr[tokens.session_id] == ("pwd",)
    assert house.happened() == [Happened.LOGIN_REFUSED, Happened.REGISTERED]


async def test_a_bad_password_is_refused_before_anything_is_stored_or_asked(house: House) -> None:
    account = await house.registered()
    before = copy.deepcopy(house.world)
    for email in (EMAIL, "new@example.org"):
        await refused(house.accounts.register(email, "too short", PHONE), WeakPassword)
    await refused(house.accounts.change_password(account, PASSWORD, "too short", None, PHONE), WeakPassword)
    await refused(house.accounts.reset(uuid4(), "12345678", "too short", PHONE), WeakPassword)
    assert house.world == before
    assert not house.fakes.attempts


async def test_registering_an_address_that_has_an_account_does_the_same_and_tells_its_owner(house: House) -> None:
    await house.registered()
    house.fakes.hashed.clear()
    first = await house.accounts.register("new@example.org", OTHER, PHONE)
    second = await house.accounts.register(EMAIL, OTHER, PHONE)
    assert house.fakes.hashed == [OTHER, OTHER]
    challenges = [house.world.challenges[one] for one in (first, second)]
    assert challenges[0] == replace(challenges[1], id=first, email="new@example.org")
    to_new, to_known = house.world.letters[-2:]
    assert to_new[0] == "new@example.org"
    assert to_known[:2] == (EMAIL, "You have an account")
    code = house.world.codes[second]
    assert code not in house.world.letters[-1][2]
    await refused(house.accounts.verify(second, code, PHONE), WrongCode)  # even guessed it changes nothing
    await house.accounts.login(EMAIL, PASSWORD, PHONE)


async def test_nobody_lays_out_a_password_for_somebody_elses_address(house: House) -> None:
    await house.accounts.register(EMAIL, "the thief's password", THIEF)
    own = await house.accounts.register(EMAIL, PASSWORD, PHONE)
    await house.accounts.verify(own, house.code(), PHONE)
    await refused(house.accounts.login(EMAIL, "the thief's password", THIEF), WrongCredentials)
    await house.accounts.login(EMAIL, PASSWORD, PHONE)


async def test_a_thief_who_registers_later_does_not_get_in_by_the_owners_code(house: House) -> None:
    own = await house.accounts.register(EMAIL, PASSWORD, PHONE)
    code = house.code()
    theirs = await house.accounts.register(EMAIL, "the thief's password", THIEF)
    await refused(house.accounts.verify(own, code, PHONE), WrongCode)  # one live code an address
    await refused(house.accounts.verify(theirs, code, PHONE), WrongCode)
    assert not house.world.accounts


async def test_wrong_used_and_unknown_codes_are_refused_in_the_same_words(house: House) -> None:
    challenge_id = await house.accounts.register(EMAIL, PASSWORD, PHONE)
    code = house.code()
    answers = {await refused(house.accounts.verify(challenge_id, "00000000", PHONE), WrongCode)}
    answers.add(await refused(house.accounts.verify(uuid4(), code, PHONE), WrongCode))
    answers.add(await refused(house.accounts.reset(challenge_id, code, OTHER, PHONE), WrongCode))  # another purpose
    await house.accounts.verify(challenge_id, code, PHONE)
    answers.add(await refused(house.accounts.verify(challenge_id, code, PHONE), WrongCode))
    assert len(answers) == 1


async def test_a_code_has_five_tries(house: House) -> None:
    challenge_id = await house.accounts.register(EMAIL, PASSWORD, PHONE)
    code = house.code()
    for _ in range(LIMIT):
        await refused(house.accounts.verify(challenge_id, "00000000", PHONE), WrongCode)
    await refused(house.accounts.verify(challenge_id, code, PHONE), WrongCode)
    assert house.happened() == [Happened.FACTOR_REFUSED] * LIMIT


async def test_unknown_addresses_and_wrong_passwords_are_refused_alike_with_the_same_work(house: House) -> None:
    account = await house.registered()
    house.fakes.hashed.clear()
    wrong = await refused(house.accounts.login(EMAIL, OTHER, PHONE), WrongCredentials)
    unknown = await refused(house.accounts.login("nobody@example.org", OTHER, PHONE), WrongCredentials)
    assert wrong == unknown
    assert house.fakes.hashed == [OTHER, OTHER]
    assert house.world.events[-2:] == [
        (Happened.LOGIN_REFUSED, account.id, "wrong password"),
        (Happened.LOGIN_REFUSED, None, "unknown address"),
    ]


@pytest.mark.parametrize("password", [PASSWORD + "\0", PASSWORD + "\ud800", "x" * 100_000])
async def test_what_can_be_no_password_is_wrong_for_every_address(house: House, password: str) -> None:
    await house.registered()
    answers = {
        await refused(house.accounts.login(email, password, PHONE), WrongCredentials)
        for email in (EMAIL, "nobody@example.org")
    }
    assert len(answers) == 1


async def test_what_is_no_address_is_said_to_be_none(house: House) -> None:
    for call in (house.accounts.register("ada", PASSWORD, PHONE), house.accounts.ask_reset("ada@", PHONE)):
        await refused(call, BadEmail)
    await refused(house.accounts.login("ada@b@c.org", PASSWORD, PHONE), BadEmail)


async def test_guesses_at_an_account_are_limited_also_for_one_that_does_not_exist(house: House) -> None:
    await house.registered()
    for email in (EMAIL, "nobody@example.org"):
        for _ in range(LIMIT):
            await refused(house.accounts.login(email, OTHER, THIEF), WrongCredentials)
        await refused(house.accounts.login(email, PASSWORD, THIEF), TooManyAttempts)


async def test_a_login_that_succeeds_forgets_the_attempts(house: House) -> None:
    await house.registered()
    for _ in range(3):
        for _ in range(LIMIT - 1):
            await refused(house.accounts.login(EMAIL, OTHER, PHONE), WrongCredentials)
        await house.accounts.login(EMAIL, PASSWORD, PHONE)
    assert house.fakes.attempts[Kind.ADDRESS, PHONE.address] == 3 * LIMIT  # not those of the address


async def test_mails_to_an_address_are_limited(house: House) -> None:
    for _ in range(LIMIT):
        await house.accounts.ask_reset("nobody@example.org", PHONE)
    await refused(house.accounts.ask_reset("nobody@example.org", PHONE), TooManyAttempts)
    await refused(house.accounts.register("nobody@example.org", PASSWORD, PHONE), TooManyAttempts)


async def test_nobody_signs_in_while_attempts_cannot_be_counted(house: House) -> None:
    await house.registered()
    house.fakes.away = True
    await refused(house.accounts.login(EMAIL, PASSWORD, PHONE), Unavailable)
    await refused(house.accounts.register("new@example.org", PASSWORD, PHONE), Unavailable)


async def test_a_password_hashed_by_old_parameters_is_hashed_anew_at_login(house: House) -> None:
    account = await house.registered()
    house.world.accounts[account.id] = replace(account, password_hash=f"1:{PASSWORD}")
    await refused(house.accounts.login(EMAIL, OTHER, PHONE), WrongCredentials)
    assert house.world.accounts[account.id].password_hash == f"1:{PASSWORD}"
    await house.accounts.login(EMAIL, PASSWORD, PHONE)
    assert house.world.accounts[account.id].password_hash == f"2:{PASSWORD}"


async def test_of_two_logins_that_hash_anew_both_succeed(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    account = await house.registered()
    house.world.accounts[account.id] = replace(account, password_hash=f"1:{PASSWORD}")
    verify = PlainPasswords.verify

    async def slow(self: PlainPasswords, password: str, hashed: str | None) -> tuple[bool, str | None]:
        house.world.accounts[account.id] = replace(account, password_hash=f"2:{PASSWORD}")  # the other was faster
        return await verify(self, password, hashed)

    monkeypatch.setattr(PlainPasswords, "verify", slow)
    await house.accounts.login(EMAIL, PASSWORD, PHONE)


async def test_a_changed_password_ends_the_other_sessions_and_its_owner_is_told(house: House) -> None:
    account = await house.registered()
    here, there = [await house.accounts.login(EMAIL, PASSWORD, PHONE) for _ in range(2)]
    await house.accounts.change_password(account, PASSWORD, OTHER, here.session_id, PHONE)
    assert list(house.world.sessions) == [here.session_id] != [there.session_id]
    assert house.happened()[-1] == Happened.PASSWORD_CHANGED
    assert house.world.letters[-1][:2] == (EMAIL, "Your password was changed")
    await refused(house.accounts.login(EMAIL, PASSWORD, PHONE), WrongCredentials)
    await house.accounts.login(EMAIL, OTHER, PHONE)


async def test_a_password_is_changed_only_by_who_knows_it_and_guesses_are_limited(house: House) -> None:
    account = await house.registered()
    for _ in range(LIMIT):
        await refused(house.accounts.change_password(account, "a wrong guess", OTHER, None, THIEF), WrongCredentials)
    await refused(house.accounts.change_password(account, PASSWORD, OTHER, None, THIEF), TooManyAttempts)
    assert house.happened()[-LIMIT:] == [Happened.LOGIN_REFUSED] * LIMIT
    assert house.world.accounts[account.id].password_hash == f"2:{PASSWORD}"


async def test_beside_a_second_factor_a_password_may_be_shorter(house: House) -> None:
    account = await house.registered()
    await refused(house.accounts.change_password(account, PASSWORD, "pL4#tvqz", None, PHONE), WeakPassword)
    await house.accounts.change_password(replace(account, has_totp=True), PASSWORD, "pL4#tvqz", None, PHONE)


async def test_a_reset_ends_all_sessions_and_the_second_factor_is_asked_for_again(house: House) -> None:
    await house.enrolled()
    house.world.sessions[uuid4()] = next(iter(house.world.accounts))
    challenge_id = await house.accounts.ask_reset(EMAIL, PHONE)
    code = house.code()
    await house.accounts.reset(challenge_id, code, OTHER, PHONE)
    assert not house.world.sessions
    assert house.happened()[-1] == Happened.PASSWORD_RESET
    await refused(house.accounts.reset(challenge_id, code, PASSWORD, PHONE), WrongCode)
    await refused(house.accounts.login(EMAIL, OTHER, PHONE), SecondFactorRequired)


async def test_asking_to_reset_does_the_same_for_an_address_without_an_account(house: House) -> None:
    await house.registered()
    known = await house.accounts.ask_reset(EMAIL, PHONE)
    unknown = await house.accounts.ask_reset("nobody@example.org", PHONE)
    for_known, for_unknown = house.world.letters[-2:]
    assert (for_known[0], for_unknown[0]) == (EMAIL, None)
    assert [len(text) for _, _, text in (for_known, for_unknown)] == [len(for_known[2])] * 2
    challenges = [house.world.challenges[one] for one in (known, unknown)]
    assert challenges[0] == replace(challenges[1], id=known, email=EMAIL)
    await refused(house.accounts.reset(unknown, house.world.codes[unknown], OTHER, PHONE), WrongCode)


async def test_a_login_that_began_with_the_old_password_does_not_end_after_the_change(house: House) -> None:
    account, totp, _ = await house.enrolled()
    challenge_id = await house.begun()
    await house.accounts.change_password(account, PASSWORD, OTHER, None, PHONE)
    code = totp.at(house.fakes.now)
    await refused(house.accounts.login_with_code(challenge_id, code, THIEF), WrongCode)
    assert not house.world.sessions
    assert house.world.totps[account.id].last_step < totp.timecode(house.fakes.now)  # not used up either


async def test_a_password_changed_while_it_is_checked_opens_no_session(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = await house.registered()
    verify = PlainPasswords.verify

    async def slow(self: PlainPasswords, password: str, hashed: str | None) -> tuple[bool, str | None]:
        found = await verify(self, password, hashed)
        house.world.accounts[account.id] = replace(account, password_hash=f"2:{OTHER}")
        return found

    monkeypatch.setattr(PlainPasswords, "verify", slow)
    await refused(house.accounts.login(EMAIL, PASSWORD, THIEF), WrongCredentials)
    assert not house.world.sessions


async def test_a_code_finishes_the_login_once(house: House) -> None:
    account, totp, _ = await house.enrolled()
    challenge_id, other = await house.begun(), await house.begun()
    code = totp.at(house.fakes.now)
    tokens = await house.accounts.login_with_code(challenge_id, code, PHONE)
    assert house.world.amr[tokens.session_id] == ("pwd", "otp")
    await refused(house.accounts.login_with_code(other, code, PHONE), WrongCode)  # the step is used
    house.pass_time(30)
    await refused(house.accounts.login_with_code(challenge_id, totp.at(house.fakes.now), PHONE), WrongCode)
    await house.accounts.login_with_code(other, totp.at(house.fakes.now), PHONE)
    assert house.world.events[-1][:2] == (Happened.FACTOR_REFUSED, account.id)


async def test_guesses_at_the_second_factor_are_limited_over_all_logins(house: House) -> None:
    _, totp, _ = await house.enrolled()
    for _ in range(LIMIT):
        await refused(house.accounts.login_with_code(await house.begun(), "000000", THIEF), WrongCode)
    code = totp.at(house.fakes.now)
    await refused(house.accounts.login_with_code(await house.begun(), code, THIEF), TooManyAttempts)


async def test_a_recovery_code_finishes_a_login_once_and_the_owner_is_told(house: House) -> None:
    account, _, codes = await house.enrolled()
    assert len(codes) == 10
    tokens = await house.accounts.login_with_code(await house.begun(), codes[3].lower(), PHONE)
    assert house.world.amr[tokens.session_id] == ("pwd", "otp")
    assert house.happened()[-1] == Happened.RECOVERY_USED
    assert house.world.letters[-1][:2] == (EMAIL, "A recovery code was used")
    assert "9 are left" in house.world.letters[-1][2]
    await refused(house.accounts.login_with_code(await house.begun(), codes[3], PHONE), WrongCode)
    fresh = await house.factors.new_recovery_codes(account, PHONE)
    await refused(house.accounts.login_with_code(await house.begun(), codes[4], PHONE), WrongCode)
    await house.accounts.login_with_code(await house.begun(), fresh[4], PHONE)


async def test_a_second_factor_counts_once_it_is_confirmed(house: House) -> None:
    account = await house.registered()
    await refused(house.factors.confirm(account, "123456", PHONE), NotEnrolled)
    first = pyotp.TOTP((await house.factors.enrol(account)).secret)
    second = pyotp.TOTP((await house.factors.enrol(account)).secret)
    await house.accounts.login(EMAIL, PASSWORD, PHONE)  # none is asked for yet
    await refused(house.factors.confirm(account, first.at(house.fakes.now), PHONE), WrongCode)
    await house.factors.confirm(account, second.at(house.fakes.now), PHONE)
    assert house.happened()[-2:] == [Happened.FACTOR_REFUSED, Happened.FACTOR_ADDED]
    assert house.world.letters[-1][:2] == (EMAIL, "A second factor was added")
    await refused(house.factors.confirm(account, second.at(house.fakes.now), PHONE), AlreadyEnrolled)
    await refused(house.factors.enrol(account), AlreadyEnrolled)
    challenge_id = await house.begun()
    code = second.at(house.fakes.now)
    await refused(house.accounts.login_with_code(challenge_id, code, PHONE), WrongCode)  # it has confirmed already


async def test_a_removed_second_factor_is_asked_for_no_more_and_its_recovery_codes_are_void(house: House) -> None:
    account, _, _ = await house.enrolled()
    await house.factors.disable(account, PHONE)
    assert house.happened()[-1] == Happened.FACTOR_REMOVED
    assert house.world.letters[-1][:2] == (EMAIL, "Your second factor was removed")
    await house.accounts.login(EMAIL, PASSWORD, PHONE)
    assert not house.world.recovery
    await refused(house.factors.disable(account, PHONE), NotEnrolled)
    await refused(house.factors.new_recovery_codes(account, PHONE), NotEnrolled)


async def test_stepping_up_takes_a_code_once_and_guesses_are_limited(house: House) -> None:
    account, totp, _ = await house.enrolled()
    session_id = (await house.accounts.login_with_code(await house.begun(), totp.at(house.fakes.now), PHONE)).session_id
    await refused(house.factors.step_up(account, session_id, totp.at(house.fakes.now), PHONE), WrongCode)
    house.pass_time(30)
    assert (await house.factors.step_up(account, session_id, totp.at(house.fakes.now), PHONE)).session_id == session_id
    for _ in range(LIMIT):
        await refused(house.factors.step_up(account, session_id, "000000", THIEF), WrongCode)
    house.pass_time(30)
    await refused(house.factors.step_up(account, session_id, totp.at(house.fakes.now), THIEF), TooManyAttempts)
    assert house.happened()[-LIMIT:] == [Happened.FACTOR_REFUSED] * LIMIT


async def test_stepping_up_needs_a_session_and_a_second_factor(house: House) -> None:
    account = await house.registered()
    await refused(house.factors.step_up(account, None, "123456", PHONE), NoSession)
    await refused(house.factors.step_up(account, uuid4(), "123456", PHONE), NotEnrolled)


async def test_a_token_without_an_account_has_none(house: House) -> None:
    account = await house.registered()
    assert await house.accounts.of(account.subject) == account
    await refused(house.accounts.of("staff/nobody"), NoSuchAccount)
