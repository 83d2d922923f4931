"""A real Chromium, and a system to look at with it."""

import os
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, WebSocket, expect, sync_playwright

from tests.integration.conftest import stack
from tests.integration.system import System, system_on
from workshop.stack import Stack

__all__ = ["stack"]

NAMES = ("chromium", "chromium-browser", "google-chrome")
WITHIN_MS = 20_000


@pytest.fixture(scope="module")
def system(stack: Stack) -> Iterator[System]:
    with system_on(stack) as system:
        system.slices = "auth,shop"
        yield system


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(found for name in NAMES if (found := shutil.which(name)))
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=WITHIN_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page of a browser that nobody has used before."""
    with browser.new_context() as context:
        context.set_default_timeout(WITHIN_MS)
        yield context.new_page()


class Seen:
    """What a browser's pages do that nobody sees on them.

    Attributes:
        errors: what the console has of errors, uncaught ones and violations of a page's policy among them.
        hosts: that were asked for anything, by HTTP or by WebSocket.
        requests: methods and paths, in their order.
        sent: messages that went over WebSockets, in their order.
    """

    def __init__(self, context: BrowserContext) -> None:
        self.errors: list[str] = []
        self.hosts: set[str] = set()
        self.requests: list[str] = []
        self.sent: list[str] = []
        context.add_init_script("""addEventListener('securitypolicyviolation',
            event => console.error(`violates ${event.violatedDirective}: ${event.blockedURI}`))""")
        context.on("console", lambda said: self.errors.append(said.text) if said.type == "error" else None)
        context.on("weberror", lambda broken: self.errors.append(str(broken.error)))
        context.on("request", lambda request: self._asked(request.method, request.url))
        for page in context.pages:
            page.on("websocket", self._connected)
        context.on("page", lambda page: page.on("websocket", self._connected))

    def _asked(self, method: str, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "data":
            self.hosts.add(parts.netloc)
            self.requests.append(f"{method} {parts.path}")

    def _connected(self, socket: WebSocket) -> None:
        self.hosts.add(urlsplit(socket.url).netloc)
        socket.on("framesent", lambda payload: self.sent.append(str(payload)))


@pytest.fixture
def seen(page: Page) -> Seen:
    """What the test's pages do; ask for it before a page is opened."""
    return Seen(page.context)
