"""A session's family of refresh tokens, read from the log of security events: what its pictures are drawn from."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from workshop.pictures.frames import require

SIGNED_IN, ROTATED, REPEATED, REUSED = "login", "refresh.rotated", "refresh.repeated", "refresh.reused"
REFUSED, REVOKED = "refresh.refused", "session.revoked"
COLUMNS = ("at", "type", "reason", "data")
MOST_SAID = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """What one device did with one refresh token.

    Attributes:
        what: the type of its event.
        token: that was used; "" for a login, and where a refusal does not tell which it was.
        child: that came back; "" for none.
        step: the place of its event in the order of all.
        at_s: seconds since the login.
    """

    what: str
    device: str
    token: str
    child: str
    step: int
    at_s: float


@dataclass(slots=True)
class Family:
    """All of it.

    Attributes:
        generations: of each token, by its id.
        parents: of each token but the first.
        began: when the login was, in seconds since 1970.
        ended: when, at which step and why, if it did.
    """

    began: float = 0.0
    uses: list[Use] = field(default_factory=list)
    generations: dict[str, int] = field(default_factory=dict)
    parents: dict[str, str] = field(default_factory=dict)
    ended: tuple[float, int, str] | None = None

    @classmethod
    def read(cls, events: pd.DataFrame) -> "Family":
        """The family of a session.

        Args:
            events: rows of `auth.events` of one session, the oldest first: `at`, `type`, `reason`, `data`.

        Raises ValueError for a column that is missing, and for events that do not begin with a login.
        """
        require("events", events, *COLUMNS)
        family = cls()
        step = 0
        before = ""
        for row in events[list(COLUMNS)].to_dict("records"):
            what = str(row["type"])
            step += not (what == REVOKED and before == REUSED)  # these two are one moment: one transaction
            family._add(what, row, step)
            before = what
        return family

    def _add(self, what: str, row: dict[Any, Any], step: int) -> None:
        data, at = row["data"], row["at"].timestamp()
        if not self.uses and what != SIGNED_IN:
            raise ValueError(f"events: the first is {what!r}, and not the login of a session")
        if what == SIGNED_IN:
            self.began = at
        at_s = at - self.began
        token, child = str(data.get("parent_id", "")), str(data.get("token_id", ""))
        if what in (SIGNED_IN, ROTATED):
            self.generations[child] = int(data["generation"])
        if what == ROTATED:
            self.parents[child] = token
        if what == REUSED:
            token, child = child, ""
        if what in (SIGNED_IN, ROTATED, REPEATED, REUSED, REFUSED):
            device = str(data.get("device", ""))
            self.uses.append(Use(what=what, device=device, token=token, child=child, step=step, at_s=at_s))
        if what == REVOKED and self.ended is None:
            self.ended = (at_s, step, str(row["reason"]))

    @property
    def devices(self) -> list[str]:
        """Who did something, in the order in which they first did."""
        return list(dict.fromkeys(use.device for use in self.uses))

    def state(self, token: str) -> str:
        """What has become of a token: `live`, `used`, `used again` (which ended the family) or `revoked`."""
        if any(use.token == token and use.what == REUSED for use in self.uses):
            return "used again"
        if any(use.token == token for use in self.uses):
            return "used"
        return "revoked" if self.ended else "live"

    def states(self) -> list[str]:
        """What has become of each token, by generation."""
        return [self.state(token) for token in sorted(self.generations, key=self.generations.__getitem__)]

    def depth(self, token: str) -> int:
        """How many rotations lie between a token and the first of its family."""
        found = 0
        while token in self.parents:
            token, found = self.parents[token], found + 1
        return found

    def children(self, token: str) -> list[str]:
        """Its children, by generation."""
        found: Iterable[str] = (child for child, parent in self.parents.items() if parent == token)
        return sorted(found, key=self.generations.__getitem__)

    def told(self) -> str:
        """All of it in words."""
        said = [self._said(use) for use in self.uses]
        if len(said) > MOST_SAID:
            said = [*said[: MOST_SAID // 2], f"{len(said) - MOST_SAID // 2} more uses"]
        end = f"The session ends: {self.ended[2]}" if self.ended else "The session lives"
        states = self.states()
        counted = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"{'; '.join(said)}. {end}. Tokens: {counted}."

    def _said(self, use: Use) -> str:
        sent, got = self.generations.get(use.token), self.generations.get(use.child)
        match use.what:
            case "login":
                return f"{use.device} signs in and gets refresh token {got}"
            case "refresh.rotated":
                return f"{use.device} sends {sent} and gets {got}"
            case "refresh.repeated":
                return f"{use.device} sends {sent} again and gets the same {got}"
            case "refresh.reused":
                return f"{use.device} sends {sent}, which was used before"
            case _:
                return f"{use.device} is refused"
