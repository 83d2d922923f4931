"""A household's page in a real browser: it follows orders live, through a restart of its server, until the logout."""

import json
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pyotp
import pytest
from playwright.sync_api import APIResponse, Browser, Locator, Page, Route, expect

from tests.browser.conftest import WITHIN_MS, Seen
from tests.integration.system import Process, System, system_on, wait_for
from workshop import accounts
from workshop.stack import Stack

SCREENSHOTS = Path(__file__).resolve().parents[2] / "build" / "report" / "screenshots"
WORKERS = ("relay", "payment", "stock", "shop", "views", "realtime")
LIMIT_CENTS = 5_000
WAY = ["placed", "paid", "reserved", "packed"]
BANANAS, MILK, BREAD, EGGS = 1_082_185, 1_106_523, 951_590, 840_361
ORDERS = re.compile(r"/orders\?")
REFUSED_CONNECTION = "net::ERR_CONNECTION_REFUSED"
UNAUTHORIZED = "Failed to load resource: the server responded with a status of 401 (Unauthorized)"


# Every status that each card has had, by the order's id.
NOTE_STEPS = """() => {
    window.told = {}
    const note = () => document.querySelectorAll('.order').forEach(({id, dataset: {status}}) => {
        const told = window.told[id] ??= []
        if (status !== told.at(-1)) told.push(status)
    })
    new MutationObserver(note).observe(document.body, {subtree: true, childList: true, attributes: true})
}"""


@dataclass(frozen=True, slots=True)
class Shop:
    """The whole system, with two app processes.

    Attributes:
        app: that the pages are of; the other is `other`.
    """

    system: System
    app: Process
    other: Process

    @property
    def url(self) -> str:
        """To a browser localhost is as good as HTTPS."""
        return self.app.url.replace("127.0.0.1", "localhost")

    def place(self, household: int, count: int = 1, cents: int = 199, by: Process | None = None) -> list[str]:
        """So many orders; their ids, the first one first."""
        lines = [(BANANAS, 2, cents), (MILK, 1, 50)]
        return [self.order(household, lines, by) for _ in range(count)]

    def order(self, household: int, lines: Sequence[tuple[int, int, int]], by: Process | None = None) -> str:
        """An order of articles, pieces and cents; its id."""
        names = ("product_id", "quantity", "total_cents")
        answer = httpx.post(
            f"{(by or self.other).url}/orders",
            json={"lines": [dict(zip(names, line, strict=True)) for line in lines]},
            headers=self.system.headers(f"households/{household}"),
            timeout=15,
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["order_id"])

    def status(self, order_id: str) -> str:
        """Where an order stands, as the database has it."""
        return str(self.system.one("SELECT status FROM orders WHERE order_id = %s", order_id))

    @property
    def serving(self) -> Process:
        """The process that serves the pages now."""
        return next(one for one in self.system.running("app") if one.url == self.app.url)

    def metric(self, name: str) -> int:
        """Of the process that serves the pages; 0 for what has not happened."""
        told = httpx.get(f"{self.app.url}/metrics", timeout=15).text
        found = re.search(f"^{re.escape(name)} ([0-9]+)", told, re.MULTILINE)
        return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def shop(stack: Stack) -> Iterator[Shop]:
    with system_on(stack) as system:
        system.slices = "auth,shop,views,realtime"
        app, other, *_ = system.start("app", "app", *WORKERS, payment_limit_cents=LIMIT_CENTS, shelf_pieces=100_000)
        yield Shop(system, app, other)


