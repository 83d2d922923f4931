"""Accounts on real servers: from registering to signing in, what timing tells, races, floods, outages."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack
from datetime import timedelta
from statistics import median
from typing import Any, ClassVar, TypeVar
from uuid import UUID, uuid4

import psycopg
import pytest
from argon2 import PasswordHasher
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from showcase.auth.application.accounts import TooManyAttempts, WrongCode, WrongCredentials
from showcase.auth.application.stores import Kind, Purpose
from showcase.auth.infrastructure.secrets import Secrets
from showcase.auth.infrastructure.throttle import Throttle
from showcase.kernel.errors import Unavailable
from showcase.platform import redis
from tests.fakes import uncollected, until
from tests.integration.auth_accounts import (
    FREE,
    OTHER,
    PASSWORD,
    PHONE,
    Desk,
    code_in,
    desk_of,
    outcome,
    race,
    received,
)
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

pytestmark = pytest.mark.anyio

T = TypeVar("T")
TOLD_BY_TIME = 0.15
"""A fraction by which medians may differ, on a machine with other work. An Argon2 hash left out for an address without
an account is several times that. A letter left out is hardly more: that there is one is counted in the unit tests."""
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture(scope="module")
def names(stack: Stack) -> Iterator[Namespace]:
    with stack.namespace() as names:
        yield names


@pytest.fixture
async def desk(names: Namespace) -> AsyncIterator[Desk]:
    async with desk_of(names.env, **FREE) as desk:
        yield desk


def somebody() -> str:
    """An address that nobody has."""
    return f"{uuid4().hex}@example.org"


async def test_from_registering_to_signing_in(stack: Stack, desk: Desk) -> None:
    email = somebody()
    async with desk.sender():
        challenge_id = await desk.accounts.register(email, PASSWORD, PHONE)
        await desk.all_sent()
    (message,) = received(stack.urls, email)
    account = await desk.accounts.verify(challenge_id, code_in(message["Text"]), PHONE)
    tokens = await desk.accounts.login(email, PASSWORD, PHONE)
    assert desk.sql("SELECT amr, account_id FROM auth.sessions WHERE session_id = %s", tokens.session_id) == [
        (["pwd"], account.id)
    ]
    types = desk.sql("SELECT type FROM auth.events WHERE account_id = %s ORDER BY event_id", account.id)
    assert types == [("registered",), ("login",)]


async def test_a_refusal_is_written_down_although_it_is_an_error(desk: Desk) -> None:
    account = await desk.account()
    with pytest.raises(WrongCredentials):
        await desk.accounts.login(account.email, OTHER, PHONE)
    found = desk.sql("SELECT type, reason, address FROM auth.events WHERE account_id = %s", account.id)
    assert found == [("login.refused", "wrong password", PHONE.address)]


async def test_no_code_and_no_password_is_stored_in_clear(desk: Desk) -> None:
    email = somebody()
    await desk.accounts.register(email, PASSWORD, PHONE)
    code = desk.code(email)
    rows = desk.sql("SELECT code_hash, password_hash FROM auth.challenges WHERE email = %s", email)
    rows += desk.sql("SELECT body, recipient FROM auth.mails WHERE recipient = %s", email)
    assert len(rows) == 2
    for row in rows:
        for value in row:
            stored = value if isinstance(value, bytes) else str(value).encode()
            assert code.encode() not in stored
            assert PASSWORD.encode() not in stored


async def medians(first: Callable[[], Awaitable[object]], second: Callable[[], Awaitable[object]]) -> float:
    """By how much the medians of two calls' times differ, as a fraction; they take turns."""
    for call in (first, second):
        await outcome(call())  # the first of each finds nothing warm
    took: list[list[float]] = [[], []]
    for number in range(60):
        for place in (number % 2, 1 - number % 2):
            began = time.perf_counter()
            await outcome((first, second)[place]())
            took[place].append(time.perf_counter() - began)
    low, high = sorted(map(median, took))
    return (high - low) / high


