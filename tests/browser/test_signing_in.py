"""A browser signs in: its refresh token is a cookie that no script reads and no other site can use."""

from typing import Any

import pytest
from playwright.sync_api import Page, Route

from tests.integration.system import System
from workshop import accounts

COOKIE = "__Host-refresh"
EVIL = "http://evil.test/"

POST = """async ([url, body]) => {
    const headers = {'Content-Type': 'application/json'}
    const answer = await fetch(url, {method: 'POST', credentials: 'include', body: JSON.stringify(body), headers})
    return [answer.status, answer.status === 204 ? null : await answer.json()]
}"""
LOGOUT = """async token => {
    const answer = await fetch('/auth/logout', {method: 'POST', headers: {'Authorization': `Bearer ${token}`}})
    return answer.status
}"""
# What a page can do without asking first: no preflight comes before a request of this type.
SIMPLE = """async url => {
    try {
        const answer = await fetch(url, {method: 'POST', credentials: 'include', mode: 'no-cors', body: '{}'})
        return answer.type
    } catch (error) { return 'blocked' }
}"""
READ = """async url => {
    try { return (await fetch(url, {credentials: 'include'})).status } catch (error) { return 'blocked' }
}"""


@pytest.fixture(scope="module")
def shop(system: System) -> str:
    """Where the shop is; to a browser localhost is as good as HTTPS."""
    (app,) = system.start("app")
    return app.url.replace("127.0.0.1", "localhost")


def sign_in(page: Page, shop: str, household: int = 7) -> dict[str, Any]:
    page.goto(f"{shop}/docs")
    email = accounts.email_of(f"households/{household}")
    status, tokens = page.evaluate(
        POST, ["/auth/login", {"email": email, "password": accounts.PASSWORD, "browser": True}]
    )
    assert status == 200, tokens
    return dict(tokens)


def cookies(page: Page) -> dict[str, Any]:
    return {cookie["name"]: cookie for cookie in page.context.cookies()}


def test_the_refresh_token_is_a_cookie_that_no_script_reads(page: Page, shop: str) -> None:
    tokens = sign_in(page, shop)

    assert tokens["refresh_token"] is None
    cookie = cookies(page)[COOKIE]
    assert (cookie["httpOnly"], cookie["secure"], cookie["sameSite"], cookie["path"]) == (True, True, "Strict", "/")
    assert cookie["domain"] == "localhost"
    assert page.evaluate("document.cookie") == ""


def test_it_is_rotated_with_every_refresh_and_gone_after_the_logout(page: Page, shop: str) -> None:
    sign_in(page, shop)
    first = cookies(page)[COOKIE]["value"]

    status, tokens = page.evaluate(POST, ["/auth/refresh", {}])

    assert status == 200
    assert tokens["refresh_token"] is None
    assert cookies(page)[COOKIE]["value"] != first
    assert page.evaluate(LOGOUT, tokens["access_token"]) == 204
    assert COOKIE not in cookies(page)
    assert page.evaluate(POST, ["/auth/refresh", {}])[0] == 401


def test_two_tabs_that_refresh_at_once_both_stay_signed_in(page: Page, shop: str) -> None:
    sign_in(page, shop, 8)
    both = f"async () => {{ const post = {POST}; return Promise.all([1, 2].map(() => post(['/auth/refresh', {{}}]))) }}"

    for _ in range(5):
        assert [status for status, _ in page.evaluate(both)] == [200, 200]


def test_another_site_can_neither_use_the_cookie_nor_read_anything(page: Page, shop: str, system: System) -> None:
    session_id = sign_in(page, shop, 9)["session_id"]
    page.context.route(EVIL, _page_of_evil)
    page.goto(EVIL)

    assert page.evaluate(SIMPLE, f"{shop}/auth/refresh") in ("opaque", "blocked")
    assert page.evaluate(READ, f"{shop}/auth/sessions") == "blocked"
    assert page.evaluate(READ, f"{shop}/products/1082185") == "blocked"

    generation = system.one("SELECT generation FROM auth.sessions WHERE session_id = %s", session_id)
    assert generation == 1


def _page_of_evil(route: Route) -> None:
    route.fulfill(status=200, content_type="text/html", body="<h1>You have won</h1>")
