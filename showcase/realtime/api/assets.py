"""GET /realtime/client.js: the client of the WebSocket for browsers, one ES module without a build."""

from pathlib import Path

from fastapi import APIRouter

from showcase.platform.web.assets import asset

CLIENT = Path(__file__).resolve().parents[1] / "assets" / "realtime.js"


def asset_routes() -> APIRouter:
    """The one route."""
    router = APIRouter()
    router.add_route("/realtime/client.js", asset(CLIENT, "text/javascript"), include_in_schema=False)
    return router
