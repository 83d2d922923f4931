"""Accounts and second factors over stores in memory: every port, and a clock that stands until a test turns it."""

import copy
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pyotp
import pytest

from showcase.auth.application.accounts import Accounts, SecondFactorRequired, TooManyAttempts
from showcase.auth.application.factors import Factors
from showcase.auth.application.ports import Happened, Tokens
from showcase.auth.application.stores import Challenge, Kind, Purpose, Totp
from showcase.auth.domain.accounts import Account, Device
from showcase.kernel.errors import Unavailable

EMAIL, PASSWORD, OTHER = "ada@example.org", "plum tractor velvet", "seven quiet lanterns"
PHONE = Device(address="192.0.2.7", name="a phone")
THIEF = Device(address="198.51.100.9", name="another")
LIMIT = 5
NOW = datetime(2017, 12, 23, 12, 0, 10, tzinfo=UTC)


@dataclass
class World:
    """All that is stored; a transaction that fails leaves it as it was."""

    accounts: dict[UUID, Account] = field(default_factory=dict)
    challenges: dict[UUID, Challenge] = field(default_factory=dict)
    codes: dict[UUID, str] = field(default_factory=dict)
    tries: Counter[UUID] = field(default_factory=Counter)
    totps: dict[UUID, Totp] = field(default_factory=dict)
    recovery: dict[UUID, set[str]] = field(default_factory=dict)
    sessions: dict[UUID, UUID] = field(default_factory=dict)
    amr: dict[UUID, tuple[str, ...]] = field(default_factory=dict)
    events: list[tuple[Happened, UUID | None, str]] = field(default_factory=list)
    letters: list[tuple[str | None, str, str]] = field(default_factory=list)
    households: int = 0


class Fakes:
    """Every port, over one world. The clock stands until a test turns it."""

    def __init__(self) -> None:
        self.world = World()
        self.now = NOW
        self.inside = False
        self.hashed: list[str] = []
        self.attempts: Counter[tuple[Kind, str]] = Counter()
        self.away = False

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        if self.inside:
            yield
            return
        before, self.inside = copy.deepcopy(self.world), True
        try:
            yield
        except BaseException:
            self.world = before
            raise
        finally:
            self.inside = False


class MemoryAccounts:
    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def by_id(self, account_id: UUID) -> Account | None:
        account = self.fakes.world.accounts.get(account_id)
        totp = self.fakes.world.totps.get(account_id)
        return account and replace(account, has_totp=bool(totp and totp.is_confirmed))

    async def by_email(self, email: str) -> Account | None:
        return await self._first(lambda account: account.email == email)

    async def by_subject(self, subject: str) -> Account | None:
        return await self._first(lambda account: account.subject == subject)

    async def add(self, account: Account) -> bool:
        if await self.by_email(account.email):
            return False
        self.fakes.world.accounts[account.id] = account
        return True

    async def replace_password(self, account_id: UUID, old: str, new: str) -> bool:
        if not await self.hold_password(account_id, old):
            return False
        accounts = self.fakes.world.accounts
        accounts[account_id] = replace(accounts[account_id], password_hash=new)
        return True

    async def hold_password(self, account_id: UUID, hashed: str) -> bool:
        return self.fakes.world.accounts[account_id].password_hash == hashed

    async def _first(self, fits: Callable[[Account], bool]) -> Account | None:
        found = next((one.id for one in self.fakes.world.accounts.values() if fits(one)), None)
        return await self.by_id(found) if found else None


class MemoryChallenges:
    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def add_mailed(self, purpose: Purpose, email: str, code: str, password_hash: str) -> UUID:
        world = self.fakes.world
        for one in [one for one in world.challenges.values() if (one.purpose, one.email) == (purpose, email)]:
            del world.challenges[one.id]
        challenge = Challenge(id=uuid4(), purpose=purpose, email=email, password_hash=password_hash)
        world.codes[challenge.id] = code
        world.challenges[challenge.id] = challenge
        return challenge.id

    async def add_login(self, account: Account, password_hash: str) -> UUID:
        challenge = Challenge(
            id=uuid4(), purpose=Purpose.LOGIN, email=account.email, account_id=account.id, password_hash=password_hash
        )
        self.fakes.world.challenges[challenge.id] = challenge
        return challenge.id

    async def find(self, challenge_id: UUID, purpose: Purpose) -> Challenge | None:
        found = self.fakes.world.challenges.get(challenge_id)
        is_live = found and found.purpose == purpose and self.fakes.world.tries[challenge_id] < LIMIT
        return found if is_live else None

    async def spend_try(self, challenge_id: UUID, purpose: Purpose) -> Challenge | None:
        found = await self.find(challenge_id, purpose)
        if found:
            self.fakes.world.tries[challenge_id] += 1
        return found

    def is_answer(self, challenge: Challenge, code: str) -> bool:
        return self.fakes.world.codes[challenge.id] == code

    async def remove(self, challenge_id: UUID) -> bool:
        return self.fakes.world.challenges.pop(challenge_id, None) is not None