def sign_in(page: Page, shop: Shop, household: int) -> None:
    page.goto(f"{shop.url}/my/orders")
    page.get_by_label("E-mail").fill(accounts.email_of(f"households/{household}"))
    page.get_by_label("Password").fill(accounts.PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    is_live(page)
    page.evaluate("window.wasNotLoadedAnew = true")


def is_live(page: Page) -> None:
    expect(page.locator("#connection")).to_have_text("Live")


def card(page: Page, order_id: str) -> Locator:
    return page.locator(f"[id='{order_id}']")


def reaches(page: Page, order_id: str, status: str) -> None:
    expect(card(page, order_id)).to_have_attribute("data-status", status)


def listed(page: Page) -> list[str]:
    """The ids of all orders on a page, from above."""
    return [str(one) for one in page.locator(".order").evaluate_all("cards => cards.map(card => card.id)")]


def at_rest(page: Page) -> None:
    """Nothing on the page moves any more, and what has moved was noticed."""
    page.evaluate("""async () => {
        await Promise.allSettled(document.getAnimations().map(one => one.finished))
        for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame)
    }""")


def test_page_follows_an_order_through_all_its_steps(page: Page, shop: Shop, seen: Seen) -> None:
    sign_in(page, shop, 11)
    expect(page.get_by_text("No order yet")).to_be_visible()
    page.evaluate(NOTE_STEPS)

    (order_id,) = shop.place(11, cents=199)

    reaches(page, order_id, "packed")
    told = page.evaluate("id => window.told[id]", order_id)
    assert told == sorted(told, key=WAY.index)
    assert (told[0] in WAY[:3], told[-1]) == (True, "packed")
    steps = card(page, order_id).get_by_role("list").get_by_role("listitem")
    expect(steps).to_have_text([re.compile(f"{step}: done", re.IGNORECASE) for step in WAY])
    expect(card(page, order_id).locator(".total")).to_have_text("$2.49")
    expect(page.get_by_role("status")).to_contain_text(f"Order #{order_id[-6:]} is packed")
    expect(page.get_by_text("No order yet")).to_be_hidden()
    assert seen.errors == []
    assert seen.hosts == {shop.url.removeprefix("http://")}


def test_order_that_is_refused_says_why(page: Page, shop: Shop, seen: Seen) -> None:
    sign_in(page, shop, 12)

    (declined,) = shop.place(12, cents=LIMIT_CENTS + 1)

    reaches(page, declined, "refused")
    expect(card(page, declined).locator(".says")).to_have_text("Payment declined. You pay nothing.")
    steps = card(page, declined).get_by_role("list").get_by_role("listitem")
    expect(steps).to_have_text([re.compile("Placed: done"), re.compile("Refused")])
    assert seen.errors == []


def test_server_that_is_started_anew_costs_no_reload_and_no_order(page: Page, shop: Shop, seen: Seen) -> None:
    sign_in(page, shop, 13)
    before = shop.place(13, 2)
    for order_id in before:
        reaches(page, order_id, "packed")
    looks = seen.requests.count("GET /households/13/orders")

    assert shop.app.stop() == 0
    expect(page.locator("#connection")).to_have_text("Connection lost, trying again")
    meanwhile = shop.place(13, 5)
    again = shop.system.again(shop.app, payment_limit_cents=LIMIT_CENTS)

    is_live(page)
    after = shop.place(13, 1, by=again)
    for order_id in (*meanwhile, *after):
        reaches(page, order_id, "packed")
    assert listed(page) == [*reversed([*before, *meanwhile, *after])]
    assert page.evaluate("window.wasNotLoadedAnew") is True
    assert seen.requests.count("GET /households/13/orders") == looks, "it was told what it missed, and asked nobody"
    assert shop.metric('showcase_realtime_total{what="resumed"}') >= 1
    assert shop.metric('showcase_realtime_total{what="reset"}') == 0
    assert [error for error in seen.errors if REFUSED_CONNECTION not in error] == []


def test_logging_out_closes_the_socket_in_every_tab(page: Page, shop: Shop, seen: Seen) -> None:
    sign_in(page, shop, 14)
    (order_id,) = shop.place(14)
    reaches(page, order_id, "packed")
    other = page.context.new_page()
    other.goto(f"{shop.url}/my/orders")
    is_live(other)
    expect(card(other, order_id)).to_be_visible()

    page.get_by_role("button", name="Log out").click()

    for tab in (page, other):
        expect(tab.get_by_role("heading", name="Sign in")).to_be_visible()
        assert listed(tab) == []
    expect(other.get_by_role("alert").first).to_have_text("You have logged out in another tab.")
    wait_for(lambda: shop.metric('showcase_realtime_now{what="sockets"}') == 0)
    assert page.context.cookies() == []
    page.reload()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    # A tab that is cut off before it is told asks for a ticket, and for a token.
    assert seen.errors in [[UNAUTHORIZED] * refused for refused in range(3)]


def test_tab_that_is_cut_off_before_the_other_has_logged_out_says_why(page: Page, shop: Shop) -> None:
    sign_in(page, shop, 14)
    other = page.context.new_page()
    other.goto(f"{shop.url}/my/orders")
    is_live(other)

    def answer_late(route: Route) -> None:
        answer = route.fetch()
        expect(other.get_by_role("heading", name="Sign in")).to_be_visible()
        route.fulfill(response=answer)

    page.route("**/auth/logout", answer_late)
    with page.expect_response("**/auth/logout"):
        page.get_by_role("button", name="Log out").click()

    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.locator("#complaint")).to_have_text("")
    expect(other.locator("#complaint")).to_have_text("You have logged out in another tab.")


