"""Accounts: who somebody is, what they may do, and from where they come."""

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from showcase.kernel.errors import Invalid
from showcase.kernel.principal import Scope

MAX_EMAIL = 254
_LOCAL = r"[^\s@\x00-\x1f\x7f\ud800-\udfff\"(),:;<>\[\\\]]{1,64}"
_DOMAIN = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}"
_EMAIL = re.compile(f"{_LOCAL}@{_DOMAIN}")

PASSWORD = "pwd"  # noqa: S105 - methods as RFC 8176 names them
ONE_TIME_CODE = "otp"
MULTI_FACTOR = "mfa"


class BadEmail(Invalid):
    """This is no mail address."""


class Role(StrEnum):
    """What an account is for."""

    CUSTOMER = "customer"
    SUPPORT = "support"
    AUDITOR = "auditor"


SCOPES: Mapping[Role, frozenset[Scope]] = {
    Role.CUSTOMER: frozenset({Scope.ACCOUNT, Scope.ORDERS_READ, Scope.ORDERS_WRITE}),
    Role.SUPPORT: frozenset(
        {Scope.ACCOUNT, Scope.ORDERS_READ, Scope.ORDERS_FOLLOW, Scope.CATALOGUE_WRITE, Scope.SUPPORT}
    ),
    Role.AUDITOR: frozenset({Scope.ACCOUNT, Scope.AUDIT_READ}),
}
"""What each role may do: no role may do all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Somebody who can sign in.

    Attributes:
        subject: as tokens name them: `households/7`, `staff/ada`.
        has_totp: a second factor has been confirmed.
    """

    id: UUID
    email: str
    subject: str
    role: Role
    password_hash: str
    has_totp: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """Where a request comes from.

    Attributes:
        address: IP address.
        name: what the client calls itself (User-Agent).
        in_browser: gets its refresh token as a cookie.
    """

    address: str
    name: str
    in_browser: bool = False


def email_of(text: str) -> str:
    """A mail address in the one spelling that is stored and compared. Raises BadEmail."""
    email = unicodedata.normalize("NFC", text[: MAX_EMAIL + 1]).strip().lower()  # normalising long text takes long
    # "=?": an encoded word (RFC 2047), which some mail server would take for another address.
    if len(text) > MAX_EMAIL or len(email) > MAX_EMAIL or "=?" in email or not _EMAIL.fullmatch(email):
        raise BadEmail("give a mail address such as ada@example.org")
    return email