@pytest.mark.parametrize("what", ["login", "register", "ask_reset"])
async def test_neither_answer_nor_time_tells_whether_an_account_exists(desk: Desk, what: str) -> None:
    known, unknown = (await desk.account()).email, somebody()
    calls: dict[str, Callable[[str], Awaitable[object]]] = {
        "login": lambda email: desk.accounts.login(email, OTHER, PHONE),
        "register": lambda email: desk.accounts.register(email, OTHER, PHONE),
        "ask_reset": lambda email: desk.accounts.ask_reset(email, PHONE),
    }
    call = calls[what]
    assert (
        await outcome(call(known)) == await outcome(call(unknown)) == ("WrongCredentials" if what == "login" else "ok")
    )
    for _ in range(3):  # a machine with other work differs now and then; what is left out differs every time
        difference = await medians(lambda: call(known), lambda: call(unknown))
        if difference < TOLD_BY_TIME:
            return
    raise AssertionError(f"{what}: {difference:.0%}")


@pytest.mark.parametrize("what", ["register", "ask_reset"])
async def test_a_second_mail_is_sent_only_after_a_while_whoever_asks(names: Namespace, what: str) -> None:
    async with desk_of(names.env, **FREE | {"mail_resend": "PT30S"}) as desk:
        arguments = (PASSWORD, PHONE) if what == "register" else (PHONE,)
        for email in (somebody(), (await desk.account()).email):
            await getattr(desk.accounts, what)(email, *arguments)
            with pytest.raises(TooManyAttempts) as caught:
                await getattr(desk.accounts, what)(email, *arguments)
            assert 28 <= caught.value.retry_after_s <= 30
            desk.sql("UPDATE auth.challenges SET expires_at = expires_at - interval '30 s' WHERE email = %s", email)
            await getattr(desk.accounts, what)(email, *arguments)


async def test_a_new_code_voids_the_one_before(desk: Desk) -> None:
    email = somebody()
    first = await desk.accounts.register(email, PASSWORD, PHONE)
    code = desk.code(email)
    second = await desk.accounts.register(email, PASSWORD, PHONE)
    for challenge_id in (first, second):
        with pytest.raises(WrongCode):
            await desk.accounts.verify(challenge_id, code, PHONE)
    await desk.accounts.verify(second, desk.code(email), PHONE)


async def test_an_address_has_one_live_code_however_many_ask_at_once(desk: Desk) -> None:
    email = somebody()
    outcomes = race(desk.settings, "ask_reset", *[[[email]] * 5] * 2)
    assert outcomes == ["ok"] * 10
    assert desk.one("SELECT count(*) FROM auth.challenges WHERE email = %s", email) == 1


async def test_a_code_expires_by_the_clock_of_the_database_and_is_pruned(desk: Desk) -> None:
    email = somebody()
    challenge_id = await desk.accounts.register(email, PASSWORD, PHONE)
    code = desk.code(email)
    desk.sql("UPDATE auth.challenges SET expires_at = expires_at - interval '599 s' WHERE email = %s", email)
    assert await desk.challenges.find(challenge_id, Purpose.REGISTER)
    await desk.challenges.prune()
    desk.sql("UPDATE auth.challenges SET expires_at = expires_at - interval '1 s' WHERE email = %s", email)
    with pytest.raises(WrongCode):
        await desk.accounts.verify(challenge_id, code, PHONE)
    assert await desk.challenges.prune() >= 1
    assert desk.one("SELECT count(*) FROM auth.challenges WHERE email = %s", email) == 0


async def test_of_twenty_guesses_at_once_five_are_compared(desk: Desk) -> None:
    account = await desk.account()
    challenge_id = await desk.accounts.ask_reset(account.email, PHONE)
    outcomes = race(desk.settings, "reset", *[[[str(challenge_id), "00000000", OTHER]] * 10] * 2)
    assert outcomes == ["WrongCode"] * 20
    compared = "SELECT count(*) FROM auth.events WHERE account_id = %s AND reason = 'wrong code: reset'"
    assert desk.one(compared, account.id) == 5
    with pytest.raises(WrongCode):
        await desk.accounts.reset(challenge_id, desk.code(account.email), OTHER, PHONE)


