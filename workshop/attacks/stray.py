"""Tokens that our own key has signed, and that are not for us, not yet, or no longer.

No attacker makes these by himself: he is given them. One issuer signs ID tokens, tokens for other services and those of
last week with the same key; a bug of ours, or another service's, signs the odd ones. A good signature says who wrote
it, and not what for.
"""

import json
import time
import zlib
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

from showcase.auth.domain.tokens import Reason
from showcase.auth.infrastructure.jwk import SigningKey
from workshop.attacks.attack import Attack, Family, Loot
from workshop.attacks.forging import Json, ecdsa, token

HOUR_S = 3_600


def stray(loot: Loot, key: SigningKey) -> list[Attack]:
    """All of them.

    Args:
        key: the one that signs our tokens (ES256): what no attacker has.
    """
    return [*_headers(loot, key), *_purposes(loot, key), *_times(loot, key)]


def signed_by(key: SigningKey, loot: Loot, claims: Json | bytes, **header: Any) -> str:
    """What our issuer would have signed, with a header that is ours but for some members; None leaves one out."""
    members = {name: value for name, value in {**loot.header, **header}.items() if value is not None}
    return token(members, claims, ecdsa(key.private))  # type: ignore[arg-type]  # ES256


def _headers(loot: Loot, key: SigningKey) -> Iterator[Attack]:
    for name, header, does, reason, section, who in (
        ("crit", {"crit": ["bound-to"], "bound-to": "his phone"}, "demands a rule that we do not know",
         Reason.CRITICAL_EXTENSION, "RFC 7515 §4.1.11", "PyJWT, CVE-2026-32597"),
        ("b64: false", {"b64": False}, "says that its claims are not encoded", Reason.UNENCODED_PAYLOAD,
         "RFC 7797 §7", ""),
    ):  # fmt: skip
        yield Attack(Family.STRAY, name, signed_by(key, loot, loot.claims, **header), does, reason, section, who)
    packed = zlib.compress(json.dumps(loot.claims).encode())
    yield Attack(
        Family.STRAY, "zip", signed_by(key, loot, packed, zip="DEF"),
        "wants to be unpacked: 8 KiB can be 8 MiB", Reason.COMPRESSED, "RFC 8725 §3.6",
        "jwcrypto, CVE-2024-28102 (encrypted)",
    )  # fmt: skip
    yield Attack(
        Family.STRAY, "a token in a token", signed_by(key, loot, {"jwt": loot.access_token}, cty="JWT"),
        "is an envelope", Reason.NESTED, "RFC 7519 §5.2",
    )  # fmt: skip


def _purposes(loot: Loot, key: SigningKey) -> Iterator[Attack]:
    yield Attack(
        Family.STRAY, "refresh token", loot.refresh_token, "is for another door", Reason.WRONG_PARTS, "RFC 6749 §1.5",
    )  # fmt: skip
    id_token = {**loot.claims, "aud": loot.claims["client_id"], "nonce": str(uuid4())}
    yield Attack(
        Family.STRAY, "ID token", signed_by(key, loot, id_token, typ="JWT"),
        "tells a client who signed in, and opens nothing", Reason.WRONG_TYPE, "RFC 9068 §4",
    )  # fmt: skip
    yield Attack(
        Family.STRAY, "ID token for us", signed_by(key, loot, loot.claims, typ=None),
        "is of no type, and has our audience", Reason.WRONG_TYPE, "RFC 8725 §3.11",
    )  # fmt: skip
    twice = json.dumps(loot.claims)[:-1] + ', "sub": "staff/ada"}'
    for name, claims, does, reason, section, who in (
        ("another audience", {"aud": "https://files.example"}, "is for the file store", Reason.WRONG_AUDIENCE,
         "RFC 8725 §3.9", "Argo CD, CVE-2023-22482"),
        ("another issuer", {"iss": "https://test.shop.example"}, "is of our test system", Reason.WRONG_ISSUER,
         "RFC 8725 §3.8", ""),
        ("half an issuer", {"iss": loot.claims["iss"][:-1]}, "has an issuer that is a part of ours",
         Reason.WRONG_ISSUER, "RFC 8725 §3.8", "PyJWT, CVE-2024-53861"),
        ("sub with a new line", {"sub": "households/7\nstaff/ada signed in"}, "writes a line into our log",
         Reason.BAD_SUBJECT, "RFC 8725 §3.10", ""),
        ("sub: a list", {"sub": ["households/7", "staff/ada"]}, "has two subjects", Reason.MISTYPED_CLAIM,
         "RFC 7519 §4.1.2", ""),
        ("SID IN CAPITALS", {"sid": loot.claims["sid"].upper()}, "spells its session as no denylist has it",
         Reason.MISTYPED_CLAIM, "RFC 7519 §7.3", ""),
        ("sub twice", twice, "has two subjects: who reads which?", Reason.DUPLICATE_MEMBER, "RFC 7519 §4",
         "CouchDB, CVE-2017-12635 (not a token)"),
    ):  # fmt: skip
        whole = claims.encode() if isinstance(claims, str) else {**loot.claims, **claims}
        yield Attack(Family.STRAY, name, signed_by(key, loot, whole), does, reason, section, who)


def _times(loot: Loot, key: SigningKey) -> Iterator[Attack]:
    now = int(time.time())
    end = now + HOUR_S
    for name, changes, does, reason, section in (
        ("expired", f'"iat": {now - HOUR_S}, "exp": {now - 60}', "was good a minute ago", Reason.EXPIRED,
         "RFC 7519 §4.1.4"),
        ("no exp", "", "never ends", Reason.MISSING_CLAIM, "RFC 9068 §2.2"),
        ("exp: text", f'"exp": "{end}"', "has its end in quotes", Reason.MISTYPED_CLAIM, "RFC 7519 §2"),
        ("exp: NaN", '"exp": NaN', "is never greater, never less", Reason.NOT_A_JSON_OBJECT, "RFC 8259 §6"),
        ("exp: 1e999", '"exp": 1e999', "ends in infinity", Reason.NOT_A_TIME, "RFC 7519 §2"),
        ("exp: milliseconds", f'"exp": {end * 1000}', "ends in fifty thousand years", Reason.NOT_A_TIME,
         "RFC 7519 §2"),
        ("not yet", f'"exp": {end}, "nbf": {now + HOUR_S // 2}', "begins in half an hour", Reason.NOT_YET_VALID,
         "RFC 7519 §4.1.5"),
        ("from the future", f'"exp": {end + HOUR_S}, "iat": {end}', "was issued in an hour", Reason.ISSUED_IN_FUTURE,
         "RFC 7519 §4.1.6"),
    ):  # fmt: skip
        rest = {name: value for name, value in loot.claims.items() if name != "exp" and f'"{name}"' not in changes}
        claims = json.dumps(rest)[:-1] + (f", {changes}" if changes else "") + "}"
        yield Attack(Family.TIME, name, signed_by(key, loot, claims.encode()), does, reason, section)