def test_session_that_is_ended_elsewhere_takes_the_page_with_it(page: Page, shop: Shop) -> None:
    sign_in(page, shop, 15)
    body = {"email": accounts.email_of("households/15"), "password": accounts.PASSWORD}
    tokens = httpx.post(f"{shop.other.url}/auth/login", json=body, timeout=15).json()
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}

    ended = httpx.delete(f"{shop.other.url}/auth/sessions?others=true", headers=headers, timeout=15)

    assert ended.status_code == 204
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    expect(page.get_by_text("You were signed out. Sign in again.")).to_be_visible()


def test_two_tabs_of_a_household_show_the_same(page: Page, shop: Shop, seen: Seen) -> None:
    sign_in(page, shop, 16)
    other = page.context.new_page()
    other.goto(f"{shop.url}/my/orders")
    is_live(other)

    placed = shop.place(16, 3)

    for tab in (page, other):
        for order_id in placed:
            reaches(tab, order_id, "packed")
        assert listed(tab) == placed[::-1]
    assert seen.errors == []


def test_household_sees_no_order_of_another(page: Page, shop: Shop) -> None:
    sign_in(page, shop, 17)

    shop.place(18)
    (own,) = shop.place(17)

    reaches(page, own, "packed")
    assert listed(page) == [own]


def test_keyboard_is_enough(page: Page, shop: Shop, seen: Seen) -> None:
    shop.place(19)
    page.goto(f"{shop.url}/my/orders")
    expect(page.get_by_label("E-mail")).to_be_focused()
    page.keyboard.type(accounts.email_of("households/19"))
    page.keyboard.press("Tab")
    page.keyboard.type(accounts.PASSWORD)
    page.keyboard.press("Enter")
    expect(page.locator(".order")).to_have_count(1)
    expect(page.get_by_role("heading", name="My orders")).to_be_focused()

    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Log out")).to_be_focused()
    page.keyboard.press("Tab")
    expect(page.locator("summary")).to_be_focused()
    assert page.locator("summary").evaluate("one => getComputedStyle(one).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name=re.compile(r"2 . Bananas \$1\.99"))).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Order this basket again")).to_be_focused()
    page.keyboard.press("Enter")

    expect(page.locator(".order")).to_have_count(2)
    expect(page.locator(".order .total")).to_have_text(["$2.49", "$2.49"])
    assert seen.errors == []


def test_wrong_password_is_told_beside_the_form(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/my/orders")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#complaint")).to_have_text("Give your e-mail and your password.")
    expect(page.get_by_label("E-mail")).to_be_focused()
    page.get_by_label("E-mail").fill(accounts.email_of("households/20"))
    page.get_by_label("Password").fill("not this one")
    page.keyboard.press("Enter")

    expect(page.locator("#complaint")).to_contain_text("password")
    expect(page.get_by_label("Password")).to_be_focused()


def test_second_factor_is_asked_for_beside_the_password(page: Page, shop: Shop) -> None:
    email, password = accounts.email_of("households/30"), accounts.PASSWORD
    with httpx.Client(base_url=shop.other.url, timeout=15) as phone:
        tokens = phone.post("/auth/login", json={"email": email, "password": password}).json()
        phone.headers["Authorization"] = f"Bearer {tokens['access_token']}"
        code = pyotp.TOTP(phone.post("/auth/totp").json()["secret"]).now()
        recovery, *_ = phone.post("/auth/totp/confirm", json={"code": code}).json()["recovery_codes"]
    page.goto(f"{shop.url}/my/orders")
    page.get_by_label("E-mail").fill(email)
    page.get_by_label("Password").fill(password)
    page.keyboard.press("Enter")
    expect(page.get_by_label("Code from your authenticator")).to_be_focused()

    page.keyboard.type("000000")
    page.keyboard.press("Enter")
    expect(page.locator("#complaint")).to_contain_text("code")
    page.get_by_label("Code from your authenticator").fill(recovery)
    page.keyboard.press("Enter")

    is_live(page)


def test_staff_is_told_that_the_page_is_for_households(page: Page, shop: Shop) -> None:
    page.goto(f"{shop.url}/my/orders")
    page.get_by_label("E-mail").fill(accounts.email_of("staff/ada"))
    page.get_by_label("Password").fill(accounts.PASSWORD)
    page.keyboard.press("Enter")

    expect(page.locator("#complaint")).to_have_text("This page is for households, and staff/ada is none.")
    assert page.context.cookies() == []


def test_order_that_the_view_does_not_have_yet_is_shown_all_the_same(page: Page, shop: Shop) -> None:
    (worker,) = shop.system.running("views")
    worker.stop()
    try:
        placed = shop.place(21, 2)
        sign_in(page, shop, 21)
        for order_id in placed:
            reaches(page, order_id, "packed")
        assert listed(page) == placed[::-1]
    finally:
        shop.system.start("views")


