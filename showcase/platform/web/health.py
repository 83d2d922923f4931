"""`/health/live`: the process runs. `/health/ready`: whatever it needs answers, so it may be sent requests."""

import asyncio
from collections.abc import Collection, Mapping

from fastapi import APIRouter
from starlette.responses import JSONResponse

from showcase.platform.resources import Ping

PING_WITHIN_S = 2.0


def routes(pings: Mapping[str, Ping], spare: Collection[str] = ()) -> APIRouter:
    """Both routes.

    Args:
        pings: by the name of the resource; looked at with every request, so that later ones count.
        spare: resources that are looked at, too, but may be away.
    """
    router = APIRouter(prefix="/health", tags=["health"])

    async def seen(ping: Ping) -> str:
        asked = asyncio.ensure_future(ping())
        # Not cancelled when it takes longer: to cancel may take longer still, and each ping has a deadline of its own.
        await asyncio.wait({asked}, timeout=PING_WITHIN_S)
        asked.add_done_callback(lambda late: late.cancelled() or late.exception())  # looked at: nobody else will
        if not asked.done():
            return "no answer"
        error = asked.exception()
        return f"{type(error).__name__}: no answer" if error else "ok"

    @router.get("/live")
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready", responses={503: {"description": "one of the resources does not answer"}})
    async def ready() -> JSONResponse:
        checks = dict(zip(pings, await asyncio.gather(*map(seen, pings.values())), strict=True))
        good = all(check == "ok" or name in spare for name, check in checks.items())
        return JSONResponse({"status": "ok" if good else "unavailable", "checks": checks}, 200 if good else 503)

    return router
