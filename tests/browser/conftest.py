"""A real Chromium, and a system to look at with it."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

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
