"""What `showcase audit verify` says of an attack, and a proof that somebody without a server checks."""

import asyncio
import copy
import json
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import showcase.audit.wiring as audit
from showcase.cli.audit_proof import as_values
from showcase.platform.resources import Resources
from workshop.lab.lab import Lab

Proof = dict[str, Any]
WITHIN_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the command says.

    Attributes:
        code: its exit code: 1 if anything was touched.
        first: the kind of its first finding, `edited`; empty if there is none.
        record, entity: of which that is.
        found: how many findings there are.
        concerned: the record that the intruder has touched.
    """

    code: int
    first: str = ""
    record: str = ""
    entity: str = ""
    found: int = 0
    concerned: str = ""

    @property
    def names_it(self) -> bool:
        """Whether the first finding is of the record that was touched."""
        return self.record == self.concerned != ""


def commanded(lab: Lab, attack: AbstractContextManager[str]) -> Verdict:
    """Run `showcase audit verify` while an attack lasts."""
    with attack as concerned:
        code, said = lab.outcome("audit", "verify", "--json")
    return verdict(code, json.loads(said), concerned)


def attacked(lab: Lab, attack: AbstractContextManager[str]) -> Verdict:
    """The same without a process of its own, which would take most of the time."""
    with attack as concerned:
        return verified(lab, concerned)


def verified(lab: Lab, concerned: str = "") -> Verdict:
    """What the command calls, and would say."""
    settings = lab.settings.model_copy(update={"mongo_slow_s": 60.0})  # or a busy machine would print warnings

    async def report() -> dict[str, Any]:
        async with Resources(settings) as resources:
            return as_values(await audit.verify(resources))

    with ThreadPoolExecutor(1, "verify") as pool:  # a notebook's own event loop is busy running the notebook
        said = pool.submit(asyncio.run, report()).result(WITHIN_S)
    return verdict(0 if said["clean"] else 1, said, concerned)


def verdict(code: int, report: Mapping[str, Any], concerned: str = "") -> Verdict:
    """What a report comes to. Lost messages, which are told too, are no tampering."""
    findings = [one for one in report["findings"] if one["kind"] != "lost messages"]
    if not findings:
        return Verdict(code=code, concerned=concerned)
    first = findings[0]
    return Verdict(
        code=code,
        first=first["kind"],
        record=first["record"],
        entity=first["entity"],
        found=report["found"],
        concerned=concerned,
    )


def proof_of(lab: Lab, id_: str) -> Proof:
    """The proof of a record, from `showcase audit prove`. Raises StackError if there is none."""
    proof: Proof = json.loads(lab.command("audit", "prove", id_))
    return proof


def checked(lab: Lab, proof: Proof) -> tuple[int, str]:
    """What `showcase audit check` makes of a proof: its exit code, and its last line. It is told of no server."""
    with tempfile.TemporaryDirectory(prefix="showcase-proof-") as folder:
        file = Path(folder) / "proof.json"
        file.write_text(json.dumps(proof))
        nowhere = dict.fromkeys(("postgres_url", "anchor_postgres_url", "mongo_url", "audit_mongo_url"), "")
        code, said = lab.outcome("audit", "check", str(file), "--key", proof["anchor"]["public_key"], **nowhere)
    return code, said.strip().splitlines()[-1]


def with_other_content(proof: Proof) -> Proof:
    """The proof, with one bit of the record's bytes turned."""
    other = copy.deepcopy(proof)
    content = bytearray.fromhex(other["bytes"])
    content[-2] ^= 1
    other["bytes"] = content.hex()
    return other