class MemoryFactors:
    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def begin(self, account_id: UUID, secret: bytes) -> bool:
        present = await self.find(account_id)
        if present and present.is_confirmed:
            return False
        self.fakes.world.totps[account_id] = Totp(account_id=account_id, secret=secret, sealed=secret)
        return True

    async def find(self, account_id: UUID) -> Totp | None:
        return self.fakes.world.totps.get(account_id)

    async def confirm(self, totp: Totp, step: int) -> bool:
        return await self._set(totp, replace(totp, is_confirmed=True, last_step=step), must_count=False)

    async def use_step(self, totp: Totp, step: int) -> bool:
        return await self._set(totp, replace(totp, last_step=step), must_count=True)

    async def remove(self, account_id: UUID) -> bool:
        present = await self.find(account_id)
        if present is None or not present.is_confirmed:
            return False
        del self.fakes.world.totps[account_id], self.fakes.world.recovery[account_id]
        return True

    async def replace_recovery_codes(self, account_id: UUID, codes: Sequence[str]) -> None:
        self.fakes.world.recovery[account_id] = set(codes)

    async def use_recovery_code(self, account_id: UUID, code: str) -> int | None:
        codes = self.fakes.world.recovery[account_id]
        if code not in codes:
            return None
        codes.remove(code)
        return len(codes)

    async def _set(self, totp: Totp, changed: Totp, *, must_count: bool) -> bool:
        present = await self.find(totp.account_id)
        if present is None or present.sealed != totp.sealed or present.is_confirmed != must_count:
            return False
        if must_count and present.last_step >= changed.last_step:
            return False
        self.fakes.world.totps[totp.account_id] = changed
        return True


class PlainPasswords:
    """Hashes that can be read: `2:password`, by the parameters 2."""

    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def hash(self, password: str) -> str:
        self.fakes.hashed.append(password)
        return f"2:{password}"

    async def verify(self, password: str, hashed: str | None) -> tuple[bool, str | None]:
        self.fakes.hashed.append(password)
        if hashed is None or hashed.partition(":")[2] != password:
            return False, None
        return True, None if hashed.startswith("2:") else f"2:{password}"


class CountingThrottle:
    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def attempt(self, kind: Kind, key: str) -> None:
        if self.fakes.away:
            raise Unavailable("away")
        assert not self.fakes.inside, "no transaction waits for it"
        if kind is not Kind.ADDRESS and self.fakes.attempts[kind, key] >= LIMIT:
            raise TooManyAttempts("wait", retry_after_s=60)
        self.fakes.attempts[kind, key] += 1

    async def succeeded(self, kind: Kind, key: str) -> None:
        self.fakes.attempts.pop((kind, key), None)


class MemorySessions:
    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def open(self, account: Account, device: Device, *, amr: tuple[str, ...]) -> Tokens:
        session_id = uuid4()
        self.fakes.world.sessions[session_id] = account.id
        self.fakes.world.amr[session_id] = amr
        return self._tokens(session_id)

    async def step_up(self, session_id: UUID, *, amr: tuple[str, ...]) -> Tokens:
        self.fakes.world.amr[session_id] += amr
        return self._tokens(session_id)

    async def revoke_all(self, account_id: UUID, *, why: str, actor: str, keep: UUID | None = None) -> int:
        world = self.fakes.world
        ended = [one for one, whose in world.sessions.items() if whose == account_id and one != keep]
        for one in ended:
            del world.sessions[one]
        return len(ended)

    def _tokens(self, session_id: UUID) -> Tokens:
        return Tokens(access_token="a", expires_in=timedelta(minutes=5), scopes=frozenset(), session_id=session_id)


class Log:
    """Events, and letters, as they are committed."""

    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def add(self, happened: Happened, *, account_id: UUID | None = None, reason: str = "", **more: Any) -> None:
        self.fakes.world.events.append((happened, account_id, reason))


class Post:
    def __init__(self, fakes: Fakes) -> None:
        self.fakes = fakes

    async def add(self, recipient: str | None, subject: str, text: str) -> None:
        self.fakes.world.letters.append((recipient, subject, text))


class House:
    """The use cases over the fakes."""

    def __init__(self) -> None:
        self.fakes = fakes = Fakes()
        shared: dict[str, Any] = {
            "transaction": fakes.transaction,
            "throttle": CountingThrottle(fakes),
            "sessions": MemorySessions(fakes),
            "events": Log(fakes),
            "mails": Post(fakes),
        }
        self.factors = Factors(
            factors=MemoryFactors(fakes), clock=lambda: fakes.now, issuer="The shop", draw=lambda uri: uri, **shared
        )
        self.accounts = Accounts(
            accounts=MemoryAccounts(fakes),
            challenges=MemoryChallenges(fakes),
            passwords=PlainPasswords(fakes),
            factors=self.factors,
            new_household=self._new_household,
            **shared,
        )

    @property
    def world(self) -> World:
        return self.fakes.world

    async def _new_household(self) -> int:
        assert self.fakes.inside
        self.world.households += 1
        return self.world.households

    def code(self) -> str:
        """The code in the letter that was handed in last."""
        return self.world.letters[-1][2].split()[3].rstrip(".")

    async def registered(self, email: str = EMAIL, password: str = PASSWORD) -> Account:
        challenge_id = await self.accounts.register(email, password, PHONE)
        account = await self.accounts.verify(challenge_id, self.code(), PHONE)
        self.fakes.attempts.clear()
        return account

    async def enrolled(self) -> tuple[Account, pyotp.TOTP, tuple[str, ...]]:
        """An account with a second factor, its authenticator, its recovery codes. Half a minute has passed."""
        account = await self.registered()
        totp = pyotp.TOTP((await self.factors.enrol(account)).secret)
        codes = await self.factors.confirm(account, totp.at(self.fakes.now), PHONE)
        self.pass_time(30)
        return await self.accounts.of(account.subject), totp, codes

    def pass_time(self, seconds: int) -> None:
        self.fakes.now += timedelta(seconds=seconds)

    async def begun(self) -> UUID:
        """A login that waits for its second factor."""
        with pytest.raises(SecondFactorRequired) as caught:
            await self.accounts.login(EMAIL, PASSWORD, PHONE)
        assert caught.value.facts["methods"] == ["totp", "recovery-code"]
        return UUID(str(caught.value.facts["challenge_id"]))

    def happened(self) -> list[Happened]:
        return [happened for happened, _, _ in self.world.events]
