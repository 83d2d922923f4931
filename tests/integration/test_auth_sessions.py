"""Sessions on a real database: what a refresh gives, what it leaves behind, and who slips in between."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from showcase.auth.application.ports import Tokens
from showcase.auth.application.sessions import UnknownSession
from showcase.auth.domain.accounts import (
    MULTI_FACTOR_ACR,
    ONE_FACTOR_ACR,
    ONE_TIME_CODE,
    PASSWORD,
    SCOPES,
    Device,
    Role,
)
from showcase.auth.domain.refresh import InvalidRefreshToken, Policy, RefreshToken
from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.kernel.errors import Unavailable
from tests.integration.auth_sessions import ACCESS, ELSEWHERE, HOME, IDLE, LIFETIME, SECRET, World
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio
LATER = timedelta(seconds=11)
REUSED = "a refresh token was used again"
STRICT, GRACE, SAME = Policy.STRICT, Policy.GRACE, Policy.SAME_SUCCESSOR


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    name = "SHOWCASE_POSTGRES_URL"
    with Namespace.create({name: stack.urls[name]}) as names:
        yield names.postgres_url


@pytest.fixture
async def world(url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(url, getattr(request, "param", SAME))
    yield world
    await world.close()


under = pytest.mark.parametrize("world", [STRICT, GRACE, SAME], indirect=True)
under_strict = pytest.mark.parametrize("world", [STRICT], indirect=True)
under_grace = pytest.mark.parametrize("world", [GRACE], indirect=True)
under_both_with_one_child = pytest.mark.parametrize("world", [STRICT, SAME], indirect=True)


def claims(tokens: Tokens) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(tokens.access_token)
    return found


# -- a session begins


async def test_login_gives_both_tokens_and_is_an_event(world: World) -> None:
    account = world.account()

    tokens = await world.sessions.open(account, HOME, amr=(PASSWORD,))

    assert claims(tokens)["sub"] == account.subject
    assert claims(tokens)["sid"] == str(tokens.session_id)
    assert (claims(tokens)["acr"], claims(tokens)["amr"]) == (ONE_FACTOR_ACR, ["pwd"])
    assert tokens.scopes == SCOPES[Role.CUSTOMER]
    assert (tokens.expires_in, tokens.refresh_lifetime) == (ACCESS, IDLE)
    ((actor, address, data),) = world.rows(
        "SELECT actor, address, data FROM auth.events WHERE type = 'login' AND session_id = %s", tokens.session_id
    )
    assert (actor, address) == (account.subject, HOME.address)
    assert RefreshToken.read(tokens.refresh_token or "").id.hex == data["token_id"].replace("-", "")


async def test_only_hashes_of_refresh_tokens_are_stored(world: World) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)

    stored = world.rows("SELECT secret_hash FROM auth.refresh_tokens WHERE session_id = %s", session_id)

    given = [RefreshToken.read(text) for text in (first, second)]
    assert {bytes(value) for (value,) in stored} == {token.secret_hash for token in given}
    assert not {bytes(value) for (value,) in stored} & {token.secret for token in given}


async def test_without_a_signature_there_is_no_refresh_and_the_token_still_counts(world: World) -> None:
    session_id, first = await world.login()

    async def away() -> None:
        raise Unavailable("no key to sign with")

    world.tokens.between = away
    with pytest.raises(Unavailable):
        await world.refresh(first)

    world.pass_time(session_id, LATER)
    assert await world.refresh(first)


# -- what a refresh keeps, and what it brings up to date


@under
async def test_a_refresh_gives_new_tokens_and_is_an_event(world: World) -> None:
    session_id, first = await world.login()

    tokens = await world.sessions.refresh(first, HOME)

    assert tokens.refresh_token not in {None, first}
    assert tokens.session_id == session_id
    ((data,),) = world.rows(
        "SELECT data FROM auth.events WHERE type = 'refresh.rotated' AND session_id = %s", session_id
    )
    assert (data["generation"], data["policy"]) == (2, world.policy)
    assert data["parent_id"].replace("-", "") == RefreshToken.read(first).id.hex
    assert data["token_id"].replace("-", "") == RefreshToken.read(tokens.refresh_token or "").id.hex


async def test_a_refresh_keeps_how_and_when_its_owner_signed_in(world: World) -> None:
    account = world.account()
    opened = await world.sessions.open(account, HOME, amr=(PASSWORD, ONE_TIME_CODE))

    refreshed = await world.sessions.refresh(opened.refresh_token or "", ELSEWHERE)

    assert claims(refreshed) == claims(opened)
    assert claims(refreshed)["acr"] == MULTI_FACTOR_ACR


async def test_a_refresh_gives_the_scopes_that_the_role_has_today(world: World) -> None:
    account = world.account(Role.SUPPORT)
    _, first = await world.login(account)
    world.do("UPDATE auth.accounts SET role = 'auditor' WHERE account_id = %s", account.id)

    tokens = await world.sessions.refresh(first, HOME)

    assert tokens.scopes == SCOPES[Role.AUDITOR]
    assert claims(tokens)["scope"] == sorted(SCOPES[Role.AUDITOR])


@under
async def test_each_refresh_begins_the_idle_time_anew_up_to_the_absolute_limit(world: World) -> None:
    session_id, token = await world.login()
    for _ in range(2):
        world.pass_time(session_id, timedelta(days=8))
        token = await world.refresh(token)
    world.pass_time(session_id, LIFETIME - timedelta(days=16, minutes=1))

    tokens = await world.sessions.refresh(token, HOME)
    assert tokens.expires_in <= timedelta(minutes=1)
    assert tokens.refresh_lifetime <= timedelta(minutes=1)
    world.pass_time(session_id, timedelta(minutes=1))
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(tokens.refresh_token or "")

    assert world.events(session_id)[-1] == ("refresh.refused", "expired")


@under
async def test_a_session_that_was_not_used_for_long_has_ended(world: World) -> None:
    session_id, first = await world.login()
    world.pass_time(session_id, IDLE + timedelta(seconds=1))

    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)

    assert world.events(session_id)[-1] == ("refresh.refused", "idle")
    assert not await world.store.is_live(session_id)


# -- a token is used again


@under_strict
async def test_strict_revokes_at_the_second_use(world: World) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)

    for token in (first, second):
        with pytest.raises(InvalidRefreshToken):
            await world.refresh(token)

    assert world.is_revoked(session_id)


@under_grace
async def test_grace_gives_a_child_of_its_own_to_whoever_comes_within_the_leeway(world: World) -> None:
    session_id, first = await world.login()

    children = [await world.refresh(first) for _ in range(3)]

    assert len(set(children)) == 3
    grandchildren = [await world.refresh(child) for child in children]
    assert len(set(grandchildren)) == world.children(session_id) == 3


async def test_the_same_successor_is_given_again_within_the_leeway(world: World) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)
    world.pass_time(session_id, timedelta(seconds=9))

    assert await world.refresh(first) == second
    assert [type_ for type_, _ in world.events(session_id)] == ["login", "refresh.rotated", "refresh.repeated"]
    assert world.children(session_id) == 1
    assert await world.refresh(second)


async def test_another_process_gives_the_same_successor_even_with_a_newer_key(world: World) -> None:
    _, first = await world.login()
    second = await world.refresh(first)

    other = World(world.url, secrets=f"t2:another secret that is long enough as well,{SECRET}")
    try:
        assert await other.refresh(first) == second
        assert await other.refresh(second) != second
    finally:
        await other.close()


async def test_a_successor_whose_key_is_gone_is_refused_and_nobody_is_logged_out(world: World) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)

    other = World(world.url, secrets="t2:another secret that is long enough as well")
    try:
        with pytest.raises(InvalidRefreshToken):
            await other.refresh(first)
        assert await other.refresh(second)
    finally:
        await other.close()
    assert not world.is_revoked(session_id)


@under_both_with_one_child
@pytest.mark.parametrize("how", ["too late", "successor used"])
async def test_theft_ends_the_session_for_both_and_leaves_its_traces_though_the_caller_gets_an_error(
    world: World, how: str
) -> None:
    account = world.account()
    session_id, first = await world.login(account)
    newest = await world.refresh(first)
    if how == "too late":
        world.pass_time(session_id, LATER)
    else:
        newest = await world.refresh(newest)

    with pytest.raises(InvalidRefreshToken):
        await world.sessions.refresh(first, ELSEWHERE)

    assert world.is_revoked(session_id)
    assert world.events(session_id)[-2:] == [("refresh.reused", REUSED), ("session.revoked", REUSED)]
    assert world.denied == [session_id]
    ((letter,),) = world.rows("SELECT body FROM auth.mails WHERE recipient = %s", account.email)
    assert ELSEWHERE.address in bytes(letter).decode()
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(newest)
    assert world.events(session_id)[-1] == ("refresh.refused", "revoked")


async def test_revocation_event_and_letter_are_stored_together_or_not_at_all(world: World) -> None:
    account = world.account()
    session_id, first = await world.login(account)
    await world.refresh(first)
    world.pass_time(session_id, LATER)
    world.do("ALTER TABLE auth.mails RENAME TO mails_away")
    try:
        with pytest.raises(Exception, match=r"auth\.mails"):
            await world.refresh(first)
    finally:
        world.do("ALTER TABLE auth.mails_away RENAME TO mails")

    assert not world.is_revoked(session_id)
    assert ("refresh.reused", REUSED) not in world.events(session_id)
    assert world.denied == []


@under
async def test_a_wrong_secret_is_refused_and_logs_nobody_out(world: World) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)

    for token in (first, second):
        with pytest.raises(InvalidRefreshToken):
            await world.refresh(RefreshToken(RefreshToken.read(token).id, bytes(32)).text)

    assert world.events(session_id)[-2:] == [("refresh.refused", "wrong secret")] * 2
    assert not world.is_revoked(session_id)
    assert await world.refresh(second)


async def test_every_refusal_has_the_same_words_and_a_reason_in_the_log(world: World) -> None:
    session_id, first = await world.login()
    ended_id, ended = await world.login()
    await world.sessions.revoke_all(_owner(world, ended_id), why="logout", actor="")
    unknown = RefreshToken.first().text
    forged = RefreshToken(RefreshToken.read(first).id, bytes(32)).text

    said = set()
    for token in (unknown, forged, ended, "nonsense"):
        with pytest.raises(InvalidRefreshToken) as refused:
            await world.refresh(token)
        said.add((refused.value.detail, str(refused.value.facts), str(refused.value.challenge)))

    assert len(said) == 1
    assert ("refresh.refused", "wrong secret") in world.events(session_id)
    assert ("refresh.refused", "revoked") in world.events(ended_id)
    assert world.rows("SELECT FROM auth.events WHERE type = 'refresh.refused' AND reason = 'unknown'")


# -- who slips in between the look at a token and its rotation


@under
async def test_a_session_that_ends_meanwhile_gets_no_new_token(world: World) -> None:
    account = world.account()
    session_id, first = await world.login(account)

    async def end() -> None:
        await world.sessions.end(session_id, account.id, why="logout", actor=account.subject)

    world.tokens.between = end
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)

    assert world.rows("SELECT generation FROM auth.sessions WHERE session_id = %s", session_id) == [(1,)]
    assert world.children(session_id) == 1


async def test_a_session_that_ends_meanwhile_does_not_repeat_its_answer(world: World) -> None:
    account = world.account()
    session_id, first = await world.login(account)
    await world.refresh(first)

    async def end() -> None:
        await world.sessions.end(session_id, account.id, why="logout", actor=account.subject)

    world.tokens.between = end
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)


@under
@pytest.mark.parametrize("limit", [IDLE, LIFETIME], ids=["idle", "absolute"])
async def test_a_session_whose_time_is_over_meanwhile_gets_no_new_token(world: World, limit: timedelta) -> None:
    session_id, first = await world.login()

    async def pass_it() -> None:
        world.pass_time(session_id, limit)
        if limit == LIFETIME:
            world.do("UPDATE auth.sessions SET idle_until = now() + interval '1 day' WHERE session_id = %s", session_id)

    world.tokens.between = pass_it
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)


@under_strict
async def test_strict_of_two_at_once_one_wins_and_the_family_is_revoked(world: World) -> None:
    session_id, first = await world.login()
    won: list[str] = []

    async def other() -> None:
        won.append(await world.refresh(first))

    world.tokens.between = other
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)

    assert world.is_revoked(session_id)
    assert world.children(session_id) == 1
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(won[0])


async def test_same_successor_two_at_once_get_the_same_one(world: World) -> None:
    session_id, first = await world.login()
    won: list[str] = []

    async def other() -> None:
        won.append(await world.refresh(first))

    world.tokens.between = other

    assert await world.refresh(first) == won[0]
    assert world.children(session_id) == 1


async def test_an_answer_is_not_repeated_once_its_successor_is_used_meanwhile(world: World) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)

    async def other() -> None:
        await world.refresh(second)

    world.tokens.between = other
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)

    assert world.is_revoked(session_id)


@under_both_with_one_child
async def test_branches_left_over_from_grace_do_not_live_side_by_side(world: World) -> None:
    lenient = World(world.url, GRACE)
    session_id, first = await lenient.login()
    elder, younger = [await lenient.refresh(first) for _ in range(2)]
    await lenient.close()

    younger = await world.refresh(younger)
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(elder)

    assert world.is_revoked(session_id)
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(younger)


# -- step-up


async def test_step_up_adds_the_method_and_proves_its_owner_anew(world: World) -> None:
    account = world.account()
    opened = await world.sessions.open(account, HOME, amr=(PASSWORD,))
    world.pass_time(opened.session_id, timedelta(hours=1))

    stepped = await world.sessions.step_up(opened.session_id, amr=(ONE_TIME_CODE,))

    assert (claims(stepped)["acr"], claims(stepped)["amr"]) == (MULTI_FACTOR_ACR, ["pwd", "otp", "mfa"])
    assert stepped.session_id == opened.session_id
    assert stepped.refresh_token is None
    ((now,),) = world.rows("SELECT clock_timestamp()")
    assert now - datetime.fromisoformat(claims(stepped)["auth_time"]) < timedelta(minutes=1)
    assert [type_ for type_, _ in world.events(opened.session_id)] == ["login", "session.stepped-up"]
    refreshed = await world.sessions.refresh(opened.refresh_token or "", HOME)
    assert claims(refreshed) == claims(stepped)


async def test_no_step_up_of_a_session_that_has_ended(world: World) -> None:
    account = world.account()
    session_id, _ = await world.login(account)
    await world.sessions.end(session_id, account.id, why="logout", actor=account.subject)

    with pytest.raises(InvalidToken) as refused:
        await world.sessions.step_up(session_id, amr=(ONE_TIME_CODE,))

    assert refused.value.reason is Reason.REVOKED


# -- sessions of an account


async def test_an_owner_sees_the_sessions_that_live_and_where_they_were_used_last(world: World) -> None:
    account = world.account()
    sessions = [await world.login(account) for _ in range(4)]
    await world.login()
    await world.sessions.end(sessions[0][0], account.id, why="logout", actor=account.subject)
    world.pass_time(sessions[1][0], IDLE)
    await world.sessions.refresh(sessions[2][1], Device(address="2001:db8::1", name="x" * 5_000, in_browser=True))

    listed = await world.sessions.list_(account.id)

    assert [info.session_id for info in listed] == [sessions[2][0], sessions[3][0]]
    assert (listed[0].address, listed[0].device) == ("2001:db8::1", "x" * 200)
    assert (listed[1].address, listed[1].device) == (HOME.address, HOME.name)
    assert not any(info.in_browser for info in listed)


async def test_nobody_ends_the_session_of_another(world: World) -> None:
    session_id, first = await world.login()
    other = world.account()

    for attempted in (session_id, uuid4()):
        with pytest.raises(UnknownSession):
            await world.sessions.end(attempted, other.id, why="logout", actor=other.subject)

    assert world.denied == []
    assert await world.refresh(first)


async def test_a_session_ends_once(world: World) -> None:
    account = world.account()
    session_id, _ = await world.login(account)
    await world.sessions.end(session_id, account.id, why="logout", actor=account.subject)

    with pytest.raises(UnknownSession):
        await world.sessions.end(session_id, account.id, why="logout", actor=account.subject)

    assert world.events(session_id)[1:] == [("session.revoked", "logout")]
    assert world.denied == [session_id]


async def test_all_sessions_of_an_account_end_but_the_one_that_is_kept(world: World) -> None:
    account = world.account()
    sessions = [await world.login(account) for _ in range(4)]
    stranger_id, stranger = await world.login()
    kept_id, kept = sessions[1]

    ended = await world.sessions.revoke_all(account.id, why="password changed", actor=account.subject, keep=kept_id)

    others = {session_id for session_id, _ in sessions} - {kept_id}
    assert ended == 3
    assert set(world.denied) == others
    for session_id, token in sessions:
        if session_id != kept_id:
            assert world.events(session_id)[-1] == ("session.revoked", "password changed")
            with pytest.raises(InvalidRefreshToken):
                await world.refresh(token)
    assert await world.refresh(kept)
    assert await world.refresh(stranger)
    assert await world.store.is_live(stranger_id)
    assert await world.sessions.revoke_all(account.id, why="again", actor="") == 1


async def test_what_is_revoked_within_a_transaction_that_fails_is_not(world: World) -> None:
    account = world.account()
    session_id, first = await world.login(account)

    with suppress(LookupError):
        async with world.database.transaction():
            await world.sessions.revoke_all(account.id, why="password changed", actor=account.subject)
            raise LookupError

    assert await world.refresh(first)
    assert world.events(session_id)[-1] == ("refresh.rotated", "")


# -- pruning


async def test_what_ended_long_ago_is_removed_with_its_tokens_and_nothing_else(world: World) -> None:
    kept = timedelta(days=7)
    account = world.account()
    ends = {}
    for how in ("revoked", "idle", "expired", "revoked lately", "lives"):
        ends[how], token = await world.login(account)
        await world.refresh(token)
    await world.sessions.end(ends["revoked"], account.id, why="logout", actor="")
    world.pass_time(ends["revoked"], kept + LATER)
    world.pass_time(ends["idle"], IDLE + kept + LATER)
    world.pass_time(ends["expired"], LIFETIME + kept + LATER)
    world.do("UPDATE auth.sessions SET idle_until = now() + interval '1 day' WHERE session_id = %s", ends["expired"])
    await world.sessions.end(ends["revoked lately"], account.id, why="logout", actor="")
    world.pass_time(ends["revoked lately"], kept - LATER)
    world.pass_time(ends["lives"], kept - LATER)

    await world.store.prune(kept)

    left = world.rows("SELECT session_id FROM auth.sessions WHERE account_id = %s", account.id)
    assert {session_id for (session_id,) in left} == {ends["revoked lately"], ends["lives"]}
    tokens = world.rows("SELECT session_id FROM auth.refresh_tokens WHERE session_id = ANY(%s)", list(ends.values()))
    assert sorted(tokens) == sorted([(ends["revoked lately"],), (ends["lives"],)] * 2)


async def test_tokens_of_a_session_that_lives_are_removed_when_they_were_replaced_long_ago(world: World) -> None:
    session_id, token = await world.login()
    first = token
    for _ in range(3):
        token = await world.refresh(token)
        world.pass_time(session_id, timedelta(days=3))

    await world.store.prune(timedelta(days=7))

    generations = world.rows("SELECT generation FROM auth.refresh_tokens WHERE session_id = %s", session_id)
    assert sorted(generations) == [(2,), (3,), (4,)]
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)
    assert await world.refresh(token)


def _owner(world: World, session_id: object) -> Any:
    return world.rows("SELECT account_id FROM auth.sessions WHERE session_id = %s", session_id)[0][0]
