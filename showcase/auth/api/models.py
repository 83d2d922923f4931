"""What requests and answers look like, and what all routes of authentication need."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any, Protocol
from uuid import UUID

from fastapi import Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.requests import Request

from showcase.auth.api.cookies import set_refresh_cookie
from showcase.auth.application.accounts import Accounts
from showcase.auth.application.factors import Factors
from showcase.auth.application.ports import Tokens
from showcase.auth.application.sessions import Sessions
from showcase.auth.domain.accounts import Account, Device
from showcase.kernel.principal import Principal, Scope
from showcase.platform.web.callers import require

MAX_DEVICE = 200
Email = Annotated[str, StringConstraints(max_length=254)]
Password = Annotated[str, StringConstraints(max_length=1_024)]
Code = Annotated[str, StringConstraints(min_length=4, max_length=64, pattern=r"^[0-9A-Za-z -]+$")]
Owner = Annotated[Principal, require(Scope.ACCOUNT)]


class Event(Protocol):
    """One entry of the log of an account."""

    @property
    def event_id(self) -> UUID: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Doors:
    """The use cases behind the routes.

    Attributes:
        events: of an account, before an id, so many at the most.
        jwks: our public keys (RFC 7517 §5).
        login_age, step_up_age: how old a sign-in, a second factor may be for what needs a fresh one.
        trusted_origins: whose pages may use cookies, besides the app's own.
    """

    accounts: Accounts
    sessions: Sessions
    factors: Factors
    events: Callable[[UUID, UUID | None, int], Awaitable[Sequence[Event]]]
    jwks: Callable[[], Awaitable[Mapping[str, Any]]]
    login_age: timedelta
    step_up_age: timedelta
    trusted_origins: frozenset[str]

    async def account(self, caller: Principal) -> Account:
        """Whose account it is. Raises NoSuchAccount."""
        return await self.accounts.of(caller.subject)


class Model(BaseModel):
    """A request: nothing more in it than what is asked for."""

    model_config = ConfigDict(extra="forbid")


class Registration(Model):
    """Who wants an account."""

    email: Email
    password: Password


class Confirmation(Model):
    """A code that was mailed."""

    challenge_id: UUID
    code: Code


class Login(Model):
    """Who signs in.

    In a browser the refresh token comes as a cookie that no script can read.
    """

    email: Email
    password: Password
    browser: bool = False


class SecondFactor(Confirmation):
    """The rest of a login that needs a second factor."""

    browser: bool = False


class PasswordChange(Model):
    """The present password and the one that is to replace it."""

    current: Password
    new: Password


class ResetRequest(Model):
    """Who has forgotten a password."""

    email: Email


class Reset(Confirmation):
    """A mailed code and the new password."""

    password: Password


class Refresh(Model):
    """A refresh token; none where it comes as a cookie."""

    refresh_token: Annotated[str, StringConstraints(max_length=512)] | None = None


class OneTimeCode(Model):
    """A code from an authenticator, or a recovery code."""

    code: Code


class Challenge(BaseModel):
    """What to send back with the code. It looks the same whether there is such an account or not."""

    challenge_id: UUID


class TokenResponse(BaseModel):
    """RFC 6749 §5.1."""

    access_token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int = Field(description="of the access token, in seconds")
    scope: str
    session_id: UUID
    refresh_token: str | None = Field(default=None, description="null where it is a cookie, or the present one stays")


class Me(BaseModel):
    """Who the caller is, as its access token says."""

    subject: str
    scopes: list[str]
    session_id: UUID | None
    acr: str
    amr: list[str]
    auth_time: datetime | None


class SessionModel(BaseModel):
    """Where somebody is signed in."""

    model_config = ConfigDict(from_attributes=True)

    session_id: UUID
    device: str
    address: str
    created_at: datetime
    used_at: datetime
    expires_at: datetime
    current: bool = False


class EventModel(BaseModel):
    """What happened to an account."""

    model_config = ConfigDict(from_attributes=True)

    event_id: UUID
    at: datetime
    type: str
    actor: str
    session_id: UUID | None
    address: str
    reason: str
    data: dict[str, Any]


class EnrolmentModel(BaseModel):
    """For an authenticator app; shown once."""

    secret: str
    uri: str
    qr_svg: str


class RecoveryCodes(BaseModel):
    """Shown once: only hashes of them are kept."""

    recovery_codes: list[str]


def device_of(request: Request, *, browser: bool = False) -> Device:
    """Where a request comes from."""
    name = "".join(one for one in request.headers.get("user-agent", "") if one.isprintable())
    return Device(address=request.client.host if request.client else "", name=name[:MAX_DEVICE], in_browser=browser)


def answered(response: Response, tokens: Tokens, *, browser: bool) -> TokenResponse:
    """Tokens as the client gets them: in a browser the refresh token in a cookie."""
    if browser and tokens.refresh_token is not None:
        set_refresh_cookie(response, tokens.refresh_token, tokens.refresh_lifetime)
    return TokenResponse(
        access_token=tokens.access_token,
        expires_in=round(tokens.expires_in.total_seconds()),
        scope=" ".join(sorted(tokens.scopes)),
        session_id=tokens.session_id,
        refresh_token=None if browser else tokens.refresh_token,
    )
