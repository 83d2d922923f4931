"""Refreshes on a real database: what one gives, what it leaves behind, and who slips in between."""

from collections.abc import AsyncIterator, Iterator
from datetime import timedelta

import pytest

from showcase.auth.domain.accounts import (
    ONE_TIME_CODE,
    PASSWORD,
    SCOPES,
    Role,
)
from showcase.auth.domain.refresh import InvalidRefreshToken, Policy, RefreshToken
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import MULTI_FACTOR_ACR
from tests.integration.auth_sessions import ELSEWHERE, HOME, IDLE, LIFETIME, SECRET, World, claims, database_on
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
LATER = timedelta(seconds=11)
REUSED = "a refresh token was used again"
STRICT, GRACE, SAME = Policy.STRICT, Policy.GRACE, Policy.SAME_SUCCESSOR


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with database_on(stack) as url:
        yield url


@pytest.fixture
async def world(url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(url, getattr(request, "param", SAME))
    yield world
    await world.close()


under = pytest.mark.parametrize("world", [STRICT, GRACE, SAME], indirect=True)
under_strict = pytest.mark.parametrize("world", [STRICT], indirect=True)
under_grace = pytest.mark.parametrize("world", [GRACE], indirect=True)
under_both_with_one_child = pytest.mark.parametrize("world", [STRICT, SAME], indirect=True)


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

    again = await world.sessions.refresh(opened.refresh_token or "", ELSEWHERE)
    again = await world.sessions.refresh(again.refresh_token or "", ELSEWHERE)

    assert claims(again) == claims(opened)
    assert claims(again)["acr"] == MULTI_FACTOR_ACR


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


async def test_without_a_signature_there_is_no_refresh_and_the_token_still_counts(world: World) -> None:
    session_id, first = await world.login()

    async def away() -> None:
        raise Unavailable("no key to sign with")

    world.tokens.between = away
    with pytest.raises(Unavailable):
        await world.refresh(first)

    world.pass_time(session_id, LATER)
    assert await world.refresh(first)


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
    assert len(set(grandchildren)) == world.unused(session_id) == 3


@under_grace
async def test_grace_counts_the_leeway_from_the_first_use(world: World) -> None:
    session_id, first = await world.login()
    await world.refresh(first)
    world.pass_time(session_id, timedelta(seconds=6))
    await world.refresh(first)
    world.pass_time(session_id, timedelta(seconds=6))

    with pytest.raises(InvalidRefreshToken):
        await world.refresh(first)
    assert world.is_revoked(session_id)


async def test_the_same_successor_is_given_again_within_the_leeway(world: World) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)
    world.pass_time(session_id, timedelta(seconds=9))

    assert await world.refresh(first) == second
    assert [type_ for type_, _ in world.events(session_id)] == ["login", "refresh.rotated", "refresh.repeated"]
    assert world.unused(session_id) == 1
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


@pytest.mark.parametrize("name", ["t1", "t2"], ids=["another by its name", "none by its name"])
async def test_a_successor_whose_key_is_gone_is_refused_and_nobody_is_logged_out(world: World, name: str) -> None:
    session_id, first = await world.login()
    second = await world.refresh(first)

    other = World(world.url, secrets=f"{name}:another secret that is long enough as well")
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
    account = world.account()
    ended_id, ended = await world.login(account)
    await world.sessions.revoke_all(account.id, why="logout", actor="")
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
    assert not world.rows("SELECT FROM auth.events WHERE type = 'refresh.refused' AND session_id IS NULL"), (
        "anybody can make up a token, and would fill the table"
    )


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

    assert world.generation(session_id) == 1
    assert world.unused(session_id) == 1


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
    assert world.unused(session_id) == 1
    with pytest.raises(InvalidRefreshToken):
        await world.refresh(won[0])


async def test_same_successor_two_at_once_get_the_same_one(world: World) -> None:
    session_id, first = await world.login()
    won: list[str] = []

    async def other() -> None:
        won.append(await world.refresh(first))

    world.tokens.between = other

    assert await world.refresh(first) == won[0]
    assert world.unused(session_id) == 1


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
