"""Authentication, built from resources."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

import structlog

from showcase.auth.api import routes
from showcase.auth.api.models import Doors
from showcase.auth.application.access import Access, Revocation
from showcase.auth.application.accounts import Accounts
from showcase.auth.application.factors import Factors
from showcase.auth.application.session_store import Rules
from showcase.auth.application.sessions import Sessions
from showcase.auth.domain.refresh import Policy
from showcase.auth.infrastructure.accounts import SqlAccounts, SqlChallenges
from showcase.auth.infrastructure.denylist import Denylist
from showcase.auth.infrastructure.events import SqlEvents
from showcase.auth.infrastructure.factors import SqlFactors, qr_svg
from showcase.auth.infrastructure.hashing import Hashing
from showcase.auth.infrastructure.keys import KeyRing, SqlKeys
from showcase.auth.infrastructure.mails import SqlMails, sending
from showcase.auth.infrastructure.secrets import Secrets
from showcase.auth.infrastructure.sessions import SqlSessions
from showcase.auth.infrastructure.throttle import Throttle
from showcase.auth.infrastructure.tokens import AccessTokens
from showcase.kernel.clock import system_clock
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from showcase.platform.slices import Slice
from showcase.platform.worker import Work, wait

log = structlog.get_logger()

ISSUER = "Grocery workshop"
"""As authenticator apps show us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Auth:
    """What an app needs of authentication.

    Attributes:
        access: tells whom an access token stands for.
        denylist: tells when a session has ended.
        background: keeps keys and denials fresh; for every app, whatever it serves.
        doors: the routes for accounts, sessions and factors, for an app that serves them.
    """

    access: Access
    denylist: Denylist
    background: Slice
    doors: Callable[[], Slice]


def build(resources: Resources, new_household: Callable[[], Awaitable[int]]) -> Auth:
    """Authentication for an app.

    Args:
        new_household: makes the household of a new customer, with the transaction that is open.

    Raises Misconfigured when the URL of PostgreSQL or of redis-state is not set.
    """
    settings, database = resources.settings, resources.database
    secrets, events, stored = Secrets(settings.secrets), SqlEvents(database), SqlSessions(database)
    stored_keys = keys(resources)
    key_ring = KeyRing(stored_keys)
    tokens = _tokens(key_ring, settings)
    denylist = Denylist(
        resources.redis_state, stored, prefix=settings.redis_prefix, access_lifetime=settings.access_lifetime
    )
    resources.pings["denylist"] = denylist.ping
    resources.spare.add("redis-state")  # signed in already, one goes on without it: see `application.access`
    mails = SqlMails(database, secrets)
    throttle = Throttle(
        resources.redis_state,
        secrets,
        prefix=settings.redis_prefix,
        account_limits=settings.login_limits,
        address_limits=settings.address_limits,
        timeout_s=settings.redis_timeout_s,
    )
    sessions = Sessions(
        store=stored,
        transaction=database.transaction,
        events=events,
        mails=mails,
        tokens=tokens,
        keys=secrets,
        deny=lambda session_ids: database.after_commit(partial(denylist.deny, session_ids)),
        rules=_rules(settings),
    )
    factors = Factors(
        transaction=database.transaction,
        factors=SqlFactors(database, secrets),
        throttle=throttle,
        sessions=sessions,
        events=events,
        mails=mails,
        clock=system_clock,
        issuer=ISSUER,
        draw=qr_svg,
    )
    challenges = SqlChallenges(database, secrets, lifetime=settings.challenge_lifetime, resend=settings.mail_resend)
    accounts = Accounts(
        transaction=database.transaction,
        accounts=SqlAccounts(database),
        challenges=challenges,
        passwords=Hashing(at_once=settings.hashing_at_once, waiting=settings.hashing_waiting),
        throttle=throttle,
        factors=factors,
        sessions=sessions,
        events=events,
        mails=mails,
        new_household=new_household,
    )

    async def jwks() -> Mapping[str, Any]:
        await key_ring.current()  # no older than that
        return key_ring.jwks()

    async def pruned() -> dict[str, int]:
        return {
            "auth.sessions": await stored.prune(settings.ended_sessions_kept),
            "auth.challenges": await challenges.prune(),
            "auth.keys": await stored_keys.prune(),
            "auth.events": await events.prune(settings.auth_events_kept),
        }

    doors = Doors(
        accounts=accounts,
        sessions=sessions,
        factors=factors,
        events=events.of_account,
        jwks=jwks,
        login_age=settings.login_age,
        step_up_age=settings.step_up_age,
        trusted_origins=settings.origins(),
    )

    def served() -> Slice:
        send = sending(database, secrets, mail_url=settings.url("mail_url"), domain=settings.mail_domain)
        return Slice(name="auth", routers=(routes(doors),), running=lambda: _running(send), prune=pruned)

    return Auth(
        access=Access(
            verify=tokens, denylist=denylist, is_live=stored.is_live, revocation=Revocation(settings.revocation)
        ),
        denylist=denylist,
        background=Slice(
            name="auth in the background",
            running=lambda: _running(_reloading(key_ring, settings.keys_reload_s), denylist.follow),
        ),
        doors=served,
    )


def keys(resources: Resources) -> SqlKeys:
    """The keys that sign, as they are stored: for operators."""
    database, settings = resources.database, resources.settings
    return SqlKeys(database, Secrets(settings.secrets), SqlEvents(database), settings.token_algorithm)


async def signer(settings: Settings) -> Callable[[Principal, timedelta], str]:
    """Signs access tokens by the key that signs now, without a session: for operators. Raises Unavailable."""
    async with Resources(settings) as resources:
        tokens = _tokens(KeyRing(keys(resources)), settings)
        return await tokens.signer()


def _tokens(key_ring: KeyRing, settings: Settings) -> AccessTokens:
    return AccessTokens(key_ring, issuer=settings.issuer, audience=settings.audience, clock=system_clock)


def _rules(settings: Settings) -> Rules:
    return Rules(
        policy=Policy(settings.refresh_policy),
        access=settings.access_lifetime,
        idle=settings.refresh_idle,
        session=settings.session_lifetime,
        leeway=settings.refresh_leeway,
    )


def _reloading(key_ring: KeyRing, every_s: float) -> Work:
    """Load the keys now and then: a new one comes in, one that was revoked goes."""

    async def reload(stop: asyncio.Event) -> None:
        while not stop.is_set():
            with suppress(Unavailable):  # the ring has said so, and goes on with the keys it has
                await key_ring.reload()
            await wait(stop, every_s)

    return reload


@asynccontextmanager
async def _running(*works: Work) -> AsyncIterator[None]:
    """Some work in the background of an app. One that breaks is logged: it is a bug."""
    stop = asyncio.Event()
    tasks = [asyncio.ensure_future(work(stop)) for work in works]
    for task in tasks:
        task.add_done_callback(_told)
    try:
        yield
    finally:
        stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _told(task: "asyncio.Future[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("work in the background broke", exc_info=error)
