"""Who is calling, and what a route may ask of them: scopes, a fresh second factor, an answer that is surely right."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Annotated

import httpx
import pytest
from fastapi import APIRouter

from showcase.kernel.clock import system_clock
from showcase.kernel.errors import TooMany, Unauthenticated, Unavailable
from showcase.kernel.principal import MULTI_FACTOR_ACR, SENSITIVE, Principal, Scope
from showcase.platform.resources import Resources
from showcase.platform.slices import Slice
from showcase.platform.web.app import build
from showcase.platform.web.callers import require, signed_in, step_up
from tests.fakes import settings_of

pytestmark = pytest.mark.anyio
MINUTE = timedelta(minutes=1)
CALLER = Principal(subject="households/7", scopes=frozenset({Scope.ACCOUNT, Scope.ORDERS_READ}))
BEARER = {"Authorization": "Bearer token"}


@asynccontextmanager
async def client_of(principal: Principal, asked: list[bool] | None = None) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an app that takes everybody for this principal; `asked`: how surely it was asked each time."""
    router = APIRouter()

    @router.get("/orders")
    async def orders(caller: Annotated[Principal, require(Scope.ORDERS_READ)]) -> str:
        return caller.subject

    @router.get("/account")
    async def account(caller: Annotated[Principal, require(Scope.ACCOUNT)]) -> str:
        return caller.subject

    @router.get("/fresh")
    async def fresh(caller: Annotated[Principal, step_up(MINUTE)]) -> str:
        return caller.subject

    @router.get("/recent")
    async def recent(caller: Annotated[Principal, signed_in(MINUTE)]) -> str:
        return caller.subject

    @router.get("/often")
    async def often() -> None:
        raise TooMany("wait", retry_after_s=9)

    async def authenticate(token: str, *, sensitive: bool = False) -> Principal:
        if asked is not None:
            asked.append(sensitive)
            if sensitive:
                raise Unavailable("nobody knows")
        return principal

    app = build(Resources(settings_of({})), [Slice(name="small", routers=(router,))], authenticate)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        yield client


def challenge(answer: httpx.Response) -> str:
    assert answer.status_code == 401
    return answer.headers["WWW-Authenticate"]


async def test_a_second_factor_that_is_too_old_or_missing_is_asked_for_as_rfc_9470_says() -> None:
    now = system_clock()
    weak: Sequence[Principal] = (
        CALLER,
        replace(CALLER, acr="urn:showcase:acr:one-factor", auth_time=now),
        replace(CALLER, acr=MULTI_FACTOR_ACR, auth_time=now - 2 * MINUTE),
        replace(CALLER, acr=MULTI_FACTOR_ACR),
    )
    for principal in weak:
        async with client_of(principal) as client:
            asked = challenge(await client.get("/fresh", headers=BEARER))
        assert 'error="insufficient_user_authentication"' in asked
        assert f'acr_values="{MULTI_FACTOR_ACR}"' in asked
        assert 'max_age="60"' in asked

    async with client_of(replace(CALLER, acr=MULTI_FACTOR_ACR, auth_time=now)) as client:
        assert (await client.get("/fresh", headers=BEARER)).status_code == 200


async def test_a_sign_in_that_is_too_old_is_asked_for_again() -> None:
    now = system_clock()
    for principal in (CALLER, replace(CALLER, auth_time=now - 2 * MINUTE)):
        async with client_of(principal) as client:
            asked = challenge(await client.get("/recent", headers=BEARER))
        assert 'error="insufficient_user_authentication"' in asked
        assert 'max_age="60"' in asked
        assert "acr_values" not in asked

    async with client_of(replace(CALLER, auth_time=now)) as client:
        assert (await client.get("/recent", headers=BEARER)).status_code == 200


async def test_only_what_is_sensitive_is_refused_while_nobody_can_tell_whether_a_session_was_revoked() -> None:
    asked: list[bool] = []
    async with client_of(CALLER, asked) as client:
        assert (await client.get("/orders", headers=BEARER)).status_code == 200
        assert (await client.get("/account", headers=BEARER)).status_code == 503
        assert (await client.get("/fresh", headers=BEARER)).status_code == 503
    assert asked == [False, True, True]
    assert {Scope.ACCOUNT, Scope.AUDIT_READ} <= SENSITIVE
    assert not {Scope.ORDERS_READ, Scope.ORDERS_WRITE} & SENSITIVE


async def test_without_a_token_the_challenge_names_no_error() -> None:
    async with client_of(CALLER) as client:
        assert challenge(await client.get("/orders")) == 'Bearer realm="showcase"'


async def test_an_error_can_say_what_is_wrong_with_the_token() -> None:
    class Bad(Unauthenticated):
        """Bad."""

        challenge = {"error": "invalid_token"}  # noqa: RUF012 - as an error of a slice states it

    router = APIRouter()

    @router.get("/")
    async def bad() -> None:
        raise Bad("no")

    app = build(Resources(settings_of({})), [Slice(name="small", routers=(router,))], None)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as client:
        assert challenge(await client.get("/")) == 'Bearer realm="showcase", error="invalid_token"'


async def test_whoever_comes_too_often_is_told_when_to_come_back() -> None:
    async with client_of(CALLER) as client:
        answer = await client.get("/often")
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "9")


async def test_every_answer_has_the_headers_that_keep_browsers_from_mischief() -> None:
    async with client_of(CALLER) as client:
        for path in ("/orders", "/nowhere", "/health/live"):
            headers = (await client.get(path, headers=BEARER)).headers
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["Cache-Control"] == "no-store"
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert headers["Strict-Transport-Security"]
        page = await client.get("/docs")
        assert "default-src 'self'" in page.headers["Content-Security-Policy"]


async def test_pages_of_other_sites_may_read_nothing() -> None:
    async with client_of(CALLER) as client:
        asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
        preflight = await client.options("/orders", headers=asked)
        answer = await client.get("/orders", headers={**BEARER, "Origin": "https://evil.example"})
    assert preflight.status_code == 405
    assert not [name for name in (*preflight.headers, *answer.headers) if name.startswith("access-control")]
