"""Attacks by the attacker's own hands: he writes what he likes, and hopes that nobody checks the signature well."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from showcase.auth.domain.tokens import Reason
from showcase.auth.infrastructure.jwk import VerifyingKey
from workshop.attacks.attack import Attack, Family, Loot
from workshop.attacks.forging import P256_ORDER, Sign, as_der, b64, ecdsa, hs256, jwk_of, token, unsigned
from workshop.attacks.naive import pem_of


def forged(loot: Loot) -> list[Attack]:
    """All of them."""
    return [*_unsigned(loot), *_by_our_key(loot), *_by_his_key(loot), *_signatures(loot)]


def _unsigned(loot: Loot) -> Iterator[Attack]:
    for spelling, who in (
        ("none", "Apache Pulsar, CVE-2021-22160"),
        ("None", ""),
        ("NONE", ""),
        ("nOnE", "the API of Auth0, 2020"),
    ):
        yield Attack(
            Family.UNSIGNED, f"alg: {spelling}", _as_staff(loot, unsigned, alg=spelling),
            "says that it needs no signature", Reason.ALGORITHM_NONE, "RFC 8725 §3.2", who,
        )  # fmt: skip
    yield Attack(
        Family.UNSIGNED, "alg: none, signed", _as_staff(loot, lambda _: loot.signature, alg="none"),
        "brings a signature that nobody will look at", Reason.ALGORITHM_NONE, "RFC 8725 §3.2",
    )  # fmt: skip
    nameless = {name: value for name, value in loot.header.items() if name != "alg"}
    yield Attack(
        Family.UNSIGNED, "no alg at all", token(nameless, loot.wanted(), unsigned),
        "names no algorithm", Reason.WRONG_ALGORITHM, "RFC 7515 §4.1.1",
    )  # fmt: skip
    yield Attack(
        Family.UNSIGNED, "signature cut off", _as_staff(loot, unsigned),
        "leaves the third part empty", Reason.SIGNATURE_LENGTH, "RFC 7515 §5.2", "ServiceStack, CVE-2020-28042",
    )  # fmt: skip
    yield Attack(
        Family.UNSIGNED, "claims exchanged", _as_staff(loot, lambda _: loot.signature),
        "puts other claims under a genuine signature", Reason.BAD_SIGNATURE, "RFC 8725 §3.3",
        "DataHub, CVE-2022-39366",
    )  # fmt: skip


def _by_our_key(loot: Loot) -> Iterator[Attack]:
    der = VerifyingKey.read(loot.jwk).key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk = json.dumps(loot.jwk, separators=(",", ":")).encode()
    for form, secret, who in (
        ("PEM", pem_of(loot.jwk).encode(), "jsonwebtoken, CVE-2015-9235"),
        ("DER", der, "python-jose, its issue 398"),
        ("JWK", jwk, "PyJWT, CVE-2026-48526"),
    ):
        yield Attack(
            Family.OUR_KEY, f"HS256 with our {form}", _as_staff(loot, hs256(secret), alg="HS256"),
            f"uses our public key, as {form}, as a shared secret", Reason.WRONG_ALGORITHM, "RFC 8725 §3.1", who,
        )  # fmt: skip


def _by_his_key(loot: Loot) -> Iterator[Attack]:
    site, sign = loot.site, ecdsa(loot.site.key)
    certificate = base64.b64encode(site.certificate.public_bytes(Encoding.DER)).decode()
    for member, value, does, who in (
        ("jwk", jwk_of(site.key.public_key()), "brings its own key", "Cisco node-jose, CVE-2018-0114"),
        ("jku", f"{site.url}/keys.json", "says where to fetch its keys", ""),
        ("x5c", [certificate], "brings a certificate that it has signed itself", ""),
        ("x5u", f"{site.url}/certificate.pem", "says where to fetch its certificate", ""),
    ):
        yield Attack(
            Family.FOREIGN_KEY, f"{member} in the header", _as_staff(loot, sign, **{member: value}),
            does, Reason.KEY_IN_HEADER, "RFC 8725 §3.10", who,
        )  # fmt: skip
    secret = b"a secret of my own choice"
    for name, kid, key, does in (
        ("kid: a path", "../" * 20 + "dev/null", b"", "has an empty file read as the secret"),
        ("kid: SQL", f"' UNION SELECT '{secret.decode()}' --", secret, "has the database answer with his secret"),
    ):
        yield Attack(
            Family.FOREIGN_KEY, name, _as_staff(loot, hs256(key), alg="HS256", kid=kid),
            does, Reason.NO_KEY_ID, "RFC 8725 §3.10",
        )  # fmt: skip
    stranger = VerifyingKey.of(site.key.public_key()).kid
    yield Attack(
        Family.FOREIGN_KEY, "kid: his own key", _as_staff(loot, sign, kid=stranger),
        "names a key that is well made, and not ours", Reason.UNKNOWN_KEY, "RFC 7515 §4.1.4",
    )  # fmt: skip
    yield Attack(
        Family.FOREIGN_KEY, "no kid", token({"alg": "ES256", "typ": "at+jwt"}, loot.wanted(), sign),
        "hopes that every key will be tried", Reason.NO_KEY_ID, "RFC 7515 §4.1.4",
    )  # fmt: skip
    for name, guess, who in (
        ("empty secret", b"", "InfluxDB, CVE-2019-20933"),
        ("guessed secret", b"secret", "Kiali, CVE-2020-1764"),
    ):
        yield Attack(
            Family.FOREIGN_KEY, f"HS256, {name}", _as_staff(loot, hs256(guess), alg="HS256"),
            "hopes for a secret that was never set", Reason.WRONG_ALGORITHM, "RFC 8725 §3.5", who,
        )  # fmt: skip


def _signatures(loot: Loot) -> Iterator[Attack]:
    order = P256_ORDER.to_bytes(32)
    rsa_key = rsa.generate_private_key(65_537, 2_048)
    yield Attack(
        Family.SIGNATURE, "r = s = 0", _as_staff(loot, lambda _: bytes(64)),
        "is signed with 64 zeros", Reason.ZERO_SIGNATURE, "FIPS 186-5 §6.4.2", "Java 15 to 18, CVE-2022-21449",
    )  # fmt: skip
    yield Attack(
        Family.SIGNATURE, "r = s = n", _as_staff(loot, lambda _: order + order),
        "is signed with zero in other words", Reason.BAD_SIGNATURE, "FIPS 186-5 §6.4.2",
    )  # fmt: skip
    yield Attack(
        Family.SIGNATURE, "DER signature", ".".join((*loot.parts[:2], b64(as_der(loot.signature)))),
        "writes a genuine signature in another format", Reason.SIGNATURE_LENGTH, "RFC 7518 §3.4",
    )  # fmt: skip
    yield Attack(
        Family.SIGNATURE, "his key under our kid", _as_staff(loot, ecdsa(loot.site.key)),
        "signs with his key and names ours", Reason.BAD_SIGNATURE, "RFC 8725 §3.3",
    )  # fmt: skip
    yield Attack(
        Family.SIGNATURE, "ES384 under our kid",
        _as_staff(loot, ecdsa(generate_private_key(SECP384R1()), hashes.SHA384()), alg="ES384"),
        "changes the curve", Reason.WRONG_ALGORITHM, "RFC 8725 §3.1",
    )  # fmt: skip
    yield Attack(
        Family.SIGNATURE, "EdDSA under our kid", _as_staff(loot, Ed25519PrivateKey.generate().sign, alg="EdDSA"),
        "changes the kind of key", Reason.WRONG_ALGORITHM, "RFC 8725 §3.1",
    )  # fmt: skip
    yield Attack(
        Family.SIGNATURE, "RS256 under our kid",
        _as_staff(loot, lambda message: jwt.get_algorithm_by_name("RS256").sign(message, rsa_key), alg="RS256"),
        "changes the kind of key", Reason.WRONG_ALGORITHM, "RFC 8725 §3.1",
    )  # fmt: skip


def _as_staff(loot: Loot, sign: Sign, **header: Any) -> str:
    """The claims that he wants, under his own token's header with some members changed."""
    return token({**loot.header, **header}, loot.wanted(), sign)
