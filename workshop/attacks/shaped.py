"""Attacks on reading: tokens that two programs read differently, or that are the same token in other words.

A second spelling of a genuine token gives nobody new rights. But whoever remembers a token by its text, on a list of
those that are refused or in a cache, has not heard of its twin.
"""

import json
from collections.abc import Iterator

from showcase.auth.domain.tokens import Reason
from showcase.auth.infrastructure.jwk import VerifyingKey
from workshop.attacks.attack import Attack, Family, Loot
from workshop.attacks.forging import encrypted_to, token, unsigned, written

ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def shaped(loot: Loot) -> list[Attack]:
    """All of them."""
    return [*_spellings(loot), *_readings(loot), *_loads()]


def _spellings(loot: Loot) -> Iterator[Attack]:
    genuine, (header, claims, signature) = loot.access_token, loot.parts
    # 64 bytes are 86 characters, and the last of those has four bits to spare.
    twin = genuine[:-1] + ALPHABET[ALPHABET.index(genuine[-1]) ^ 1]
    for name, changed, does, reason, section in (
        ("spare bits", twin, "changes bits that carry nothing", Reason.TRAILING_BITS, "RFC 4648 §3.5"),
        ("padding", f"{genuine}==", "pads base64", Reason.PADDING, "RFC 7515 §2"),
        ("a space inside", f"{header}.{claims}.{signature[:40]} {signature[40:]}", "has a space in its signature",
         Reason.ALPHABET, "RFC 4648 §3.3"),
        ("a lookalike letter", f"\N{CYRILLIC SMALL LETTER IE}{genuine[1:]}", "has a Cyrillic e in it",
         Reason.NOT_ASCII, "RFC 7515 §7.1"),
    ):  # fmt: skip
        yield Attack(Family.FORM, name, changed, does, reason, section)


def _readings(loot: Loot) -> Iterator[Attack]:
    header, claims, signature = loot.parts
    twice = json.dumps(loot.header)[:-1] + ', "alg": "none"}'
    yield Attack(
        Family.FORM, "alg twice", token(twice.encode(), loot.wanted(), unsigned),
        "says ES256, then none: who reads which?", Reason.DUPLICATE_MEMBER, "RFC 7515 §4",
        "CouchDB, CVE-2017-12635 (not a token)",
    )  # fmt: skip
    flattened = {"protected": header, "payload": claims, "signature": signature}
    yield Attack(
        Family.FORM, "as JSON", json.dumps(flattened), "is a JWS in its other serialisation",
        Reason.JSON_SERIALISATION, "RFC 7519 §1",
    )  # fmt: skip
    both = {f" {header}.{written(loot.wanted())}.": "", **flattened}
    yield Attack(
        Family.FORM, "compact in JSON", json.dumps(both), "is one token for one parser, and another for the next",
        Reason.JSON_SERIALISATION, "RFC 7519 §1", "python-jwt, CVE-2022-39227",
    )  # fmt: skip
    yield Attack(
        Family.FORM, "four parts", f"{loot.access_token}.{signature}", "has one part too many",
        Reason.WRONG_PARTS, "RFC 7515 §7.1",
    )  # fmt: skip
    key = VerifyingKey.read(loot.jwk).key
    inner = token({"alg": "none"}, loot.wanted(), unsigned).encode()
    yield Attack(
        Family.FORM, "encrypted to our key", encrypted_to(key, inner, {"kid": loot.jwk["kid"], "cty": "JWT"}),  # type: ignore[arg-type]  # ES256
        "seals an unsigned token with our public key", Reason.WRONG_PARTS, "RFC 8725 §2.3",
        "pac4j-jwt, CVE-2026-29000",
    )  # fmt: skip


def _loads() -> Iterator[Attack]:
    yield Attack(
        Family.FORM, "10,000 dots", "." * 10_000, "makes the parser split for a while",
        Reason.TOO_LONG, "RFC 7515 §7.1", "golang-jwt, CVE-2025-30204",
    )  # fmt: skip
    yield Attack(
        Family.FORM, "3,000 brackets", token(b"[" * 3_000, {}, unsigned), "makes the JSON parser dive deep",
        Reason.NOT_A_JSON_OBJECT, "RFC 7515 §5.2",
    )  # fmt: skip
