"""Second factors: enrol, remove, and give one for what needs it."""

from fastapi import APIRouter, Response
from starlette.requests import Request

from showcase.auth.api.models import (
    Doors,
    EnrolmentModel,
    OneTimeCode,
    Owner,
    RecoveryCodes,
    TokenResponse,
    answered,
    device_of,
)
from showcase.auth.application.accounts import NoSuchAccount, TooManyAttempts, WrongCode
from showcase.auth.application.factors import AlreadyEnrolled, NotEnrolled
from showcase.platform.web.callers import InsufficientUserAuthentication, MissingScope, MissingToken, signed_in, step_up
from showcase.platform.web.problems import documented

OWN = (MissingToken, MissingScope, NoSuchAccount)


def routes(doors: Doors) -> APIRouter:
    """All of them."""
    router = APIRouter(tags=["auth"])
    factors = doors.factors
    fresh = step_up(doors.step_up_age)

    @router.post(
        "/auth/totp",
        dependencies=[signed_in(doors.login_age)],
        responses=documented(*OWN, InsufficientUserAuthentication, AlreadyEnrolled),
    )
    async def enrol(owner: Owner) -> EnrolmentModel:
        """Begin with an authenticator app: scan the QR code. It counts once it is confirmed.

        Needs a sign-in of just now: else whoever has a stolen token could lock out its owner.
        """
        enrolment = await factors.enrol(await doors.account(owner))
        return EnrolmentModel(secret=enrolment.secret, uri=enrolment.uri, qr_svg=enrolment.qr_svg)

    @router.post(
        "/auth/totp/confirm", responses=documented(*OWN, WrongCode, AlreadyEnrolled, NotEnrolled, TooManyAttempts)
    )
    async def confirm(body: OneTimeCode, owner: Owner, request: Request) -> RecoveryCodes:
        """Give the first code: from now on every login asks for one. Keep the recovery codes."""
        codes = await factors.confirm(await doors.account(owner), body.code, device_of(request))
        return RecoveryCodes(recovery_codes=list(codes))

    @router.post("/auth/step-up", responses=documented(*OWN, WrongCode, NotEnrolled, TooManyAttempts))
    async def give_factor(body: OneTimeCode, owner: Owner, request: Request, response: Response) -> TokenResponse:
        """Give a second factor now, and get an access token that says so (RFC 9470)."""
        account = await doors.account(owner)
        tokens = await factors.step_up(account, owner.session_id, body.code, device_of(request))
        return answered(response, tokens, browser=False)

    @router.delete(
        "/auth/totp",
        status_code=204,
        dependencies=[fresh],
        responses=documented(*OWN, InsufficientUserAuthentication, NotEnrolled),
    )
    async def disable(owner: Owner, request: Request) -> None:
        """Do without a second factor again. Needs one given just now."""
        await factors.disable(await doors.account(owner), device_of(request))

    @router.post(
        "/auth/recovery-codes",
        dependencies=[fresh],
        responses=documented(*OWN, InsufficientUserAuthentication, NotEnrolled),
    )
    async def new_recovery_codes(owner: Owner, request: Request) -> RecoveryCodes:
        """Ten new recovery codes; the old ones are void. Needs a second factor given just now."""
        codes = await factors.new_recovery_codes(await doors.account(owner), device_of(request))
        return RecoveryCodes(recovery_codes=list(codes))

    return router
