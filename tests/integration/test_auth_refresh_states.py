"""Refresh tokens as a state machine: whatever is done in whatever order, the database agrees with a small model.

The model knows no SQL and does not call `decide`: it says again, in its own words, what each policy promises.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from showcase.auth.domain.refresh import InvalidRefreshToken, Policy, RefreshToken
from tests.integration.auth_sessions import IDLE, LEEWAY, LIFETIME, World, database_on
from workshop.stack import Stack

T = TypeVar("T")
CHECKED = settings(
    max_examples=25,
    stateful_step_count=25,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
PASSING = [timedelta(seconds=4), timedelta(seconds=7), timedelta(days=8)]
"""No sum of these comes within a second of a limit: the time that the test itself takes changes nothing."""

places = st.integers(0, 1_000)


@dataclass
class Token:
    """One refresh token, as the model knows it; times are ages of its family."""

    text: str
    generation: int
    parent: int | None
    used_at: timedelta | None = None


@dataclass
class Family:
    """One session, as the model knows it."""

    session_id: UUID
    tokens: list[Token] = field(default_factory=list)
    age: timedelta = timedelta()
    last_used: timedelta = timedelta()
    revoked: bool = False

    @property
    def ended(self) -> bool:
        return self.revoked or self.age >= LIFETIME or self.age - self.last_used >= IDLE


class Sessions(RuleBasedStateMachine):
    """One account, its sessions, and everybody who holds one of their tokens."""

    world: World
    runner: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.policy = self.world.policy
        self.account = self.world.account()
        self.families: list[Family] = []

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    # -- what can be done

    @precondition(lambda self: len(self.families) < 3)
    @rule()
    def login(self) -> None:
        session_id, token = self.run(self.world.login(self.account))
        self.families.append(Family(session_id, [Token(token, 1, None)]))

    @precondition(lambda self: self.families)
    @rule(place=places)
    def refresh_with_the_newest(self, place: int) -> None:
        family = self.family(place)
        self.refresh(family, family.tokens[-1])

    @precondition(lambda self: self.families)
    @rule(place=places, which=places)
    def refresh_with_any(self, place: int, which: int) -> None:
        family = self.family(place)
        self.refresh(family, family.tokens[which % len(family.tokens)])

    @precondition(lambda self: self.families)
    @rule(place=places, which=places)
    def refresh_with_a_forged_one(self, place: int, which: int) -> None:
        tokens = self.family(place).tokens
        known = RefreshToken.read(tokens[which % len(tokens)].text)
        assert self.attempt(RefreshToken(known.id, known.secret[::-1]).text) is None

    @precondition(lambda self: self.families)
    @rule(place=places, passed=st.sampled_from(PASSING))
    def time_passes(self, place: int, passed: timedelta) -> None:
        family = self.family(place)
        self.world.pass_time(family.session_id, passed)
        family.age += passed

    @precondition(lambda self: self.families)
    @rule(place=places)
    def revoke_one(self, place: int) -> None:
        family = self.family(place)
        if not family.revoked:
            self.run(self.world.sessions.end(family.session_id, self.account.id, why="logout", actor=""))
            family.revoked = True

    @precondition(lambda self: len(self.families) == 3)
    @rule()
    def revoke_all_but_the_last(self) -> None:
        keep = self.families[-1].session_id
        self.run(self.world.sessions.revoke_all(self.account.id, why="password changed", actor="", keep=keep))
        for family in self.families[:-1]:
            family.revoked = True

    # -- what must come of it

    def refresh(self, family: Family, token: Token) -> None:
        got = self.attempt(token.text)
        if family.ended:
            assert got is None, "a family that ended was refreshed"
            return
        newest = family.tokens[-1]
        again = token.used_at is not None and family.age - token.used_at <= LEEWAY
        if self.policy is Policy.GRACE:
            is_new, is_same = token.used_at is None or again, False
        else:
            is_new = token is newest
            is_same = self.policy is Policy.SAME_SUCCESSOR and again and newest.parent == token.generation
        if is_same:
            assert got == newest.text
            family.last_used = family.age
        elif is_new:
            assert got is not None
            assert got not in {one.text for one in family.tokens}
            if token.used_at is None:
                token.used_at = family.age
            family.tokens.append(Token(got, newest.generation + 1, token.generation))
            family.last_used = family.age
        else:
            assert got is None, "a token that was replaced was accepted"
            family.revoked = True

    @invariant()
    def no_two_tokens_of_a_family_live(self) -> None:
        if self.policy is not Policy.GRACE:
            query = "SELECT count(*) FROM auth.refresh_tokens t JOIN auth.sessions s USING (session_id)"
            unused = " WHERE account_id = %s AND t.used_at IS NULL GROUP BY session_id"
            assert {count for (count,) in self.world.rows(query + unused, self.account.id)} <= {1}

    @invariant()
    def generations_are_those_of_the_model(self) -> None:
        query = """
            SELECT s.session_id, s.generation, array_agg(t.generation ORDER BY t.generation),
                bool_and(parent.generation IS NULL OR parent.generation < t.generation)
            FROM auth.sessions s JOIN auth.refresh_tokens t USING (session_id)
            LEFT JOIN auth.refresh_tokens parent ON parent.token_id = t.parent_id
            WHERE s.account_id = %s GROUP BY s.session_id
        """
        stored = {session_id: tuple(rest) for session_id, *rest in self.world.rows(query, self.account.id)}
        assert stored == {
            family.session_id: (len(family.tokens), list(range(1, len(family.tokens) + 1)), True)
            for family in self.families
        }

    @invariant()
    def what_is_revoked_is_revoked_and_there_is_one_event_of_it(self) -> None:
        query = """
            SELECT session_id, revoked_at IS NOT NULL,
                (SELECT count(*) FROM auth.events e WHERE e.session_id = s.session_id AND type = 'session.revoked')
            FROM auth.sessions s WHERE account_id = %s
        """
        stored = {
            session_id: (revoked, events) for session_id, revoked, events in self.world.rows(query, self.account.id)
        }
        assert stored == {family.session_id: (family.revoked, int(family.revoked)) for family in self.families}

    # -- how it is done

    def family(self, place: int) -> Family:
        return self.families[place % len(self.families)]

    def attempt(self, text: str) -> str | None:
        """The token that one is exchanged for; None if it is refused."""
        try:
            return self.run(self.world.refresh(text))
        except InvalidRefreshToken:
            return None


@pytest.fixture(scope="module")
def url(stack: Stack) -> Iterator[str]:
    with database_on(stack) as url:
        yield url


@pytest.mark.parametrize("policy", Policy)
def test_whatever_happens_the_database_agrees_with_the_model(url: str, policy: Policy) -> None:
    with asyncio.Runner() as runner:
        world = World(url, policy)
        try:
            machine = type("SessionsOfAWorld", (Sessions,), {"world": world, "runner": runner})
            run_state_machine_as_test(machine, settings=CHECKED)
        finally:
            runner.run(world.close())
