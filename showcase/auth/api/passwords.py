"""Passwords: changed by who knows the present one, reset by who reads the mail."""

from fastapi import APIRouter
from starlette.requests import Request

from showcase.auth.api.models import Challenge, Doors, Owner, PasswordChange, Reset, ResetRequest, device_of
from showcase.auth.application.accounts import NoSuchAccount, TooManyAttempts, WrongCode, WrongCredentials
from showcase.auth.domain.accounts import BadEmail
from showcase.auth.domain.passwords import WeakPassword
from showcase.platform.web.callers import MissingScope, MissingToken
from showcase.platform.web.problems import documented


def routes(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["auth"])
    accounts = doors.accounts

    @router.post(
        "/auth/password",
        status_code=204,
        responses=documented(
            MissingToken, MissingScope, WrongCredentials, WeakPassword, TooManyAttempts, NoSuchAccount
        ),
    )
    async def change_password(body: PasswordChange, owner: Owner, request: Request) -> None:
        """Change the password. All other sessions end."""
        account = await doors.account(owner)
        await accounts.change_password(account, body.current, body.new, owner.session_id, device_of(request))

    @router.post("/auth/password/reset", status_code=202, responses=documented(BadEmail, TooManyAttempts))
    async def ask_reset(body: ResetRequest, request: Request) -> Challenge:
        """Ask for a code by mail; the answer is the same whether there is such an account or not."""
        return Challenge(challenge_id=await accounts.ask_reset(body.email, device_of(request)))

    @router.post(
        "/auth/password/reset/confirm", status_code=204, responses=documented(WrongCode, WeakPassword, TooManyAttempts)
    )
    async def reset(body: Reset, request: Request) -> None:
        """Set a new password. All sessions end; a second factor is asked for as before."""
        await accounts.reset(body.challenge_id, body.code, body.password, device_of(request))

    return router
