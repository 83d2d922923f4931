"""Accounts on real servers, as one process has them; and several processes that meet at a barrier."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pyotp
from sqlalchemy import text

from showcase.auth.application.accounts import Accounts, SecondFactorRequired
from showcase.auth.application.factors import Factors
from showcase.auth.application.session_store import Rules
from showcase.auth.application.sessions import Sessions
from showcase.auth.domain.accounts import Account, Device, Role
from showcase.auth.domain.refresh import Policy
from showcase.auth.infrastructure.accounts import SqlAccounts, SqlChallenges
from showcase.auth.infrastructure.events import SqlEvents
from showcase.auth.infrastructure.factors import SqlFactors, qr_svg
from showcase.auth.infrastructure.hashing import Hashing
from showcase.auth.infrastructure.mails import SqlMails, sending
from showcase.auth.infrastructure.secrets import Secrets
from showcase.auth.infrastructure.sessions import SqlSessions
from showcase.auth.infrastructure.throttle import Throttle
from showcase.kernel.clock import system_clock
from showcase.kernel.errors import DomainError
from showcase.kernel.ids import new_uuid
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from tests.fakes import settings_of, until
from tests.integration.auth_sessions import PlainTokens
from workshop.stack.local.mail import client
from workshop.stack.model import Urls

CHECKOUT = Path(__file__).resolve().parents[2]
PASSWORD, OTHER = "plum tractor velvet", "seven quiet lanterns"
PHONE = Device(address="192.0.2.7", name="a phone")
MANY = "100000 per minute"
FREE = {"login_limits": MANY, "address_limits": MANY, "mail_resend": "PT0S"}
"""Settings under which a test is not throttled."""


@dataclass
class Desk:
    """The use cases, and what they stand on."""

    resources: Resources

    def __post_init__(self) -> None:
        settings, database = self.resources.settings, self.resources.database
        self.settings = settings
        self.secrets = Secrets(settings.secrets)
        self.mails = SqlMails(database, self.secrets)
        self.throttle = Throttle(
            self.resources.redis_state,
            self.secrets,
            prefix=settings.redis_prefix,
            account_limits=settings.login_limits,
            address_limits=settings.address_limits,
            timeout_s=settings.redis_timeout_s,
        )
        self.sessions = Sessions(
            store=SqlSessions(database),
            transaction=database.transaction,
            events=SqlEvents(database),
            mails=self.mails,
            tokens=PlainTokens(),
            keys=self.secrets,
            deny=self._deny,
            rules=Rules(
                policy=Policy.SAME_SUCCESSOR,
                access=settings.access_lifetime,
                idle=settings.refresh_idle,
                session=settings.session_lifetime,
                leeway=settings.refresh_leeway,
            ),
        )
        shared: dict[str, Any] = {
            "transaction": database.transaction,
            "throttle": self.throttle,
            "sessions": self.sessions,
            "events": SqlEvents(database),
            "mails": self.mails,
        }
        self.stored_factors = SqlFactors(database, self.secrets)
        self.factors = Factors(
            factors=self.stored_factors, clock=system_clock, issuer="The shop", draw=qr_svg, **shared
        )
        self.stored = SqlAccounts(database)
        self.challenges = SqlChallenges(
            database, self.secrets, lifetime=settings.challenge_lifetime, resend=settings.mail_resend
        )
        self.hashing = Hashing(at_once=settings.hashing_at_once, waiting=settings.hashing_waiting)
        self.accounts = Accounts(
            accounts=self.stored,
            challenges=self.challenges,
            passwords=self.hashing,
            factors=self.factors,
            new_household=self._new_household,
            **shared,
        )

    async def _deny(self, sessions: Sequence[UUID]) -> None:
        """Nobody listens here."""

    async def _new_household(self) -> int:
        async with self.resources.database.transaction() as db:
            return int((await db.execute(text("SELECT nextval('new_households')"))).scalar_one())

    def sql(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """What a query finds, past the system."""
        with psycopg.connect(self.settings.url("postgres_url"), autocommit=True) as db:
            found = db.execute(query.encode(), values)
            return found.fetchall() if found.description else []

    def one(self, query: str, *values: object) -> Any:
        """The only value that a query finds."""
        ((value,),) = self.sql(query, *values)
        return value

    def letters(self, recipient: str) -> list[tuple[str, str]]:
        """Subjects and texts of the letters that wait for somebody, the oldest first."""
        rows = self.sql("SELECT mail_id, body FROM auth.mails WHERE recipient = %s ORDER BY mail_id", recipient)
        return [tuple(json.loads(self.secrets.open("mail", body, str(mail_id)))) for mail_id, body in rows]

    def code(self, recipient: str) -> str:
        """The code in the newest letter that waits for somebody."""
        return code_in(self.letters(recipient)[-1][1])

    async def account(self, password: str = PASSWORD, *, hashed: str = "") -> Account:
        """Somebody new who can sign in."""
        account = Account(
            id=new_uuid(),
            email=f"{uuid4().hex}@example.org",
            subject=f"staff/{uuid4().hex}",
            role=Role.CUSTOMER,
            password_hash=hashed or await self.hashing.hash(password),
        )
        assert await self.stored.add(account)
        return account

    async def enrolled(self) -> tuple[Account, pyotp.TOTP, tuple[str, ...]]:
        """Somebody with a second factor: the account, its authenticator, its recovery codes.

        Half a minute has passed since: the authenticator's present code is a new one.
        """
        account = await self.account()
        totp = pyotp.TOTP((await self.factors.enrol(account)).secret)
        codes = await self.factors.confirm(account, totp.at(system_clock()), PHONE)
        self.sql("UPDATE auth.totp SET last_step = last_step - 2 WHERE account_id = %s", account.id)
        return await self.accounts.of(account.subject), totp, codes

    async def begun(self, account: Account) -> UUID:
        """A login that waits for its second factor."""
        try:
            await self.accounts.login(account.email, PASSWORD, PHONE)
        except SecondFactorRequired as error:
            return UUID(str(error.facts["challenge_id"]))
        raise AssertionError("no second factor was asked for")

    @asynccontextmanager
    async def sender(self, mail_url: str = "") -> AsyncIterator[None]:
        """Letters are sent meanwhile."""
        stop = asyncio.Event()
        url = mail_url or self.settings.url("mail_url")
        task = asyncio.create_task(self.sending(url)(stop))
        try:
            yield
        finally:
            stop.set()
            await task

    def sending(self, mail_url: str) -> Any:
        """The sender."""
        return sending(self.resources.database, self.secrets, mail_url=mail_url, domain="showcase.test")

    async def all_sent(self) -> None:
        """Wait until no letter waits."""

        async def none() -> bool:
            return not self.sql("SELECT mail_id FROM auth.mails")

        await until(none)


@asynccontextmanager
async def desk_of(env: Mapping[str, str], **changes: object) -> AsyncIterator[Desk]:
    """The use cases of a process with these variables."""
    async with Resources(settings_of(env, **changes)) as resources:
        yield Desk(resources)


def code_in(text: str) -> str:
    """The code in a letter."""
    return text.split()[3].rstrip(".")


def received(urls: Urls, recipient: str) -> list[dict[str, Any]]:
    """The messages that somebody got, the newest first."""
    with client(urls, 10) as api:
        return [
            read(api, message["ID"])
            for message in api.get("/api/v1/messages", params={"limit": 500}).raise_for_status().json()["messages"]
            if [to["Address"] for to in message["To"]] == [recipient]
        ]


def read(api: httpx.Client, message_id: str) -> dict[str, Any]:
    """A message, whole."""
    message: dict[str, Any] = api.get(f"/api/v1/message/{message_id}").raise_for_status().json()
    return message


async def outcome(call: Any) -> str:
    """How a call ended: `ok`, or the name of its error."""
    try:
        await call
    except DomainError as error:
        return type(error).__name__
    return "ok"


class Racer:
    """A process that makes some calls at once when it is told to.

    Args:
        method: of `Accounts`, or `send` for the sender of letters.
        calls: the arguments of each, ids as text.
    """

    def __init__(self, settings: Settings, method: str, calls: Sequence[Sequence[str]] = ()) -> None:
        variables = {
            "SHOWCASE_POSTGRES_URL": settings.url("postgres_url"),
            "SHOWCASE_REDIS_STATE_URL": settings.url("redis_state_url"),
            "SHOWCASE_MAIL_URL": settings.url("mail_url"),
            "SHOWCASE_REDIS_PREFIX": settings.redis_prefix,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-c", "from tests.integration.auth_accounts import main; main()", method],
            env={**os.environ, **variables},
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.calls = calls

    def is_ready(self) -> bool:
        """Wait until it is."""
        return self._line() == "ready"

    def go(self) -> None:
        """Have it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self.calls) + "\n")
        self.process.stdin.flush()

    def outcomes(self) -> list[str]:
        """How its calls ended."""
        found: list[str] = json.loads(self._line())
        return found

    def _line(self) -> str:
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).startswith(("ready", "[")):  # what is left is its log
            assert line, "it has ended"
        return line.strip()


