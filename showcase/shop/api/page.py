"""GET /my/orders: a household's page. It signs in, lists the orders and follows them live over the other routes.

Its Content-Security-Policy allows nothing but its own files and its own host: no inline script or style, no other site,
no form that is sent by itself.
"""

from pathlib import Path

from fastapi import APIRouter

from showcase.platform.web.assets import asset

ASSETS = Path(__file__).resolve().parents[1] / "assets"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
NOTEBOOKS = " http://localhost:* http://127.0.0.1:*"


def page_routes(environment: str) -> APIRouter:
    """The page and what it consists of.

    Args:
        environment: in the `workshop` a notebook, which is a page of this machine, may show it in a frame.
    """
    policy = POLICY + (NOTEBOOKS if environment == "workshop" else "")
    router = APIRouter()
    for path, name, media_type, headers in (
        ("/my/orders", "my-orders.html", "text/html", {"Content-Security-Policy": policy}),
        ("/my/orders.css", "my-orders.css", "text/css", {}),
        ("/my/orders.js", "my-orders.js", "text/javascript", {}),
    ):
        router.add_route(path, asset(ASSETS / name, media_type, headers), include_in_schema=False)
    return router