async def test_a_mailed_code_is_used_once_however_many_use_it_at_once(desk: Desk) -> None:
    email = somebody()
    challenge_id = await desk.accounts.register(email, PASSWORD, PHONE)
    outcomes = race(desk.settings, "verify", *[[[str(challenge_id), desk.code(email)]] * 2] * 2)
    assert Counter(outcomes) == {"ok": 1, "WrongCode": 3}


class Codes(RuleBasedStateMachine):
    """Codes that are asked for, guessed, used and grow old in any order, in the database; and what must come of it."""

    desk: ClassVar[Desk]
    runner: ClassVar[asyncio.Runner]
    db: ClassVar["psycopg.Connection[tuple[Any, ...]]"]
    challenge = st.integers(0, 7)

    def __init__(self) -> None:
        super().__init__()
        self.email = somebody()
        self.asked: list[tuple[UUID, str]] = []
        self.live: UUID | None = None
        self.tries_left = 0

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    @rule()
    def ask(self) -> None:
        code = f"{len(self.asked):08}"
        self.live = self.run(self.desk.challenges.add_mailed(Purpose.RESET, self.email, code, ""))
        self.tries_left = 5
        self.asked.append((self.live, code))

    @precondition(lambda self: self.asked)
    @rule(
        which=st.sampled_from([0, 0, 0, 1, 5]),  # mostly the one that lives, and often once too often
        guessed=challenge,
        times=st.sampled_from([1, 6]),
        purpose=st.sampled_from(["reset", "reset", "reset", "register"]),
    )
    def guess(self, which: int, guessed: int, times: int, purpose: str) -> None:
        challenge_id, code = self.asked[-1 - which % len(self.asked)]
        _, given = self.asked[-1 - guessed % len(self.asked)]
        for _ in range(times):
            may = challenge_id == self.live and self.tries_left > 0 and purpose == "reset"
            found = self.run(self.desk.challenges.spend_try(challenge_id, Purpose(purpose)))
            assert (found is not None) == may
            if found is not None:
                self.tries_left -= 1
                assert self.desk.challenges.is_answer(found, given) == (given == code)

    @precondition(lambda self: self.asked)
    @rule(which=challenge)
    def use(self, which: int) -> None:
        challenge_id, _ = self.asked[which % len(self.asked)]
        assert self.run(self.desk.challenges.remove(challenge_id)) == (challenge_id == self.live)
        if challenge_id == self.live:
            self.live = None

    @rule()
    def grow_old_and_prune(self) -> None:
        older = "UPDATE auth.challenges SET expires_at = expires_at - interval '10 min' WHERE email = %s"
        self.db.execute(older, [self.email])
        self.run(self.desk.challenges.prune())
        self.live = None

    @invariant()
    def the_database_agrees(self) -> None:
        stored = "SELECT challenge_id, tries_left FROM auth.challenges WHERE email = %s"
        rows = self.db.execute(stored, [self.email]).fetchall()
        assert rows == ([(self.live, self.tries_left)] if self.live else [])


def test_no_order_of_asking_guessing_and_using_gives_a_sixth_try_or_a_second_use(names: Namespace) -> None:
    some = hypothesis_settings(max_examples=15, stateful_step_count=25, deadline=None, derandomize=True)
    with asyncio.Runner() as Codes.runner:
        desks = AsyncExitStack()
        Codes.desk = Codes.runner.run(desks.enter_async_context(desk_of(names.env, **FREE)))
        with psycopg.connect(Codes.desk.settings.url("postgres_url"), autocommit=True) as Codes.db:
            run_state_machine_as_test(Codes, settings=some)
        Codes.runner.run(desks.aclose())


async def test_a_login_that_is_about_to_succeed_ends_with_the_password_it_was_begun_with(
    names: Namespace, desk: Desk
) -> None:
    account = await desk.account()
    async with desk_of(names.env, **FREE) as other:

        async def one_waits() -> bool:
            waiting = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            return bool(desk.one(waiting) == 1)

        async with desk.resources.database.transaction():
            assert await desk.stored.hold_password(account.id, account.password_hash)
            change = asyncio.create_task(other.accounts.change_password(account, PASSWORD, OTHER, None, PHONE))
            await until(one_waits, within_s=4)
            await desk.sessions.open(account, PHONE, amr=("pwd",))
        await change
    assert await desk.sessions.list_(account.id) == []
    assert not await desk.stored.hold_password(account.id, account.password_hash)


