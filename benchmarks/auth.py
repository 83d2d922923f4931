"""What authentication costs, beside the same work done bare: `python -m benchmarks auth`, with the stack up.

A machine is never quiet, so a figure alone says little. All that is compared takes turns, in one order and then in
the other; what counts is the ratio within a turn, and of those the median.
"""

import asyncio
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import structlog

from benchmarks.auth_peers import BARE, EMPTY, BareJwt, argon2_in_threads, signing_key
from benchmarks.load import (
    HEADING,
    Address,
    Asking,
    Refused,
    Row,
    Turn,
    answers_a_second,
    asked_once,
    in_turns,
    request,
)
from showcase.auth import wiring
from showcase.auth.domain.accounts import PASSWORD, SCOPES, Role
from showcase.auth.infrastructure.keys import KeyRing
from showcase.auth.infrastructure.tokens import AccessTokens
from showcase.kernel.clock import system_clock
from showcase.kernel.ids import new_uuid
from showcase.kernel.principal import ONE_FACTOR_ACR, Principal
from showcase.platform.resources import Resources
from showcase.platform.settings import Settings
from workshop import accounts
from workshop.stack import Stack
from workshop.stack.namespace import Namespace

COLD_TARGET = 0.8
ME_TARGET = 0.6
LOGIN_TARGET = 0.7

CORES = len(os.sched_getaffinity(0))
TOKENS = 1_500
CLIENTS = 8
TURNS = 11
TURN_S = 0.5
LONG_TURNS = 7
LONG_TURN_S = 1.5
READY_WITHIN_S = 30.0
END_WITHIN_S = 15.0
SETTINGS = {
    "SHOWCASE_ENVIRONMENT": "workshop",
    "SHOWCASE_HASHING_AT_ONCE": str(CORES),
    # Nobody is sent away, but there are as many windows to count in as by default.
    "SHOWCASE_LOGIN_LIMITS": "100000 per minute; 100000 per 15 minutes; 100000 per day",
    "SHOWCASE_ADDRESS_LIMITS": "100000 per minute; 100000 per hour",
}


