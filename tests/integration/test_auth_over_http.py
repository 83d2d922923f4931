"""Authentication as a client meets it: two app processes, real servers, bad input."""

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest

from showcase.kernel.clock import system_clock
from showcase.kernel.principal import MULTI_FACTOR_ACR, Principal, Scope
from showcase.realtime.client import follow
from tests.integration.system import System, at_once, basket, problem_of, system_on, wait_for
from workshop import accounts
from workshop.lab import looking
from workshop.stack import Stack

JSON = {"Content-Type": "application/json"}
OWNER = frozenset({Scope.ACCOUNT})
EVERY = "100000 per minute"
TABLES = ("accounts", "challenges", "sessions", "refresh_tokens", "totp", "recovery_codes", "mails")
PASSWORD = "a staple that no horse ever had"


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        system.slices = "auth,shop,realtime"
        limits = {"address_limits": EVERY, "login_limits": EVERY, "mail_resend": "PT0S"}
        system.start("app", "app", **limits)
        yield system


@pytest.fixture(scope="module")
def urls(system: System) -> list[str]:
    """Of two processes."""
    return [app.url for app in system.running("app")]


@pytest.fixture
def client(urls: list[str]) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=urls[0], timeout=30) as client:
        yield client


@pytest.fixture
def other(urls: list[str]) -> Iterator[httpx.Client]:
    """Of the other process."""
    with httpx.Client(base_url=urls[1], timeout=30) as client:
        yield client


