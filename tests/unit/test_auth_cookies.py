"""Cookies are for our own pages: where a request comes from is checked before what it wants."""

import pytest
from starlette.requests import Request

from showcase.auth.api.cookies import check_origin
from showcase.platform.web.origins import UntrustedOrigin

TRUSTED = {"https://app.example"}


def request(origin: str | None, host: str = "shop.example") -> Request:
    headers = [(b"host", host.encode())] + ([] if origin is None else [(b"origin", origin.encode())])
    return Request({"type": "http", "method": "POST", "path": "/", "headers": headers})


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("https://shop.example", "shop.example"),
        ("https://shop.example:8443", "shop.example:8443"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://127.0.0.1:8000", "127.0.0.1:8000"),
        ("https://app.example", "shop.example"),
    ],
)
def test_our_own_pages_and_trusted_ones_may(origin: str, host: str) -> None:
    check_origin(request(origin, host), TRUSTED)


@pytest.mark.parametrize(
    "origin",
    [
        None,
        "",
        "null",
        "https://evil.example",
        "https://shop.example.evil.example",
        "https://evil.example/shop.example",
        "https://shop.example:8443",
        "http://shop.example",
        "http://app.example",
        "https://app.example.evil.example",
        "https://user@shop.example",
        "https://[shop.example",
        "shop.example",
    ],
)
def test_nobody_else_may(origin: str | None) -> None:
    with pytest.raises(UntrustedOrigin):
        check_origin(request(origin), TRUSTED)
