"""Tokens that must be refused: made with real cryptography, and most of them accepted by somebody once.

loot = Loot(access_token=…, refresh_token=…, jwks=…, site=Site())
answers = send(client, attacks(loot, key))
"""

from showcase.auth.infrastructure.jwk import SigningKey
from workshop.attacks.attack import Attack, Family, Loot
from workshop.attacks.forged import forged
from workshop.attacks.naive import Naive, accepts, pinned
from workshop.attacks.sending import OURS, Table, send, verdicts
from workshop.attacks.shaped import shaped
from workshop.attacks.site import Site
from workshop.attacks.stray import signed_by, stray

__all__ = [
    "OURS",
    "Attack",
    "Family",
    "Loot",
    "Naive",
    "Site",
    "Table",
    "accepts",
    "attacks",
    "forged",
    "pinned",
    "send",
    "shaped",
    "signed_by",
    "stray",
    "verdicts",
]


def attacks(loot: Loot, key: SigningKey) -> list[Attack]:
    """All attacks of the lab, each with a name of its own.

    Args:
        loot: what an attacker has.
        key: ours; for the tokens that nobody can make without it, and that must be refused all the same.
    """
    return [*forged(loot), *shaped(loot), *stray(loot, key)]