def login(client: httpx.Client, household: int, password: str = accounts.PASSWORD) -> dict[str, Any]:
    body = {"email": accounts.email_of(f"households/{household}"), "password": password}
    answer = client.post("/auth/login", json=body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def bearer(tokens: dict[str, Any]) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


def code_in(system: System, address: str) -> str:
    """The code in the newest letter to an address."""
    found: list[str] = []

    def arrived() -> bool:
        letters = looking.mails(system.environment, address)
        found[:] = re.findall(r"\b\d{8}\b", letters[-1]) if letters else []
        return found != []

    wait_for(arrived)
    return found[0]


def stored(system: System) -> list[int]:
    return [system.one(f"SELECT count(*) FROM auth.{table}") for table in TABLES]  # noqa: S608 - names from above


# -- the way of somebody new


def test_somebody_new_registers_reads_the_mail_signs_in_and_orders(
    system: System, client: httpx.Client, other: httpx.Client
) -> None:
    address = f"new@{system.environment['SHOWCASE_MAIL_DOMAIN']}"
    asked = client.post("/auth/register", json={"email": address, "password": PASSWORD})
    assert asked.status_code == 202
    body = {"email": address, "password": PASSWORD}
    assert problem_of(client.post("/auth/login", json=body)) == (401, "wrong-credentials")

    confirmed = other.post(
        "/auth/register/verify", json={"challenge_id": asked.json()["challenge_id"], "code": code_in(system, address)}
    )
    assert confirmed.status_code == 204
    tokens = other.post("/auth/login", json=body).json()
    assert set(tokens["scope"].split()) == {"account", "orders:read", "orders:write"}
    me = client.get("/me", headers=bearer(tokens)).json()
    assert re.fullmatch(r"households/1\d{6}", me["subject"])
    assert (me["amr"], me["session_id"]) == (["pwd"], tokens["session_id"])

    placed = client.post("/orders", json=basket(), headers=bearer(tokens))
    assert placed.status_code == 201
    assert client.get(placed.headers["Location"], headers=bearer(login(client, 7))).status_code == 404


def test_a_forgotten_password_is_reset_by_mail_and_all_sessions_end(system: System, client: httpx.Client) -> None:
    domain = system.environment["SHOWCASE_MAIL_DOMAIN"]
    address = f"household-20@{domain}"
    system.sql("UPDATE auth.accounts SET email = %s WHERE subject = 'households/20' RETURNING email", address)
    tokens = client.post("/auth/login", json={"email": address, "password": accounts.PASSWORD}).json()

    challenge = client.post("/auth/password/reset", json={"email": address}).json()["challenge_id"]
    body = {"challenge_id": challenge, "code": code_in(system, address), "password": PASSWORD}
    assert client.post("/auth/password/reset/confirm", json=body).status_code == 204

    assert problem_of(client.post("/auth/password/reset/confirm", json=body)) == (422, "wrong-code")
    assert client.get("/auth/sessions", headers=bearer(tokens)).status_code == 401
    refused = client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
    assert problem_of(refused) == (401, "invalid-refresh-token")
    assert client.post("/auth/login", json={"email": address, "password": PASSWORD}).status_code == 200


def test_a_changed_password_ends_all_other_sessions(client: httpx.Client, other: httpx.Client) -> None:
    here, there = login(client, 21), login(other, 21)
    change = {"current": accounts.PASSWORD, "new": PASSWORD}
    assert problem_of(client.post("/auth/password", json={**change, "current": "wrong"}, headers=bearer(here))) == (
        401,
        "wrong-credentials",
    )
    short = {**change, "new": "fourteen chars"}
    assert problem_of(client.post("/auth/password", json=short, headers=bearer(here))) == (422, "weak-password")
    assert client.post("/auth/password", json=change, headers=bearer(here)).status_code == 204

    assert client.get("/me", headers=bearer(here)).status_code == 200
    wait_for(lambda: other.get("/me", headers=bearer(there)).status_code == 401, within_s=2)
    login(client, 21, PASSWORD)


# -- sessions


def test_refreshing_gives_a_new_pair_and_using_the_old_one_late_ends_the_session(
    system: System, client: httpx.Client, other: httpx.Client
) -> None:
    first = login(client, 22)
    second = client.post("/auth/refresh", json={"refresh_token": first["refresh_token"]}).json()
    third = other.post("/auth/refresh", json={"refresh_token": second["refresh_token"]}).json()
    assert third["session_id"] == first["session_id"]
    assert len({one["refresh_token"] for one in (first, second, third)}) == 3

    stolen = client.post("/auth/refresh", json={"refresh_token": first["refresh_token"]})
    assert problem_of(stolen) == (401, "invalid-refresh-token")
    assert other.post("/auth/refresh", json={"refresh_token": third["refresh_token"]}).status_code == 401
    wait_for(lambda: client.get("/me", headers=bearer(third)).status_code == 401, within_s=2)
    kinds = [
        row[0]
        for row in system.sql(
            "SELECT type FROM auth.events WHERE session_id = %s ORDER BY event_id", first["session_id"]
        )
    ]
    assert kinds[:4] == ["login", "refresh.rotated", "refresh.rotated", "refresh.reused"]


def test_fifty_refreshes_at_once_over_two_processes_all_get_the_same_successor(urls: list[str]) -> None:
    with httpx.Client(base_url=urls[0], limits=httpx.Limits(max_connections=60), timeout=30) as client:
        token = login(client, 23)["refresh_token"]
        answers = at_once(
            50, lambda number: client.post(f"{urls[number % 2]}/auth/refresh", json={"refresh_token": token})
        )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


def test_one_sees_ones_sessions_and_ends_one_the_others_or_all(client: httpx.Client, other: httpx.Client) -> None:
    here, there, elsewhere = (login(client, 24) for _ in range(3))
    stranger = login(client, 25)
    listed = client.get("/auth/sessions", headers=bearer(here)).json()
    assert {one["session_id"] for one in listed} == {one["session_id"] for one in (here, there, elsewhere)}
    assert [one["session_id"] for one in listed if one["current"]] == [here["session_id"]]
    assert all(one["address"] == "127.0.0.1" and one["device"] for one in listed)

    foreign = client.delete(f"/auth/sessions/{stranger['session_id']}", headers=bearer(here))
    assert problem_of(foreign) == (404, "unknown-session")
    assert client.delete(f"/auth/sessions/{there['session_id']}", headers=bearer(here)).status_code == 204
    wait_for(lambda: other.get("/me", headers=bearer(there)).status_code == 401, within_s=2)
    assert client.delete("/auth/sessions?others=true", headers=bearer(here)).status_code == 204
    wait_for(lambda: other.get("/me", headers=bearer(elsewhere)).status_code == 401, within_s=2)
    assert client.get("/me", headers=bearer(here)).status_code == 200
    assert client.delete("/auth/sessions", headers=bearer(here)).status_code == 204
    wait_for(lambda: other.get("/me", headers=bearer(here)).status_code == 401, within_s=2)
    assert other.get("/me", headers=bearer(stranger)).status_code == 200


def test_a_logout_is_known_in_every_process_within_a_second_and_closes_the_websockets(
    client: httpx.Client, other: httpx.Client, urls: list[str]
) -> None:
    tokens = login(client, 26)

    async def closed_after() -> float:
        async with follow(urls[1], tokens["access_token"], ["households/26"], reconnect=False) as events:
            began = time.monotonic()
            answer = await asyncio.to_thread(client.post, "/auth/logout", headers=bearer(tokens))
            assert answer.status_code == 204
            try:
                async with asyncio.timeout(5):
                    async for _ in events:
                        raise AssertionError("nothing was to come")
            except Exception as error:
                assert "the session has ended" in str(error)  # noqa: PT017 - which kind depends on the library
            return time.monotonic() - began

    assert asyncio.run(closed_after()) < 1
    assert other.get("/me", headers=bearer(tokens)).status_code == 401


# -- second factors


def test_a_second_factor_is_enrolled_asked_for_and_needed_fresh_to_be_removed(
    system: System, client: httpx.Client, other: httpx.Client
) -> None:
    tokens = login(client, 27)
    enrolment = client.post("/auth/totp", headers=bearer(tokens)).json()
    assert enrolment["uri"].startswith("otpauth://totp/")
    assert "<svg" in enrolment["qr_svg"]
    totp = pyotp.TOTP(enrolment["secret"])
    wrong = f"{(int(totp.now()) + 1) % 1_000_000:06}"
    assert problem_of(client.post("/auth/totp/confirm", json={"code": wrong}, headers=bearer(tokens)))[0] == 422
    code = totp.now()
    confirmed = client.post("/auth/totp/confirm", json={"code": code}, headers=bearer(tokens))
    assert confirmed.status_code == 200, confirmed.text
    recovery = confirmed.json()["recovery_codes"]
    assert len(set(recovery)) == 10

    body = {"email": accounts.email_of("households/27"), "password": accounts.PASSWORD}
    half = other.post("/auth/login", json=body)
    assert problem_of(half) == (401, "second-factor-required")
    replayed = {"challenge_id": half.json()["challenge_id"], "code": code}
    assert problem_of(other.post("/auth/login/code", json=replayed))[0] in (401, 422)
    whole = other.post("/auth/login/code", json={**replayed, "code": recovery[0]}).json()
    assert client.get("/me", headers=bearer(whole)).json()["acr"] == "urn:showcase:acr:multi-factor"

    refused = client.delete("/auth/totp", headers=bearer(tokens))
    assert problem_of(refused) == (401, "insufficient-user-authentication")
    assert 'error="insufficient_user_authentication"' in refused.headers["WWW-Authenticate"]
    stepped = client.post("/auth/step-up", json={"code": recovery[1]}, headers=bearer(tokens)).json()
    assert stepped["session_id"] == tokens["session_id"]
    assert problem_of(client.post("/auth/step-up", json={"code": recovery[1]}, headers=bearer(tokens)))[0] in (401, 422)
    fresh = client.post("/auth/recovery-codes", headers=bearer(stepped))
    assert len(set(fresh.json()["recovery_codes"]) | set(recovery)) == 20
    assert client.delete("/auth/totp", headers=bearer(stepped)).status_code == 204
    login(client, 27)


# -- who may what


def test_no_role_may_all(client: httpx.Client) -> None:
    def as_(email: str) -> dict[str, str]:
        return bearer(client.post("/auth/login", json={"email": email, "password": accounts.PASSWORD}).json())

    support, auditor, customer = as_("ada@shop.test"), as_("grace@shop.test"), as_("household-28@shop.test")
    order = client.post("/orders", json=basket(), headers=customer).headers["Location"]
    assert [client.get(order, headers=who).status_code for who in (customer, support, auditor)] == [200, 200, 403]
    assert [client.post("/orders", json=basket(), headers=who).status_code for who in (support, auditor)] == [403, 403]


# -- bad input

WORDS: dict[str, Any] = {
    "a number": 7,
    "nothing": None,
    "a list": ["a"],
    "an object": {"a": 1},
    "true": True,
    "NUL": "a\x00b@example.org",
    "a huge text": "x" * 200_000,
    "half a surrogate": "\ud800",
    "control characters": "a\r\nBcc: b@example.org",
}
ROUTES: dict[str, tuple[str, dict[str, Any]]] = {
    "register": ("/auth/register", {"email": "a@example.org", "password": PASSWORD}),
    "verify": ("/auth/register/verify", {"challenge_id": "0199b2f0-0000-7000-8000-000000000001", "code": "12345678"}),
    "login": ("/auth/login", {"email": "a@example.org", "password": PASSWORD}),
    "code": ("/auth/login/code", {"challenge_id": "0199b2f0-0000-7000-8000-000000000001", "code": "123456"}),
    "refresh": ("/auth/refresh", {"refresh_token": "x"}),
    "reset": ("/auth/password/reset", {"email": "a@example.org"}),
    "new password": ("/auth/password", {"current": PASSWORD, "new": PASSWORD}),
    "step up": ("/auth/step-up", {"code": "123456"}),
    "confirm": ("/auth/totp/confirm", {"code": "123456"}),
}


@pytest.mark.parametrize("route", ROUTES)
def test_input_that_cannot_be_is_refused_with_a_problem_and_stores_nothing(
    system: System, client: httpx.Client, route: str
) -> None:
    path, good = ROUTES[route]
    headers = system.headers("households/29", OWNER)
    before = stored(system)
    for field in good:
        for what, value in WORDS.items():
            if field == "password" and what == "control characters":
                continue  # a password may have any character
            if what == "nothing" and route == "refresh":
                continue
            text = json.dumps({**good, field: value})  # half a surrogate is JSON, though no UTF-8
            answer = client.post(path, content=text, headers=headers | JSON)
            status, _ = problem_of(answer)
            assert 400 <= status < 500, (field, what, answer.text)
            if isinstance(value, str):
                assert value not in answer.text
    for body in (
        b"",
        b"\xff\xfe",
        b'{"email": "\xff"}',
        b"[" * 100_000,
        b'{"a":' + b"1" * 5_000 + b"}",
        b"x" * 1_100_000,
    ):
        answer = client.post(path, content=body, headers=headers | JSON)
        assert 400 <= problem_of(answer)[0] < 500, body[:20]
    assert problem_of(client.post(path, json={**good, "more": 1}, headers=headers))[0] == 422
    assert stored(system) == before


CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "ignored_auth",
)


def test_a_machine_that_tries_all_it_can_think_of_finds_no_fault(
    system: System, client: httpx.Client, tmp_path: Path
) -> None:
    owner = Principal(
        subject="households/30", scopes=OWNER, acr=MULTI_FACTOR_ACR, amr=("pwd", "otp", "mfa"), auth_time=system_clock()
    )
    token = system.sign(owner, timedelta(minutes=10))
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{client.base_url}/openapi.json"),
        *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing", "--max-examples", "25"),
        *("--generation-deterministic", "--include-path-regex", "^/(auth/|me$|.well-known/)", "--no-color"),
        *("--header", f"Authorization: Bearer {token}", "--request-timeout", "20"),
    ]
    found = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False)
    assert found.returncode == 0, found.stdout[-4_000:] + found.stderr[-2_000:]
    assert re.search(r"Tested: +20", found.stdout), found.stdout
