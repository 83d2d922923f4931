"""What a browser gets of the page *My orders* and of the client beneath it, without a browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

import showcase
from showcase.platform.web.assets import asset
from showcase.platform.web.envelope import Envelope
from showcase.realtime.api import asset_routes
from showcase.realtime.application.messages import SUBPROTOCOL
from showcase.shop.api.page import page_routes

pytestmark = pytest.mark.anyio
PACKAGE = Path(showcase.__file__).parent
ASSETS = [*PACKAGE.glob("realtime/assets/*"), *PACKAGE.glob("shop/assets/*")]
SERVED = {
    "/my/orders": "text/html; charset=utf-8",
    "/my/orders.css": "text/css; charset=utf-8",
    "/my/orders.js": "text/javascript; charset=utf-8",
    "/realtime/client.js": "text/javascript; charset=utf-8",
}


def app_of(environment: str) -> FastAPI:
    app = FastAPI()
    app.add_middleware(Envelope)
    app.include_router(page_routes(environment))
    app.include_router(asset_routes())
    return app


def client_of(environment: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app_of(environment)), base_url="http://shop.test")


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async with client_of("production") as client:
        yield client


@pytest.mark.parametrize(("path", "media_type"), SERVED.items())
async def test_file_is_sent_anew_only_when_it_has_changed(
    client: httpx.AsyncClient, path: str, media_type: str
) -> None:
    first = await client.get(path)
    again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
    changed = await client.get(path, headers={"If-None-Match": '"another"'})

    assert (first.status_code, first.headers["content-type"]) == (200, media_type)
    assert (first.headers["cache-control"], first.headers["x-content-type-options"]) == ("no-cache", "nosniff")
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", first.headers["etag"])
    assert (changed.status_code, changed.content) == (200, first.content)


def test_file_that_is_missing_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asset(tmp_path / "none.js", "text/javascript")


async def test_policy_of_the_page_allows_nothing_but_its_own(client: httpx.AsyncClient) -> None:
    said = (await client.get("/my/orders")).headers["content-security-policy"]
    policy = dict(one.strip().split(" ", 1) for one in said.split(";"))

    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self' data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'self'",
    }


async def test_only_in_the_workshop_a_notebook_may_show_it_in_a_frame() -> None:
    async with client_of("workshop") as client:
        said = (await client.get("/my/orders")).headers["content-security-policy"]

    assert said.endswith("frame-ancestors 'self' http://localhost:* http://127.0.0.1:*")


async def test_page_has_no_script_and_no_style_in_its_text(client: httpx.AsyncClient) -> None:
    page = (await client.get("/my/orders")).text

    assert re.findall(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son[a-z]+=|javascript:", page) == []
    loaded = re.findall(r'<(?:script|link)[^>]*?(?:src|href)="([^"]+)"', page)
    assert [one for one in loaded if not one.startswith("data:")] == ["orders.css", "orders.js"]


@pytest.mark.parametrize("file", ASSETS, ids=lambda file: file.name)
def test_asset_names_no_other_host_and_is_small(file: Path) -> None:
    text = file.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address

    assert re.findall(r"(?:https?:)?//[a-z0-9.-]+\.[a-z]{2,}", text) == []
    assert len(file.read_bytes()) < 24_000


def test_client_and_server_speak_the_same_protocol() -> None:
    assert f'SUBPROTOCOL = "{SUBPROTOCOL}"' in (PACKAGE / "realtime/assets/realtime.js").read_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("on", ["page", "card", "flash"])
@pytest.mark.parametrize("ink", ["ink", "faint", "good", "bad", "wait"])
def test_text_stands_out_from_what_is_behind_it(scheme: str, on: str, ink: str) -> None:
    """WCAG 2.2, 1.4.3: a contrast of 4.5 for text of any size."""
    css = (PACKAGE / "shop/assets/my-orders.css").read_text()
    light, dark = re.findall(r":root \{(.*?)\}", css, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{3,6})", light if scheme == "light" else dark))

    assert contrast(colours[ink], colours[on]) >= 4.5


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
