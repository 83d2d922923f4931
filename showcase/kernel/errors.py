"""What can go wrong, in the words of the domain.

A slice derives its own errors from one of the kinds below. The kind decides what the caller can do about it,
and thereby the HTTP status (`showcase.platform.web.problems`); the class's name becomes the problem type
(`EmptyBasket` → `/problems/empty-basket`, RFC 9457).
"""

from collections.abc import Mapping
from types import MappingProxyType


class DomainError(Exception):
    """Something was asked for that cannot be.

    Args:
        detail: what was wrong and what to do about it; shown to the caller, so never with a secret in it.
        facts: extension members of the problem document, JSON values.
    """

    def __init__(self, detail: str, **facts: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.facts = facts


class Invalid(DomainError):
    """The request can be read but makes no sense; sending it again is no use."""


class NotFound(DomainError):
    """There is no such thing, or none that this caller may know of."""


class Conflict(DomainError):
    """It does not go together with what is stored now."""


class Outdated(DomainError):
    """The caller has said on what it builds, and that is so no longer (RFC 9110 §13.1.1)."""


class Unauthenticated(DomainError):
    """Nobody knows who is calling.

    Attributes:
        challenge: what would help, as parameters of `WWW-Authenticate: Bearer` (RFC 6750 §3).
    """

    challenge: Mapping[str, str] = MappingProxyType({})


class Forbidden(DomainError):
    """The caller is known and may not do this."""


class TooMany(DomainError):
    """Too many of them in too short a time.

    Args:
        retry_after_s: when the next one is heard.
    """

    def __init__(self, detail: str, *, retry_after_s: int, **facts: object) -> None:
        super().__init__(detail, **facts)
        self.retry_after_s = retry_after_s


class TooLarge(DomainError):
    """More than is ever accepted."""


class Unavailable(DomainError):
    """Something that is needed does not answer in time; the same request may succeed later.

    Args:
        retry_after_s: when to try again.
    """

    def __init__(self, detail: str, *, retry_after_s: int = 1, **facts: object) -> None:
        super().__init__(detail, **facts)
        self.retry_after_s = retry_after_s
