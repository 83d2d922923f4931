"""The refresh token of a browser: a cookie that no script reads and no other site sends.

`__Host-` has the browser take it only from this very host, over HTTPS (or from localhost), for all paths
(RFC 6265bis §4.1.3.2). SameSite=Strict keeps it from other sites' requests; the check of Origin is the second lock.
"""

from collections.abc import Collection
from datetime import timedelta

from fastapi import Response
from starlette.requests import Request

from showcase.platform.web.origins import UntrustedOrigin, is_trusted

COOKIE = "__Host-refresh"


def set_refresh_cookie(response: Response, token: str, lifetime: timedelta) -> None:
    """Give a browser its refresh token."""
    response.set_cookie(
        COOKIE, token, max_age=round(lifetime.total_seconds()), path="/", secure=True, httponly=True, samesite="strict"
    )


def drop_refresh_cookie(response: Response) -> None:
    """Have a browser forget its refresh token."""
    response.delete_cookie(COOKIE, path="/", secure=True, httponly=True, samesite="strict")


def check_origin(request: Request, trusted: Collection[str]) -> None:
    """That a request comes from one of our own pages (OWASP CSRF cheat sheet: verifying origin).

    Raises UntrustedOrigin, also where a request does not say from where it comes.
    """
    if not is_trusted(request.headers.get("origin", ""), request.headers.get("host", ""), trusted):
        raise UntrustedOrigin("cookies work for the app's own pages: the Origin header names another, or none")