def test_list_that_could_not_be_read_is_read_again(page: Page, shop: Shop) -> None:
    placed = shop.place(31, 2)
    page.route(ORDERS, lambda route: route.fulfill(status=503, content_type="text/plain", body="no"), times=4)

    sign_in(page, shop, 31)
    expect(page.locator("#trouble")).to_contain_text("Try again in a moment")

    for order_id in placed:
        reaches(page, order_id, "packed")
    expect(page.locator("#trouble")).to_be_hidden()


def test_list_that_arrives_late_undoes_no_step(page: Page, shop: Shop) -> None:
    (before,) = shop.place(32)
    wait_for(lambda: shop.status(before) == "packed")
    (worker,) = shop.system.running("stock")
    worker.stop()
    (order_id,) = shop.place(32)
    wait_for(lambda: shop.status(order_id) == "paid")
    late: list[tuple[Route, APIResponse]] = []
    page.route("**/orders?*", lambda route: late.append((route, route.fetch())), times=2)  # the view's and the truth's
    sign_in(page, shop, 32)
    page.evaluate(NOTE_STEPS)
    wait_for(lambda: page.evaluate("1") and len(late) == 2)

    shop.system.start("stock", shelf_pieces=100_000)
    reaches(page, order_id, "packed")
    for route, answer in late:
        route.fulfill(response=answer)

    reaches(page, before, "packed")
    told = page.evaluate("id => window.told[id]", order_id)
    assert told == sorted(told, key=WAY.index)


def test_nothing_moves_when_a_step_or_an_order_comes(page: Page, shop: Shop) -> None:
    sign_in(page, shop, 22)
    for order_id in shop.place(22, 3):
        reaches(page, order_id, "packed")
    at_rest(page)
    page.evaluate("""() => {
        window.shifts = []
        const told = ({value, sources}) => [value, ...sources.map(({node, previousRect, currentRect}) =>
            `${node?.nodeName}.${node?.className} ${previousRect.y} ${currentRect.y}`)]
        new PerformanceObserver(list => window.shifts.push(...list.getEntries().map(told)))
            .observe({type: 'layout-shift'})
    }""")

    for cents, status in ((199, "packed"), (LIMIT_CENTS + 1, "refused")):
        (order_id,) = shop.place(22, cents=cents)
        reaches(page, order_id, status)
        at_rest(page)

    assert page.evaluate("window.shifts") == []


@pytest.mark.parametrize(
    ("name", "scheme", "width", "height"),
    [("light", "light", 900, 780), ("dark", "dark", 900, 780), ("narrow", "light", 360, 740)],
)
def test_looks(browser: Browser, shop: Shop, name: str, scheme: Any, width: int, height: int) -> None:
    household = {"light": 7, "dark": 8, "narrow": 9}[name]
    with browser.new_context(color_scheme=scheme, viewport={"width": width, "height": height}) as context:
        context.set_default_timeout(WITHIN_MS)
        page = context.new_page()
        sign_in(page, shop, household)
        lines = [(BANANAS, 3, 177), (MILK, 1, 259), (BREAD, 2, 398), (EGGS, 1, 139)]
        for chosen in (lines, lines[:1], [(BANANAS, 1, LIMIT_CENTS + 1)], lines[1:]):
            too_dear = chosen[0][2] > LIMIT_CENTS
            reaches(page, shop.order(household, chosen), "refused" if too_dear else "packed")
        (worker,) = shop.system.running("stock")
        worker.stop()
        try:  # one that is on its way, for the picture
            (paid,) = shop.place(household)
            reaches(page, paid, "paid")
            expect(page.locator("summary").last).to_have_text(re.compile("^Bananas, "))
            at_rest(page)
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            page.screenshot(path=SCREENSHOTS / f"my-orders-{name}.png")
        finally:
            shop.system.start("stock", shelf_pieces=100_000)
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_policy_keeps_out_what_is_not_the_pages_own(page: Page, shop: Shop, seen: Seen) -> None:
    sign_in(page, shop, 23)

    page.evaluate("""async () => {
        const inline = document.createElement('script')
        inline.textContent = 'window.isIn = true'
        document.body.append(inline)
        await fetch('https://evil.test/').catch(() => null)
    }""")

    assert page.evaluate("window.isIn") is None
    violated = {found[1] for error in seen.errors if (found := re.match("violates ([a-z-]+)", error))}
    assert violated == {"script-src-elem", "connect-src"}
    assert "evil.test" not in seen.hosts


