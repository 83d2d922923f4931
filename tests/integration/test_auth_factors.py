"""Second factors on a real database, and letters on real servers."""

import asyncio
import json
import re
import smtplib
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from uuid import UUID, uuid4

import pyotp
import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from showcase.auth.application.accounts import WrongCode
from showcase.auth.application.factors import AlreadyEnrolled
from showcase.auth.domain.codes import matching_step
from showcase.kernel.clock import system_clock
from tests.fakes import until
from tests.integration.auth_accounts import FREE, PHONE, Desk, desk_of, race, racing, received
from workshop.stack import Stack
from workshop.stack.local.mail import client
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def names(stack: Stack) -> Iterator[Namespace]:
    with stack.namespace() as names:
        yield names


@pytest.fixture
async def desk(names: Namespace) -> AsyncIterator[Desk]:
    """With no letter that waits."""
    async with desk_of(names.env, **FREE) as desk:
        desk.sql("DELETE FROM auth.mails")
        yield desk


def to_somebody() -> str:
    return f"{uuid4().hex}@example.org"


async def test_an_authenticator_is_enrolled_by_its_qr_code_and_signs_in(desk: Desk) -> None:
    account = await desk.account()
    enrolment = await desk.factors.enrol(account)
    assert re.match(r"<svg [^>]*><path ", enrolment.qr_svg)
    totp = pyotp.parse_uri(enrolment.uri)
    assert isinstance(totp, pyotp.TOTP)
    assert totp.secret == enrolment.secret
    code = totp.at(system_clock())
    await desk.factors.confirm(account, code, PHONE)
    challenge_id = await desk.begun(account)
    with pytest.raises(WrongCode):  # it has confirmed already
        await desk.accounts.login_with_code(challenge_id, code, PHONE)
    desk.sql("UPDATE auth.totp SET last_step = last_step - 2 WHERE account_id = %s", account.id)  # time passes
    tokens = await desk.accounts.login_with_code(challenge_id, totp.at(system_clock()), PHONE)
    acr, amr = desk.sql("SELECT acr, amr FROM auth.sessions WHERE session_id = %s", tokens.session_id)[0]
    assert acr.endswith("multi-factor")
    assert set(amr) >= {"pwd", "otp"}


async def test_a_later_enrolment_replaces_one_that_is_not_confirmed_and_no_other(desk: Desk) -> None:
    account = await desk.account()
    await desk.factors.enrol(account)
    former = await desk.stored_factors.find(account.id)
    assert former is not None
    totp = pyotp.TOTP((await desk.factors.enrol(account)).secret)
    assert not await desk.stored_factors.confirm(former, 1)  # a code of the former comes late
    await desk.factors.confirm(account, totp.at(system_clock()), PHONE)
    with pytest.raises(AlreadyEnrolled):
        await desk.factors.enrol(account)


async def test_secrets_and_recovery_codes_are_not_stored_in_clear(desk: Desk) -> None:
    account, totp, codes = await desk.enrolled()
    (sealed,) = desk.sql("SELECT secret FROM auth.totp WHERE account_id = %s", account.id)[0]
    assert totp.byte_secret() not in sealed
    assert totp.secret.encode() not in sealed
    stored = desk.sql("SELECT code_hash FROM auth.recovery_codes WHERE account_id = %s", account.id)
    assert len(stored) == 10
    assert not [code for code in codes for (hashed,) in stored if code.replace("-", "").encode() in hashed]


async def test_a_secret_moved_to_another_account_is_no_use(desk: Desk) -> None:
    account, _, _ = await desk.enrolled()
    other, _, _ = await desk.enrolled()
    desk.sql(
        "UPDATE auth.totp SET secret = (SELECT secret FROM auth.totp WHERE account_id = %s) WHERE account_id = %s",
        account.id,
        other.id,
    )
    with pytest.raises(ValueError, match="cannot be opened"):
        await desk.stored_factors.find(other.id)


async def test_of_ten_who_use_one_code_of_the_authenticator_at_once_one_signs_in(desk: Desk) -> None:
    account, totp, _ = await desk.enrolled()
    challenges = [str(await desk.begun(account)) for _ in range(10)]
    code = totp.at(system_clock())
    calls = [[challenge_id, code] for challenge_id in challenges]
    outcomes = race(desk.settings, "login_with_code", calls[:5], calls[5:])
    assert Counter(outcomes) == {"ok": 1, "WrongCode": 9}
    assert len(await desk.sessions.list_(account.id)) == 1
    refused = "SELECT count(*) FROM auth.events WHERE account_id = %s AND type = 'factor.refused'"
    assert desk.one(refused, account.id) == 9