@contextmanager
def racing(settings: Settings, method: str, *calls: Sequence[Sequence[str]]) -> Iterator[list[Racer]]:
    """A process for each list of calls; all are ready. They are gone at the end."""
    racers = [Racer(settings, method, each) for each in calls]
    try:
        assert all(racer.is_ready() for racer in racers)
        yield racers
    finally:
        for racer in racers:
            with racer.process:
                racer.process.kill()


def race(settings: Settings, method: str, *calls: Sequence[Sequence[str]]) -> list[str]:
    """How the calls of several processes ended that all began at once."""
    with racing(settings, method, *calls) as racers:
        for racer in racers:
            racer.go()
        return [outcome for racer in racers for outcome in racer.outcomes()]


def main() -> None:
    """What a racer does."""
    asyncio.run(_race(sys.argv[1]))


async def _race(method: str) -> None:
    async with desk_of(os.environ, **FREE) as desk:
        await desk.resources.database.ping()
        print("ready", flush=True)
        calls = json.loads(await asyncio.to_thread(sys.stdin.readline))
        if method == "send":
            await desk.sending(desk.settings.url("mail_url"))(asyncio.Event())
        work = getattr(desk.accounts, method)
        print(
            json.dumps(await asyncio.gather(*(outcome(work(*map(_read, call), PHONE)) for call in calls))), flush=True
        )


def _read(argument: str) -> UUID | str:
    with suppress(ValueError):
        return UUID(argument)
    return argument