class Quiet(SimpleHTTPRequestHandler):
    """Serves files, and says nothing of it."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - so it is called there
        pass


def test_notebook_of_this_machine_may_show_the_page_in_a_frame_and_another_site_may_not(
    page: Page, shop: Shop, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(f'<iframe src="{shop.url}/my/orders"></iframe>')
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page.goto(f"http://localhost:{server.server_port}/")
        expect(page.frame_locator("iframe").get_by_role("heading", name="Sign in")).to_be_visible()
        with page.expect_console_message(lambda said: "frame-ancestors" in said.text):
            page.goto(f"http://other.localhost:{server.server_port}/")
        server.shutdown()

    assert page.frame_locator("iframe").locator("#sign-in").count() == 0


# -- the client alone

CLIENT = """async ({token, options, until}) => {
    const {Realtime, Refused} = await import('/realtime/client.js')
    const ticket = async () => {
        const answer = await fetch('/realtime/tickets', {method: 'POST', headers: {Authorization: `Bearer ${token}`}})
        if (!answer.ok) throw new Refused(await answer.json())
        return answer.json()
    }
    const realtime = new Realtime({ticket, ...options})
    window.realtime = realtime
    window.heard = []
    for (const type of ['state', 'event', 'gap'])
        realtime.addEventListener(type, ({detail}) => {
            window.heard.push([type, detail.state ?? detail.event?.data.order_id ?? detail.why])
        })
    realtime.start()
}"""


@dataclass(frozen=True, slots=True)
class Client:
    """A page with nothing but the client on it."""

    page: Page

    def heard(self, kind: str = "") -> list[str]:
        return [str(what) for type_, what in self.page.evaluate("window.heard") if kind in ("", type_)]

    def waits_for(self, kind: str, what: str) -> None:
        wait_for(lambda: what in self.heard(kind))


def client(page: Page, shop: Shop, household: int, **options: object) -> Client:
    page.goto(f"{shop.url}/my/orders")
    token = shop.system.token(f"households/{household}")
    page.evaluate(CLIENT, {"token": token, "options": {"topics": [f"households/{household}"], **options}})
    return Client(page)


def test_client_with_a_window_is_told_everything(page: Page, shop: Shop, seen: Seen) -> None:
    follower = client(page, shop, 24, window=1)
    follower.waits_for("state", "live")

    placed = shop.place(24, 5)

    wait_for(lambda: sum(follower.heard("event").count(one) for one in placed) == len(WAY) * len(placed))
    types = [json.loads(text)["type"] for text in seen.sent]
    assert types[:2] == ["hello", "subscribe"]
    assert types.count("ack") == len(WAY) * len(placed)


def test_client_finds_a_connection_that_is_dead_without_a_word(page: Page, shop: Shop) -> None:
    follower = client(page, shop, 25, pingEveryMs=200, answerWithinMs=1_000)
    follower.waits_for("state", "live")
    app = shop.serving

    app.popen.send_signal(signal.SIGSTOP)
    try:
        follower.waits_for("state", "away")
    finally:
        app.popen.send_signal(signal.SIGCONT)
    (placed,) = shop.place(25)

    wait_for(lambda: follower.heard("event").count(placed) == len(WAY))
    assert follower.heard("state")[-1] == "live"


def test_client_is_told_that_it_has_missed_something_and_goes_on(page: Page, shop: Shop) -> None:
    follower = client(page, shop, 26, after="00000000-1-0")
    follower.waits_for("state", "live")

    (placed,) = shop.place(26)

    wait_for(lambda: follower.heard("event").count(placed) == len(WAY))
    assert follower.heard("gap") == ["what you saw last is not kept any more"]


def test_client_gives_up_on_a_refusal(page: Page, shop: Shop) -> None:
    follower = client(page, shop, 27, topics=["households/28"])

    follower.waits_for("state", "ended")

    assert follower.heard("state") == ["connecting", "ended"]


def test_connection_outlives_the_token_it_was_opened_with(page: Page, shop: Shop, seen: Seen) -> None:
    (app,) = shop.system.start("app", access_lifetime="PT4S")
    try:
        sign_in(page, Shop(shop.system, app, shop.other), 29)

        def hellos() -> int:
            page.evaluate("0")  # lets Playwright tell what happened
            return sum(json.loads(text)["type"] == "hello" for text in seen.sent)

        wait_for(lambda: hellos() >= 2)
        (order_id,) = shop.place(29)
        reaches(page, order_id, "packed")
        assert [json.loads(text)["type"] for text in seen.sent].count("subscribe") == 1, "one connection all along"
        assert seen.errors == []
    finally:
        app.stop()
