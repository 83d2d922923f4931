"""What an attack is, and what it is made from."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from showcase.auth.domain.tokens import Reason
from workshop.attacks.forging import unb64
from workshop.attacks.site import Site


class Family(StrEnum):
    """What an attack hopes for."""

    UNSIGNED = "nobody looks at the signature"
    OUR_KEY = "our public key serves as a secret"
    FOREIGN_KEY = "the token says by which key"
    SIGNATURE = "a signature that is none"
    FORM = "two spellings, or two readings"
    STRAY = "signed by us, for something else"
    TIME = "what time is it?"


@dataclass(frozen=True, slots=True)
class Attack:
    """A token that must be refused.

    Attributes:
        does: what it does, in a few words.
        accepted_by: who accepted it once; empty where no published case is known to us.
        reason: the rule of ours that refuses it.
        section: where the standard has that rule.
    """

    family: Family
    name: str
    token: str
    does: str
    reason: Reason
    section: str
    accepted_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loot:
    """What an attacker has who has broken into nothing: an account like everybody's, and what we publish.

    Attributes:
        access_token, refresh_token: his own.
        jwks: our public keys.
        site: his web server, with a key pair of his own.
    """

    access_token: str
    refresh_token: str
    jwks: Mapping[str, Any]
    site: Site

    @property
    def parts(self) -> list[str]:
        """Header, claims and signature of his token, as they stand in it."""
        return self.access_token.split(".")

    @property
    def header(self) -> dict[str, Any]:
        """The header of his token."""
        found: dict[str, Any] = json.loads(unb64(self.parts[0]))
        return found

    @property
    def claims(self) -> dict[str, Any]:
        """The claims of his token."""
        found: dict[str, Any] = json.loads(unb64(self.parts[1]))
        return found

    @property
    def signature(self) -> bytes:
        """The signature of his token."""
        return unb64(self.parts[2])

    @property
    def jwk(self) -> Mapping[str, Any]:
        """The public key that his token was signed with."""
        return next(key for key in self.jwks["keys"] if key["kid"] == self.header["kid"])

    def wanted(self) -> dict[str, Any]:
        """The claims that he would like to have: of staff, for a day."""
        now = int(time.time())
        dream = {"sub": "staff/ada", "scope": "orders:follow orders:read", "iat": now, "exp": now + 86_400}
        return {**self.claims, **dream}