async def test_of_ten_who_use_one_recovery_code_at_once_one_signs_in(desk: Desk) -> None:
    account, _, codes = await desk.enrolled()
    calls = [[str(await desk.begun(account)), codes[0]] for _ in range(10)]
    outcomes = race(desk.settings, "login_with_code", calls[:5], calls[5:])
    assert Counter(outcomes) == {"ok": 1, "WrongCode": 9}
    assert len(await desk.sessions.list_(account.id)) == 1
    unused = "SELECT count(*) FROM auth.recovery_codes WHERE account_id = %s AND used_at IS NULL"
    assert desk.one(unused, account.id) == 9


async def test_one_login_is_finished_once_by_two_different_codes(desk: Desk) -> None:
    account, _, codes = await desk.enrolled()
    challenge_id = str(await desk.begun(account))
    outcomes = race(desk.settings, "login_with_code", *([[challenge_id, code]] for code in codes[:2]))
    assert Counter(outcomes) == {"ok": 1, "WrongCode": 1}
    unused = "SELECT count(*) FROM auth.recovery_codes WHERE account_id = %s AND used_at IS NULL"
    assert desk.one(unused, account.id) == 9  # the other one is still good


async def test_no_order_of_codes_accepts_a_step_twice(desk: Desk) -> None:
    account, totp, _ = await desk.enrolled()
    stored = await desk.stored_factors.find(account.id)
    assert stored is not None
    present = totp.timecode(system_clock())
    now = system_clock() + timedelta(seconds=90)
    code = totp.generate_otp(present + 3)
    assert matching_step(stored.secret, code, now, stored.last_step) == present + 3
    steps = [present + offset for offset in (1, 3, 2, 3, 1, 4, 4, 2)]
    assert [await desk.stored_factors.use_step(stored, step) for step in steps] == [
        True, True, False, False, False, True, False, False,
    ]  # fmt: skip


async def test_recovery_codes_outlive_a_new_secret_in_front(names: Namespace, desk: Desk) -> None:
    account, _, codes = await desk.enrolled()
    both = f"n1:another secret that is long enough to be one,{desk.settings.secrets.get_secret_value()}"
    async with desk_of(names.env, **FREE, secrets=both) as later:
        await later.accounts.login_with_code(await later.begun(account), codes[0], PHONE)


async def test_an_authenticator_that_was_not_confirmed_finishes_no_login(desk: Desk) -> None:
    account, _, _ = await desk.enrolled()
    challenge_id = await desk.begun(account)
    await desk.factors.disable(account, PHONE)
    totp = pyotp.TOTP((await desk.factors.enrol(account)).secret)
    with pytest.raises(WrongCode):
        await desk.accounts.login_with_code(challenge_id, totp.at(system_clock()), PHONE)


# -- letters


async def test_a_letter_is_sent_when_its_transaction_commits_and_not_before_or_without(
    stack: Stack, desk: Desk
) -> None:
    never, soon = to_somebody(), to_somebody()
    async with desk.sender():
        with suppress(ZeroDivisionError):
            async with desk.resources.database.transaction():
                await desk.mails.add(never, "No", "No.")
                raise ZeroDivisionError
        await desk.mails.add(soon, "Yes", "Yes, ünd more.")
        await desk.all_sent()
    (message,) = received(stack.urls, soon)
    assert (message["Subject"], message["Text"].strip()) == ("Yes", "Yes, ünd more.")
    assert message["From"]["Address"] == "shop@showcase.test"
    assert received(stack.urls, never) == []


async def test_a_letter_for_nobody_costs_a_row_and_is_never_sent(stack: Stack, desk: Desk) -> None:
    with Stack.private(["mail"]) as private:
        await desk.mails.add(None, "No", "No.")
        await desk.mails.add(to_somebody(), "Yes", "Yes.")
        assert desk.one("SELECT count(*) FROM auth.mails") == 2
        async with desk.sender(private.urls["SHOWCASE_MAIL_URL"]):
            await desk.all_sent()
        assert total(private) == 1


