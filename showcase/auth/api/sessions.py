"""Refreshing tokens, seeing and ending sessions, and the keys by which anybody can check a token."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Query, Response
from starlette.requests import Request
from starlette.responses import JSONResponse

from showcase.auth.api.cookies import COOKIE, check_origin, drop_refresh_cookie
from showcase.auth.api.models import Doors, Owner, Refresh, SessionModel, TokenResponse, answered, device_of
from showcase.auth.application.accounts import NoSuchAccount
from showcase.auth.application.sessions import UnknownSession
from showcase.auth.domain.refresh import InvalidRefreshToken
from showcase.platform.web.callers import MissingScope, MissingToken
from showcase.platform.web.origins import UntrustedOrigin
from showcase.platform.web.problems import documented

JWKS_CACHED = "public, max-age=60"
"""Others may keep our keys for so long: the next one is there long before it signs."""


def routes(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["auth"])
    sessions = doors.sessions

    @router.post("/auth/refresh", responses=documented(InvalidRefreshToken, UntrustedOrigin))
    async def refresh(body: Refresh, request: Request, response: Response) -> TokenResponse:
        """Trade a refresh token for a new pair. The old one is used up: using it again ends the session."""
        cookie = request.cookies.get(COOKIE)
        browser = body.refresh_token is None and cookie is not None
        if browser:
            check_origin(request, doors.trusted_origins)
        tokens = await sessions.refresh(body.refresh_token or cookie or "", device_of(request, browser=browser))
        return answered(response, tokens, browser=browser)

    @router.post("/auth/logout", status_code=204, responses=documented(MissingToken, MissingScope))
    async def logout(owner: Owner, response: Response) -> None:
        """End the session that the access token belongs to, and close its WebSockets."""
        if owner.session_id is not None:
            account = await doors.account(owner)
            await sessions.end(owner.session_id, account.id, why="logout", actor=owner.subject)
        drop_refresh_cookie(response)

    own = documented(MissingToken, MissingScope, NoSuchAccount)

    @router.get("/auth/sessions", responses=own)
    async def list_sessions(owner: Owner) -> list[SessionModel]:
        """Where one is signed in, the last used first."""
        account = await doors.account(owner)
        found = [SessionModel.model_validate(one) for one in await sessions.list_(account.id)]
        return [one.model_copy(update={"current": one.session_id == owner.session_id}) for one in found]

    @router.delete("/auth/sessions", status_code=204, responses=own)
    async def end_sessions(
        owner: Owner, others: Annotated[bool, Query(description="keep the present one")] = False
    ) -> None:
        """End all of one's sessions, or all others."""
        account = await doors.account(owner)
        keep = owner.session_id if others else None
        await sessions.revoke_all(account.id, why="ended by owner", actor=owner.subject, keep=keep)

    @router.delete(
        "/auth/sessions/{session_id}",
        status_code=204,
        responses=documented(MissingToken, MissingScope, NoSuchAccount, UnknownSession),
    )
    async def end_session(session_id: UUID, owner: Owner) -> None:
        """End one of one's sessions; somebody else's is as good as none."""
        account = await doors.account(owner)
        await sessions.end(session_id, account.id, why="ended by owner", actor=owner.subject)

    @router.get("/.well-known/jwks.json")
    async def keys() -> JSONResponse:
        """Our public keys (RFC 7517 §5): the one that signs, the next one, and those whose tokens still live."""
        return JSONResponse(dict(await doors.jwks()), headers={"Cache-Control": JWKS_CACHED})

    return router
