"""Access: whether an access token still counts. Its form, signature and times `Verify` checks; here it is its session.

An access token is valid on its own until it expires (RFC 9068). That a session was ended before must be learnt from
somewhere, and each way has its price: `Revocation`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol
from uuid import UUID

import structlog

from showcase.auth.application.ports import Verify
from showcase.auth.domain.tokens import InvalidToken, Reason
from showcase.kernel.errors import Unavailable
from showcase.kernel.principal import Principal

log = structlog.get_logger()


class Revocation(StrEnum):
    """How a check learns that a session has ended."""

    PUSHED = "pushed"
    """It was told beforehand: costs a look into memory."""
    LOOKED_UP = "looked-up"
    """It asks Redis each time: costs a round trip."""
    NONE = "none"
    """Not at all: costs nothing, and a stolen token works until it expires."""


class Denied(Protocol):
    """The denylist (`infrastructure.denylist.Denylist`)."""

    @property
    def in_sync(self) -> bool:
        """Whether memory, and Redis, know of every denial but for the last moment."""

    def is_denied(self, session_id: UUID) -> bool:
        """Whether memory knows a session as denied."""

    async def looked_up(self, session_id: UUID) -> bool:
        """Whether Redis knows a session as denied. Raises Unavailable."""


IsLive = Callable[[UUID], Awaitable[bool]]
"""Whether the database knows a session that has not ended. Raises Unavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Turns an access token into the one it stands for (`platform.web.callers.Authenticate`)."""

    verify: Verify
    denylist: Denied
    is_live: IsLive
    revocation: Revocation

    async def __call__(self, token: str, *, sensitive: bool = False) -> Principal:
        """Whom a token stands for.

        Args:
            sensitive: rather no answer than one without the denylist.

        Raises InvalidToken, in the same words whether the token is bad or its session has ended; Unavailable.
        """
        principal = await self.verify.verify(token)
        session_id = principal.session_id
        if session_id is None:  # an operator's token has no session to end
            return principal
        if await self.has_ended(session_id, sensitive=sensitive):
            log.info("token refused", reason=Reason.REVOKED, session_id=str(session_id))
            raise InvalidToken(Reason.REVOKED)
        return principal

    async def has_ended(self, session_id: UUID, *, sensitive: bool) -> bool:
        """Whether a session has ended, as far as that is looked at.

        Args:
            sensitive: rather no answer than one without the denylist.

        Raises Unavailable.
        """
        if self.revocation is Revocation.NONE:
            return False
        if self.denylist.is_denied(session_id):
            return True
        if self.denylist.in_sync:
            if self.revocation is Revocation.PUSHED:
                return False
            try:
                return await self.denylist.looked_up(session_id)
            except Unavailable as error:
                log.warning("no look into the denylist", why=error.detail)
        if sensitive:
            raise Unavailable("nobody can tell at once whether this session has ended: come back in a moment")
        return not await self.is_live(session_id)
