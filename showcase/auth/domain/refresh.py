"""Refresh tokens: what one looks like, how its successor is made, and what the use of one means.

A session is a *family* of refresh tokens. Each use replaces the token by its successor, one *generation* younger
(rotation, RFC 9700 §4.14.2). A token that is used again after that is a sign of theft: of the two who hold it one is
a thief, and nobody can tell which. But there are honest reasons as well: the answer was lost on its way, or two tabs
of a browser refreshed at once. What then happens is the policy.
"""

import base64
import hashlib
import re
import secrets
from dataclasses import dataclass, field
from enum import StrEnum
from hmac import compare_digest
from uuid import UUID

from showcase.kernel.errors import Unauthenticated
from showcase.kernel.ids import new_uuid

PREFIX = "showcase_rt_"
"""By which scanners recognise one in a log or a repository."""
SECRET_BYTES = 32
PURPOSE = "refresh token"
"""Of the key that derives successors."""

_FORM = re.compile(PREFIX + r"([0-9a-f]{32})\.([A-Za-z0-9_-]{43})")


class InvalidRefreshToken(Unauthenticated):
    """The refresh token is not valid."""

    def __init__(self) -> None:  # one text for every reason: which one it was is for the log
        super().__init__("the refresh token is not valid: sign in again")


class Refusal(StrEnum):
    """Why a refresh token was refused; for the log of security events, never for the caller."""

    UNKNOWN = "unknown"
    WRONG_SECRET = "wrong secret"  # noqa: S105 - a reason
    REVOKED = "revoked"
    IDLE = "idle"
    EXPIRED = "expired"
    KEY_GONE = "the key of its successor is gone"


class Policy(StrEnum):
    """What happens when a refresh token is used again.

    - `strict`: every second use revokes the family. Catches a thief at the first chance. But a client whose answer
      was lost is logged out, and so is a browser with two tabs.
    - `grace`: within the leeway the token gets *another* child. Nobody is logged out, and a thief who is quick
      enough holds a branch of his own that no later rotation ever collides with: he is never caught.
    - `same-successor`: within the leeway, and until the successor is used, the answer is the *same* successor; all
      else revokes the family. Still a thief within the leeway holds the same successor as the owner. He is caught
      at the next rotation, when one of the two uses what the other has replaced; not before.

    No policy catches a thief whose victim never refreshes again; the idle and absolute limits end that.
    """

    STRICT = "strict"
    GRACE = "grace"
    SAME_SUCCESSOR = "same-successor"


class Outcome(StrEnum):
    """What the use of a refresh token leads to."""

    ROTATE = "rotate"
    REPEAT = "repeat"
    """The successor that it got before is given again."""
    BRANCH = "branch"
    """It gets one more child."""
    REUSED = "reused"
    """Somebody has stolen it: the family is revoked."""
    ENDED = "ended"
    """Its family is revoked, idle or expired."""


@dataclass(frozen=True, slots=True)
class RefreshToken:
    """`showcase_rt_{id}.{secret}`: the id finds it, the secret proves it.

    Attributes:
        secret: 32 bytes; the first of a family is random, the others are derived.
    """

    id: UUID
    secret: bytes = field(repr=False)

    @classmethod
    def first(cls) -> "RefreshToken":
        """The first of a family."""
        return cls(new_uuid(), secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def read(cls, text: str) -> "RefreshToken":
        """The token in its one spelling. Raises InvalidRefreshToken."""
        found = _FORM.fullmatch(text)  # of fixed length: whatever is longer ends here
        if found is None:
            raise InvalidRefreshToken
        token = cls(UUID(found[1]), base64.urlsafe_b64decode(found[2] + "="))
        if token.text != text:  # the last character has two bits to spare
            raise InvalidRefreshToken
        return token

    @property
    def text(self) -> str:
        """As clients hold it."""
        return f"{PREFIX}{self.id.hex}.{base64.urlsafe_b64encode(self.secret).rstrip(b'=').decode()}"

    @property
    def secret_hash(self) -> bytes:
        """What is stored. SHA-256 is enough: 256 random bits are not guessed, unlike a password."""
        return hashlib.sha256(self.secret).digest()

    def matches(self, secret_hash: bytes) -> bool:
        """Whether a stored hash is that of its secret; in constant time."""
        return compare_digest(self.secret_hash, secret_hash)


def lineage(parent: RefreshToken, family: UUID, generation: int) -> bytes:
    """What a successor's secret is the HMAC-SHA-256 of, under a key of the server.

    Derived, not random: so the same successor can be given again while only its hash is stored. It takes both the
    parent's secret, which the server has forgotten, and the server's key, which no client has. Every part has a
    fixed length, so that no two lineages are the same bytes.

    Args:
        generation: the successor's.
    """
    if len(parent.secret) != SECRET_BYTES:
        raise ValueError(f"a secret has {SECRET_BYTES} bytes")
    return parent.secret + family.bytes + generation.to_bytes(8, "big")


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What is known of a refresh token and its family when it is used.

    Attributes:
        generation: of the token.
        newest: the family's youngest generation.
        used_s: seconds since the token was first used; None if it never was.
        successor_used: the successor that it got first has been used in turn.
        ended: why its family takes no token any more.
    """

    generation: int
    newest: int
    used_s: float | None = None
    successor_used: bool = False
    ended: Refusal | None = None


def decide(policy: Policy, use: Use, *, leeway_s: float) -> Outcome:
    """What the use of a token, whose secret is right, leads to.

    Args:
        leeway_s: for how long after its first use a token may be used again, since the answer was lost.
    """
    if use.ended:
        return Outcome.ENDED
    within_leeway = use.used_s is not None and use.used_s <= leeway_s
    if policy is Policy.GRACE:
        if use.used_s is None:
            return Outcome.ROTATE
        return Outcome.BRANCH if within_leeway else Outcome.REUSED
    if use.generation == use.newest:  # by generation, never by time: two rotations may share a microsecond
        return Outcome.ROTATE
    was_parent = use.generation == use.newest - 1
    if policy is Policy.SAME_SUCCESSOR and within_leeway and was_parent and not use.successor_used:
        return Outcome.REPEAT
    return Outcome.REUSED