async def test_many_letters_are_sent_once_each_by_two_processes(stack: Stack, desk: Desk) -> None:
    addresses = [to_somebody() for _ in range(30)]
    with Stack.private(["mail"]) as private:
        for address in addresses:
            await desk.mails.add(address, "Hello", "Hello.")
        settings = desk.settings.model_copy(update={"mail_url": secret(private)})
        with racing(settings, "send", [], []) as racers:
            for racer in racers:
                racer.go()
            await desk.all_sent()
        assert total(private) == 30
        assert all(len(received(private.urls, address)) == 1 for address in addresses[:5])


async def test_letters_survive_an_outage_of_the_mail_server(desk: Desk) -> None:
    address = to_somebody()
    with Stack.private(["mail"]) as private:
        private.server("mail").kill()
        async with desk.sender(private.urls["SHOWCASE_MAIL_URL"]):
            await desk.mails.add(address, "Hello", "Hello.")

            async def tried_twice() -> bool:
                return bool(desk.one("SELECT tries FROM auth.mails WHERE recipient = %s", address) >= 2)

            await until(tried_twice)
            private.server("mail").restart()
            await desk.all_sent()
        assert len(received(private.urls, address)) == 1


async def test_a_letter_whose_sender_is_killed_is_sent_by_the_next(desk: Desk) -> None:
    address = to_somebody()
    with Stack.private(["mail"]) as private:
        settings = desk.settings.model_copy(update={"mail_url": secret(private)})
        private.server("mail").pause()  # the sender waits for it, with the letter in hand
        with racing(settings, "send", []) as (racer,):
            racer.go()
            await desk.mails.add(address, "Hello", "Hello.")

            async def claimed() -> bool:
                return bool(desk.one("SELECT tries FROM auth.mails WHERE recipient = %s", address) == 1)

            await until(claimed)
            racer.process.kill()
            racer.process.wait()
        private.server("mail").resume()
        assert desk.one("SELECT due_at > clock_timestamp() FROM auth.mails")  # nobody else had it meanwhile
        desk.sql("UPDATE auth.mails SET due_at = due_at - interval '15 s'")  # time passes
        mail_id: UUID = desk.one("SELECT mail_id FROM auth.mails")
        async with desk.sender(private.urls["SHOWCASE_MAIL_URL"]):
            await desk.all_sent()
        messages = received(private.urls, address)
        assert {message["MessageID"] for message in messages} == {f"{mail_id}@showcase.test"}


async def test_a_letter_that_is_never_taken_is_given_up_and_does_not_hold_up_others(desk: Desk) -> None:
    with Stack.private(["mail"]) as private:
        mail_url = private.urls["SHOWCASE_MAIL_URL"]
        await desk.mails.add("nobody\n@example.org", "No", "No.")
        good = to_somebody()
        await desk.mails.add(good, "Yes", "Yes.")

        async def only_the_bad_one_waits() -> bool:
            return desk.sql("SELECT recipient = %s, tries FROM auth.mails", good) == [(False, 1)]

        with capture_logs() as logs:
            async with desk.sender(mail_url):
                await until(only_the_bad_one_waits)
                desk.sql("UPDATE auth.mails SET tries = 9, due_at = now()")
                await desk.all_sent()
        assert total(private) == 1
    given_up = [entry for entry in logs if entry["event"] == "letter given up"]
    assert [entry["log_level"] for entry in given_up] == ["error"]
    assert "nobody" not in json.dumps([str(entry) for entry in logs])


async def test_a_letter_goes_to_the_address_it_was_given_and_to_no_other(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = "=?utf-8?q?=61da?=@example.org"  # read as an encoded word (RFC 2047) it would be ada's
    told: list[str] = []
    rcpt = smtplib.SMTP.rcpt

    def watched(self: smtplib.SMTP, recipient: str, options: Sequence[str] = ()) -> tuple[int, bytes]:
        told.append(recipient)
        return rcpt(self, recipient, options)

    monkeypatch.setattr(smtplib.SMTP, "rcpt", watched)
    await desk.mails.add(address, "Hello", "Hello.")
    async with desk.sender():
        await desk.all_sent()
    assert told == [address]


async def test_stopping_the_sender_takes_no_longer_than_a_poll(desk: Desk) -> None:
    async with asyncio.timeout(3), desk.sender():
        await desk.mails.add(None, "No", "No.")
        await desk.all_sent()


def secret(private: Stack) -> object:
    """The URL of a private mail server, as settings have it."""
    return SecretStr(private.urls["SHOWCASE_MAIL_URL"])


def total(private: Stack) -> int:
    """How many messages a private mail server got."""
    with client(private.urls, 10) as api:
        return int(api.get("/api/v1/messages").raise_for_status().json()["total"])