def main() -> int:
    """Measure, print each figure beside its peer, and return 1 if a target is missed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    began, load = time.monotonic(), os.getloadavg()[0]
    print(HEADING)
    rows: list[Row] = []
    with ExitStack() as stack:
        servers = stack.enter_context(Stack.attach())
        names = stack.enter_context(Namespace.create(servers.urls))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        environment = {**names.env, **SETTINGS}

        def one_more() -> Address:
            return stack.enter_context(serving(environment, folder))

        def measured() -> Iterator[Row]:
            yield from verifications(environment)
            app = one_more()
            yield from requests_to_me(app)
            yield from logins(app, addresses(names.postgres_url))
            yield from refreshes([app, one_more()])

        for row in measured():
            rows.append(row)
            print(row, flush=True)
    took_s = time.monotonic() - began
    print(f"{datetime.now(UTC):%Y-%m-%d}, {took_s:.0f} s, {CORES} cores; load before that {load:.1f}: best when near 0")
    return 0 if all(row.is_met for row in rows) else 1


def verifications(environment: Mapping[str, str]) -> Iterator[Row]:
    """Tokens checked in this process, each for the first time: by us, by PyJWT, by joserfc; and by us once more."""
    settings = settings_of(environment)
    with asyncio.Runner() as runner:
        bare = BareJwt(runner.run(signing_key(settings)), settings)
        ring, tokens = runner.run(issued(settings))

        def nothing_cached() -> AccessTokens:
            return AccessTokens(ring, issuer=settings.issuer, audience=settings.audience, clock=system_clock)

        async def all_verified(ours: AccessTokens) -> float:
            began = time.perf_counter()
            for token in tokens:
                await ours.verify(token)
            return TOKENS / (time.perf_counter() - began)

        def all_checked(check: Callable[[str], object]) -> float:
            began = time.perf_counter()
            for token in tokens:
                check(token)
            return TOKENS / (time.perf_counter() - began)

        cached = nothing_cached()
        cold, pyjwt, joserfc, signature, warm = in_turns(
            TURNS,
            lambda: runner.run(all_verified(nothing_cached())),
            lambda: all_checked(bare.pyjwt),
            lambda: all_checked(bare.joserfc),
            lambda: all_checked(bare.signature),
            lambda: runner.run(all_verified(cached)),
        )
    yield Row.of("verifications, nothing cached", cold, "jwt.decode, same key", pyjwt, COLD_TARGET)
    yield Row.of("verifications, nothing cached", cold, "joserfc, same key", joserfc)
    yield Row.of("verifications, nothing cached", cold, "the signature alone, nothing read", signature)
    yield Row.of("verifications, cached", warm, "jwt.decode, same key", pyjwt)


def requests_to_me(app: Address) -> Iterator[Row]:
    """`GET /me` with the token of a session."""
    token = signed_in(app, 1)["access_token"]

    def turn(path: str) -> Turn:
        clients = [Asking(itertools.repeat(request("GET", path, token=token)))] * CLIENTS
        return lambda: answers_a_second([app], clients, TURN_S)

    me, empty, bare = in_turns(TURNS, turn("/me"), turn(EMPTY), turn(BARE))
    yield Row.of("GET /me", me, "GET an empty endpoint", empty, ME_TARGET)
    yield Row.of("GET /me", me, "the same by jwt.decode and Redis MGET", bare)


def logins(app: Address, emails: Sequence[str]) -> Iterator[Row]:
    """Logins of one household after another, hashed on all cores."""
    everybody = itertools.cycle([login(email) for email in emails])
    ours, bare = in_turns(
        LONG_TURNS,
        lambda: answers_a_second([app], [Asking(everybody)] * CLIENTS, LONG_TURN_S),
        lambda: argon2_in_threads(CORES, LONG_TURN_S),
    )
    yield Row.of("logins", ours, f"Argon2 in {CORES} threads", bare, LOGIN_TARGET)


def refreshes(apps: Sequence[Address]) -> Iterator[Row]:
    """Sessions that refresh, each its own chain of tokens, over several app processes in turn."""
    chains = [Chain(signed_in(apps[0], number)["refresh_token"]) for number in range(1, CLIENTS + 1)]
    nothing = [Asking(itertools.repeat(request("GET", EMPTY)))] * CLIENTS
    ours, empty = in_turns(
        LONG_TURNS,
        lambda: answers_a_second(apps, chains, LONG_TURN_S),
        lambda: answers_a_second(apps, nothing, LONG_TURN_S),
    )
    yield Row.of(f"refreshes, {len(apps)} processes", ours, f"GET an empty endpoint, {len(apps)} processes", empty)


class Chain:
    """A client that refreshes with what its last refresh gave it."""

    def __init__(self, refresh_token: str) -> None:
        self._newest = refresh_token

    def ask(self) -> bytes:
        return request("POST", "/auth/refresh", {"refresh_token": self._newest})

    def told(self, body: bytes) -> None:
        newest = json.loads(body)["refresh_token"]
        if newest == self._newest:
            raise Refused("a refresh gave the same token again")
        self._newest = newest


def addresses(postgres_url: str) -> list[str]:
    """Of all households."""
    with psycopg.connect(postgres_url, connect_timeout=10) as db:
        return [email for (email,) in db.execute("SELECT email FROM auth.accounts WHERE role = 'customer'")]


def login(email: str) -> bytes:
    """The request."""
    return request("POST", "/auth/login", {"email": email, "password": accounts.PASSWORD})


def signed_in(app: Address, household: int) -> dict[str, Any]:
    """What a login is answered."""
    return dict(asked_once(app, login(accounts.email_of(f"households/{household}"))))


def settings_of(environment: Mapping[str, str]) -> Settings:
    """The settings that a process with these variables has."""
    named = {name.removeprefix("SHOWCASE_").lower(): value for name, value in environment.items()}
    return Settings.model_validate({name: value for name, value in named.items() if name in Settings.model_fields})


async def issued(settings: Settings) -> tuple[KeyRing, list[str]]:
    """Tokens such as sessions have, no two alike, and the keys to check them with."""
    async with Resources(settings) as resources:
        ring = KeyRing(wiring.keys(resources))
        tokens = AccessTokens(ring, issuer=settings.issuer, audience=settings.audience, clock=system_clock)
        return ring, [await tokens.issue(somebody(number), timedelta(minutes=10)) for number in range(TOKENS)]


def somebody(household: int) -> Principal:
    """A household that has just signed in."""
    return Principal(
        subject=f"households/{household}",
        scopes=SCOPES[Role.CUSTOMER],
        session_id=new_uuid(),
        acr=ONE_FACTOR_ACR,
        amr=(PASSWORD,),
        auth_time=system_clock(),
    )


@contextmanager
def serving(environment: Mapping[str, str], folder: Path) -> Iterator[Address]:
    """An app process; where it listens, once it is ready. It is gone at the end.

    Args:
        folder: for its log.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=1_024) as line:
        address: Address = line.getsockname()
        log = folder / f"{address[1]}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.auth_peers", str(line.fileno())],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=[line.fileno()],
            )
    try:
        wait_until_ready(address, popen, log)
        yield address
    finally:
        popen.terminate()
        try:
            popen.wait(END_WITHIN_S)
        except subprocess.TimeoutExpired:
            popen.kill()
            popen.wait()


def wait_until_ready(app: Address, popen: "subprocess.Popen[bytes]", log: Path) -> None:
    """Raises RuntimeError, with the end of its log, when it does not get there."""
    deadline = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < deadline and popen.poll() is None:
        try:
            asked_once(app, request("GET", "/health/ready"))
        except (OSError, Refused):
            time.sleep(0.05)
        else:
            return
    raise RuntimeError("the app is not ready: " + "\n".join(log.read_text(errors="replace").splitlines()[-5:]))
