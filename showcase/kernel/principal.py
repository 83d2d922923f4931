"""Who is calling, as every slice needs to know it."""

import re
from dataclasses import dataclass
from enum import StrEnum

_HOUSEHOLD = re.compile(r"households/([1-9][0-9]{0,17})")
"""No more digits than a 64-bit integer surely holds."""


class Scope(StrEnum):
    """What a caller may be allowed to do (RFC 6749 §3.3)."""

    ORDERS_READ = "orders:read"
    ORDERS_WRITE = "orders:write"
    ORDERS_FOLLOW = "orders:follow"
    """Follow the orders of all households, as the people behind the counter do."""
    AUDIT_READ = "audit:read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller whose identity is proven.

    Attributes:
        subject: unique and stable, `households/7` or `staff/ada`.
    """

    subject: str
    scopes: frozenset[str]

    @property
    def household_id(self) -> int | None:
        """The household that is calling; None for staff and services."""
        found = _HOUSEHOLD.fullmatch(self.subject)
        return int(found[1]) if found else None
