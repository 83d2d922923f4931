"""Refreshes of two processes that meet at a barrier, and a process that is killed before it can answer."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, NoReturn
from uuid import UUID

import pytest

from showcase.auth.application.sessions import UnknownSession
from showcase.auth.domain.refresh import InvalidRefreshToken, Policy, RefreshToken
from tests.fakes import until
from tests.integration.auth_sessions import World, database_on
from workshop.stack import Stack

pytestmark = pytest.mark.anyio
PROCESSES = 2
AT_ONCE = 25
CHAINS = 10
LONGEST_CHAIN = 200


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with database_on(stack) as url:
        yield url


# -- what runs in the other processes


def main(url: str, policy: str, *calls: str) -> None:
    """Connect, say so, wait for the signal, do some calls at once, and say what came of each."""
    asyncio.run(_calls(World(url, Policy(policy)), [call.split(" ") for call in calls]))


async def _calls(world: World, calls: Sequence[Sequence[str]]) -> None:
    does: dict[str, Callable[..., Coroutine[Any, Any, str]]]
    does = {"refresh": _refresh, "chain": _chain, "end": _end, "hang": _refresh_and_hang}
    await asyncio.gather(*(world.store.find(UUID(int=0)) for _ in range(10)))  # all connections are there
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    print(json.dumps(await asyncio.gather(*(does[name](world, *rest) for name, *rest in calls))), flush=True)
    await world.close()


async def _refresh(world: World, token: str) -> str:
    try:
        return await world.refresh(token)
    except InvalidRefreshToken:
        return "refused"


async def _chain(world: World, token: str) -> str:
    """Refresh again and again, each time with what came of it; the last token there was."""
    for _ in range(LONGEST_CHAIN):
        try:
            token = await world.refresh(token)
        except InvalidRefreshToken:
            break
    return token


async def _end(world: World, session_id: str, account_id: str, after: str) -> str:
    """End a session as soon as it has a generation."""

    async def has_come() -> bool:
        return world.generation(UUID(session_id)) >= int(after)

    await until(has_come)
    try:
        await world.sessions.end(UUID(session_id), UUID(account_id), why="logout", actor="")
    except UnknownSession:
        return "unknown"
    return "ended"


async def _refresh_and_hang(world: World, token: str) -> NoReturn:
    """Refresh, and never answer: say what is committed, and wait to be killed."""
    add_token = world.store.add_token
    children = []

    async def noted(child: RefreshToken, *arguments: Any, **named: Any) -> None:
        children.append(child.text)
        await add_token(child, *arguments, **named)

    @asynccontextmanager
    async def committed() -> AsyncIterator[None]:
        async with world.database.transaction():
            yield
        print(children[0], flush=True)
        await asyncio.Event().wait()

    object.__setattr__(world.store, "add_token", noted)
    object.__setattr__(world.sessions, "transaction", committed)
    await world.refresh(token)
    raise AssertionError


# -- how they are started


@contextmanager
def process(url: str, policy: Policy, calls: Sequence[str]) -> Iterator["subprocess.Popen[str]"]:
    """A process that has everything but the signal."""
    code = "import sys; from tests.integration.test_auth_refresh_races import main; main(*sys.argv[1:])"
    started = subprocess.Popen(
        [sys.executable, "-P", "-c", code, url, policy.value, *calls],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert _said(started) == "ready"
        yield started
    finally:
        started.kill()
        started.communicate(timeout=10)


def _said(started: "subprocess.Popen[str]") -> str:
    assert started.stdout
    return started.stdout.readline().strip()


def _signal(*processes: "subprocess.Popen[str]") -> None:
    for one in processes:
        assert one.stdin
        one.stdin.write("go\n")
        one.stdin.flush()


def at_once(url: str, policy: Policy, *calls: Sequence[str]) -> list[list[str]]:
    """Do the calls of each process when all are ready; what came of them."""
    with ExitStack() as stack:
        processes = [stack.enter_context(process(url, policy, some)) for some in calls]
        _signal(*processes)
        return [json.loads(_said(one)) for one in processes]


async def race(world: World, token: str) -> list[str]:
    """So many refreshes of one token at once, in two processes."""
    calls = [f"refresh {token}"] * AT_ONCE
    given = await asyncio.to_thread(at_once, world.url, world.policy, *[calls[n::PROCESSES] for n in range(PROCESSES)])
    return [answer for some in given for answer in some]


@pytest.fixture
async def world(url: str, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    world = World(url, request.param)
    yield world
    await world.close()


# -- the races


@pytest.mark.parametrize("world", [Policy.STRICT], indirect=True)
async def test_strict_of_many_at_once_exactly_one_wins_and_then_nobody(world: World) -> None:
    session_id, first = await world.login()

    answers = await race(world, first)

    (won,) = set(answers) - {"refused"}
    assert Counter(answers) == {won: 1, "refused": AT_ONCE - 1}
    assert world.is_revoked(session_id)
    assert world.unused(session_id) == 1
    assert Counter(type_ for type_, _ in world.events(session_id)) == {
        "login": 1,
        "refresh.rotated": 1,
        "refresh.reused": 1,
        "session.revoked": 1,
        "refresh.refused": AT_ONCE - 2,
    }
    assert await _refresh(world, won) == "refused"


@pytest.mark.parametrize("world", [Policy.SAME_SUCCESSOR], indirect=True)
async def test_same_successor_many_at_once_all_get_the_same_one(world: World) -> None:
    session_id, first = await world.login()

    answers = await race(world, first)

    assert set(answers) != {"refused"}
    assert len(set(answers)) == 1
    assert world.unused(session_id) == 1
    assert Counter(type_ for type_, _ in world.events(session_id)) == {
        "login": 1,
        "refresh.rotated": 1,
        "refresh.repeated": AT_ONCE - 1,
    }
    assert await _refresh(world, answers[0]) != "refused"


@pytest.mark.parametrize("world", [Policy.GRACE], indirect=True)
async def test_grace_many_at_once_each_get_one_of_their_own(world: World) -> None:
    session_id, first = await world.login()

    answers = await race(world, first)

    assert "refused" not in answers
    assert len(set(answers)) == world.unused(session_id) == AT_ONCE
    generations = world.rows("SELECT generation FROM auth.refresh_tokens WHERE session_id = %s", session_id)
    assert sorted(generations) == [(number,) for number in range(1, AT_ONCE + 2)]


@pytest.mark.parametrize("world", Policy, indirect=True)
async def test_whoever_ends_a_session_while_it_is_refreshed_wins(world: World) -> None:
    account = world.account()
    sessions = [await world.login(account) for _ in range(CHAINS)]
    refreshes = [f"chain {token}" for _, token in sessions]
    ends = [f"end {session_id} {account.id} {3 + number}" for number, (session_id, _) in enumerate(sessions)]

    last, ended = await asyncio.to_thread(at_once, world.url, world.policy, refreshes, ends)

    assert ended == ["ended"] * CHAINS
    for token, (session_id, _) in zip(last, sessions, strict=True):
        assert await _refresh(world, token) == "refused"
        assert not world.rows(
            "SELECT FROM auth.refresh_tokens t JOIN auth.sessions s USING (session_id)"
            " WHERE session_id = %s AND t.issued_at > s.revoked_at",
            session_id,
        )
        assert 3 <= world.generation(session_id) < LONGEST_CHAIN  # it was in the middle of it


# -- the answer that was lost


@pytest.mark.parametrize("world", [Policy.SAME_SUCCESSOR], indirect=True)
async def test_an_answer_lost_with_its_process_is_given_again_by_another(world: World) -> None:
    session_id, first = await world.login()
    with process(world.url, world.policy, [f"hang {first}"]) as killed:
        _signal(killed)
        lost = await asyncio.to_thread(_said, killed)

    assert world.unused(session_id) == 1
    assert await world.refresh(first) == lost
    assert await world.refresh(lost)
    assert not world.is_revoked(session_id)


@pytest.mark.parametrize("world", [Policy.STRICT], indirect=True)
async def test_strict_logs_out_whoever_has_lost_an_answer(world: World) -> None:
    session_id, first = await world.login()
    with process(world.url, world.policy, [f"hang {first}"]) as killed:
        _signal(killed)
        lost = await asyncio.to_thread(_said, killed)

    assert await _refresh(world, first) == "refused"
    assert world.is_revoked(session_id)
    assert await _refresh(world, lost) == "refused"
