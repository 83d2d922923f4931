"""Who is calling, as every slice needs to know it."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

_HOUSEHOLD = re.compile(r"households/([1-9][0-9]{0,17})")
"""No more digits than a 64-bit integer surely holds."""


class Scope(StrEnum):
    """What a caller may be allowed to do (RFC 6749 §3.3)."""

    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    ORDERS_FOLLOW = "orders:follow"
    """Follow the orders of all households, as the people behind the counter do."""
    CATALOGUE_WRITE = "catalogue:write"
    """Change products."""
    AUDIT_READ = "audit:read"
    SUPPORT = "support"
    """Look into queues, and replay or discard messages that nobody could handle."""
    ACCOUNT = "account"
    """See and change one's own account: password, sessions, second factors."""


SENSITIVE = frozenset({Scope.ACCOUNT, Scope.AUDIT_READ, Scope.CATALOGUE_WRITE, Scope.ORDERS_FOLLOW, Scope.SUPPORT})
"""Refused while nobody can tell at once whether a session was revoked: better no answer than a thief's."""


ONE_FACTOR_ACR = "urn:showcase:acr:one-factor"
MULTI_FACTOR_ACR = "urn:showcase:acr:multi-factor"
"""The `acr` of who has proven by one means, or by two, who he is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller whose identity is proven.

    Attributes:
        subject: unique and stable, `households/7` or `staff/ada`.
        session_id: the session that the caller's token belongs to; None for one that an operator has issued.
        acr: how surely the caller is who it says (RFC 9068 §2.2.1), `amr`: by which means, `auth_time`: proven when.
        expires_at: when this ceases to be known.
    """

    subject: str
    scopes: frozenset[str]
    session_id: UUID | None = None
    acr: str = ""
    amr: tuple[str, ...] = ()
    auth_time: datetime | None = None
    expires_at: datetime | None = field(default=None, compare=False)

    @property
    def household_id(self) -> int | None:
        """The household that is calling; None for staff and services."""
        found = _HOUSEHOLD.fullmatch(self.subject)
        return int(found[1]) if found else None
