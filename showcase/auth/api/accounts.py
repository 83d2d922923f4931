"""Registering, signing in, who one is, and what happened to one's account."""

from fastapi import APIRouter, Response
from starlette.requests import Request

from showcase.auth.api.cookies import check_origin
from showcase.auth.api.models import (
    Challenge,
    Confirmation,
    Doors,
    EventModel,
    Login,
    Me,
    Owner,
    Registration,
    SecondFactor,
    TokenResponse,
    answered,
    device_of,
)
from showcase.auth.application.accounts import (
    NoSuchAccount,
    SecondFactorRequired,
    TooManyAttempts,
    WrongCode,
    WrongCredentials,
)
from showcase.auth.domain.accounts import BadEmail
from showcase.auth.domain.passwords import WeakPassword
from showcase.platform.web.callers import MissingScope, MissingToken, caller
from showcase.platform.web.origins import UntrustedOrigin
from showcase.platform.web.paging import BadCursor, Cursor, Limit, Page, cursor_of, uuid_of
from showcase.platform.web.problems import documented


def routes(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["auth"])
    accounts = doors.accounts

    @router.post("/auth/register", status_code=202, responses=documented(BadEmail, WeakPassword, TooManyAttempts))
    async def register(body: Registration, request: Request) -> Challenge:
        """Ask for an account; a code comes by mail. The answer is the same if there is one already."""
        return Challenge(challenge_id=await accounts.register(body.email, body.password, device_of(request)))

    @router.post("/auth/register/verify", status_code=204, responses=documented(WrongCode, TooManyAttempts))
    async def verify(body: Confirmation, request: Request) -> None:
        """Give the mailed code: from now on one can sign in."""
        await accounts.verify(body.challenge_id, body.code, device_of(request))

    @router.post(
        "/auth/login",
        responses=documented(WrongCredentials, SecondFactorRequired, BadEmail, TooManyAttempts, UntrustedOrigin),
    )
    async def login(body: Login, request: Request, response: Response) -> TokenResponse:
        """Sign in. With a second factor the answer is `second-factor-required` and a challenge to go on with."""
        if body.browser:
            check_origin(request, doors.trusted_origins)
        tokens = await accounts.login(body.email, body.password, device_of(request, browser=body.browser))
        return answered(response, tokens, browser=body.browser)

    @router.post("/auth/login/code", responses=documented(WrongCode, TooManyAttempts, UntrustedOrigin))
    async def login_with_code(body: SecondFactor, request: Request, response: Response) -> TokenResponse:
        """Finish a login with a code from an authenticator, or with a recovery code."""
        if body.browser:
            check_origin(request, doors.trusted_origins)
        device = device_of(request, browser=body.browser)
        tokens = await accounts.login_with_code(body.challenge_id, body.code, device)
        return answered(response, tokens, browser=body.browser)

    @router.get("/me", responses=documented(MissingToken))
    async def me(request: Request) -> Me:
        """Who the access token says one is. Asks no server."""
        principal = await caller(request)
        return Me(
            subject=principal.subject,
            scopes=sorted(principal.scopes),
            session_id=principal.session_id,
            acr=principal.acr,
            amr=list(principal.amr),
            auth_time=principal.auth_time,
        )

    @router.get("/auth/events", responses=documented(MissingToken, MissingScope, NoSuchAccount, BadCursor))
    async def events(owner: Owner, limit: Limit = 50, cursor: Cursor = None) -> Page[EventModel]:
        """What happened to one's account, the newest first."""
        account = await doors.account(owner)
        found = await doors.events(account.id, None if cursor is None else uuid_of(cursor), limit + 1)
        page = [EventModel.model_validate(event) for event in found[:limit]]
        return Page(items=page, next=cursor_of(str(page[-1].event_id)) if len(found) > limit else None)

    return router
