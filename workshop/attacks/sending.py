"""Tokens sent to the running app, and the table of who fell for which."""

import html
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import pandas as pd

from workshop.attacks.attack import Attack
from workshop.attacks.naive import Verify, accepts

OURS = "our app"
LEFT = "text-align:left"
TITLES = {"accepted_by": "accepted once by"}


def send(client: httpx.Client, attacks: Sequence[Attack]) -> pd.DataFrame:
    """Ask `/me` with each of the tokens.

    Returns one row an attack: attack (its name), trace (by which the app's log names the request), status, challenge
    (`WWW-Authenticate`), body.
    """
    rows = []
    for attack in attacks:
        trace = secrets.token_hex(16)
        headers = [
            (b"Authorization", b"Bearer " + attack.token.encode()),
            (b"traceparent", f"00-{trace}-{secrets.token_hex(8)}-01".encode()),
        ]
        answer = client.get("/me", headers=headers)
        challenge = answer.headers.get("WWW-Authenticate", "")
        rows.append((attack.name, trace, answer.status_code, challenge, answer.text))
    return pd.DataFrame(rows, columns=["attack", "trace", "status", "challenge", "body"])


def verdicts(
    attacks: Sequence[Attack], others: Mapping[str, Verify], answers: pd.DataFrame, reasons: Mapping[str, str]
) -> pd.DataFrame:
    """Who accepts which token.

    Args:
        others: verifiers that are asked now, each under its name.
        answers: of our app, from `send`.
        reasons: what our app's log says, by trace.

    Returns one row an attack: family, attack, does, accepted_by, one column a verifier (True: accepted), reason (of
    the log), section.
    """
    ours = answers.set_index("attack")
    rows = [
        {
            "family": attack.family.value,
            "attack": attack.name,
            "does": attack.does,
            "accepted_by": attack.accepted_by,
            **{name: accepts(verify, attack.token) for name, verify in others.items()},
            OURS: bool(ours.status[attack.name] < 400),
            "reason": reasons.get(str(ours.trace[attack.name]), ""),
            "section": attack.section,
        }
        for attack in attacks
    ]
    return pd.DataFrame(rows)


@dataclass(frozen=True, slots=True)
class Table:
    """A table for a notebook: its cells wrap, and no family is written twice.

    Args:
        frame: from `verdicts`.
    """

    frame: pd.DataFrame

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/html": self._html(), "text/plain": self.frame.to_string(index=False)}

    def _html(self) -> str:
        columns = [name for name in self.frame.columns if name != "family"]
        heads = "".join(f'<th style="{LEFT}">{html.escape(TITLES.get(name, name))}</th>' for name in columns)
        rows = []
        for family, members in self.frame.groupby("family", sort=False):
            rows.append(f'<tr><th colspan="{len(columns)}" style="{LEFT}">{html.escape(str(family))}</th></tr>')
            rows += ["<tr>" + "".join(_cell(row[name]) for name in columns) + "</tr>" for _, row in members.iterrows()]
        return f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, bool):
        said, colour = ("<b>✗ accepted</b>", "#C23B00") if value else ("✓ refused", "#00694C")
        return f'<td style="{LEFT};white-space:nowrap;color:{colour}">{said}</td>'
    whole = re.sub(
        r"(CVE-\d+-\d+|(RFC|FIPS) .+)", r'<span style="white-space:nowrap">\1</span>', html.escape(str(value))
    )
    return f'<td style="{LEFT}">{whole}</td>'
