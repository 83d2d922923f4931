"""Sessions on a real database: begun, stepped up, listed, ended, removed."""

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import uuid4

import pytest

from showcase.auth.application.sessions import UnknownSession
from showcase.auth.domain.accounts import (
    ONE_TIME_CODE,
    PASSWORD,
    SCOPES,
    Device,
    Role,
)
from showcase.auth.domain.refresh import InvalidRefreshToken, RefreshToken
from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.kernel.principal import MULTI_FACTOR_ACR, ONE_FACTOR_ACR
from tests.integration.auth_sessions import ACCESS, HOME, IDLE, LIFETIME, World, claims, database_on
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
LATER = timedelta(seconds=11)


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with database_on(stack) as url:
        yield url


@pytest.fixture
async def world(url: str) -> AsyncIterator[World]:
    world = World(url)
    yield world
    await world.close()


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


# -- step-up


async def test_step_up_adds_the_method_and_proves_its_owner_anew(world: World) -> None:
    account = world.account()
    opened = await world.sessions.open(account, HOME, amr=(PASSWORD,))
    world.pass_time(opened.session_id, timedelta(hours=1))

    stepped = await world.sessions.step_up(opened.session_id, amr=(ONE_TIME_CODE,))

    assert (claims(stepped)["acr"], claims(stepped)["amr"]) == (MULTI_FACTOR_ACR, ["pwd", "otp", "mfa"])
    assert stepped.session_id == opened.session_id
    assert stepped.refresh_token is None
    now = world.one("SELECT clock_timestamp()")
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


async def test_however_old_a_token_of_a_session_that_lives_its_use_again_reveals_a_theft(world: World) -> None:
    session_id, first = await world.login()
    token = first
    for _ in range(3):
        token = await world.refresh(token)
        world.pass_time(session_id, timedelta(days=3))

    await world.store.prune(timedelta(days=7))

    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)
    assert world.is_revoked(session_id)