async def test_a_hash_by_old_parameters_is_replaced_at_login(desk: Desk) -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8_192, parallelism=1).hash(PASSWORD)
    account = await desk.account(hashed=weak)
    await asyncio.gather(*(desk.accounts.login(account.email, PASSWORD, PHONE) for _ in range(4)))
    stored = desk.one("SELECT password_hash FROM auth.accounts WHERE account_id = %s", account.id)
    assert stored.startswith("$argon2id$v=19$m=19456,t=2,p=1$")


async def test_codes_outlive_a_new_secret_in_front_and_end_with_their_own(names: Namespace, desk: Desk) -> None:
    email, given = somebody(), desk.settings.secrets.get_secret_value()
    challenge_id = await desk.accounts.register(email, PASSWORD, PHONE)
    code, new = desk.code(email), "n1:another secret that is long enough to be one"
    async with desk_of(names.env, **FREE, secrets=new) as without:
        with pytest.raises(WrongCode):
            await without.accounts.verify(challenge_id, code, PHONE)
    async with desk_of(names.env, **FREE, secrets=f"{new},{given}") as both:
        await both.accounts.verify(challenge_id, code, PHONE)


async def test_a_flood_of_logins_is_sent_away_and_stalls_nobody(names: Namespace) -> None:
    async with desk_of(names.env, **FREE, hashing_at_once=1, hashing_waiting=4) as desk:
        account = await desk.account()
        await outcome(desk.accounts.login(account.email, OTHER, PHONE))  # the first login compiles its statements
        stop, longest_s = asyncio.Event(), 0.0

        async def somebody_else() -> None:
            nonlocal longest_s
            while not stop.is_set():
                began = time.thread_time()  # what this thread computes: whatever else the machine is busy with
                await asyncio.sleep(0.005)
                longest_s = max(longest_s, time.thread_time() - began)

        async def login() -> tuple[str, float]:
            began = time.perf_counter()
            return await outcome(desk.accounts.login(account.email, OTHER, PHONE)), time.perf_counter() - began

        with uncollected():
            beside = asyncio.create_task(somebody_else())
            ended = await asyncio.gather(*(login() for _ in range(60)))
            stop.set()
            await beside
    outcomes = Counter(name for name, _ in ended)
    assert set(outcomes) == {"WrongCredentials", "Unavailable"}
    assert outcomes["Unavailable"] >= 30
    assert max(took for name, took in ended if name == "Unavailable") < 2.0
    assert longest_s < 0.25


# -- the throttle


@pytest.fixture
async def throttles(names: Namespace) -> AsyncIterator[Callable[[str], Throttle]]:
    """Makes throttles with some limits, as so many processes have them."""
    async with desk_of(names.env) as desk:
        clients = []
        prefix = f"{desk.settings.redis_prefix}{uuid4().hex}:"

        def made(limits: str) -> Throttle:
            clients.append(redis.connect(desk.settings.url("redis_state_url"), timeout_s=1.0))
            secrets = Secrets(desk.settings.secrets)
            return Throttle(clients[-1], secrets, prefix=prefix, account_limits=limits, address_limits=limits)

        yield made
        for client in clients:
            await client.aclose()


async def refused_for_s(throttle: Throttle, kind: Kind = Kind.LOGIN, key: str = "ada@example.org") -> int:
    """How long an attempt is to wait."""
    with pytest.raises(TooManyAttempts) as caught:
        await throttle.attempt(kind, key)
    return caught.value.retry_after_s


async def test_what_is_kept_in_redis_tells_no_address_and_ends_by_itself(names: Namespace) -> None:
    async with desk_of(names.env) as desk:
        client, prefix = desk.resources.redis_state, desk.settings.redis_prefix
        before = {key async for key in client.scan_iter(match=f"{prefix}*")}
        await desk.throttle.attempt(Kind.LOGIN, "ada@example.org")
        await desk.throttle.attempt(Kind.ADDRESS, "192.0.2.77")
        keys = {key async for key in client.scan_iter(match=f"{prefix}*")} - before
        assert len(keys) == 3 + 2  # one a window
        assert not [key for key in keys if "ada" in key or "192.0.2.77" in key]
        assert all([0 < await client.ttl(key) <= 24 * 60 * 60 for key in keys])


async def test_of_attempts_that_come_at_once_as_many_pass_as_may(throttles: Callable[[str], Throttle]) -> None:
    here, there = throttles("5 per minute"), throttles("5 per minute")
    outcomes = await asyncio.gather(
        *(outcome(one.attempt(Kind.LOGIN, "ada@example.org")) for one in (here, there) for _ in range(10))
    )
    assert Counter(outcomes) == {"ok": 5, "TooManyAttempts": 15}
    await here.attempt(Kind.LOGIN, "bob@example.org")  # each has a count of its own
    await here.attempt(Kind.FACTOR, "ada@example.org")


async def test_the_wait_is_as_long_as_it_says(throttles: Callable[[str], Throttle]) -> None:
    throttle = throttles("2 per 2 second")
    await throttle.attempt(Kind.LOGIN, "ada@example.org")
    await throttle.attempt(Kind.LOGIN, "ada@example.org")
    wait_s, began = await refused_for_s(throttle), time.monotonic()

    async def allowed() -> bool:
        return await outcome(throttle.attempt(Kind.LOGIN, "ada@example.org")) == "ok"

    await until(allowed)
    assert wait_s - 1 <= time.monotonic() - began <= wait_s + 0.2


async def test_the_wait_grows_and_refused_attempts_do_not_lengthen_it(throttles: Callable[[str], Throttle]) -> None:
    throttle = throttles("3 per 15 minutes; 1 per second; 4 per day")

    async def allowed() -> bool:
        return await outcome(throttle.attempt(Kind.LOGIN, "ada@example.org")) == "ok"

    for _ in range(3):  # of refused ones there are many in between
        await until(allowed)
    assert 14 * 60 < await refused_for_s(throttle) <= 15 * 60  # not a day, to which only the three count


async def test_a_success_forgets_all_attempts(throttles: Callable[[str], Throttle]) -> None:
    throttle = throttles("1 per minute; 2 per day")
    for _ in range(4):
        await throttle.attempt(Kind.LOGIN, "ada@example.org")
        assert 58 <= await refused_for_s(throttle) <= 60
        await throttle.succeeded(Kind.LOGIN, "ada@example.org")


async def test_one_line_has_one_count_however_many_addresses_it_has(throttles: Callable[[str], Throttle]) -> None:
    throttle = throttles("1 per minute")
    await throttle.attempt(Kind.ADDRESS, "2001:db8:0:7::1")
    assert await refused_for_s(throttle, Kind.ADDRESS, "2001:db8:0:7:ffff::2") > 0
    await throttle.attempt(Kind.ADDRESS, "2001:db8:0:8::1")
    await throttle.attempt(Kind.ADDRESS, "192.0.2.7")
    assert await refused_for_s(throttle, Kind.ADDRESS, "::ffff:192.0.2.7") > 0
    await throttle.attempt(Kind.ADDRESS, "192.0.2.8")
    await throttle.attempt(Kind.ADDRESS, "testclient")


@pytest.mark.parametrize(("fault", "mend"), [("pause", "resume"), ("kill", "restart")])
async def test_nobody_signs_in_while_redis_is_away(names: Namespace, fault: str, mend: str) -> None:
    with Stack.private(["redis-state"]) as private:
        async with desk_of(dict(names.env) | dict(private.urls), **FREE) as desk:
            account = await desk.account()
            await desk.accounts.login(account.email, PASSWORD, PHONE)
            getattr(private.server("redis-state"), fault)()
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await desk.accounts.login(account.email, PASSWORD, PHONE)
            assert time.monotonic() - began < desk.settings.redis_timeout_s + 0.5
            getattr(private.server("redis-state"), mend)()

            async def signs_in() -> bool:
                return await outcome(desk.accounts.login(account.email, PASSWORD, PHONE)) == "ok"

            await until(signs_in, within_s=timedelta(seconds=20).total_seconds())
